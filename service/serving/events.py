"""Models that tell events: a motion once, in the step in which it is sure, with its label, start and score.

The graph tells them in the last numbers of each row of logits (export/modalities/modality.py), and its hysteresis is a part of the state.
So a step that is repeated, or comes in other pieces, tells the same events, and nothing of them is kept here.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from indrnn.export.bundle import Manifest
from indrnn.export.modalities.modality import EVENT
from indrnn.service.engine.requests import Content
from indrnn.service.serving.modality import Options, ServedModality, Words
from indrnn.service.session.machine import Scores


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
