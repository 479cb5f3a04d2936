"""What a modality is to the service: how it reads what clients send, and words what the model answers."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

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
    """another name that it may have: 0.1.0 had it otherwise"""
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
