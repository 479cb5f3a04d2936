"""Checkpoints of the papers' authors' PyTorch code become networks of ours: `indrnn import FILE --out net.pt`.

What is read is a state_dict, as their scripts save it (or one under "state_dict", or of nn.DataParallel), of a plain, residual or dense
network that answers after the last step. Their three nets name the same things differently, and so did they over the years; taken are

    plain     DIs.0.fc.weight | DIs.0.weight | dense_input_list.0.fc.weight     input map of layer 0
              RNNs.0.indrnn1.weight_hh | RNNs.0.weight_hh                       U
              RNNs.0.norm1.bn.* | BNs.0.bn.* | norm1.bn.* (counted from 1)      batch norm of layer 0
    residual  features.fc0.fc.*; features.resblock1.IndRNNwithBN1.{indrnn1,norm1}, .fc1.fc, .IndRNNwithBN2, .fc2.fc;
              features.IndRNNwithBN_last; read as pre-activation blocks, the ones that were published
    dense     features.fc0.fc.*, features.IndRNNwithBN0; features.denseblock1.denselayer1.{fc1.fc, IndRNNwithBN1, fc2.fc, IndRNNwithBN2};
              features.transition1.{fc.fc, IndRNNwithBN}; features.lastlayer alike
    all       classifier.* | lastfc.*; recurrent_weight and cells.0.weight_hh for weight_hh

Whether the norm stands before or after the recurrence changes no key, only their order: the module that stands first was saved first.
"""

import argparse
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor

from indrnn.frames.layouts import LAYOUTS
from indrnn.frames.rate import HZ_RANGE
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.checkpoint import CheckpointError, Meta, save, unpickled
from indrnn.ranges import within

ORIGIN = {
    "name": "weights trained elsewhere",
    "terms": "those of the file that was read and of the data they were trained on",
    "citation": "S. Li, W. Li, C. Cook, Y. Gao: Deep Independently Recurrent Neural Network (IndRNN). arXiv 1910.06251, 2019.",
}


HZ = 30.0  # of skeletons, where nothing else is said


class PublishedError(Exception):
    """A file is not a checkpoint that can be read; the message says what was expected and what came."""


# Where things stand in theirs -> in ours; {0}, {1} are the groups, counted from 0 where theirs count from 1.
_MAPS = (
    (r"(?:DIs|dense_input_list)\.(\d+)", "stack.layers.{0}.project"),
    (r"features\.resblock(\d+)\.fc(\d)", "stack.blocks.{-0}.w{1}"),
    (r"features\.denseblock(\d+)\.denselayer(\d+)\.fc1", "stack.blocks.{-0}.bottlenecks.{-1}.project"),
    (r"features\.denseblock(\d+)\.denselayer(\d+)\.fc2", "stack.blocks.{-0}.layers.{-1}.project"),
    (r"features\.transition(\d+)\.fc", "stack.blocks.{-0}.transition.project"),
    (r"features\.lastlayer\.fc", "stack.blocks.{last}.transition.project"),
    (r"features\.fc0", "stack.{first}"),
    (r"classifier|lastfc", "readout"),
)
_LAYERS = (
    (r"(?:RNNs|BNs)\.(\d+)", "stack.layers.{0}"),
    (r"features\.resblock(\d+)\.IndRNNwithBN(\d)", "stack.blocks.{-0}.r{1}"),
    (r"features\.IndRNNwithBN_last", "stack.last"),
    (r"features\.IndRNNwithBN0", "stack.first"),
    (r"features\.denseblock(\d+)\.denselayer(\d+)\.IndRNNwithBN1", "stack.blocks.{-0}.bottlenecks.{-1}"),
    (r"features\.denseblock(\d+)\.denselayer(\d+)\.IndRNNwithBN2", "stack.blocks.{-0}.layers.{-1}"),
    (r"features\.transition(\d+)\.IndRNNwithBN1?", "stack.blocks.{-0}.transition"),
    (r"features\.lastlayer\.IndRNNwithBN1?", "stack.blocks.{last}.transition"),
)
_FIRST = {"plain": "stack.layers.0.project.weight", "residual": "stack.inputs.weight", "dense": "stack.first.project.weight"}
_NORM = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_RECURRENT = r"(?:\.indrnn1)?(?:\.cells\.0)?\.(?:weight_hh|recurrent_weight)"
_IGNORED = r".*\.bn\.num_batches_tracked|RNNs\.\d+(?:\.indrnn1)?\.h0"  # a count, and a state of zeros


@dataclass(frozen=True)
class _Names:
    """The facts that the translation of a key depends on beside the key: where the first map and the last transition stand."""

    first: str
    last: int

    def place(self, pattern: str, groups: Iterable[str]) -> str:
        for i, group in enumerate(groups):
            pattern = pattern.replace(f"{{-{i}}}", str(int(group) - 1)).replace(f"{{{i}}}", group)
        return pattern.replace("{last}", str(self.last)).replace("{first}", self.first)

    def ours(self, key: str) -> str | None:
        """The key in a SequenceNet, None if there is none."""
        for theirs, ours in _MAPS:
            if found := re.fullmatch(rf"(?:{theirs})(?:\.fc)?\.(weight|bias)", key):
                *groups, leaf = found.groups()
                return f"{self.place(ours, groups)}.{leaf}"
        for theirs, ours in _LAYERS:
            if found := re.fullmatch(theirs + _RECURRENT, key):
                return self.place(ours, found.groups()) + ".u"
            if found := re.fullmatch(rf"{theirs}(?:\.norm1)?\.bn\.(\w+)", key):
                *groups, leaf = found.groups()
                return f"{self.place(ours, groups)}.norm.{_NORM[leaf]}" if leaf in _NORM else None
        if (found := re.fullmatch(r"norm([1-9]\d*)\.bn\.(\w+)", key)) and found[2] in _NORM:
            return f"stack.layers.{int(found[1]) - 1}.norm.{_NORM[found[2]]}"
        return None


def kind(keys: Iterable[str]) -> str:
    """plain, residual or dense. Raises PublishedError."""
    text = "\n".join(keys)
    for pattern, name in ((r"^features\.resblock", "residual"), (r"^features\.denseblock", "dense"), (r"^RNNs\.", "plain")):
        if re.search(pattern, text, re.MULTILINE):
            return name
    raise PublishedError(f"expected a plain, residual or dense network of the authors' code, got the keys {', '.join(text.split())[:500]}")


def translate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state_dict under the keys of a SequenceNet. Raises PublishedError naming every key that is not known."""
    dense = kind(weights) == "dense"
    blocks = {m[1] for m in (re.match(r"features\.denseblock(\d+)\.", key) for key in weights) if m}
    names = _Names("first.project" if dense else "inputs", len(blocks) - 1)
    unknown, ours = [], {}
    for key, value in weights.items():
        if re.fullmatch(_IGNORED, key):
            continue
        name = names.ours(key)
        if name is None:
            unknown.append(key)
        elif name in ours:
            raise PublishedError(f"{key}: another key says the same")
        else:
            ours[name] = value
    if unknown:
        raise PublishedError(f"unknown keys: {', '.join(unknown)}")
    return ours


def _place_of_norm(weights: Mapping[str, Tensor]) -> str:
    """before or after, by which was saved first; none."""
    keys = list(weights)
    norms = [i for i, key in enumerate(keys) if re.search(r"\.bn\.weight$", key)]
    if not norms:
        return "none"
    recurrent = [i for i, key in enumerate(keys) if re.search(_RECURRENT + "$", key)]
    within = keys[norms[0]].startswith(("RNNs.", "features."))  # a list of norms beside that of layers tells nothing
    return "before" if within and recurrent and norms[0] < recurrent[0] else "after"


def config(ours: Mapping[str, Tensor], kind: str, norm: str, frames: bool) -> SequenceConfig:
    """Return the sizes that the weights have. Raises PublishedError where some are missing or make no such network."""
    try:
        classes = len(ours["readout.weight"])
        u = [len(value) for key, value in ours.items() if key.endswith(".u")]
        # Their file states neither T nor gamma: the bound is the largest |u| there is, as gamma^(1/T) with T = 1.
        shared = {"norm": norm, "T": 1, "gamma": max(float(value.abs().max()) for key, value in ours.items() if key.endswith(".u"))}
        sizes: dict[str, object] = {"layers": len(u)}
        if kind == "dense":
            last = "stack.first.u"
            k = len(ours["stack.blocks.0.layers.0.u"])
            counts = [sum(bool(re.fullmatch(rf"stack\.blocks\.{i}\.layers\.\d+\.u", key)) for key in ours) for i in range(len(u))]
            blocks = tuple(n for n in counts if n)
            if len(ours[last]) % k:
                raise PublishedError(f"expected a first layer of a multiple of the growth {k}, got {len(ours[last])}")
            end = f"stack.blocks.{len(blocks) - 1}.transition.u" in ours
            sizes = {"growth": k, "blocks": blocks, "first": len(ours[last]) // k, "last_transition": end}
        else:
            sizes["hidden"] = u[0]
        return SequenceConfig(kind=kind, inputs=ours[_FIRST[kind]].shape[1], classes=classes, frames=frames, **shared, **sizes)  # type: ignore[arg-type]
    except KeyError as missing:
        raise PublishedError(f"expected a weight that becomes {missing}, there is none") from None


def network(weights: Mapping[str, Tensor], norm: str | None = None, frames: bool = False, threes: bool = False) -> SequenceNet:
    """Return the network with their weights, in evaluation mode.

    norm: before or after the recurrence, where the order of the keys is not to be believed. frames: as SequenceConfig's. threes: inputs
    that are ignored make their number a multiple of 3.
    Raises PublishedError on keys that are not known or missing, and on sizes that do not fit each other.
    """
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    ours = translate(weights)
    found = _place_of_norm(weights)
    if norm is not None and found != "none":
        found = norm
    try:
        first = _FIRST[kind(weights)]
        if threes and first in ours:
            ours[first] = F.pad(ours[first], (0, -ours[first].shape[1] % 3))
        net = SequenceNet(config(ours, kind(weights), found, frames))
        net.load_state_dict({key: value.float() for key, value in ours.items()})
    except (RuntimeError, ValueError, IndexError) as error:
        raise PublishedError(f"the weights make no {kind(weights)} network: {error}") from error
    net.eval()
    return net


def read(path: Path) -> dict[str, Tensor]:
    """Read the state_dict in a file. Raises PublishedError. Nothing but tensors is unpickled."""
    try:
        content = unpickled(path, "a state_dict of tensors")
    except CheckpointError as error:
        raise PublishedError(str(error)) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise PublishedError(f"{path}: expected a state_dict of tensors, got {type(content).__name__}")
    return dict(content)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that the command takes."""
    parser.add_argument("file", type=Path, help="a state_dict of the authors' plain, residual or dense network")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    parser.add_argument("--norm", choices=("before", "after"), help="where batch norm stands (default: told from the order of the keys)")
    parser.add_argument("--labels", type=Path, help="a text file of the classes' names, one a line (default: 0, 1, ...)")
    reads = parser.add_mutually_exclusive_group()
    reads.add_argument("--layout", choices=sorted(LAYOUTS), help="the network reads raw skeletons, metres, in this order of joints")
    reads.add_argument("--joints", type=Path, help="it reads raw skeletons of other joints: a text file of their names, one a line")
    reads.add_argument("--features", type=Path, help="it reads numbers, x [B, T, F]: a text file of their names, one a line")
    reads.add_argument(
        "--numbers", action="store_true", help="it reads numbers in 0.1.0's form: three to a joint, the last filled up with zeros"
    )
    rate = within(float, 0, least_too=False)
    parser.add_argument("--hz", type=rate, help=f"steps a second it reads, where it is to be served (default: {HZ:g}; of numbers none)")


def run(args: argparse.Namespace, command: str) -> None:
    """Reads args.file and writes args.out. Raises PublishedError."""
    skeletons = args.joints is not None or args.layout is not None
    _check_rate(args)
    weights = read(args.file)
    net = network(weights, args.norm, frames=skeletons, threes=args.numbers)
    meta = Meta(kind="sequence", command=command, seed=0, steps=0, labels=_labels(args.labels, net.classes), data=(ORIGIN,), task="import")
    if skeletons:
        meta = _of_skeletons(args, meta, net.config.inputs)
    elif args.numbers or args.features is not None:
        meta = _of_numbers(args, meta, network(weights, args.norm).config.inputs, net.config.inputs)
    save(args.out, net, meta)
    c, depth = net.config, len(net.stack.indrnns())
    print(f"{args.out}: {c.kind}, {depth} layers, {c.inputs} inputs, {c.classes} classes, norm {c.norm}, largest |u| {c.gamma:g}")


def _check_rate(args: argparse.Namespace) -> None:
    """Raise PublishedError where steps are resampled, as those of joints are, and the rate is beyond what a bundle may state then."""
    form = "--joints" if args.joints else "--layout" if args.layout else "--numbers" if args.numbers else None
    if form and args.hz is not None and not HZ_RANGE[0] <= args.hz <= HZ_RANGE[1]:
        raise PublishedError(f"--hz: expected from {HZ_RANGE[0]:g} to {HZ_RANGE[1]:g} with {form}, got {args.hz:g}")


def _of_skeletons(args: argparse.Namespace, meta: Meta, inputs: int) -> Meta:
    layout = "own" if args.joints is not None else args.layout
    joints = LAYOUTS[args.layout][0] if args.joints is None else _names(args.joints, "joints")
    persons, rest = divmod(inputs, 3 * len(joints))
    if rest or not persons:
        raise PublishedError(f"expected a multiple of {3 * len(joints)} inputs for {layout}, got {inputs}")
    own = _own(joints)
    return dataclasses.replace(
        meta, kind="action", layout=layout, layouts={layout: own}, persons=persons, hz=HZ if args.hz is None else args.hz
    )


def _of_numbers(args: argparse.Namespace, meta: Meta, features: int, inputs: int) -> Meta:
    """Return the description of a network of numbers; with --numbers they are joints of three, `inputs` in all, as 0.1.0 served them."""
    names = tuple(map(str, range(features))) if args.features is None else _names(args.features, "features")
    if len(names) != features:
        raise PublishedError(f"{args.features}: expected {features} features, one a line, got {len(names)}")
    told = {"features": tuple({"name": name} for name in names), "answer": "end"}
    meta = dataclasses.replace(meta, kind="tensor", hz=args.hz, told=told)
    if not args.numbers:
        return meta
    joints = tuple(f"numbers {i} to {i + 2}" for i in range(0, inputs, 3))
    return dataclasses.replace(meta, layout="numbers", layouts={"numbers": _own(joints)}, persons=1)


def _own(joints: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    return joints, tuple((j,) for j in range(len(joints)))


def _labels(path: Path | None, classes: int) -> tuple[str, ...]:
    labels = tuple(str(k) for k in range(classes)) if path is None else _names(path, "labels")
    if len(labels) != classes:
        raise PublishedError(f"{path}: expected {classes} labels, one a line, got {len(labels)}")
    return labels


def _names(path: Path, what: str) -> tuple[str, ...]:
    """Return the lines of a file. Raises PublishedError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PublishedError(f"{path}: {error}") from None
    if not lines or len(set(lines)) != len(lines) or not all(line.strip() for line in lines):
        raise PublishedError(f"{path}: expected different {what}, one a line, got {len(set(lines))} in {len(lines)} lines")
    return tuple(lines)
