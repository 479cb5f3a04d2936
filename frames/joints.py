"""Joints that a camera did not see, and how far from it a body can be. Training and serving read clips through this."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FARTHEST = 50.0  # metres from the camera; what lies beyond is centimetres or millimetres, and would be answered wrongly and surely


def hold(x: Floats, last: Floats) -> Floats:
    """Fills joints not seen (NaN) in x [T, P, J, 3] with their last place, starting from last [P, J, 3].

    A joint of a present person that was never seen stands where the mean of the person's first seen joints was; a person none of whose
    joints is seen, or all at the origin, is absent: all zeros, and starts anew when coming back.
    """
    missing: NDArray[np.bool_] = np.logical_or.reduce(np.isnan(x), axis=-1)
    if not missing.any():
        return x
    x = np.where(missing[..., None], np.float32(0), x)
    t = np.arange(len(x))[:, None, None]
    absent = np.logical_not(x.any((-1, -2)))[..., None]
    began = np.maximum.accumulate(np.where(absent, t, -1)) + 1  # [T, P, 1]: since when the person has been there
    seen = np.maximum.accumulate(np.where(missing, -1, t))  # [T, P, J]: when the joint was last seen
    first = np.minimum(began, len(x) - 1)
    count = (~missing).sum(-1)
    mean = x.sum(2) / np.maximum(count, 1)[..., None]  # of the seen joints, [T, P, 3]
    there_before = np.count_nonzero(last, axis=(-1, -2)) > 0  # [P]
    from_before = np.logical_and(began == 0, there_before[None, :, None])
    never = np.where(from_before[..., None], last, np.take_along_axis(mean, first, 0)[:, :, None])
    held = np.where((seen >= began)[..., None], np.take_along_axis(x, np.maximum(seen, 0)[..., None], 0), never)
    filled: Floats = np.where(absent[..., None], np.float32(0), held).astype(np.float32)
    return filled
