"""Pickles of arrays and plain containers, read without running anything that they name.

A pickle is a program: it may call any function that can be imported. Here the names of NumPy's own constructors stand for classes that only
keep what they are given, `set` and `OrderedDict` for themselves, and every other name is refused.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indrnn.model.data.formats.recording import FormatError


class _RefusedError(Exception):
    """A pickle names something that is none of the few harmless things; the message is its name."""


class _Dtype:
    """The type that an array in a pickle says it has."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="

    def real(self) -> np.dtype[Any] | None:
        """Return the type; None of Python objects. Raises _RefusedError for one with fields."""
        if self.code in ("O", "O8"):
            return None
        if not isinstance(self.code, str) or self.code[:1] not in "fiubSU" or not self.code[1:].isdigit():
            raise _RefusedError(f"numbers of type {self.code!r}")
        return np.dtype(self.code).newbyteorder("<" if self.order == "<" else ">" if self.order == ">" else "=")


class _Array:
    """An array in a pickle: shape, type, order of axes and bytes, as it states them."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def real(self) -> NDArray[Any] | list[Any]:
        """Return the array; of Python objects their list. Raises _RefusedError."""
        try:
            _, shape, dtype, fortran, data = self.state
            real = dtype.real()
            if real is None:
                return [_plain(value) for value in data]
            a = np.frombuffer(data, real)
            return a.reshape(shape, order="F" if fortran else "C")
        except (TypeError, ValueError, AttributeError) as error:
            raise _RefusedError(f"an array that is none ({error})") from error


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    a = _Array()
    a.state = (1, shape, dtype, order == "F", bytes(data))
    return a


def _scalar(dtype: Any, data: Any = b"") -> Any:
    a = _Array()
    a.state = (1, (1,), dtype, False, data)
    value = a.real()[0]
    return value.item() if isinstance(value, np.generic) else value


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin-1" if encoding in ("latin1", "latin-1") else "utf-8")


_CORES = ("numpy.core", "numpy._core")
_HARMLESS: dict[tuple[str, str], Any] = {
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _CORES},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    **{(module, "bytearray"): bytearray for module in ("builtins", "__builtin__")},
    ("collections", "OrderedDict"): OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    """Finds the harmless names alone."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name. Raises _RefusedError."""
        if (module, name) not in _HARMLESS:
            raise _RefusedError(f"{module}.{name}")
        return _HARMLESS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Raise _RefusedError: what lies outside of the file is not fetched."""
        raise _RefusedError("something that lies outside of the file")


def load(path: Path) -> Any:
    """Return what a pickle of arrays, numbers, texts and containers holds. Raises FormatError, also for one that names anything else."""
    try:
        with path.open("rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load())
    except _RefusedError as error:
        raise FormatError(
            f"{path}: expected a pickle of arrays, numbers, texts, lists and dicts, got {error} in it, which is not run or opened: "
            "save x, off and y with np.savez"
        ) from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{path}: expected a pickle, got a file that is damaged or cut off ({why})") from error


def _plain(found: Any, depth: int = 0) -> Any:
    """Return the arrays and containers that stand-ins stand for."""
    if depth > 50:
        raise _RefusedError("containers within containers without end")
    if isinstance(found, _Array):
        return found.real()
    if isinstance(found, dict):
        return {_plain(k, depth + 1): _plain(v, depth + 1) for k, v in found.items()}
    if isinstance(found, list | tuple | set):
        return type(found)(_plain(v, depth + 1) for v in found)
    if isinstance(found, _Dtype):
        raise _RefusedError("a type without an array")
    return found
