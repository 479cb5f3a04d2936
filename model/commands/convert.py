"""`indrnn convert IN … OUT.npz`: recordings of other tools become a file of clips, and what was understood of them is shown.

Joints, order, unit, rate, axes, persons, and a picture of one frame, in the terminal or as an SVG: that is where a wrong axis shows.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indrnn.frames.rate import HZ_RANGE
from indrnn.model.data import bodies
from indrnn.model.data.formats import understood
from indrnn.model.data.formats.recording import FormatError, Recording
from indrnn.model.data.formats.table import FORMATS, read
from indrnn.model.data.formats.understood import Stated, Understood
from indrnn.ranges import within

WIDTH, HEIGHT = 30, 20  # characters of a view; one is twice as high as wide
VIEWS = (("from the front", 0), ("from the side", 2))

Body = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `convert`."""
    parser.add_argument("recordings", type=Path, nargs="+", metavar="IN", help="files, or folders of them, of one layout")
    parser.add_argument("out", type=Path, metavar="OUT.npz", help="the file of clips to write")
    parser.add_argument("--format", choices=list(FORMATS), help="what the files are; default: told from each")
    parser.add_argument(
        "--layout", help="order of the joints, a name of docs/skeletons.md; default: what the format or the joints' names say"
    )
    parser.add_argument(
        "--unit", help="m, cm, mm, in, ft, px, or metres in one unit; default: what the format says, or told from the bodies"
    )
    parser.add_argument(
        "--axes", help="where x, y (up) and z lie in the files, as '-x -y z'; write --axes=…; default: told from head and hips"
    )
    parser.add_argument("--hz", type=within(float, *HZ_RANGE, most_too=True), help="frames a second; default: what the files say, else 30")
    parser.add_argument("--persons", type=within(int, 1), help="persons of a frame that are kept; default: as many as there are, at most 2")
    parser.add_argument(
        "--label",
        metavar="PATTERN",
        help="expression for a path with groups label, subject, view: '(?P<label>[a-z]+)_s(?P<subject>[0-9]+)'",
    )
    parser.add_argument("--lost", choices=["zero"], help="a joint at exactly 0 on all axes was not seen")
    parser.add_argument("--svg", type=Path, help="write the picture there, with the joints' names, in place of drawing it with letters")
    parser.add_argument("--force", action="store_true", help="replace OUT.npz if it exists")


def run(args: argparse.Namespace) -> None:
    """Reads args.recordings, writes args.out and prints what was understood. Raises FormatError, OSError."""
    if args.out.suffix != ".npz":
        raise FormatError(f"{args.out}: expected a file to write that ends in .npz")
    if args.out.exists() and not args.force:
        raise FormatError(f"{args.out} exists: --force replaces it")
    for path in args.recordings:
        if not path.exists():
            raise FormatError(f"{path}: there is no such file or folder")
    found, met = read(args.recordings, args.format, args.persons or 2, args.label)
    if args.persons is None:
        found = _as_many_as_there_are(found)
    told = understood.understand(found, Stated(args.layout, args.unit, args.axes, args.hz, args.lost == "zero"))
    with args.out.open("wb") as file:
        np.savez_compressed(file, **told.arrays)  # type: ignore[arg-type]
    print("\n".join(said(told, ", ".join(FORMATS[name].told for name in met))))
    body = _shown(told.x)
    if body is None:
        print("\nno frame shows a whole body")
        return
    bones = _bones(told)
    if args.svg is None:
        print("\n" + "\n".join(drawn(body, bones)))
    else:
        args.svg.write_text(svg(body, bones, told.names), encoding="utf-8")
        print(f"picture  {args.svg}")
    print(f"\n{args.out}: indrnn train skeleton {args.out}")


def _as_many_as_there_are(found: Sequence[Recording]) -> list[Recording]:
    """Return the recordings without seats that nobody takes in any of them."""
    P = max(1, *(int((np.nan_to_num(r.x) != 0).any((0, 2, 3)).nonzero()[0].max(initial=0)) + 1 for r in found))
    return [dataclasses.replace(r, x=r.x[:, :P]) for r in found]


def said(told: Understood, formats: str) -> list[str]:
    """Return the lines that say what was understood."""
    return [f"read     {formats}", *(f"{what:8} {words}" for what, words in told.lines), *(f"note     {n}" for n in told.notes[:12])] + (
        [f"note     and {len(told.notes) - 12} more"] if len(told.notes) > 12 else []
    )


def _shown(x: NDArray[np.float64]) -> Body | None:
    """Return the body [J, D] of the frame nearest to the middle of which most is seen; None where none has two joints."""
    seen = (~np.isnan(x).any(-1) & (x != 0).any(-1)).sum(-1)[:, 0]
    if not len(seen) or seen.max() < 2:
        return None
    best = np.flatnonzero(seen == seen.max())
    body: Body = x[best[np.argmin(np.abs(best - len(x) // 2))], 0]
    return body


def _bones(told: Understood) -> list[tuple[int, int]]:
    x = told.x[:, 0]
    whole = x[~np.isnan(x).any((1, 2)) & x.any((1, 2))]
    if not len(whole):
        return []
    if whole.shape[-1] == 2:
        whole = np.concatenate([whole, np.zeros_like(whole[..., :1])], -1)
    body = bodies.of(told.names, whole.astype(np.float32))
    return [(j, p) for j, p in enumerate(body.parents) if j != p]


def _scale(body: Body) -> tuple[Body, float]:
    """Return the body from its middle, and half of what its largest extent takes."""
    seen = body[~np.isnan(body).any(1)]
    middle = (seen.min(0) + seen.max(0)) / 2
    return body - middle, float((seen.max(0) - seen.min(0)).max() / 2) or 1.0


def drawn(body: Body, bones: Sequence[tuple[int, int]]) -> list[str]:
    """Return the lines of the picture: o a joint, · a bone, y up, x to the right; of three dimensions a second view with z to the right."""
    moved, half = _scale(body)
    panes = []
    for title, across in VIEWS[: body.shape[1] - 1]:
        grid = [[" "] * WIDTH for _ in range(HEIGHT)]

        def cell(p: Body, across: int = across) -> tuple[int, int]:
            return round((1 - p[1] / half) / 2 * (HEIGHT - 1)), round(WIDTH / 2 + p[across] / half * (HEIGHT - 1))

        for j, k in bones:
            if np.isnan(moved[[j, k]]).any():
                continue
            for part in np.linspace(0, 1, 2 * HEIGHT):
                row, column = cell(moved[j] + (moved[k] - moved[j]) * part)
                if 0 <= column < WIDTH:
                    grid[row][column] = "."
        for p in moved[~np.isnan(moved).any(1)]:
            row, column = cell(p)
            if 0 <= column < WIDTH:
                grid[row][column] = "o"
        panes.append([f"{title:{WIDTH}}", *("".join(row) for row in grid)])
    return ["   ".join(rows).rstrip() for rows in zip(*panes, strict=True)]


def svg(body: Body, bones: Sequence[tuple[int, int]], names: Sequence[str]) -> str:
    """Return the picture as an SVG: each joint with its number and, where the pointer rests, its name."""
    moved, half = _scale(body)
    size, parts = 400, []
    for i, (title, across) in enumerate(VIEWS[: body.shape[1] - 1]):

        def at(p: Body, across: int = across, i: int = i) -> tuple[float, float]:
            scale = (size / 2 - 40) / half
            return round(size * (i + 0.5) + p[across] * scale, 1), round(size / 2 - p[1] * scale, 1)

        parts.append(f'<text x="{size * i + 10}" y="20">{title}</text>')
        for j, k in bones:
            if not np.isnan(moved[[j, k]]).any():
                (x1, y1), (x2, y2) = at(moved[j]), at(moved[k])
                parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#999"/>')
        for j, name in enumerate(names):
            if not np.isnan(moved[j]).any():
                x, y = at(moved[j])
                said = name.replace("&", "&amp;").replace("<", "&lt;")
                parts.append(f'<circle cx="{x}" cy="{y}" r="4"><title>{j}: {said}</title></circle><text x="{x + 6}" y="{y - 4}">{j}</text>')
    width = size * len(VIEWS[: body.shape[1] - 1])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{size}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>"]) + "\n"
