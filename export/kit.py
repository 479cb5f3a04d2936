"""The kit: what must hold of a model so that a service may cut its sequences, batch them with others' and keep their states.

    split    any split of a sequence gives the same outputs
    rows     a row does not depend on its neighbours, not even beside NaN
    state    a state carried out and in is the state
    memory   every state is written and is read
    start    a zero row is the start, also beside rows in the middle, and the same start each time
    ahead    nothing looks ahead
    endless  a long run stays finite
    ragged   rows of several lengths are those rows alone, and a row of no steps stays where it is

Each check is a function of a subject, which raises Fault with the tensor, the case and the size of the difference.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Array = NDArray[Any]
Run = Callable[[Array, NDArray[np.int64], Floats], tuple[Floats, Floats]]  # x [B, T, ...], lengths [B], state [B, N] -> logits, state

BOUND = 1e-4  # of a tensor's largest number, or of 1
HALF = 5e-3  # the same, of a graph in float16
ECHOES = ("the last answer", "last_logits")  # parts of a state that are outputs: the check of splits looks at those
STEPS = 1_000_000  # of a long run
SECONDS = 10.0  # that the long run may take where nobody says how many steps
FEED = 1024  # steps of one run of the long run, at most
SHARE = 8  # of the long run's time, which one run may take a part of: a file of gigabytes makes two steps a second
Sample = Callable[[np.random.Generator, int, int], Array]  # (rng, B, T) -> made-up x


class Fault(Exception):
    """A check that failed: `tensor` differs by `size` in `case`."""

    def __init__(self, tensor: str, case: str, size: float) -> None:
        super().__init__(f"{tensor}: {case}" + ("" if np.isnan(size) else f": off by {size:.3g}"))
        self.tensor, self.case, self.size = tensor, case, size


class Stretch(NamedTuple):
    """A tensor within a row of numbers: row[offset : offset + size]; dtype: of its numbers in the model's own graph."""

    name: str
    offset: int
    size: int
    dtype: str = "float32"

    def of(self, rows: Array) -> Array:
        """Return the tensor's numbers of rows [..., n]."""
        return rows[..., self.offset : self.offset + self.size]


@dataclass(frozen=True)
class Subject:
    """A model under test. run: one run of the graph. sample: (rng, B, T) -> made-up x. states, answers: the tensors in a row of state and
    of logits. memories: names of the states that `memory` looks at. window: steps that one answer takes. alone: it runs a row at a time.
    longest: steps it is good for. numbers: whether x may be any, and is no index. streams: whether sequences may come in pieces.
    by_hand: x [T, ...] -> what the original file answers when its states are carried by hand, logits [T, K], None where a step has none.
    """

    name: str
    run: Run
    sample: Sample
    states: tuple[Stretch, ...]
    answers: tuple[Stretch, ...]
    memories: frozenset[str]
    window: int = 1
    alone: bool = False
    bound: float = BOUND
    by_hand: Callable[[Array], Floats] | None = None
    longest: int | None = None
    numbers: bool = True
    streams: bool = True

    @property
    def size(self) -> int:
        """Return N, the length of a row of state."""
        return sum(part.size for part in self.states)

    @property
    def steps(self) -> int:
        """Return the steps of a short sequence: some windows and a bit."""
        steps = 23 if self.window == 1 else 4 * self.window + self.window // 3
        return steps if self.longest is None else min(steps, self.longest)

    def zeros(self, B: int) -> Floats:
        """Return the state at the start of B sequences."""
        return np.zeros((B, self.size), np.float32)

    def midway(self, rng: np.random.Generator, B: int) -> Floats:
        """Return states in the middle of B sequences; those at their start, where there is no middle to go on from."""
        return self.whole(self.sample(rng, B, self.steps))[1] if self.streams else self.zeros(B)

    def whole(self, x: Array, state: Floats | None = None) -> tuple[Floats, Floats]:
        """Return logits [B, T, K] and state [B, N] after x [B, T, ...] in one run, or in one for each row."""
        state = self.zeros(len(x)) if state is None else state
        if not self.alone:
            return self.run(x, np.full(len(x), x.shape[1], np.int64), state)
        runs = [self.run(x[b : b + 1], np.array([x.shape[1]], np.int64), state[b : b + 1]) for b in range(len(x))]
        return np.concatenate([y for y, _ in runs]), np.concatenate([s for _, s in runs])

    def pieces(self, x: Array, sizes: Sequence[int], state: Floats | None = None) -> tuple[Floats, Floats]:
        """Return what `whole` does, with x cut into pieces of these sizes."""
        found, at = [], 0
        for size in sizes:
            y, state = self.whole(x[:, at : at + size], state)
            found.append(y)
            at += size
        assert state is not None
        assert at == x.shape[1]
        return np.concatenate(found, 1), state


class Finding(NamedTuple):
    """What a check found: `fault` None where it passed, `note` what it has to say beside. skipped: it could not be asked."""

    check: str
    about: str
    fault: Fault | None
    note: str = ""
    skipped: bool = False


def compare(tensors: Sequence[Stretch], got: Array, want: Array, case: str, bound: float) -> None:
    """Raise Fault for the tensor that differs most, if any does by more than `bound` of its largest number."""
    worst: tuple[float, Fault] | None = None
    for tensor in tensors:
        a, b = tensor.of(got).astype(np.float64), tensor.of(want).astype(np.float64)
        if not a.size:
            continue
        with np.errstate(invalid="ignore"):
            size = np.abs(a - b)
        size[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
        size[np.isnan(size)] = np.inf
        finite = np.abs(b[np.isfinite(b)])
        relative = float(size.max()) / max(1.0, float(finite.max()) if finite.size else 1.0)
        allowed = bound if tensor.dtype.startswith("float") else 0.0
        if relative > allowed and (worst is None or relative > worst[0]):
            where = np.unravel_index(int(size.argmax()), size.shape)
            at = f"row {where[0]}, step {where[1]}" if size.ndim == 3 else f"row {where[0]}"
            worst = relative, Fault(tensor.name, f"{case}, {at}", float(size.max()))
    if worst:
        raise worst[1]


def _cut(rng: np.random.Generator, total: int, sizes: Sequence[int]) -> list[int]:
    found: list[int] = []
    while (left := total - sum(found)) > 0:
        found.append(min(left, int(rng.choice(sizes))))
    return found


def check_split(s: Subject, rng: np.random.Generator) -> str:
    """Compare the outputs of a sequence in one piece and in pieces."""
    x = s.sample(rng, 2, s.steps)
    want, _ = s.whole(x)
    w = s.window
    cuts = {"single steps": [1] * s.steps} if w == 1 else {f"pieces of {w // 2 + 1}": _cut(rng, s.steps, [w // 2 + 1])}
    cuts["pieces of several sizes"] = _cut(rng, s.steps, [1, 2, 3, 7] if w == 1 else [1, w // 3 + 1, w - 1, w, w + 1, 2 * w])
    cuts["two halves"] = [s.steps // 2, s.steps - s.steps // 2]
    for said, sizes in cuts.items():
        got, _ = s.pieces(x, sizes)
        compare(s.answers, got, want, f"one piece of {s.steps} steps and {said}", s.bound)
    return f"{s.steps} steps in {len(cuts)} ways"


def check_rows(s: Subject, rng: np.random.Generator) -> str:
    """Compare a row alone with the row among others, which then hold NaN and large numbers."""
    if s.alone:
        return "runs a row at a time"
    x = s.sample(rng, 4, s.steps)
    before = s.midway(rng, 4)
    alone = [s.run(x[b : b + 1], np.array([s.steps], np.int64), before[b : b + 1]) for b in range(4)]
    y, after = s.whole(x, before)
    compare(s.answers, y, np.concatenate([a for a, _ in alone]), f"{s.steps} steps alone and among 4 rows", s.bound)
    compare(s.states, after, np.concatenate([a for _, a in alone]), f"{s.steps} steps alone and among 4 rows", s.bound)
    if not s.numbers:
        return "among 4 rows"
    for said, value in (("NaN", np.nan), ("numbers of 1e30", 1e30)):
        bad = x.copy()
        bad[1:] = value
        y, after = s.whole(bad, before)
        compare(s.answers, y[:1], alone[0][0], f"alone and beside {said}", s.bound)
        compare(s.states, after[:1], alone[0][1], f"alone and beside {said}", s.bound)
    return "among 4 rows, beside NaN and 1e30"


def check_state(s: Subject, rng: np.random.Generator) -> str:
    """Compare the state after a sequence in one piece with the one after pieces, and after the state has been copied."""
    x = s.sample(rng, 2, s.steps)
    _, want = s.whole(x)
    for said, sizes in (("in two halves", [s.steps // 2, s.steps - s.steps // 2]), ("in pieces", _cut(rng, s.steps, [1, 5, s.window]))):
        _, got = s.pieces(x, sizes)
        kept = [part for part in s.states if part.name not in ECHOES]
        compare(kept, got, want, f"after {s.steps} steps in one piece and {said}", s.bound)
    return f"of {s.size} numbers"


def check_memory(s: Subject, rng: np.random.Generator) -> str:
    """Look whether each state changes with what comes in, and whether anything changes with it."""
    x = s.sample(rng, 3, s.steps)
    _, before = s.whole(s.sample(rng, 3, s.steps))
    _, after = s.whole(x, before)
    nan = float("nan")
    for part in s.states:
        if part.name not in s.memories:
            continue
        if np.array_equal(part.of(after), part.of(before)) and not part.of(before).any():
            raise Fault(part.name, f"is never written: {s.steps} steps leave it as it was at the start", nan)
        changed = before.copy()
        column = part.of(changed)
        if part.dtype == "bool":
            column[:] = 1 - column
        elif part.dtype.startswith(("int", "uint")):
            column[:, 0] += 1
        else:
            column += 0.5 * (1 + np.abs(column))
        read = False
        for content in (x[:, : s.window], x):  # a state that is soon forgotten has been read all the same
            pairs = zip(s.whole(content, before), s.whole(content, changed), strict=True)
            read = read or not all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
        if not read:
            raise Fault(part.name, "is never fed back: another state in gives the same outputs and the same states out", nan)
    return f"of {len(s.memories)} tensors"


def check_start(s: Subject, rng: np.random.Generator) -> str:
    """Look whether a zero row starts a sequence the same way each time, also beside rows in the middle, and as the file itself starts."""
    x = s.sample(rng, 2, s.steps)
    want, _ = s.whole(x[:1])
    again, _ = s.whole(x[:1])
    compare(s.answers, again, want, "two starts on the same content", 0.0)
    if not s.alone:
        middle = s.midway(rng, 2)
        middle[0] = 0
        y, _ = s.whole(x, middle)
        compare(s.answers, y[:1], want, "a start alone and beside a row in the middle", s.bound)
    stay = s.run(x[:1], np.zeros(1, np.int64), s.zeros(1))[1]
    compare(s.states, stay, s.zeros(1), "no steps after a start", 0.0)
    if s.by_hand is None:
        return "a zero row"
    compare(s.answers, want, s.by_hand(x[0])[None], "fed by hand from the file's own start and as a bundle", s.bound)
    return "a zero row is the file's own start, step by step"


def check_ahead(s: Subject, rng: np.random.Generator) -> str:
    """Look whether an answer changes with what comes after it."""
    x = s.sample(rng, 2, s.steps)
    want, _ = s.whole(x)
    for at in sorted({1, s.steps // 2, s.steps - 1} - {0}):
        other = x.copy()
        other[:, at:] = s.sample(rng, 2, s.steps)[:, at:] + (1 if s.numbers else 0)
        got, _ = s.whole(other)
        compare(s.answers, got[:, :at], want[:, :at], f"the answers before step {at} with other content from there on", s.bound)
    return ""


def check_ragged(s: Subject, rng: np.random.Generator) -> str:
    """Compare rows of several lengths, with noise after their ends, with the same rows alone."""
    lengths = np.array([s.steps, 0, 1, s.steps // 2 + 1], np.int64)
    x = s.sample(rng, 4, s.steps)
    before = s.midway(rng, 4)
    noisy = x.copy()
    for b, n in enumerate(lengths):
        if s.numbers:
            noisy[b, n:] = np.nan
    rows = [slice(b, b + 1) for b in range(4)] if s.alone else [slice(0, 4)]
    found = [s.run(noisy[r], lengths[r], before[r]) for r in rows]
    y, after = np.concatenate([a for a, _ in found]), np.concatenate([a for _, a in found])
    for b, n in enumerate(lengths):
        case = f"a row of {n} steps alone and one of rows of {s.steps}"
        want_y, want = s.whole(x[b : b + 1, :n], before[b : b + 1]) if n else (y[b : b + 1, :0], before[b : b + 1])
        compare(s.answers, y[b : b + 1, :n], want_y, case, s.bound)
        compare(s.states, after[b : b + 1], want, case, s.bound if n else 0.0)
    return f"rows of {', '.join(map(str, lengths))} steps"


def check_endless(s: Subject, rng: np.random.Generator, steps: int | None = None, seconds: float = SECONDS) -> str:
    """Run `steps` steps, or as many of a million as `seconds` allow, and look whether states and answers stay finite.

    Where time is the limit the first run is of one answer, and the next ones are longer while they are quick.
    """
    most = min(steps or STEPS, s.longest or STEPS * 1000)
    feed = FEED if s.window == 1 else s.window * max(1, FEED // s.window)
    content = s.sample(rng, 1, 4 * feed)
    state, done, piece = s.zeros(1), 0, s.window if steps is None else feed
    begun = now = time.monotonic()
    while done < most and (steps is not None or time.monotonic() - begun < seconds):
        at = done % (4 * feed)
        size = min(piece, most - done, 4 * feed - at)
        y, after = s.whole(content[:, at : at + size], state)
        for tensors, found in ((s.states, after), (s.answers, y)):
            for tensor in tensors:
                if not np.isfinite(tensor.of(found)).all():
                    _not_finite(tensor, found, done, size)
        state, done, before, now = after, done + size, now, time.monotonic()
        piece = min(2 * piece, feed) if now - before < seconds / SHARE / 2 else piece
    if done >= most:
        return f"{done:,} steps"
    return f"{done:,} steps in {seconds:g} s; --steps {STEPS} goes on to a million"


def _not_finite(tensor: Stretch, found: Array, done: int, size: int) -> NoReturn:
    steps = f"between {done:,} and {done + size:,} steps" if found.ndim == 2 else f"within {done + size:,} steps"
    raise Fault(tensor.name, f"is no longer finite {steps}", float("nan"))


Check = Callable[[Subject, np.random.Generator], str]
CHECKS: dict[str, tuple[str, Check]] = {
    "split": ("any split gives the same outputs", check_split),
    "rows": ("a row does not depend on its neighbours", check_rows),
    "state": ("a state carried out and in is the state", check_state),
    "memory": ("every state is written and is read", check_memory),
    "start": ("a zero row is the start", check_start),
    "ahead": ("nothing looks ahead", check_ahead),
    "ragged": ("rows of several lengths are those rows", check_ragged),
    "endless": ("a long run stays finite", check_endless),
}


STREAM = ("split", "state", "memory", "ahead", "endless")  # checks that ask how a model goes on where a piece has ended
NO_STREAM = "it looks at whole sequences and has no stream"


def check(subject: Subject, seed: int = 0, steps: int | None = None, seconds: float = SECONDS) -> list[Finding]:
    """Run every check that the model can be asked. steps: of the long run, else as many as `seconds` allow."""
    found = []
    for name, (about, one) in CHECKS.items():
        if name in STREAM and not subject.streams:
            found.append(Finding(name, about, None, NO_STREAM, skipped=True))
            continue
        rng = np.random.default_rng(seed)
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                note = check_endless(subject, rng, steps, seconds) if name == "endless" else one(subject, rng)
            except Fault as fault:
                found.append(Finding(name, about, fault))
            except Exception as error:  # the runtime's exceptions have no common base of their own
                reason = _shortened(" ".join(str(error).split()))
                found.append(Finding(name, about, Fault("the graph", f"cannot be run: {reason}", float("nan"))))
            else:
                found.append(Finding(name, about, None, note))
    return found


LONGEST = 400  # characters of what the runtime says


def _shortened(text: str) -> str:
    """Return a message with its middle left out where it is long: the runtime's begin with the place and end with the reason."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 4]} … {text[-3 * LONGEST // 4 :]}"


def report(findings: Sequence[Finding]) -> str:
    """Return a line for each check."""
    lines = []
    for f in findings:
        note = f" ({f.note})" if f.note else ""
        said = "skipped" if f.skipped else "ok     "
        lines.append(f"{said} {f.check:8} {f.about}{note}" if f.fault is None else f"FAULT   {f.check:8} {f.fault}")
    return "\n".join(lines)
