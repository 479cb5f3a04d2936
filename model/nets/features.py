"""What the action network sees of a frame: places relative to the body's middle, velocities, and both as the body itself would say them.

Everything looks at this frame and the last one only, and an absent person (all zeros) contributes nothing.
"""

import torch
from torch import Tensor


def places(frames: Tensor, root: int, together: bool = False) -> tuple[Tensor, Tensor]:
    """frames [B, T + 1, P, J, 3], the first of them the last of the piece before -> places from the root and steps, both [B, T, P, J, 3].

    together: from the root of the first person who is there, not from each one's own. A person absent in a frame has neither place nor
    step; one absent in the frame before has no step: so begins a sequence.
    """
    x = frames[:, 1:]
    seen = (frames.abs().amax((3, 4)) > 0)[..., None, None]  # [B, T + 1, P, 1, 1]
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    centre = x[:, :, :, root : root + 1]  # [B, T, P, 1, 3]
    if together:
        first = seen[:, 1:].to(x.dtype).cumsum(2) == 1  # from the first person there to before the second
        centre = torch.where(first & seen[:, 1:], centre, zero).sum(2, keepdim=True)
    position = torch.where(seen[:, 1:], x - centre, zero)
    velocity = torch.where(seen[:, 1:] & seen[:, :-1], x - frames[:, :-1], zero)
    return position, velocity


def facing(position: Tensor, across: Tensor) -> Tensor:
    """Return where a body faces: position [B, T, P, J, 3], across [J] (+ right, - left) -> cosine and sine of its turn, [B, T, P, 1, 2].

    (1, 0) faces the camera. The line across shoulders and hips, seen from above, says it; a body that has none, such as an absent one,
    has no turn: (0, 0), and with it no features of its own.
    """
    line = (position[..., 0::2] * across[:, None]).sum(3, keepdim=True)  # [B, T, P, 1, 2], x and z
    # No "+ 1e-8": the exporter takes so small a sum for none and leaves it out, and an absent person becomes 0 / 0.
    return line / line.square().sum(-1, keepdim=True).clamp_min(1e-8).sqrt()


def turned(v: Tensor, turn: Tensor) -> Tensor:
    """Vectors v [B, T, P, J, 3] as a body of that turn [B, T, P, 1, 2] says them: to its right, up, behind it."""
    c, s = turn[..., :1], turn[..., 1:]
    x, y, z = v[..., :1], v[..., 1:2], v[..., 2:]
    return torch.cat([c * x + s * z, y, c * z - s * x], -1)


def distances(position: Tensor) -> Tensor:
    """Return how far apart each pair of a person's joints is: position [B, T, P, J, 3] -> metres [B, T, P, J (J - 1) / 2].

    The same from every side. Pairs in the order (0, 1), (0, 2), ..., (J - 2, J - 1).
    """
    first, second = torch.triu_indices(position.shape[3], position.shape[3], 1)
    return (position[:, :, :, first] - position[:, :, :, second]).square().sum(-1).sqrt()
