"""What numbers of a state can be, beyond finite ones: those that a type packs to, and counts.

What a state holds of a file's own types is packed into float32 (export/adopt/packing.py): whole numbers of 32 and 64 bits are 2 and 3
pieces of 22 bits, the last with the sign; a float64 is the sum of three float32; the others are float32 numbers as they are.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Manifest, Part

BITS = 22  # of a piece: less than the 24 that a float32 holds
PIECES = {
    "float32": 1, "float16": 1, "bool": 1, "int8": 1, "uint8": 1, "int16": 1, "uint16": 1,
    "int32": 2, "uint32": 2, "int64": 3, "float64": 3,
}  # fmt: skip
MOST_WHOLE = 2**24  # that a float32 counts to


class Bounds(NamedTuple):
    """What the numbers state[start : stop] can be.

    whole: whole numbers from least to most. float16: those that it holds. rest: what rounding leaves of as many numbers before them.
    """

    part: str
    start: int
    stop: int
    kind: Literal["whole", "float16", "rest"]
    least: int = 0
    most: int = 0

    def odd(self, states: NDArray[np.float32]) -> tuple[int, str] | None:
        """Return the place in the state of the first finite number of rows [B, N] that is none of these, and what is said of it."""
        values: NDArray[np.float64] = states[:, self.start : self.stop].astype(np.float64)
        if self.kind == "whole":
            wrong = (values < self.least) | (values > self.most) | (values != np.trunc(values))
            expected = f"a whole number from {self.least} to {self.most}"
        elif self.kind == "float16":
            with np.errstate(over="ignore"):
                wrong = values != values.astype(np.float16)
            expected = "a number that float16 holds"
        else:
            before = np.abs(states[:, 2 * self.start - self.stop : self.start])
            with np.errstate(over="ignore", invalid="ignore"):  # behind the largest numbers there is no step
                wrong = ~(np.abs(values) <= np.spacing(before).astype(np.float64) / 2)
            expected = "what float32 leaves over of a float64"
        if not wrong.any():
            return None
        row, column = np.argwhere(wrong)[0]
        return self.start + int(column), f"expected {expected} in part {self.part}, got {values[row, column]:g}"


def bounds(manifest: Manifest) -> tuple[Bounds, ...]:
    """Return those of a model's state; none of a part that holds float32 numbers, or of whose type an older manifest says nothing."""
    window = manifest.window if manifest.adopted is not None else None
    found: list[Bounds] = []
    for part in manifest.state:
        end = part.offset + part.size
        if part.role == "position":
            found.append(Bounds(part.role, part.offset, end, "whole", 0, MOST_WHOLE if window is None else window - 1))
        elif part.role == "started":
            found.append(Bounds(part.role, part.offset, end, "whole", 0, 1))
        elif part.role == "last_logits" and window is not None:
            found.append(Bounds(part.role, end - 1, end, "whole", 0, 1))  # whether a window ends
        elif part.dtype is not None:
            found += _packed(part, part.dtype)
    return tuple(found)


def _packed(part: Part, dtype: str) -> list[Bounds]:
    name, count = part.name or part.role, PIECES.get(dtype, 1)
    each = part.size // count
    at = [part.offset + i * each for i in range(count + 1)]
    if dtype == "float16":
        return [Bounds(name, at[0], at[1], "float16")]
    if dtype == "float64":
        return [Bounds(name, at[i], at[i + 1], "rest") for i in (1, 2)]
    if dtype == "bool":
        return [Bounds(name, at[0], at[1], "whole", 0, 1)]
    if "int" not in dtype or dtype not in PIECES:
        return []
    of = np.iinfo(dtype)
    pieces = [Bounds(name, at[i], at[i + 1], "whole", 0, 2**BITS - 1) for i in range(count - 1)]
    shift = BITS * (count - 1)
    return [*pieces, Bounds(name, at[-2], at[-1], "whole", int(of.min) >> shift, int(of.max) >> shift)]


def outside(states: NDArray[np.float32], of: tuple[Bounds, ...]) -> tuple[int, str] | None:
    """Return the place of a number of finite states [B, N] outside its bounds, and what is said of it; None where there is none."""
    return next((odd for one in of if (odd := one.odd(states)) is not None), None)
