"""Which clips are trained on, which are selected by, which are tested on: a few words that pick clips, or other sequences, from a file.

flag          those the file marks with `test`
subject=2,4   those of some subjects; view=3 those seen from some places
fold=1/5      the first of five parts: of the subjects, where there are at least five, of each class's clips in turn where there are not
none          no clips
cross-subject, cross-view, cross-setup   those that NTU RGB+D's protocols test on, by the clips' names
"""

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from indrnn.model.data import ntu

_WORDS = "flag, subject=1,2, view=3, fold=1/5, cross-subject, cross-view, cross-setup or none"


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
    if found := re.fullmatch(r"(subject|view)=(-?\d+(?:,-?\d+)*)", what):
        wanted = set(map(int, found[2].split(",")))
        there = {getattr(c, found[1]) for c in clips}
        if wanted - there:
            raise SplitError(f"{what}: expected among {found[1]}s {', '.join(map(str, sorted(there, key=str)))}")
        return [getattr(c, found[1]) in wanted for c in clips]
    if (found := re.fullmatch(r"fold=(\d+)/(\d+)", what)) and 1 <= int(found[1]) <= int(found[2]) >= 2:
        return _fold(clips, int(found[1]) - 1, int(found[2]))
    raise SplitError(f"expected {_WORDS}, got {what!r}")


def _by_name(clips: Sequence[Recorded], what: str) -> list[bool]:
    try:
        names = [ntu.Name.of(c.name) for c in clips]
    except ntu.NtuError as error:
        raise SplitError(f"{what}: {error}") from error
    return [bool(getattr(n, f"{what.replace('-', '_')}_test")) for n in names]


def _fold(clips: Sequence[Recorded], i: int, k: int) -> list[bool]:
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
