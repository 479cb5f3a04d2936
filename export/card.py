"""The model card: CARD.md, the manifest in words."""

from indrnn.export.bundle import OTHER, Manifest, Part
from indrnn.model.cells.table import CELLS

_WHAT = {
    "action": "Reads human skeletons frame by frame and says, after every frame, which action they show.",
    "chars": "Reads text character by character and says, after every character, which comes next; it can write, too.",
}
_LIMITS = {
    "action": (
        "It knows the actions listed below and no others: shown anything else, it may name one of them all the same, often with a high "
        "score. {recorded}; expect less of other people, "
        "views and sensors, and measure before relying on it. It is not meant for surveillance, nor for decisions about persons."
    ),
    "chars": (
        "It imitates the texts it was trained on, their views and their spelling included: mostly real words, phrases that hold, sentences "
        "that do not. What it writes is neither true nor advice; it "
        "knows no words outside its alphabet and no language but that of those texts."
    ),
}


def card(manifest: Manifest, export_command: str) -> str:
    """Return CARD.md for a bundle; export_command is what wrote it."""
    m = manifest
    sections = [
        f"# {m.name} {m.version}\n\n{_WHAT[m.kind]}\n\n{_network(m)}",
        "## What goes in and what comes out\n\n" + _contract(m),
        "## Figures\n\n" + _figures(m),
        "## Training data\n\n"
        + ("\n".join(f"- **{d.name}**. Terms: {d.terms}. Source: {d.citation}" for d in m.training.data) or "Not stated."),
        f"## Limits\n\n{_other(m)}{_LIMITS[m.kind].format(recorded=_recorded(m))}\n\n{_endless(m)}",
        "## How to make it again\n\n```\n" + f"{m.training.command}\n{export_command}\n```\n\n" + _provenance(m),
    ]
    if m.labels is not None:
        sections.append("## Classes\n\n" + ", ".join(m.labels))
    if m.alphabet is not None:
        sections.append("## Alphabet\n\nBlank, newline, and: " + " ".join(f"`{c}`" for c in m.alphabet if not c.isspace()))
    return "\n\n".join(sections) + "\n"


def _network(m: Manifest) -> str:
    hidden = [p for p in m.state if p.role == "hidden"]
    sizes = " + ".join(dict.fromkeys(str(p.size) for p in hidden))
    kinds = ", ".join(sorted({str(p.activation) for p in hidden})) if hidden[0].name is None else f"state {_named(hidden)}"
    layers = len({p.layer for p in hidden})
    return (
        f"{CELLS[m.cell].about}: {layers} layers of {sizes} neurons ({kinds}), {m.training.parameters:,} parameters. "
        "Causal: an answer depends on what came before it and on nothing after."
    )


def _named(hidden: list[Part]) -> str:
    return " and ".join(dict.fromkeys(str(p.name) for p in hidden))


def _contract(m: Manifest) -> str:
    rows = [f"| `{t.name}` | {t.dtype} | {list(t.shape)} |".replace("'", "") for t in (*m.inputs, *m.outputs)]
    table = "\n".join(["| | type | shape |", "|---|---|---|", *rows])
    words = [f"B rows, T steps, each row valid up to `lengths`. A zero row of `state` ({m.state_size} numbers) starts a sequence."]
    if m.kind == "action":
        others = ", ".join(f"`{k}`" for k in sorted(m.layouts) if k != m.layout)
        words.append(
            f"`x` is raw joint positions in metres (x to the right of a person who faces the camera: negative at the left hand; y up; "
            f"z away from the camera) at {m.hz:g} frames a second, in the joint order `{m.layout}`"
            + (f" ({others} can be mapped to it)" if others else "")
            + f"; persons at once: {m.persons}, an absent one is all zeros. Centring and scaling are part of the graph. "
            "Turning by some 30° and shifting do no harm; a mirrored or flipped axis or another unit gives wrong answers, often sure ones. "
            f"`logits` are scores of the {m.classes} classes below."
        )
    else:
        words.append(f"`x` is indices into the alphabet below; text is NFC. `logits` are scores of the next character, one of {m.classes}.")
    words += dict.fromkeys([CELLS[m.cell].carried, *([CELLS["indrnn"].carried] if any(p.u for p in m.state) else [])])
    return table + "\n\n" + "\n".join(words)


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


def _other(m: Manifest) -> str:
    if m.other_below is None:
        return ""
    return (
        f"A score below {m.other_below:g} is answered with the label `{OTHER}`: on validation clips 5 % of the known motions fall below. "
        "`top` then still lists the classes. "
    )


def _recorded(m: Manifest) -> str:
    """Return what is known of the recordings: of anybody's own clips nothing."""
    if any(d.name == "UTD-MHAD" for d in m.training.data):
        return "It was trained on recordings of a few adults in one laboratory, facing one depth camera"
    return "It knows the people, the places and the sensors of its recordings"


def _endless(m: Manifest) -> str:
    if m.cell != "indrnn":
        limit = "" if m.limits.max_position is None else f" A sequence may not be longer than {m.limits.max_position:,} steps."
        return CELLS[m.cell].endless + limit
    largest = f"The largest |u| of a recurrent neuron is {m.max_abs_u:g}"
    if m.limits.max_position is None:
        return f"{largest}, {CELLS[m.cell].endless}"
    return f"{largest}: a sequence may not be longer than {m.limits.max_position:,} steps."


def _provenance(m: Manifest) -> str:
    return (
        f"Seed {m.training.seed}; source revision `{m.source_revision}`; written {m.created}; opset {m.opset}. The largest difference "
        f"between ONNX Runtime and PyTorch in a logit is {m.parity_error:.1e}. SHA-256 of `model.onnx`: `{m.sha256}`."
    )
