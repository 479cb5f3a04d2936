"""A cell that nobody here has heard of: registered in the table, trained by the command, exported, and no file of ours is touched."""

import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from indrnn.__main__ import main
from indrnn.export.bundle import read
from indrnn.kernels.runtime import ort
from indrnn.model.cells.cell import Cell, Floats, Lowering, StatePart, Stepwise
from indrnn.model.cells.table import CELLS
from indrnn.model.data import treebank
from indrnn.model.training import checkpoint

ROOT = Path(__file__).parent.parent.parent


class MinimalGatedUnit(Stepwise):
    """f = sigmoid(W_f x + U_f h),  n = tanh(W_n x + U_n (f * h)),  h' = (1 - f) * h + f * n  (Zhou et al., 2016, arXiv 1603.09420)."""

    name = "mgu"
    about = "A network of minimal gated units (Zhou et al., 2016)"
    carried = "Its layers are a `Loop` of standard operators."
    endless = "h stays within ±1 however long a stream goes on."

    def __init__(self, inputs: int, size: int, bound: float = 1.0, low: float = 0.0, activation: str = "relu") -> None:
        super().__init__(inputs, size)
        self.w = nn.Parameter(torch.randn(2 * size, inputs) * inputs**-0.5)
        self.uf, self.un = (nn.Parameter(torch.randn(size, size) * size**-0.5) for _ in range(2))

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.size,)

    def parts(self) -> tuple[StatePart, ...]:
        return (StatePart("hidden", self.size, name="h", activation="tanh"),)

    def one_step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x_f, x_n = (x.to(state.dtype) @ self.w.T).split(self.size, 1)
        f = torch.sigmoid(x_f + state @ self.uf.T)
        h = (1 - f) * state + f * torch.tanh(x_n + (f * state) @ self.un.T)
        return h, h

    def step_lowering(self) -> Lowering:
        w, uf, un = (p.detach().float().numpy().T for p in (self.w, self.uf, self.un))
        nodes = f"""
            x_both = MatMul (x, W)
            sizes = Constant <value_ints = [{self.size}, {self.size}]> ()
            x_f, x_n = Split <axis = 1> (x_both, sizes)
            h_f = MatMul (s, Uf)
            sum_f = Add (x_f, h_f)
            f = Sigmoid (sum_f)
            kept = Mul (f, s)
            h_n = MatMul (kept, Un)
            sum_n = Add (x_n, h_n)
            n = Tanh (sum_n)
            away = Sub (n, s)
            moved = Mul (f, away)
            y = Add (s, moved)
            s_next = Identity (y)
        """
        return Lowering({"W": w, "Uf": uf, "Un": un}, nodes)

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        x_f, x_n = np.split(weights["w"] @ x, 2)
        f = 1 / (1 + np.exp(-(x_f + weights["uf"] @ state)))
        h = (1 - f) * state + f * np.tanh(x_n + weights["un"] @ (f * state))
        return h, h


@pytest.fixture
def mgu() -> Iterator[str]:
    """The one line that the cell needs beside its own file."""
    CELLS["mgu"] = MinimalGatedUnit
    yield "mgu"
    del CELLS["mgu"]


@torch.no_grad()
def test_its_loop_does_what_it_specifies(mgu: str) -> None:
    torch.manual_seed(0)
    cell, rng = CELLS[mgu](5, 4).double(), np.random.default_rng(0)
    x, state = rng.normal(size=(6, 3, 5)), rng.normal(size=(3, 4))
    for lengths in (None, np.array([6, 0, 2])):
        got = cell(torch.from_numpy(x), None if lengths is None else torch.from_numpy(lengths), torch.from_numpy(state))
        for answered, expected in zip(got, cell.specified(x, lengths, state), strict=True):
            np.testing.assert_allclose(answered, expected, atol=1e-12)
    y, after = cell(torch.zeros(0, 3, 5), torch.tensor([0, 0, 0]), torch.from_numpy(state))
    assert (y.shape, after.tolist()) == ((0, 3, 4), state.tolist())


def test_a_tenth_cell_is_trained_by_the_command_and_exported(mgu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    (tmp_path / "ptb").mkdir()
    for name in treebank.PARTS.values():
        (tmp_path / "ptb" / f"ptb.{name}.txt.gz").write_bytes(gzip.compress(b" the cat sat on the <unk> mat \n" * 60))
    out = tmp_path / "run"
    sizes = ["--hidden", "16", "--layers", "2", "--rows", "4", "--length", "16", "--rate", "0.01", "--epoch", "10", "--warmup", "5"]
    steps = ["--steps", "40", "--decay", "10", "--average", "10", "--no-progress", "--out", str(out)]
    assert main(["train", "ptb-char", "--cell", mgu, *sizes, *steps]) == 0
    losses = [float(line.split()[-1]) for line in (out / "log.txt").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]
    assert main(["export", str(out / "model.pt"), str(tmp_path / "bundles")]) == 0
    bundle = read(tmp_path / "bundles" / "chars" / "1")
    assert (bundle.manifest.cell, [p.name for p in bundle.manifest.state]) == (mgu, ["h", "h", None])
    assert MinimalGatedUnit.about in (bundle.graph.parent / "CARD.md").read_text()
    net, _ = checkpoint.load(out / "model.pt")
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    for B, T in ((1, 1), (1, 70), (3, 33)):
        x = np.random.default_rng(T).integers(0, net.classes, (B, T))
        lengths = np.array([T, T // 2, 0][:B])
        state = np.zeros((B, net.state_size), np.float32)
        got, _ = session.run(None, {"x": x, "lengths": lengths, "state": state})
        want, _ = net(torch.from_numpy(x), torch.from_numpy(lengths), torch.from_numpy(state))
        for b, n in enumerate(lengths):
            np.testing.assert_allclose(got[b, :n], want[b, :n].numpy(), atol=1e-4)
    assert main(["inspect", str(out / "model.pt")]) == 1  # refused in words, as any cell without u


def naming(pattern: str) -> set[str]:
    """Files of ours, tests apart, in which a line matches."""
    rooms = [ROOT / name for name in ("bench", "client", "export", "frames", "kernels", "model", "service")]
    files = [path for room in rooms for path in room.rglob("*.py")]
    assert len(files) > 150
    return {str(path.relative_to(ROOT)) for path in files if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)}


def test_no_file_of_ours_names_the_tenth_and_two_name_one_that_is_ours() -> None:
    assert not naming(r"\bmgu\b|MinimalGatedUnit|Minimal gated")
    assert naming(r"^class GRU\b|cells\.gru\b|cells import .*\bgru\b") == {"model/cells/gru.py", "model/cells/table.py"}


def test_a_cell_is_what_the_table_says_it_is() -> None:
    assert all(issubclass(cell, Cell) and cell.name == name for name, cell in CELLS.items())
