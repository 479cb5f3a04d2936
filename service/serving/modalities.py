"""The modalities that are served, one line each."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from indrnn.export.bundle import Manifest
from indrnn.service.serving.language.sentences import SentencesModality
from indrnn.service.serving.modality import EventModality, ServedModality
from indrnn.service.serving.skeleton import SkeletonModality
from indrnn.service.serving.tensor import TensorModality
from indrnn.service.serving.text import TextModality


class StepLimits(NamedTuple):
    """How much one step may hold: frames or rows, characters, and time steps that are answered one by one."""

    max_frames: int
    max_text: int
    max_every: int


def served(manifest: Manifest, limits: StepLimits) -> ServedModality:
    """Return how a bundle's content is read and its answers are worded."""
    modality = MODALITIES[manifest.modality](manifest, limits)
    return modality if manifest.events is None else EventModality(modality, manifest)


MODALITIES: Mapping[str, Callable[[Manifest, StepLimits], ServedModality]] = {
    "skeleton": lambda manifest, limits: SkeletonModality(manifest, limits.max_frames),
    "text": lambda manifest, limits: TextModality(manifest, limits.max_text),
    "sentences": lambda manifest, limits: SentencesModality(manifest, min(limits.max_frames, limits.max_every)),
    "tensor": lambda manifest, limits: TensorModality(manifest, limits.max_frames, limits.max_every),
}
