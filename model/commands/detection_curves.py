"""`indrnn evaluate CHECKPOINT --curves FOLDER`: what a network that detects is worth over its threshold, as numbers and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path

from indrnn.model.detection.figures import Worth, as_json


def write(folder: Path, split: str, points: Sequence[Worth], on: float) -> tuple[Path, Path]:
    """Write folder/SPLIT.json and folder/SPLIT.svg and return their paths. on: the network's own threshold, a line in the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, picture = folder / f"{split}.json", folder / f"{split}.svg"
    numbers.write_text(json.dumps({"split": split, "on": on, "points": as_json(points)}, indent=1) + "\n")
    import matplotlib  # a second's import, for this alone

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "indrnn"  # the same curves give the same file
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    ons = [p.on for p in points]
    for name, label in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
        left.plot(ons, [getattr(p, name) for p in points], label=label, linewidth=1.2)
    left.set(xlabel="threshold `on`", ylabel="within 0.333 s of the mark", ylim=(0, 1))
    for name, label in (("false_alarms", "false alarms a minute"), ("delay_p50", "delay p50, frames"), ("delay_p90", "delay p90, frames")):
        right.plot(ons, [getattr(p, name) for p in points], label=label, linewidth=1.2)
    right.set(xlabel="threshold `on`", ylim=(-12, 20))
    for axes in (left, right):
        axes.axvline(on, color="0.5", linewidth=0.8, linestyle="--")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.2)
    figure.savefig(picture, metadata={"Date": None})
    pyplot.close(figure)
    return numbers, picture
