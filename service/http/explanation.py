"""What an answer depends on: a bundle's explain.onnx, run once over a whole sequence, from its start and without a session.

The graph gives the exact gradient of a weighted sum of logits (export/bundle.py, Explanation). It is opened when it is first asked for, and
runs on a thread of its own, so that neither the event loop nor an engine waits for it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import EXPLAIN, GRAPH, Manifest, digest
from indrnn.export.modalities.table import MODALITIES
from indrnn.frames.joints import hold
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort
from indrnn.service.engine.requests import Content, Frames
from indrnn.service.errors import BadInput, Overloaded, TooLarge, said
from indrnn.service.serving.models import Models, ServedModel, one_of

MOST_STEPS = 512  # frames, characters or rows of one explanation
LARGEST = float(np.finfo(np.float32).max)
WAITING = 8  # requests that may wait for the one that runs

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Explained:
    """gradient: of x's shape without its batch, of text [T]; relevance [T, ...]: gradient times input, summed over coordinates; off [T]."""

    logit: float
    gradient: Floats
    relevance: Floats
    off: Floats


class Explainer:
    """The explanations of the bundles below a folder. One runs at a time; some may wait."""

    def __init__(self, bundles: Path) -> None:
        self._bundles = bundles
        self._open: dict[str, ort.InferenceSession] = {}
        self._models: Models | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def explain(self, model: ServedModel, content: Content, weights: Floats) -> Explained:
        """Return what the weighted logits [K] after the content depend on. Raises BadInput, TooLarge, Overloaded."""
        x = read(model.manifest, content)
        if self._waiting >= WAITING:
            raise Overloaded(f"{WAITING} explanations wait already", retry_after=1)
        self._waiting += 1
        try:
            async with self._turn:
                return await self._run_while_wanted(model.manifest, x, weights)
        finally:
            self._waiting -= 1
            self._close_gone()  # the model may have left while its graph was opened

    def follow(self, models: Models) -> None:
        """Close the explanation of every model that leaves this table; to be told once."""
        if self._models is None:
            self._models = models
            models.follow(self._close_gone)

    def _close_gone(self) -> None:
        if self._models is None:
            return
        kept = {told.sha256 for model in self._models if (told := model.manifest.explain) is not None}
        for sha256 in self._open.keys() - kept:
            del self._open[sha256]

    async def _run_while_wanted(self, manifest: Manifest, x: NDArray[np.generic], weights: Floats) -> Explained:
        """Run on a thread; who is cancelled ends the run at its next node, and leaves when it has ended, for the next one's sake."""
        options = ort.RunOptions()
        running = asyncio.create_task(asyncio.to_thread(self._run, manifest, x, weights, options))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            options.terminate = True
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # it has no one to tell
            raise

    def _run(self, manifest: Manifest, x: NDArray[np.generic], weights: Floats, options: ort.RunOptions) -> Explained:
        assert manifest.explain is not None, "`read` has looked"
        if (session := self._open.get(manifest.explain.sha256)) is None:
            session = self._open[manifest.explain.sha256] = self._opened(manifest)
        feeds = {"x": x[None], "lengths": np.array([len(x)], np.int64), "weights": weights[None]}
        gradient, logits, off = session.run(["gradient", "logits", "off"], feeds, options)
        with np.errstate(over="ignore", invalid="ignore"):  # large weights: what comes of them is looked at
            logit = float(logits[0] @ weights)
            relevance = gradient[0] if gradient.ndim == 2 else gradient[0] * x
            if relevance.ndim > 2:  # of skeletons: a number for each joint
                relevance = relevance.sum(-1)
        if not (np.isfinite(logit) and np.isfinite(gradient).all() and np.isfinite(relevance).all()):
            raise BadInput("expected weights of which the sum of the logits, and its gradient, are finite", field="weights")
        return Explained(logit, gradient[0], relevance, off[0])

    def _opened(self, manifest: Manifest) -> ort.InferenceSession:
        folder = self._bundles / manifest.name / manifest.version
        assert manifest.explain is not None, "`read` has looked"
        path = folder / EXPLAIN
        stated = {path: manifest.explain.sha256, folder / GRAPH: manifest.sha256}  # whose weights it reads
        try:
            same = all(digest(file) == sha256 for file, sha256 in stated.items())
        except OSError:  # removed, or not to be read
            same = False
        if not same:
            raise BadInput(f"the explanation of {manifest.name} {manifest.version} is no longer the file that was loaded", field="model")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if library := registered():
            options.register_custom_ops_library(str(library))
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def need_explanation(manifest: Manifest) -> None:
    """Raise BadInput where the model has no explanation."""
    if manifest.explain is None:
        why = MODALITIES[manifest.modality].unexplained
        raise BadInput(f"model {manifest.name} {manifest.version} has no explain.onnx: {why}", field="model")


def read(manifest: Manifest, content: Content) -> NDArray[np.generic]:
    """Return x [T, ...] of the graph. Raises BadInput where the model has no explanation or the frames are at another rate; TooLarge."""
    need_explanation(manifest)
    if len(content.x) > MOST_STEPS:
        raise TooLarge(f"expected at most {MOST_STEPS} steps, got {len(content.x)}", field="sequence")
    if not isinstance(content, Frames):
        return content.x
    if content.hz not in (None, manifest.hz) or content.t is not None:
        own = "" if manifest.hz is None else f", {manifest.hz:g}"
        got = said(content.hz) if content.t is None else "a time of each frame"
        raise BadInput(f"expected frames at the model's rate{own}, so that hz may be left out, got {got}", field="hz")
    return hold(content.x, np.zeros(content.x.shape[1:], np.float32)).astype(np.float32, copy=False)


def weights_of(manifest: Manifest, label: object, weights: object) -> Floats:
    """Return weights [K] of logits: those that are given, or of a label 1, and of all others minus the mean.

    label: a class, a character of the alphabet, or a value's name, which has no others against it. Raises BadInput.
    """
    K = manifest.classes
    if weights is not None:
        if (wrong := _wrong(weights, label, K)) is not None:
            raise BadInput(f"expected {K} numbers and no label beside them, got {wrong}", field="weights")
        return np.array(weights, np.float32)
    names: Sequence[str] = manifest.labels or manifest.alphabet or [v.name for v in manifest.values or ()]
    known = [name for k, name in enumerate(names) if k != manifest.unknown_symbol or manifest.labels]
    if not isinstance(label, str) or label not in known:
        raise BadInput(one_of(known, label, "the model names no answers, so weights are expected"), field="label")
    found = np.zeros(K, np.float32)
    if not manifest.values and len(names) > 1:
        found[: len(names)] = -1 / (len(names) - 1)
    found[list(names).index(label)] = 1
    return found


def _wrong(weights: object, label: object, K: int) -> str | None:
    """Return what is wrong with weights, in words; None where nothing is."""
    if not isinstance(weights, list) or len(weights) != K:
        return said(weights)
    for k, w in enumerate(weights):
        if type(w) not in (int, float) or abs(w) > LARGEST:
            return f"{said(w)} at [{k}]"
    return None if label is None else f"the label {said(label)} too"
