"""explain.onnx is the gradient: PyTorch's, and the differences of the network itself, for every modality, portable and fused."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from test_cell_bundles import ALPHABET, action, chars

from indrnn.__main__ import main
from indrnn.export import explain
from indrnn.export.bundle import DIAGONAL_TYPE, EXPLAIN, BundleError, Manifest, read
from indrnn.export.errors import GraphError
from indrnn.kernels.build import KernelMissing, build
from indrnn.kernels.runtime import ort
from indrnn.model.cells.classic.bidirectional import Bidirectional
from indrnn.model.cells.diagonal.backward import indrnn_backward
from indrnn.model.cells.recurrence import ACTIVATIONS, DIRECTIONS, recurrence, recurrence_backward_op
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.nets.stories import StoriesConfig
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.nets.wordwise import WordwiseNet
from indrnn.model.training.checkpoint import Meta, save

NUMBERS = Meta("tensor", "", 0, 0, labels=("a", "b"), told={"features": [{"name": "x"}, {"name": "y"}], "answer": "end"})


def tensor(cell: str, **more: Any) -> StateNet:
    net = TensorNet(TensorConfig((0.0, 0.0), (1.0, 1.0), 2, hidden=8, cell=cell, **{"layers": 2, **more}))
    torch.nn.init.normal_(net.readout.weight, std=0.5)
    return net


MADE: dict[str, tuple[Callable[[str], StateNet], str]] = {
    "tensor": (tensor, "indrnn"),
    "tensor-mingru": (tensor, "mingru"),
    "both-ways": (lambda cell: tensor(cell, bidirectional=True, layers=1), "mingru"),  # IndRNN's is tests/system/test_explaining.py's
    "chars": (chars, "indrnn"),
    "action": (action, "indrnn"),
}


@pytest.fixture(scope="module", params=MADE)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[StateNet, Path]:
    """The network folded, and the folder of its explanation."""
    build_net, cell = MADE[request.param]
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("explain")
    net = build_net(cell).fold()
    model = explain.to_onnx(net, torch.from_numpy(content(net, 2, 6)), torch.tensor([5, 6]))
    (folder / EXPLAIN).write_bytes(model.SerializeToString())
    return net, folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole bundle with an explanation, by way of the command."""
    folder: Path = tmp_path_factory.mktemp("bundle")
    save(folder / "net.pt", tensor("indrnn"), NUMBERS)
    assert main(["export", str(folder / "net.pt"), str(folder / "bundles"), "--name", "net", "--explain"]) == 0
    return folder / "bundles" / "net" / "1"


def content(net: StateNet, B: int, T: int) -> NDArray[Any]:
    rng = np.random.default_rng(B * T)
    if isinstance(net, TensorNet):
        return rng.normal(size=(B, T, 2)).astype(np.float32)
    if hasattr(net, "gate"):
        return rng.normal(size=(B, T, 2, 5, 3)).astype(np.float32)
    return rng.integers(0, len(ALPHABET), (B, T))


def session(folder: Path, fused: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if fused:
        try:
            options.register_custom_ops_library(str(build()))
        except KernelMissing as missing:
            pytest.skip(str(missing))
    return ort.InferenceSession(folder / EXPLAIN, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("fused", [False, True], ids=["portable", "fused"])
def test_it_is_pytorch_s_gradient_at_any_batch_and_length(made: tuple[StateNet, Path], fused: bool) -> None:
    net, folder = made
    running = session(folder, fused)
    for B, T in ((1, 1), (1, 60), (4, 13)):
        x, lengths = content(net, B, T), np.array([T, max(1, T // 2), 1, T][:B])
        weights = np.random.default_rng(0).normal(size=(B, net.classes)).astype(np.float32)
        got = running.run(list(explain.OUTPUTS), {"x": x, "lengths": lengths, "weights": weights})
        want = explain.explanation(net, *(torch.from_numpy(a) for a in (x, lengths, weights)))
        for answered, expected in zip(got, want, strict=True):
            scale = max(1.0, float(expected.abs().max()))
            np.testing.assert_allclose(answered, expected, rtol=0, atol=1e-5 * scale)
        past = np.arange(T) >= lengths[:, None]
        assert not got[0][past].any()


def test_it_is_the_difference_that_a_small_change_makes(made: tuple[StateNet, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the network in float64, along one direction: by every number that it reads, or by the vectors of its symbols."""
    net, folder = made
    x, T = content(net, 1, 12), 12
    weights = np.random.default_rng(0).normal(size=(1, net.classes)).astype(np.float32)
    gradient, _, _ = session(folder).run(None, {"x": x, "lengths": np.array([T]), "weights": weights})
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # float64 throughout: a difference of 1e-6 drowns in float32
    wide = copy.deepcopy(net).double()
    symbols = not np.issubdtype(x.dtype, np.floating)
    given = torch.from_numpy(x) if symbols else torch.from_numpy(x).double()
    way = torch.ones(1, T, dtype=torch.float64) if symbols else torch.randn_like(given)

    def score(amount: float) -> float:
        state = torch.zeros(1, wide.state_size, dtype=torch.float64)
        if not symbols:
            logits, _ = wide(given + amount * way, torch.tensor([T]), state)
        else:  # along each symbol's own vector: all of them longer by the same factor
            part = next(m for m in wide.modules() if isinstance(m, torch.nn.Embedding))
            handle = part.register_forward_hook(lambda _, __, out: out * (1 + amount))
            logits, _ = wide(given, torch.tensor([T]), state)
            handle.remove()
        return float((logits[0, -1] * torch.from_numpy(weights[0]).double()).sum())

    with torch.no_grad():
        difference = (score(1e-6) - score(-1e-6)) / 2e-6
    assert float((gradient * way.numpy()).sum()) == pytest.approx(difference, rel=1e-4, abs=1e-4)


def test_the_share_of_neurons_that_are_off(made: tuple[StateNet, Path]) -> None:
    net, folder = made
    x = content(net, 1, 20)
    weights = np.ones((1, net.classes), np.float32)
    _, logits, off = session(folder).run(None, {"x": x, "lengths": np.array([20]), "weights": weights})
    assert off.shape == (1, 20)
    assert (0 <= off).all()
    assert (off <= 1).all()
    assert off.any() == (net.cell == "indrnn")
    with torch.no_grad():
        every, _ = net(torch.from_numpy(x), torch.tensor([20]), net.start(1))
    np.testing.assert_allclose(logits, every[:, -1], atol=1e-4)


def test_the_backward_pass_is_the_diagonal_recurrence(made: tuple[StateNet, Path]) -> None:
    net, folder = made
    model = onnx.load(folder / EXPLAIN)
    backwards = [n for n in model.graph.node if n.op_type == DIAGONAL_TYPE and n.overload.endswith("reverse")]
    assert len(backwards) >= len(net.stack.indrnns())  # type: ignore[operator, union-attr]
    axes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*model.graph.input, *model.graph.output)}
    assert axes["x"][:2] == axes["gradient"][:2] == axes["off"] == ["B", "T"]
    assert axes["lengths"] == ["B"]
    assert axes["weights"] == axes["logits"] == ["B", net.classes]


def test_another_file_in_its_place_is_refused(bundle: Path) -> None:
    folder = bundle
    assert read(folder).explanation == folder / EXPLAIN
    assert "--explain" in (folder / "CARD.md").read_text()
    kept = (folder / EXPLAIN).read_bytes()
    try:
        (folder / EXPLAIN).write_bytes(kept + b"\0")
        with pytest.raises(BundleError, match=r"explain.onnx: expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"):
            read(folder)
        (folder / EXPLAIN).unlink()
        with pytest.raises(BundleError, match=r"explain.onnx: expected sha256 [0-9a-f]{64}, got no file"):
            read(folder)
    finally:
        (folder / EXPLAIN).write_bytes(kept)


def test_a_bundle_without_one_reads_as_before(bundle: Path, tmp_path: Path) -> None:
    told = json.loads((bundle / "manifest.json").read_text())
    assert told.pop("explain")["error"] <= 1e-4
    plain = tmp_path / "net" / "1"
    plain.mkdir(parents=True)
    (plain / "manifest.json").write_text(json.dumps(told))
    (plain / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    assert read(plain).explanation is None


def wide(seed: int) -> StateNet:
    torch.manual_seed(seed)
    net = TensorNet(TensorConfig((0.0, 0.0), (1.0, 1.0), 2, hidden=48, layers=2, cell="indrnn"))
    torch.nn.init.normal_(net.readout.weight, std=0.5)
    return net


def test_it_is_added_to_a_version_that_exists_and_borrows_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file of the version stays as it is, whatever the order of attributes and the names of nodes in it."""
    bundles, folder = tmp_path / "bundles", tmp_path / "bundles" / "net" / "1"
    save(tmp_path / "net.pt", wide(0), NUMBERS)
    save(tmp_path / "other.pt", wide(1), NUMBERS)
    assert main(["export", str(tmp_path / "net.pt"), str(bundles), "--name", "net"]) == 0
    old = onnx.load(folder / "model.onnx")
    for node in old.graph.node:
        node.name = f"of another release {node.name}"
    (folder / "model.onnx").write_bytes(old.SerializeToString())
    told = json.loads((folder / "manifest.json").read_text())
    told["sha256"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(told))
    before = (folder / "model.onnx").read_bytes()
    card = (folder / "CARD.md").read_text()
    add = ["export", str(tmp_path / "net.pt"), str(bundles), "--name", "net", "--explain", "--add"]
    assert main(["export", str(tmp_path / "other.pt"), *add[2:]]) == 1
    assert "expected the weights that it was exported from" in capsys.readouterr().err
    assert read(folder).explanation is None
    assert {f.name for f in folder.iterdir()} == {"model.onnx", "manifest.json", "CARD.md"}
    assert main(add) == 0
    assert (folder / "model.onnx").read_bytes() == before
    assert read(folder).manifest.model_dump(exclude={"explain"}) == Manifest.model_validate(told).model_dump(exclude={"explain"})
    now = (folder / "CARD.md").read_text()
    assert next(line for line in now.splitlines() if line not in card.splitlines()) == "## Explanation"
    assert now.index("--name net\n") < now.index("--explain --add\n```\n")
    lent = [w for w in onnx.load(folder / EXPLAIN, load_external_data=False).graph.initializer if w.external_data]
    assert {e.value for w in lent for e in w.external_data if e.key == "location"} == {"model.onnx"}
    assert [list(w.dims) for w in lent] == [[48, 48]]
    x, lengths, weights = torch.randn(2, 9, 2), torch.tensor([9, 4]), torch.ones(2, 2)
    got = session(folder).run(None, {"x": x.numpy(), "lengths": lengths.numpy(), "weights": weights.numpy()})
    for answered, expected in zip(got, explain.explanation(wide(0).fold(), x, lengths, weights), strict=True):
        np.testing.assert_allclose(answered, expected, atol=1e-4)
    assert main(add) == 1
    assert "has an explanation already" in capsys.readouterr().err
    assert main([*add, "--force"]) == 1


def test_attributes_of_an_exported_graph_are_in_the_order_of_their_names(bundle: Path) -> None:
    """The exporter's order is another in each process; equal weights are to give equal bytes."""
    for node in (n for name in ("model.onnx", EXPLAIN) for n in onnx.load(bundle / name).graph.node):
        assert [a.name for a in node.attribute] == sorted(a.name for a in node.attribute)


@pytest.mark.parametrize("name", ["action", "chars"])
def test_the_bundles_that_come_along_have_one(name: str) -> None:
    bundle = read(Path(__file__).parents[2] / "bundles" / name / "2")
    assert bundle.explanation is not None
    assert bundle.explanation.stat().st_size < 100_000
    assert len(ort.InferenceSession(bundle.explanation, providers=["CPUExecutionProvider"]).get_outputs()) == 3


@pytest.mark.parametrize("both", [False, True])
def test_a_network_of_other_cells_says_that_it_has_none(both: bool) -> None:
    with pytest.raises(GraphError, match="no explanation of a network of gru"):
        explain.to_onnx(tensor("gru", bidirectional=both).fold(), torch.zeros(2, 6, 2), torch.tensor([5, 6]))


def test_neurons_that_are_off_stand_at_their_own_step_in_both_directions() -> None:
    net = tensor("indrnn", bidirectional=True).fold()
    x, lengths = torch.randn(2, 6, 2), torch.tensor([5, 6])
    seen: list[torch.Tensor] = []
    for part in net.modules():
        if isinstance(part, Bidirectional):
            part.register_forward_hook(lambda _, __, out: seen.append((out[0] <= 0).float()))
    _, _, off = explain.explanation(net, x, lengths, torch.ones(2, 2))
    torch.testing.assert_close(off, torch.cat(seen, 2).mean(2).T)
    assert len(seen) == 2


def test_word_numbers_have_none() -> None:
    net = WordwiseNet(StoriesConfig(words=5, width=3, classes=2, cell="indrnn", hidden=4)).fold()
    x, lengths = torch.ones(2, 6, 3), torch.tensor([5, 6])
    for refuses in (lambda: explain.explanation(net, x, lengths, torch.ones(2, 2)), lambda: explain.to_onnx(net, x, lengths)):
        with pytest.raises(GraphError, match="no explanation of word numbers: they have no gradient"):
            refuses()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_written_out_gradient_is_the_operator_s(activation: str, direction: str) -> None:
    g = torch.Generator().manual_seed(0)
    x, dy, u, h0, dy_h = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((7, 3, 4), (7, 3, 4), (4,), (3, 4), (3, 4)))
    lens = torch.tensor([7, 0, 4])
    y, _ = recurrence(x, u, lens, h0, activation, 0.1, direction)
    rest = (y, u, lens, h0, activation, 0.1, direction)
    for got, want in zip(indrnn_backward(dy, dy_h, *rest), recurrence_backward_op(dy, dy_h, *rest), strict=True):
        torch.testing.assert_close(got, want)


def test_joints_of_nobody_have_a_gradient_of_zero() -> None:
    """The distance between two joints in one place has no slope; an absent person's joints are all in one place."""
    from indrnn.model.nets.action import distances

    joints = torch.zeros(1, 1, 2, 3, 3)
    joints[0, 0, 0] = torch.randn(3, 3)
    joints.requires_grad_()
    (gradient,) = torch.autograd.grad(distances(joints).sum(), joints)
    assert gradient[0, 0, 0].any()
    assert not gradient[0, 0, 1].any()


@pytest.mark.parametrize("cell", ["indrnn", "mingru"])
def test_a_subsampled_network_says_that_it_has_none(cell: str) -> None:
    """Its layers do not make the same steps, so that no share of neurons stands at each."""
    config = SequenceConfig("subsampled", norm="none", cell=cell, layers=2, hidden=6, T=30, gamma=0.5, inputs=2, classes=2, window=2)
    net = SequenceNet(config).fold()
    x, lengths = torch.randn(2, 6, 2), torch.tensor([5, 6])
    for refuses in (lambda: explain.explanation(net, x, lengths, torch.ones(2, 2)), lambda: explain.to_onnx(net, x, lengths)):
        with pytest.raises(GraphError, match="no explanation of a subsampled network"):
            refuses()
