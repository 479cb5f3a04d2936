"""Real-time recurrent learning for IndRNN: the derivatives of the carried state by every weight, brought forward piece by piece.

A neuron h_t = f(W x_t + b + u h_{t-1}) has one recurrent weight, so the derivative of its state by each of its own weights is one number,
its trace, with a recurrence as cheap as the neuron's (Mozer, "A focused backpropagation algorithm", 1989; Irie et al., "Exploring the
promise and limits of real-time recurrent learning", ICLR 2024). With f' the slope at step t, and c any of W_ij, b_i, u_i:

    dh_t/dc = f' (x_tj, 1 or h_{t-1}, and u dh_{t-1}/dc)

A piece of T steps does so at once, as Schmidhuber's block update does for full matrices ("A fixed size storage O(n^3) time complexity
learning algorithm", Neural Computation 4, 1992): within the piece by backpropagation, before it by the traces. The gradient is that of
backpropagation through all steps since the start, whatever T is. Weights move between pieces; a trace holds what the steps before had
with the weights of then.

A lower layer's weight moves every neuron of the layers above it, so above the traces there are sensitivities [H_above, H, in]: exact as
well, but H times as many numbers. One layer is cheap, two or three narrow ones can be had; `numbers` says how many numbers a row takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from indrnn.model.cells.independent import Independent
from indrnn.model.cells.layer import Layer
from indrnn.model.cells.recurrence import recurrence
from indrnn.model.cells.stacks import Chain

MOST = 2**31  # bytes of traces: what is asked for by mistake, five layers of 640, would be 20 GB


class OnlineError(Exception):
    """A network cannot be taught online; the message says what was expected and what came."""


@dataclass(frozen=True)
class LayerPass:
    """One layer over a piece: x [T, B, in] or symbols [T, B], what it read; h [T, B, H]; before [T, B, H], the state before each step."""

    layer: Layer
    x: Tensor
    h: Tensor
    before: Tensor

    @property
    def cell(self) -> Independent:
        """Return the layer's cell."""
        return _cell(self.layer)

    def back(self, dy: Tensor, dy_h: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives by what the neurons are fed [T, R, H] and by the first state [R, H] of rows that repeat each of B."""
        times = dy.shape[1] // self.h.shape[1]
        h, h0 = (a.repeat_interleave(times, -2).contiguous() for a in (self.h, self.before[0]))
        options = (self.cell.u, lengths.repeat_interleave(times), h0, self.cell.activation, 0.01, "forward")
        da, _, dh0 = torch.ops.indrnn.recurrence_backward(dy, dy_h, h, *options)
        return da, dh0

    def columns(self, da: Tensor) -> Tensor:
        """da [T, B, ..., H] by what the neurons are fed -> the derivatives by each neuron's own weights [B, ..., H, C]."""
        between = da.dim() - 3
        spread = (slice(None), slice(None), *[None] * between)  # [T, B, 1, ..., 1, H]
        by_u = (da * self.before[spread]).sum(0)
        if isinstance(self.layer.project, nn.Embedding):
            K = self.layer.project.num_embeddings
            index = self.x.T[:, *[None] * (between + 1)].expand(*da.shape[1:], -1)  # [B, ..., H, T]
            by_weight = da.new_zeros(*da.shape[1:], K).scatter_add_(-1, index, da.movedim(0, -1))
            return torch.cat([by_weight, by_u[..., None]], -1)
        by_weight = torch.einsum("tb...i,tbj->b...ij", da, self.x.to(da.dtype))
        return torch.cat([by_weight, da.sum(0)[..., None], by_u[..., None]], -1)


def _cell(layer: Layer) -> Independent:
    assert isinstance(layer.cell, Independent), "`check` has seen to it"
    return layer.cell


def _width(layer: Layer) -> int:
    """Return C, the weights of a neuron: those of its inputs, or of each symbol; its bias, where it has one; u."""
    project = layer.project
    if isinstance(project, nn.Embedding):
        return project.num_embeddings + 1
    assert isinstance(project, nn.Linear), "`check` has seen to it"
    return project.in_features + 2


def numbers(layers: list[Layer]) -> int:
    """Return how many numbers the traces and sensitivities of one row are."""
    total = 0
    for k, layer in enumerate(layers):
        above = 1 + sum(upper.size for upper in layers[k + 1 :])
        total += above * layer.size * _width(layer)
    return total


def check(stack: nn.Module, rows: int) -> Chain:
    """Return the stack, where it can be taught online. Raises OnlineError."""
    if not isinstance(stack, Chain) or not all(isinstance(layer.cell, Independent) for layer in stack.indrnns()):
        raise OnlineError("--online: expected --cell indrnn in a chain of layers: only there is a recurrent weight one number")
    for layer in stack.indrnns():
        if not isinstance(layer.project, nn.Linear | nn.Embedding) or layer.norm is not None or layer.dropout:
            raise OnlineError("--online: expected --dropout 0 and layers without norm: each step counts by itself")
    if stack.h0 is not None:
        raise OnlineError("--online: expected --h0 zero: the traces begin where no weight has done anything")
    if stack.norm_penalty:
        raise OnlineError("--online: expected --norm-penalty 0: the pairs of steps across two batches would be missing")
    size, one = 4 * rows * numbers(stack.indrnns()), 4 * rows * numbers(stack.indrnns()[:1])
    if size > MOST:
        layers, H = len(stack.indrnns()), stack.indrnns()[0].size
        raise OnlineError(
            f"--online: expected at most {MOST / 2**30:.0f} GiB of derivatives, got {size / 2**30:,.1f} for {layers} layers of {H} and "
            f"{rows} rows: --layers 1 takes {one / 2**30:.2g}, fewer --hidden and --rows less"
        )
    return stack


class Traces(nn.Module):
    """The derivatives of a chain's state by its weights, row by row: of layer l by layer k's, [B, H, C] where l = k, [B, H_l, H_k, C]
    above.

    C: a neuron's own weights (`_width`). Buffers, so that what is kept of a run holds them.
    """

    def __init__(self, stack: nn.Module, rows: int) -> None:
        super().__init__()
        layers = check(stack, rows).indrnns()
        self.pairs = [(upper, k) for k in range(len(layers)) for upper in range(k, len(layers))]
        for upper, k in self.pairs:
            above = () if upper == k else (layers[upper].size,)
            zeros = torch.zeros(rows, *above, layers[k].size, _width(layers[k]), dtype=_cell(layers[k]).u.dtype)
            self.register_buffer(f"by_{upper}_{k}", zeros)

    def of(self, upper: int, k: int) -> Tensor:
        """Return the derivatives of layer `upper`'s state by layer k's weights."""
        return self.get_buffer(f"by_{upper}_{k}")

    @torch.no_grad()
    def forget(self, rows: Tensor) -> None:
        """Put rows [B] bool at the start of a sequence, where no weight has done anything."""
        for upper, k in self.pairs:
            kept = self.of(upper, k)
            setattr(self, f"by_{upper}_{k}", kept.masked_fill(rows.view(-1, *[1] * (kept.dim() - 1)), 0))

    def put(self, kept: dict[str, Tensor]) -> None:
        """Put back what `named_buffers` gave: nothing of ours writes into a buffer."""
        for name, tensor in kept.items():
            setattr(self, name, tensor)

    def attached(self, stack: Chain, state: Tensor) -> Tensor:
        """state [B, N] -> the same numbers; their gradient goes on to the weights that made them. N begins with the chain's state."""
        S = stack.state_size
        now = {pair: self.of(*pair) for pair in self.pairs}  # `advance` comes before the gradient, and puts others in their place
        carried = _Attached.apply(now, stack.indrnns(), state[:, :S], *_weights(stack))  # type: ignore[no-untyped-call]
        return torch.cat([carried, state[:, S:]], 1)

    @torch.no_grad()
    def advance(self, stack: Chain, x: Tensor, lengths: Tensor, state: Tensor) -> None:
        """Bring the derivatives over a piece: x [T, B, in] or symbols [T, B], lengths [B] of it, state [B, N] before it."""
        passes = list(run(stack, x, lengths, state[:, : stack.state_size]))
        with torch.autocast(x.device.type, enabled=False):
            found: dict[tuple[int, int], Tensor] = {}
            for upper in range(len(passes)):
                found |= self._advanced(passes[: upper + 1], lengths, stack.skip)
            for (upper, k), new in found.items():
                setattr(self, f"by_{upper}_{k}", new)

    def _advanced(self, passes: list[LayerPass], lengths: Tensor, skip: bool) -> dict[tuple[int, int], Tensor]:
        """Return the derivatives of the last of these layers after the piece, by the weights of each of them."""
        top, upper = passes[-1], len(passes) - 1
        T, B, H = top.h.shape
        da, kept = top.back(torch.zeros_like(top.h), torch.ones_like(top.before[0]), lengths)  # of each neuron by itself: [T, B, H], [B, H]
        found = {(upper, upper): top.columns(da) + kept[..., None] * self.of(upper, upper)}
        if not upper:
            return found
        found |= {(upper, k): kept[:, :, None, None] * self.of(upper, k) for k in range(upper)}
        g = da[..., None] * _weight(top.layer)  # [T, B, H, in], by what each neuron reads
        for k in range(upper - 1, -1, -1):
            below = passes[k]
            into = g.reshape(T, B * H, -1)
            da, kept = below.back(into.contiguous(), into.new_zeros(B * H, below.layer.size), lengths)
            da, kept = da.view(T, B, H, -1), kept.view(B, H, -1)
            found[upper, k] += below.columns(da) + kept[..., None] * self.of(k, k)[:, None]
            for lower in range(k):
                found[upper, lower] += torch.einsum("bmn,bnic->bmic", kept, self.of(k, lower))
            if k:
                g = da @ _weight(below.layer) + (g if skip else 0)
        return found


def _weight(layer: Layer) -> Tensor:
    """Return W [H, in] of a layer that `check` has let through."""
    assert isinstance(layer.project, nn.Linear), "`check` has seen to it"
    return layer.project.weight


def run(stack: Chain, x: Tensor, lengths: Tensor, state: Tensor) -> Iterator[LayerPass]:
    """Run a chain over a piece and return what each of its layers has seen and done."""
    hidden = torch.split_with_sizes(state, [layer.size for layer in stack.indrnns()], 1)
    for i, (layer, h0) in enumerate(zip(stack.indrnns(), hidden, strict=True)):
        assert layer.project is not None, "`check` has seen to it"
        h, _ = recurrence(layer.project(x), _cell(layer).u, lengths, h0, _cell(layer).activation)
        yield LayerPass(layer, x, h, torch.cat([h0[None], h[:-1]]))
        x = x + h if stack.skip and i else h


def _weights(stack: Chain) -> list[Tensor]:
    """Return the weights of each layer in the order of a trace's columns: of its inputs, bias, u."""
    found: list[Tensor] = []
    for layer in stack.indrnns():
        assert isinstance(layer.project, nn.Linear | nn.Embedding), "`check` has seen to it"
        found.append(layer.project.weight)
        found += [layer.project.bias] if isinstance(layer.project, nn.Linear) else []
        found.append(_cell(layer).u)
    return found


class _Attached(torch.autograd.Function):
    """Hands a state [B, S] through; the gradient by it, times the traces, is the part of the weights' gradient that lies before it."""

    @staticmethod
    def forward(ctx: Any, traces: dict[tuple[int, int], Tensor], layers: list[Layer], state: Tensor, *_: Tensor) -> Tensor:
        """Keep what the gradient needs; torch's hook, as is `backward`."""
        ctx.traces, ctx.layers = traces, layers
        return state.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Return the gradients by the weights, in the order of `_weights`; the state itself is where a piece begins and has none."""
        by_layer = torch.split_with_sizes(grad, [layer.size for layer in ctx.layers], 1)
        found: list[Tensor] = []
        for k, layer in enumerate(ctx.layers):
            by = torch.einsum("bi,bic->ic", by_layer[k], ctx.traces[k, k])
            for upper in range(k + 1, len(by_layer)):
                by = by + torch.einsum("bm,bmic->ic", by_layer[upper], ctx.traces[upper, k])
            found += [by[:, :-1].T] if isinstance(layer.project, nn.Embedding) else [by[:, :-2], by[:, -2]]
            found.append(by[:, -1])
        return (None, None, None, *found)
