"""An activation that nobody here has heard of: its specification and one entry of the table, and it is trained, exported and served."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from indrnn.export.bundle import Bundle, read
from indrnn.export.write import write
from indrnn.kernels import native
from indrnn.kernels.activations import ACTIVATIONS, Activation
from indrnn.kernels.runtime import ort
from indrnn.model.cells import reference
from indrnn.model.cells.recurrence import recurrence
from indrnn.model.cells.recurrent_weight import clamp_recurrent_
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.checkpoint import Meta, load, save
from indrnn.service.engine.runtime import Engine
from indrnn.service.errors import OutOfRange
from indrnn.service.session import state_file
from indrnn.service.session.machine import Snapshot

ROOT = Path(__file__).parent.parent.parent
NAME = "softsign"
# f(a) = a / (1 + |a|), and f' = (1 - |h|)^2 of its output h. Several nodes, so that an entry is not one operator of ONNX.
SOFTSIGN = Activation(
    onnx="""away = Abs (a)
            one_float = Constant <value_float = 1.0> ()
            one = CastLike (one_float, a)
            below = Add (away, one)
            {y} = Div (a, below)""",
    value=lambda a, alpha: a / (1 + a.abs()),
    slope=lambda g, h, alpha: g * (1 - h.abs()) ** 2,
    least=-1.0,
    most=1.0,
)


@pytest.fixture(scope="module", autouse=True)
def softsign() -> Iterator[None]:
    """All that an activation is registered by: its specification, its entry."""
    reference.ACTIVATIONS[NAME] = lambda a, alpha: a / (1 + np.abs(a))
    ACTIVATIONS[NAME] = SOFTSIGN
    yield
    del ACTIVATIONS[NAME], reference.ACTIVATIONS[NAME]


def network() -> SequenceNet:
    torch.manual_seed(0)
    return SequenceNet(SequenceConfig(layers=2, hidden=6, T=30, norm="before", nonlinearity=NAME, inputs=2, classes=3))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[SequenceNet, Bundle]:
    """The network after one step of training, folded, and its bundle, by way of a checkpoint; export compares them, and each cell."""
    net, folder = network(), tmp_path_factory.mktemp(NAME)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    net.train()
    net.answer(torch.randn(4, 9, 2)).square().mean().backward()
    optimizer.step()
    clamp_recurrent_(net)
    assert not [name for name, p in net.named_parameters() if torch.equal(p, before[name])]
    with torch.no_grad():
        for layer in net.stack.indrnns():
            layer.cell.u.clamp_(-0.99, 0.99)
    meta = Meta("tensor", "", 0, 0, labels=("x", "y", "z"), told={"features": [{"name": "a"}, {"name": "b"}], "answer": "end"})
    save(folder / "net.pt", net, meta)
    module, meta = load(folder / "net.pt")
    assert isinstance(module, SequenceNet)
    return module, write(module, meta, folder / "bundles", "net", "1", command="")


@pytest.mark.parametrize("lens", [(5, 0, 3), (5, 5, 5)])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_it_is_the_specification_and_its_gradient_the_derivative(lens: tuple[int, ...], direction: str) -> None:
    g = torch.Generator().manual_seed(3)
    x, u, h = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((5, 3, 4), (4,), (3, 4)))
    got = recurrence(x, u, torch.tensor(lens), h, NAME, direction=direction)
    want = reference.indrnn(x.numpy(), u.numpy(), np.array(lens), h.numpy(), NAME, direction=direction)
    for answered, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(answered, expected, atol=1e-12)
    given = [t.requires_grad_() for t in (x, u, h)]
    assert torch.autograd.gradcheck(lambda *t: recurrence(t[0], t[1], torch.tensor(lens), t[2], NAME, direction=direction), given)


def test_the_file_answers_what_the_network_answers_whole_and_split(exported: tuple[SequenceNet, Bundle]) -> None:
    net, bundle = exported
    assert read(bundle.graph.parent).manifest == bundle.manifest
    assert [p.activation for p in bundle.manifest.state if p.role == "hidden"] == [NAME, NAME]
    assert bundle.manifest.parity_error <= 1e-4
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    x, lengths = np.random.default_rng(0).normal(size=(3, 41, 2)).astype(np.float32), np.array([41, 0, 17])
    with torch.no_grad():
        want, end = net(torch.from_numpy(x), torch.from_numpy(lengths), net.start(3))
    state, done = np.zeros((3, net.state_size), np.float32), 0
    for take in (1, 7, 30, 3):
        here = np.clip(lengths - done, 0, take)
        logits, state = session.run(None, {"x": x[:, done : done + take], "lengths": here, "state": state})
        for b, n in enumerate(here):
            np.testing.assert_allclose(logits[b, :n], want[b, done : done + n].numpy(), atol=1e-4)
        done += take
    np.testing.assert_allclose(state, end.numpy(), atol=1e-4)


def test_the_service_runs_it_where_its_kernel_does_not_know_it(exported: tuple[SequenceNet, Bundle]) -> None:
    assert NAME not in native.ACTIVATIONS
    assert Engine(exported[1], "cpu", 1, 2).kernel == "loop"


def test_states_that_a_client_uploads_lie_within_the_bounds_of_the_table(exported: tuple[SequenceNet, Bundle]) -> None:
    manifest, state = exported[1].manifest, np.zeros(exported[0].state_size, np.float32)
    told = state_file.StateFile("net", "1", manifest.sha256, Snapshot(state, 1, 1, None))
    state_file.check(told, manifest)
    state[2] = 1.5
    with pytest.raises(OutOfRange, match="expected -1 to 1 in part hidden, got"):
        state_file.check(told, manifest)


def naming(pattern: str) -> set[str]:
    """Files of ours, tests and the two pages of the kernels' own apart, in which a line matches."""
    rooms = [ROOT / name for name in ("bench", "client", "export", "frames", "kernels", "model", "service")]
    files = [path for room in rooms for path in room.rglob("*") if path.suffix in (".py", ".h", ".cpp", ".cu")]
    assert len(files) > 160
    return {str(path.relative_to(ROOT)) for path in files if re.search(pattern, path.read_text(encoding="utf-8"))}


def test_no_file_of_ours_names_it_and_one_that_is_ours_stands_in_two_and_the_kernels() -> None:
    assert not naming(r"\bsoftsign\b|Softsign")
    named = naming(r"""["']leaky_relu["']|\bLeakyRelu\b""")
    assert {path for path in named if not path.startswith("kernels/")} == {"model/cells/reference.py"}
    assert {path for path in named if path.startswith("kernels/")} == {
        "kernels/activations.py",  # the table
        "kernels/activations.h",  # a kernel on CPUs and for ONNX Runtime's CUDA provider
        "kernels/native.py",
        "kernels/indrnn.h",
        "kernels/ort_op.h",
        "kernels/cuda_op.cu",
        "kernels/triton_recurrence.py",  # and one for PyTorch on GPUs
    }


def test_what_the_kernels_know_is_in_the_table_and_specified() -> None:
    assert set(native.ACTIVATIONS) == set(ACTIVATIONS) - {NAME}
    assert set(reference.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", [*native.ACTIVATIONS, NAME])
def test_every_entry_of_the_table_is_its_specification(name: str) -> None:
    """Value and slope as the table has them, also where PyTorch's loop takes a quicker way to the same numbers."""
    a = torch.linspace(-4, 4, 81, dtype=torch.float64)
    entry = ACTIVATIONS[name]
    h = entry.value(a.clone(), 0.1)
    np.testing.assert_allclose(h, reference.ACTIVATIONS[name](a.numpy(), 0.1), atol=1e-15)
    assert entry.least <= h.min()
    assert h.max() <= entry.most
    up, down = (reference.ACTIVATIONS[name](a.numpy() + d, 0.1) for d in (1e-6, -1e-6))
    kink = 1.0 if name == "piecewise_linear" else 0.0
    smooth = (a.abs() - kink).abs() > 1e-3
    slope = entry.slope(torch.full_like(a, 3.0), h, 0.1)
    np.testing.assert_allclose(slope[smooth], 3 * (up - down)[smooth.numpy()] / 2e-6, atol=1e-6)
