"""Networks of every cell become bundles: ONNX's own operators, the numbers of PyTorch, any split, any neighbours."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from test_bundle import chars_manifest
from test_fixed_axes import check_fixed
from torch import Tensor

from indrnn.export import graph, lowering, parity
from indrnn.export.bundle import Bundle, Manifest, read
from indrnn.export.card import card
from indrnn.export.errors import ExportError, GraphError
from indrnn.export.write import export, write
from indrnn.frames.layouts import LAYOUTS
from indrnn.kernels.runtime import ort
from indrnn.model.cells.cell import Cell, Lowering
from indrnn.model.cells.gru import GRU
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.checkpoint import Meta, load, save

OPERATORS = {"gru": "GRU", "lstm": "LSTM", "tanh": "RNN", "irnn": "RNN"}
ALPHABET = "abcdefg"
OWN = {"own": (LAYOUTS["utd20"][0][:5], tuple((j,) for j in range(5)))}
CHARS = Meta("chars", "", 0, 0, alphabet=ALPHABET)
ACTION = Meta("action", "", 0, 0, labels=("a", "b", "c"), layout="own", layouts=OWN, persons=2, hz=30.0)


def stirred(net: StateNet) -> StateNet:
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("norm.var"):
                tensor.copy_(0.5 + torch.rand_like(tensor))
            elif "cell" not in name:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return net


def chars(cell: str) -> StateNet:
    return stirred(CharsNet(CharsConfig(len(ALPHABET), hidden=12, layers=3, cell=cell)))


def action(cell: str) -> StateNet:
    return stirred(ActionNet(ActionConfig(5, 2, 1, 3, hidden=12, layers=2, across=((0, 1),), cell=cell)))


def sequence(cell: str) -> StateNet:
    sizes: dict[str, Any] = {"layers": 2, "hidden": 8, "T": 20, "inputs": 30, "classes": 3, "frames": True}
    return stirred(SequenceNet(SequenceConfig(kind="conv", norm="after", per_step=True, cell=cell, **sizes)))


MADE = {"chars": (chars, CHARS), "action": (action, ACTION), "sequence": (sequence, ACTION)}


@pytest.fixture(
    scope="module", params=[(kind, cell) for cell in OPERATORS for kind in MADE if cell in ("gru", "lstm") or kind == "chars"], ids="-".join
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, StateNet, Bundle]:
    """Name of the cell, the network folded, and its bundle, by way of a checkpoint."""
    kind, cell = request.param
    torch.manual_seed(0)
    build, meta = MADE[kind]
    folder: Path = tmp_path_factory.mktemp("cells")
    save(folder / "net.pt", build(cell), meta)
    module, meta = load(folder / "net.pt")
    return cell, module, write(module, meta, folder / "bundles", "net", "1", command="", max_position=500 if cell == "irnn" else None)


def inputs(net: StateNet, B: int, T: int) -> NDArray[Any]:
    rng = np.random.default_rng(B * T)
    if isinstance(net, CharsNet):
        return rng.integers(0, len(ALPHABET), (B, T))
    return rng.normal(size=(B, T, 2, 5, 3)).astype(np.float32)


class Running:
    """A bundle in stock ONNX Runtime, and the network it came from."""

    def __init__(self, net: StateNet, bundle: Bundle) -> None:
        self.net, self.size = net, bundle.manifest.state_size
        self.hidden = sum(p.size for p in bundle.manifest.state if p.role == "hidden")
        self.session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])

    def ask(self, x: NDArray[Any], lengths: list[int], state: NDArray[np.float32] | None = None) -> list[NDArray[np.float32]]:
        state = np.zeros((len(x), self.size), np.float32) if state is None else state
        answers: list[NDArray[np.float32]] = self.session.run(None, {"x": x, "lengths": np.array(lengths), "state": state})
        return answers

    @torch.no_grad()
    def torch(self, x: NDArray[Any], lengths: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, state = self.net(torch.from_numpy(x), torch.tensor(lengths), self.net.start(len(x)))
        return logits.numpy(), state.numpy()


@pytest.fixture
def running(exported: tuple[str, StateNet, Bundle]) -> Running:
    return Running(exported[1], exported[2])


@pytest.mark.parametrize(("B", "T"), [(1, 1), (1, 90), (3, 1), (3, 41), (5, 7)])
def test_the_file_answers_what_the_network_answers(running: Running, B: int, T: int) -> None:
    x, lengths = inputs(running.net, B, T), [T, *([0, T // 2, T, 1][: B - 1])]
    for got, want in zip(running.ask(x, lengths), running.torch(x, lengths), strict=True):
        if got.ndim == 3:
            for b, n in enumerate(lengths):
                np.testing.assert_allclose(got[b, :n], want[b, :n], atol=1e-4)
        else:
            np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 30])
def test_any_split_ends_alike(running: Running, size: int) -> None:
    x = inputs(running.net, 2, 43)
    whole, end = running.ask(x, [43, 43])
    state, pieces = None, []
    for start in range(0, 43, size):
        piece = x[:, start : start + size]
        logits, state = running.ask(piece, [piece.shape[1]] * 2, state)
        pieces.append(logits)
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, atol=1e-4)
    assert state is not None
    np.testing.assert_allclose(state, end, atol=1e-4)


def test_neither_a_neighbour_of_nan_nor_what_stands_past_a_length_matters(running: Running) -> None:
    x, state = inputs(running.net, 3, 9), np.zeros((3, running.size), np.float32)
    alone, ended = running.ask(x[:1, :5], [5])
    state[1:, : running.hidden] = np.nan
    if x.dtype == np.float32:
        x[0, 5:], x[1:] = np.nan, np.nan
    logits, after = running.ask(x, [5, 9, 0], state)
    np.testing.assert_allclose(logits[:1, :5], alone, atol=1e-5)
    np.testing.assert_allclose(after[:1], ended, atol=1e-5)


def test_with_fixed_axes_it_answers_the_same(running: Running, exported: tuple[str, StateNet, Bundle]) -> None:
    for T, B in ((1, 3), (4, 2)):
        state = np.zeros((B, running.size), np.float32)
        check_fixed(onnx.load(exported[2].graph), {"x": inputs(running.net, B, T), "lengths": np.full(B, T), "state": state}, T, B)


def test_a_row_of_no_steps_keeps_its_state(running: Running) -> None:
    state = np.random.default_rng(0).uniform(-0.5, 0.5, (2, running.size)).astype(np.float32)
    _, after = running.ask(inputs(running.net, 2, 4), [4, 0], state)
    assert np.array_equal(after[1], state[1])
    assert not np.array_equal(after[0], state[0])


def test_the_file_has_onnx_s_own_operator_and_the_manifest_and_the_card_name_the_cell(exported: tuple[str, StateNet, Bundle]) -> None:
    cell, net, bundle = exported
    model = onnx.load(bundle.graph)
    onnx.checker.check_model(model, full_check=True)
    layers = len(net.stack.indrnns())  # type: ignore[operator, union-attr]
    assert sum(n.op_type == OPERATORS[cell] for n in model.graph.node) == layers
    pooled = isinstance(net, ActionNet)  # by ops of ours, whatever the cell
    assert {o.domain for o in model.opset_import} == ({"", "ai.indrnn"} if pooled else {""})
    m = bundle.manifest
    assert m.cell == cell
    names = ["h", "c"] if cell == "lstm" else ["h"]
    hidden = [(p.layer, p.name, p.u) for p in m.state if p.role == "hidden"]
    assert hidden == [(i, name, None) for i in range(layers) for name in names]
    text = (bundle.graph.parent / "CARD.md").read_text()
    assert CELLS[cell].about in text
    assert f"operator `{OPERATORS[cell]}`" in text
    assert CELLS[cell].endless in text
    assert ("ai.indrnn::IndRNN" in text) is pooled
    assert "independently recurrent" not in text


def test_what_nothing_bounds_states_its_horizon(tmp_path: Path) -> None:
    save(tmp_path / "net.pt", chars("irnn"), CHARS)
    with pytest.raises(ExportError, match="nothing bounds the state of the cell irnn: --max-position is required"):
        export(*load(tmp_path / "net.pt"))


class Forgetful(GRU):
    """Leaves out its recurrent weights, in PyTorch and so in its graph."""

    def run(self, x: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            self.rnn.weight_hh_l0.zero_()  # type: ignore[operator]
        return super().run(x, lengths, state)

    def specified(self, *given: Any) -> Any:
        with torch.no_grad():
            self.rnn.weight_hh_l0.fill_(0.1)  # type: ignore[operator]
        return super().specified(*given)


class Wrong(GRU):
    """Has its gates in PyTorch's order where ONNX has another."""

    order = (0, 1, 2)


class Illegible(GRU):
    """Has a lowering that is no ONNX."""

    def lowering(self) -> Lowering:
        return Lowering({}, "Y = = X")


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (Forgetful, "the cell gru and its specification differ by"),
        (Wrong, "ONNX Runtime and PyTorch differ by"),
        (Illegible, "the lowering of the cell gru_0 is no ONNX text"),
    ],
)
def test_a_cell_that_is_not_what_it_says_is_not_exported(
    cell: type[Cell], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(CELLS, "gru", cell)
    torch.manual_seed(0)
    save(tmp_path / "net.pt", chars("gru"), CHARS)
    with pytest.raises(ExportError, match=said):
        export(*load(tmp_path / "net.pt"))


def test_a_network_that_leaves_a_cell_out_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "net.pt", chars("gru"), CHARS)
    net, _ = load(tmp_path / "net.pt")
    net.spare = GRU(2, 2)
    with pytest.raises(GraphError, match=r"expected a node for each of 4 cells, got those of \[0, 1, 2\]"):
        graph.to_onnx(net, torch.zeros(2, 6, dtype=torch.int64), torch.tensor([5, 6]), net.start(2))
    assert all(cell.number is None for cell in net.modules() if isinstance(cell, Cell))


def alone(cell: Cell) -> ort.InferenceSession:
    """The cell's lowering, and nothing round it."""
    told = cell.lowering()
    assert told is not None
    text = lowering._FUNCTION.format(
        opset=18, domain="alone", name="F", given=", ".join(("X", "lengths", "state", *told.weights)), nodes=told.nodes
    )
    given = [onnx.helper.make_tensor_value_info("X", 1, ["T", "B", cell.inputs]), onnx.helper.make_tensor_value_info("lengths", 7, ["B"])]
    given.append(onnx.helper.make_tensor_value_info("state", 1, ["B", cell.state_size]))
    made = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("Y", "state_out")]
    weights = [onnx.numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in told.weights.items()]
    node = onnx.helper.make_node("F", ["X", "lengths", "state", *told.weights], ["Y", "state_out"], domain="alone")
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("alone", 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", given, made, weights), opset_imports=opsets, functions=[onnx.parser.parse_function(text)]
    )
    model.ir_version = 10
    return ort.InferenceSession(onnx.inliner.inline_local_functions(model).SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("lengths", [(5, 0, 3), (5, 5, 5), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
@torch.no_grad()
def test_a_lowering_computes_what_the_specification_says_without_steps_too(name: str, lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    cell, rng = CELLS[name](5, 4), np.random.default_rng(0)
    for p in cell.parameters():
        p.add_(0.4 * torch.randn_like(p))
    session = alone(cell)
    state = rng.uniform(-1, 1, (3, cell.state_size)).astype(np.float32)
    for T in (5, 0):
        x, ends = rng.normal(size=(T, 3, 5)).astype(np.float32), np.minimum(lengths, T)
        got = session.run(None, {"X": x, "lengths": ends, "state": state})
        for answered, expected in zip(got, cell.specified(x, ends, state), strict=True):
            assert answered.shape == expected.shape
            np.testing.assert_allclose(answered, expected, atol=1e-5)


NAMED = {"role": "hidden", "name": "h", "layer": 0, "offset": 0, "size": 2, "activation": "tanh"}
LAST = chars_manifest()["state"][1]


def test_a_manifest_names_its_cell_and_an_old_one_is_of_indrnn() -> None:
    old = chars_manifest()
    assert "cell" not in old
    assert Manifest.model_validate(old).cell == "indrnn"
    m = Manifest.model_validate(chars_manifest(cell="gru", state=[NAMED, LAST]))
    assert (m.cell, m.state[0].name, m.max_abs_u) == ("gru", "h", 0.0)
    assert "1 layers of 2 neurons (state h)" in card(m, "")
    assert Manifest.model_validate_json(m.model_dump_json()) == m


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": "gru"}, "expected hidden parts of the cell 'gru', with u if and only if it is indrnn"),
        ({"state": [NAMED, LAST]}, "expected hidden parts of the cell 'indrnn'"),
        ({"cell": "GRU"}, "cell"),
        ({"cell": "gru", "state": [{**NAMED, "u": [0.1, 0.2]}, LAST]}, "a part with a name is hidden, states its layer and has no u"),
        ({"cell": "gru", "state": [{**NAMED, "layer": None}, LAST]}, "a part with a name is hidden"),
        ({"cell": "gru", "state": [NAMED, {**LAST, "name": "h"}]}, "a part with a name is hidden"),
    ],
)
def test_a_manifest_whose_parts_are_not_its_cell_s_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(chars_manifest(**changes))


def test_every_cell_is_compared_with_its_specification_before_a_bundle_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(GRU, "specified", lambda self, *given: seen.append(self.name) or Cell.specified(self, *given))
    parity.check_cells(chars("gru"))
    assert seen == ["gru"] * 3


def test_a_bundle_of_another_cell_is_read_as_any_other(exported: tuple[str, StateNet, Bundle]) -> None:
    assert read(exported[2].graph.parent).manifest == exported[2].manifest
