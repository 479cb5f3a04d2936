"""The statistics of an engine that the Open Inference Protocol tells, as text and back."""

import orjson

from indrnn.service.engine.statistics import Runs, Statistics


def statistics_text(s: Statistics) -> str:
    """Return the numbers as JSON."""
    runs = [[rows, r.count, r.input_ns, r.infer_ns, r.output_ns] for rows, r in s.runs.items()]
    spans = [[one.count, one.ns] for one in (s.success, s.fail, s.queue)]
    return orjson.dumps({"spans": spans, "runs": runs, "last": s.last_inference}).decode()


def read_statistics(text: str) -> Statistics:
    """Return what was made text."""
    told, s = orjson.loads(text), Statistics()
    for one, (count, ns) in zip((s.success, s.fail, s.queue), told["spans"], strict=True):
        one.count, one.ns = count, ns
    s.runs = {rows: Runs(*run) for rows, *run in told["runs"]}
    s.last_inference = told["last"]
    return s
