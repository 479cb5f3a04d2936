"""Numbers of every type as float32 and back, exactly: what a session keeps is one row of float32.

float32 as it is; float16, bool and whole numbers up to 16 bits are float32 as well; whole numbers of 32 and 64 bits are 2 and 3 pieces of
22 bits, the last with the sign; a float64 is the sum of three float32 (within float32's range, to its smallest step).
"""

import numpy as np
from numpy.typing import NDArray

from indrnn.export.adopt.nodes import Nodes
from indrnn.export.bounds import BITS as BITS
from indrnn.export.bounds import PIECES as PIECES


def pieces(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return values [rows, n] of any type as [rows, n * pieces], each piece of all of them one after another."""
    dtype = str(values.dtype)
    if PIECES[dtype] == 1:
        return values.astype(np.float32)
    found = []
    if dtype == "float64":
        rest = values.astype(np.float64)
        for _ in range(3):
            found.append(rest.astype(np.float32))
            rest = rest - found[-1]
    else:
        whole = values.astype(np.int64)
        for _ in range(PIECES[dtype] - 1):
            low = whole & ((1 << BITS) - 1)
            found.append(low.astype(np.float32))
            whole = (whole - low) >> BITS
        found.append(whole.astype(np.float32))
    return np.concatenate(found, 1)


def to_pieces(g: Nodes, value: str, dtype: str) -> str:
    """Add the nodes that do to a tensor [rows, n] what `pieces` does."""
    count = PIECES[dtype]
    if count == 1:
        return value if dtype == "float32" else g.cast(value, "float32")
    found = []
    if dtype == "float64":
        rest = value
        for _ in range(count):
            found.append(g.cast(rest, "float32"))
            rest = g.op("Sub", rest, g.cast(found[-1], "float64"))
    else:
        whole, base = g.cast(value, "int64"), g.const(np.array(1 << BITS, np.int64))
        for _ in range(count - 1):
            low = g.op("Mod", whole, base)
            found.append(g.cast(low, "float32"))
            whole = g.op("Div", g.op("Sub", whole, low), base)
        found.append(g.cast(whole, "float32"))
    return g.op("Concat", *found, axis=1)


def from_pieces(g: Nodes, packed: str, dtype: str, size: int) -> str:
    """Add the nodes that make the tensor [rows, size / pieces] of packed [rows, size] again."""
    count = PIECES[dtype]
    if count == 1:
        return (
            packed
            if dtype == "float32"
            else g.op("Greater", packed, g.const(np.float32(0.5)))
            if dtype == "bool"
            else g.cast(packed, dtype)
        )
    each = size // count
    wide = "float64" if dtype == "float64" else "int64"
    parts = [g.cast(g.slice(packed, i * each, (i + 1) * each, 1), wide) for i in range(count)]
    total = parts[-1]
    for i in reversed(range(count - 1)):
        if wide == "int64":
            total = g.op("Mul", total, g.const(np.array(1 << BITS, np.int64)))
        total = g.op("Add", total, parts[i])
    return total if dtype == wide else g.cast(total, dtype)
