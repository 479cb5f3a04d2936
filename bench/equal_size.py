"""Does depth, or a slow memory, pay among networks of one size: characters of the Penn Treebank.

python bench/equal_size.py [--minutes 3] [--only NAME ...] [--log FILE]

One layer of tanh neurons, beside it the four deep networks of Pascanu et al. (model/cells/classic/deep.py), two layers of tanh, which are
the paper's stacked one, and SCRN, each with some 46,000 weights, embedding and readout included. Batch norm before each layer as in `ptb-
char`, batches of 32 x 64 symbols of the training part, whose state is carried on, Adam at 2e-3, gradients of norm 1 at most, one seed, one
thread; each has the same minutes of the process's own time, measuring not among them. The figure is bits per character of the first 60,000
characters of the validation part, of the weights as they are at the end, batch norm's statistics those of 50 batches more. --log keeps
runs, a line of JSON each, and those that are there are not made again. The last line is JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch.nn.functional as F  # noqa: N812

from bench.runs import Row, once
from indrnn.model.cells.norm import settle_
from indrnn.model.data import text, treebank
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.training.measure import bits_per_char
from indrnn.model.training.training import keep_memory

ROWS, LENGTH, RATE, CLIP, SEED, MEASURED, SETTLING = 32, 64, 2e-3, 1.0, 1, 60_000, 50
NETWORKS: dict[str, tuple[str, int, int]] = {  # cell, layers, neurons of a layer
    "tanh": ("tanh", 1, 128),
    "deep input": ("deep_input", 1, 108),
    "deep transition": ("deep_transition", 1, 108),
    "deep transition, shortcut": ("deep_shortcut", 1, 95),
    "deep output": ("deep_output", 1, 108),
    "stacked": ("tanh", 2, 95),
    "SCRN": ("scrn", 1, 136),
}


def trained(name: str, minutes: float, alphabet: str, parts: dict[str, str]) -> Row:
    """Steps that were made in so many minutes, and the bits per character then."""
    cell, layers, hidden = NETWORKS[name]
    torch.manual_seed(SEED)
    net = CharsNet(CharsConfig(len(alphabet), hidden=hidden, layers=layers, cell=cell)).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    streams = text.Streams(text.encode(parts["train"], alphabet), ROWS, LENGTH)
    state, lengths = net.start(ROWS), torch.full((ROWS,), LENGTH)
    steps, begun = 0, time.process_time()
    while time.process_time() - begun < 60 * minutes:
        x, y = streams.batch(steps)
        optimizer.zero_grad()
        logits, state = net(x, lengths, state.detach())
        F.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        steps += 1
    settle_(net, SETTLING, lambda i: net(streams.batch(steps + i)[0], lengths, state))
    parameters = sum(p.numel() for p in net.parameters())
    bits = bits_per_char(net.fold(), text.encode(parts["val"][:MEASURED], alphabet), rows=16)
    return {"cell": cell, "parameters": parameters, "steps": steps, "bits": round(bits, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    parts = {part: treebank.characters(part) for part in ("train", "val")}
    alphabet = text.alphabet_of([parts["train"]])
    rows = []
    print(f"{'network':<28}{'weights':>10}{'steps':>8}{'bits per character':>20}")
    for name in args.only:
        key = {"network": name, "minutes": args.minutes, "settling": SETTLING}
        row = once(args.log, key, lambda name=name: trained(name, args.minutes, alphabet, parts))
        rows.append(row)
        print(f"{name:<28}{row['parameters']:>10,}{row['steps']:>8,}{row['bits']:>20.3f}", flush=True)
    print(json.dumps({"rows": rows, "threads": 1, "rows_of_a_batch": ROWS, "length": LENGTH, "rate": RATE, "seed": SEED}))


if __name__ == "__main__":
    main()
