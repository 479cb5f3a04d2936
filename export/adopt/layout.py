"""Where the batch and the time lie in each tensor of a file: guesses, the likeliest first, each tried by running it."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import NoReturn

import numpy as np
from onnx import TensorProto, numpy_helper

from indrnn.export.adopt.handfed import open_session, place, run, start
from indrnn.export.adopt.packing import pieces
from indrnn.export.adopt.pairs import Pair, find_pairs
from indrnn.export.adopt.plan import Answer, Array, Axes, Fed, Plan, State
from indrnn.export.adopt.source import OnnxFile, Value
from indrnn.export.errors import AdoptError
from indrnn.kernels.runtime import ort

BATCH = re.compile(r"batch|bs|bsz|^b$|^n$|^streams?$", re.IGNORECASE)
TIME = re.compile(r"time|seq|^t$|len|frames?|steps?|chunk|samples", re.IGNORECASE)
GUESSES = 400  # that are tried at most; two states and an input with two free axes make 24
SEEDS = 0


@dataclass(frozen=True)
class Told:
    """What a user says of a file where it cannot be found out, or differently. initial, constants: by name."""

    states: Mapping[str, str] = field(default_factory=dict)
    batch_axes: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    initial: Mapping[str, Array] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    window: int = 0
    context: int = 0
    stepped: bool = False


@dataclass(frozen=True)
class Guess:
    """Where the axes of a file's states and inputs may lie; alone: no tensor has a batch."""

    states: dict[str, Axes]
    fed: dict[str, Axes]
    alone: bool

    @property
    def timed(self) -> bool:
        """Return whether some input has a time axis."""
        return any(a.time is not None for a in self.fed.values())


class GrowingState(AdoptError):
    """Of every guess that runs, a state comes out with another shape than it went in with."""

    def __init__(self, state: State, was: tuple[int, ...], now: tuple[int, ...]) -> None:
        super().__init__(
            f"{state.name}: its shape grows or changes from {list(was)} to {list(now)} ({state.output}): a session keeps a state of a "
            "fixed size; export it with a window that slides"
        )
        self.state = state.name


def discover(source: OnnxFile, told: Told) -> Plan:
    """Return how a file is fed. Raises AdoptError in one line that names the tensor and what would help."""
    if told.context and not told.window:
        raise AdoptError(f"--context {told.context}: expected --window as well, the samples that come after these")
    weights = {w.name: w for w in source.model.graph.initializer}
    defaults = frozenset(weights)
    real = [v for v in source.inputs if v.name not in defaults or v.name in told.states]
    optional = [v for v in source.inputs if v.name in defaults and v.name not in told.states]
    constants = _constants(source.inputs, told)
    fixed = frozenset(constants)
    pairs = find_pairs([*real, *optional], source.outputs, told.states, fixed)
    names = {p.input.name for p in pairs}
    _check_names(told, names, source)
    rest = [v for v in real if v.name not in names and v.name not in fixed]
    if not rest:
        raise AdoptError(
            f"every input is a state ({', '.join(sorted(names))}): nothing is left to feed; --state in:out names the states alone"
        )
    if told.window and len(rest) > 1:
        raise AdoptError(
            f"--window: expected one input of samples, got {', '.join(v.name for v in rest)}; --constant gives the others a value"
        )
    session = open_session(source.path)
    try:
        guess, notes = _first_that_runs(session, pairs, rest, constants, told)
    except GrowingState as error:  # as where a flag of each row is taken for one of each step
        if told.stepped or told.window:
            raise
        told = replace(told, stepped=True)
        guess, notes = _first_that_runs(session, pairs, rest, constants, told)
        notes = (*notes, f"{error.state} has another size after several steps at once: it runs a step at a time")
    states = tuple(_state(p, guess.states[p.input.name], told, weights) for p in pairs)
    fed = tuple(Fed(v.name, v.dtype, guess.fed[v.name]) for v in rest)
    outs = {p.output.name for p in pairs}
    trial = _Trial(session, states, fed, constants, told)
    answers, dropped, every = _answers(trial, guess, [v for v in source.outputs if v.name not in outs])
    if not answers:
        raise AdoptError(f"no output besides states ({', '.join(outs)}) has an answer for each row: nothing would be returned")
    bare = next((f for f in fed if f.axes.time is not None and not f.axes.own and not every), None)
    if bare is not None and not told.stepped and not told.window:
        _refuse_bare(bare.name, str(next(v for v in rest if v.name == bare.name).shape[bare.axes.time or 0]))
    whole = not told.stepped and not told.window and every and all(f.axes.time is not None for f in fed)
    said = (*source.notes, *notes, *dropped, *(() if whole or told.stepped or told.window else _whole_steps(rest, fed)))
    return Plan(states, fed, answers, constants, told.window, told.context, whole, guess.alone, said)


def _whole_steps(rest: Sequence[Value], fed: Sequence[Fed]) -> Iterator[str]:
    """Yield what is said of inputs several of whose axes are one step: one of them may have been time when the file was exported."""
    for value, axes in ((v, f.axes) for v, f in zip(rest, fed, strict=True)):
        sizes = [n for i, n in enumerate(value.shape) if i not in (axes.batch, axes.time) and isinstance(n, int) and n > 1]
        if len(sizes) > 1:
            yield f"a step of {value.name} is all of its {' x '.join(map(str, sizes))} numbers: where one of these is time, export it free"


def _check_names(told: Told, states: set[str], source: OnnxFile) -> None:
    inputs = {v.name for v in source.inputs}
    for option, names in (("--constant", told.constants), ("--batch-axis", told.batch_axes)):
        for name in names:
            if name not in inputs:
                raise AdoptError(f"{option} {name}: the file has no such input, but {', '.join(sorted(inputs))}")
    for name in told.initial:
        if name not in states:
            raise AdoptError(f"--initial {name}: expected a state, one of {', '.join(sorted(states))}")


def _constants(inputs: Sequence[Value], told: Told) -> dict[str, Array]:
    found = {}
    for value in inputs:
        given = told.constants.get(value.name)
        if given is None:
            continue
        shape = tuple(n if isinstance(n, int) else 1 for n in value.shape)
        try:
            array = _in_type(f"--constant {value.name}", np.asarray(given), value.dtype)
            found[value.name] = array if array.shape == shape else np.broadcast_to(array, shape).copy()
        except (ValueError, TypeError) as error:
            raise AdoptError(f"--constant {value.name}: expected {value}, got {np.asarray(given).dtype} {list(np.shape(given))}") from error
    return found


def _in_type(title: str, given: Array, dtype: str, kept: str = "") -> Array:
    """Return numbers in the type of a tensor, whose values are kept in another one where `kept` names it.

    Raises AdoptError where a number would become another one: whole numbers beyond the type, fractions as whole numbers, and numbers that
    only infinity is left of. Raises TypeError where they are no numbers.
    """
    if given.dtype.kind not in "biufO":  # O: whole numbers of more than 64 bits
        raise TypeError(f"expected numbers, got {given.dtype}")
    try:
        with np.errstate(all="ignore"):  # what is out of range is told below
            cast: Array = given.astype(dtype)
            if np.can_cast(given.dtype, kept or dtype):
                return cast
            narrow = cast.astype(kept or dtype)
    except OverflowError:
        cast = narrow = np.full(given.shape, np.inf if dtype.startswith("float") else 0)
    pairs = zip(given.ravel().tolist(), narrow.ravel().tolist(), strict=True)  # Python compares whole numbers with any others exactly
    if not dtype.startswith("float"):
        wrong = [one for one, got in pairs if one != got]
        expected = "true or false" if dtype == "bool" else f"whole numbers from {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"
    else:
        wrong = [one for one, got in pairs if math.isinf(got) and abs(one) != math.inf]
        expected = f"numbers of at most {np.finfo(kept or dtype).max:g}"
    if wrong:
        raise AdoptError(f"{title}: expected {expected} ({dtype}{f', kept as {kept}' if kept else ''}), got {str(wrong[0])[:40]}")
    return cast


# --- guesses ----------------------------------------------------------------------------------------------------------------------------


def _dims(value: Value, told: Told) -> tuple[int | str, ...]:
    """Return a shape with the free axes that are told as numbers; they are named by their symbol, or as tensor.axis."""
    return tuple(n if isinstance(n, int) else told.dims.get(f"{value.name}.{i}", told.dims.get(n, n)) for i, n in enumerate(value.shape))


def _state_axes(pair: Pair, told: Told, alone: bool) -> list[Axes]:
    value, shape = pair.input, _dims(pair.input, told)
    free = [i for i, n in enumerate(shape) if isinstance(n, str)]
    batch = told.batch_axes.get(value.name)
    if batch is not None and not 0 <= batch < len(shape):
        raise AdoptError(f"--batch-axis {value.name}={batch}: expected one of its {len(shape)} axes, from 0")
    beside = [i for i in free if i != batch]
    most = 1 if batch is None else 0
    if len(beside) > most:
        _refuse_free(pair, shape, [i for i in beside if not BATCH.search(str(shape[i]))] or beside)
    if alone:
        return [Axes(tuple(1 if isinstance(n, str) else n for n in shape))]
    axes = [batch] if batch is not None else free
    return [Axes(tuple(1 if i == b or isinstance(n, str) else n for i, n in enumerate(shape)), b) for b in axes]


def _refuse_free(pair: Pair, shape: Sequence[int | str], axes: Sequence[int]) -> NoReturn:
    value, out = pair.input, pair.output
    for i in axes:
        mine, its = value.shape[i], out.shape[i] if i < len(out.shape) else None
        name = str(shape[i])
        if isinstance(its, str) and its != mine and "." not in str(its):
            raise AdoptError(
                f"{value.name}: its axis {i} grows ({mine} in, {its} out): a cache that grows is no state of a fixed size: export it with "
                f"a window that slides, or --dim {name}=N where it does not grow"
            )
    i = axes[-1]
    raise AdoptError(f"{value.name}: its axis {i} is free ({shape[i]}), and a state has a fixed size: --dim {shape[i]}=N says which")


def _fed_axes(value: Value, told: Told, alone: bool) -> list[Axes]:
    shape = _dims(value, told)
    frame = told.window + told.context
    found: list[Axes] = []
    free = [i for i, n in enumerate(shape) if isinstance(n, str)]
    given = told.batch_axes.get(value.name)
    windows: list[int | None] = [None]
    if told.window:
        sized = [i for i, n in enumerate(shape) if n == frame]
        windows = [*sized] or [*free]
    for w, b, t in product(windows, [None, *range(len(shape))], [None, *range(len(shape))]):
        left = [i for i in free if i not in (w, b, t)]
        if len({i for i in (w, b, t) if i is not None}) < sum(i is not None for i in (w, b, t)):
            continue
        if (b is None) != alone or (given is not None and b is not None and b != given) or (b is not None and b not in free and b != given):
            continue
        if t is not None and t not in free:
            continue
        if len(left) > (1 if alone else 0) + (1 if told.stepped or told.window else 0):
            continue
        sizes = tuple(frame if i == w else 1 if isinstance(n, str) else n for i, n in enumerate(shape))
        found.append(Axes(sizes, b, t, w))
    return found


def _plausible(value: Value, axes: Axes) -> float:
    """Return how much speaks for a guess: what the axes are called, and that batches stand before time."""
    points = 0.0
    for axis, mine, other in ((axes.batch, BATCH, TIME), (axes.time, TIME, BATCH)):
        if axis is None:
            continue
        name = str(value.shape[axis])
        points += 2 * bool(mine.search(name)) - 2 * bool(other.search(name)) if "." not in name else 0
    if axes.batch is not None and axes.time is not None:
        points += 0.5 * (axes.batch < axes.time)
    free = sum(isinstance(n, str) for n in value.shape)
    used = sum(i is not None and isinstance(value.shape[i], str) for i in (axes.batch, axes.time, axes.window))
    return points - 0.25 * (free - used)


def _guesses(pairs: Sequence[Pair], rest: Sequence[Value], told: Told) -> Iterator[Guess]:
    for alone in (False, True):
        options_states = [_state_axes(p, told, alone) for p in pairs]
        options_fed = [_fed_axes(v, told, alone) for v in rest]
        if not all(options_states) or not all(options_fed):
            continue
        scored = []
        for chosen in islice(product(*options_states, *options_fed), 20_000):
            mine, fed = chosen[: len(pairs)], chosen[len(pairs) :]
            batch = {p.input.shape[a.batch] for p, a in zip(pairs, mine, strict=True) if a.batch is not None}
            batch |= {v.shape[a.batch] for v, a in zip(rest, fed, strict=True) if a.batch is not None}
            times = {v.shape[a.time] for v, a in zip(rest, fed, strict=True) if a.time is not None}
            points = sum(_plausible(v, a) for v, a in zip(rest, fed, strict=True)) - len(batch) - 3 * len(batch & times)
            points += sum(_plausible(p.input, a) for p, a in zip(pairs, mine, strict=True))
            scored.append((points, mine, fed))
        for _, mine, fed in sorted(scored, key=lambda one: -one[0])[:GUESSES]:
            yield Guess(
                {p.input.name: a for p, a in zip(pairs, mine, strict=True)}, {v.name: a for v, a in zip(rest, fed, strict=True)}, alone
            )


# --- trying ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """The file and a guess at its layout."""

    session: ort.InferenceSession
    states: tuple[State, ...]
    fed: tuple[Fed, ...]
    constants: Mapping[str, Array]
    told: Told

    def feeds(self, B: int, T: int, seed: int = SEEDS) -> dict[str, Array]:
        """Return made-up content of B rows and T steps; a row is the same in any batch."""
        frame = max(self.told.window + self.told.context, 1)
        feeds = {**self.constants, **{s.name: start(s, B) for s in self.states}}
        for k, fed in enumerate(self.fed):
            rows = [made_up(np.random.default_rng([seed, k, b]), fed.dtype, (1, T, frame * fed.axes.size)) for b in range(B)]
            feeds[fed.name] = place(np.concatenate(rows), fed.axes, fed.dtype, frame)
        return feeds

    def run(self, B: int, T: int) -> dict[str, Array]:
        """Run the file on it."""
        return run(self.session, self.feeds(B, T))


def made_up(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return content for an input of a type: numbers about 0, and small whole numbers where it takes those."""
    made = rng.normal(0, 0.5, shape) if dtype.startswith("float") else rng.integers(0, 2, shape)
    return made.astype(np.float32)


def _first_that_runs(
    session: ort.InferenceSession, pairs: Sequence[Pair], rest: Sequence[Value], constants: Mapping[str, Array], told: Told
) -> tuple[Guess, tuple[str, ...]]:
    """Return the likeliest guess that runs, whose states come out as they go in, and whose rows are those rows alone where there is one."""
    reason, mixed, grows = "", None, None
    for guess in _guesses(pairs, rest, told):
        states = tuple(State(p.input.name, p.output.name, p.input.dtype, guess.states[p.input.name], p.how) for p in pairs)
        fed = tuple(Fed(v.name, v.dtype, guess.fed[v.name]) for v in rest)
        trial = _Trial(session, states, fed, constants, told)
        B, T = (1 if guess.alone else 2), (3 if guess.timed and not told.window else 1)
        try:
            found = trial.run(B, T)
            alone = trial.run(1, T)
            if guess.timed:
                trial.run(1, 1)
        except Exception as error:  # the runtime's exceptions have no common base of their own
            reason = reason or " ".join(str(error).split())
            continue
        wrong = next((s for s in states if found[s.output].shape != s.axes.at(B, 1)), None)
        if wrong is not None:
            grows = grows or (wrong, wrong.axes.at(B, 1), found[wrong.output].shape)
            continue
        notes = (_fixed(rest),) if guess.alone else ()
        if guess.alone or all(_same_row(found[s.output], alone[s.output], s.axes) for s in states):
            return guess, notes
        mixed = mixed or (guess, notes)
    if mixed is not None:
        return mixed
    if grows is not None:
        raise GrowingState(*grows)
    _refuse_layout(rest, told, reason)


def _fixed(rest: Sequence[Value]) -> str:
    if any(n == 1 or isinstance(n, str) for v in rest for n in v.shape):
        return "its batch is fixed at 1: it runs a row at a time, and nothing is batched"
    return f"no axis is free for rows ({rest[0].name} {rest[0]}): all of it is one row, it runs a row at a time, and nothing is batched"


def _same_row(many: Array, one: Array, axes: Axes) -> bool:
    if axes.batch is None or many.dtype == bool:
        return True
    first = np.take(many, [0], axes.batch).astype(np.float64)
    return np.allclose(first, one.astype(np.float64), rtol=1e-2, atol=1e-2, equal_nan=True)


def _refuse_bare(name: str, axis: str) -> NoReturn:
    raise AdoptError(
        f"{name}: its axis {axis} is free, which is no proof of steps in time, and no output has an answer for each: --window N "
        f"(--context N) where the file reads windows of a signal, --dim {axis}=N where a step has N numbers, --stepped where it has one"
    )


def _refuse_layout(rest: Sequence[Value], told: Told, reason: str) -> NoReturn:
    for value in rest:
        free = [i for i, n in enumerate(_dims(value, told)) if isinstance(n, str)]
        if len(free) > 2 + bool(told.window):
            axis = next((i for i in free if not (BATCH.search(str(value.shape[i])) or TIME.search(str(value.shape[i])))), free[-1])
            raise AdoptError(f"{value.name}: more axes are free than batch and time: --dim {value.shape[axis]}=N fixes one")
        if told.window and told.window + told.context not in value.shape and not free:
            frame = told.window + told.context
            raise AdoptError(f"{value.name}: expected an axis of {frame} (window and context), or a free one, got {value}")
    for value in rest if not told.window else ():
        dims = _dims(value, told)
        if len(dims) == 2 and isinstance(dims[1], str):
            _refuse_bare(value.name, dims[1])
    said = f": {reason[:300]}" if reason else ""
    names = ", ".join(f"{v.name} {v}" for v in rest)
    raise AdoptError(
        f"{names}: it runs with no choice of batch and time axes; --batch-axis, --dim or --constant says what is missing{said}"
    )


# --- what was found ---------------------------------------------------------------------------------------------------------------------


def _state(pair: Pair, axes: Axes, told: Told, weights: Mapping[str, TensorProto]) -> State:
    state = State(pair.input.name, pair.output.name, pair.input.dtype, axes, pair.how)
    given = told.initial.get(state.name)
    if given is None and state.name in weights:
        given = numpy_helper.to_array(weights[state.name])
    if given is None:
        return state
    shape = state.axes.at(1, 1)
    try:
        kept = "float32" if state.dtype == "float64" else ""
        value = np.broadcast_to(_in_type(f"--initial {state.name}", np.asarray(given), state.dtype, kept), shape)
    except (ValueError, TypeError) as error:
        got = f"{np.asarray(given).dtype} {list(np.shape(given))}"
        raise AdoptError(f"--initial {state.name}: expected numbers {list(shape)}, got {got}") from error
    order = [axes.batch] if axes.batch is not None else []
    others = [i for i in range(len(shape)) if i not in order]
    packed = pieces(np.transpose(value, [*order, *others]).reshape(1, -1) if shape else value.reshape(1, 1))
    return replace(state, initial=packed) if packed.any() else state


def _answers(trial: _Trial, guess: Guess, values: Sequence[Value]) -> tuple[tuple[Answer, ...], tuple[str, ...], bool]:
    """Return the outputs that are answers, what is said of the others, and whether each has one for every step of a longer run."""
    B, T = (1 if guess.alone else 2), 1
    base = trial.run(B, T)
    rows = base if guess.alone else trial.run(3, T)
    longer = trial.run(B, 5) if guess.timed and not trial.told.window else None
    answers, dropped, every = [], [], longer is not None
    for value in values:
        shape = base[value.name].shape
        batch = next((i for i, (a, b) in enumerate(zip(shape, rows[value.name].shape, strict=True)) if (a, b) == (2, 3)), None)
        if not guess.alone and batch is None:
            dropped.append(f"{value.name} is not returned: it has no axis of rows ({list(shape)})")
            continue
        time = None
        if longer is not None:
            long = longer[value.name].shape
            time = next((i for i, (a, b) in enumerate(zip(shape, long, strict=False)) if (a, b) == (1, 5)), None)
            every = every and time is not None and len(long) == len(shape)
        elif guess.timed:  # windows one at a time, of a file that takes several
            more = trial.run(B, 3)[value.name].shape
            time = next((i for i, (a, b) in enumerate(zip(shape, more, strict=False)) if (a, b) == (1, 3)), None)
        sizes = tuple(1 if i in (batch, time) else n for i, n in enumerate(shape))
        answers.append(Answer(value.name, value.dtype, Axes(sizes, batch, time)))
    return tuple(answers), tuple(dropped), every
