"""Azure Kinect body tracking as JSON, as its sample offline_processor writes it: 32 joints of each body in millimetres of the camera."""

from pathlib import Path
from typing import Any

from indrnn.model.data.formats.recording import NEAR, FormatError, Recording, load_json, numbers, rate_of, seats

JOINTS = 32


def is_one(told: Any) -> bool:
    """Return whether what a JSON file holds is a recording of this kind."""
    frames = told.get("frames") if isinstance(told, dict) else None
    return isinstance(frames, list) and any(isinstance(f, dict) and "bodies" in f for f in frames)


def read(path: Path, persons: int) -> list[Recording]:
    """Return the one clip of a file. Raises FormatError."""
    told = load_json(path)
    if not is_one(told):
        raise FormatError(f"{path}: expected frames with bodies, as Azure Kinect's offline_processor writes them")
    frames = [f for f in told["frames"] if isinstance(f, dict)]
    bodies, ids = [], []
    for frame in frames:
        listed = frame.get("bodies")
        found = [b for b in listed if isinstance(b, dict)] if isinstance(listed, list) else []
        bodies.append([numbers(b.get("joint_positions"), (JOINTS, 3), path, "joint_positions") for b in found])
        ids.append([b.get("body_id") if isinstance(b.get("body_id"), int | str) else None for b in found])
    if not any(bodies):
        raise FormatError(f"{path}: expected bodies, got nobody in any of {len(frames)} frames")
    x, left_over = seats(bodies, persons, ids, NEAR * 1000)
    notes = (f"{left_over:,} bodies beside the {persons} of a frame are left out (--persons takes more)",) if left_over else ()
    times = [f["timestamp_usec"] for f in frames if "timestamp_usec" in f]
    hz, said = rate_of(times, "timestamp_usec") if times else (None, [])
    return [Recording(x, path.stem, order="azure32", hz=hz, unit="mm", notes=(*notes, *said))]
