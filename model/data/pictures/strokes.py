"""Made-up pictures of strokes: each is marked at its head, and every one of its pixels has the class of that mark.

A pixel is 0 where there is nothing, 1 on a stroke, 2 or 3 at the head of a stroke of class 1 or 2; its label is 0, 1 or 2. Strokes wander
by single pixels, up, down or aside, and never touch another or themselves, so that a pixel's class is told by following its stroke and by
nothing nearer: a network that sees less of the picture than a stroke is long has to guess.
"""

import numpy as np
from numpy.typing import NDArray

SIDE = 16  # rows and columns
CLASSES = ("nothing", "first", "second")
STROKES = 4  # that are begun in a picture
LENGTHS = (6, 14)  # pixels of a stroke; shorter ones, that had nowhere to go, are left out
TRIES = 12  # of a stroke
STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def draw(rng: np.random.Generator, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return `rows` pictures [B, SIDE, SIDE] and the labels [B, SIDE, SIDE] of their pixels."""
    x, y = np.zeros((rows, SIDE, SIDE), np.float32), np.zeros((rows, SIDE, SIDE), np.int64)
    for picture, labels in zip(x, y, strict=True):
        taken = np.zeros((SIDE + 2, SIDE + 2), np.bool_)
        for _ in range(STROKES):
            stroke = _stroke(rng, taken)
            if not stroke:
                continue
            kind = int(rng.integers(1, len(CLASSES)))
            for i, j in stroke:
                taken[i, j] = True
                picture[i - 1, j - 1], labels[i - 1, j - 1] = 1, kind
            i, j = stroke[0]
            picture[i - 1, j - 1] = 1 + kind
    return x, y


def _stroke(rng: np.random.Generator, taken: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the pixels of a new stroke from its head on, counted from 1, none beside one that is taken; empty where there is no room."""
    length = int(rng.integers(LENGTHS[0], LENGTHS[1] + 1))
    for _ in range(TRIES):
        place = (int(rng.integers(1, SIDE + 1)), int(rng.integers(1, SIDE + 1)))
        if taken[place[0] - 1 : place[0] + 2, place[1] - 1 : place[1] + 2].any():
            continue
        found = [place]
        while len(found) < length:
            ways = [(found[-1][0] + a, found[-1][1] + b) for a, b in STEPS]
            free = [way for way in ways if _free(way, found, taken)]
            if not free:
                break
            found.append(free[int(rng.integers(len(free)))])
        if len(found) >= LENGTHS[0]:
            return found
    return []


def _free(way: tuple[int, int], own: list[tuple[int, int]], taken: NDArray[np.bool_]) -> bool:
    """Return whether a stroke can go on there: within the picture, and touching no other stroke, and itself only where it comes from."""
    i, j = way
    if not (1 <= i <= SIDE and 1 <= j <= SIDE) or taken[i - 1 : i + 2, j - 1 : j + 2].any():
        return False
    return all(abs(i - a) + abs(j - b) > 1 for a, b in own[:-1])
