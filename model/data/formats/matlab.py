"""MATLAB's `.mat` files of version 5 to 7 (not 7.3, which is HDF5): the format of "MAT-File Format", MathWorks, chapter 1.

A file is a header of 128 bytes and elements, each a tag (type, bytes) and data padded to 8 bytes. A matrix is an element of elements:
flags, sizes, name, and numbers, which may be stored in a smaller type than the matrix has.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indrnn.model.data.formats.recording import FormatError

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 17: "u2", 18: "u4"}
_MATRIX, _COMPRESSED, _UTF8 = 14, 15, 16
_CELL, _STRUCT, _CHARACTERS, _FIRST_NUMBERS, _LAST_NUMBERS = 1, 2, 4, 6, 15
_DEEPEST = 20  # matrices within cells within structs


class _WrongError(Exception):
    """The bytes are not those of a .mat file; the message says what was met."""


def load(path: Path) -> dict[str, Any]:
    """Return the variables of a .mat file: arrays, of cells lists, of a struct a dict, of characters texts. Raises FormatError."""
    content = path.read_bytes()
    if content[:19] == b"MATLAB 7.3 MAT-file" or content[512:520] == b"\x89HDF\r\n\x1a\n" or content.startswith(b"\x89HDF"):
        raise FormatError(f"{path}: expected a .mat file of version 5 to 7, got one of 7.3, which is HDF5: in MATLAB save(…, '-v7')")
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        got = "an empty file" if not content else "another kind of file, or one of version 4: in MATLAB save(…, '-v7')"
        raise FormatError(f"{path}: expected a .mat file of version 5 to 7, got {got}")
    reader = _Elements("<" if content[126:128] == b"IM" else ">")
    found = {}
    try:
        for kind, data in reader.elements(content[128:]):
            if kind == _MATRIX:
                name, value = reader.matrix(data)
                if value is not None:
                    found[name] = value
    except (_WrongError, struct.error, zlib.error, ValueError, IndexError, KeyError, OverflowError) as error:
        raise FormatError(f"{path}: expected a .mat file of version 5 to 7, got one that is damaged or cut off ({error})") from error
    if not found:
        raise FormatError(f"{path}: expected a .mat file with variables in it, found none that are arrays")
    return found


class _Elements:
    """The elements of a file whose numbers are stored in one byte order."""

    def __init__(self, order: str) -> None:
        self.order = order

    def elements(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (type, data) of each element, compressed ones unpacked."""
        at = 0
        while at + 8 <= len(data):
            kind, size = struct.unpack_from(self.order + "II", data, at)
            if kind >> 16:  # a small element: type and size share four bytes, the data are the next four
                kind, size, begin, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            else:
                begin = at + 8
                end = begin + size + (0 if kind == _COMPRESSED else -size % 8)
            if size > len(data) - begin:
                raise _WrongError(f"an element of {size} bytes where {len(data) - begin} are left")
            piece = data[begin : begin + size]
            at = end
            if kind == _COMPRESSED:
                yield from self.elements(zlib.decompress(piece))
            else:
                yield kind, piece

    def matrix(self, data: bytes, depth: int = 0) -> tuple[str, Any]:
        """Return name and value of a matrix; None for what is neither numbers, characters, cells nor a struct."""
        if depth > _DEEPEST:
            raise _WrongError("matrices within matrices without end")
        parts = self.elements(data)
        first = next(parts, None)
        if first is None:
            return "", np.zeros((0, 0))
        flags = struct.unpack_from(self.order + "I", first[1])[0]
        kind, is_complex = flags & 0xFF, bool(flags & 0x0800)
        sizes = tuple(int(n) for n in self._numbers(*next(parts)))
        name = next(parts)[1].decode("latin-1")
        if any(n < 0 for n in sizes):
            raise _WrongError(f"sizes {sizes}")
        if kind == _CELL:
            return name, [self.matrix(piece, depth + 1)[1] for _, piece in parts]
        if kind == _STRUCT:
            return name, self._struct(parts, depth)
        if kind == _CHARACTERS:
            return name, self._characters(*next(parts), sizes)
        if not _FIRST_NUMBERS <= kind <= _LAST_NUMBERS or is_complex:
            return name, None
        return name, self._numbers(*next(parts)).reshape(sizes, order="F")

    def _struct(self, parts: Iterator[tuple[int, bytes]], depth: int) -> Any:
        length = int(self._numbers(*next(parts))[0])
        raw = next(parts)[1]
        if length < 1:
            raise _WrongError("a struct whose names have no length")
        fields = [raw[i : i + length].split(b"\0")[0].decode("latin-1") for i in range(0, len(raw), length)]
        values = [self.matrix(piece, depth + 1)[1] for _, piece in parts]
        rows = [dict(zip(fields, values[i : i + len(fields)], strict=True)) for i in range(0, len(values), len(fields))] if fields else []
        return rows[0] if len(rows) == 1 else rows

    def _characters(self, kind: int, data: bytes, sizes: tuple[int, ...]) -> str | list[str]:
        codes = list(data.decode("utf-8", "replace")) if kind == _UTF8 else [chr(c) for c in self._numbers(kind, data)]
        if len(sizes) != 2 or len(codes) != sizes[0] * sizes[1]:
            return "".join(codes)
        rows = ["".join(codes[r :: sizes[0]]).rstrip() for r in range(sizes[0])]
        return rows[0] if len(rows) == 1 else rows

    def _numbers(self, kind: int, data: bytes) -> NDArray[Any]:
        if kind not in _TYPES:
            raise _WrongError(f"numbers of type {kind}")
        return np.frombuffer(data, np.dtype(self.order + _TYPES[kind]))
