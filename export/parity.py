"""Does the exported graph answer what the PyTorch module answers, whole and split, and each cell what its specification says?"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from indrnn.export.errors import ExportError
from indrnn.export.modalities.modality import Sample
from indrnn.kernels.runtime import ort
from indrnn.model.cells.cell import Cell

EXAMPLE = (2, 6)  # B, T of the example that is exported; no case below may share either
CASES = ((1, 1), (1, 331), (3, 1), (5, 67), (9, 33))  # B, T: one is 1, one is longer, one is odd
# The service runs what the optimiser makes of the graph; without it the graph is what we wrote.
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)

CELL_CASE = (3, 7)  # B, T of each cell's own check
CELL_BOUND = 1e-4  # of its largest number, float32 against float64

Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]  # logits [B, T, K], state [B, N]


def largest_error(
    graph: bytes,
    module: nn.Module,
    sample: Sample,
    state_size: int,
    seed: int = 0,
    longest: int | None = None,
    unit: NDArray[np.float64] | float = 1.0,
    streams: bool = True,
) -> float:
    """Return the largest |ONNX Runtime - PyTorch| in a logit, at all sizes in CASES, ragged; NaN when one of them answers NaN.

    graph: model.onnx, run on the CPU without a kernel of ours; whole, and in pieces of random length that differ from row to row (some
    are empty) with the state carried. module: in evaluation mode, run on whole sequences only. What lies past a row's length is noise.
    longest: steps that the model is good for; with |u| > 1 states, and rounding errors with them, grow beyond. unit: [K], what a difference
    is measured in (a value in pascals cannot be told to 1e-4 in float32). streams: whether sequences may come in pieces.
    """
    rng = np.random.default_rng(seed)
    worst = 0.0
    for level in LEVELS:
        session = _session(graph, level)
        for B, T in CASES:
            T = T if longest is None else min(T, longest)
            x = sample(rng, B, T)
            lengths = rng.integers(0, T + 1, B)
            lengths[rng.integers(B)] = T
            state = np.zeros((B, state_size), np.float32)
            with torch.no_grad():
                want = module(torch.from_numpy(x), torch.from_numpy(lengths), torch.from_numpy(state))[0].numpy()
            whole, _ = _run(session, x, lengths, state)
            answers = [whole, *([_run_split(session, sample, rng, x, lengths, state)[0]] if streams else [])]
            valid = np.arange(T) < lengths[:, None]
            errors = [(np.abs(got - want) / unit)[valid].max() for got in answers]
            worst = float(np.max([worst, *errors]))  # np.max keeps a NaN
    return worst


def check_cells(module: nn.Module, seed: int = 0) -> None:
    """Raises ExportError unless every cell of the module answers what its specification in NumPy says, ragged rows and states included.

    A cell that forgets a recurrent weight forgets it in its graph as well, and passes every comparison of the two.
    """
    rng, (B, T) = np.random.default_rng(seed), CELL_CASE
    for cell in (m for m in module.modules() if isinstance(m, Cell)):
        x, state = rng.normal(size=(T, B, cell.inputs)), rng.normal(size=(B, cell.state_size))
        lengths = np.array([T, 0, T // 2])
        want = cell.specified(x, lengths, state)
        with torch.no_grad():
            got = cell(torch.from_numpy(x).float(), torch.from_numpy(lengths), torch.from_numpy(state).float())
        for expected, answered in zip(want, got, strict=True):
            error = np.abs(expected - answered.numpy()).max() / max(1.0, np.abs(expected).max())
            if not error <= CELL_BOUND:
                raise ExportError(f"the cell {cell.name} and its specification differ by {error:.2g}; expected at most {CELL_BOUND:g}")


def _session(graph: bytes, level: ort.GraphOptimizationLevel) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, x: NDArray[np.generic], lengths: NDArray[np.int64], state: NDArray[np.float32]) -> Arrays:
    logits, state_out = session.run(["logits", "state_out"], {"x": x, "lengths": lengths, "state": state})
    return logits, state_out


def _run_split(
    session: ort.InferenceSession,
    sample: Sample,
    rng: np.random.Generator,
    x: NDArray[np.generic],
    lengths: NDArray[np.int64],
    state: NDArray[np.float32],
) -> Arrays:
    """Run as `_run` does, each row in pieces of its own: every round takes 0 to `longest` of the steps a row has left."""
    B, T = x.shape[:2]
    done = np.zeros(B, np.int64)
    logits: NDArray[np.float32] | None = None
    while (done < lengths).any():
        longest = int(rng.choice([1, 2, 7, 30]))
        take = np.minimum(rng.integers(0, longest + 1, B), lengths - done)
        piece = sample(rng, B, longest)
        for b in range(B):
            piece[b, : take[b]] = x[b, done[b] : done[b] + take[b]]
        answer, state = _run(session, piece, take, state)
        if logits is None:
            logits = np.zeros((B, T, answer.shape[2]), np.float32)
        for b in range(B):
            logits[b, done[b] : done[b] + take[b]] = answer[b, : take[b]]
        done += take
    assert logits is not None  # one row has T >= 1 steps
    return logits, state
