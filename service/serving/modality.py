"""What a modality is to the service: how it reads what clients send, and words what the model answers.

A model that tells events has `EventModality` around its own: the graph tells them in the last numbers of each row of logits
(export/modalities/modality.py), and its hysteresis is a part of the state. So a step that is repeated, or comes in other pieces, tells the
same events, and nothing of them is kept here.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from indrnn.export.bundle import Manifest
from indrnn.export.modalities.modality import EVENT
from indrnn.service.engine.requests import Content
from indrnn.service.session.machine import Scores

Words = dict[str, Any]
"""An answer, or a part of one, as JSON has it."""


class Options(NamedTuple):
    """The options of a stream or a request that say how its content is read: joint layout, frames per second."""

    layout: str | None
    hz: float | None


class ServedModality(Protocol):
    """One way of reading and wording, for one loaded model."""

    field: str
    """the field of a stream's step that holds the content; it is also part of the digest of a step"""
    old_field: str | None
    """another name that 0.1.0's clients have for it"""
    max_steps: int
    """time steps of one message"""
    each_step: bool
    """whether an answer is of every time step, and not of the last alone"""

    def check_options(self, layout: object, hz: object) -> Options:
        """Check the options of a stream or a request. Raises BadInput."""

    def read(self, value: object, layout: object, hz: object, field: str) -> Content:
        """Return what a client sent as content; `field`: where it stands. Raises BadInput and its kin."""

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None]:
        """Return many clients' plain messages as contents, together; None for one that takes a closer look (`read`)."""

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Return answers in words, each with its content."""


class Place(NamedTuple):
    """The place of a step's content in its sequence: position after it, and its rate in steps a second, None for the model's own."""

    position: int
    hz: float | None


class EventModality:
    """A modality whose model tells events too: everything else is as the inner one has it, which sees no more than the scores."""

    each_step = True

    def __init__(self, inner: ServedModality, manifest: Manifest) -> None:
        self._inner = inner
        self.field, self.old_field, self.max_steps = inner.field, inner.old_field, inner.max_steps
        self._labels = manifest.labels or ()
        self._hz = manifest.hz

    def check_options(self, layout: object, hz: object) -> Options:
        """Check the options as the inner modality does."""
        return self._inner.check_options(layout, hz)

    def read(self, value: object, layout: object, hz: object, field: str) -> Content:
        """Read content as the inner modality does."""
        return self._inner.read(value, layout, hz, field)

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None]:
        """Read contents as the inner modality does."""
        return self._inner.read_alike(values, layout, rates)

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Word the scores as the inner modality does."""
        return self._inner.word([(self.scored(scores), content) for scores, content in answers], top_k)

    def scored(self, scores: Scores) -> Scores:
        """Return an answer without the events."""
        return Scores(scores.logits[:-EVENT], scores.every[:, :-EVENT], scores.logprobs)

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
