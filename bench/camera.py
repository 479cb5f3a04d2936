"""What does a camera cost that sees no depth, or estimates it?

INDRNN_DATA=... python bench/camera.py [--split test|train] [--every N]

There is no recorded camera here, so recorded skeletons are made into what one would tell: UTD-MHAD's joints become MediaPipe's 33
landmarks, and these lose what a camera loses, one thing at a time. Asked through POST /predict, as the live page's camera asks; whole
clips. The split `train` is of people whom the bundle has learned from: it chooses, and is no figure. Each call on the test split is one
test evaluation of every row.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.server import service
from indrnn.frames.layouts import MEDIAPIPE33, UTD20

SUBJECTS = {"test": (2, 4, 6, 8), "train": (1, 3, 5, 7)}
AT_ONCE = 32  # clips of one request
SMOOTH = 0.9  # of an estimate's error, kept from frame to frame: trackers smooth, so errors drift rather than tremble
SEED = 0

Floats = NDArray[np.float64]
Change = Callable[[Floats, np.random.Generator], Floats]
"""Changes landmarks [T, 33, 3]; x, y and z as the model has them; NaN is one that is not seen."""


def landmarks(x: Floats) -> Floats:
    """Return frames [T, 20, 3] as the landmarks [T, 33, 3] of which the service makes them again, the trunk from its ends."""
    at = {name: x[:, i] for i, name in enumerate(UTD20)}

    def place(name: str) -> Floats:
        side = name.split()[0]
        if name in at:
            return at[name]
        if any(part in name for part in ("pinky", "index", "thumb")):
            return at[f"{side} hand"]
        if "heel" in name:
            return at[f"{side} ankle"]
        if "toe" in name:
            return 2 * at[f"{side} foot"] - at[f"{side} ankle"]
        return at["head"]

    return np.stack([place(name) for name in MEDIAPIPE33], 1)


HIPS = [MEDIAPIPE33.index(f"{side} hip") for side in ("left", "right")]
LEGS = [i for i, name in enumerate(MEDIAPIPE33) if any(part in name for part in ("knee", "ankle", "heel", "toe"))]


def from_hips(x: Floats) -> Floats:
    """Measure from the middle of the hips, as MediaPipe's landmarks of the world are."""
    return x - x[:, HIPS].mean(1, keepdims=True)


def placed(x: Floats) -> Floats:
    """Measure depth from the hips, and the rest as the live page does: where the hips are in the picture says how they move."""
    moved = x.copy()
    moved[..., 2] = from_hips(x)[..., 2]
    return moved


def deep(share: float) -> Change:
    """Tell a share of the depth."""
    return lambda x, _: placed(x) * np.array([1, 1, share])


def drifting(metres: float) -> Change:
    """Estimate each landmark's depth with an error that drifts."""

    def change(x: Floats, rng: np.random.Generator) -> Floats:
        fresh = rng.normal(0, metres, x.shape[:2])
        error = fresh.copy()
        for t in range(1, len(x)):
            error[t] = SMOOTH * error[t - 1] + np.sqrt(1 - SMOOTH**2) * fresh[t]
        made = placed(x)
        made[..., 2] += error
        return made

    return change


def trembling(metres: float) -> Change:
    """Have every landmark tremble in every direction."""
    return lambda x, rng: placed(x) + rng.normal(0, metres, x.shape)


def without_legs(x: Floats, _: np.random.Generator) -> Floats:
    """See nothing below the hips, as a camera on a desk."""
    made = placed(x)
    made[:, LEGS] = np.nan
    return made


ROWS: dict[str, Change | None] = {
    "as recorded, 20 joints": None,
    "33 landmarks": lambda x, _: x,
    "33 landmarks, all measured from the hips": lambda x, _: from_hips(x),
    "depth alone measured from the hips, as in all rows below": lambda x, _: placed(x),
    "half of the depth": deep(0.5),
    "no depth": deep(0.0),
    "depth off by 5 cm": drifting(0.05),
    "depth off by 10 cm": drifting(0.10),
    "depth off by 20 cm": drifting(0.20),
    "every landmark trembles by 1 cm": trembling(0.01),
    "every landmark trembles by 3 cm": trembling(0.03),
    "no legs in the picture": without_legs,
}


def clips_of(split: str) -> tuple[list[Floats], list[str]]:
    """Return clips and labels of a split."""
    path = Path(os.environ.get("INDRNN_DATA", "data")) / "skeleton" / "utd_mhad.npz"
    if not path.is_file():
        raise SystemExit(f"needs {path} (set INDRNN_DATA)")
    with np.load(path) as d:
        chosen = np.flatnonzero(np.isin(d["subject"], SUBJECTS[split]))
        return [d["x"][d["off"][i] : d["off"][i + 1]].astype(np.float64) for i in chosen], [str(d["classes"][d["y"][i]]) for i in chosen]


def sent(clip: Floats, change: Change | None, rng: np.random.Generator) -> list[Any]:
    """Return a clip as the camera sends it: y down, x to the right of the picture; None for a landmark that is not seen."""
    if change is None:
        rows: list[Any] = clip.round(5).tolist()
        return rows
    seen = change(landmarks(clip), rng) * np.array([-1, -1, 1])
    told: list[Any] = seen.round(5).tolist()
    return [[None if place[0] != place[0] else place for place in frame] for frame in told]


def asked(client: httpx.Client, clips: list[Any], labels: list[str], options: dict[str, str]) -> tuple[float, float]:
    """Return the shares, in %, of clips that are right by the highest score, and by the label shown."""
    best = shown = 0
    for at in range(0, len(clips), AT_ONCE):
        reply = client.post("/predict", json={"sequences": clips[at : at + AT_ONCE], "model": "action", **options})
        reply.raise_for_status()
        for said, label in zip(reply.json()["predictions"], labels[at : at + AT_ONCE], strict=True):
            best += said["top"][0]["label"] == label
            shown += said["label"] == label
    return 100 * best / len(clips), 100 * shown / len(clips)


def main() -> None:
    """Ask about each row, and print what is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=sorted(SUBJECTS), default="train")
    parser.add_argument("--every", type=int, default=1, help="take every Nth clip")
    args = parser.parse_args()
    clips, labels = (found[:: args.every] for found in clips_of(args.split))
    figures = {}
    with service() as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=300) as client:
        print(f"{len(clips)} clips of subjects {', '.join(map(str, SUBJECTS[args.split]))}: right by the highest score, by the label, %")
        for name, change in ROWS.items():
            rng = np.random.default_rng(SEED)
            options = {} if change is None else {"layout": "mediapipe33", "axes": "-x -y z"}
            figures[name] = asked(client, [sent(clip, change, rng) for clip in clips], labels, options)
            print(f"{figures[name][0]:8.1f} {figures[name][1]:8.1f}   {name}", flush=True)
    print(json.dumps({"camera": {name: [round(v, 2) for v in both] for name, both in figures.items()}}))


if __name__ == "__main__":
    main()
