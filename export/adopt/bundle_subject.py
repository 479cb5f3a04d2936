"""A bundle as the kit reads it, adopted or trained here."""

import numpy as np

from indrnn.export import kit
from indrnn.export.adopt.handfed import open_session, wrapped_run
from indrnn.export.adopt.layout import made_up
from indrnn.export.bundle import Bundle, Manifest, Part
from indrnn.export.modalities.table import MODALITIES


def bundle_subject(bundle: Bundle) -> kit.Subject:
    """Return the bundle's graph, with names of its manifest, and made-up content of its modality."""
    m = bundle.manifest
    states = tuple(kit.Stretch(_name(p), p.offset, p.size, p.dtype or "float32") for p in m.state)
    memories = frozenset(_name(p) for p in m.state if p.role == "hidden")
    return kit.Subject(
        f"{m.name}/{m.version}",
        wrapped_run(open_session(bundle.graph)),
        _sample(m),
        states,
        _answers(m),
        memories,
        m.window or 1,
        m.limits.max_batch == 1,
        kit.HALF if m.half else kit.BOUND,
        longest=m.limits.max_position,
        streams=m.streams,
        numbers=m.inputs[0].dtype == "float32" if m.adopted is None else all(t.dtype.startswith("float") for t in m.adopted.inputs),
    )


def _name(p: Part) -> str:
    if p.role != "hidden":
        return p.role
    return p.name if p.dtype is not None and p.name else f"layer {p.layer}" + (f" {p.name}" if p.name else "")


def _answers(m: Manifest) -> tuple[kit.Stretch, ...]:
    if m.returned is None:
        return (kit.Stretch("logits", 0, m.classes),)
    found, at = [], 0
    for one in m.returned:
        size = int(np.prod(one.shape))
        found.append(kit.Stretch(one.name, at, size))
        at += size
    return (*found, kit.Stretch("whether a window ends", at, 1)) if m.window else tuple(found)


def _sample(m: Manifest) -> kit.Sample:
    if m.adopted is None:
        return MODALITIES[m.modality].sample(m)
    fed = [(t.dtype, int(np.prod([n for n in t.shape if isinstance(n, int)]))) for t in m.adopted.inputs]
    return lambda rng, B, T: np.concatenate([made_up(rng, dtype, (B, T, size)) for dtype, size in fed], 2)
