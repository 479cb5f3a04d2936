"""The options of calls, by name, once for both shells. None is the same as leaving an option out."""

from collections.abc import Mapping
from typing import Any, TypedDict


class SessionOptions(TypedDict, total=False):
    """The options of a session: order of joints, frames per second, names told, every time step, the model's version; states kept;
    events told, of models that tell some; how frames are measured (docs/skeletons.md), and what is read for unknown characters."""

    layout: str | None
    hz: float | None
    top_k: int | None
    every: bool | None
    version: str | None
    keep: int | None
    events: bool | None
    lost: str | None
    unit: str | None
    axes: str | None
    unknown: str | None


class PredictOptions(TypedDict, total=False):
    """The options of `predict`: the model, order of joints, frames per second, names told; the session and the step's number; how
    frames are measured, and the seconds at which each was taken."""

    model: str | None
    layout: str | None
    hz: float | None
    top_k: int | None
    session_id: str | None
    step: int | None
    lost: str | None
    unit: str | None
    axes: str | None
    t: list[list[float]] | list[float] | None


class GenerateOptions(TypedDict, total=False):
    """The options of a generate: its longest, how it draws, and the texts that end it."""

    max_chars: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: list[str] | None


def chosen(kind: Any, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that are not None. Raises TypeError for a name that `kind` has not, as Python does."""
    for name in options:
        if name not in kind.__annotations__:
            raise TypeError(f"got an unexpected keyword argument {name!r}, expected one of {', '.join(kind.__annotations__)}")
    return {name: value for name, value in options.items() if value is not None}
