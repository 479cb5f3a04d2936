"""A model small enough to check by hand: two residual layers over an embedding, in the form that export expects."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indrnn.model.cells.cell import StatePart
from indrnn.model.cells.recurrence import recurrence
from indrnn.model.cells.reference import indrnn
from indrnn.model.training.checkpoint import Meta

ALPHABET = "abcde"
K, H = len(ALPHABET), 4
ACTIVATIONS = ("relu", "tanh")
STATE = 2 * H + K


class Tiny(nn.Module):
    """x [B, T] symbols, lengths [B], state [B, N] -> logits [B, T, K], state [B, N]."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(K, H)
        self.linear = nn.Linear(H, H)
        self.readout = nn.Linear(H, K)
        self.u = nn.ParameterList([nn.Parameter(torch.empty(H).uniform_(-0.95, 0.95)) for _ in ACTIVATIONS])
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h0, h1, last = state.split([H, H, K], 1)
        y, h0 = self.recur(self.embedding(x.transpose(0, 1)), 0, lengths, h0)
        z, h1 = self.recur(self.linear(y), 1, lengths, h1)
        logits = self.readout(y + z).transpose(0, 1)
        every = torch.cat([last[:, None], logits], 1)
        last = every.gather(1, lengths[:, None, None].expand(-1, 1, K)).squeeze(1)
        return logits, torch.cat([h0, h1, last], 1)

    def recur(self, a: Tensor, layer: int, lengths: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return recurrence(a, self.u[layer], lengths, h, ACTIVATIONS[layer])


class Forgetful(Tiny):
    """Drops U in one layer: PyTorch and ONNX Runtime agree on it perfectly."""

    def recur(self, a: Tensor, layer: int, lengths: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        u = self.u[0] if layer == 0 else torch.zeros(H)
        return recurrence(a, u, lengths, h, ACTIVATIONS[layer])


class Backwards(Tiny):
    """Reads in both directions."""

    def recur(self, a: Tensor, layer: int, lengths: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return recurrence(a, self.u[layer], lengths, h, ACTIVATIONS[layer], direction="reverse" if layer else "forward")


class Unrolled(Tiny):
    """A Python time loop, which the exporter unrolls to the example's length."""

    def recur(self, a: Tensor, layer: int, lengths: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        ys = []
        for t in range(a.shape[0]):
            h = torch.where((t < lengths)[:, None], torch.relu(a[t] + self.u[layer] * h), h)
            ys.append(h)
        return torch.stack(ys), h


class Stateless(Tiny):
    """No recurrence at all."""

    def recur(self, a: Tensor, layer: int, lengths: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(a), h


def meta(module: Tiny, **changes: Any) -> Meta:
    parts = [
        StatePart("hidden", H, i, activation=a, u=tuple(u.tolist())) for i, (a, u) in enumerate(zip(ACTIVATIONS, module.u, strict=True))
    ]
    parts.append(StatePart("last_logits", K))
    figure = {"name": "bits", "value": 2.5, "unit": "bits per character", "protocol": "made up", "test_evaluations": 1}
    values: dict[str, Any] = {
        "kind": "chars",
        "command": "indrnn train tiny",
        "seed": 3,
        "steps": 1,
        "parameters": 123,
        "parts": tuple(parts),
        "alphabet": ALPHABET,
        "data": ({"name": "nothing", "terms": "none", "citation": "nobody"},),
        "figures": (figure,),
    }
    return Meta(**{**values, **changes})


def answer(module: Tiny, x: NDArray[np.int64]) -> NDArray[np.float64]:
    """What Tiny answers to x [T], one row from a zero state, without torch and from the specification alone -> [T, K]."""
    w = {k: v.numpy().astype(np.float64) for k, v in module.state_dict().items()}
    y, _ = indrnn(w["embedding.weight"][x][:, None], w["u.0"], activation=ACTIVATIONS[0])
    z, _ = indrnn(y @ w["linear.weight"].T + w["linear.bias"], w["u.1"], activation=ACTIVATIONS[1])
    logits = (y + z) @ w["readout.weight"].T + w["readout.bias"]
    return logits[:, 0]
