"""Training with activations in pieces of time: memory grows as the square root of T, not as T.

A sequence is cut into about sqrt(T) pieces of about sqrt(T) steps. The forward pass keeps the state between them; the backward pass
computes each piece again (Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost", along time). Outputs, gradients and running
statistics are those of the whole; dropout draws one mask for all pieces.

Batch norm over all steps needs its mean and variance before the first step can be normalised. They are gathered norm by norm, each in a
pass of its own over the pieces: L norms cost some (L + 2) / 2 times the arithmetic. Norms per step, and none, cost no more than the second
forward pass. (Steps past the last position that has statistics of its own are normalised by those of their piece, not of all such steps.)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from indrnn.model.cells.layer import Layer
from indrnn.model.cells.norm import BatchNorm, Gathered, Moments, ReachedError


class Passes(Protocol):
    """A network that is run in pieces: a stack (model/cells/stacks.py)."""

    def indrnns(self) -> Sequence[Layer]:
        """Return the layers in the order they run."""

    def begin(self, x: Tensor, lengths: Tensor | None, state: Tensor, gathered: Gathered | None = None) -> Any:
        """Return a pass over x, for `compute`; its `state()` is the state after it."""

    def compute(self, x: Tensor, run: Any) -> Tensor:
        """x [T, B, in] -> y [T, B, out]."""


class _Pieces:
    """A sequence in pieces, and what all passes over it share."""

    def __init__(self, stack: Passes, x: Tensor, lengths: Tensor | None) -> None:
        self.stack, self.x, self.lengths = stack, x, lengths
        self.size = max(1, math.ceil(math.sqrt(x.shape[0])))
        self.seed = int(torch.randint(2**62, ()))
        self.known: list[Moments] = []
        self.again = False

    def starts(self) -> range:
        """Return the steps at which the pieces begin; where T = 0 there is one piece of no steps."""
        return range(0, max(1, self.x.shape[0]), self.size)

    def run(self, start: int, state: Tensor, act: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return what act(x, lengths, state, gathered) makes of the piece at `start`; nothing else of it is kept."""
        x = self.x[start : start + self.size]
        lengths = None if self.lengths is None else (self.lengths - start).clamp(0, len(x))
        known = list(self.known)

        def piece(x: Tensor, state: Tensor) -> tuple[Tensor, ...]:
            with self._drawn():
                return act(x, lengths, state, Gathered(known, self.again))

        out: tuple[Tensor, ...] = checkpoint(
            piece, x, state, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), self._second())
        )
        return out

    @contextmanager
    def _drawn(self) -> Iterator[None]:
        """Keep the same draws of dropout in every piece, and when it is computed again."""
        with torch.random.fork_rng([self.x.device] if self.x.is_cuda else []):
            torch.manual_seed(self.seed)
            yield

    def _second(self) -> AbstractContextManager[None]:
        @contextmanager
        def second() -> Iterator[None]:
            self.again = True
            try:
                yield
            finally:
                self.again = False

        return second()

    def moments(self, state: Tensor) -> Moments:
        """Return the moments of the first norm whose moments are not known."""

        def act(x: Tensor, lengths: Tensor | None, state: Tensor, gathered: Gathered) -> tuple[Tensor, ...]:
            run = self.stack.begin(x, lengths, state, gathered)
            try:
                self.stack.compute(x, run)
            except ReachedError as reached:
                return reached.moments.count, reached.moments.mean, reached.moments.squares, run.state()
            raise AssertionError("expected another norm")

        total = None
        for start in self.starts():
            *piece, state = self.run(start, state, act)
            total = Moments(*piece) if total is None else total.merged(Moments(*piece))
        assert total is not None
        return total


def run(stack: Passes, x: Tensor, lengths: Tensor | None, state: Tensor, last: bool) -> tuple[Tensor, Tensor]:
    """Run the stack in pieces, as Stack.forward, or with `last` as Stack.final.

    x [T, B, in], state [B, N] -> y [T, B, out] or [B, out], state [B, N].
    """
    pieces = _Pieces(stack, x, lengths)
    for layer in stack.indrnns():
        if isinstance(layer.norm, BatchNorm):
            pieces.known.append(pieces.moments(state))
            layer.norm.track(pieces.known[-1])

    def act(x: Tensor, lengths: Tensor | None, state: Tensor, gathered: Gathered) -> tuple[Tensor, ...]:
        run = stack.begin(x, lengths, state, gathered)
        y = stack.compute(x, run)
        return (y if not last else final_step(y, lengths)), run.state()

    outputs: list[Tensor] = []
    for start in pieces.starts():
        y, state = pieces.run(start, state, act)
        if last and outputs and lengths is not None:  # rows that ended before this piece stay as they are
            y = torch.where((lengths > start)[:, None], y, outputs[-1])
        outputs = [y] if last else [*outputs, y]
    return (outputs[0] if last else torch.cat(outputs)), state


def final_step(y: Tensor, lengths: Tensor | None) -> Tensor:
    """y [T, B, H] at each row's last step -> [B, H]; of a row of length 0 whatever is there."""
    return y[-1] if lengths is None else y[(lengths - 1).clamp_min(0), torch.arange(y.shape[1], device=y.device)]
