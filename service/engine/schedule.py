"""What runs next: single steps first, and beside them one piece of what is longer. Pure."""

from collections import deque
from collections.abc import Iterable

from indrnn.service.engine.jobs import Live, Stateless
from indrnn.service.engine.runtime import PIECE
from indrnn.service.engine.work import Feeding

Work = Live | Stateless


def next_turn(ready: deque[Work], most: int) -> list[Work]:
    """Take what runs in this turn: single steps, and of longer pieces as many as make one whole piece; the others keep their place.

    So between two looks at what has come nobody waits for more than a piece, and the piece that has waited longest is always taken.
    """
    taken: list[Work] = []
    left: list[Work] = []
    total = 0
    while ready and len(taken) < most:
        item = ready.popleft()
        steps = steps_of(item)
        if steps > 1 and total + steps > PIECE:
            left.append(item)
            continue
        taken.append(item)
        if steps > 1:
            total += steps
    ready.extendleft(reversed(left))
    return taken


def groups(items: Iterable[Work]) -> list[list[Work]]:
    """Form runs of like length, so that padding at most doubles a row. Single steps are first: they are answered before longer ones run."""
    found: dict[int, list[Work]] = {}
    for item in items:
        found.setdefault(steps_of(item).bit_length(), []).append(item)
    return [found[k] for k in sorted(found)]


def steps_of(item: Work) -> int:
    """Return the number of time steps that it takes in its next run."""
    work = item.work
    return min(len(work.x) - work.at, PIECE) if isinstance(work, Feeding) and work.watch is None else 1
