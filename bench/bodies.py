"""How often nonsense is taken for a body, and a body for nonsense: what frames/anatomy.py says of recordings and of what is made of them.

python bench/bodies.py [--every 3] [--model bundles/action/1]

Every clip of five recorded sets is read as the service reads it, in its own order of joints, and then spoilt in each of the ways below. The
last line is JSON: per way and set the share of clips that are called `other` for what they show.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from indrnn.export.bundle import read
from indrnn.frames.layouts import ORDERS, UTD20, table
from indrnn.model.data.sets import find
from indrnn.service.engine.requests import Frames
from indrnn.service.engine.runtime import BodyWatch, ModelFacts, prepare
from indrnn.service.errors import OutOfRange
from indrnn.service.serving.skeleton import SkeletonModality

Clip = Any
Spoil = Callable[[Clip, np.random.Generator], Clip]

# file, order, frames a second, metres in the file's unit (HDM05's is told from the bodies, as training does)
SETS = {
    "UTD-MHAD": ("utd_mhad", "utd20", 30.0, 1.0),
    "NW-UCLA": ("nwucla", "kinect20", 30.0, 1.0),
    "MSR-Action3D": ("msraction3d", "msr20", 15.0, 1.0),
    "Florence 3D": ("florence3d", "florence15", 30.0, 1.0),
    "HDM05": ("hdm05", "hdm31", 30.0, 0.0237),
}


def shuffled(x: Clip, rng: np.random.Generator) -> Clip:
    return x[:, rng.permutation(x.shape[1])]


def long_arm(x: Clip, rng: np.random.Generator) -> Clip:
    """Return the clip with the right forearm 3 m long."""
    elbow, wrist, hand = (UTD20.index(f"right {j}") for j in ("elbow", "wrist", "hand"))
    y, way = x.copy(), x[:, wrist] - x[:, elbow]
    y[:, wrist] = y[:, hand] = y[:, elbow] + 3 * way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-6)
    return y


def breathing(x: Clip, rng: np.random.Generator) -> Clip:
    """Return the clip with all lengths going from half to one and a half and back."""
    middle = x.mean(1, keepdims=True)
    return middle + (x - middle) * (1 + np.sin(np.arange(len(x)) / 4) / 2)[:, None, None]


WAYS: dict[str, tuple[str, Spoil]] = {
    "y flipped": ("axes", lambda x, rng: x * [1, -1, 1]),
    "y and z swapped": ("axes", lambda x, rng: x[..., [0, 2, 1]]),
    "z up, right-handed": ("axes", lambda x, rng: np.stack([x[..., 0], -x[..., 2], x[..., 1]], -1)),
    "x and y swapped": ("axes", lambda x, rng: x[..., [1, 0, 2]]),
    "x flipped": ("axes", lambda x, rng: x * [-1, 1, 1]),
    "z flipped": ("axes", lambda x, rng: x * [1, 1, -1]),
    "x and y flipped": ("axes", lambda x, rng: x * [-1, -1, 1]),
    "joints shuffled": ("joints", shuffled),
    "kinect20 as utd20": ("joints", lambda x, rng: x[:, [3, 2, 1, 0, *range(4, 20)]]),
    "msr20 as utd20": ("joints", lambda x, rng: x[:, [UTD20.index(n) for n in ORDERS["msr20"].names]]),
    "centimetres": ("units", lambda x, rng: x * 100),
    "millimetres": ("units", lambda x, rng: x * 1000),
    "feet": ("units", lambda x, rng: x * 3.2808),
    "decimetres": ("units", lambda x, rng: x * 10),
    "kilometres": ("units", lambda x, rng: x / 1000),
    "places in a picture, 0 to 1": ("units", lambda x, rng: np.stack([x[..., 0] / 2 + 0.5, 0.5 - x[..., 1] / 2, 0 * x[..., 2]], -1)),
    "uniform noise, 0 to 1": ("noise", lambda x, rng: rng.uniform(0, 1, x.shape)),
    "uniform noise, -1 to 1": ("noise", lambda x, rng: rng.uniform(-1, 1, x.shape)),
    "normal noise, 3 m away": ("noise", lambda x, rng: rng.normal([0, 0, 3], 0.5, x.shape)),
    "one frame of noise, held": ("noise", lambda x, rng: np.repeat(rng.uniform(-1, 1, x[:1].shape), len(x), 0)),
    "all joints at one place": ("shape", lambda x, rng: np.repeat(x.mean(1, keepdims=True), x.shape[1], 1)),
    "a limb of 3 m": ("shape", long_arm),
    "lengths from half to one and a half": ("shape", breathing),
    "no depth": ("shape", lambda x, rng: x * [1, 1, 0]),
}


class Judge:
    """Says of a clip in the model's own order why it can be no body."""

    def __init__(self, folder: Path) -> None:
        self.manifest = read(folder).manifest
        self.modality = SkeletonModality(self.manifest, 100_000)
        self.facts = ModelFacts.of(self.manifest, 100_000)
        watch = BodyWatch.of(self.manifest)
        assert watch is not None, "the model says nothing of bodies"
        self.watch = watch

    def doubts(self, clip: Clip, hz: float, layout: str | None = None) -> tuple[str, ...]:
        """Return the checks that fail, or that it is out of range."""
        sent = [[None if np.isnan(j).any() else j.tolist() for j in frame] for frame in clip]
        if all(j is None for frame in sent for j in frame):
            return ()
        try:
            content: Frames = self.modality.read(sent, layout, hz, "clip")
        except OutOfRange:
            return ("range",)
        prepared = prepare(content, None, self.facts)
        if not len(prepared.x):
            return ()
        state, held = np.zeros((1, self.watch.graph_size), np.float32), bytes(4 * self.watch.size)
        _, _, (found,) = self.watch.look(prepared.x[None], np.array([len(prepared.x)]), state.tobytes(), held, [prepared.lost], state)
        return found


def clips(name: str) -> list[tuple[Clip, int]]:
    """Return a set's clips in metres and in their own order, each with its subject."""
    file, _, _, metres = SETS[name]
    with np.load(find(f"skeleton/{file}.npz")) as d:
        x, off, subject = d["x"].astype(np.float64) * metres, d["off"], d["subject"]
        return [(x[a:b], int(s)) for a, b, s in zip(off[:-1], off[1:], subject, strict=True)]


def own(x: Clip, order: str) -> Clip:
    """Return a clip in utd20's order, to be spoilt there; hands and feet that are not there stand at wrists and ankles."""
    return np.stack([x[:, list(sources)].mean(1) for sources in table(ORDERS[order], UTD20, near=True)], 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=3, help="spoil every n-th clip")
    parser.add_argument("--model", type=Path, default=Path("bundles/action/1"))
    args = parser.parse_args()
    judge, rng = Judge(args.model), np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    all_clips = {name: clips(name) for name in SETS}
    for half, kept in (("real, odd subjects", 1), ("real, even subjects", 0)):
        found[half] = {
            name: float(np.mean([bool(judge.doubts(x, SETS[name][2], SETS[name][1])) for x, s in all_clips[name] if s % 2 == kept]))
            for name in SETS
        }
    for way, (_, spoil) in WAYS.items():
        found[way] = {
            name: float(
                np.mean([bool(judge.doubts(spoil(own(x, SETS[name][1]), rng), SETS[name][2])) for x, _ in all_clips[name][:: args.every]])
            )
            for name in SETS
        }
    print(f"{'share called other, %':36}" + "".join(f"{name:>14}" for name in SETS))
    for what, shares in found.items():
        print(f"{what:36}" + "".join(f"{100 * share:14.1f}" for share in shares.values()))
    kinds = sorted({kind for kind, _ in WAYS.values()})
    mean = {kind: float(np.mean([list(found[w].values()) for w, (k, _) in WAYS.items() if k == kind])) for kind in kinds}
    print(json.dumps({"clips": {n: len(c) for n, c in all_clips.items()}, "every": args.every, "other": found, "mean": mean}))


if __name__ == "__main__":
    main()
