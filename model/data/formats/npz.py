"""`.npz` files of plain arrays, and the forms in which NumPy, MATLAB and h5py leave texts, counts and single numbers in them.

MATLAB has no array of fewer than two axes and writes counts as fractions: 30 comes as [[30.0]], N whole numbers as [1, N]. h5py gives texts
as bytes. All of these are read as what they mean.
"""

import ast
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How files begin that are brought in place of an .npz.
_KINDS = (
    (b"\x93NUMPY", "one array (.npy): np.savez writes several, by their names"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as h5py and MATLAB's -v7.3 write it: save its arrays with np.savez"),
    (b"MATLAB 5.0", "a MATLAB file: `indrnn convert` reads it"),
    (b"\x1f\x8b", "a gzipped file"),
    (b"\x80", "a pickle, which is not opened: it may run anything"),
)


class ArraysError(Exception):
    """A file holds no plain arrays; the message names the file, what was expected and what came."""


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by their names; nothing is unpickled. Raises ArraysError in one sentence."""
    try:
        with path.open("rb") as file:
            begins = file.read(4096)
            file.seek(0)
            if not begins.startswith(b"PK"):
                raise ArraysError(f"{path}: expected an .npz file of plain arrays, got {kind(begins)}")
            with np.load(file, allow_pickle=False) as found:
                arrays = {name: _array(path, name, found[name]) for name in found.files}
    except ArraysError:
        raise
    except IsADirectoryError as error:
        raise ArraysError(f"{path}: expected an .npz file of plain arrays, got a folder") from error
    except OSError as error:
        raise ArraysError(f"{path}: expected an .npz file of plain arrays: {error.strerror or error}") from error
    except Exception as error:  # what zipfile and NumPy raise for broken files has no base of its own
        why = " ".join(str(error).split()) or type(error).__name__
        if "Object arrays" in why:
            why = "an array of Python objects, which is not unpickled: what is of unequal length lies one after another in x, with off"
        else:
            why = f"a file that is damaged or cut off ({why})"
        raise ArraysError(f"{path}: expected an .npz file of plain arrays, got {why}") from error
    return arrays


def kind(begins: bytes) -> str:
    """Return what a file is whose first bytes these are, in words."""
    if not begins:
        return "an empty file"
    for start, what in _KINDS:
        if begins.startswith(start):
            return what
    return "a text" if all(byte >= 32 or byte in b"\t\n\f\r" for byte in begins) else "another kind of file"


def _array(path: Path, name: str, found: Any) -> NDArray[Any]:
    if not isinstance(found, np.ndarray):  # a zip archive of other things: np.load gives their bytes
        raise ArraysError(f"{path}: expected an .npz file of plain arrays, got a zip archive with {name!r} in it")
    if found.dtype.names is not None:
        raise ArraysError(f"{path}: {name}: expected numbers or texts, got rows of named fields ({', '.join(found.dtype.names)})")
    return found


def texts(a: NDArray[Any]) -> tuple[str, ...]:
    """Return the texts of an array, one after another: bytes decoded, numbers as they are written, MATLAB's blanks at the ends left out."""
    found = tuple(_text(value).rstrip() for value in np.ravel(a))
    if found and all(re.fullmatch(r"""b(['"]).*\1""", text) for text in found):  # str() of the bytes that h5py gives
        found = tuple(_text(ast.literal_eval(text)) if _literal(text) else text for text in found)
    return found


def _literal(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text), bytes)
    except (ValueError, SyntaxError):
        return False


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def whole(a: NDArray[Any], size: int | None = None) -> NDArray[np.int64] | None:
    """Return the whole numbers [size] of an array, which may be [1, size] or [size, 1] and of a type with fractions; else None.

    size None: as many as there are. MATLAB's empty array is [0, 0].
    """
    numbers = a.reshape(-1) if a.ndim == 2 and (1 in a.shape or not a.size) else a
    if numbers.ndim != 1 or (size is not None and len(numbers) != size) or numbers.dtype.kind not in "iubf":
        return None
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64)
        if not ((np.abs(numbers) < 2**53) & (numbers == np.rint(numbers))).all():  # NaN is neither
            return None
    if numbers.dtype.kind == "u" and numbers.size and int(numbers.max()) >= 2**63:
        return None
    return numbers.astype(np.int64)


def of_each(arrays: Mapping[str, NDArray[Any]], size: int, but: Collection[str]) -> dict[str, list[int | str]]:
    """Return the arrays with one whole number or text for each of `size` things, but those of these names, as lists."""
    found: dict[str, list[int | str]] = {}
    for name, a in arrays.items():
        if name in but or a.size != size:
            continue
        numbers = whole(a, size)
        if numbers is not None:
            found[name] = list(numbers.tolist())
        elif a.dtype.kind in "US":
            found[name] = list(texts(a))
    return found


def number(a: NDArray[Any]) -> float | None:
    """Return the one number of an array of any number of axes; None where it is not one, or is not finite."""
    if a.size != 1 or a.dtype.kind not in "fiu":
        return None
    value = float(a.reshape(-1)[0])
    return value if np.isfinite(value) else None
