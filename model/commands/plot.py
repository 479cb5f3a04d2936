"""`indrnn plot`: how figures fell while networks were trained, from the log.txt of their runs, as one picture."""

import argparse
import re
from pathlib import Path

Curve = list[tuple[int, float]]


class CurveError(Exception):
    """A run has no such curve; the message names its folder and what there is."""


def read(folder: Path, name: str) -> Curve:
    """(step, value) pairs of the figure called `name` in folder/log.txt, in the order of the steps. Raises CurveError.

    A run that was killed and went on repeats some steps; the last line of a step counts.
    """
    try:
        lines = (folder / "log.txt").read_text().splitlines()
    except FileNotFoundError:
        raise CurveError(f"expected a run in {folder}, found no log.txt") from None
    except UnicodeDecodeError as error:
        raise CurveError(f"{folder / 'log.txt'}: expected lines of step, seconds and figures, got no text") from error
    pairs = [dict(re.findall(r"(\S+) (\S+)", line)) for line in lines]
    try:
        curve = {int(p["step"]): float(p[name]) for p in pairs if name in p}
    except (KeyError, ValueError) as error:
        raise CurveError(f"{folder / 'log.txt'}: expected lines of step, seconds and figures, got others") from error
    if not curve:
        names = sorted({key for p in pairs for key in p} - {"step"})
        raise CurveError(f"{folder}: expected figures called {name}, got {', '.join(names)}")
    return sorted(curve.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `plot`."""
    parser.add_argument("out", type=Path, help="picture to write, .svg or .png")
    parser.add_argument("runs", nargs="+", help="folders of runs, each with =LABEL if its name does not say enough")
    parser.add_argument("--figure", required=True, help="name in log.txt, e.g. val_error")
    parser.add_argument("--label", help="of the axis; default: the figure's name")
    parser.add_argument("--log", action="store_true", help="logarithmic axis")
    parser.add_argument("--level", action="append", default=[], metavar="VALUE=TEXT", help="a line to compare with; may be repeated")
    parser.add_argument("--title", default="", help="above the picture (default: none)")


def _level(text: str) -> tuple[float, str]:
    """Read a level from VALUE=TEXT. Raises CurveError."""
    value, _, label = text.partition("=")
    try:
        return float(value), label
    except ValueError:
        raise CurveError(f"expected --level VALUE=TEXT, got {text!r}") from None


def plot(args: argparse.Namespace) -> Path:
    """Writes the picture and returns its path. Raises CurveError."""
    curves = []
    for run in args.runs:
        folder, _, label = run.partition("=")
        curves.append((label or Path(folder).name, read(Path(folder), args.figure)))
    levels = [_level(text) for text in args.level]
    if args.out.suffix not in (".svg", ".png"):
        raise CurveError(f"expected a picture to write first, .svg or .png, got {args.out}")
    import matplotlib  # a second's import, for this command alone

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "indrnn"  # the same curves give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for label, curve in curves:
        axes.plot(*zip(*curve, strict=True), label=label, linewidth=1.2)
    for value, text in levels:
        axes.axhline(value, color="0.5", linewidth=0.8, linestyle="--")
        axes.annotate(text, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color="0.3")
    axes.set(xlabel="step", ylabel=args.label or args.figure, yscale="log" if args.log else "linear", title=args.title)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.2)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, metadata={"Date": None} if args.out.suffix == ".svg" else None)
    pyplot.close(figure)
    return Path(args.out)
