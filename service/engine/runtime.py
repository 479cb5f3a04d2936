"""One bundle in ONNX Runtime: which provider runs it, one run of a batch, and what is cut into runs.

A piece of work is content on its way through the model, or a text that is being drawn; each turn of the engine thread takes the next
piece of some of them.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Bundle, Manifest
from indrnn.frames.joints import hold
from indrnn.frames.rate import Carry, resample
from indrnn.kernels.cuda import registered_cuda
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort
from indrnn.service.engine.requests import ClientProtocol, Content, Exact, States
from indrnn.service.errors import BadInput, TooLarge
from indrnn.service.session.machine import Floats, Generated, Sampling, Scores, Session
from indrnn.service.session.sampling import Ranking, draw, log_softmax, rank

log = logging.getLogger(__name__)

Provider = Literal["cuda", "cpu"]
Kernel = Literal["fused", "loop"]
PIECE = 256  # time steps of a turn's longer messages, of one client or together: what a single step waits for at most.
# More in a run are no cheaper on a CPU: a step of `chars` takes 22 µs in 1 row of 256, 25 in 8 of them, of `action` 6 and 7.
NOTHING = np.zeros(0, np.float32)
ORT_NAMES: dict[Provider, str] = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class EngineError(Exception):
    """A model cannot be run as asked; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class WarmGraph:
    """A session that has run, on which provider, with which implementation of the recurrence; seconds: of its warm-up."""

    session: ort.InferenceSession
    provider: Provider
    kernel: Kernel
    seconds: float


class Row(NamedTuple):
    """One client's part of a batch: x [t, ...] (t >= 1) and the state [N] before it."""

    x: NDArray[np.generic]
    state: Floats


class RowResult(NamedTuple):
    """A row's logits [t, K], and the state [N] after it, a copy of its own: one idle session must not keep a whole batch in memory.
    sound: every number of the state is finite."""

    logits: Floats
    state: Floats
    sound: bool


class Engine:
    """A bundle's graph, loaded and warm. Runs are blocking and not thread-safe by contract: one engine thread per model."""

    def __init__(self, bundle: Bundle, provider: Literal["auto", "cuda", "cpu"], threads: int, max_batch: int) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self._threads = threads
        self._state_size = bundle.manifest.state_size
        self._sample = _sample_input(bundle)
        loaded = []
        for name in self._wanted(provider):
            try:
                loaded.append(self._load(name, max_batch))
            except EngineError as error:
                if name == "cpu" or provider == "cuda":
                    raise
                log.warning("%s; going on without it", error)
        best = min(loaded, key=lambda one: one.seconds)
        self.provider, self.kernel, self._session = best.provider, best.kernel, best.session
        log.info("%s/%s runs on %s, kernel %s (%s)", self.manifest.name, self.manifest.version, self.provider, self.kernel, _times(loaded))

    def _wanted(self, provider: Literal["auto", "cuda", "cpu"]) -> list[Provider]:
        if provider == "cpu":
            return ["cpu"]
        if hasattr(ort, "preload_dlls") and ORT_NAMES["cuda"] in ort.get_available_providers():
            ort.preload_dlls()  # CUDA and cuDNN from their own wheels
        if provider == "cuda":
            return ["cuda"]
        return ["cpu", "cuda"] if _has_cuda() else ["cpu"]

    def _load(self, provider: Provider, max_batch: int) -> WarmGraph:
        """Loaded and warm, with the native kernel where there is one for the provider and it works."""
        if library := registered() if provider == "cpu" else registered_cuda() if _has_cuda() else None:
            try:
                session = self._open(provider, library)
                return WarmGraph(session, provider, "fused", self._warm_up(session, max_batch))
            except Exception as error:  # whatever it is, the portable loop is there
                log.warning("%s/%s: kernel %s fails, the portable loop runs: %s", self.manifest.name, self.manifest.version, library, error)
        session = self._open(provider, None)
        try:
            seconds = self._warm_up(session, max_batch)
        except Exception as error:  # the runtime's exceptions have no common base of their own
            title = f"{self.manifest.name}/{self.manifest.version}"
            raise EngineError(f"{title}: model.onnx does not run as its manifest says: {error}") from error
        return WarmGraph(session, provider, "loop", seconds)

    def _open(self, provider: Provider, library: Path | None) -> ort.InferenceSession:
        title = f"{self.manifest.name}/{self.manifest.version}"
        if provider == "cuda" and ORT_NAMES["cuda"] not in ort.get_available_providers():
            raise EngineError(f"{title}: INDRNN_PROVIDER=cuda, but this onnxruntime has only {', '.join(ort.get_available_providers())}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would take the cores from the event loop
        options.log_severity_level = 3
        if library:
            options.register_custom_ops_library(str(library))
        try:
            session = ort.InferenceSession(self.bundle.graph, options, providers=[ORT_NAMES[provider]])
        except Exception as error:  # the runtime's exceptions have no common base of their own
            raise EngineError(f"{title}: onnxruntime cannot load model.onnx: {error}") from error
        if session.get_providers()[0] != ORT_NAMES[provider]:
            raise EngineError(
                f"{title}: INDRNN_PROVIDER=cuda, but no GPU can be used (onnxruntime fell back to {session.get_providers()[0]})"
            )
        return session

    def _warm_up(self, session: ort.InferenceSession, max_batch: int) -> float:
        """Run every number of rows with one step, and long pieces -> seconds of a few runs of shapes that are typical of serving.

        The runtime plans the memory of each shape when it first sees it.
        """
        for B in range(1, max_batch + 1):
            self._run_zeros(session, B, 1)
        for B in (1, 2, 4, 8):
            self._run_zeros(session, min(B, max_batch), PIECE // B)
        seconds = 0.0
        for B, T in ((1, 1), (max_batch, 1), (1, 32)):
            self._run_zeros(session, B, T)
            start = time.perf_counter()
            for _ in range(3):
                self._run_zeros(session, B, T)
            seconds += time.perf_counter() - start
        return seconds

    def _run_zeros(self, session: ort.InferenceSession, B: int, T: int) -> None:
        feeds = {
            "x": np.zeros((B, T, *self._sample.shape), self._sample.dtype),
            "lengths": np.full(B, T, np.int64),
            "state": np.zeros((B, self.manifest.state_size), np.float32),
        }
        logits, after = session.run(["logits", "state_out"], feeds)
        expected = (B, T, self.manifest.classes), (B, self.manifest.state_size)
        if (logits.shape, after.shape) != expected:
            raise ValueError(f"expected logits and state of {expected}, got {(logits.shape, after.shape)}")

    def close(self) -> None:
        """Give back the memory of the graph; there may be no run now or later."""
        del self._session

    def run(self, rows: list[Row]) -> list[RowResult]:
        """Run once over rows of any lengths.

        States are gathered and cut as bytes: NumPy gives up the interpreter lock for every copy of more than 500 numbers, and to get it
        back from a busy event loop takes longer than the run.
        """
        lengths = [len(r.x) for r in rows]
        T = max(lengths)
        x = np.zeros((len(rows), T, *self._sample.shape), self._sample.dtype)
        for b, r in enumerate(rows):
            x[b, : lengths[b]] = r.x
        N = self._state_size
        state = np.frombuffer(b"".join([r.state.data for r in rows]), np.float32).reshape(len(rows), N)
        feeds = {"x": x, "lengths": np.array(lengths, np.int64), "state": state}
        logits, after = self._session.run(["logits", "state_out"], feeds)
        sound = np.isfinite(after).all(axis=1).tolist()
        raw, size = after.tobytes(), 4 * N
        states = [np.frombuffer(raw[b * size : (b + 1) * size], np.float32) for b in range(len(rows))]
        return [RowResult(logits[b, :n], states[b], sound[b]) for b, n in enumerate(lengths)]


def _sample_input(bundle: Bundle) -> NDArray[np.generic]:
    """Return one time step of one row of x: zeros of its shape and type."""
    x = next((t for t in bundle.manifest.inputs if t.name == "x"), None)
    if x is None:
        raise EngineError(f"{bundle.manifest.name}/{bundle.manifest.version}: manifest.json: expected an input x")
    return np.zeros([int(n) for n in x.shape[2:]], np.dtype(x.dtype))


def _has_cuda() -> bool:
    """Return whether onnxruntime has the CUDA provider and a device answers."""
    if ORT_NAMES["cuda"] not in ort.get_available_providers():
        return False
    return any(device.ep_name == ORT_NAMES["cuda"] for device in ort.get_ep_devices()) if hasattr(ort, "get_ep_devices") else True


def _times(loaded: list[WarmGraph]) -> str:
    return "warm-up " + ", ".join(f"{one.provider} {one.seconds * 1e3:.1f} ms" for one in loaded)


# --- pieces of work: content being consumed, or characters being emitted, one run at a time -------------------------------------------


class LastLogits(NamedTuple):
    """The place of the last logits in a state; unknown: the symbol that is read for what the alphabet lacks, and never drawn."""

    where: slice
    unknown: int | None = None

    def of(self, state: Floats) -> Floats:
        """Return a state's last logits [K], as symbols are drawn and scored by them."""
        logits = state[self.where]
        return logits if self.unknown is None else self.closed(logits.copy())

    def closed(self, logits: Floats) -> Floats:
        """Close the unknown symbol's place in logits [..., K], which are changed."""
        if self.unknown is not None:
            logits[..., self.unknown] = -np.inf
        return logits


class ModelFacts(NamedTuple):
    """The numbers of a bundle that the engine thread needs at each step; hidden: where the state holds every recurrent neuron."""

    name: str
    version: str
    digest: str
    state_size: int
    alphabet: str
    last_logits: LastLogits
    hidden: slice
    max_position: int | None
    frames: "FrameFacts | None"

    @classmethod
    def of(cls, manifest: Manifest, max_frames: int) -> "ModelFacts":
        """Return the facts of a bundle; max_frames: what a step may have of them at the model's rate."""
        m = manifest
        logits, frame = m.part("last_logits"), m.part("last_frame")
        assert logits is not None, "every manifest has last_logits"
        hidden = [p for p in m.state if p.role == "hidden"]
        frames = None
        if frame is not None and m.hz is not None:
            frames = FrameFacts(m.hz, max_frames, slice(frame.offset, frame.offset + frame.size))
        return cls(
            m.name,
            m.version,
            m.sha256,
            m.state_size,
            m.alphabet or "",
            LastLogits(slice(logits.offset, logits.offset + logits.size), m.unknown_symbol),
            slice(hidden[0].offset, hidden[-1].offset + hidden[-1].size) if hidden else slice(0, 0),
            m.limits.max_position,
            frames,
        )


class FrameFacts(NamedTuple):
    """A model's frames per second, how many a step may have, and where the state holds the last one that it saw."""

    hz: float
    max_frames: int
    last_frame: slice


class Prepared(NamedTuple):
    """Content as the graph reads it: x [t, ...], t >= 0, and what resampling left over."""

    x: NDArray[np.generic]
    carry: Carry | None


def prepare(content: Content, session: Session | None, facts: FrameFacts | None) -> Prepared:
    """Return content after the session's earlier frames: joints not seen are held, other rates resampled.

    Raises BadInput when the session runs at another rate, TooLarge when that makes more frames than a step may have.
    """
    if isinstance(content, Exact):
        return Prepared(content.x, None)
    assert facts is not None, "a clip goes to a model that reads frames"
    clip, carry = content.x, session.carry if session else None
    running_at = None if session is None or session.position == 0 else carry.hz if carry else facts.hz
    hz = content.hz or running_at or facts.hz
    if content.whole and hz == facts.hz and running_at in (None, hz):
        return Prepared(clip, None)
    if running_at is not None and running_at != hz:
        raise BadInput(f"expected {running_at:g} frames per second as in the session's earlier steps, got {hz:g}", field="hz")
    if len(clip) * facts.hz > facts.max_frames * hz:  # more frames of the model's than it may get at once
        most = math.floor(facts.max_frames * hz / facts.hz)
        raise TooLarge(f"expected at most {most} frames at {hz:g} a second, got {len(clip)}", field="hz")
    if carry is not None:
        before = carry.frame
    else:
        before = session.state[facts.last_frame].reshape(clip.shape[1:]) if session else np.zeros(clip.shape[1:], np.float32)
    x = hold(clip, before)
    return Prepared(x, None) if hz == facts.hz else Prepared(*resample(x, hz, facts.hz, carry))


@dataclass(slots=True)
class Feeding:
    """Content on its way through the model, `at` steps of it done."""

    x: NDArray[np.generic]
    carry: Carry | None
    length: int
    state: Floats
    last_logits: LastLogits
    every: bool
    watch: slice | None
    deadline: float
    since: float = 0.0
    at: int = 0
    scored: list[Floats] = field(default_factory=list)
    logprobs: list[Floats] = field(default_factory=list)
    watched: list[States] = field(default_factory=list)
    top: int = 0
    ranked: list[Ranking] = field(default_factory=list)
    protocol: ClientProtocol = "http"

    @property
    def finished(self) -> bool:
        """Return whether all of it has been consumed."""
        return self.at >= len(self.x)

    @property
    def steps(self) -> int:
        """Return the number of time steps of its next run."""
        return min(len(self.x) - self.at, PIECE) if self.watch is None else 1

    def next_row(self) -> Row:
        """Return the next piece. A watched session goes one step at a time, so that each state can be seen."""
        size = PIECE if self.watch is None else 1
        return Row(self.x[self.at : self.at + size], self.state)

    def take(self, logits: Floats, state: Floats) -> None:
        """Take the engine's answer for the piece."""
        if self.x.dtype == np.int64:
            self._score(logits)
        if self.every:
            self.scored.append(logits)
        self.at += len(logits)
        self.state = state
        if self.watch is not None:
            self.watched.append(state[self.watch].astype(np.float16))

    def _score(self, logits: Floats) -> None:
        """Log-probability of each symbol before the model saw it: its predecessor's logits, the state's for the first."""
        before = self.last_logits.closed(np.concatenate([self.state[self.last_logits.where][None], logits[:-1]]))
        symbols = self.x[self.at : self.at + len(logits)]
        scores = log_softmax(before)
        self.logprobs.append(scores[np.arange(len(symbols)), symbols].astype(np.float32))
        if self.top:
            self.ranked.append(rank(scores, self.top))

    def result(self) -> Scores:
        """Return what the step answers."""
        last = self.state[self.last_logits.where].copy()
        every = np.concatenate(self.scored) if self.scored else NOTHING.reshape(0, len(last))
        return Scores(last, every, np.concatenate(self.logprobs) if self.logprobs else NOTHING)

    def states(self) -> States | None:
        """Return the watched neurons after each step, [t, n]."""
        return np.stack(self.watched) if self.watched else None


@dataclass(slots=True)
class Generating:
    """A generate under way: each turn draws a character from the state's logits and consumes it."""

    state: Floats
    last_logits: LastLogits
    watch: slice | None
    symbol: int = 0
    logprob: float = 0.0
    steps: ClassVar[int] = 1
    """time steps of its next run"""

    def next_row(self, so_far: Generated) -> Row:
        """Draw the next character."""
        self.symbol, self.logprob = draw(self.last_logits.of(self.state), so_far.sampling, len(so_far.text))
        return Row(np.array([self.symbol], np.int64), self.state)


@dataclass(slots=True, kw_only=True)
class Drawing(Generating):
    """A generate of nobody's session: what it has drawn so far is kept here and nowhere else. `ranking` is [1, top], of the last draw."""

    so_far: Generated
    top: int
    ranking: Ranking

    @classmethod
    def after(cls, prompt: Feeding, sampling: Sampling) -> "Drawing":
        """Return a text that begins where the prompt has ended. Several may begin there: none of them writes to the prompt's state."""
        nothing = Generated(sampling, "", np.zeros(0, np.float32), None)
        unranked = Ranking(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
        return cls(prompt.state, prompt.last_logits, None, so_far=nothing, top=prompt.top, ranking=unranked)

    def draw_row(self) -> Row:
        """Draw the next character, and rank it among the likeliest."""
        if self.top:
            self.ranking = rank(log_softmax(self.last_logits.of(self.state))[None], self.top)
        return self.next_row(self.so_far)


# --- what runs next -------------------------------------------------------------------------------------------------------------------


class Runnable(Protocol):
    """Whoever has something to run."""

    @property
    def work(self) -> "Feeding | Generating | None":
        """Return what is to be run."""


W = TypeVar("W", bound=Runnable)


def next_turn(ready: deque[W], most: int) -> list[W]:
    """Take what runs in this turn: single steps, and of longer pieces as many as make one whole piece; the others keep their place.

    So between two looks at what has come nobody waits for more than a piece, and the piece that has waited longest is always taken.
    """
    taken: list[W] = []
    left: list[W] = []
    total = 0
    while ready and len(taken) < most:
        item = ready.popleft()
        steps = _steps_of(item)
        if steps > 1 and total + steps > PIECE:
            left.append(item)
            continue
        taken.append(item)
        if steps > 1:
            total += steps
    ready.extendleft(reversed(left))
    return taken


def groups(items: Iterable[W]) -> list[list[W]]:
    """Form runs of like length, so that padding at most doubles a row. Single steps are first: they are answered before longer ones run."""
    found: dict[int, list[W]] = {}
    for item in items:
        found.setdefault(_steps_of(item).bit_length(), []).append(item)
    return [found[k] for k in sorted(found)]


def _steps_of(item: Runnable) -> int:
    assert item.work is not None, "what is ready has work"
    return item.work.steps
