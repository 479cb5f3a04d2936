"""What a modality is: all that the export side has to know of what a bundle's `x` means and its answers say.

A modality is one file beside this one and one line in table.py. It imports neither torch nor model, since the service reads bundles too.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from indrnn.frames.joints import FARTHEST

Sample = Callable[[np.random.Generator, int, int], NDArray[np.generic]]  # (rng, B, T) -> made-up x [B, T, ...]
Dtype = Literal["float32", "int64"]


class Frozen(BaseModel):
    """One object of a manifest: nothing in it changes, and a field that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Layout(Frozen):
    """A joint order that clients may send and how it becomes the model's own.

    Own joint j is the mean of the sent joints table[j], and lost where that is empty; the model's own layout maps each joint to itself.
    """

    joint_names: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]

    @property
    def joints(self) -> int:
        """Return how many joints a frame of this layout has."""
        return len(self.joint_names)

    @model_validator(mode="after")
    def _indices_exist(self) -> Self:
        for j, sources in enumerate(self.table):
            if not (sources or any(self.table)) or not all(0 <= s < self.joints for s in sources):
                raise ValueError(f"table[{j}]: expected indices in 0..{self.joints - 1}, got {sources}")
        return self


class Quantity(Frozen):
    """One number of a step or of an answer, in its own unit; mean and scale, which the graph applies itself, are the training data's."""

    name: str = Field(min_length=1)
    unit: str | None = None
    mean: float = 0.0
    scale: float = Field(default=1.0, gt=0, description="the deviation, or 1 where there is none")


class Bodies(Frozen):
    """What bodies a network learned from: metres between pairs of its joints, and how far another may be from that.

    limits: those of frames/anatomy.py that differ from its own; null is not checked. No pairs: nothing is checked.
    """

    pairs: tuple[tuple[int, int, float], ...]
    limits: dict[str, float | None] = Field(default_factory=dict)


class Returned(Frozen):
    """One tensor of an answer: so many of the numbers of a row of logits, in order. shape: of one row and one step."""

    name: str = Field(min_length=1)
    shape: tuple[int, ...]


EVENT = 3  # the last numbers of a row of logits, where events are told: an event's class (0: none), steps since it began, its score


class Events(Frozen):
    """The way scores become events (model/nets/hysteresis.py, and the graph). Label 0 is nothing.

    A class lasts while its score is at least `off`, or until another's reaches `on`. An event is told in the first step in which the score
    has been at least `on` for `least` steps in a row, once while the class lasts, and not within `pause` steps after another.
    """

    on: float = Field(gt=0, le=1)
    off: float = Field(gt=0, le=1)
    least: int = Field(ge=1, description="steps")
    pause: int = Field(ge=0, description="steps")

    @model_validator(mode="after")
    def _off_is_lower(self) -> Self:
        if self.off > self.on:
            raise ValueError(f"expected off of at most on, {self.on:g}, got {self.off:g}")
        return self


class Content(Frozen):
    """The part of a manifest that says what goes in and what comes out; each modality fills the fields that it names in `fields`."""

    modality: str = Field(description="what x is: a name in export/modalities/table.py")
    kind: str = Field(description="0.1.0's word for it: action, chars")
    labels: tuple[str, ...] | None = Field(default=None, description="skeleton, tensor: class k's name; sentences: answer k")
    alphabet: str | None = Field(default=None, description="text: symbol k's code point; text is NFC")
    unknown: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="text: the symbol that stands for those the alphabet lacks; read, never written",
    )
    layout: str | None = Field(default=None, description="skeleton: the model's own joint layout; tensor: the form of 0.1.0's requests")
    layouts: dict[str, Layout] = Field(default_factory=dict)
    persons: int | None = Field(default=None, ge=1, description="skeleton: P, the person axis of x")
    hz: float | None = Field(default=None, description="skeleton, tensor: steps per second the model reads")
    other_below: float | None = Field(default=None, gt=0, lt=1, description="skeleton: the score below which the label is `other`")
    unit: str | None = Field(default=None, description="skeleton: the data's own unit of length: m, mm, px, or one without a name")
    metres: float | None = Field(default=None, gt=0, description="skeleton: what one of that unit was multiplied by for x; 1 for metres")
    axes: str | None = Field(default=None, description="skeleton: where x, y and z lie")
    dims: Literal[2, 3] | None = Field(default=None, description="skeleton: numbers of a joint; of 2 the third in x is 0")
    bodies: Bodies | None = Field(default=None, description="skeleton: by what a body that cannot be one is told")
    features: tuple[Quantity, ...] | None = Field(default=None, description="tensor: the numbers of a step, in the order of x's last axis")
    values: tuple[Quantity, ...] | None = Field(default=None, description="tensor: the numbers of an answer, where it is no class")
    returned: tuple[Returned, ...] | None = Field(
        default=None, description="tensor: the tensors that values are the numbers of, where they are some"
    )
    window: int | None = Field(default=None, ge=2, description="tensor: steps that make one answer; the last of values says where one ends")
    events: Events | None = Field(default=None, description="skeleton, tensor: that the model tells events, and when")
    delay: int | None = Field(
        default=None, ge=1, description="tensor: how many steps before it an answer is of, where it is not its own step's"
    )
    words: tuple[str, ...] | None = Field(default=None, description="sentences: word k has the number k + 1; the first makes a question")
    width: int | None = Field(default=None, ge=1, description="sentences: words of one, at most")
    answer: Literal["step", "end"] | None = Field(default=None, description="tensor: which answers were trained, each step's or the last")
    streams: bool = Field(default=True, description="whether a sequence can come in pieces; false: whole ones alone, from a state of zeros")


class Modality(ABC):
    """What x means. name: in manifests. kind: 0.1.0's word, and that of checkpoints. reads: a plural. fields: of Content, those it fills.

    unexplained: why a model may have no explanation. dtype: of x. farthest: how far from 0 a number of a clip's frame can be. An instance
    holds nothing: every method takes what a manifest says.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    reads: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    dtype: ClassVar[Dtype] = "float32"
    farthest: ClassVar[float] = FARTHEST
    unexplained: ClassVar[str] = "`indrnn export --explain` writes one"

    @abstractmethod
    def check(self, m: Content, state: Mapping[str, int]) -> None:
        """Raise ValueError where m contradicts itself, or the state: the size of its first part of each role."""

    @abstractmethod
    def step(self, m: Content) -> tuple[int, ...]:
        """Return the shape of one step of x: what follows B and T."""

    @abstractmethod
    def answers(self, m: Content) -> int:
        """Return K, the length of one row of logits."""

    def rate(self, m: Content) -> float | None:
        """Return the steps a second that clips are brought to before the graph; None: x is taken as it comes."""
        return None if m.layout is None else m.hz

    def unit(self, m: Content) -> NDArray[np.float64]:
        """Return the size [K] that a difference between two runtimes is measured in; of scores 1."""
        return np.ones(self.width(m))

    def width(self, m: Content) -> int:
        """Return the length of one row of logits: the answers, and an event's numbers where events are told."""
        return self.answers(m) + (EVENT if m.events is not None else 0)

    @abstractmethod
    def sample(self, m: Content) -> Sample:
        """Return what makes up input that looks like the real one: an exported model is tried where its data is not at hand."""

    @abstractmethod
    def what(self, m: Content) -> str:
        """Return the card's first paragraph: what the model does."""

    @abstractmethod
    def contract(self, m: Content) -> str:
        """Return the card's words on `x` and `logits`."""

    @abstractmethod
    def limits(self, m: Content, data: tuple[str, ...]) -> str:
        """Return the card's words on what the model is no good for; data: names of the sets it learned from."""

    def sections(self, m: Content) -> list[str]:
        """Return sections that end the card, each with its heading; here the names of the classes, where there are some."""
        return [] if m.labels is None else ["## Classes\n\n" + ", ".join(m.labels)]
