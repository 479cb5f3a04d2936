"""MNIST, pixel by pixel: 784 steps of one number in [-1, 1], row after row or in an order drawn once.

Of the 60,000 training images the last 3,000 of an order drawn once are `val`, the others `train` (5 % as in Li et al., 2019, section 5.2.2,
whose code seeds neither that order nor the permutation); `test` is the 10,000 of the file of that name.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indrnn.model.data.formats import gzipped
from indrnn.model.data.sets import find

PIXELS = 784
HELD_OUT = 3_000
# NumPy promises that RandomState draws the same for ever, of any version; it promises no such thing of its newer generators.
PERMUTATION_SEED = 2018
SPLIT_SEED = 5700
FILES = {"train": "train", "val": "train", "test": "t10k"}


class IdxError(Exception):
    """A file is not in MNIST's idx format; the message says what was expected and what came."""


def idx(content: bytes) -> NDArray[np.uint8]:
    """The array in the bytes of an idx file: two zero bytes, a type (8: uint8), the number of axes, their sizes as big-endian int32, data.

    Raises IdxError.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise IdxError(f"expected an idx file of bytes, beginning with 00 00 08, got {content[:3].hex(' ') or 'nothing'}")
    axes = content[3]
    shape = struct.unpack_from(f">{axes}i", content, 4)
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if data.size != np.prod(shape):
        raise IdxError(f"expected {np.prod(shape)} bytes of data for shape {shape}, got {data.size}")
    return data.reshape(shape)


def permutation(pixels: int = PIXELS) -> NDArray[np.int64]:
    """Return the order [pixels] in which pmnist reads the pixels."""
    return np.random.RandomState(PERMUTATION_SEED).permutation(pixels)


def pooled(x: NDArray[np.uint8], pool: int) -> NDArray[np.uint8]:
    """Return images [N, 784] as the means of their squares of pool x pool pixels, rounded: [N, 784 / pool^2], row after row."""
    side = 28 // pool
    small: NDArray[np.uint8] = x.reshape(-1, side, pool, side, pool).mean((2, 4)).round().astype(np.uint8)
    return small.reshape(len(x), side * side)


def read(part: str, permuted: bool, pool: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels [N, 784 / pool^2] uint8 in the order in which they are read, and classes [N], of `train`, `val` or `test`.

    Raises DataMissingError, GzippedError, IdxError.
    """
    images, labels = (_read(find(f"mnist/{FILES[part]}-{kind}-ubyte.gz")) for kind in ("images-idx3", "labels-idx1"))
    if images.shape[1:] != (28, 28) or labels.shape != (len(images),) or len(images) <= HELD_OUT or labels.max() > 9:
        raise IdxError(f"mnist: expected images of 28 x 28 with a label of 0 to 9 each, got {images.shape} and {labels.shape}")
    x, y = images.reshape(len(images), -1), labels.astype(np.int64)
    if part != "test":
        order = np.random.RandomState(SPLIT_SEED).permutation(len(x))
        chosen = order[-HELD_OUT:] if part == "val" else order[:-HELD_OUT]
        x, y = x[chosen], y[chosen]
    x = x if pool == 1 else pooled(x, pool)
    return (x[:, permutation(x.shape[1])] if permuted else x), y


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return idx(gzipped.content(path, "MNIST's idx file"))
    except IdxError as error:
        raise IdxError(f"{path}: {error}") from error


def scaled(x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels in [-1, 1]."""
    return x.astype(np.float32) / np.float32(127.5) - 1
