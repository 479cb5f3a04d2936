"""Whether what stands there can be a body: the lengths between its joints, which way is up, and on which side its feet point.

Evidence is gathered frame by frame, causally, and forgotten over some seconds, so that any split of a stream gives the same. It is a row of
numbers of its own beside a network's state, [P, E] float32, of which zeros are the start. `docs/skeletons.md` has what the limits
were measured on and what they catch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MEMORY = 4.0  # seconds after which a frame weighs 1/e
FEWEST, FEWEST_POSES = 4.0, 7.0  # frames before anything is doubted, and how a body stands
SHORTEST, CLIPPED = 1e-4, 1.5  # metres that a length counts as at least; how far off, as a logarithm, a pair counts at most
UPRIGHT = 0.6  # cosine between trunk and vertical from which a body stands upright
FARTHEST = 1_000.0  # metres; what is farther counts as there, so that no number overflows
FLAT = 1e-3  # metres between a body's nearest and farthest joint below which it has no depth

# The entries of a person's evidence. Each is a sum over frames, to be divided by its count; all but the last two are forgotten.
_SUMMED = ("frames", "size", "size2", "shape", "limb", "flat", "stands", "up", "sided", "side", "follows", "change", "ever", "upright")
# Beside them stands, as bits, which joints were not seen in the last frame: their places are held, and say nothing of the next one's.
_ENTRIES = (*_SUMMED, "unseen", "unseen, on")
_SUMS, _BITS = len(_SUMMED), 24  # so many are exact in a float32
ENTRIES = len(_ENTRIES)
_AT = {name: i for i, name in enumerate(_ENTRIES)}
_KEPT = np.array([name in ("ever", "upright") for name in _ENTRIES])


@dataclass(frozen=True)
class BodyLimits:
    """How far a body may be from what its network learned from; None is not checked.

    Means over the remembered frames. size: of the logarithm of its size, ±; shape: of the pairs' logarithms from that, on average; limb:
    of the one pair that is farthest off; breath: deviation of its size; change: of a pair from frame to frame; up: least cosine of trunk
    and vertical, if it was upright in fewer than `upright` of all frames ever; down: that cosine, whatever it was before; side: how
    far hands and feet may be behind a body whose left and right are as they are named; flat: share of frames without any depth.
    """

    size: float | None = 0.5
    shape: float | None = 0.32
    limb: float | None = 1.5
    breath: float | None = 0.18
    change: float | None = 0.2
    up: float | None = 0.45
    upright: float = 0.25
    down: float | None = -0.2
    side: float | None = 0.05
    flat: float | None = 0.9
    absent: float | None = 0.5


# Lengths in metres between joints of recorded adults: the middle of five sets' means, by which their own differ by some 10 %.
_PAIRS: Mapping[tuple[str, str], float] = {
    ("shoulder", "elbow"): 0.258, ("elbow", "wrist"): 0.237, ("hip", "knee"): 0.45, ("knee", "ankle"): 0.365, ("shoulder", "hip"): 0.38,
}  # fmt: skip
_MIDDLE: Mapping[tuple[str, str], float] = {
    ("left shoulder", "right shoulder"): 0.315, ("left hip", "right hip"): 0.15, ("shoulder centre", "hip centre"): 0.405,
    ("head", "shoulder centre"): 0.187, ("shoulder centre", "left shoulder"): 0.19, ("shoulder centre", "right shoulder"): 0.19,
    ("hip centre", "left hip"): 0.11, ("hip centre", "right hip"): 0.11,
}  # fmt: skip
LENGTHS: dict[tuple[str, str], float] = {
    **{(f"{side} {a}", f"{side} {b}"): metres for (a, b), metres in _PAIRS.items() for side in ("left", "right")},
    **_MIDDLE,
}
_FORWARD = {"foot": 0.8, "ankle": -0.8, "hand": 0.1, "shoulder": -0.1, "wrist": 0.3, "elbow": -0.3}
"""What points forward in a body, weighed as logistic regression did: feet from ankles, hands from shoulders, wrists from elbows."""


@dataclass(frozen=True)
class Anatomy:
    """What bodies of one network are like. names: of the J joints; pairs: indices of two joints and the metres between them."""

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int, float], ...]
    limits: BodyLimits = BodyLimits()

    @cached_property
    def logs(self) -> Floats:
        """The logarithms of the pairs' lengths, [n]."""
        return np.log(np.array([metres for _, _, metres in self.pairs], np.float32))

    @cached_property
    def _ups(self) -> list[Floats]:
        """[J] each: from hips to shoulders, from hip centre to head; none where names are lacking."""
        lines = [(("left shoulder", "right shoulder"), ("left hip", "right hip")), (("head",), ("hip centre",))]
        return [self._line({**dict.fromkeys(top, 1.0), **dict.fromkeys(low, -1.0)}) for top, low in lines if self._has(*top, *low)]

    @cached_property
    def _sides(self) -> list[Floats]:
        """[J] each: from left to right, and forward; none where names are lacking, or what is up is not known."""
        across = {f"{side} {j}": sign for side, sign in (("left", -1.0), ("right", 1.0)) for j in ("shoulder", "hip")}
        ahead = {f"{side} {j}": weight for side in ("left", "right") for j, weight in _FORWARD.items()}
        known = bool(self._ups) and self._has(*across, *ahead)
        return [self._line(across), self._line(ahead)] if known else []

    @cached_property
    def _lines(self) -> Floats:
        """[J, L]: the differences of joints that are looked at, those of the pairs first."""
        eye = np.eye(len(self.names), dtype=np.float32)
        return np.stack([*(eye[a] - eye[b] for a, b, _ in self.pairs), *self._ups, *self._sides], 1)

    @property
    def weights(self) -> Floats:
        """Return the lines that say how a body stands, [up to 4, J]; `ups` of them point up, and then come left to right and forward."""
        lines = [*self._ups, *self._sides]
        return np.stack(lines) if lines else np.zeros((0, len(self.names)), np.float32)

    @property
    def ups(self) -> int:
        """Return how many of the lines point up."""
        return len(self._ups)

    def numbers(self, hz: float) -> dict[str, float]:
        """Return all that is compared with, by the names of kernels/bodies.h; what is not checked is infinite."""
        m = self.limits
        return {
            **{"forget": math.exp(-1 / (MEMORY * hz)), "shortest": SHORTEST, "clipped": CLIPPED, "farthest": FARTHEST, "upright": UPRIGHT},
            **{"flat": FLAT, "fewest": FEWEST, "fewest_poses": FEWEST_POSES, "size": _or_infinite(m.size), "shape": _or_infinite(m.shape)},
            **{"limb": _or_infinite(m.limb), "breath": _or_infinite(m.breath), "change": _or_infinite(m.change)},
            **{"up": _or_infinite(m.up, -1), "often": m.upright, "down": _or_infinite(m.down, -1)},
            **{"side": _or_infinite(m.side), "depth": _or_infinite(m.flat), "absent": _or_infinite(m.absent, -1)},
        }

    def _has(self, *names: str) -> bool:
        return set(names) <= set(self.names)

    def _line(self, weights: Mapping[str, float]) -> Floats:
        return np.array([weights.get(n, 0.0) for n in self.names], np.float32)

    @cached_property
    def _posed(self) -> NDArray[np.bool_]:
        """Which joints say how a body stands, [J]."""
        return np.asarray((self._lines[:, len(self.pairs) :] != 0).any(1))

    def look(
        self,
        x: Floats,
        before: Floats,
        lengths: NDArray[np.int64],
        evidence: Floats,
        hz: float,
        lost: NDArray[np.bool_] | None = None,
    ) -> Floats:
        """Return the evidence [B, P, E] after frames x [B, T, P, J, 3], of which `lengths` count in each row; before: the last frames.

        lost [B, T, P, J]: joints that were not seen, which hold their place in x and say nothing.
        """
        T, J = x.shape[1], x.shape[3]
        unseen: NDArray[np.bool_] | None = None  # [B, T + 1, P, J]
        if lost is not None or evidence[..., _SUMS:].any():
            there = np.zeros(x.shape[:4], np.bool_) if lost is None else lost
            unseen = np.concatenate([_unpacked(evidence[..., _SUMS:], J)[:, None], there], 1)
        seen = self._seen(np.clip(np.concatenate([before[:, None], x], 1), -FARTHEST, FARTHEST), unseen)
        if unseen is not None:
            seen[np.arange(len(x)), lengths - 1, :, _SUMS:] = _packed(unseen[np.arange(len(x)), lengths])
        if T == 1:
            past = np.where(_KEPT, 1.0, math.exp(-1 / (MEMORY * hz))).astype(np.float32)
            past[_SUMS:] = 0
            return evidence * past + seen[:, 0]
        seen *= (np.arange(T) < lengths[:, None])[:, :, None, None]
        left = np.maximum(lengths[:, None] - 1 - np.arange(T), 0)
        forget = math.exp(-1 / (MEMORY * hz))
        weight = np.where(_KEPT, 1.0, np.power(forget, left)[..., None])[:, :, None]  # [B, T, 1, E]
        past = np.where(_KEPT, 1.0, np.power(forget, lengths)[:, None])[:, None]  # [B, 1, E]
        past[..., _SUMS:] = 0
        after: Floats = (evidence * past + (seen * weight).sum(1)).astype(np.float32)
        return after

    def _seen(self, x: Floats, lost: NDArray[np.bool_] | None) -> Floats:
        """Return what each frame says, [B, T, P, E]; x [B, T + 1, P, J, 3] and lost [B, T + 1, P, J] begin with the frame before."""
        n, J = len(self.pairs), x.shape[3]
        drawn = (np.ascontiguousarray(x.swapaxes(-1, -2)).reshape(-1, J) @ self._lines).reshape(*x.shape[:3], 3, -1)
        drawn2 = drawn * drawn
        length = np.sqrt(np.maximum(drawn2[..., 0, :] + drawn2[..., 1, :] + drawn2[..., 2, :], SHORTEST**2))  # [B, T + 1, P, L]
        off = np.log(length[..., :n]) - self.logs
        there: NDArray[np.bool_] = np.logical_or.reduce(x != 0, axis=(-1, -2))
        told = np.zeros((*x.shape[:3], ENTRIES), np.float32)  # of every frame, the one before included
        if lost is None:
            ordered = np.sort(off, -1)
            size = (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2
            far = np.abs(off - size[..., None])
            told[..., 3], told[..., 4] = np.minimum(far, CLIPPED).sum(-1) / n, far.max(-1)
            told[:, 1:, :, 11] = np.abs(off[:, 1:] - off[:, :-1]).sum(-1) / n
            known, posed = there, there
        else:
            good = np.stack([~(lost[..., a] | lost[..., b]) for a, b, _ in self.pairs], -1)
            known, posed = there & (good.sum(-1) >= max(2, n // 3)), there & ~(lost & self._posed).any(-1)
            size = _median(off, good)
            far = np.where(good, np.abs(off - size[..., None]), 0)
            told[..., 3], told[..., 4] = np.minimum(far, CLIPPED).sum(-1) / np.maximum(good.sum(-1), 1), far.max(-1)
            both = good[:, 1:] & good[:, :-1]
            told[:, 1:, :, 11] = np.where(both, np.abs(off[:, 1:] - off[:, :-1]), 0).sum(-1) / np.maximum(both.sum(-1), 1)
        told[..., 1], told[..., 2] = size, size * size
        deep = x[..., 2]
        told[..., 5] = deep.max(-1) - deep.min(-1) < FLAT
        told[..., :6] *= known[..., None]
        told[..., 0] = known
        told[:, 1:, :, 10] = follows = known[:, 1:] & known[:, :-1]
        told[:, 1:, :, 11] *= follows
        if self._ups:
            self._stance(drawn[..., n:], length[..., n:], posed, told)
        return told[:, 1:]

    def _stance(self, drawn: Floats, length: Floats, posed: NDArray[np.bool_], told: Floats) -> None:
        """Tell how each body stands: the least cosine of its lines and the vertical, and how far it points forward."""
        ups = len(self._ups)
        up = (drawn[..., 1, :ups] / length[..., :ups]).min(-1)
        told[..., 6] = told[..., 12] = posed
        told[..., 7], told[..., 13] = up * posed, (up > UPRIGHT) & posed
        if self._sides:
            (ux, uy, uz), (ax, ay, az), (fx, fy, fz) = (np.moveaxis(drawn[..., k], -1, 0) for k in (0, ups, ups + 1))
            ahead = (uy * az - uz * ay) * fx + (uz * ax - ux * az) * fy + (ux * ay - uy * ax) * fz
            told[..., 8], told[..., 9] = posed, ahead / (length[..., 0] * length[..., ups]) * posed

    def doubts(self, evidence: Floats) -> list[tuple[str, ...]]:
        """Return of each row of evidence [B, P, E] the names of the checks that it fails, those of all persons together."""
        frames, size, size2, shape, limb, flat, stands, up, sided, side, follows, change, ever, upright = np.moveaxis(
            evidence[..., :_SUMS], -1, 0
        )
        m, some, posed = self.limits, frames >= FEWEST, stands >= FEWEST_POSES
        failed = {
            "size": some & _beyond(np.abs(size), m.size, frames),
            "shape": some & (_beyond(shape, m.shape, frames) | _beyond(limb, m.limb, frames)),
            "change": some
            & (_beyond(size2 * frames - size * size, m.breath and m.breath**2, frames**2) | _beyond(change, m.change, follows)),
            "upright": posed
            & (_beyond(-up, m.up and -m.up, stands) & (upright < m.upright * ever) | _beyond(-up, m.down and -m.down, stands)),
            "sides": posed & _beyond(-side, m.side, sided),
            "flat": some & _beyond(flat, m.flat, frames),
        }
        together = np.broadcast_to(frames.sum(-1, keepdims=True), frames.shape)
        failed["nobody"] = _beyond(-together, m.absent and -m.absent, np.ones_like(frames))
        if not np.logical_or.reduce(list(failed.values())).any():
            return [()] * len(evidence)
        return [tuple(name for name, f in failed.items() if f[b].any()) for b in range(len(evidence))]


def _packed(unseen: NDArray[np.bool_]) -> Floats:
    """Return which joints [B, P, J] were not seen as the bits of two numbers [B, P, 2]; of more than 48 joints the rest count as seen."""
    bits = (2.0 ** np.arange(_BITS)).astype(np.float32)
    halves = (unseen[..., :_BITS], unseen[..., _BITS : 2 * _BITS])
    return np.stack([half @ bits[: half.shape[-1]] for half in halves], -1).astype(np.float32)


def _unpacked(numbers: Floats, joints: int) -> NDArray[np.bool_]:
    """Return what `_packed` was given, [B, P, J]."""
    bits = (np.clip(numbers, 0, 2**_BITS - 1).astype(np.int64)[..., None] >> np.arange(_BITS)) & 1  # [B, P, 2, 24]
    found = np.zeros((*numbers.shape[:-1], joints), np.bool_)
    found[..., : 2 * _BITS] = bits.reshape(*numbers.shape[:-1], -1)[..., :joints]
    return found


def _beyond(total: Floats, limit: float | None, count: Floats) -> NDArray[np.bool_]:
    """Return whether a mean, by its sum and count, is over a limit that is checked."""
    return np.zeros(total.shape, np.bool_) if limit is None else total > limit * count


def _or_infinite(limit: float | None, sign: int = 1) -> float:
    return math.inf if limit is None else sign * limit


def _median(values: Floats, good: NDArray[np.bool_]) -> Floats:
    """Return the median of the good ones along the last axis, 0 where there is none."""
    ordered = np.sort(np.where(good, values, np.inf), -1)
    count = good.sum(-1)[..., None]
    low, high = (np.take_along_axis(ordered, np.clip(at, 0, values.shape[-1] - 1), -1) for at in ((count - 1) // 2, count // 2))
    found: Floats = np.where(count > 0, (low + high) / 2, 0)[..., 0]
    return found


# --- what bodies are like -----------------------------------------------------------------------------------------------------------------


def usual(names: Sequence[str]) -> Anatomy | None:
    """Return the anatomy of adults in metres, y up, for joints that have the names of `utd20`; None where fewer than ten pairs have."""
    at = {n: i for i, n in enumerate(names)}
    pairs = tuple((at[a], at[b], metres) for (a, b), metres in LENGTHS.items() if a in at and b in at)
    return Anatomy(tuple(names), pairs) if len(pairs) >= 10 else None


def measured(names: Sequence[str], frames: Floats, bones: Sequence[tuple[int, int]], flat: bool = False) -> Anatomy | None:
    """Return the anatomy of frames [n, J, 3] that a network learned from: their own lengths, and limits that leave nearly all alone.

    bones: pairs of joints for those whose names say nothing. None where nothing can be told.
    """
    known = usual(names)
    pairs = [(a, b) for a, b, _ in known.pairs] if known is not None else [(a, b) for a, b in bones if a != b]
    if len(frames) < FEWEST or len(pairs) < 3:
        return None
    some = frames[:: max(1, len(frames) // 4_000)].astype(np.float32)
    lengths = np.maximum(np.linalg.norm(some[:, [a for a, _ in pairs]] - some[:, [b for _, b in pairs]], axis=-1), SHORTEST)
    middle = np.exp(np.median(np.log(lengths), 0))
    told = Anatomy(tuple(names), tuple((a, b, round(float(m), 4)) for (a, b), m in zip(pairs, middle, strict=True) if m > 10 * SHORTEST))
    if len(told.pairs) < 3:
        return None
    one = told._seen(np.concatenate([some[:1], some])[None, :, None], None)[0, :, 0]
    there = one[one[:, 0] > 0]
    return replace(told, limits=_widened(told.limits, there, flat)) if len(there) else None


def _widened(limits: BodyLimits, there: Floats, flat: bool) -> BodyLimits:
    """Return limits that at most one frame in two hundred of what was learned from is beyond, by three tenths; there [n, E]."""

    def most(name: str, limit: float | None) -> float:
        return max(limit or 0.0, round(1.3 * float(np.percentile(np.abs(there[:, _AT[name]]), 99.5)), 3))

    stands = there[there[:, _AT["stands"]] > 0]
    upright = len(stands) > 0 and np.median(stands[:, _AT["up"]]) > UPRIGHT
    ahead = len(stands) > 0 and np.percentile(stands[:, _AT["side"]], 20) > 0
    return replace(
        limits,
        size=most("size", limits.size),
        shape=most("shape", limits.shape),
        limb=most("limb", limits.limb),
        breath=max(limits.breath or 0.0, round(1.3 * float(there[:, _AT["size"]].std()), 3)),
        up=limits.up if upright else None,
        down=limits.down if upright else None,
        side=limits.side if ahead and not flat else None,
        flat=None if flat else limits.flat,
    )
