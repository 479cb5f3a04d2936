"""Several sets of clips under one vocabulary of motions: vocabulary.toml read, and the sets' clips in one joint order at one rate."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from indrnn.frames import layouts
from indrnn.model.data import clips
from indrnn.model.data.camera import resample
from indrnn.model.data.clips import HZ, Clip, ClipSet, Frames
from indrnn.model.data.mislabelled import SWAPPED, put_right
from indrnn.model.data.splits import pick

FILE = Path(__file__).with_name("vocabulary.toml")
NO_TWIN = "none"
LEFT_OUT = ""  # what a label of a set is mapped to that is no motion of the list
SUBJECTS = 100  # subject s of the n-th set is SUBJECTS * n + s, n from 1


class VocabularyError(Exception):
    """A vocabulary contradicts itself or its data; the message names the entry."""


@dataclass(frozen=True)
class Member:
    """One set of a vocabulary. file: under INDRNN_DATA; test: its test clips (model/data/splits.py); layout: its joints, if the file names
    none; unit: metres in its unit of length; pace: how many times as fast as life its clips play; motions: label -> motion, "" for one
    that is left out; joints: own joint -> the set's joints that it is the mean of, where it is not the joint of its own name.
    """

    file: str
    test: str
    motions: Mapping[str, str]
    layout: str = ""
    unit: float | None = None
    pace: float = 1.0
    joints: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """What a set is asked for when no network has learned from it: motions that the others have, and motions that none has."""

    known: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Motions with their twins (None: a mirror shows none of them), the sets by name, and what each is asked for when left out."""

    motions: tuple[str, ...]
    twins: tuple[int | None, ...]
    sets: Mapping[str, Member]
    left_out: Mapping[str, LeftOut]

    def index(self, motion: str) -> int:
        """Return a motion's class."""
        return self.motions.index(motion)

    def number(self, name: str) -> int:
        """Return the number of a set, from 1: its subjects are those from SUBJECTS times it."""
        return list(self.sets).index(name) + 1

    def name(self, subject: int) -> str:
        """Return the set that a subject belongs to."""
        return list(self.sets)[subject // SUBJECTS - 1]


def read(file: Path = FILE) -> Vocabulary:
    """Read a vocabulary. Raises VocabularyError."""
    with file.open("rb") as f:
        return vocabulary(tomllib.load(f))


def vocabulary(content: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary that a file's content says. Raises VocabularyError."""
    motions: dict[str, str] = content["motions"]
    for motion, twin in motions.items():
        if twin != NO_TWIN and motions.get(twin) != motion:
            raise VocabularyError(f"{motion}: expected a twin whose twin it is, got {twin!r}")
    sets = {name: Member(**member) for name, member in content["sets"].items()}
    for name, member in sets.items():
        if strange := set(member.motions.values()) - set(motions) - {LEFT_OUT}:
            raise VocabularyError(f"{name}: expected motions of the list, got {', '.join(sorted(strange))}")
    if lone := set(motions) - {motion for member in sets.values() for motion in member.motions.values()}:
        raise VocabularyError(f"{', '.join(sorted(lone))}: expected a set that shows it")
    left_out = {name: LeftOut(tuple(told["known"]), tuple(told["unknown"])) for name, told in content.get("left_out", {}).items()}
    for name, told in left_out.items():
        own = set(sets[name].motions.values())
        others = {motion for other, member in sets.items() if other != name for motion in member.motions.values()} - {LEFT_OUT}
        others |= {motions[motion] for motion in others}  # a mirror shows them too
        if not set(told.known) <= own & others or set(told.unknown) != own - others - {LEFT_OUT}:
            raise VocabularyError(
                f"left_out.{name}: expected known motions that others have too, and all that none has, nor a mirror, as unknown ones"
            )
    order = tuple(motions)
    twins = tuple(None if twin == NO_TWIN else order.index(twin) for twin in motions.values())
    return Vocabulary(order, twins, sets, left_out)


def joined(words: Vocabulary, names: Iterable[str] | None = None) -> ClipSet:
    """Return the clips of the sets of these names, all without any, as `utd20` at 30 Hz in metres, their labels motions.

    A clip's `test` says whether its set tests on it. Raises DataMissingError, ClipFileError, SplitError, VocabularyError.
    """
    out: list[Clip] = []
    for name in words.sets if names is None else names:
        out += _clips(words, name)
    return ClipSet(out, words.motions, layouts.UTD20, HZ, 1.0, flat=False)


def _clips(words: Vocabulary, name: str) -> list[Clip]:
    member = words.sets[name]
    found = clips.read(member.file, member.unit)
    if set(found.classes) != set(member.motions):
        raise VocabularyError(f"{name}: expected the labels of {member.file}, {', '.join(found.classes)}, got {', '.join(member.motions)}")
    right = put_right(found.clips, found.classes, SWAPPED.get(member.file, ()))
    sent = layouts.LAYOUTS[member.layout][0] if member.layout else found.joint_names or ()
    of = table(sent, member.joints)
    _, test = pick(right, member.test)
    tested = {id(c) for c in test}
    out = []
    for c in right:
        if motion := member.motions[found.classes[c.label]]:
            x = resample(own_joints(c.x, of), found.hz, HZ)
            subject = SUBJECTS * words.number(name) + c.subject
            out.append(Clip(x, words.index(motion), subject, f"{name} {c.name}", c.view, id(c) in tested))
    return out


def table(sent: Sequence[str], joints: Mapping[str, Sequence[str]]) -> tuple[tuple[int, ...], ...]:
    """Return of which of the joints sent each of `utd20` is the mean. Raises VocabularyError."""
    wanted = [joints.get(own, (own,)) for own in layouts.UTD20]
    if strange := {joint for of in wanted for joint in of} - set(sent):
        raise VocabularyError(f"expected joints among {', '.join(sent)}, got {', '.join(sorted(strange))}")
    return tuple(tuple(sent.index(joint) for joint in of) for of in wanted)


def own_joints(x: Frames, of: Sequence[Sequence[int]]) -> Frames:
    """x [T, P, J, 3] -> [T, P, len(of), 3], each joint the mean of some of x's."""
    return np.stack([x[:, :, list(joints)].mean(2) for joints in of], 2).astype(np.float32)
