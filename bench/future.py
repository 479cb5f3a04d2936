"""What is it worth to see the future: networks that go both ways, that answer later, and that do neither, on answers that need it.

python bench/future.py [--steps 400] [--cells gru indrnn]

y_t = (x_{t-2} + x_{t+3}) / sqrt(2) of white noise x of unit variance, rows of 30 to 60 steps, 32 a batch. Who has not seen x_{t+3} when
the answer is due has an error of 0.707 at the least, who has seen both can have 0. Two layers of 32 neurons, Adam at 5e-3, one seed, as
many steps for each; root mean squared error over 500 rows that no batch has, over the answers that there are. The last line is JSON.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from indrnn.model.cells.recurrent_weight import clamp_recurrent_, parameter_groups
from indrnn.model.cells.table import CELLS
from indrnn.model.nets.tensor import TensorConfig, TensorNet

PAST, FUTURE, LAYERS, H, ROWS, RATE, SEED, HELD = 2, 3, 2, 32, 32, 5e-3, 1, 500
SHORTEST, LONGEST = 30, 60
HELD_SEED = 1_000_003  # a batch is drawn from [SEED, step], and NumPy draws from n what it draws from [n, 0]
FLOOR = 0.5**0.5  # of whoever has not seen the future
WAYS: dict[str, tuple[bool, int]] = {"plain": (False, 0), "delay 1": (False, 1), "delay 3": (False, FUTURE), "bidirectional": (True, 0)}


def draw(rng: Generator, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, T, 1], y [B, T] and lengths [B]; what is asked beyond a row's ends does not count."""
    noise = rng.normal(size=(rows, LONGEST)).astype(np.float32)
    y = np.zeros_like(noise)
    y[:, PAST:-FUTURE] = (noise[:, : -PAST - FUTURE] + noise[:, PAST + FUTURE :]) * FLOOR
    lengths = rng.integers(SHORTEST, LONGEST + 1, rows)
    return torch.from_numpy(noise[:, :, None]), torch.from_numpy(y), torch.from_numpy(lengths)


def squared(net: TensorNet, x: Tensor, y: Tensor, lengths: Tensor, delay: int) -> Tensor:
    """The mean squared error over the answers to steps of which past and future lie within the row, each `delay` steps after its own."""
    said, _ = net(x, lengths, net.start(len(x)))
    t = torch.arange(x.shape[1])
    asked = (t >= PAST) & (t < (lengths - FUTURE)[:, None])  # [B, T]
    late = said[:, :, 0].roll(-delay, 1)
    return (late - y)[asked].square().mean()


def trained(cell: str, way: str, steps: int) -> float:
    """Root mean squared error on the held rows after so many steps."""
    bidirectional, delay = WAYS[way]
    torch.manual_seed(SEED)
    sizes = TensorConfig(value_mean=(0.0,), value_scale=(1.0,), classes=1, hidden=H, layers=LAYERS, pools=(), dropout=0.0)
    net = TensorNet(replace(sizes, cell=cell, bidirectional=bidirectional))
    net.train()
    optimizer = torch.optim.Adam(parameter_groups(net, 0.0), lr=RATE)
    for step in range(steps):
        optimizer.zero_grad()
        squared(net, *draw(np.random.default_rng([SEED, step]), ROWS), delay).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        clamp_recurrent_(net)
    with torch.no_grad():
        return float(squared(net.eval(), *draw(np.random.default_rng(HELD_SEED), HELD), delay).sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["gru", "indrnn"], metavar="CELL")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'cell':<14}{'way':<16}{'error':>8}   (without the future at least {FLOOR:.3f})")
    for cell in args.cells:
        for way in WAYS:
            rows.append({"cell": cell, "way": way, "error": round(trained(cell, way, args.steps), 4)})
            print(f"{cell:<14}{way:<16}{rows[-1]['error']:>8.3f}", flush=True)
    print(json.dumps({"rows": rows, "floor": round(FLOOR, 4), "steps": args.steps, "H": H, "seed": SEED}))


if __name__ == "__main__":
    main()
