"""What the engine thread is working on: content being consumed, or characters being emitted, one piece at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from indrnn.frames.joints import hold
from indrnn.frames.rate import Carry, resample
from indrnn.service.engine.clips import ClipReader
from indrnn.service.engine.runtime import PIECE, Row
from indrnn.service.engine.statistics import Protocol as Spoken
from indrnn.service.errors import BadInput, TooLarge
from indrnn.service.session.machine import Floats, Generated, Sampling, Scores, Session
from indrnn.service.session.sampling import Ranking, draw, log_softmax, rank

NOTHING = np.zeros(0, np.float32)


class Prepared(NamedTuple):
    """Content as the graph reads it: x [t, ...], t >= 0, and what resampling left over."""

    x: NDArray[np.generic]
    carry: Carry | None


class Content(Protocol):
    """A client's decoded input; how it becomes x depends on where the session stands."""

    @property
    def length(self) -> int:
        """Return the number of frames or characters."""

    def prepare(self, session: Session | None) -> Prepared:
        """Return the content after the session's earlier frames. Raises BadInput."""


class Text(NamedTuple):
    """Symbols [n] int64 of a chars model's alphabet."""

    symbols: NDArray[np.int64]

    @property
    def length(self) -> int:
        """Return the number of characters."""
        return len(self.symbols)

    def prepare(self, session: Session | None) -> Prepared:
        """Return the symbols as they are, which need no preparation."""
        return Prepared(self.symbols, None)


class Frames(NamedTuple):
    """Frames [T, P, J, 3] in the model's layout; NaN is a joint not seen. hz None is the session's rate, and at its start the model's."""

    x: Floats
    hz: float | None
    reader: ClipReader
    last_frame: slice
    """where the state holds the last frame the model saw"""
    whole: bool = False
    """no joint is missing, as far as anybody has looked already"""

    @property
    def length(self) -> int:
        """Frames as the client counts them."""
        return len(self.x)

    def prepare(self, session: Session | None) -> Prepared:
        """Hold joints not seen and resample to the model's rate.

        Raises BadInput when the session runs at another rate, TooLarge when that makes more frames than a step may have.
        """
        carry = session.carry if session else None
        running_at = self._rate(session)
        hz = self.hz or running_at or self.reader.hz
        if self.whole and hz == self.reader.hz and running_at in (None, hz):
            return Prepared(self.x, None)
        if running_at is not None and running_at != hz:
            raise BadInput(f"expected {running_at:g} frames per second as in the session's earlier steps, got {hz:g}", field="hz")
        if len(self.x) * self.reader.hz > self.reader.max_frames * hz:  # more frames of the model's than it may get at once
            most = math.floor(self.reader.max_frames * hz / self.reader.hz)
            raise TooLarge(f"expected at most {most} frames at {hz:g} a second, got {len(self.x)}", field="hz")
        if carry is not None:
            before = carry.frame
        else:
            before = session.state[self.last_frame].reshape(self.x.shape[1:]) if session else np.zeros(self.x.shape[1:], np.float32)
        x = hold(self.x, before)
        return Prepared(x, None) if hz == self.reader.hz else Prepared(*resample(x, hz, self.reader.hz, carry))

    def _rate(self, session: Session | None) -> float | None:
        if session is None or session.position == 0:
            return None
        return session.carry.hz if session.carry else self.reader.hz


@dataclass(slots=True)
class Feeding:
    """Content on its way through the model, `at` steps of it done."""

    x: NDArray[np.generic]
    carry: Carry | None
    length: int
    state: Floats
    last_logits: slice
    every: bool
    watch: slice | None
    deadline: float
    since: float = 0.0
    at: int = 0
    scored: list[Floats] = field(default_factory=list)
    logprobs: list[Floats] = field(default_factory=list)
    watched: list[NDArray[np.float16]] = field(default_factory=list)
    top: int = 0
    ranked: list[Ranking] = field(default_factory=list)
    protocol: Spoken = "http"

    @property
    def finished(self) -> bool:
        """Return whether all of it has been consumed."""
        return self.at >= len(self.x)

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
        before = np.concatenate([self.state[self.last_logits][None], logits[:-1]])
        symbols = self.x[self.at : self.at + len(logits)]
        scores = log_softmax(before)
        self.logprobs.append(scores[np.arange(len(symbols)), symbols].astype(np.float32))
        if self.top:
            self.ranked.append(rank(scores, self.top))

    def result(self) -> Scores:
        """Return what the step answers."""
        last = self.state[self.last_logits].copy()
        every = np.concatenate(self.scored) if self.scored else NOTHING.reshape(0, len(last))
        return Scores(last, every, np.concatenate(self.logprobs) if self.logprobs else NOTHING)

    def states(self) -> NDArray[np.float16] | None:
        """Return the watched neurons after each step, [t, n]."""
        return np.stack(self.watched) if self.watched else None


@dataclass(slots=True)
class Generating:
    """A generate under way: each turn draws a character from the state's logits and consumes it."""

    state: Floats
    last_logits: slice
    watch: slice | None
    symbol: int = 0
    logprob: float = 0.0

    def next_row(self, so_far: Generated) -> Row:
        """Draw the next character."""
        self.symbol, self.logprob = draw(self.state[self.last_logits], so_far.sampling, len(so_far.text))
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
            self.ranking = rank(log_softmax(self.state[self.last_logits])[None], self.top)
        return self.next_row(self.so_far)


Sink = Callable[[object, "NDArray[np.float16] | None"], None]
"""Takes a Reply (service/session/machine.py) and the watched states; called on the event loop's thread."""
