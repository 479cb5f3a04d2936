"""What training leaves behind: one file with a network's configuration and weights and all that its manifest will say.

`load` is what export needs: a module ready to be exported (evaluation mode, batch norm folded) and its description.
"""

import dataclasses
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from indrnn.model.cells.cell import StatePart
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.adding import AddingConfig, AddingNet
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.detect import DetectConfig, DetectNet
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.pictures.images import ImagesConfig, ImagesNet
from indrnn.model.nets.pictures.labels import LabelsConfig, LabelsNet
from indrnn.model.nets.pixels import PixelsConfig, PixelsNet
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.nets.stories import MemoryNet, StoriesConfig
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.nets.words import WordsConfig, WordsNet
from indrnn.model.nets.wordwise import WordwiseNet

FORMAT = 1
NUMBERS = "numbers"  # the layout of networks that read numbers in 0.1.0's form, three to a "joint"
# By the kind of what it is made for, unless the file names another: a SequenceNet may read skeletons too.
NETWORKS: dict[str, tuple[Any, Any]] = {
    "action": (ActionConfig, ActionNet),
    "adding": (AddingConfig, AddingNet),
    "chars": (CharsConfig, CharsNet),
    "detect": (DetectConfig, DetectNet),
    "images": (ImagesConfig, ImagesNet),
    "labels": (LabelsConfig, LabelsNet),
    "pixels": (PixelsConfig, PixelsNet),
    "sequence": (SequenceConfig, SequenceNet),
    "stories": (StoriesConfig, MemoryNet),
    "wordwise": (StoriesConfig, WordwiseNet),
    "tensor": (TensorConfig, TensorNet),
    "words": (WordsConfig, WordsNet),
}


class CheckpointError(Exception):
    """A file is not a checkpoint of ours; the message says what was expected and what came."""


@dataclass(frozen=True)
class Meta:
    """All that a manifest needs beside the graph.

    parts: the state's, in order; cell: what the network is made of. layouts: name -> (joint names, table), as in frames/layouts.py. data:
    dicts with name, terms, citation, and labels where a set has its own words. figures: dicts with name, value, unit, protocol,
    test_evaluations. held: what of the training clips is kept for validation (action), None when nothing is. task: its name in
    model/tasks/table.py, if it is not the kind. work: minutes of one core that training took. clips: the file of clips and its split:
    Source of model/training/source.py, or TensorSource of model/tasks/tensor.py.
    optimizer: its name in model/training/optimisation/optimisers.py, "" where none was told.
    told: entries of the manifest that a modality has for itself (export/modalities/), by their names.
    temperature: what the logits were divided by; other_below: the score below which the answer is `other` (model/training/calibration.py).
    """

    kind: str
    command: str
    seed: int
    steps: int
    parameters: int = 0
    parts: tuple[StatePart, ...] = ()
    labels: tuple[str, ...] | None = None
    alphabet: str | None = None
    layout: str | None = None
    layouts: dict[str, tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]] = field(default_factory=dict)
    persons: int | None = None
    hz: float | None = None
    held: int | str | None = None
    data: tuple[dict[str, Any], ...] = ()
    figures: tuple[dict[str, Any], ...] = ()
    task: str = ""
    work: float = 0.0
    clips: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    other_below: float | None = None
    told: dict[str, Any] = field(default_factory=dict)
    cell: str = "indrnn"
    optimizer: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", self.task or self.kind)


def save(path: Path, net: StateNet, meta: Meta) -> None:
    """Writes the trained, unfolded network; the file appears whole or not at all."""
    name = next(name for name, (_, network) in NETWORKS.items() if isinstance(net, network))
    told = dataclasses.asdict(dataclasses.replace(meta, cell=net.cell, parts=()))  # the parts are the network's to tell
    content = {"format": FORMAT, "config": dataclasses.asdict(net.config), "weights": net.state_dict(), "meta": told}
    content |= {} if name == meta.kind else {"network": name}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:  # PyTorch's own errors do not name the file
            torch.save(content, file)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load_trained(path: Path) -> tuple[StateNet, Meta]:
    """Return the network as it was trained, batch norm and all, in evaluation mode. Raises CheckpointError when the file is not ours."""
    content = unpickled(path, "a model.pt that `indrnn train` wrote")
    try:
        if content["format"] != FORMAT:
            raise CheckpointError(f"{path}: expected format {FORMAT}, got {content['format']!r}")
        meta = TypeAdapter(Meta).validate_python(content["meta"])
        config, network = NETWORKS[content.get("network", meta.kind)]
        net: StateNet = network(config(**content["config"]))
        net.load_state_dict(content["weights"])
    except (LookupError, TypeError, RuntimeError, ValueError, AttributeError, ArithmeticError, AssertionError, MemoryError) as error:
        if path.suffix == ".ckpt":
            raise CheckpointError(f"{path} is for --resume; the network is in {path.with_name('model.pt')}") from error
        raise CheckpointError(f"{path}: expected a checkpoint written by `indrnn train`: {' '.join(str(error).split())}") from error
    net.eval()
    return net, _as_numbers(meta, net) if meta.layout == NUMBERS and not meta.told else meta


def _as_numbers(meta: Meta, net: StateNet) -> Meta:
    """Describe an imported network of numbers, which 0.1.0 took for one of skeletons, as what it is: joints of three are its form alone."""
    inputs = net.config.inputs
    first = next(p for p in net.parameters() if p.ndim == 2 and p.shape[1] == inputs)
    read = int(torch.nonzero(first.any(0)).max()) + 1  # at most two that are not looked at fill up the last joint
    features = tuple({"name": str(i)} for i in range(max(read, inputs - 2)))
    return dataclasses.replace(meta, kind="tensor", told={"features": features, "answer": "end"})


def unpickled(path: Path, expected: str) -> Any:
    """Return what torch.save wrote to a file; nothing but tensors and plain values is unpickled.

    Raises CheckpointError in one sentence, with what was expected and what came, and without PyTorch's advice to unpickle anything.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except OSError as error:
        got = "a folder" if isinstance(error, IsADirectoryError) else f"a file that cannot be read: {error.strerror}"
        raise CheckpointError(f"{path}: expected {expected}, got {got}") from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        if path.suffix == ".ckpt":
            raise CheckpointError(f"{path} is for --resume; the network is in {path.with_name('model.pt')}") from error
        raise CheckpointError(f"{path}: expected {expected}, got {_looks_like(path)}") from error


def _looks_like(path: Path) -> str:
    """Return which kind of file it is."""
    with path.open("rb") as file:
        begins = file.read(4096)
    if not begins:
        return "an empty file"
    if path.suffix == ".onnx":
        return "an ONNX graph"
    if path.suffix == ".npz" or begins.startswith(b"\x93NUMPY"):
        return "a file of arrays (.npz), which `indrnn train` reads" if path.suffix == ".npz" else "one array (.npy)"
    if zipfile.is_zipfile(path) or begins.startswith(b"\x80"):
        return "a file with other things in it than tensors"
    return "a text" if all(byte >= 32 or byte in b"\t\n\f\r" for byte in begins) else "another kind of file"


def load(path: Path | str) -> tuple[StateNet, Meta]:
    """Return the network to export, folded, gradients off, and its description with parts and parameters filled in.

    forward(x, lengths, state) -> (logits, state_out); shapes in model/nets/action.py and model/nets/chars.py. Raises CheckpointError.
    """
    trained, meta = load_trained(Path(path))
    net = trained.fold().requires_grad_(False)
    parameters = sum(p.numel() for p in net.parameters())
    return net, dataclasses.replace(meta, parts=net.parts(), parameters=parameters, cell=net.cell, told=meta.told | net.told())
