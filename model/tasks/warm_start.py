"""Beginning from the weights of a bundle, whose graph is folded: norms begin as nothing, symbols find their rows by what they are.

The checkpoint that a bundle was made from is seldom at hand; its graph is. A norm was moved into the weights beside it, so the new one
begins with the deviation and the mean of what it reads as scale and shift, which undo it.
"""

import json
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from indrnn.model.cells.norm import BatchNorm
from indrnn.model.nets.chars import LEAST_LOGIT, CharsNet
from indrnn.model.training.checkpoint import CheckpointError

# A symbol that is new begins as the one that it resembles, and less likely by this many nats.
LIKE = {"‘": "'", "’": "'", "“": '"', "”": '"', "`": "'", "–": "-", "—": "-", "…": ".", "_": "*", "\t": " ", "\u00a0": " "}
NEW = 4.0


@torch.no_grad()
def begin_(net: CharsNet, alphabet: str, folder: Path, batches: list[Tensor]) -> None:
    """Gives net, of this alphabet, the weights of the bundle in folder; batches of symbols [B, T] are what the norms are measured on.

    Raises CheckpointError where the folder holds no bundle of such a network.
    """
    known, weights = _read(folder)
    layers = net.stack.indrnns()
    try:
        rows = [known.find(LIKE.get(c, c) if c not in known else c) for c in alphabet]
        new = torch.tensor([c not in known for c in alphabet])
        embedding, readout, bias = weights["embedding"], weights["readout"], weights["readout.bias"]
        mean = embedding.mean(0)
        layers[0].project.weight.copy_(torch.stack([embedding[i] if i >= 0 else mean for i in rows]))
        for layer, (matrix, shift) in zip(layers[1:], weights["maps"], strict=True):
            layer.project.weight.copy_(matrix)
            layer.project.bias.copy_(shift)
        for layer, u in zip(layers, weights["u"], strict=True):
            layer.cell.u.copy_(u)
        net.readout.weight.copy_(torch.stack([readout[i] if i >= 0 else torch.zeros_like(mean) for i in rows]))
        net.readout.bias.copy_(torch.stack([bias[i] if i >= 0 else bias.min() for i in rows]) - NEW * new)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder}: expected a bundle of a network of these sizes, got others: {error}") from error
    if net.config.unknown:
        net.readout.weight[-1].zero_()
        net.readout.bias[-1] = LEAST_LOGIT
    _undo_norms_(net, batches)


def _undo_norms_(net: CharsNet, batches: list[Tensor]) -> None:
    """Sets each norm so that the net computes what it would compute without."""
    seen: dict[BatchNorm, list[Tensor]] = {m: [] for m in net.modules() if isinstance(m, BatchNorm)}

    def keep(norm: nn.Module, inputs: tuple[Any, ...], _: Any) -> Any:
        assert isinstance(norm, BatchNorm)
        seen[norm].append(inputs[0].flatten(0, 1))
        return inputs[0]

    hooks = [norm.register_forward_hook(keep) for norm in seen]
    state = net.start(len(batches[0]))
    for x in batches:
        _, state = net(x, torch.full((len(x),), x.shape[1]), state)
    for hook in hooks:
        hook.remove()
    for norm, pieces in seen.items():
        every = torch.cat(pieces)
        norm.mean.copy_(every.mean(0))
        norm.var.copy_(every.var(0))
        norm.weight.copy_((norm.var + norm.eps).sqrt())
        norm.bias.copy_(norm.mean)


def _read(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the alphabet and the weights of a bundle of text, as torch has them."""
    try:
        alphabet = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["alphabet"]
        graph = onnx.load(folder / "model.onnx").graph
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: expected a bundle of text, as `indrnn export` writes it: {error!r}") from error
    values = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    after = {node.input[0]: node for node in graph.node if node.op_type == "Add"}
    maps = [(values[n.input[1]].T, values[after[n.output[0]].input[1]]) for n in graph.node if n.op_type == "MatMul"]
    tables = [values[n.input[0]] for n in graph.node if n.op_type == "Gather"]
    u = [values[n.input[1]] for n in graph.node if n.op_type == "IndRNN"]
    if not (maps and tables and u):
        raise CheckpointError(f"{folder}: expected a bundle of IndRNN layers that read text, got another graph")
    return alphabet, {"embedding": tables[0], "maps": maps[:-1], "readout": maps[-1][0], "readout.bias": maps[-1][1], "u": u}
