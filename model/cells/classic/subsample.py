"""Subsampling in time: a layer reads the outputs of the one below in windows, and makes a step only where a window is full.

Graves, 2012, "Supervised Sequence Labelling with Recurrent Neural Networks", chapter 9: each level joins `count` outputs of the level below
into one input, so that T steps become T / count, level upon level. Here what a level answers is held until its next window is full, and so
is there at every step; and a window that is not full waits in the state, so that any split of a stream gives the same.

Outputs of a level that itself answers every `stride` steps change only then, and of those `count * stride` steps the last of each `stride`
are read. State of a layer: the last count * stride - 1 inputs, the oldest first, what is held [H], and how many inputs wait.
"""

import torch
from torch import Tensor, nn


class Subsample(nn.Module):
    """Windows before a layer of H neurons. linear: of a joined window, weight [H, count in]; None: the cell reads it as it is."""

    def __init__(self, inputs: int, count: int, stride: int, held: int, linear: nn.Linear | None) -> None:
        super().__init__()
        self.inputs, self.count, self.stride, self.held, self.linear = inputs, count, stride, held, linear
        self.total = count * stride

    @property
    def window(self) -> int:
        """Return how many numbers of state the layer carries beside those of its cell."""
        return (self.total - 1) * self.inputs + self.held + 1

    def split(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """window [B, W] -> the last inputs [total - 1, B, in], what is held [B, H], and how many inputs wait [B] int64."""
        before, held, waiting = torch.split_with_sizes(window, [(self.total - 1) * self.inputs, self.held, 1], 1)
        # A neighbour's NaN is no index.
        count = waiting.detach().nan_to_num(0.0).round().clamp(0, self.total - 1).to(torch.int64).squeeze(1)
        return before.view(window.shape[0], self.total - 1, self.inputs).transpose(0, 1), held, count

    def windows(self, x: Tensor, lengths: Tensor, before: Tensor, waiting: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [T, B, in], lengths [B] -> full windows [K, B, count in], how many each row has [B], and the last inputs [total - 1, B, in]."""
        T, B, _ = x.shape
        every = torch.cat([before.to(x.dtype), x])  # [total - 1 + T, B, in]
        K = (T + self.total - 1) // self.total
        places = torch.arange(1, self.count + 1, device=x.device) * self.stride - 1  # within a window
        starts = torch.arange(K, device=x.device) * self.total
        index = (starts[:, None] + places)[:, :, None] + (self.total - 1 - waiting)  # [K, count, B]
        index = index.clamp_max(self.total - 2 + T).flatten(0, 1)
        read = every.gather(0, index[:, :, None].expand(-1, -1, self.inputs))  # [K count, B, in]
        joined = read.view(K, self.count, B, self.inputs).transpose(1, 2).reshape(K, B, self.count * self.inputs)
        last = lengths + torch.arange(self.total - 1, device=x.device)[:, None]  # [total - 1, B]
        return joined, (waiting + lengths) // self.total, every.gather(0, last[:, :, None].expand(-1, -1, self.inputs))

    def hold(self, y: Tensor, held: Tensor, lengths: Tensor, waiting: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """y [K, B, H] of the full windows -> what is held after each of so many steps [T, B, H], and after each row's last [B, H]."""
        every = torch.cat([held[None].to(y.dtype), y])  # [K + 1, B, H]
        full = (waiting + torch.arange(1, steps + 1, device=y.device)[:, None]) // self.total  # [T, B]
        size = y.shape[2]
        out = every.gather(0, full[:, :, None].expand(-1, -1, size))
        ended = ((waiting + lengths) // self.total)[None, :, None].expand(-1, -1, size)
        return out, every.gather(0, ended).squeeze(0)

    def joined(self, last: Tensor, held: Tensor, lengths: Tensor, waiting: Tensor, like: Tensor) -> Tensor:
        """Return the state [B, W] that `split` takes apart."""
        B = waiting.shape[0]
        count = ((waiting + lengths) % self.total)[:, None]
        flat = last.transpose(0, 1).reshape(B, (self.total - 1) * self.inputs)
        return torch.cat([flat.to(like.dtype), held.to(like.dtype), count.to(like.dtype)], 1)
