"""The statistics of engines as text and back, and as flat numbers, of which those of several shards make the service's."""

from collections import Counter
from collections.abc import Mapping, Sequence

import orjson

from indrnn.service.engine.statistics import Duration, Runs, Spread, Statistics, Totals
from indrnn.service.serving.models import Models

Key = tuple[str | int, ...]
Numbers = Mapping[Key, float]
"""Every count of a Statistics, by the name of its field and what it counts."""

DURATIONS = ("success", "fail", "queue", "engine", "store")
PAIRED = ("happened", "refused", "turned_away")  # counted by what and by the protocol
SINGLE = ("repeats", "failed", "answered")
PLAIN = ("store_failures", "characters")
LATEST = ("last_inference",)
"""fields that are a time: of several the latest counts"""


def statistics_text(s: Statistics) -> str:
    """Return the numbers as JSON."""
    return text_of(flat(s))


def read_statistics(text: str) -> Statistics:
    """Return what was made text."""
    return statistics_of(numbers_of(text))


def text_of(numbers: Numbers) -> str:
    """Return numbers as JSON."""
    return orjson.dumps([[list(key), value] for key, value in numbers.items()]).decode()


def numbers_of(text: str) -> dict[Key, float]:
    """Return numbers that were made text."""
    return {tuple(key): value for key, value in orjson.loads(text)}


def flat(s: Statistics) -> dict[Key, float]:
    """Return every count, but for what has still to be folded in."""
    found: dict[Key, float] = {(name,): getattr(s, name) for name in (*PLAIN, *LATEST)}
    for name in DURATIONS:
        one: Duration = getattr(s, name)
        found[name, "count"], found[name, "ns"] = one.count, one.ns
        if isinstance(one, Spread):
            found |= {(name, i): n for i, n in enumerate(one.buckets)}
    for rows, r in s.runs.items():
        found |= {("runs", rows, i): n for i, n in enumerate((r.count, r.input_ns, r.infer_ns, r.output_ns))}
    for name in PAIRED:  # copies, since engines go on counting
        found |= {(name, *key): n for key, n in dict(getattr(s, name)).items()}
    for name in SINGLE:
        found |= {(name, key): n for key, n in dict(getattr(s, name)).items()}
    return found


def statistics_of(numbers: Numbers) -> Statistics:
    """Return the statistics that are made of flat numbers; a count that is not a field of them is left out."""
    s = Statistics()
    for name in (*PLAIN, *LATEST):
        setattr(s, name, numbers.get((name,), 0))
    for name in DURATIONS:
        one: Duration = getattr(s, name)
        one.count, one.ns = int(numbers.get((name, "count"), 0)), int(numbers.get((name, "ns"), 0))
        if isinstance(one, Spread):
            one.buckets = [int(numbers.get((name, i), 0)) for i in range(len(one.buckets))]
    rows = sorted({int(key[1]) for key in numbers if key[0] == "runs"})
    s.runs = {n: Runs(*(int(numbers.get(("runs", n, i), 0)) for i in range(4))) for n in rows}
    for name in (*PAIRED, *SINGLE):
        counted: Counter[object] = getattr(s, name)
        for key, n in numbers.items():
            if key[0] == name:
                counted[key[1:] if name in PAIRED else key[1]] = int(n)
    return s


def added(several: Sequence[Numbers]) -> dict[Key, float]:
    """Return the sum of several: the numbers of all of them together."""
    total: dict[Key, float] = {}
    for numbers in several:
        for key, n in numbers.items():
            total[key] = max(total.get(key, 0), n) if key[0] in LATEST else total.get(key, 0) + n
    return total


def told_numbers(models: Models, totals: Totals) -> str:
    """Return as JSON what each model has done and how many wait for it, and what is counted beside them."""
    seen = [(m.manifest.name, m.manifest.version, m.port.snapshot()) for m in models]
    told = [[name, version, one.waiting, text_of(flat(one.statistics))] for name, version, one in seen]
    return orjson.dumps({"models": told, "beside": {"swept": totals.swept, "store_failures": totals.store_failures}}).decode()


def beyond(now: Numbers, before: Numbers) -> dict[Key, float]:
    """Return what was counted since `before`."""
    return {key: n if key[0] in LATEST else n - before.get(key, 0) for key, n in now.items()}
