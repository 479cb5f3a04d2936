"""Where the clips of a run come from and how they are split, as its checkpoint tells it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from indrnn.frames import layouts
from indrnn.model.data import clips, vocabulary
from indrnn.model.data.clips import Clip, ClipSet
from indrnn.model.data.mislabelled import SWAPPED, put_right
from indrnn.model.data.splits import SplitError, pick
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.task import NothingHeldError


@dataclass(frozen=True)
class Source:
    """The place of the clips and how they are split. layout: a name in frames/layouts.py, "" for the file's own joint names.

    left_out: indices of classes that neither training nor the usual measures know; the others keep their order. The file vocabulary.toml
    stands for all sets that it lists but the one `without`, their labels motions (model/data/vocabulary.py). zero: a joint at exactly 0 on
    all axes was not seen.
    """

    file: str
    test: str
    held: str
    layout: str = ""
    unit: float = 0.0
    left_out: tuple[int, ...] = ()
    without: str = ""
    zero: bool = False

    @classmethod
    def told(cls, meta: Meta) -> "Source":
        """Return a checkpoint's source of clips. Raises NothingHeldError for one of another task, or of before this was kept."""
        if not set(meta.clips) & {"layout"}:
            raise NothingHeldError(f"expected a network of skeleton clips that says which ones, got one of {meta.task!r} that does not")
        if strange := set(meta.clips) - {f.name for f in dataclasses.fields(cls)}:
            raise NothingHeldError(
                f"expected a network of cut clips, got one of {meta.task!r}, whose source has {', '.join(sorted(strange))}"
            )
        try:
            return TypeAdapter(cls).validate_python(meta.clips)
        except ValidationError as error:
            first = error.errors()[0]
            raise NothingHeldError(
                f"clips.{'.'.join(map(str, first['loc']))}: expected a network that says which clips: {first['msg']}"
            ) from error

    def read(self) -> ClipSet:
        """Read the file's clips of the known classes: a path as it is, and what is no file is looked for under INDRNN_DATA.

        Raises SplitError where a class that is left out is none.
        """
        found = self._all()
        if strange := [k for k in self.left_out if not 0 <= k < len(found.classes)]:
            raise SplitError(f"left_out: expected classes from 0 to {len(found.classes) - 1}, got {', '.join(map(str, strange))}")
        known = [k for k in range(len(found.classes)) if k not in self.left_out]
        if not known:
            raise SplitError(f"left_out: expected at least one of the {len(found.classes)} classes to learn, got all of them")
        clips = [dataclasses.replace(c, label=known.index(c.label)) for c in found.clips if c.label in known]
        return dataclasses.replace(found, clips=clips, classes=tuple(found.classes[k] for k in known))

    def unknown(self) -> list[Clip]:
        """Return the clips of the classes left out."""
        return [c for c in self._all().clips if c.label in self.left_out]

    def _found(self, file: Path | str) -> ClipSet:
        """Return what lies in the file."""
        return clips.read(file, self.unit or None, self.zero)

    def _all(self) -> ClipSet:
        if self.file == vocabulary.FILE.name:
            words = vocabulary.read()
            return vocabulary.joined(words, [name for name in words.sets if name != self.without])
        found = self._found(Path(self.file) if Path(self.file).exists() else self.file)
        found = dataclasses.replace(found, clips=put_right(found.clips, found.classes, SWAPPED.get(self.file, ())))
        if not self.layout:
            return found
        order = layouts.order(self.layout)
        if order is None:
            raise SplitError(f"layout: expected one of {', '.join(layouts.ORDERS)}, got {self.layout!r}")
        names = order.names
        if len(names) != found.joints:
            raise SplitError(f"layout: {self.layout} has {len(names)} joints, {self.file} has {found.joints}")
        return dataclasses.replace(found, joint_names=names)

    def of(self, split: str) -> tuple[list[Clip], str]:
        """Return the clips to measure on, `val` or `test`, and how they were picked. Raises NothingHeldError where there are none."""
        _, held, test = self.split(self.read().clips)
        clips, which = (test, self.test) if split == "test" else (held, self.held)
        if not clips:
            raise NothingHeldError(f"expected clips held out to measure {split} on, but this network was given none ({which})")
        return clips, which

    def split(self, clips: list[Clip]) -> tuple[list[Clip], list[Clip], list[Clip]]:
        """Return training, held and test clips."""
        rest, test = pick(clips, self.test)
        train, held = pick(rest, self.held)
        return train, held, test
