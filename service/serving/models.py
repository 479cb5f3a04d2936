"""The served models: what a bundle needs around its engine to read requests and word answers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from indrnn.export.bundle import Manifest, Part
from indrnn.service.engine.port import EnginePort
from indrnn.service.errors import BadInput, OtherModel, UnknownModel, said
from indrnn.service.serving.modality import ServedModality
from indrnn.service.serving.signature import Signature


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of one model, loaded. provider, kernel: what runs it."""

    manifest: Manifest
    port: EnginePort
    modality: ServedModality
    provider: str
    kernel: str

    @cached_property
    def tensors(self) -> Signature:
        """Return what the model takes and gives, as the Open Inference Protocol names it."""
        return Signature.of(self.manifest)

    @cached_property
    def watched_parts(self) -> tuple[Part, ...]:
        """Return the hidden parts, which lie at the front of the state one after another."""
        return tuple(p for p in self.manifest.state if p.role == "hidden")


def need_stream(manifest: Manifest) -> None:
    """Raise BadInput where a sequence cannot go on from one request to the next."""
    if not manifest.streams:
        other = "" if manifest.part("hidden") is None else " (a network trained with --delay in place of --bidirectional streams)"
        raise BadInput(
            f"model {manifest.name} looks at whole sequences and has no stream: expected all of a sequence in one POST /predict or /v2 "
            f"request without a session{other}",
            field="model",
        )


def one_of(names: Sequence[str], asked: object, none: str, what: str = "") -> str:
    """Return what is said of a name that is not among those that there are; none: the words where there are none at all; what: they are."""
    if not names:
        return f"{none}, got {said(asked)}"
    if type(asked) is int and str(asked) in names:  # seen as JSON both would look alike
        return f"expected one of {', '.join(names)}, as a text, got the number {asked}"
    return f"expected one of {', '.join(names)}{what and f', {what}'}, got {said(asked)}"


class Models:
    """Every loaded version of every model; a name alone means its highest version. Some versions are there for the sessions they have.

    The event loop's thread changes it, each time in one step; what another thread goes through does not change under it.
    """

    def __init__(self, models: Iterable[ServedModel] = ()) -> None:
        self.by_key: dict[tuple[str, str], ServedModel] = {}
        """name and version -> loaded model, by name, then by version; replaced whole"""
        self._sizes: dict[str, int] = {}
        """digest -> numbers of its state, of all that was loaded since the start"""
        self._followers: list[Callable[[], None]] = []
        self._retired: frozenset[tuple[str, str]] = frozenset()
        self._latest: tuple[object, object, dict[object, ServedModel]] = ({}, frozenset(), {})
        """of which models and retired ones this is said: the highest version of each name"""
        for model in models:
            self.add(model)

    def follow(self, call: Callable[[], None]) -> None:
        """Have `call` called after each change."""
        self._followers.append(call)

    def changed(self) -> None:
        """Tell the followers that something has changed."""
        for call in self._followers:
            call()

    def add(self, model: ServedModel) -> None:
        """Take up a model, in place of one of the same name and version."""
        loaded = {**self.by_key, (model.manifest.name, model.manifest.version): model}
        self.by_key = dict(sorted(loaded.items(), key=lambda item: (item[0][0], int(item[0][1]))))
        self._sizes[model.manifest.sha256] = model.manifest.state_size
        self.changed()

    def remove(self, model: ServedModel) -> None:
        """Remove a model: from now on nobody finds it here."""
        self.by_key = {key: m for key, m in self.by_key.items() if m is not model}
        self.changed()

    def retire(self, keys: Iterable[tuple[str, str]]) -> None:
        """Exactly these versions are there for the sessions they have, and for nobody else."""
        before, self._retired = self._retired, frozenset(keys)
        if before != self._retired:
            self.changed()

    def is_retired(self, model: ServedModel) -> bool:
        """Return whether it takes no new sessions."""
        return (model.manifest.name, model.manifest.version) in self._retired

    def __iter__(self) -> Iterator[ServedModel]:
        """Every loaded model, by name, then by version."""
        return iter(list(self.by_key.values()))

    def loaded(self, name: str) -> list[ServedModel]:
        """Return every loaded version of a name, the highest last, those too that take no new sessions."""
        return [m for key, m in self.by_key.items() if key[0] == name]

    def versions(self, name: object) -> list[ServedModel]:
        """Return the versions that may be asked for, the highest last. Raises UnknownModel."""
        found = [m for key, m in self.by_key.items() if key[0] == name and key not in self._retired]
        if not found:
            names = sorted({key[0] for key in self.by_key.keys() - self._retired})
            raise UnknownModel(one_of(names, name, "no model is served"), field="model")
        return found

    def latest(self, name: object) -> ServedModel:
        """Return the version that new sessions take. Raises UnknownModel."""
        models, retired, latest = self._latest
        if models is not self.by_key or retired is not self._retired:
            latest = {name: m for (name, version), m in self.by_key.items() if (name, version) not in self._retired}
            self._latest = self.by_key, self._retired, latest
        found = latest.get(name) if isinstance(name, str) else None
        return self.versions(name)[-1] if found is None else found

    def names(self) -> list[str]:
        """Return the names of the models that may be asked for."""
        return list(dict.fromkeys(name for name, version in self.by_key if (name, version) not in self._retired))

    def only(self, name: str) -> bool:
        """Return whether a name has just one version."""
        return len(self.loaded(name)) == 1

    def choose(self, name: object, version: object = None) -> ServedModel:
        """Return the version a client asks for, the highest for None. Raises UnknownModel."""
        if version is None:
            return self.latest(name)
        loaded = {m.manifest.version: m for m in self.versions(name)}
        if not isinstance(version, str) or version not in loaded:
            what = f"the versions of {name} that are served"
            raise UnknownModel(one_of(list(loaded), version, "no version is served", what), field="version")
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
        return self.by_key.get((name, version))

    def state_size(self, digest: str) -> int | None:
        """Return N, how many numbers that file's state has, also after it was unloaded; None where it was not loaded since the start."""
        return self._sizes.get(digest)
