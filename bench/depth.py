"""At how many layers does an LSTM stop training, and does IndRNN?

python bench/depth.py [--minutes 2] [--cells lstm indrnn] [--layers 2 4 8] [--log FILE]

Permuted MNIST, pooled by means of 2 x 2 to 196 steps of one number in an order drawn once; plain stacks of 64 neurons a layer, IndRNN with
batch norm after each recurrence as its papers have it, the LSTM without. Each run has the same minutes of the process's own time, one
thread, for batches of 32 with Adam at 1e-3 and gradients of norm 1 at most; measuring does not count, nor do the 50 batches from which
batch norm's statistics are then taken. The error is that of the 3,000 validation images; the loss is a mean over the last 50 steps, of
chance ln 10 = 2.303. --log keeps runs, a line of JSON each, and those that are there are not made again. The last line is JSON.
"""

import argparse
import json
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from bench.runs import Row, once
from indrnn.model.cells.norm import settle_
from indrnn.model.cells.recurrent_weight import clamp_recurrent_, parameter_groups
from indrnn.model.cells.table import CELLS
from indrnn.model.data import mnist
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.training import keep_memory

H, B, RATE, CLIP, SEED, LAST, MEASURED, SETTLING = 64, 32, 1e-3, 1.0, 1, 50, 250, 50
NORMS = {"indrnn": "after"}  # the others: none

Images = tuple[NDArray[np.float32], NDArray[np.int64]]


def pooled(part: str) -> Images:
    """Images [N, 196, 1] in [-1, 1], each number the mean of 2 x 2 pixels, in an order drawn once, and classes [N]."""
    x, y = mnist.read(part, permuted=True, pool=2)
    return mnist.scaled(x)[:, :, None], y


def network(cell: str, layers: int, T: int) -> SequenceNet:
    """A plain stack, weights drawn from the seed."""
    torch.manual_seed(SEED)
    return SequenceNet(SequenceConfig(layers=layers, hidden=H, T=T, norm=NORMS.get(cell, "none"), cell=cell))


@torch.no_grad()
def error(net: SequenceNet, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """Percent of the images that are not answered with their class."""
    net.eval()
    said = np.concatenate([net.answer(torch.from_numpy(x[i : i + MEASURED])).argmax(1).numpy() for i in range(0, len(x), MEASURED)])
    net.train()
    return 100 * float((said != y).mean())


def trained(cell: str, layers: int, minutes: float, train: Images, val: Images) -> Row:
    """Steps that were made in so many minutes, the loss of the last and the validation error."""
    x, y = train
    net = network(cell, layers, x.shape[1]).train()

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = np.random.default_rng([SEED, step]).integers(len(x), size=B)
        return torch.from_numpy(x[chosen]), torch.from_numpy(y[chosen])

    optimizer = torch.optim.Adam(parameter_groups(net, 0.0), lr=RATE)
    losses: deque[float] = deque(maxlen=LAST)
    steps, begun = 0, time.process_time()
    while time.process_time() - begun < 60 * minutes:
        images, classes = batch(steps)
        optimizer.zero_grad()
        loss = F.cross_entropy(net.answer(images), classes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        clamp_recurrent_(net)
        losses.append(loss.item())
        steps += 1
    settle_(net, SETTLING, lambda i: net.answer(batch(steps + i)[0]))
    parameters = sum(p.numel() for p in net.parameters())
    figures = {"loss": round(float(np.mean(losses)), 4), "error": round(error(net, *val), 2)}
    return {"parameters": parameters, "steps": steps, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["lstm", "indrnn"], metavar="CELL")
    parser.add_argument("--layers", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    train, val = pooled("train"), pooled("val")
    rows = []
    print(f"{'cell':<14}{'layers':>7}{'parameters':>12}{'steps':>8}{'loss':>9}{'error, %':>10}")
    for layers in args.layers:
        for cell in args.cells:
            key = {"cell": cell, "layers": layers, "minutes": args.minutes, "settling": SETTLING}
            row = once(args.log, key, lambda cell=cell, layers=layers: trained(cell, layers, args.minutes, train, val))
            rows.append(row)
            told = f"{row['parameters']:>12,}{row['steps']:>8,}{row['loss']:>9.3f}{row['error']:>10.2f}"
            print(f"{cell:<14}{layers:>7}{told}", flush=True)
    print(json.dumps({"rows": rows, "threads": 1, "H": H, "B": B, "rate": RATE, "seed": SEED}))


if __name__ == "__main__":
    main()
