"""What a score is worth: a temperature that makes scores true on validation data, and the score below which the answer is `other`.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, sections 3 and 4.2.
"""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.data.clips import Clip
from indrnn.model.nets.network import StateNet
from indrnn.model.training import checkpoint
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.measure import scores
from indrnn.model.training.source import Source
from indrnn.model.training.task import Figures, NothingHeldError, figure

BINS = 15
LOSS = 0.05  # share of known motions that may be called `other`
RANGE = (1e-3, 1e3)  # of temperatures
SURE = 0.25  # the temperature where every clip is answered rightly: their cross-entropy is least at 0, and all scores would be 1
SAME = 1e-3  # part of a temperature by which another one is no other: what rounding of a network's weights may change of the minimum
SUREST = 0.999  # no threshold is above: float32 calls much of what is surer 1


def temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T that makes the cross-entropy of logits [n, K] / T least, within RANGE: golden section over log T.

    Where all are answered rightly there is no such T, and SURE is returned.
    """
    if not has_minimum(logits, labels):
        return SURE
    low, high = math.log(RANGE[0]), math.log(RANGE[1])
    ratio = (math.sqrt(5) - 1) / 2

    def loss(log_t: float) -> float:
        return F.cross_entropy(logits.double() / math.exp(log_t), labels).item()

    while high - low > 1e-4:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return math.exp((low + high) / 2)


def has_minimum(logits: Tensor, labels: Tensor) -> bool:
    """Return whether some of the clips are answered wrongly."""
    return not bool((logits.argmax(1) == labels).all())


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error of logits [n, K]: mean distance of score from accuracy over bins of equal width, weighted by size."""
    score, answer = logits.softmax(1).max(1)
    right = (answer == labels).float()
    index = (score * bins).ceil().long().clamp(1, bins) - 1
    total = 0.0
    for i in range(bins):
        within = index == i
        if within.any():
            total += float((score[within].mean() - right[within].mean()).abs()) * int(within.sum())
    return total / len(labels)


def threshold(known: Tensor, loss: float = LOSS) -> float:
    """Return the score below which `loss` of the known motions' scores [n] fall."""
    ordered = known.sort().values
    return min(SUREST, float(ordered[math.floor(loss * len(ordered))]))


def ends(net: StateNet, clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
    """Return logits [n, K] at each clip's last frame, and labels [n]."""
    return torch.stack([s[-1] for s in scores(net, [c.x for c in clips])]), torch.tensor([c.label for c in clips])


def openness(net: StateNet, known: Sequence[Clip], unknown: Sequence[Clip], below: float) -> tuple[float, float]:
    """Shares called `other` of clips of known classes, a loss, and of clips of classes that the network has never seen, a success."""
    called = [float((ends(net, clips)[0].softmax(1).amax(1) < below).float().mean()) for clips in (known, unknown)]
    return called[0], called[1]


@torch.no_grad()
def cool_(net: StateNet, t: float) -> None:
    """Divides a network's logits by t, in its readout: the scores change, the answers do not."""
    readout = net.get_submodule("readout")
    assert isinstance(readout, nn.Linear), "the action network's readout"
    readout.weight.div_(t)
    readout.bias.div_(t)


def run(path: Path, by: Sequence[Path]) -> Figures:
    """Calibrates the checkpoint at path by the held clips of the checkpoints `by` (itself where there are none), and records it there.

    The temperature is that of the network as it was trained, whatever it has been divided by since: a second run changes nothing.

    A network that learned from all training clips has no held ones: it takes the temperature and the threshold of networks made by the
    same recipe without some of them. Raises NothingHeldError when none of `by` has held clips, or one tells other classes apart.
    """
    trained, meta = checkpoint.load_trained(path)
    logits, labels = _held([(p, *checkpoint.load(p)) for p in by or [path]], meta)
    t = temperature(logits, labels)
    if math.isclose(t, meta.temperature, rel_tol=SAME):  # it has been calibrated by these
        t = meta.temperature
    bounded = "" if has_minimum(logits, labels) else " (no minimum: every held clip is answered rightly)"
    if not RANGE[0] * (1 + SAME) < t < RANGE[1] * (1 - SAME):
        bounded = " (the minimum lies beyond: these scores say nothing)"
    cool_(trained, t / meta.temperature)
    if not by:  # as it will be read again: rounding is the same in every run
        logits, labels = _held([(path, trained.fold(), dataclasses.replace(meta, temperature=t))], meta)
    below = threshold((logits / t).softmax(1).amax(1))
    names = ", ".join(sorted({str(checkpoint.load_trained(p)[1].held) for p in by or [path]}))
    how = f"{len(labels)} held-out training clips ({names}), whole, each by a network that has not learned from it, {BINS} bins"
    found = (
        figure("val_ece_before", 100 * calibration_error(logits, labels), "%", f"expected calibration error; {how}"),
        figure("val_ece", 100 * calibration_error(logits / t, labels), "%", f"expected calibration error at temperature {t:.3f}; {how}"),
    )
    kept = {f["name"]: f for f in (*meta.figures, *found)}
    this = shlex.join(["indrnn", "calibrate", str(path), *(["--by", *map(str, by)] if by else [])])
    command = meta.command if meta.command.endswith(f" && {this}") else f"{meta.command} && {this}"
    told: dict[str, Any] = {"temperature": t, "command": command, "other_below": round(below, 4), "figures": tuple(kept.values())}
    checkpoint.save(path, trained, dataclasses.replace(meta, **told))
    for f in found:
        print(f"{f['name']:32} {f['value']:9.4f} {f['unit']}")
    print(f"temperature {t:.3f}{bounded}; `other` below {below:.4f}")
    return found


def _held(nets: Sequence[tuple[Path, StateNet, Meta]], calibrated: Meta) -> tuple[Tensor, Tensor]:
    """Return the logits of the held clips, each by its network, as they were before any calibration, and the labels."""
    parts = []
    for path, net, meta in nets:
        if (meta.labels, meta.layout) != (calibrated.labels, calibrated.layout):
            raise NothingHeldError(f"{path}: expected a network of the same joints and classes as the one to be calibrated")
        source = Source.told(meta)
        held = source.split(source.read().clips)[1]
        if held:
            logits, labels = ends(net, held)
            parts.append((logits * meta.temperature, labels))
    if not parts:
        raise NothingHeldError("expected a network with clips held out of its training, for its own or for another's calibration (--by)")
    return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])
