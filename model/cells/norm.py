"""Batch norm of sequences: over batch and time together, or with statistics of their own for each step since a sequence's start.

Sequence-wise norm is what Li et al. (2019, section 4) train classifiers with, frame-wise norm their language models.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn


@dataclass(frozen=True)
class Moments:
    """The moments of some steps: their number [], mean [H], and the sum [H] of squared distances from it."""

    count: Tensor
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, x: Tensor, valid: Tensor | None) -> Self:
        """x [T, B, H], valid: indices of the steps that count in [T * B] (None: all)."""
        flat = x.flatten(0, 1).to(torch.promote_types(x.dtype, torch.float32))
        flat = flat if valid is None else flat.index_select(0, valid)
        count = torch.tensor(float(len(flat)), device=x.device, dtype=flat.dtype)
        mean = flat.sum(0) / count.clamp_min(1)
        return cls(count, mean, (flat - mean).square().sum(0))

    def merged(self, other: Self) -> Self:
        """Return the moments of the steps of both (Chan, Golub and LeVeque, 1979).

        It takes no difference of large sums, as E x^2 - (E x)^2 would be.
        """
        count = self.count + other.count
        share, away = other.count / count.clamp_min(1), other.mean - self.mean
        return type(self)(count, self.mean + away * share, self.squares + other.squares + away.square() * self.count * share)

    @property
    def var(self) -> Tensor:
        """Return the variance [H]."""
        return self.squares / self.count.clamp_min(1)


class BatchNorm(nn.Module):
    """Batch norm of x [T, B, H] over the valid steps of all rows; running statistics (float32) when not training.

    In training fewer than two steps have no variance: they take the running statistics, and leave them alone.
    """

    def __init__(self, size: int, momentum: float = 0.05, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x [T, B, H], valid: indices of the steps that count in [T * B] (None: all) -> [T, B, H], in training 0 at the others."""
        if not self.training or valid is None:
            return self._norm(x.flatten(0, 1)).view_as(x)
        flat = x.flatten(0, 1)
        rows = self._norm(flat.index_select(0, valid))
        return torch.zeros_like(flat).index_copy(0, valid, rows).view_as(x)

    def _norm(self, rows: Tensor) -> Tensor:
        training = self.training and len(rows) > 1
        return F.batch_norm(rows, self.mean, self.var, self.weight, self.bias, training, self.momentum, self.eps)

    def by(self, x: Tensor, moments: Moments) -> Tensor:
        """x [T, B, H] normalised by these moments."""
        known = moments.count > 1
        mean, var = torch.where(known, moments.mean, self.mean), torch.where(known, moments.var, self.var)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (x * scale + (self.bias - mean * scale)).to(x.dtype)

    @torch.no_grad()
    def track(self, moments: Moments) -> None:
        """Moves the running statistics as a training step on steps of these moments does."""
        weight = self.momentum * (moments.count > 1).to(self.mean.dtype)
        self.mean.lerp_(moments.mean, weight)
        self.var.lerp_(moments.squares / (moments.count - 1).clamp_min(1), weight)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return the scale and shift [H] that evaluation applies: BN(a) = scale * a + shift."""
        scale = self.weight * torch.rsqrt(self.var + self.eps)
        return scale, self.bias - self.mean * scale


@torch.no_grad()
def settle_(net: nn.Module, batches: int, run: Callable[[int], object]) -> None:
    """Measures the statistics of every BatchNorm of net anew: the mean over so many batches, run(i) puts batch i through net.

    For weights that are a mean over many steps (Izmailov et al., 2018, section 3.2): their statistics are not the mean of statistics.
    """
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    modes, momenta = [(m, m.training) for m in net.modules()], [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.train()
    for i in range(batches):
        for norm in norms:
            norm.momentum = 1 / (i + 1)
        run(i)
    for module, training in modes:
        module.training = training
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class StepBatchNorm(nn.Module):
    """Batch norm of x [T, B, H] with mean and variance of their own for each position of a sequence, and one scale and shift [H].

    Positions from `positions` - 1 on share the last statistics (Li et al., 2019, section 5.2.3, normalise their language models so).
    A position that fewer than two rows of a batch have reached is normalised with its running statistics, and leaves them alone.
    """

    def __init__(self, size: int, positions: int, momentum: float = 0.05, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(positions, size))
        self.register_buffer("var", torch.ones(positions, size))
        self.momentum, self.eps, self.positions = momentum, eps, positions

    def forward(self, x: Tensor, valid: Tensor | None, position: Tensor, track: bool = True) -> Tensor:
        """x [T, B, H], valid: indices in [T * B] of the steps that count (None: all), position [B] of the first step -> [T, B, H].

        track: whether training moves the running statistics.
        """
        at = position.to(torch.int64) + torch.arange(x.shape[0], device=x.device)[:, None]  # [T, B]
        at = at.clamp_max(self.positions - 1)
        mean, var = self._moments(x, at, valid, track) if self.training else (self.mean, self.var)
        scale = self.weight * torch.rsqrt(var + self.eps)  # [P, H]
        return x * F.embedding(at, scale) + F.embedding(at, self.bias - mean * scale)

    def _moments(self, x: Tensor, at: Tensor, valid: Tensor | None, track: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance [P, H] of this batch where two rows or more are at a position, else running; moves the running ones."""
        flat, index = x.flatten(0, 1).to(self.weight.dtype), at.flatten()
        if valid is not None:
            flat, index = flat.index_select(0, valid), index.index_select(0, valid)
        zeros = torch.zeros_like(self.mean)
        count = torch.bincount(index, minlength=self.positions)[:, None].to(flat.dtype)  # [P, 1]
        known = count > 1
        mean = zeros.index_add(0, index, flat) / count.clamp_min(1)
        var = zeros.index_add(0, index, (flat - F.embedding(index, mean)).square()) / count.clamp_min(1)
        moments = torch.where(known, mean, self.mean), torch.where(known, var, self.var)
        if track:
            with torch.no_grad():
                weight = (self.momentum * known).to(mean.dtype)
                self.mean.lerp_(mean, weight.expand_as(mean))
                self.var.lerp_(var * count / (count - 1).clamp_min(1), weight.expand_as(var))
        return moments


class ReachedError(Exception):
    """The pass has come to the norm whose moments it is for. carried: the layer's state after it, [B, H], and its window [B, W]."""

    def __init__(self, moments: Moments, carried: tuple[Tensor, Tensor]) -> None:
        super().__init__("a pass for the moments of a norm ended where none was made")
        self.moments, self.carried = moments, carried


@dataclass
class Gathered:
    """Norms within a piece: those whose moments are known use them, in the order they run; the next one ends the pass.

    again: the piece is computed for the second time, and running statistics have been moved.
    """

    known: list[Moments]
    again: bool = False
    used: int = 0

    def normed(self, norm: BatchNorm, x: Tensor, valid: Tensor | None, carried: tuple[Tensor, Tensor]) -> Tensor:
        """x [T, B, H] by the moments of the next norm. Raises ReachedError where they are not known yet."""
        if self.used == len(self.known):
            raise ReachedError(Moments.of(x, valid), carried)
        self.used += 1
        return norm.by(x, self.known[self.used - 1])
