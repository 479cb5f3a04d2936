"""Where the streams of a run come from and how they are split, as its checkpoint tells it."""

from dataclasses import dataclass
from pathlib import Path

from indrnn.model.data.clips import ClipSet
from indrnn.model.detection import streams
from indrnn.model.training.source import Source


@dataclass(frozen=True)
class StreamSource(Source):
    """The place of the streams and how they are split. mark: where in an interval its mark is, in files that mark intervals."""

    mark: float = 0.5

    def _found(self, file: Path | str) -> ClipSet:
        return streams.read(file, self.unit or None, self.mark)
