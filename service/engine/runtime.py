"""One bundle in ONNX Runtime: which provider runs it, and one run of a batch."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Bundle
from indrnn.kernels.cuda import registered_cuda
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort
from indrnn.service.session.machine import Floats

log = logging.getLogger(__name__)

Provider = Literal["cuda", "cpu"]
Kernel = Literal["fused", "loop"]
PIECE = 256  # time steps of a turn's longer messages, of one client or together: what a single step waits for at most.
# More in a run are no cheaper on a CPU: a step of `chars` takes 22 µs in 1 row of 256, 25 in 8 of them, of `action` 6 and 7.
ORT_NAMES: dict[Provider, str] = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class EngineError(Exception):
    """A model cannot be run as asked; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A session that has run, on which provider, with which implementation of the recurrence; seconds: of its warm-up."""

    session: ort.InferenceSession
    provider: Provider
    kernel: Kernel
    seconds: float


class Row(NamedTuple):
    """One client's part of a batch: x [t, ...] (t >= 1) and the state [N] before it."""

    x: NDArray[np.generic]
    state: Floats


class Answer(NamedTuple):
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

    def _load(self, provider: Provider, max_batch: int) -> Loaded:
        """Loaded and warm, with the native kernel where there is one for the provider and it works."""
        if library := registered() if provider == "cpu" else registered_cuda() if _has_cuda() else None:
            try:
                session = self._open(provider, library)
                return Loaded(session, provider, "fused", self._warm_up(session, max_batch))
            except Exception as error:  # whatever it is, the portable loop is there
                log.warning("%s/%s: kernel %s fails, the portable loop runs: %s", self.manifest.name, self.manifest.version, library, error)
        session = self._open(provider, None)
        try:
            seconds = self._warm_up(session, max_batch)
        except Exception as error:  # the runtime's exceptions have no common base of their own
            title = f"{self.manifest.name}/{self.manifest.version}"
            raise EngineError(f"{title}: model.onnx does not run as its manifest says: {error}") from error
        return Loaded(session, provider, "loop", seconds)

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

    def run(self, rows: list[Row]) -> list[Answer]:
        """Run once over rows of any lengths.

        States are gathered and cut as bytes: NumPy gives up the interpreter lock for every copy of more than 500 numbers, and to get it
        back from a busy event loop takes longer than the run.
        """
        lengths = [len(r.x) for r in rows]
        T = max(lengths)
        x = np.zeros((len(rows), T, *self._sample.shape), self._sample.dtype)
        for b, r in enumerate(rows):
            x[b, : lengths[b]] = r.x
        N = self.manifest.state_size
        state = np.frombuffer(b"".join([r.state.data for r in rows]), np.float32).reshape(len(rows), N)
        feeds = {"x": x, "lengths": np.array(lengths, np.int64), "state": state}
        logits, after = self._session.run(["logits", "state_out"], feeds)
        sound = np.isfinite(after).all(axis=1).tolist()
        raw, size = after.tobytes(), 4 * N
        states = [np.frombuffer(raw[b * size : (b + 1) * size], np.float32) for b in range(len(rows))]
        return [Answer(logits[b, :n], states[b], sound[b]) for b, n in enumerate(lengths)]


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


def _times(loaded: list[Loaded]) -> str:
    return "warm-up " + ", ".join(f"{one.provider} {one.seconds * 1e3:.1f} ms" for one in loaded)
