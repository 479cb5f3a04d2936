"""What a held-out part costs `indrnn train skeleton` in accuracy: one file trained on with none, a tenth and a fifth of it held out.

python bench/held.py [--steps 300] [--seeds 1] [--only florence3d ...] [--file JSON]

No clip that a published protocol tests on is read: of each set's own training clips those of a third of the people are left out to judge
by, and the held part is taken of the others. A run keeps its last weights, so what is held out chooses nothing here. Runs are kept in the
file, a line each, and are not made again; the last line is JSON: set, held part, clips learned from, and of the judged clips the share of
those named right, whole and joined to streams.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from bench.runs import Row, once
from indrnn.model.data import clips, vocabulary
from indrnn.model.data.sets import find
from indrnn.model.data.splits import pick
from indrnn.model.training.checkpoint import load_trained
from indrnn.model.training.measure import clip_accuracy, stream_accuracy
from indrnn.model.training.source import Source

HELD = ("none", "fold=1/10", "fold=1/5")
JUDGED = "fold=1/3"


def training_part(member: vocabulary.Member, folder: Path) -> Path:
    """Write the clips of a set that its protocol does not test on into a folder -> the file."""
    with np.load(find(member.file)) as found:
        arrays = dict(found)
    off = arrays.pop("off").tolist()
    all_clips = clips.read(member.file).clips
    kept = {id(c) for c in pick(all_clips, member.test)[0]}
    rows = [i for i, c in enumerate(all_clips) if id(c) in kept]
    made = {name: a[rows] if a.shape[:1] == (len(all_clips),) else a for name, a in arrays.items() if name not in ("x", "test")}
    made["x"] = np.concatenate([arrays["x"][off[i] : off[i + 1]] for i in rows])
    made["off"] = np.cumsum([0, *(off[i + 1] - off[i] for i in rows)])
    path = folder / Path(member.file).name
    np.savez(path, **made)
    return path


def run(file: Path, member: vocabulary.Member, held: str, steps: int, seed: int) -> Row:
    """Train once and judge."""
    layout = ("--layout", member.layout) if member.layout else ()
    out = file.parent / f"{file.stem} {held.replace('/', ' of ')} {seed}"
    words = ["train", "skeleton", str(file), "--test", JUDGED, "--held", held, *layout, "--steps", str(steps), "--decay", str(steps // 2)]
    began = time.monotonic()
    command = [sys.executable, "-m", "indrnn", *words, "--seed", str(seed), "--validate-every", "1000", "--no-progress", "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    net, _ = load_trained(out / "model.pt")
    source = Source(str(file), JUDGED, held, member.layout)
    found = source.read()
    learned, _, judged = source.split(found.clips)
    whole = clip_accuracy(net, judged)[1.0]
    return {
        "learned from": len(learned),
        "judged": len(judged),
        "whole": round(100 * whole, 1),
        "joined": round(100 * stream_accuracy(net, judged), 1),
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    """Run as the command line says."""
    words = vocabulary.read()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=list(words.sets), default=list(words.sets))
    parser.add_argument("--file", type=Path)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {name: training_part(words.sets[name], Path(folder)) for name in asked.only}
        for seed in asked.seeds:
            for name, file in files.items():
                for held in HELD:
                    key = {"set": name, "held": held, "steps": asked.steps, "seed": seed}
                    rows.append(once(asked.file, key, partial(run, file, words.sets[name], held, asked.steps, seed)))
                    print(" ".join(f"{value!s:12}" for value in rows[-1].values()), flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
