"""The served models: what a bundle needs around its engine to read requests and word answers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import OTHER, Bundle, Manifest, Part
from indrnn.service.engine.batcher import Batcher, BatcherSettings
from indrnn.service.engine.clips import ClipReader
from indrnn.service.engine.runtime import Engine
from indrnn.service.engine.work import Frames, Text
from indrnn.service.errors import BadInput, OtherModel, OutOfAlphabet, TooLarge, UnknownModel, said
from indrnn.service.serving.signature import Signature
from indrnn.service.session.machine import Floats
from indrnn.service.session.sampling import log_softmax
from indrnn.service.settings import Settings
from indrnn.service.store.protocol import Store


@dataclass(frozen=True)
class ServedModel:
    """One version of one model, loaded."""

    manifest: Manifest
    engine: Engine
    batcher: Batcher
    max_frames: int
    max_text: int

    @cached_property
    def reader(self) -> ClipReader:
        """Return the reader of this model's clips. Raises BadInput for a model that reads text."""
        if self.manifest.kind != "action":
            raise BadInput(f"model {self.manifest.name} reads text, not frames: expected WS /stream/{self.manifest.name} with text")
        return ClipReader.of(self.manifest, self.max_frames)

    @cached_property
    def _symbols(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the alphabet's code points in ascending order, and the symbol of each."""
        points = np.array([ord(c) for c in self.manifest.alphabet or ""], np.uint32)
        order = np.argsort(points)
        return points[order], order

    @cached_property
    def tensors(self) -> Signature:
        """Return what the model takes and gives, as the Open Inference Protocol names it."""
        return Signature.of(self.manifest)

    @cached_property
    def hidden(self) -> slice:
        """Return where the state holds every recurrent neuron, layer by layer."""
        parts = self.watched_parts
        return slice(parts[0].offset, parts[-1].offset + parts[-1].size)

    @cached_property
    def watched_parts(self) -> tuple[Part, ...]:
        """Return the hidden parts, which lie at the front of the state one after another."""
        return tuple(p for p in self.manifest.state if p.role == "hidden")

    @cached_property
    def _last_frame(self) -> slice:
        part = self.manifest.part("last_frame")
        assert part is not None, "an action bundle keeps the last frame"
        return slice(part.offset, part.offset + part.size)

    def frames(self, clip: object, layout: object, hz: object, field: str) -> Frames:
        """Return a client's clip as content. Raises BadInput and its kin."""
        known = self.reader.check_layout(layout)
        rate = self.reader.check_hz(hz)
        return Frames(self.reader.read(clip, known, field), rate, self.reader, self._last_frame)

    def text(self, text: object, field: str) -> Text:
        """Return a client's text as content. Raises BadInput, OutOfAlphabet naming the character, TooLarge."""
        if self.manifest.kind != "chars":
            raise BadInput(f"model {self.manifest.name} reads frames, not text", field=field)
        if not isinstance(text, str) or not text:
            raise BadInput(f"expected a text of at least one character, got {said(text)}", field=field)
        if len(text) > self.max_text:
            raise TooLarge(f"expected at most {self.max_text} characters, got {len(text)}", field=field)
        points, symbols = self._symbols
        sent = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        at = np.minimum(np.searchsorted(points, sent), len(points) - 1)
        unknown = np.flatnonzero(points[at] != sent)
        if len(unknown):
            i = int(unknown[0])
            what = f"character {text[i]!r} (U+{ord(text[i]):04X}) at {i}"
            hint = f"see GET /models/{self.manifest.name}; quotes and dashes are plain"
            detail = f"{what} is not in the model's alphabet ({hint})"
            raise OutOfAlphabet(detail, field=field)
        return Text(symbols[at])

    def plain_frames(self, clips: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Frames] | None:
        """Clips of plain numbers [T][J][3] as contents, all at once; None where one of them takes a closer look (`frames`).

        There must be no true or false and no text in them. layout and rates are checked already.
        """
        known = self.reader.check_layout(layout)
        lists = [clip for clip in clips if isinstance(clip, list)]
        found = self.reader.read_alike(lists, known) if len(lists) == len(clips) else None
        if found is None:
            return None
        return [Frames(x, hz, self.reader, self._last_frame, whole=True) for x, hz in zip(found, rates, strict=True)]

    def best(self, logits: Floats, top_k: int) -> "list[Best]":
        """For each row of logits [n, K] its top_k names, the best first: labels with their softmax, characters with its log in nats."""
        scores = log_softmax(logits)
        if self.manifest.kind == "action":
            scores = np.exp(scores)
        order = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
        names = self.manifest.labels or self.manifest.alphabet or ""
        values = np.take_along_axis(scores, order, -1).tolist()
        return [[(names[k], v) for k, v in zip(ks, vs, strict=True)] for ks, vs in zip(order.tolist(), values, strict=True)]

    def prediction(self, best: "Best", frames: int) -> dict[str, object]:
        """A clip's answer: the best label, its score, and the others; `other` where the bundle says that so low a score means none."""
        label, score = best[0]
        below = self.manifest.other_below
        answer = OTHER if below is not None and score < below else label
        return {"label": answer, "score": score, "top": [{"label": name, "score": value} for name, value in best], "frames": frames}

    def scored_chars(self, symbols: NDArray[np.int64], logprobs: Floats) -> list[dict[str, object]]:
        """Return each character with its log-probability [n], in nats, before the model saw it."""
        alphabet = self.manifest.alphabet or ""
        return [{"char": alphabet[k], "logprob": p} for k, p in zip(symbols.tolist(), logprobs.tolist(), strict=True)]


Best = list[tuple[str, float]]
"""Names with their scores, the best first."""


def next_chars(best: Best) -> list[dict[str, object]]:
    """Return the likeliest next characters."""
    return [{"char": char, "logprob": logprob} for char, logprob in best]


class Models:
    """Every loaded version of every model; a name alone means its highest version. Some versions are there for the sessions they have.

    The event loop's thread changes it, each time in one step; what another thread goes through does not change under it.
    """

    def __init__(self, models: Iterable[ServedModel] = ()) -> None:
        self._loaded: dict[tuple[str, str], ServedModel] = {}
        self._retired: frozenset[tuple[str, str]] = frozenset()
        for model in models:
            self.add(model)

    def add(self, model: ServedModel) -> None:
        """Take up a model, in place of one of the same name and version."""
        loaded = {**self._loaded, (model.manifest.name, model.manifest.version): model}
        self._loaded = dict(sorted(loaded.items(), key=lambda item: (item[0][0], int(item[0][1]))))

    def remove(self, model: ServedModel) -> None:
        """Remove a model: from now on nobody finds it here."""
        self._loaded = {key: m for key, m in self._loaded.items() if m is not model}

    def retire(self, keys: Iterable[tuple[str, str]]) -> None:
        """Exactly these versions are there for the sessions they have, and for nobody else."""
        self._retired = frozenset(keys)

    def is_retired(self, model: ServedModel) -> bool:
        """Return whether it takes no new sessions."""
        return (model.manifest.name, model.manifest.version) in self._retired

    def __iter__(self) -> Iterator[ServedModel]:
        """Every loaded model, by name, then by version."""
        return iter(list(self._loaded.values()))

    def loaded(self, name: str) -> list[ServedModel]:
        """Return every loaded version of a name, the highest last, those too that take no new sessions."""
        return [m for key, m in self._loaded.items() if key[0] == name]

    def versions(self, name: object) -> list[ServedModel]:
        """Return the versions that may be asked for, the highest last. Raises UnknownModel."""
        found = [m for key, m in self._loaded.items() if key[0] == name and key not in self._retired]
        if not found:
            names = sorted({key[0] for key in self._loaded.keys() - self._retired})
            raise UnknownModel(f"expected one of {', '.join(names)}, got {said(name)}", field="model")
        return found

    def latest(self, name: object) -> ServedModel:
        """Return the version that new sessions take. Raises UnknownModel."""
        return self.versions(name)[-1]

    def names(self) -> list[str]:
        """Return the names of the models that may be asked for."""
        return list(dict.fromkeys(name for name, version in self._loaded if (name, version) not in self._retired))

    def only(self, name: str) -> bool:
        """Return whether a name has just one version."""
        return len(self.loaded(name)) == 1

    def choose(self, name: object, version: object = None) -> ServedModel:
        """Return the version a client asks for, the highest for None. Raises UnknownModel."""
        if version is None:
            return self.latest(name)
        loaded = {m.manifest.version: m for m in self.versions(name)}
        if not isinstance(version, str) or version not in loaded:
            raise UnknownModel(f"expected one of {', '.join(loaded)}, got {said(version)}", field="version")
        return loaded[version]

    def of_digest(self, digest: str, name: str, version: str) -> ServedModel:
        """Return the model of that file; where two share it, the one that is called so. Raises UnknownModel, OtherModel."""
        same = [m for m in self if m.manifest.sha256 == digest]
        if not same:
            self.versions(name)
            raise OtherModel(f"no loaded version of {name} has the file that the state belongs to ({digest[:12]!r}…)", field="digest")
        return max(same, key=lambda m: (m.manifest.name == name, m.manifest.version == version))

    def exactly(self, name: str, version: str) -> ServedModel | None:
        """Return that very version if it is loaded, else None."""
        return self._loaded.get((name, version))


def serve(bundle: Bundle, settings: Settings, store: Store, post: Callable[[Callable[[], None]], None]) -> ServedModel:
    """Load a bundle and start its engine thread. Blocks while it warms up; raises EngineError."""
    engine = Engine(bundle, settings.provider, settings.threads, settings.max_batch)
    bounds = BatcherSettings(settings.max_batch, settings.max_queue, settings.step_timeout, settings.session_ttl)
    return ServedModel(bundle.manifest, engine, Batcher(engine, store, bounds, post), settings.max_frames, settings.max_text)


def same_version(wanted: object, model: ServedModel) -> None:
    """Raises BadInput where a client asks for another version than its session's."""
    if wanted not in (None, model.manifest.version):
        raise BadInput(f"expected {model.manifest.version!r}, the session's version, got {said(wanted)}", field="version")
