"""Files that both of PyTorch's exporters write of its own layers are adopted, and answer what the module does."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from indrnn.export.adopt.adoption import adopt, saved
from indrnn.export.adopt.handfed import open_session
from indrnn.export.adopt.layout import Told

LAYERS = {"GRU": 1, "LSTM": 2}


class Recurrent(nn.Module):
    """Layers of PyTorch's own, batch first."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = getattr(nn, kind)(3, 5, LAYERS[kind], batch_first=True)
        self.readout = nn.Linear(5, 2)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, after = self.rnn(x, state if len(state) > 1 else state[0])
        return (self.readout(y), *(after if len(state) > 1 else (after,)))


class Gru(Recurrent):
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return super().forward(x, h)


class Lstm(Recurrent):
    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return super().forward(x, h, c)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_file_of_either_exporter_is_adopted(tmp_path: Path, kind: str, dynamo: bool) -> None:
    module = (Gru if kind == "GRU" else Lstm)(kind).eval()
    names = ["x", "h"] if kind == "GRU" else ["x", "h", "c"]
    example = (torch.randn(2, 4, 3), *(torch.zeros(LAYERS[kind], 2, 5) for _ in names[1:]))
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        if dynamo:
            shapes = ({0: Dim("B"), 1: Dim("T")}, *({1: Dim("B")} for _ in names[1:]))
            torch.onnx.export(module, example, path, dynamo=True, dynamic_shapes=shapes, verbose=False)
        else:
            outputs = ["y", *(f"{n}n" for n in names[1:])]
            axes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}, **{n: {1: "batch"} for n in (*names[1:], *outputs[1:])}}
            torch.onnx.export(module, example, path, dynamo=False, input_names=names, output_names=outputs, dynamic_axes=axes)
    adoption = adopt(path, Told(), steps=50)
    assert adoption.faults == []
    assert adoption.plan.whole
    assert [s.axes.batch for s in adoption.plan.states] == [1] * len(names[1:])
    x = torch.randn(3, 7, 3)
    feeds = {"x": x.numpy(), "lengths": np.full(3, 7, np.int64), "state": np.zeros((3, adoption.plan.state_size), np.float32)}
    with saved(adoption.model) as graph:
        (logits,) = open_session(graph).run(["logits"], feeds)
    with torch.no_grad():
        want = module(x, *(torch.zeros(LAYERS[kind], 3, 5) for _ in names[1:]))[0]
    assert logits == pytest.approx(want.numpy(), abs=1e-5)
