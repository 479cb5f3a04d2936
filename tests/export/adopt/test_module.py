"""Any module with layers or cells of ours is exported with its states, and adopted; other ways into PyTorch take it as well."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import indrnn.export
from indrnn.export.adopt.adoption import adopt, saved
from indrnn.export.adopt.handfed import open_session
from indrnn.export.adopt.layout import Told
from indrnn.export.errors import GraphError
from indrnn.model.cells.cell import Cell
from indrnn.model.cells.table import CELLS
from indrnn.model.indrnn import IndRNN, IndRNNCell


class Tagger(nn.Module):
    """A user's own module: two layers of ours between layers of PyTorch."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read = nn.Linear(3, 6)
        self.rnn = IndRNN(6, 5, num_layers=2, batch_first=True, **options)  # type: ignore[arg-type]
        self.answer = nn.Linear(5 * (2 if options.get("bidirectional") else 1), 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(torch.tanh(self.read(x)), h)
        return self.answer(y), h


class Celled(nn.Module):
    """One of the cells, called as its own docstring says, without lengths."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        made = CELLS[cell]
        self.read = nn.Linear(3, 4)
        self.cell: Cell = made(4, 4)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.cell(self.read(x), None, state)
        return y, state


class OneStep(nn.Module):
    """A cell that is stepped by its user."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = IndRNNCell(3, 4)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return h.sum(1, keepdim=True), h


class Unrolled(nn.Module):
    """A time loop in Python."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        out = []
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] + 0.5 * h)
            out.append(h)
        return torch.stack(out, 1), h


def adopted(model: onnx.ModelProto, tmp_path: Path, module: nn.Module, x: Tensor, state: Tensor) -> None:
    """Adopt what was written, and compare its bundle with the module, x [B, T, 3] as the bundle has it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    adoption = adopt(path, Told(), steps=50)
    assert adoption.faults == []
    feeds = {
        "x": x.numpy(),
        "lengths": np.full(len(x), x.shape[1], np.int64),
        "state": np.zeros((len(x), adoption.plan.state_size), np.float32),
    }
    with saved(adoption.model) as graph:
        (logits,) = open_session(graph).run(["logits"], feeds)
    first = adoption.plan.fed[0].axes.batch == 0
    with torch.no_grad():
        want = module(x if first else x.transpose(0, 1), state)[0]
    assert logits == pytest.approx((want if first else want.transpose(0, 1)).numpy(), abs=1e-5)


def test_a_user_s_module_is_exported_with_its_state_and_adopted(tmp_path: Path) -> None:
    module = Tagger()
    module.train()
    model = indrnn.export.to_onnx(module, (torch.randn(2, 6, 3), torch.zeros(2, 2, 5)))
    assert module.training
    assert [v.name for v in model.graph.input] == ["x", "h"]
    assert [v.name for v in model.graph.output] == ["y", "h_out"]
    assert model.functions  # the portable body: any runtime takes it
    adopted(model, tmp_path, module.eval(), torch.randn(3, 9, 3), torch.zeros(2, 3, 5))


@pytest.mark.parametrize("cell", ["indrnn", "lstm"])
def test_every_cell_is_exported_for_any_length(tmp_path: Path, cell: str) -> None:
    module = Celled(cell).eval()
    size = module.cell.state_size
    model = indrnn.export.to_onnx(module, (torch.randn(6, 2, 3), torch.zeros(2, size)))
    adopted(model, tmp_path, module, torch.randn(3, 9, 3), torch.zeros(3, size))


def test_one_step_of_a_cell_is_exported(tmp_path: Path) -> None:
    model = indrnn.export.to_onnx(OneStep(), (torch.randn(2, 3), torch.zeros(2, 4)), outputs=["total", "h_next"])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    adoption = adopt(tmp_path / "model.onnx", Told(), steps=50)
    assert adoption.faults == []
    assert [a.name for a in adoption.plan.answers] == ["total"]


def test_a_layer_in_both_directions_is_exported_and_not_adopted(tmp_path: Path) -> None:
    model = indrnn.export.to_onnx(Tagger(bidirectional=True), (torch.randn(2, 6, 3), torch.zeros(4, 2, 5)))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert "ahead" in {f.check for f in adopt(tmp_path / "model.onnx", Told(), steps=50).faults}


def test_a_time_loop_in_python_is_refused() -> None:
    with pytest.raises(GraphError):
        indrnn.export.to_onnx(Unrolled(), (torch.randn(2, 6, 3), torch.zeros(2, 3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_that_no_graph_of_ours_has_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(GraphError, match=f"expected weights and inputs of float32 or float64, got {str(dtype)[6:]}"):
        indrnn.export.to_onnx(Tagger().to(dtype), (torch.randn(2, 6, 3, dtype=dtype), torch.zeros(2, 2, 5, dtype=dtype)))


class Mixed(nn.Module):
    """PyTorch's LSTM below a layer of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.more = IndRNN(4, 4, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, (h, c))
        return self.more(y)[0], h, c


LSTM = """
import indrnn.export, torch
class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, batch_first=True)
    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x, (h, c))
        return y, h, c
model = indrnn.export.to_onnx(Plain(), (torch.randn(2, 6, 3), torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
print([[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.output])
"""


def test_an_lstm_of_pytorch_s_has_its_answers_for_any_length() -> None:
    """In a process of its own: what PyTorch's exporter makes of an LSTM hangs on what the process has exported before."""
    ran = subprocess.run([sys.executable, "-c", LSTM], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines()[-1] == "[['B', 'T', 4], [1, 'B', 4], [1, 'B', 4]]"


@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_exports_at_the_example_s_sizes_is_refused_in_words() -> None:
    with pytest.raises(GraphError):
        indrnn.export.to_onnx(Mixed(), (torch.randn(2, 6, 3), torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))


def test_wrong_names_are_refused() -> None:
    with pytest.raises(GraphError, match="expected 2 names of inputs and 2 of outputs"):
        indrnn.export.to_onnx(OneStep(), (torch.randn(2, 3), torch.zeros(2, 4)), outputs=["one"])


def test_reading_bundles_needs_no_exporter() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = indrnn.export.nothing


@pytest.mark.parametrize("way", ["trace", "export", "compile"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_other_ways_of_pytorch_take_our_layers(way: str) -> None:
    module = Tagger().eval()
    args = (torch.randn(2, 6, 3), torch.zeros(2, 2, 5))
    if way == "trace":
        run = torch.jit.trace(module, args)
    elif way == "export":
        run = torch.export.export(module, args).module()
    else:
        run = torch.compile(module, backend="aot_eager", fullgraph=True)
    for got, want in zip(run(*args), module(*args), strict=True):
        assert torch.allclose(got, want, atol=1e-6)
