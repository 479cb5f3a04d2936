"""Which clips are trained on, which are selected by, which are tested on: a few words that pick clips, or other sequences, from a file.

flag            those the file marks with `test`
NAME            those that an array of the file with 0 or 1 for each marks
NAME=2,4        those with these values of an array with a whole number or a text for each: subject=2,4, view=3, room=kitchen
fold=1/5        the first of five parts: of the subjects, where there are at least five, of each class's clips in turn where there are not
fold=1/5:NAME   the first of five parts of the values of an array; fold=1/all:NAME the first of its values: one is left out
none            no clips
cross-subject, cross-view, cross-setup   those that NTU RGB+D's protocols test on, by the clips' names

`each` for the number of a fold is every one of them in turn: `indrnn train` then makes as many networks.
"""

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from indrnn.model.data import ntu

_WORDS = "flag, subject=1,2, view=3, NAME=VALUE of an array, fold=1/5, fold=1/all:NAME, cross-subject, cross-view, cross-setup or none"
_FOLD = re.compile(r"fold=(\d+|each)/(\d+|all)(?::(\w+))?")


class Recorded(Protocol):
    """All that a choice rests on: a class, who it is of, its name, from where it was seen, and the file's word on testing."""

    @property
    def label(self) -> int: ...  # noqa: D102
    @property
    def subject(self) -> int: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def view(self) -> int | None: ...  # noqa: D102
    @property
    def test(self) -> bool | None: ...  # noqa: D102
    @property
    def more(self) -> dict[str, int | str]: ...  # noqa: D102


One = TypeVar("One", bound=Recorded)


class SplitError(Exception):
    """Clips cannot be picked as asked; the message names what was asked and what the file has."""


def pick(clips: Sequence[One], what: str, called: str = "clips") -> tuple[list[One], list[One]]:
    """The clips that `what` does not pick, and those it does, each in the file's order. Raises SplitError, also when all are picked.

    called: what errors call them.
    """
    chosen = _chosen(clips, what)
    if what != "none" and not 0 < sum(chosen) < len(clips):
        raise SplitError(f"{what}: expected to pick some of the {len(clips)} {called}, picked {sum(chosen)}")
    return [c for c, y in zip(clips, chosen, strict=True) if not y], [c for c, y in zip(clips, chosen, strict=True) if y]


def _chosen(clips: Sequence[Recorded], what: str) -> list[bool]:
    if what == "none":
        return [False] * len(clips)
    if what == "flag":
        if any(c.test is None for c in clips):
            raise SplitError("flag: expected a file with an array `test`")
        return [bool(c.test) for c in clips]
    if what in ("cross-subject", "cross-view", "cross-setup"):
        return _by_name(clips, what)
    if found := _FOLD.fullmatch(what):
        number, parts, name = found.groups()
        most = len(_values(clips, name)) if name and parts == "all" else 0 if parts == "all" else int(parts)
        if number != "each" and 1 <= int(number) <= most >= 2:
            return _fold(clips, int(number) - 1, most, name)
        if most >= 2 and number != "each":
            raise SplitError(f"{what}: expected flag, or a fold from 1/{most} to {most}/{most}, got {number}/{most}")
    elif found := re.fullmatch(r"(\w+)=(.+)", what):
        wanted = set(found[2].split(","))
        there = {str(v) for v in _values(clips, found[1])}
        if wanted - there:
            raise SplitError(f"{what}: expected among {found[1]}s {', '.join(_first(sorted(there, key=_in_order)))}")
        return [str(_value(c, found[1])) in wanted for c in clips]
    elif clips and what in clips[0].more:
        values = _values(clips, what)
        if values - {0, 1}:
            got = ", ".join(_first(sorted(map(str, values), key=_in_order)))
            raise SplitError(f"{what}: expected an array of 0 and 1, got {got}: {what}=VALUE picks")
        return [bool(_value(c, what)) for c in clips]
    raise SplitError(f"expected {_WORDS}, got {what!r}")


def each(clips: Sequence[Recorded], what: str) -> list[str]:
    """Return the words that `each` in a fold's stands for, `what` alone where it has none. Raises SplitError."""
    found = _FOLD.fullmatch(what)
    if not found or found[1] != "each":
        return [what]
    _, parts, name = found.groups()
    if parts == "all" and not name:
        raise SplitError(f"{what}: expected fold=each/all:NAME, NAME an array of the file such as subject")
    most = len(_values(clips, name)) if parts == "all" else int(parts)
    tail = f":{name}" if name else ""
    return [f"fold={i + 1}/{parts}{tail}" for i in range(most)]


def _in_order(text: str) -> tuple[bool, float, str]:
    number = re.fullmatch(r"-?\d+", text)
    return not number, float(text) if number else 0.0, text


def _first(texts: Sequence[str]) -> list[str]:
    return [*texts[:20], "..."] if len(texts) > 20 else list(texts)


def _value(clip: Recorded, name: str) -> int | str | None:
    name = "name" if name == "names" else name
    value: int | str | None = getattr(clip, name) if name in ("subject", "view", "test", "name") else clip.more.get(name)
    return value


def _values(clips: Sequence[Recorded], name: str) -> set[int | str | None]:
    """Return the values that an array has. Raises SplitError where the file has no such array."""
    name = "name" if name == "names" else name
    known = {"subject", "view", "test", "name", *(clips[0].more if clips else ())}
    if name not in known:
        raise SplitError(f"expected {_WORDS}; arrays with a value for each are {', '.join(sorted(known))}, got {name!r}")
    return {_value(c, name) for c in clips}


def _by_name(clips: Sequence[Recorded], what: str) -> list[bool]:
    try:
        names = [ntu.Name.of(c.name) for c in clips]
    except ntu.NtuError as error:
        raise SplitError(f"{what}: {error}") from error
    return [bool(getattr(n, f"{what.replace('-', '_')}_test")) for n in names]


def _fold(clips: Sequence[Recorded], i: int, k: int, name: str | None) -> list[bool]:
    if name is not None:
        values = sorted(map(str, _values(clips, name)), key=_in_order)
        if k > len(values):
            raise SplitError(f"fold={i + 1}/{k}:{name}: expected at most {len(values)} parts, as {name} has values")
        place = {v: n % k for n, v in enumerate(values)}
        return [place[str(_value(c, name))] == i for c in clips]
    subjects = sorted({c.subject for c in clips})
    if k <= len(subjects) < len(clips):  # whoever is tested on was never seen
        part = {s: n % k for n, s in enumerate(subjects)}
        return [part[c.subject] == i for c in clips]
    count: dict[int, int] = {}
    parts = []
    for c in clips:
        count[c.label] = count.get(c.label, -1) + 1
        parts.append(count[c.label] % k == i)
    return parts
