"""The modalities that are served, one line each: by a manifest's kind."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from indrnn.export.bundle import Manifest
from indrnn.service.serving.modality import Modality
from indrnn.service.serving.skeleton import SkeletonModality
from indrnn.service.serving.text import TextModality


class StepLimits(NamedTuple):
    """How much one step may hold: frames, characters."""

    max_frames: int
    max_text: int


MODALITIES: Mapping[str, Callable[[Manifest, StepLimits], Modality]] = {
    "action": lambda manifest, limits: SkeletonModality(manifest, limits.max_frames),
    "chars": lambda manifest, limits: TextModality(manifest, limits.max_text),
}
