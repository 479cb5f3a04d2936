"""Document the shapes of the native HTTP API. The hot routes read their bodies without these classes (see service/serving/skeleton.py)."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SessionId = Annotated[str, Field(description="28 URL-safe characters, not to be guessed", examples=["pI0r3bA3Zz5kB6a1nV8mRyf2oQxU"])]
_AXES = "x, y, z in metres: x to the right of a person who faces the camera (negative at the left hand), y up, z away from the camera"
Joint = Annotated[list[float], Field(min_length=3, max_length=3, description=_AXES)]
Person = list[Joint | None]
Clip = Annotated[
    list[Person] | list[list[Person]],
    Field(description="[T][J][3], or [T][P][J][3] with persons; null for a joint not seen, which holds its last place", min_length=1),
]

Rows = Annotated[
    list[list[float]], Field(description="[T][F], a row a step, in the order and the units of the model's features", min_length=1)
]

Story = Annotated[list[str], Field(description="sentences, told or asked, in the model's words", min_length=1)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictRequest(_Shape):
    """A request to answer clips, rows of numbers or sentences: each from the start of a sequence, or one that goes on in a session."""

    sequences: list[Clip] | list[Rows] | list[Story] = Field(
        min_length=1, description="clips for a model of skeletons, rows for one of numbers, lists of sentences for one of sentences"
    )
    model: str | None = Field("action", description="a model that reads skeletons, numbers or sentences")
    version: str | None = Field(None, description="one of its loaded versions, the highest by default; of a session its own")
    layout: str | None = Field(None, description="the joint order of the clips; the model's own by default", examples=["kinect20"])
    hz: float | None = Field(
        None, ge=1, le=1000, description="the clips' frames per second, the model's rate by default; resampled causally"
    )
    t: list[list[float]] | list[float] | None = Field(
        None, description="when each frame was taken, rising seconds, a list for each sequence; resampled causally to the model's rate"
    )
    lost: Literal["zero"] | None = Field(None, description="`zero`: a joint at exactly 0 in all axes was not seen, as with null")
    unit: str | None = Field(None, description="the clips' unit: m, cm, mm, or that of the model's own data", examples=["mm"])
    axes: str | None = Field(None, description="where the model's x, y and z lie in what is sent", examples=["-x -y z"])
    top_k: int | None = Field(5, ge=1, description="how many labels to score; above the number of classes means all")
    session_id: SessionId | None = Field(None, description="go on with this session; takes exactly one sequence")
    step: int | None = Field(None, ge=1, description="the number of this step; without it the server counts")


class Score(_Shape):
    """The softmax score of one label."""

    label: str
    score: float = Field(ge=0, le=1)


class EventInfo(_Shape):
    """A motion that was told: once, in the step in which it was sure. Frames or rows count from 0 in their sequence."""

    label: str
    start: int = Field(ge=0, description="the frame from which on it has lasted")
    at: int = Field(ge=0, description="the frame at which it was told")
    score: float = Field(ge=0, le=1, description="its best score until then")


class AnswerInfo(_Shape):
    """The answer to a question; sentence: its place in what was sent, from 0."""

    sentence: int = Field(ge=0)
    label: str
    score: float = Field(ge=0, le=1)
    top: list[Score]


class Prediction(_Shape):
    """The label and the scores at the end of a clip."""

    label: str = Field(
        description="the likeliest class; `other` below the model's `other_below`, and for what can be no body; empty: nothing was asked"
    )
    score: float = Field(ge=0, le=1)
    top: list[Score]
    frames: int | None = Field(None, description="skeletons: frames of the clip, as the client counts them")
    steps: int | None = Field(None, description="numbers: rows of the sequence; sentences: how many")
    labels: list[str] | None = Field(None, description="numbers: the class of each row, where the model answers each")
    answers: list[AnswerInfo] | None = Field(None, description="sentences: the answer to each question, in order")
    events: list[EventInfo] | None = Field(
        None, description="models that tell events: those of this sequence, or of this step of a session"
    )


class Standing(_Shape):
    """The step and the position of a session after the step."""

    session_id: SessionId
    step: int
    position: int = Field(description="frames or characters consumed")


class PredictResponse(_Shape):
    """The reply to a PredictRequest: one prediction for each sequence, or values by name."""

    model: str
    version: str
    predictions: list[Prediction] | None = Field(None, description="where the answer is a class")
    outputs: dict[str, list[Any]] | None = Field(
        None,
        description="where the answer is values: of each sequence the last, or all of them where the model answers each row; in their own "
        "shape where the model was adopted",
    )
    warnings: list[str] | None = Field(None, description="what looks wrong with the clips, in short; not there where nothing does")
    session: Standing | None = None


class ExplainRequest(_Shape):
    """A request to tell what an answer depends on: of a label against the mean of the others, or of any weighted sum of logits."""

    sequence: Clip | Rows | str = Field(description="a whole sequence from its start, at most 512 steps: frames, rows, or a text")
    model: str | None = Field("action", description="a model whose bundle has an explain.onnx")
    version: str | None = Field(None, description="one of its loaded versions, the highest by default")
    label: str | None = Field(None, description="a class, a character, or a value's name", examples=["wave"])
    weights: list[float] | None = Field(None, description="in its place: a weight for each logit")
    layout: str | None = Field(None, description="the joint order of the frames; the model's own by default", examples=["kinect20"])
    hz: float | None = Field(None, description="the frames' rate, which must be the model's")
    lost: Literal["zero"] | None = Field(None, description="`zero`: a joint at exactly 0 in all axes was not seen, as with null")
    unit: str | None = Field(None, description="the frames' unit: m, cm, mm, or that of the model's own data", examples=["mm"])
    axes: str | None = Field(None, description="where the model's x, y and z lie in what is sent", examples=["-x -y z"])
    unknown: Literal["replace"] | None = Field(
        None, description="text: characters that the alphabet lacks are read as the model's symbol for them, and not refused"
    )


class ReplacedCharacters(_Shape):
    """The characters of a text that were read as the model's symbol for what its alphabet lacks."""

    count: int
    chars: str = Field(description="each of them once, in the order of the text")


class ExplainResponse(_Shape):
    """The reply to an ExplainRequest, in the model's own order of joints and its own units."""

    model: str
    version: str
    logit: float = Field(description="the weighted sum of logits after the last step")
    gradient: list[Any] = Field(
        description="its exact gradient by what was read: frames [T][P][J][3], rows [T][F], of a text [T] as relevance has it"
    )
    relevance: list[Any] = Field(description="gradient times input: [T][P][J] of frames, [T][F] of rows, [T] of characters")
    off: list[float] = Field(description="[T], the share of relu neurons that are at 0 in each step, through which nothing passes")
    replaced: ReplacedCharacters | None = Field(None, description="with `unknown`, where characters were replaced")


class OpenRequest(_Shape):
    """A request to open a session: it names the session's model."""

    model: str = Field(examples=["action"])
    version: str | None = Field(None, description="one of its loaded versions, the highest by default")
    keep: int | None = Field(0, ge=0, description="how many states after its last steps the session keeps, to be rewound to")


Mark = Annotated[str, Field(min_length=1, max_length=64, examples=["before the question"])]


class RewindBody(_Shape):
    """A request to go back: to a step or to a mark."""

    step: int | None = Field(None, ge=0, description="the step after which the session shall stand; 0 is its start")
    mark: Mark | None = Field(None, description="or the mark")
    number: int | None = Field(None, ge=1, description="the number of the rewind, which is a step itself; without it the server counts")


class MarkBody(_Shape):
    """A request to name the step where the session stands, or to take the name away."""

    mark: Mark
    remove: bool | None = False


class SessionInfo(_Shape):
    """A session: its id, model, step, position and times; of one that keeps states also which, but not in lists."""

    session_id: SessionId
    model: str
    version: str
    step: int
    position: int
    created_at: datetime
    expires_at: datetime
    keep: int | None = Field(None, description="how many states the session keeps beside its present one")
    kept: list[int] | None = Field(None, description="the steps that it can be rewound to, the present one last")
    marks: dict[str, int] | None = Field(None, description="named steps")


class RewoundInfo(SessionInfo):
    """A session that was rewound, and to which step."""

    rewound_to: int


class SessionList(_Shape):
    """The sessions of the key that asks, newest first."""

    sessions: list[SessionInfo]


class PartInfo(_Shape):
    """One part of the state: the values from `offset` on that one layer carries."""

    role: str
    layer: int | None = None
    offset: int
    size: int
    activation: str | None = None
    u: list[float] | None = Field(None, description="recurrent weight per neuron; only in GET /models/{name}?weights=true")


class LayoutInfo(_Shape):
    """A joint order that clips may have."""

    joints: int
    joint_names: list[str]
    table: list[list[int]] | None = Field(
        None, description="the sent joints whose mean each of the model's own is; none: it is lost; only in GET /models/{name}"
    )


class QuantityInfo(_Shape):
    """One number of a row, or of an answer, in its own unit."""

    name: str
    unit: str | None = None


class VersionLimits(_Shape):
    """The limits of a request to this model: frames or rows, characters, and the session's position."""

    max_frames: int
    max_text: int
    max_generate: int
    max_position: int | None


class EventRules(_Shape):
    """The way a model's scores become events; the card says what each number does."""

    on: float
    off: float
    least: int
    pause: int


class BodiesInfo(_Shape):
    """What bodies of a model are like: pairs of its joints with their metres, and limits (docs/skeletons.md); null is not checked."""

    pairs: list[tuple[int, int, float]]
    limits: dict[str, float | None]


class VersionInfo(_Shape):
    """One loaded version of a model."""

    version: str
    digest: str = Field(description="sha256 of model.onnx")
    provider: Literal["cpu", "cuda"]
    kernel: str
    labels: list[str] | None = None
    alphabet: str | None = None
    unknown: str | None = Field(None, description="text: the symbol of the alphabet that stands for those it lacks; read, never written")
    explain: bool = Field(description="whether the bundle has an explanation, for POST /explain")
    layout: str | None = None
    layouts: dict[str, LayoutInfo]
    unit: str | None = Field(None, description="skeleton: the unit of the data it learned from, which requests may state")
    metres: float | None = Field(None, description="skeleton: what one of that unit is in the network's")
    axes: str | None = Field(None, description="skeleton: where x, y and z lie")
    dims: Literal[2, 3] | None = Field(None, description="skeleton: numbers of a joint; none: 3")
    persons: int | None = None
    hz: float | None = None
    other_below: float | None = Field(None, description="the score below which the label is `other`")
    features: list[QuantityInfo] | None = Field(None, description="tensor: the numbers of a row, in their order")
    values: list[QuantityInfo] | None = Field(None, description="tensor: the numbers of an answer, where it is no class")
    answer: Literal["step", "end"] | None = Field(None, description="tensor: whether each row is answered, or the last")
    words: list[str] | None = Field(None, description="sentences: the words that the model knows; the first makes a question")
    width: int | None = Field(None, description="sentences: words of one, at most")
    events: EventRules | None = Field(None, description="that the model tells events, and when; its first label is nothing")
    window: int | None = Field(None, description="tensor, adopted: rows that make one answer, where it is not one")
    streams: bool = Field(
        True, description="whether it has sessions; false: it looks at whole sequences, in POST /predict without a session"
    )
    delay: int | None = Field(
        None,
        description="tensor: rows by which answers are late: a row's own comes with the row so many after it; as many more fetch the last",
    )
    bodies: BodiesInfo | None = Field(
        None, description="skeleton: by what it is told whether a body stands there; only in GET /models/{name}"
    )
    limits: VersionLimits
    state_size: int
    state: list[PartInfo]


class ModelInfo(_Shape):
    """A model and its loaded versions, the highest last; new sessions take that one."""

    name: str
    kind: str = Field(description="action, chars, tensor or stories")
    modality: str = Field(description="what it reads: skeleton, text, tensor or sentences")
    versions: list[VersionInfo]


class ModelList(_Shape):
    """The list of every served model."""

    models: list[ModelInfo]


class ReadyModel(_Shape):
    """A model that answers requests."""

    name: str
    version: str
    provider: Literal["cpu", "cuda"]
    kernel: str


class Ready(_Shape):
    """The answer of a service that is ready for requests."""

    status: Literal["ready"]
    revision: str
    provider: Literal["cpu", "cuda", "mixed"]
    kernel: str
    models: list[ReadyModel]


class Live(_Shape):
    """The answer of a process that is up."""

    status: Literal["live"]


class Problem(BaseModel):
    """An error, as RFC 9457 describes it. `code` is for programs; `detail` tells people what was expected and what came."""

    type: str = Field("about:blank")
    title: str
    status: int
    code: str
    detail: str
    field: str | None = Field(None, description="the JSON path of the field", examples=["sequences[0][3]"])
    expected_step: int | None = Field(None, description="with codes step_gap and no_stored_reply")
    kept: list[int] | None = Field(None, description="with code not_kept: the steps that the session can be rewound to")
    marks: dict[str, int] | None = Field(None, description="with code not_kept: the session's marks")
    retry_after: int | None = Field(
        None, description="seconds, with codes overloaded, rate_limited and session_limit; also the Retry-After header"
    )
