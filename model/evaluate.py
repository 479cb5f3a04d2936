"""`python -m model evaluate CHECKPOINT`: the figures of a checkpoint, and, in the checkpoint, how often test data was looked at."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from model import checkpoint, skeletons, text
from model.measure import bits_per_char, clip_accuracy, stream_accuracy
from model.network import StateNet

MILLION = 1_000_000
Figures = tuple[dict[str, Any], ...]


class NothingHeldError(Exception):
    """A network has no validation data of its own."""


def _figure(name: str, value: float, unit: str, protocol: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 5), "unit": unit, "protocol": protocol, "test_evaluations": 0}


def chars(net: StateNet, meta: checkpoint.Meta, split: str) -> Figures:
    """Bits per character of each text's part; of the novel's also by a state that has read a million characters before."""
    protocol = f"{split} part of the text, one pass, running statistics, from a zero state, every character scored before it is read"
    texts = {name: {part: text.encode(s, meta.alphabet or "") for part, s in text.read(name).items()} for name in text.TEXTS}
    figures = [(name, bits_per_char(net, parts[split]), protocol) for name, parts in texts.items()]
    novel = texts["war_and_peace"]
    late = bits_per_char(net, novel[split], before=novel["train"][:MILLION])
    figures.append(("war_and_peace_late", late, f"{protocol}, after a million characters of the training part"))
    return tuple(_figure(f"{split}_bpc_{name}", bits, "bits per character", how) for name, bits, how in figures)


def action(net: StateNet, meta: checkpoint.Meta, split: str) -> Figures:
    """Accuracy on single clips after parts of them, and at the end of each clip in streams without a reset.

    Raises NothingHeldError for `val` when the network learned from every training subject.
    """
    held = () if meta.held is None else (meta.held,)
    subjects = skeletons.SUBJECTS["test"] if split == "test" else held
    if not subjects:
        raise NothingHeldError("expected a held-out subject to validate on, but this network learned from all (--held 0)")
    clips = skeletons.of_subjects(skeletons.read()[0], subjects)
    who = "subjects " + ", ".join(map(str, subjects))
    single = [
        _figure(f"{split}_accuracy_{round(100 * p)}", 100 * a, "%", f"{who}; single clips from a zero state, after {round(100 * p)} %")
        for p, a in clip_accuracy(net, clips).items()
    ]
    protocol = f"{who}; each subject's clips one after another in an order drawn from seed 0, no reset, answer at each clip's last frame"
    return (*single, _figure(f"{split}_accuracy_stream", 100 * stream_accuracy(net, clips), "%", protocol))


def run(path: Path, split: str, record: bool) -> Figures:
    """Prints the figures as a table and, last, as JSON; `record` keeps them in the checkpoint, adding to its count of test evaluations."""
    net, meta = checkpoint.load(path)
    figures = {"chars": chars, "action": action}[meta.kind](net, meta, split)
    before = {f["name"]: f for f in meta.figures}
    if split == "test":
        figures = tuple(f | {"test_evaluations": before.get(f["name"], f)["test_evaluations"] + 1} for f in figures)
    if record:
        trained, _ = checkpoint.load_trained(path)
        kept = before | {f["name"]: f for f in figures}
        checkpoint.save(path, trained, dataclasses.replace(meta, parts=(), parameters=0, figures=tuple(kept.values())))
    for f in figures:
        print(f"{f['name']:32} {f['value']:9.4f} {f['unit']}")
    print(json.dumps(figures))
    return figures
