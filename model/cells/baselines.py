"""What IndRNN is compared with: PyTorch's own recurrent layers, in the shape of a stack (model/cells/stacks.py).

tanh, lstm, gru: as PyTorch starts them, the LSTM's forget gate open (bias 1, the authors' comparison). irnn: relu, the recurrent matrix
starts as the identity, input weights as N(0, 0.001), biases 0 (Le, Jaitly and Hinton, 2015).
"""

from typing import Any

import torch
from torch import Tensor, nn

CELLS = ("tanh", "irnn", "lstm", "gru")


class Baseline(nn.Module):
    """x [T, B, in], lengths None, state [B, N] | None -> y [T, B, H], state [B, N]; N is H, of the LSTM 2 H."""

    def __init__(self, cell: str, inputs: int, hidden: int, layers: int = 1) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"expected one of {CELLS}, got {cell!r}")
        kinds: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU}
        options = {} if cell in kinds else {"nonlinearity": "relu" if cell == "irnn" else "tanh"}
        self.rnn = kinds.get(cell, nn.RNN)(inputs, hidden, layers, **options)
        self.cell, self.out_features, self.layers = cell, hidden, layers
        self.state_size = layers * hidden * (2 if cell == "lstm" else 1)
        self._begin()

    @torch.no_grad()
    def _begin(self) -> None:
        for name, p in self.rnn.named_parameters():
            if self.cell == "irnn":
                nn.init.normal_(p, std=0.001) if "weight_ih" in name else nn.init.zeros_(p)
                if "weight_hh" in name:
                    nn.init.eye_(p)
            elif self.cell == "lstm" and "bias_hh" in name:
                p[self.out_features : 2 * self.out_features] = 1  # PyTorch adds two biases; gates in the order i, f, g, o

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the network as the class says. Raises ValueError on lengths: rows that end earlier are not what is compared here."""
        if lengths is not None and not bool((lengths == len(x)).all()):
            raise ValueError(f"expected rows of {len(x)} steps each, got {lengths.tolist()}")
        B = x.shape[1]
        if state is None:
            state = torch.zeros(B, self.state_size, device=x.device)
        pieces = [h.view(B, self.layers, -1).transpose(0, 1).contiguous() for h in state.chunk(2 if self.cell == "lstm" else 1, 1)]
        y, after = self.rnn(x, tuple(pieces) if self.cell == "lstm" else pieces[0])
        kept = after if self.cell == "lstm" else (after,)
        return y, torch.cat([h.transpose(0, 1).reshape(B, -1) for h in kept], 1)

    def final(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """y [B, H] after the last step. Raises ValueError as forward does."""
        y: Tensor = self(x, lengths)[0][-1]
        return y

    def parts(self) -> tuple[dict[str, Any], ...]:
        """Return one part, that no manifest describes: these networks are measured, not served."""
        return ({"role": "hidden", "layer": 0, "size": self.state_size, "activation": None, "u": None},)

    def fold_(self, input_scale: Tensor | None = None) -> None:
        """Do nothing: these networks have nothing to fold."""
