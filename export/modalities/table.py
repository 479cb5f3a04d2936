"""The table of modalities: the one line that each needs beside its own file."""

from indrnn.export.modalities.modality import Modality
from indrnn.export.modalities.sentences import SentencesContent
from indrnn.export.modalities.skeleton import SkeletonContent
from indrnn.export.modalities.tensor import TensorContent
from indrnn.export.modalities.text import TextContent

_ALL: tuple[Modality, ...] = (SkeletonContent(), TextContent(), TensorContent(), SentencesContent())
MODALITIES: dict[str, Modality] = {modality.name: modality for modality in _ALL}


def of_kind(kind: object) -> Modality | None:
    """Return the modality of a checkpoint's or of an old manifest's kind, None where it has none."""
    return next((modality for modality in MODALITIES.values() if modality.kind == kind), None)
