"""The state of a stream's rows between two batches, and the traces of it where a network is taught online."""

from typing import Any

import torch
from torch import Tensor, nn

from indrnn.model.nets.network import StackNet, StateNet
from indrnn.model.training.online.traces import OnlineError, Traces


class Carrying(nn.Module):
    """A learner whose batches of rows follow one another. carried [B, N]: the state before the next one; traces: where it is taught online.

    Both are buffers, so that a run that is gone on with finds them.
    """

    carried: Tensor
    traces: Traces | None
    begun: tuple[int, Tensor, dict[str, Any]]  # the number of the last batch, and the state and traces that it began with

    def carry(self, net: StateNet, rows: int, online: bool, checkpoint_activations: bool = False) -> None:
        """Begin at the start. Raises OnlineError where a network cannot be taught online."""
        self.register_buffer("carried", net.start(rows))
        self.traces, self.begun = None, (-1, self.carried, {})
        if not online:
            return
        hindrance = net.not_online() if isinstance(net, StackNet) else "a chain of layers"
        if checkpoint_activations:
            hindrance = "--no-checkpoint-activations, since a batch may be as short as one likes"
        if hindrance is not None:
            raise OnlineError(f"--online: expected {hindrance}")
        assert isinstance(net, StackNet)
        self.traces = Traces(net.stack, rows)

    def read(self, net: StateNet, step: int, x: Tensor, lengths: Tensor, forget: Tensor) -> Tensor:
        """Return the logits [B, T, K] of batch number `step`, x [B, T, ...] of lengths [B], and carry the state over it.

        forget [B]: rows that begin anew. Read once more, as by an optimiser that searches along a line, a batch begins where it began.
        """
        if step == self.begun[0]:
            self.carried = self.begun[1]
            if self.traces is not None:
                self.traces.put(self.begun[2])
        else:
            self.begun = (step, self.carried, {} if self.traces is None else dict(self.traces.named_buffers()))
        state = self.carried.masked_fill(forget[:, None], 0)
        if self.traces is None:
            logits, after = net(x, lengths, state)
        else:
            assert isinstance(net, StackNet)
            self.traces.forget(forget)
            logits, after = net(x, lengths, self.traces.attached(net.stack, state))
            with torch.no_grad():
                self.traces.advance(net.stack, net.seen(x), lengths, state)
        self.carried = after.detach()
        out: Tensor = logits
        return out
