"""NTU RGB+D's own files: `.skeleton` text -> clips of up to two persons, each in a slot of its own; and the published splits.

`python -m indrnn.model.data.ntu FOLDER OUT.npz --missing LIST` writes the file that the task `ntu` trains on. Sources: Shahroudy et al.,
CVPR 2016 (60 classes, setups 1-17) and Liu et al., TPAMI 2019 (120 classes, setups 1-32). The data may not be passed on; the format is:
number of frames; per frame number of bodies; per body ten numbers, the first its id, then number of joints, then per joint twelve numbers,
the first three metres from the camera (x to the right of a person who faces it, y up, z away).
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indrnn.frames.layouts import NTU25
from indrnn.model.data.formats.recording import NEAR, Seats

JOINTS, PERSONS, HZ = 25, 2, 30.0

Frames = NDArray[np.float32]

TRAINING_SUBJECTS = (
    *(1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38),  # of 60 classes; of 120 these and:
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)
TEST_CAMERA = 1  # cross-view, 60 classes only; training on cameras 2 and 3
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")


class NtuError(Exception):
    """A file is not in NTU RGB+D's format; the message names it and what was expected."""


@dataclass(frozen=True)
class Name:
    """The facts that a file's name states: setup, camera, subject, repetition and class, each from 1."""

    setup: int
    camera: int
    subject: int
    repetition: int
    action: int

    @classmethod
    def of(cls, name: str) -> "Name":
        """Read the name of a file, e.g. S001C002P003R002A013.skeleton. Raises NtuError."""
        found = _NAME.search(name)
        if not found:
            raise NtuError(f"{name}: expected a name such as S001C002P003R002A013")
        return cls(*map(int, found.groups()))

    @property
    def cross_subject_test(self) -> bool:
        """Return whether the clip is for testing when persons are held out."""
        return self.subject not in TRAINING_SUBJECTS

    @property
    def cross_view_test(self) -> bool:
        """Return whether the clip is for testing when a camera is held out."""
        return self.camera == TEST_CAMERA

    @property
    def cross_setup_test(self) -> bool:
        """Return whether the clip is for testing when the odd setups are held out (120 classes)."""
        return self.setup % 2 == 1


def missing(text: str) -> frozenset[str]:
    """The clips without usable skeletons, from the list that the data's authors publish: names, one a line, between lines of words."""
    return frozenset(found.group() for found in _NAME.finditer(text))


def read(path: Path) -> list[dict[str, Frames]]:
    """Return what `bodies` makes of a file's text. Raises NtuError, OSError."""
    try:
        return bodies(path.read_text(encoding="ascii"), path.name)
    except UnicodeDecodeError as error:
        raise NtuError(f"{path.name}: expected numbers in ASCII, got other bytes at {error.start}") from error


def bodies(text: str, title: str) -> list[dict[str, Frames]]:
    """The text of a `.skeleton` file -> per frame body id -> joints [25, 3].

    A joint at 0 on all axes, which is where the camera is, or without a finite number was not seen: NaN. A body of such joints is none.
    Raises NtuError.
    """
    words = iter(text.split())
    try:
        return [_frame(words, title) for _ in range(int(next(words)))]
    except (StopIteration, ValueError) as error:
        raise NtuError(f"{title}: expected frames, bodies, joints and their numbers, found the end or no number: {error}") from error
    except RuntimeError as error:  # what a StopIteration within a comprehension becomes
        raise NtuError(f"{title}: expected more numbers, found the end") from error


def _frame(words: Iterator[str], title: str) -> dict[str, Frames]:
    found = {}
    for _ in range(int(next(words))):
        ident = next(words)
        for _ in range(9):
            next(words)
        joints = int(next(words))
        if joints != JOINTS:
            raise NtuError(f"{title}: expected {JOINTS} joints, got {joints}")
        with np.errstate(over="ignore"):
            numbers = np.array([_number(next(words)) for _ in range(12 * JOINTS)], np.float32).reshape(JOINTS, 12)[:, :3]
        numbers[~np.isfinite(numbers).all(1) | ~numbers.any(1)] = np.nan
        if not np.isnan(numbers).all():
            found[ident] = numbers
    return found


def _number(word: str) -> float:
    return float("nan" if "#" in word or "(" in word else word)  # -1.#IND and nan(ind), as Microsoft's library writes it


def align(frames: Sequence[dict[str, Frames]], persons: int = PERSONS) -> Frames:
    """Bodies by id -> x [T, persons, 25, 3]: each person in one slot throughout, zeros where absent; no frames of nobody. NaN stays.

    Of more bodies at once those are kept that are seen in most frames. Who sits where is `Seats`' to say; the slot of the person
    seen longest is the first.
    """
    there = [f for f in frames if f]
    seen: dict[str, int] = {}
    for f in there:
        for ident in f:
            seen[ident] = seen.get(ident, 0) + 1
    x = np.zeros((len(there), persons, JOINTS, 3), np.float32)
    seats = Seats(persons, NEAR)
    for t, f in enumerate(there):
        kept = sorted(f, key=lambda ident: (-seen[ident], ident))[:persons]
        for ident, slot in zip(kept, seats.place([(ident, np.nanmean(f[ident], 0)) for ident in kept], t), strict=True):
            x[t, slot] = f[ident]
    order = np.argsort(-x.any((2, 3)).sum(0), kind="stable")
    aligned: Frames = x[:, order]
    return aligned


def left_over(frames: Sequence[dict[str, Frames]], x: Frames) -> int:
    """Return how many bodies of the frames have no slot in x."""
    return sum(map(len, frames)) - int(x.any((2, 3)).sum())


def convert(files: Iterable[Path], left_out: frozenset[str]) -> tuple[dict[str, NDArray[np.generic]], tuple[str, ...]]:
    """Files -> the arrays of a file of clips (model/data/clips.py), with `setup`; and, in words, what was lost on it. Raises NtuError."""
    clips, names, nobody, gaps, beside = [], [], [], 0, 0
    for path in files:
        if path.stem in left_out:
            continue
        frames = read(path)
        x = align(frames)
        gaps += len(frames) - len(x)
        beside += left_over(frames, x)
        if len(x):
            clips.append(x)
            names.append(path.stem)
        else:
            nobody.append(path.stem)
    if not clips:
        raise NtuError("expected .skeleton files with somebody in them, found none")
    told = [Name.of(n) for n in names]
    lost = sum(int(np.isnan(x).any(-1).sum()) for x in clips)
    count = sum(int(x.any((2, 3)).sum()) for x in clips) * JOINTS
    notes = [f"{lost:,} of {count:,} joints were not seen (NaN or 0 on all axes)"] if lost else []
    notes += [f"{gaps:,} frames with nobody in them are left out"] if gaps else []
    notes += [f"{beside:,} bodies beside the {PERSONS} of a frame are left out"] if beside else []
    notes += (
        [f"{len(nobody)} clips with nobody in them are left out: {', '.join(nobody[:5])}{', ...' if len(nobody) > 5 else ''}"]
        if nobody
        else []
    )
    K = 60 if max(n.action for n in told) <= 60 else 120
    arrays = {
        "x": np.concatenate(clips),
        "off": np.cumsum([0, *(len(x) for x in clips)]),
        "y": np.array([n.action - 1 for n in told], np.int16),
        "classes": np.array([f"A{k:03}" for k in range(1, K + 1)]),
        "names": np.array(names),
        "subject": np.array([n.subject for n in told], np.int16),
        "view": np.array([n.camera for n in told], np.int16),
        "setup": np.array([n.setup for n in told], np.int16),
        "joint_names": np.array(NTU25),
        "hz": np.array(HZ),
    }
    return arrays, tuple(notes)


def main(argv: list[str] | None = None) -> int:
    """Reads a folder of .skeleton files and writes one file of clips; 0 when it was written."""
    parser = argparse.ArgumentParser(
        prog="python -m indrnn.model.data.ntu", description="NTU RGB+D's .skeleton files -> one .npz for the task ntu"
    )
    parser.add_argument("folder", type=Path, help="of .skeleton files, searched through")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--missing", type=Path, nargs="*", default=[], help="the published lists of clips without skeletons")
    args = parser.parse_args(argv)
    try:
        left_out = frozenset().union(*(missing(p.read_text(errors="replace")) for p in args.missing))
        arrays, notes = convert(sorted(args.folder.rglob("*.skeleton")), left_out)
        np.savez(args.out, **arrays)  # type: ignore[arg-type]
    except (NtuError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join([f"{args.out}: {len(arrays['y'])} clips, {len(left_out)} names left out", *notes]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
