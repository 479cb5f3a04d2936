"""Uncut skeleton streams with marked motions as they lie in a file: what detection is learned from.

A file is one of clips (model/data/clips.py) whose clips are whole streams, with the motions in place of `y`: `event_stream` [E] (which
stream), `event_label` [E] (its class, from 0), and `event_point` [E], the frame of its mark within its stream, or `event_start` and
`event_end` [E], its first frame and the frame after its last. Motions may come in any order, and a stream may have none.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indrnn.model.data.clips import Clip, ClipFileError, ClipSet, clip_set, load
from indrnn.model.data.formats import npz

NOTHING = "nothing"  # class 0, of all frames without a mark; the file's classes come after it


@dataclass(frozen=True)
class MarkedMotion:
    """A marked motion of a stream: its class, 1 and more, and the frame by which it shall be told."""

    label: int
    point: int


@dataclass(frozen=True)
class MarkedStream(Clip):
    """A stream x [T, P, J, 3] metres with its events in the order of their marks; its label is 0, nothing."""

    events: tuple[MarkedMotion, ...] = ()


def read(file: str | Path, unit: float | None = None, mark: float = 0.5) -> ClipSet:
    """Read every stream of a file; a name is looked for under INDRNN_DATA, a path is taken as it is. The first class is NOTHING.

    unit: as in clips.read. mark: the part of an interval after which its motion is marked, where the file has intervals alone. Raises
    DataMissingError, ClipFileError.
    """
    return stream_set(*load(file), unit, mark)


def stream_set(arrays: dict[str, Any], title: str, unit: float | None = None, mark: float = 0.5) -> ClipSet:
    """Read the streams from the arrays of a file; title is what errors call it. Raises ClipFileError."""
    off = npz.whole(np.asarray(arrays.get("off", ())))
    N = len(off) - 1 if off is not None and off.size else 0  # clip_set says of any other what is expected
    labels = _column(arrays, "event_label", None, title)
    given = {} if "classes" in arrays else {"classes": np.array([str(k) for k in range(int(labels.max(initial=0)) + 1)])}
    found = clip_set({**arrays, "y": np.zeros(N, np.int64), **given}, title, unit)
    if NOTHING in found.classes:
        raise ClipFileError(f"{title}: classes: {NOTHING!r} is what frames without a motion are called: expected the motions alone")
    events = _events(arrays, labels, [len(c.x) for c in found.clips], len(found.classes), mark, title)
    streams: list[Clip] = []
    for i, c in enumerate(found.clips):
        told = {f.name: getattr(c, f.name) for f in fields(Clip)}
        own = sorted((e for s, e in events if s == i), key=lambda e: e.point)
        streams.append(MarkedStream(**told, events=tuple(own)))
    return ClipSet(streams, (NOTHING, *found.classes), found.joint_names, found.hz, found.unit, found.flat)


def _events(
    arrays: dict[str, Any], labels: NDArray[np.int64], lengths: list[int], classes: int, mark: float, title: str
) -> list[tuple[int, MarkedMotion]]:
    """Return each event with the number of its stream."""
    E = len(labels)
    stream = _column(arrays, "event_stream", E, title)
    if E and (stream.min() < 0 or stream.max() >= len(lengths)):
        raise ClipFileError(f"{title}: event_stream: expected streams 0..{len(lengths) - 1}, got {stream.min()}..{stream.max()}")
    if E and (labels.min() < 0 or labels.max() >= classes):
        raise ClipFileError(f"{title}: event_label: expected classes 0..{classes - 1}, got {labels.min()}..{labels.max()}")
    if "event_point" in arrays:
        point, name = _column(arrays, "event_point", E, title), "event_point"
    elif "event_start" in arrays and "event_end" in arrays:
        start, end = (_column(arrays, n, E, title) for n in ("event_start", "event_end"))
        if (bad := np.flatnonzero(end <= start)).size:
            raise ClipFileError(f"{title}: event_end[{bad[0]}]: expected more than event_start, {start[bad[0]]}, got {end[bad[0]]}")
        point, name = start + np.floor(mark * (end - 1 - start)).astype(np.int64), "event_start and event_end"
    else:
        raise ClipFileError(f"{title}: expected an array event_point, or event_start and event_end, found neither")
    ends = np.array(lengths)[stream] if E else stream
    if (bad := np.flatnonzero((point < 0) | (point >= ends))).size:
        i = bad[0]
        raise ClipFileError(f"{title}: {name}[{i}]: expected a frame of stream {stream[i]}, 0..{ends[i] - 1}, got {point[i]}")
    return [(int(s), MarkedMotion(int(k) + 1, int(p))) for s, k, p in zip(stream, labels, point, strict=True)]


def _column(arrays: dict[str, Any], name: str, size: int | None, title: str) -> NDArray[np.int64]:
    if name not in arrays:
        expected = "event_stream, event_label and event_point (or event_start and event_end)"
        raise ClipFileError(f"{title}: expected streams with marked motions, arrays {expected}, found no {name}")
    a = np.asarray(arrays[name])
    found = npz.whole(a, size)
    if found is None:
        many = "whole numbers [E]" if size is None else f"{size} whole numbers, one a motion"
        raise ClipFileError(f"{title}: {name}: expected {many}, got {a.dtype} {a.shape}")
    return found
