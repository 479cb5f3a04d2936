"""A network of text writes: what a look during training shows beside its figures."""

import torch

from indrnn.model.nets.network import StateNet

TEMPERATURE = 0.8


@torch.no_grad()
def write(net: StateNet, alphabet: str, characters: int, seed: int, unsaid: int | None = None) -> str:
    """Return so many characters, drawn from a folded net that begins after a line's end, or after its first symbol where it knows none.

    unsaid: a symbol that is never drawn.
    """
    draws = torch.Generator().manual_seed(seed)
    one = torch.ones(1, dtype=torch.int64)
    symbol = one * max(0, alphabet.find("\n"))
    state, text = net.start(1), ""
    for _ in range(characters):
        logits, state = net(symbol[None], one, state)
        scores = logits[0, 0] / TEMPERATURE
        if unsaid is not None:
            scores[unsaid] = -torch.inf
        symbol = torch.multinomial(scores.softmax(0), 1, generator=draws)
        text += alphabet[int(symbol)]
    return text
