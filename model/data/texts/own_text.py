"""Anybody's text, of any language and size: files -> symbols on disk, read in pieces, never whole.

A file is UTF-8, gzipped or not by what it holds and not by its name; its text becomes NFC with \\n line ends, without a byte-order mark.
The alphabet is every symbol of all files, and one more for those of other texts. Of each file the last 5 % are `test`, the 5 % before
them `val`, the rest `train`.
"""

import codecs
import gzip
import io
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from indrnn.model.data.formats import gzipped
from indrnn.model.data.text import HELD_OUT
from indrnn.model.data.texts.typeset import UNKNOWN

LEAST = 200  # characters: 5 % of fewer measure nothing
MOST_SYMBOLS = 8_192  # each is a row of the embedding and of the readout, and a number of the state
MEASURED = 1_000_000  # characters of a held-out part that are read, at most
HEAD = 4_096  # bytes that tell what a file is
PIECE = 2**20  # bytes read at once
CODE_POINTS = 0x110000


class TextFileError(Exception):
    """A text cannot be learned from; the message names the file, what was expected and what came."""


@dataclass(frozen=True)
class OwnText:
    """Symbols of some files. train [n] lies on disk, val and test [m] are at most MEASURED of each file. alphabet: UNKNOWN is its last."""

    alphabet: str
    characters: tuple[int, ...]
    train: NDArray[np.uint16]
    val: NDArray[np.int64]
    test: NDArray[np.int64]


def pieces(path: Path) -> Iterator[str]:
    """Return the clean text of a file, piece by piece. Raises TextFileError."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    read, waiting = 0, ""
    try:
        with _opened(path) as file:
            head = file.read(HEAD)
            _refuse_other_encodings(path, head)
            head = head.removeprefix(codecs.BOM_UTF8)
            first = (head[i : i + PIECE] for i in range(0, len(head), PIECE))
            for data in chain(first, iter(lambda: file.read(PIECE), b"")):
                waiting += decoder.decode(data)
                cut = _safe_cut(waiting)
                read += len(data)
                if cut:
                    yield _clean(waiting[:cut])
                    waiting = waiting[cut:]
            waiting += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        told, name = gzipped.western(error.object)
        remedy = f"if it is {told}: iconv -f {name} -t UTF-8 {path} > utf8.txt"
        raise TextFileError(f"{path}: expected UTF-8, got the byte 0x{byte:02x} near byte {read + error.start} ({remedy})") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TextFileError(f"{path}: expected a whole gzip file, got one that is cut or broken: {error}") from error
    except FileNotFoundError:
        raise TextFileError(f"{path}: there is no such file") from None
    except OSError as error:
        what = "a folder" if isinstance(error, IsADirectoryError) else f"a file that cannot be read: {error.strerror}"
        raise TextFileError(f"{path}: expected a file of text, got {what}") from error
    if waiting:
        yield _clean(waiting)


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")


def _refuse_other_encodings(path: Path, data: bytes) -> None:
    zeros = [i for i, byte in enumerate(data) if byte == 0]
    if zeros:  # every other byte, where the text is English
        name = "UTF-16LE" if zeros[0] % 2 else "UTF-16BE"
        remedy = f"{name} if it is a text: iconv -f {name} -t UTF-8 {path} > utf8.txt"
        if not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise TextFileError(f"{path}: expected UTF-8, got a zero byte at {zeros[0]} ({remedy})")
    for mark, name in ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16")):
        if data.startswith(mark):
            raise TextFileError(f"{path}: expected UTF-8, got {name} (iconv -f {name} -t UTF-8 {path} > utf8.txt)")


def _safe_cut(text: str) -> int:
    """Return where a text may be cut: what comes behind, a blank or a line's end, is never composed with what stands before."""
    cut = max(text.rfind(" "), text.rfind("\n"))
    if cut <= 0 and len(text) > 1:  # no blanks, as in Chinese: before a symbol that combines with none
        cut = next((i for i in range(len(text) - 1, 0, -1) if ord(text[i]) < 0x300 or 0x3400 <= ord(text[i]) < 0xA000), 0)
    return cut - 1 if cut > 0 and text[cut] == "\n" and text[cut - 1] == "\r" else max(cut, 0)


def _clean(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def _points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def read(paths: Sequence[Path], folder: Path | None) -> OwnText:
    """Reads files twice, for their alphabet and for their symbols; those to train on are left in `folder`/text.u16, if there is one.

    Raises TextFileError.
    """
    counts = np.zeros(CODE_POINTS, np.int64)
    characters = []
    for path in paths:
        before = int(counts.sum())
        for piece in pieces(path):
            counts += np.bincount(_points(piece), minlength=CODE_POINTS)
        characters.append(int(counts.sum()) - before)
        if characters[-1] == 0:
            raise TextFileError(f"{path}: expected a text, got an empty file")
    alphabet = _alphabet(paths, counts, sum(characters))
    table = np.full(CODE_POINTS, len(alphabet) - 1, np.uint16)
    table[_points(alphabet[:-1])] = np.arange(len(alphabet) - 1, dtype=np.uint16)
    kept: dict[str, list[NDArray[np.uint16]]] = {"val": [], "test": []}
    train: NDArray[np.uint16] = np.zeros(0, np.uint16)
    if folder is None:
        for path, n in zip(paths, characters, strict=True):
            _divide(path, n, table, None, kept)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        on_disk, partial = folder / "text.u16", folder / "text.partial"
        with partial.open("wb") as file:
            for path, n in zip(paths, characters, strict=True):
                _divide(path, n, table, file, kept)
        partial.replace(on_disk)
        train = np.memmap(on_disk, np.uint16, "r")
    val, test = (np.concatenate([np.zeros(0, np.uint16), *kept[part]]).astype(np.int64) for part in ("val", "test"))
    return OwnText(alphabet, tuple(characters), train, val, test)


def _alphabet(paths: Sequence[Path], counts: NDArray[np.int64], n: int) -> str:
    counts[ord(UNKNOWN)] = 0
    points = np.flatnonzero(counts)
    names = ", ".join(map(str, paths))
    if n < LEAST:
        raise TextFileError(f"{names}: expected a text of at least {LEAST} characters, got {n}")
    if len(points) < 2:
        raise TextFileError(f"{names}: expected at least two different characters, got {chr(points[0])!r} alone" if len(points) else names)
    if len(points) > MOST_SYMBOLS:
        rare = int((counts[points] <= 2).sum())
        raise TextFileError(
            f"{names}: expected at most {MOST_SYMBOLS} different characters, got {len(points)}, {rare} of them no more than twice: "
            "leave out or replace the rarest"
        )
    return "".join(map(chr, points)) + UNKNOWN


def _divide(path: Path, n: int, table: NDArray[np.uint16], train: IO[bytes] | None, kept: dict[str, list[NDArray[np.uint16]]]) -> None:
    """Writes a file's training part, and keeps the beginnings of the other two."""
    test = n - round(n * HELD_OUT)
    val = test - round(n * HELD_OUT)
    at = 0
    for piece in pieces(path):
        symbols = table[_points(piece)]
        if train is not None:
            train.write(symbols[: max(0, val - at)].tobytes())
        for part, begin, end in (("val", val, min(test, val + MEASURED)), ("test", test, min(n, test + MEASURED))):
            kept[part].append(symbols[max(0, begin - at) : max(0, end - at)].copy())  # no view: it would keep the whole piece
        at += len(symbols)
    if at != n:
        raise TextFileError(f"{path}: expected the {n} characters that were counted, got {at}: the file has changed meanwhile")
