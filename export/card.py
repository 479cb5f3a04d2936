"""The model card: CARD.md, the manifest in words."""

from indrnn.export.bundle import Manifest, Part, TrainingData
from indrnn.export.modalities.modality import EVENT, Events
from indrnn.export.modalities.table import MODALITIES
from indrnn.export.standard import OPSET as STANDARD
from indrnn.model.cells.table import CELLS, described

LINEAR = (
    "Recurrences whose decays are positive are ONNX's own operator `LinearAttention`, of opset 27; what else there is of `ai.indrnn` comes "
    "with a body in standard operators."
)
CAUSAL = "Causal: an answer depends on what came before it and on nothing after."
WHOLE = (
    "Bidirectional (Schuster and Paliwal, 1997): half of each layer's neurons go through a sequence backwards, and an answer depends on "
    "all of it. It has no stream: whole sequences go to `POST /predict`, and there are no sessions of it."
)
PICTURE = (
    "An answer depends on all of the picture, whose rows from the top are the steps of x. It has no stream: whole pictures go to "
    "`POST /predict`, and there are no sessions of it."
)
_AGAIN = "## How to make it again"


def card(manifest: Manifest, export_command: str) -> str:
    """Return CARD.md for a bundle; export_command is what wrote it."""
    m, modality = manifest, MODALITIES[manifest.modality]
    sections = [
        f"# {m.name} {m.version}\n\n{modality.what(m)}\n\n{_network(m)}",
        "## What goes in and what comes out\n\n" + _contract(m, modality.contract(m)),
        *([] if m.events is None else ["## Events\n\n" + _events(m, m.events)]),
        "## Figures\n\n" + _figures(m),
        "## Training data\n\n" + ("\n".join(_data(d) for d in m.training.data) or "Not stated."),
        f"## Limits\n\n{modality.limits(m, tuple(d.name for d in m.training.data))}\n\n{_endless(m)}",
        *([] if m.explain is None else [_explanation(m)]),
        f"{_AGAIN}\n\n```\n" + f"{m.training.command}\n{export_command}\n```\n\n" + _provenance(m),
        *modality.sections(m),
    ]
    return "\n\n".join(sections) + "\n"


def with_explanation(text: str, manifest: Manifest, command: str) -> str:
    """Return a card that was written before explain.onnx was there, with its section, and the command that added it."""
    before, again, after = text.partition(f"{_AGAIN}\n\n```\n")
    commands, fence, rest = after.partition("\n```\n")
    if not fence:
        return f"{text}\n{_explanation(manifest)}\n"
    return f"{before}{_explanation(manifest)}\n\n{again}{commands}\n{command}{fence}{rest}"


def _explanation(m: Manifest) -> str:
    assert m.explain is not None, "it was looked at"
    return (
        "## Explanation\n\n`explain.onnx` is the exact gradient of an answer by everything that was read (docs/explain.md). The largest "
        f"difference between ONNX Runtime and PyTorch in it is {m.explain.error:.1e}, of 1 or the largest number there if that is more. "
        f"Its large weights are read from `model.onnx`. SHA-256 of `explain.onnx`: `{m.explain.sha256}`."
    )


def _data(d: TrainingData) -> str:
    said = f"- **{d.name}**. Terms: {d.terms}. Source: {d.citation}"
    if d.labels is None:
        return said
    same = [label for label, motion in d.labels.items() if label == motion]
    other = [f"{label} → {motion}" for label, motion in d.labels.items() if label != motion]
    return f"{said} Its labels: {', '.join(same + other)}."


def _network(m: Manifest) -> str:
    hidden = [p for p in m.state if p.role == "hidden"]
    if not hidden:
        return f"{described(m.cell).about}, {m.training.parameters:,} parameters. {PICTURE}"
    sizes = " + ".join(dict.fromkeys(str(p.size) for p in hidden))
    kinds = ", ".join(sorted({str(p.activation) for p in hidden})) if hidden[0].name is None else f"state {_named(hidden)}"
    layers = len({p.layer for p in hidden})
    kept = described(m.cell).kept
    made = f"{layers} layers of {sizes} neurons ({kinds})" if kept is None else f"{sizes} {kept}"
    return f"{described(m.cell).about}: {made}, {m.training.parameters:,} parameters. {CAUSAL if m.streams else WHOLE}"


def _named(hidden: list[Part]) -> str:
    return " and ".join(dict.fromkeys(str(p.name) for p in hidden))


def _contract(m: Manifest, content: str) -> str:
    rows = [f"| `{t.name}` | {t.dtype} | {list(t.shape)} |".replace("'", "") for t in (*m.inputs, *m.outputs)]
    table = "\n".join(["| | type | shape |", "|---|---|---|", *rows])
    start = "starts a sequence" if m.streams else "is what both directions start from; what comes out of it leads nowhere"
    start = start if m.part("hidden") is not None else "goes in, and nothing reads it"
    words = [f"B rows, T steps, each row valid up to `lengths`. A zero row of `state` ({m.state_size} numbers) {start}.", content]
    if m.opset >= STANDARD:
        words.append(LINEAR)
        return table + "\n\n" + "\n".join(words)
    words += dict.fromkeys([described(m.cell).carried, *([CELLS["indrnn"].carried] if any(p.u for p in m.state) else [])])
    return table + "\n\n" + "\n".join(words)


def _events(m: Manifest, e: Events) -> str:
    nothing = (m.labels or ("",))[0]
    return (
        f"`{nothing}` is the class of all steps without an event. A class lasts while its score (softmax) is at least {e.off:g}, or until "
        f"another's reaches {e.on:g}. An event is told in the first step in which the score has been at least {e.on:g} for {e.least} steps "
        f"in a row, once while the class lasts, and not within {e.pause} steps after another. The last {EVENT} columns of `logits` are its "
        "class (0 where none is told), how many steps ago the class began to last, and its best score since."
    )


def _figures(m: Manifest) -> str:
    if not m.figures:
        return "None measured yet."
    rows = [f"| {f.name} | {f.value:g} {f.unit} | {f.protocol} | {f.test_evaluations} |" for f in m.figures]
    head = ["| | | measured how | test evaluations |", "|---|---|---|---|"]
    count = (
        "The last column: the how many-th look of these weights at the test data gave the figure (0: no test data). Later looks measured "
        "the same weights again, by another road; nothing was chosen by any of them. `_served` figures went through the running service "
        "(`python bench/accuracy.py … --figures figures.json`), the others come from `indrnn evaluate --record`; streams of the "
        "two are drawn in different orders. `val` is validation data, which the recipe was chosen by."
    )
    return "\n".join([*head, *rows]) + "\n\n" + count


def _endless(m: Manifest) -> str:
    if not m.streams and m.limits.max_position is None and m.part("hidden") is not None:
        return "It reads whole sequences, as long as those that it has learned from."
    if m.cell != "indrnn":
        limit = "" if m.limits.max_position is None else f" A sequence may not be longer than {m.limits.max_position:,} steps."
        return described(m.cell).endless + limit
    largest = f"The largest |u| of a recurrent neuron is {m.max_abs_u:g}"
    if m.limits.max_position is None:
        return f"{largest}, {described(m.cell).endless}"
    return f"{largest}: a sequence may not be longer than {m.limits.max_position:,} steps."


def _provenance(m: Manifest) -> str:
    how = "" if m.training.optimizer is None else f"Trained by {m.training.optimizer}. "
    return (
        f"{how}Seed {m.training.seed}; source revision `{m.source_revision}`; written {m.created}; opset {m.opset}. The largest difference "
        f"between ONNX Runtime and PyTorch in a logit is {m.parity_error:.1e}. SHA-256 of `model.onnx`: `{m.sha256}`."
    )
