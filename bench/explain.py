"""Is an explanation quick, and does it name what matters?

INDRNN_DATA=... python bench/explain.py [speed] [action] [chars] [--split test|val]

speed    p50 of POST /explain beside that of POST /predict, a clip of 100 frames, one request at a time; and of a text of 100 characters
action   deletion: of a clip's places (a joint in a frame) those that are named most for the answer stand where their joint is on average in
         the clip, 10, 20 and 30 % of them; beside it as many drawn at random. Named: gradient times way from that average (as the page
         colours), and gradient times input (`relevance` of the reply)
chars    deletion: of the 100 characters before a place, those that are named most for the likeliest next one are read as the symbol for
         unknown ones; beside it as many drawn at random
Told is how far the answer's logit, against the mean of the others, falls: named less random, the mean over clips or places with a 95 %
interval, by drawing them anew in pairs (bootstrap). --split val: the training subjects, the validation part; what was chosen was by these.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.server import ROOT, service
from indrnn.export.bundle import Bundle, read
from indrnn.kernels.registered import registered
from indrnn.kernels.runtime import ort
from indrnn.model.data import text
from indrnn.model.data.sets import find
from indrnn.service.http.explanation import weights_of

TEST_SUBJECTS = (2, 4, 6, 8)
SHARES = (0.1, 0.2, 0.3)
RANDOM = 5  # draws beside each named deletion
BOOTSTRAP = 10_000
BAR = 3.0  # times /predict
CALLS = 200
WINDOW = 100  # characters
PLACES = 300  # in the texts

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]


class Network:
    """A bundle's two graphs, run side by side over whole sequences."""

    def __init__(self, folder: Path) -> None:
        self.bundle: Bundle = read(folder)
        options = ort.SessionOptions()
        if library := registered():
            options.register_custom_ops_library(str(library))
        assert self.bundle.explanation is not None, "it has one"
        self.forward = ort.InferenceSession(self.bundle.graph, options, providers=["CPUExecutionProvider"])
        self.backward = ort.InferenceSession(self.bundle.explanation, options, providers=["CPUExecutionProvider"])

    def logits(self, x: NDArray[Any]) -> Floats:
        """Return the logits [B, K] after the last step of x [B, T, ...]."""
        state = np.zeros((len(x), self.bundle.manifest.state_size), np.float32)
        every: Floats = self.forward.run(["logits"], {"x": x, "lengths": np.full(len(x), x.shape[1]), "state": state})[0]
        return every[:, -1]

    def explain(self, x: NDArray[Any], weights: Floats) -> tuple[Floats, Floats]:
        """Return gradient, of x's shape, and off [T], of one sequence x [T, ...]."""
        feeds = {"x": x[None], "lengths": np.array([len(x)]), "weights": weights[None]}
        gradient, off = self.backward.run(["gradient", "off"], feeds)
        return gradient[0], off[0]


def falls(
    network: Network, x: NDArray[Any], weights: Floats, named: Floats, spoil: Callable[[NDArray[np.bool_]], NDArray[Any]], seed: int
) -> Numbers:
    """Return [share, 2]: how far the weighted logit falls when the cells that are named most are spoilt, and random ones, on average.

    named: a number for each cell of x, the most for the answer first; spoil: x with the marked cells deleted.
    """
    rng, order, size = np.random.default_rng(seed), np.argsort(-named, axis=None), named.size
    marks = []
    for share in SHARES:
        count = max(1, round(share * size))
        for chosen in (order[:count], *(rng.choice(size, count, replace=False) for _ in range(RANDOM))):
            mark = np.zeros(size, bool)
            mark[chosen] = True
            marks.append(mark.reshape(named.shape))
    scores = network.logits(np.stack([x, *(spoil(mark) for mark in marks)])) @ weights
    fallen = (scores[0] - scores[1:]).reshape(len(SHARES), 1 + RANDOM)
    return np.stack([fallen[:, 0], fallen[:, 1:].mean(1)], 1).astype(np.float64)


def told(name: str, found: Numbers) -> dict[str, object]:
    """Print and return what came of falls [n, share, 2]: the mean of named less random, and its interval."""
    rng, n = np.random.default_rng(0), len(found)
    lines = {}
    for i, share in enumerate(SHARES):
        more = found[:, i, 0] - found[:, i, 1]
        means = more[rng.integers(n, size=(BOOTSTRAP, n))].mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        named, random = found[:, i].mean(0)
        print(
            f"{name:34} {100 * share:3.0f} %: falls by {named:6.2f}, random {random:6.2f}: {more.mean():6.2f} more [{low:.2f}, {high:.2f}]"
        )
        lines[f"{100 * share:.0f}"] = {"named": named, "random": random, "more": more.mean(), "interval": [low, high]}
    return {"sequences": n, **lines}


def action(split: str) -> dict[str, object]:
    """Delete places of clips."""
    network = Network(ROOT / "bundles" / "action" / "2")
    manifest, labels = network.bundle.manifest, network.bundle.manifest.labels or ()
    with np.load(find("skeleton/utd_mhad.npz")) as d:
        test = np.isin(d["subject"], TEST_SUBJECTS)
        chosen = np.flatnonzero(test if split == "test" else ~test)
        clips = [d["x"][d["off"][i] : d["off"][i + 1]].astype(np.float32)[:, None] for i in chosen]
    found: dict[str, list[Numbers]] = {"way from the joint's average": [], "times input": []}
    off = []
    for i, x in enumerate(clips):
        best = int(network.logits(x[None])[0, : len(labels)].argmax())
        weights = weights_of(manifest, labels[best], None)
        gradient, share = network.explain(x, weights)
        off.append(float(share.mean()))
        still = np.broadcast_to(x.mean(0), x.shape)
        measures = {"way from the joint's average": (gradient * (x - still)).sum(-1), "times input": (gradient * x).sum(-1)}
        for name, named in measures.items():

            def spoil(mark: NDArray[np.bool_], x: Floats = x, still: Floats = still) -> NDArray[Any]:
                return np.where(mark[..., None], still, x)

            found[name].append(falls(network, x, weights, named, spoil, i))
    print(f"action: {len(clips)} clips of the {split} subjects; relu neurons that are off: {100 * np.mean(off):.0f} % of all in a step")
    return {"off": float(np.mean(off)), **{name: told(f"action, {name}", np.stack(rows)) for name, rows in found.items()}}


def chars(split: str) -> dict[str, object]:
    """Delete characters of texts."""
    network = Network(ROOT / "bundles" / "chars" / "2")
    manifest = network.bundle.manifest
    alphabet, unknown = manifest.alphabet or "", manifest.unknown_symbol
    assert unknown is not None, "chars 2 has one"
    found, off = [], []
    for name in text.TEXTS:
        symbols = text.encode_all(text.read(name)[split], alphabet, alphabet[unknown])
        for at in np.random.default_rng(0).choice(len(symbols) - WINDOW, PLACES // len(text.TEXTS), replace=False):
            x = symbols[at : at + WINDOW]
            scores = network.logits(x[None])[0].copy()
            scores[unknown] = -np.inf
            weights = weights_of(manifest, alphabet[int(scores.argmax())], None)
            gradient, share = network.explain(x, weights)
            off.append(float(share.mean()))

            def spoil(mark: NDArray[np.bool_], x: NDArray[Any] = x) -> NDArray[Any]:
                return np.where(mark, unknown, x)

            found.append(falls(network, x, weights, gradient, spoil, int(at)))
    print(f"chars: {len(found)} places of the {split} parts; relu neurons that are off: {100 * np.mean(off):.0f} % of all in a step")
    return {"off": float(np.mean(off)), "relevance": told("chars, relevance", np.stack(found))}


def speed() -> dict[str, object]:
    """Ask for both, in turn."""
    clip = np.random.default_rng(0).normal(0, 0.3, (WINDOW, 20, 3)).cumsum(0).clip(-2, 2).round(4).tolist()
    bodies = {
        "predict": ("/predict", {"model": "action", "sequences": [clip]}),
        "explain": ("/explain", {"model": "action", "sequence": clip, "label": "wave"}),
        "explain a text": ("/explain", {"model": "chars", "sequence": "It was late, and he " * (WINDOW // 20), "label": "w"}),
    }
    taken: dict[str, list[float]] = {name: [] for name in bodies}
    with service() as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        for call in range(CALLS + 10):
            for name, (route, body) in bodies.items():
                content = json.dumps(body).encode()
                begun = time.perf_counter()
                client.post(route, content=content, headers={"content-type": "application/json"}).raise_for_status()
                if call >= 10:
                    taken[name].append(1000 * (time.perf_counter() - begun))
    p50 = {name: statistics.median(times) for name, times in taken.items()}
    times = p50["explain"] / p50["predict"]
    print(f"{WINDOW} steps, p50 of {CALLS}: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in p50.items()))
    print(f"/explain is {times:.2f} times /predict (bar {BAR:g}): {'met' if times <= BAR else 'missed'}")
    return {"p50_ms": p50, "times": times, "met": times <= BAR}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="speed, action, chars; all where none is named")
    parser.add_argument("--split", choices=("test", "val"), default="test")
    args = parser.parse_args()
    ways: dict[str, Callable[[], dict[str, object]]] = {
        "speed": speed,
        "action": lambda: action(args.split),
        "chars": lambda: chars(args.split),
    }
    found = {name: ways[name]() for name in (args.what or ways)}
    print(json.dumps({"cores": os.cpu_count(), "onnxruntime": ort.__version__, "split": args.split, **found}))


if __name__ == "__main__":
    main()
