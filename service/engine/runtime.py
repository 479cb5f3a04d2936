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
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Bundle, Manifest
from indrnn.export.modalities.skeleton import anatomy
from indrnn.export.modalities.table import MODALITIES
from indrnn.frames.anatomy import ENTRIES, Anatomy
from indrnn.frames.joints import hold
from indrnn.frames.rate import Carry, due, resample, resample_at
from indrnn.kernels.bodies import MOST, NOT_FINITE, BodyKernel, library, named
from indrnn.kernels.cuda import registered_cuda
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort
from indrnn.service.engine.requests import ClientProtocol, Content, Exact, Frames, States, halves
from indrnn.service.errors import BadInput, PositionLimit, TooLarge
from indrnn.service.session.machine import Floats, Generated, Sampling, Scores, Session
from indrnn.service.session.sampling import Ranking, draw, log_softmax, rank

log = logging.getLogger(__name__)

Provider = Literal["cuda", "cpu"]
Kernel = Literal["fused", "loop"]
PIECE = 256  # time steps of a turn's longer messages, of one client or together: what a single step waits for at most.
# More in a run are no cheaper on a CPU: a step of `chars` takes 22 µs in 1 row of 256, 25 in 8 of them, of `action` 6 and 7.
WARM = 20.0  # seconds that runs of zeros before the first request take at most, but for the one that is under way
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
    """One client's part of a batch: x [t, ...] (t >= 1) and the state before it: [N] of the graph, and behind it [E] of evidence on bodies
    where the model has an anatomy. lost [t, P, J]: joints that hold their place in x, where there are some."""

    x: NDArray[np.generic]
    state: Floats
    lost: NDArray[np.bool_] | None = None


class RowResult(NamedTuple):
    """A row's logits [t, K], and the state [N + E] after it, a copy of its own: one idle session must not keep a whole batch in memory.
    sound: every number of the state is finite. doubts: why what stands there may be no body."""

    logits: Floats
    state: Floats
    sound: bool
    doubts: tuple[str, ...] = ()


class Engine:
    """A bundle's graph, loaded and warm. Runs are blocking and not thread-safe by contract: one engine thread per model."""

    def __init__(self, bundle: Bundle, provider: Literal["auto", "cuda", "cpu"], threads: int, max_batch: int) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self._threads = threads
        self._state_size = bundle.manifest.state_size
        self._sample = _sample_input(bundle)
        self._watch = BodyWatch.of(bundle.manifest)
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

        The runtime plans the memory of each shape when it first sees it. A graph so slow that this takes WARM seconds does without the
        rest of it: a file of gigabytes would be minutes at its start.
        """
        window = self.manifest.window or 1
        until = time.perf_counter() + WARM
        typical = [self._seconds_of(session, B, T, until) for B, T in ((1, window), (max_batch, window), (1, 32 * window))]
        pieces = [(min(B, max_batch), PIECE // B * window) for B in (1, 2, 4, 8)]
        for B, T in [(B, 1) for B in range(1, max_batch + 1)] + pieces:
            if time.perf_counter() >= until:
                break
            self._run_zeros(session, B, T)
        return 3 * sum(typical)

    def _seconds_of(self, session: ort.InferenceSession, B: int, T: int, until: float) -> float:
        """Return the mean seconds of three runs behind a first one; of those that begin in time, and WARM where none does."""
        took: list[float] = []
        while len(took) < 4 and (start := time.perf_counter()) < until:
            self._run_zeros(session, B, T)
            took.append(time.perf_counter() - start)
        later = took[1:] or took
        return sum(later) / len(later) if later else WARM

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
        even = T == min(lengths)
        if even:  # as with single steps: one copy in place of one for each
            x = np.concatenate([r.x for r in rows], dtype=self._sample.dtype, casting="same_kind").reshape(-1, T, *self._sample.shape)
        else:
            x = np.zeros((len(rows), T, *self._sample.shape), self._sample.dtype)
            for b, r in enumerate(rows):
                x[b, : lengths[b]] = r.x
        N, watch = self._state_size, self._watch
        before, held = _parted([r.state for r in rows], N, N + watch.size if watch else N)
        state = np.frombuffer(before, np.float32).reshape(len(rows), N)
        counts = np.array(lengths, np.int64)
        logits, after = self._session.run(["logits", "state_out"], {"x": x, "lengths": counts, "state": state})
        if watch is None:
            sound: list[bool] = np.isfinite(after).all(axis=1).tolist()
            doubts: list[tuple[str, ...]] = [()] * len(rows)
        else:
            after, sound, doubts = watch.look(x, counts, before, held, [r.lost for r in rows], after)
        states = [np.frombuffer(one.tobytes(), np.float32) for one in after]
        said = list(logits) if even else [logits[b, :n] for b, n in enumerate(lengths)]
        return list(map(RowResult, said, states, sound, doubts))


def _parted(states: list[Floats], graph: int, size: int) -> tuple[bytes, bytes]:
    """Return the graph's numbers of states, [B, graph], and what they hold behind these, [B, size - graph].

    The second is zeros where a state is 0.1.0's or held by the client.
    """
    if {len(state) for state in states} == {size}:
        whole = np.frombuffer(b"".join([state.data for state in states]), np.float32).reshape(len(states), size)
        return whole[:, :graph].tobytes(), whole[:, graph:].tobytes()
    held = [state[graph:size].tobytes() for state in states]
    return b"".join([state.data[:graph] for state in states]), b"".join([one + bytes(4 * (size - graph) - len(one)) for one in held])


@dataclass(frozen=True)
class BodyWatch:
    """Gathers evidence on whether the rows of a batch show bodies.

    last_frame: where the graph's state, of `graph_size` numbers, has the last frame.
    """

    anatomy: Anatomy
    hz: float
    persons: int
    last_frame: slice
    graph_size: int

    @classmethod
    def of(cls, manifest: Manifest) -> "BodyWatch | None":
        """Return the watch over a model's bodies; None where nothing says what they are like."""
        found, frame = anatomy(manifest), manifest.part("last_frame")
        if found is None or frame is None or manifest.hz is None or manifest.persons is None:
            return None
        return cls(found, manifest.hz, manifest.persons, slice(frame.offset, frame.offset + frame.size), manifest.state_size)

    @property
    def size(self) -> int:
        """Return E, the numbers of evidence of all persons."""
        return self.persons * ENTRIES

    @cached_property
    def _kernel(self) -> BodyKernel | None:
        """The same in the native library, where there is one."""
        found, a = library(), self.anatomy
        joints = np.array([(a, b) for a, b, _ in a.pairs], np.int32)
        if found is None or max(len(joints), len(a.names)) > MOST:
            return None
        counts = {"P": self.persons, "J": len(a.names), "graph": self.graph_size, "frame": self.last_frame.start}
        return BodyKernel(found, joints, a.logs, a.weights, a.ups, counts, a.numbers(self.hz))

    def look(
        self,
        x: NDArray[np.generic],
        lengths: NDArray[np.int64],
        state: bytes,
        held: bytes,
        lost: list[NDArray[np.bool_] | None],
        after: Floats,
    ) -> tuple[Floats, list[bool], list[tuple[str, ...]]]:
        """Return the states `after` [B, N] with the evidence behind them, [B, N + E], which are finite, and each row's doubts.

        x [B, T, P, J, 3], of which lengths [B] count; state [B, N] and held [B, E] before them, float32 in memory; lost [t, P, J] of each
        row, or None.
        """
        B = len(x)
        gone: NDArray[np.bool_] | None = None
        if any(one is not None for one in lost):
            gone = np.zeros(x.shape[:4], np.bool_)
            for b, one in enumerate(lost):
                if one is not None:
                    gone[b, : len(one)] = one
        frames = x.astype(np.float32, copy=False)
        if self._kernel is not None:
            out, found = self._kernel.look(frames, lengths, state, held, gone, after)
            if found is None:
                return out, [True] * B, [()] * B
            return out, [not f & NOT_FINITE for f in found], [named(f) for f in found]
        before = np.frombuffer(state, np.float32).reshape(B, -1)[:, self.last_frame].reshape(B, *x.shape[2:])
        sums = np.frombuffer(held, np.float32).reshape(B, self.persons, ENTRIES)
        evidence = self.anatomy.look(frames, before, lengths, sums, self.hz, gone)
        sound: list[bool] = np.logical_and.reduce(np.isfinite(after), axis=1).tolist()
        return np.concatenate([after, evidence.reshape(B, -1)], 1), sound, self.anatomy.doubts(evidence)

    def doubts(self, state: Floats) -> tuple[str, ...]:
        """Return the doubts that a session's state [N + E], or [N] of 0.1.0, holds."""
        evidence = state[self.graph_size :]
        return self.anatomy.doubts(evidence.reshape(1, self.persons, ENTRIES))[0] if len(evidence) else ()


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
    """The numbers of a bundle that the engine thread needs at each step; hidden: where the state holds every recurrent neuron.

    state_size: of a session, N numbers of the graph and E of evidence on bodies.
    """

    name: str
    version: str
    digest: str
    state_size: int
    alphabet: str
    last_logits: LastLogits
    hidden: slice
    max_position: int | None
    frames: "FrameFacts | None"
    window: int = 1
    """steps that make one answer"""
    whole: bool = False
    """whether content is read in one run: the model goes through it backwards too"""

    def fresh(self, session_id: str, owner: str, now: float, ttl: float) -> Session:
        """Return a session of the model at its start, which lives for `ttl` seconds from `now`."""
        zeros = np.zeros(self.state_size, np.float32)
        return Session(session_id, self.name, self.version, self.digest, owner, zeros, 0, 0, now, now + ttl)

    @classmethod
    def of(cls, manifest: Manifest, max_frames: int) -> "ModelFacts":
        """Return the facts of a bundle; max_frames: what a step may have of them at the model's rate."""
        m = manifest
        logits, frame, rate = m.part("last_logits"), m.part("last_frame"), MODALITIES[m.modality].rate(m)
        assert logits is not None, "every manifest has last_logits"
        hidden = [p for p in m.state if p.role == "hidden"]
        frames = None
        if rate is not None:
            last = None if frame is None else slice(frame.offset, frame.offset + frame.size)
            frames = FrameFacts(rate, max_frames, last, BodyWatch.of(m))
        return cls(
            m.name,
            m.version,
            m.sha256,
            m.state_size + (frames.watch.size if frames and frames.watch else 0),
            m.alphabet or "",
            LastLogits(slice(logits.offset, logits.offset + logits.size), m.unknown_symbol),
            slice(hidden[0].offset, hidden[-1].offset + hidden[-1].size) if hidden else slice(0, 0),
            m.limits.max_position,
            frames,
            m.window or 1,
            not m.streams,
        )


class FrameFacts(NamedTuple):
    """A model's frames per second, how many a step may have, where the state holds the last one that it saw, and who watches bodies.

    Where the state does not hold it, the session does, as what is left over at the model's own rate.
    """

    hz: float
    max_frames: int
    last_frame: slice | None
    watch: "BodyWatch | None" = None

    def before(self, session: Session | None, shape: tuple[int, ...]) -> Floats:
        """Return the last frame [P, J, 3] of a session that resamples nothing; zeros where there is none."""
        if session is not None and session.carry is not None:
            return session.carry.frame
        if session is None or self.last_frame is None:
            return np.zeros(shape, np.float32)
        return session.state[self.last_frame].reshape(shape)

    def after(self, x: Floats) -> Carry | None:
        """Return what a session keeps of frames [T, P, J, 3] at the model's rate."""
        return None if self.last_frame is not None else Carry(self.hz, x[-1].copy(), 1, 1)


class Prepared(NamedTuple):
    """Content as the graph reads it: x [t, ...], t >= 0, what resampling left over, and which joints hold their place [t, P, J]."""

    x: NDArray[np.generic]
    carry: Carry | None
    lost: NDArray[np.bool_] | None = None


def frames_of(content: Content, own_hz: float | None) -> int:
    """Return how many time steps of the model content is at least, whatever came before it."""
    if not isinstance(content, Frames) or own_hz is None:
        return len(content.x)
    if content.t is not None and len(content.t):
        return math.floor(float(content.t[-1] - content.t[0]) * own_hz)
    return math.floor(len(content.x) * own_hz / (content.hz or own_hz))


def longest(max_position: int | None, hz: float | None, own_hz: float | None) -> int | None:
    """Return how many frames of a camera's rate, or characters, a sequence may have; None where nothing bounds it.

    max_position counts what the graph reads: half as many frames of a camera of half the model's rate.
    """
    return max_position if max_position is None or hz is None or own_hz is None else math.floor(max_position * hz / own_hz)


def prepare(content: Content, session: Session | None, model: ModelFacts) -> Prepared:
    """Return content after the session's earlier frames: joints not seen are held, other rates resampled.

    Raises BadInput when the session runs at another rate, TooLarge when that makes more frames than a step may have, or a sequence of its
    own more than the model was made for, PositionLimit when a session has too many with it.
    """
    facts = model.frames
    if isinstance(content, Exact):
        _need_room(content.x, None, session, model)
        if facts is None or facts.last_frame is not None:
            return Prepared(content.x, None)
        return Prepared(content.x, facts.after(content.x.astype(np.float32, copy=False)))
    assert facts is not None, "a clip goes to a model that reads frames"
    clip, carry = content.x, session.carry if session else None
    running_at = None if session is None or session.position == 0 else carry.hz if carry else facts.hz
    if content.t is not None or (carry is not None and carry.timed):
        return _prepare_timed(content, session, facts, model.max_position)
    hz = content.hz or running_at or facts.hz
    _need_room(clip, hz, session, model)
    if content.whole and hz == facts.hz and running_at in (None, hz):
        return Prepared(clip, facts.after(clip))
    if running_at is not None and running_at != hz:
        raise BadInput(f"expected {running_at:g} frames per second as in the session's earlier steps, got {hz:g}", field="hz")
    if len(clip) * facts.hz > facts.max_frames * hz:  # more frames of the model's than it may get at once
        most = math.floor(facts.max_frames * hz / facts.hz)
        raise TooLarge(f"expected at most {most} frames at {hz:g} a second, got {len(clip)}", field="hz")
    x = hold(clip, facts.before(session, clip.shape[1:]))
    missing: NDArray[np.bool_] = np.logical_or.reduce(np.isnan(clip), axis=-1)
    lost = missing if missing.any() else None
    if hz == facts.hz:
        return Prepared(x, facts.after(x), lost)
    x, left = resample(x, hz, facts.hz, carry)
    return Prepared(x, left, None if lost is None else _lost_at(lost, len(x), hz, facts.hz, carry))


def _prepare_timed(content: Frames, session: Session | None, facts: FrameFacts, max_position: int | None) -> Prepared:
    """Return frames that say when they were taken, as `prepare` does."""
    x, t, carry = content.x, content.t, session.carry if session else None
    if t is None or (session is not None and session.position > 0 and (carry is None or not carry.timed)):
        expected = "when each frame was taken" if t is None else "none"
        raise BadInput(f"expected {expected}, as in the session's earlier steps", field="t")
    if carry is not None and t[0] <= carry.last:
        raise BadInput(f"expected a time after {carry.last:.6f}, the last one of the step before, got {t[0]:.6f}", field="t[0]")
    n, before = due(t, facts.hz, carry), carry.count if carry else 0
    if n > facts.max_frames:
        raise TooLarge(
            f"expected at most {facts.max_frames / facts.hz:g} s in one piece, got {n / facts.hz:g}: a reset begins anew", field="t"
        )
    if max_position is not None and before + n > max_position:
        made = f"the model was made for {max_position / facts.hz:g} s in a sequence, got {(before + n) / facts.hz:g}"
        raise TooLarge(made, field="t") if session is None else PositionLimit(made, field="t")
    last = carry.frame if carry else np.zeros(x.shape[1:], np.float32)
    frames, rest, after = resample_at(hold(x, last), t, facts.hz, carry)
    missing: NDArray[np.bool_] = np.logical_or.reduce(np.isnan(x), axis=-1)
    return Prepared(frames, rest, missing[after] if missing.any() else None)


def _lost_at(lost: NDArray[np.bool_], frames: int, hz: float, own_hz: float, carry: Carry | None) -> NDArray[np.bool_]:
    """Return which joints are lost in each of the model's frames: those lost in the next of the client's."""
    phase = carry.numerator / carry.denominator - 1 if carry else 0.0
    at = np.ceil(phase + np.arange(frames) * hz / own_hz - 1e-6).astype(np.int64)
    taken: NDArray[np.bool_] = lost[np.clip(at, 0, len(lost) - 1)]
    return taken


def _need_room(x: NDArray[np.generic], hz: float | None, session: Session | None, model: ModelFacts) -> None:
    if model.max_position is None:
        return
    most = longest(model.max_position, hz, model.frames and model.frames.hz)
    position = session.position if session else 0
    if most is None or position + len(x) <= most:
        return
    made = f"the model was made for {most}" + ("" if most == model.max_position else f" at {hz:g} a second")
    if session is None:
        raise TooLarge(f"expected at most {most} in a sequence, got {len(x)}: {made}")
    raise PositionLimit(f"expected at most {most - position} more, got {len(x)}: {made}")


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
    lost: NDArray[np.bool_] | None = None
    doubts: tuple[str, ...] = ()
    window: int = 1
    whole: bool = False

    @property
    def finished(self) -> bool:
        """Return whether all of it has been consumed."""
        return self.at >= len(self.x)

    @property
    def steps(self) -> int:
        """Return the number of time steps of its next run, or of windows that they fill."""
        left = len(self.x) - self.at
        return 1 if left == 1 or self.watch is not None else min(-(-left // self.window), PIECE)

    def next_row(self) -> Row:
        """Return the next piece. A watched session goes one step at a time, so that each state can be seen."""
        if self.at == 0 and (self.whole or len(self.x) == 1):
            return Row(self.x, self.state, self.lost)
        size = PIECE * self.window if self.watch is None else 1
        piece = slice(self.at, self.at + size)
        return Row(self.x[piece], self.state, None if self.lost is None else self.lost[piece])

    def take(self, logits: Floats, state: Floats, doubts: tuple[str, ...] = ()) -> None:
        """Take the engine's answer for the piece."""
        self.doubts = doubts
        if self.x.dtype.kind == "i":
            self._score(logits)
        if self.every:  # of a model with a window the last number says where one ends, and only there is an answer
            self.scored.append(logits if self.window == 1 else logits[logits[:, -1] > 0])
        self.at += len(logits)
        self.state = state
        if self.watch is not None:
            self.watched.append(halves(state[self.watch]))

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
        every = np.concatenate(self.scored) if self.scored else _nothing(len(last))
        return Scores(last, every, np.concatenate(self.logprobs) if self.logprobs else NOTHING, self.doubts)

    def states(self) -> States | None:
        """Return the watched neurons after each step, [t, n]."""
        return np.stack(self.watched) if self.watched else None


@lru_cache(64)
def _nothing(classes: int) -> Floats:
    """Return the logits [0, K] of no step."""
    return NOTHING.reshape(0, classes)


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
