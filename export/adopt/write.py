"""From an adopted file to bundles/<name>/<version>: the manifest, the card, and the folder, which appears whole or not at all."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from indrnn.export.adopt.adoption import Adoption, answers, check_adopted, half, parts, sample, save, saved
from indrnn.export.adopt.handfed import answers_by_hand, open_session
from indrnn.export.adopt.plan import Axes, Plan
from indrnn.export.bundle import (
    HALF_PARITY_BOUND,
    OP_VERSION,
    PARITY_BOUND,
    WEIGHTS,
    Adopted,
    AdoptedTensor,
    Bundle,
    Limits,
    Manifest,
    Part,
    Tensor,
    Training,
    digest,
    read,
)
from indrnn.export.errors import AdoptError
from indrnn.export.folder import appearing, check_names, reasons, source_revision, to_json
from indrnn.export.modalities.modality import Quantity, Returned

CELL = "adopted"
STEPS = 12  # that the file and its bundle are compared over, or windows


def write(
    adoption: Adoption,
    root: Path,
    name: str,
    version: str,
    *,
    command: str,
    hz: float | None = None,
    max_position: int | None = None,
    force: bool = False,
) -> Bundle:
    """Write root/<name>/<version>. command: what to type to do this again. hz: steps a second. max_position: steps a session may have.

    Raises AdoptError where the kit found a fault that is not allowed, ExportError where the version exists (unless force).
    """
    check_names(name, version)
    check_adopted(adoption)
    folder = root / name / version
    if folder.exists() and not force:
        raise AdoptError(f"{folder} exists; a published version does not change (--force replaces it)")
    error = parity(adoption)
    with appearing(folder, root / f".partial-{name}-{version}") as partial:
        save(adoption.model, partial / "model.onnx")
        described = manifest(adoption, partial, name, version, command, error, hz, max_position)
        (partial / "manifest.json").write_text(to_json(described), encoding="utf-8")
        (partial / "CARD.md").write_text(card(described), encoding="utf-8")
    return read(folder)


def parity(adoption: Adoption) -> float:
    """Return the largest difference between the file fed by hand and the bundle's graph a step at a time, of 1 or the largest answer."""
    plan = adoption.plan
    x = sample(plan, np.random.default_rng(0), 1, STEPS * max(plan.window, 1))
    want = answers_by_hand(open_session(adoption.source.path), plan, x[0])
    state, found = np.zeros((1, plan.state_size), np.float32), []
    with saved(adoption.model) as path:
        session = open_session(path)
        size = max(plan.window, 1)
        for at in range(0, x.shape[1], size):
            piece = x[:, at : at + size]
            logits, state = session.run(["logits", "state_out"], {"x": piece, "lengths": np.array([piece.shape[1]]), "state": state})
            found.append(logits[0])
    error = float(np.abs(np.concatenate(found) - want).max() / max(1.0, float(np.abs(want).max())))
    most = HALF_PARITY_BOUND if half(plan) else PARITY_BOUND
    if not error <= most:
        raise AdoptError(f"the file and its bundle differ by {error:.2g} after the same steps; expected at most {most:g}")
    return error


def _parts(plan: Plan) -> list[Part]:
    """Return the state's parts: the file's own are hidden, and have names, types and shapes."""
    own = {s.name: (k, s) for k, s in enumerate(plan.states)}
    roles = {"started": "started", "samples": "window", "samples since the last window": "position", "the last answer": "last_logits"}
    found = []
    for index, stretch in enumerate(parts(plan)):
        if index < len(plan.states):
            layer, s = own[stretch.name]
            found.append(
                Part(
                    role="hidden",
                    layer=layer,
                    name=s.name,
                    offset=stretch.offset,
                    size=stretch.size,
                    dtype=s.dtype,
                    shape=tuple(s.axes.said()),
                )
            )
        else:
            found.append(Part.model_validate({"role": roles[stretch.name], "offset": stretch.offset, "size": stretch.size}))
    return found


def _numbered(name: str, size: int) -> list[str]:
    return [name] if size == 1 else [f"{name}_{i}" for i in range(size)]


def _quantities(names: list[str]) -> tuple[Quantity, ...]:
    """Return quantities of these names; one that is there already gets a stroke."""
    seen: set[str] = set()
    for i, name in enumerate(names):
        while name in seen:
            name += "'"
        seen.add(name)
        names[i] = name
    return tuple(Quantity(name=name) for name in names)


def _told(name: str, dtype: str, axes: Axes) -> AdoptedTensor:
    return AdoptedTensor(name=name, dtype=dtype, shape=tuple(axes.said()))


def manifest(
    adoption: Adoption, folder: Path, name: str, version: str, command: str, error: float, hz: float | None, max_position: int | None
) -> Manifest:
    """Return the manifest of the graph that lies in a folder."""
    plan, source = adoption.plan, adoption.source
    weights = folder / WEIGHTS
    checks = {f.check: f.note or "ok" if f.fault is None else f"FAULT, allowed: {f.fault}" for f in adoption.findings}
    constants = [
        AdoptedTensor(name=n, dtype=str(v.dtype), shape=v.shape, value=tuple(np.asarray(v, np.float64).reshape(-1).tolist()))
        for n, v in plan.constants.items()
    ]
    tensor = [Tensor(name="x", dtype="float32", shape=("B", "T", plan.features)), Tensor(name="lengths", dtype="int64", shape=("B",))]
    try:
        return Manifest(
            name=name,
            version=version,
            modality="tensor",
            kind="tensor",
            cell=CELL,
            features=_quantities([n for f in plan.fed for n in _numbered(f.name, f.axes.size)]),
            values=_quantities([n for a in answers(plan) for n in _numbered(a.name, a.size)]),
            returned=tuple(Returned(name=a.name, shape=a.axes.own) for a in plan.answers),
            window=plan.window or None,
            answer="step",
            hz=hz,
            sha256=digest(folder / "model.onnx"),
            weights_sha256=digest(weights) if weights.is_file() else None,
            op_version=OP_VERSION,
            opset=source.opset,
            inputs=(*tensor, Tensor(name="state", dtype="float32", shape=("B", plan.state_size))),
            outputs=(
                Tensor(name="logits", dtype="float32", shape=("B", "T", plan.logit_size)),
                Tensor(name="state_out", dtype="float32", shape=("B", plan.state_size)),
            ),
            state=tuple(_parts(plan)),
            limits=Limits(max_position=max_position, max_batch=1 if plan.alone else None),
            training=Training(
                command=command, seed=0, parameters=sum(int(np.prod(w.dims)) for w in source.model.graph.initializer), data=()
            ),
            figures=(),
            adopted=Adopted(
                file=source.path.name,
                sha256=source.sha256,
                inputs=tuple(_told(f.name, f.dtype, f.axes) for f in plan.fed),
                outputs=tuple(_told(a.name, a.dtype, a.axes) for a in plan.answers),
                constants=tuple(constants),
                context=plan.context,
                checks=checks,
                notes=plan.notes,
            ),
            parity_error=error,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source_revision=source_revision(),
        )
    except ValidationError as invalid:
        raise AdoptError(f"the file does not make a manifest: {reasons(invalid)}") from invalid


def card(m: Manifest) -> str:
    """Return CARD.md: the manifest in words."""
    assert m.adopted is not None
    a = m.adopted
    tensor = [f"| `{t.name}` | {t.dtype} | {list(t.shape)} |".replace("'", "") for t in (*m.inputs, *m.outputs)]
    held = [f"| `{p.name}` | {p.dtype} | {list(p.shape or ())} | {p.offset} | {p.size} |".replace("'", "") for p in m.state if p.name]
    fed = [f"`{t.name}` {t.dtype} {list(t.shape)}".replace("'", "") for t in a.inputs]
    given = [f"`{t.name}` {t.dtype} {list(t.shape)}".replace("'", "") for t in a.outputs]
    constants = [f"`{t.name}` is always {list(t.value or ())[:4]}" for t in a.constants]
    window = ""
    if m.window:
        after = f" after {a.context} of context" if a.context else ""
        window = (
            f" An answer takes {m.window} steps{after}: samples that complete no window are kept, and answer nothing yet. The last column "
            "of `logits` is 1 where a window ends; until the next one the others stay."
        )
    sections = [
        f"# {m.name} {m.version}\n\nAdopted from `{a.file}`: reads rows of {len(m.features or ())} numbers step by step. Nothing but its "
        "states is known of it: what it was made for, and how good it is at that, stands with the file.",
        "## What goes in and what comes out\n\n| | type | shape |\n|---|---|---|\n" + "\n".join(tensor),
        f"A row of `x` is the numbers of {', '.join(fed)}; of `logits` those of {', '.join(given)}.{window} "
        + ("; ".join(constants) + "." if constants else ""),
        "## State\n\n| | type | shape in the file | offset | numbers |\n|---|---|---|---|---|\n" + "\n".join(held),
        "A zero row of `state` is the start" + (", also of what starts from other values." if m.part("started") else "."),
        "## Checks\n\n" + "\n".join(f"- {name}: {said}" for name, said in a.checks.items()),
        "## How to make it again\n\n```\n" + m.training.command + "\n```\n\n"
        f"SHA-256 of `{a.file}`: `{a.sha256}`, of `model.onnx`: `{m.sha256}`. The largest difference between the file fed by hand and this "
        f"bundle is {m.parity_error:.1e}, of the largest answer.",
    ]
    return "\n\n".join([*sections, *(["## Notes\n\n" + "\n".join(f"- {n}" for n in a.notes)] if a.notes else [])]) + "\n"
