"""`indrnn inspect BUNDLE`: what neurons remember, read off their recurrent weights, as numbers and as pictures.

A bundle or a checkpoint; of one of the adding problem also what its neurons do (model/commands/inspect_adding.py).
Without input a neuron's state falls as |u|^k. Its memory is the horizon k at which that falls under 1/2 (Li et al., 2019, figure 5, shows
the histograms of U of the papers' networks).
"""

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indrnn.model.commands import inspect_adding
from indrnn.model.nets.adding import AddingNet
from indrnn.model.nets.network import StateNet
from indrnn.model.training import checkpoint

BINS = 40
HORIZONS = (1, 3, 10, 30, 100, 300)  # steps; the table counts the neurons that remember longer


_FIGURE = {"name", "value"}


class ManifestError(Exception):
    """There are no neurons to be read; the message says what was expected and what came."""


def memory(u: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Return steps k after which |u|^k < 1/2, the least such k, per neuron; infinity for |u| >= 1."""
    size = np.abs(np.asarray(u, np.float64))
    with np.errstate(divide="ignore"):
        exact = np.log(0.5) / np.log(np.minimum(size, 1.0))
    k = np.floor(exact) + 1.0
    k = np.where(size == 0, 1.0, k)
    return np.where(size >= 1, np.inf, np.maximum(k, 1.0))


def layer(part: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of one part of a manifest's state with recurrent weights."""
    u = np.asarray(part["u"], np.float64)
    k = memory(u)
    counts, edges = np.histogram(u, BINS, (min(-1.0, float(u.min())), max(1.0, float(u.max()))))
    low, median, high = np.quantile(u, [0, 0.5, 1])
    name = f"layer {part['layer'] + 1}" if part["role"] == "hidden" else part["role"]
    return {
        "name": name,
        "neurons": len(u),
        "u_min": float(low),
        "u_median": float(median),
        "u_max": float(high),
        "negative": float((u < 0).mean()),
        "memory_median": float(np.median(k)),
        "memory_max": float(k.max()),
        "longer_than": {str(h): int((k > h).sum()) for h in HORIZONS},
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        "memory": k.tolist(),
    }


def read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], StateNet | None]:
    """The parts of the state that have recurrent weights, the figures, and the network, of a bundle's folder (no network) or a checkpoint.

    Raises ManifestError, and CheckpointError as model.checkpoint.load does.
    """
    net: StateNet | None = None
    if path.is_file():
        net, meta = checkpoint.load(path)
        every, figures, cell = [dataclasses.asdict(p) for p in meta.parts], list(meta.figures), meta.cell
    else:
        try:
            manifest = json.loads((path / "manifest.json").read_bytes())
            every, figures = [dict(p) for p in manifest["state"]], list(manifest.get("figures", ()))
            cell = manifest.get("cell", "indrnn")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            said = f"{path}: expected a checkpoint, or a bundle, a folder with manifest.json and model.onnx; got {_found(path, error)}"
            raise ManifestError(said) from error
    parts = [p for p in every if p.get("u")]
    if not all(_has_weights(p) for p in parts) or not all(isinstance(f, dict) and _FIGURE <= set(f) for f in figures):
        raise ManifestError(f"{path}: expected parts of the state with role, layer and u, finite numbers, and figures with name and value")
    if not parts:
        raise ManifestError(
            f"{path}: expected parts of the state with recurrent weights, one for each neuron, found none: its cell is {cell}"
        )
    return parts, figures, net


def _has_weights(part: dict[str, Any]) -> bool:
    try:
        u = np.asarray(part["u"], np.float64)
        return u.ndim == 1 and bool(np.isfinite(u).all()) and (part["role"] != "hidden" or isinstance(part["layer"], int))
    except (KeyError, TypeError, ValueError):
        return False


def _found(path: Path, error: Exception) -> str:
    """Return what there is in place of a bundle."""
    if not path.exists():
        return "nothing: there is no such file or folder"
    if not (path / "manifest.json").exists():
        bundles = sorted(p.parent for p in (*path.glob("*/manifest.json"), *path.glob("*/*/manifest.json")))
        return "a folder without manifest.json" + (f"; in it there is {bundles[0]}" if bundles else "")
    if isinstance(error, KeyError):
        return f"a manifest.json without {error}"
    return f"a manifest.json that is none: {error}"


def curves(figures: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Accuracies by the share of places lost (%) and by the camera's rate (Hz): what -> split -> points (x, %), x rising."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for f in figures:
        if told := re.fullmatch(r"(val|test)_accuracy_(lost|hz)_([0-9.]+)", f["name"]):
            found.setdefault(told[2], {}).setdefault(told[1], []).append((float(told[3]), float(f["value"])))
        elif told := re.fullmatch(r"(val|test)_accuracy_100", f["name"]):  # nothing lost
            found.setdefault("lost", {}).setdefault(told[1], []).append((0.0, float(f["value"])))
    return {what: {split: sorted(points) for split, points in splits.items()} for what, splits in found.items()}


def run(path: Path, out: Path | None, as_json: bool = False, length: int = inspect_adding.LENGTH) -> dict[str, Any]:
    """Prints what was found as tables or as JSON; writes recurrent_weights.png and memory.png below out.

    Where there are accuracies with joints lost or at other rates, robustness.png too; of an IndRNN for the adding problem what
    model/commands/inspect_adding.py draws, one neuron's read-out for sequences of `length` steps among it.
    """
    parts, figures, net = read(path)
    layers = [layer(p) for p in parts]
    told: dict[str, Any] = {
        "layers": [x | {"memory": [*map(_number, x["memory"])], "memory_max": _number(x["memory_max"])} for x in layers]
    }
    lines = [table(layers)]
    title = path.stem if path.is_file() else f"{path.resolve().parent.name} {path.resolve().name}"
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(layers, title, out)
        found = curves(figures)
        if "lost" in found and "hz" in found:
            draw_curves(found, title, out)
    if isinstance(net, AddingNet):
        seen = inspect_adding.inspect(net, length, out)
        told["adding"] = inspect_adding.told(seen)
        lines.append(inspect_adding.said(seen))
    print(json.dumps(told) if as_json else "\n\n".join(lines))
    return told


def table(layers: Sequence[dict[str, Any]]) -> str:
    """Return a line for each layer, for people."""
    heads = ["", "neurons", "u least", "median", "largest", "u < 0", "memory", "longest", *(f"> {h}" for h in HORIZONS)]
    rows = [heads]
    for x in layers:
        u = (f"{x[k]:.3f}" for k in ("u_min", "u_median", "u_max"))
        ends = (_steps(x[k]) for k in ("memory_median", "memory_max"))
        rows.append([x["name"], x["neurons"], *u, f"{100 * x['negative']:.0f} %", *ends, *x["longer_than"].values()])
    return "\n".join("".join(f"{c!s:>9}" for c in row) for row in rows)


def _steps(k: float) -> str:
    return "for ever" if math.isinf(k) else f"{k:g}"


def _number(k: float) -> float | None:
    """JSON has no infinity: None is for ever."""
    return None if math.isinf(k) else k


def draw(layers: Sequence[dict[str, Any]], title: str, out: Path) -> None:
    """Draw two pictures below out: each layer's histogram of U, and each layer's neurons by their memory."""
    from matplotlib.figure import Figure

    across = min(3, len(layers))
    down = math.ceil(len(layers) / across)
    picture = Figure((4 * across, 2.6 * down), layout="constrained")
    cells = picture.subplots(down, across, squeeze=False).flatten()
    for empty in cells[len(layers) :]:
        empty.remove()
    for axes, x in zip(cells, layers, strict=False):
        axes.stairs(x["histogram"]["counts"], x["histogram"]["edges"], fill=True)
        axes.set(title=x["name"], xlabel="u", ylabel="neurons")
    picture.suptitle(f"{title}: recurrent weights")
    picture.savefig(out / "recurrent_weights.png")
    picture = Figure((7, 4), layout="constrained")
    axes = picture.subplots()
    for x in layers:
        k = np.sort([10_000.0 if math.isinf(m) else m for m in x["memory"]])
        axes.plot(k, np.linspace(0, 1, len(k)), drawstyle="steps-post", label=x["name"])
    axes.set(xscale="log", xlabel="memory, steps until u^k < 1/2", ylabel="share of neurons with at most that", title=f"{title}: memory")
    axes.legend()
    picture.savefig(out / "memory.png")


def draw_curves(found: dict[str, dict[str, list[tuple[float, float]]]], title: str, out: Path) -> None:
    """Draw robustness.png below out: accuracy over lost places and over the camera's rate."""
    from matplotlib.figure import Figure

    picture = Figure((8, 3.2), layout="constrained")
    words = {"lost": "places of joints lost, %", "hz": "frames a second of the camera"}
    for axes, (what, label) in zip(picture.subplots(1, 2, sharey=True), words.items(), strict=True):
        for split, points in found[what].items():
            axes.plot(*zip(*points, strict=True), marker="o", label=split)
        axes.set(xlabel=label, ylabel="whole clips answered rightly, %")
        axes.legend()
    picture.suptitle(title)
    picture.savefig(out / "robustness.png")
