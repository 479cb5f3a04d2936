"""Files in ONNX Runtime: the adopted one, fed by hand, which its bundle is compared with, and the graph round it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indrnn.export import kit
from indrnn.export.adopt.packing import BITS, PIECES
from indrnn.export.adopt.plan import Array, Axes, Plan, State
from indrnn.export.errors import AdoptError
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort


def open_session(path: Path) -> ort.InferenceSession:
    """Return a file in the runtime, one thread. Raises AdoptError with the runtime's reason."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if library := registered():
        options.register_custom_ops_library(str(library))
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common base of their own
        raise AdoptError(f"{path}: ONNX Runtime does not take it: {' '.join(str(error).split())[:300]}") from error


def run(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run once -> outputs by name. Raises the runtime's own exceptions."""
    names = [o.name for o in session.get_outputs()]
    taken = {i.name for i in session.get_inputs()} | {i.name for i in session.get_overridable_initializers()}
    return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in taken}), strict=True))


def wrapped_run(session: ort.InferenceSession) -> kit.Run:
    """Return what runs a bundle's graph: (x, lengths, state) -> logits, state after them."""

    def run(x: kit.Array, lengths: NDArray[np.int64], state: kit.Floats) -> tuple[kit.Floats, kit.Floats]:
        logits, after = session.run(["logits", "state_out"], {"x": x, "lengths": lengths, "state": state})
        return logits, after

    return run


def place(values: NDArray[np.float32], axes: Axes, dtype: str, frame: int = 1) -> Array:
    """Return values [B, T, frame * size] as the file's tensor. frame: samples of a window."""
    B, T = values.shape[:2]
    order = [i for i in (axes.batch, axes.time) if i is not None]
    order += [axes.window] if axes.window is not None else []
    others = [i for i in range(len(axes.shape)) if i not in order]
    sizes = [n for n, axis in ((B, axes.batch), (T, axes.time)) if axis is not None]
    sizes += [frame] if axes.window is not None else []
    shaped = values.reshape([*sizes, *(axes.shape[i] for i in others)])
    placed = np.transpose(shaped, np.argsort([*order, *others]))
    return placed > 0.5 if dtype == "bool" else placed.astype(dtype)


def collect(tensor: Array, axes: Axes) -> NDArray[np.float32]:
    """Return the file's tensor as [B, T, size]; what has no batch or time axis has one row or step."""
    order = [i for i in (axes.batch, axes.time) if i is not None]
    others = [i for i in range(tensor.ndim) if i not in order]
    moved = np.transpose(tensor, [*order, *others])
    B = tensor.shape[axes.batch] if axes.batch is not None else 1
    T = tensor.shape[axes.time] if axes.time is not None else 1
    return moved.reshape(B, T, -1).astype(np.float32)


def start(state: State, rows: int = 1) -> Array:
    """Return a state at the start of sequences: its initial values, else zeros."""
    shape = state.axes.at(rows, 1)
    if state.initial is None:
        return np.zeros(shape, state.dtype)
    from_packed = unpacked(state.initial, state.dtype)
    order = [state.axes.batch] if state.axes.batch is not None else []
    others = [i for i in range(len(shape)) if i not in order]
    rowed = np.repeat(from_packed, rows, 0).reshape([shape[i] for i in [*order, *others]])
    return np.transpose(rowed, np.argsort([*order, *others])) if shape else rowed.reshape(())


def unpacked(packed: NDArray[np.float32], dtype: str) -> Array:
    """Return packed numbers [rows, n] in their own type again."""
    count = PIECES[dtype]
    if count == 1:
        return packed > 0.5 if dtype == "bool" else packed.astype(dtype)
    parts = np.split(packed, count, 1)
    if dtype == "float64":
        return parts[2].astype(np.float64) + parts[1] + parts[0]
    whole = parts[-1].astype(np.int64)
    for part in reversed(parts[:-1]):
        whole = (whole << BITS) + part.astype(np.int64)
    return whole.astype(dtype)


def answers_by_hand(session: ort.InferenceSession, plan: Plan, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits [T, K] for x [T, F], a step or a window at a time, every state carried by its name as the file's user would."""
    states = {s.name: start(s) for s in plan.states}
    found = np.zeros((len(x), plan.logit_size), np.float32)
    held = np.zeros(plan.numbers, np.float32)
    w, frame = max(plan.window, 1), plan.context + plan.window
    padded = np.concatenate([np.zeros((plan.context, x.shape[1]), np.float32), x])
    for t in range(len(x)):
        ends = (t + 1) % w == 0
        if ends:
            samples = padded[t + 1 - w : t + 1 + plan.context] if plan.window else x[t : t + 1]
            feeds: dict[str, Array] = {**plan.constants, **states}
            at = 0
            for fed in plan.fed:
                part = samples[:, at : at + fed.axes.size].reshape(1, 1, -1)
                feeds[fed.name], at = place(part, fed.axes, fed.dtype, max(frame, 1)), at + fed.axes.size
            outputs = run(session, feeds)
            states = {s.name: outputs[s.output] for s in plan.states}
            held = np.concatenate([collect(outputs[a.name], a.axes)[0, 0] for a in plan.answers])
        found[t, : plan.numbers] = held
        if plan.window:
            found[t, -1] = ends
    return found
