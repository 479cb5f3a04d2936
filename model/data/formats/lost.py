"""How files write that a joint was not seen: NaN, zeros on all axes, or a number that no place has, such as -9999 and 1e30."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 10_000  # frames that such numbers are looked for in: a large file holds millions
NO_PLACE = 1e9  # in no unit of length that is used of bodies, micrometres included, is a joint so far away
GAP = 3.0  # ranges of all other numbers that one which stands for none is away from them
NAMED = tuple(float(s * n) for n in (999, 9999, 99999, 999999, 10000, 1000, 32767, 32768, 65535) for s in (1, -1))
NAMED_GAP = 0.25  # the same of these, of which 10000 and 1000 are float16's 9999 and 999
FAR = 1.0  # sizes of the body (root mean square distance from its middle) that a joint is away from all others


def sentinels(x: NDArray[Any]) -> tuple[float, ...]:
    """Return the numbers in x [n, P, J, D] that stand for no place, but for NaN, and for those beyond NO_PLACE.

    Such a number lies apart from all others, or it is a known one and the same on all axes.
    """
    least, most = (reduce(x.reshape(len(x), -1), 1) for reduce in (np.fmin.reduce, np.fmax.reduce))  # of each frame
    if _nothing(least):
        return ()
    ends = [int(np.nanargmin(least)), int(np.nanargmax(most))]
    sample = np.concatenate([x[:: max(1, len(x) // SAMPLES)], x[ends]]).astype(np.float64)
    sample[np.abs(sample) >= NO_PLACE] = np.nan
    found: list[float] = []
    D = x.shape[-1]
    if D == 3:
        for v in NAMED:
            alike = (sample == v).all(-1)
            if alike.any():
                found.append(v)
                sample[alike] = np.nan
    while not _nothing(sample) and len(found) < 16:
        low, high = float(np.nanmin(sample)), float(np.nanmax(sample))
        apart = [v for v in (low, high) if _apart(sample, v, flat=D == 2)]
        if not apart:
            break
        found.append(apart[0])
        sample[sample == apart[0]] = np.nan
    return tuple(found)


def _nothing(x: NDArray[Any]) -> bool:
    return not x.size or bool(np.isnan(x).all())


def _apart(x: NDArray[np.float64], v: float, flat: bool) -> bool:
    """Return whether the least or largest number of x stands for no place. flat: pixels may be, and -1 beside them is none."""
    rest = x[(x != v) & ~np.isnan(x)]
    if rest.size < x.shape[-1]:
        return False
    low, high = float(rest.min()), float(rest.max())
    span, gap = high - low, max(low - v, v - high)
    if flat and v == -1 and low >= 0 and span > 10:
        return True
    return gap > (NAMED_GAP if v in NAMED else GAP) * max(span, 1e-9)


def seen_only(x: NDArray[Any], zero: bool = False) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return x [n, P, J, D] with NaN for what stands for no place, and what was done, in words; x itself where nothing was.

    zero: a joint of a present person that is exactly 0 on all axes was not seen either.
    """
    notes = []
    numbers = sentinels(x)
    beyond = float(np.fmax.reduce(x, None)) >= NO_PLACE or float(np.fmin.reduce(x, None)) <= -NO_PLACE
    if numbers or beyond:
        lost = np.zeros(x.shape[:-1], np.bool_)
        for v in numbers:
            lost |= (x == v).any(-1)
        lost |= ((x >= NO_PLACE) | (x <= -NO_PLACE)).any(-1) if beyond else False
        which = [f"{v:g}" for v in numbers] + [f"numbers of {NO_PLACE:g} and more"] * beyond
        notes.append(f"{int(lost.sum()):,} places with {', '.join(which)} in them are joints not seen")
        x = _without(x, lost)
    if zero:
        zeros = at_zero(x)
        if zeros.any():
            notes.append(f"{int(zeros.sum()):,} joints at exactly 0 on all axes are joints not seen")
            x = _without(x, zeros)
    elif far_zeros := zeros_far_from_all(x):
        notes.append(
            f"warning: {far_zeros:,} joints stand at exactly 0 on all axes, far from all others of their person: "
            "where 0 means not seen, say --lost zero"
        )
    return x, tuple(notes)


def _without(x: NDArray[Any], lost: NDArray[np.bool_]) -> NDArray[Any]:
    x = x.astype(np.float64 if x.dtype.kind in "iu" else x.dtype)  # a copy
    x[lost] = np.nan
    return x


def at_zero(x: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which joints [n, P, J] of x are exactly 0 on all axes while others of their person are not."""
    zeros: NDArray[np.bool_] = (x == 0).all(-1)
    there = ~(zeros | np.isnan(x).any(-1)).all(-1)
    found: NDArray[np.bool_] = zeros & there[..., None]
    return found


def zeros_far_from_all(x: NDArray[Any]) -> int:
    """Return how many joints are exactly at 0 while all others of their person are further away than the body is large."""
    zeros = at_zero(x)
    count = 0
    frames = np.argwhere(zeros.any(-1))  # (frame, person)
    for begin in range(0, len(frames), SAMPLES):
        f, p = frames[begin : begin + SAMPLES].T
        body, none = x[f, p].astype(np.float64), zeros[f, p]
        body[none] = np.nan
        seen = ~np.isnan(body).any(-1)
        n = np.maximum(seen.sum(-1), 1)[:, None]
        middle = np.where(seen[..., None], body, 0).sum(1) / n
        away = np.where(seen, ((body - middle[:, None]) ** 2).sum(-1), 0).sum(-1)
        size = np.sqrt(away / n[:, 0])
        nearest = np.where(seen, np.sqrt((np.nan_to_num(body) ** 2).sum(-1)), np.inf).min(-1)
        count += int(none.sum(-1)[(nearest > FAR * size) & (seen.sum(-1) > 1)].sum())
    return count
