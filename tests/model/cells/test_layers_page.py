"""The examples of docs/layers.md, run as they stand there, one after another."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[3] / "docs" / "layers.md"


def test_the_examples_run_and_give_what_their_comments_say():
    torch.manual_seed(0)
    layer, stacks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(layer, names)
    assert (tuple(names["output"].shape), tuple(names["h_n"].shape)) == ((32, 784, 256), (4, 32, 128))
    exec(stacks, names)
    depths = {kind: len(names[kind].indrnns()) for kind in ("residual", "dense", "conv")}
    assert depths == {"residual": 11, "dense": 40, "conv": 6}
    conv = names["conv"]
    assert tuple(names["last"].shape) == (2, conv.out_features)
    assert (tuple(names["y"].shape), tuple(names["state"].shape)) == ((20, 2, conv.out_features), (2, conv.state_size))
    x, lengths = names["x"], names["lengths"]
    whole, state = conv(x, lengths)
    torch.testing.assert_close(names["y"][:7], whole[10:17])
    torch.testing.assert_close(names["state"], state)
