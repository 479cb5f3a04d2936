"""What a modality is to the service: how it reads what clients send, and words what the model answers.

A model that tells events has `EventModality` around its own: the graph tells them in the last numbers of each row of logits
(export/modalities/modality.py), and its hysteresis is a part of the state. So a step that is repeated, or comes in other pieces, tells the
same events, and nothing of them is kept here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from indrnn.export.bundle import Manifest
from indrnn.export.modalities.modality import EVENT
from indrnn.export.modalities.table import MODALITIES
from indrnn.service.engine.requests import Content
from indrnn.service.errors import BadInput, ServiceError, said
from indrnn.service.session.machine import Scores

Words = dict[str, Any]
"""An answer, or a part of one, as JSON has it."""


NO_MORE: Mapping[str, object] = MappingProxyType({})

READ_OPTIONS = ("lost", "unit", "axes")
"""Options that say how content is read, beside layout and hz; a modality names in `more` those that it has."""


class Options(NamedTuple):
    """The options of a stream or a request that say how its content is read: joint layout, frames per second, and by name what else was
    given of READ_OPTIONS."""

    layout: str | None
    hz: float | None
    more: Mapping[str, object] = NO_MORE


def more_options(modality: "ServedModality", asked: Mapping[str, object], prefix: str = "") -> Mapping[str, object]:
    """Return what was asked of READ_OPTIONS, null left out. Raises BadInput for one that the modality has not."""
    given = {name: value for name in READ_OPTIONS if (value := asked.get(prefix + name)) is not None}
    if not given:
        return NO_MORE
    for name, value in given.items():
        if name not in getattr(modality, "more", ()):  # one that has none need not say so
            raise BadInput(f"expected null, as the model reads no skeletons, got {said(value)}", field=prefix + name)
    return given


def at_times(modality: "ServedModality", given: Mapping[str, object], t: object, field: str) -> Mapping[str, object]:
    """Return options with the times of one piece of content among them, where there are some. Raises BadInput where it takes none."""
    if t is None:
        return given
    if "t" not in getattr(modality, "more", ()):
        raise BadInput(f"expected null, as the model reads no skeletons, got {said(t)}", field=field)
    return {**given, "t": t, "t_field": field}


def with_more(given: Mapping[str, object]) -> dict[str, Any]:
    """Return options as an argument of check_options, read and read_alike, which a modality without them need not have."""
    return {"more": given} if given else {}


def innermost(modality: "ServedModality") -> "ServedModality":
    """Return the modality that reads: that within one which tells events."""
    return modality.inner if isinstance(modality, EventModality) else modality


STEP_CONTENT = ("frames", "text", "values", "sentences")
"""the fields of a step that hold its content, each of some modality"""


def content_of_step(modality: "ServedModality", message: Mapping[str, object], manifest: Manifest) -> tuple[str, object]:
    """Return the field of a step that holds its content, and what is in it. Raises BadInput where that is another modality's.

    An empty list is the modality's own, whatever the field: clients tell modalities by what is in a list.
    """
    field, old = modality.field, modality.old_field
    if old is not None and message.get(old) is not None:
        if message.get(field) is not None:
            raise BadInput(f"expected {field} alone, got {old} too, its older name", field=old)
        field = old
    value = message.get(field)
    own = value is not None
    for other in STEP_CONTENT:
        if other == field or (sent := message.get(other)) is None:
            continue
        if sent == [] and not own:
            value = sent
            continue
        reads = MODALITIES[manifest.modality].reads
        raise BadInput(f"unknown field: model {manifest.name} reads {reads}, in the field {field}", field=other)
    return field, value


class ServedModality(Protocol):
    """One way of reading and wording, for one loaded model."""

    field: str
    """the field of a stream's step that holds the content; it is also part of the digest of a step"""
    old_field: str | None
    """another name that it may have: 0.1.0 had it otherwise"""
    max_steps: int
    """time steps of one message"""
    each_step: bool
    """whether an answer is of every time step, and not of the last alone"""

    @property
    def check_options(self) -> Callable[..., Options]:
        """Check the options of a stream or a request, (layout, hz) and `more` where it has some. Raises BadInput."""

    @property
    def read(self) -> Callable[..., Content]:
        """Return what a client sent as content, of (value, layout, hz, field) and `more` where it has some; `field`: where it stands.

        Raises BadInput and its kin.
        """

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None]:
        """Return many clients' plain messages as contents, together; None for one that takes a closer look (`read`)."""

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Return answers in words, each with its content."""


class PlainModality(ABC):
    """A modality that has no options, and reads each message by itself."""

    field: str
    _name: str

    def check_options(self, layout: object, hz: object) -> Options:
        """Check the options of a stream or a request, of which there are none. Raises BadInput."""
        for field, value in (("layout", layout), ("hz", hz)):
            if value is not None:
                raise BadInput(f"model {self._name} reads {self.field}: expected null, got {said(value)}", field=field)
        return Options(None, None)

    @abstractmethod
    def read(self, value: object, layout: object, hz: object, field: str) -> Content:
        """Return what a client sent as content. Raises BadInput and its kin."""

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None]:
        """Return messages as contents; None for those that cannot be read (`read` says why)."""
        return [self._read_or_none(value) for value in values]

    def _read_or_none(self, value: object) -> Content | None:
        try:
            return self.read(value, None, None, self.field)
        except ServiceError:
            return None


class Place(NamedTuple):
    """The place of a step's content in its sequence: position after it, and its rate in steps a second, None for the model's own."""

    position: int
    hz: float | None


class EventModality:
    """A modality whose model tells events too: everything else is as the inner one has it, which sees no more than the scores."""

    each_step = True

    def __init__(self, inner: ServedModality, manifest: Manifest) -> None:
        self.inner = inner
        self.field, self.old_field, self.max_steps = inner.field, inner.old_field, inner.max_steps
        self._labels = manifest.labels or ()
        self._hz = manifest.hz

    @property
    def more(self) -> Sequence[str]:
        """Return which of READ_OPTIONS the inner modality has. Times of frames are not taken: an event's place is a number of frames."""
        return [name for name in getattr(self.inner, "more", ()) if name != "t"]

    def check_options(self, layout: object, hz: object, more: Mapping[str, object] = NO_MORE) -> Options:
        """Check the options as the inner modality does."""
        return self.inner.check_options(layout, hz, **with_more(more))

    def read(self, value: object, layout: object, hz: object, field: str, more: Mapping[str, object] = NO_MORE) -> Content:
        """Read content as the inner modality does."""
        return self.inner.read(value, layout, hz, field, **with_more(more))

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None]:
        """Read contents as the inner modality does."""
        return self.inner.read_alike(values, layout, rates)

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Word the scores as the inner modality does."""
        return self.inner.word([(self.scored(scores), content) for scores, content in answers], top_k)

    def scored(self, scores: Scores) -> Scores:
        """Return an answer without the events."""
        return scores._replace(logits=scores.logits[:-EVENT], every=scores.every[:, :-EVENT])

    def events(self, scores: Scores, place: Place) -> list[Words]:
        """Return the events of a step: label, start and score, and the step's place `at` which it was told.

        start, at: numbers of frames or rows in their sequence, from 0, as the client counts them.
        """
        stride = Fraction(1)  # client frames a frame of the model
        if place.hz is not None and self._hz is not None and place.hz != self._hz:
            stride = Fraction(place.hz).limit_denominator(1_000) / Fraction(self._hz).limit_denominator(1_000)  # as frames/rate.py has it
        first = (place.position - 1) // stride + 1 - len(scores.every)  # the model's number of the step's first frame
        found = []
        for i, (label, ago, score) in enumerate(scores.every[:, -EVENT:].tolist()):
            if label:
                start, at = (max(0, round((first + i - back) * stride)) for back in (round(ago), 0))
                found.append({"label": self._labels[round(label)], "start": start, "at": at, "score": score})
        return found
