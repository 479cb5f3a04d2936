"""What the server answers, as the user sees it."""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple


class Neurons(NamedTuple):
    """Every recurrent neuron after each time step: `np.frombuffer(data, "<f2").reshape(shape)`, [t, n]."""

    data: bytes
    shape: tuple[int, int]


class Char(NamedTuple):
    """A character and its log-probability in nats, None of one that was read as the symbol for unknown ones; `states` where neurons
    are watched and the character is new."""

    char: str
    logprob: float | None
    states: Neurons | None = None


class Label(NamedTuple):
    """A class and its softmax score."""

    label: str
    score: float


class Event(NamedTuple):
    """A motion that was told, once: `start` is the frame from which on it lasted, `at` the one at which it was told, both from 0."""

    label: str
    start: int
    at: int
    score: float


class QuestionAnswer(NamedTuple):
    """The answer to a question; `sentence` is its place in what was sent, from 0."""

    sentence: int
    label: str
    score: float
    top: list[Label]


class Prediction(NamedTuple):
    """The answer at the end of a clip, or of rows of numbers; `frames` as the client counts them. `events` of models that tell some.

    Of a model of sentences the answer to the last question, with an empty label where nothing was asked; `answers` to all of them.
    """

    label: str
    score: float
    top: list[Label]
    frames: int
    events: list[Event] | None = None
    answers: list[QuestionAnswer] | None = None


class Result(NamedTuple):
    """The answer to a step. `chars` and `next` of a model of characters, `predictions` of one of skeletons, `scores` [t][K] with
    `every`, `states` where neurons are watched and the answer is no repeat."""

    step: int
    position: int
    chars: list[Char]
    next: list[Char]
    predictions: list[Prediction]
    scores: list[list[float]] | None
    states: Neurons | None
    outputs: dict[str, list[float]] | None = None
    """values by name, of a model of numbers that answers those: the last row's, or each row's"""
    events: Sequence[Event] = ()
    """the motions told in this step, of a session opened with `events`"""
    warnings: Sequence[str] = ()
    """what looks wrong with what was sent"""
    replaced: dict[str, Any] | None = None
    """count and characters that were read as the model's unknown symbol, of a session opened with `unknown`"""


class Pending(NamedTuple):
    """A generate that was cut: its number, and the characters that are stored."""

    step: int
    text: str


class Part(NamedTuple):
    """A layer's stretch of the watched neurons."""

    layer: int
    size: int
    activation: str


class SessionInfo(NamedTuple):
    """The place where a session stands; times as RFC 3339. kept: the steps that it can be rewound to; marks: named ones."""

    session_id: str
    model: str
    version: str
    step: int
    position: int
    created_at: str
    expires_at: str
    keep: int = 0
    kept: list[int] | None = None
    marks: dict[str, int] | None = None


class Predicted(NamedTuple):
    """The answer to a predict: one prediction for each sequence; with a session, where that stands."""

    model: str
    version: str
    predictions: list[Prediction]
    step: int | None
    position: int | None
    outputs: dict[str, list[Any]] | None = None
    """values by name, of a model of numbers that answers those: one a sequence, or all of its rows'"""
    warnings: Sequence[str] = ()
    """what looks wrong with what was sent"""


def neurons(body: dict[str, Any]) -> Neurons | None:
    """The watched neurons of a message."""
    return Neurons(base64.b64decode(body["states"]), tuple(body["shape"])) if "states" in body else None


def char(body: dict[str, Any]) -> Char:
    """Read an emitted character from a message."""
    return Char(body["char"], body["logprob"], neurons(body))


def event(body: dict[str, Any]) -> Event:
    """Read an event from a message or a list of them."""
    return Event(body["label"], body["start"], body["at"], body["score"])


def labels(top: list[dict[str, Any]]) -> list[Label]:
    """Read the classes of an answer, the likeliest first."""
    return [Label(t["label"], t["score"]) for t in top]


def prediction(body: dict[str, Any]) -> Prediction:
    """Read one clip's answer from a message."""
    return Prediction(
        body["label"],
        body["score"],
        labels(body["top"]),
        body.get("frames", body.get("steps", 0)),
        [event(e) for e in body["events"]] if "events" in body else None,
        [QuestionAnswer(a["sentence"], a["label"], a["score"], labels(a["top"])) for a in body["answers"]] if "answers" in body else None,
    )


def result(body: dict[str, Any]) -> Result:
    """Read a step's answer from a message."""
    chars, likely = ([Char(c["char"], c["logprob"]) for c in body.get(name, ())] for name in ("chars", "next"))
    predictions = [prediction(p) for p in body.get("predictions", ())]
    told = Result(body["step"], body["position"], chars, likely, predictions, body.get("scores"), neurons(body), body.get("outputs"))
    return told._replace(warnings=tuple(body.get("warnings", ())), replaced=body.get("replaced"))


def session_info(body: dict[str, Any]) -> SessionInfo:
    """Read a session as lists and looks show it."""
    there = (name for name in SessionInfo._fields if name in body or name not in SessionInfo._field_defaults)
    return SessionInfo(**{name: body[name] for name in there})


def predicted(body: dict[str, Any]) -> Predicted:
    """Read the answer to a predict from a response."""
    standing = body.get("session") or {}
    answers = [prediction(p) for p in body.get("predictions", ())]
    told = tuple(body.get("warnings", ()))
    return Predicted(body["model"], body["version"], answers, standing.get("step"), standing.get("position"), body.get("outputs"), told)
