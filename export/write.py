"""From a trained module and its description to bundles/<name>/<version>, checked before it is there."""

import json
import math
import os
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from indrnn.export import explain as explaining
from indrnn.export import graph, parity, standard
from indrnn.export.bundle import EXPLAIN, GRAPH, PARITY_BOUND, Bundle, Explanation, Figure, digest, read
from indrnn.export.card import card, with_explanation
from indrnn.export.errors import ExportError
from indrnn.export.folder import appearing, as_lines, check_names, to_json
from indrnn.export.manifest import content, manifest, parts
from indrnn.export.modalities.table import MODALITIES
from indrnn.model.cells.table import described
from indrnn.model.nets.network import StateNet
from indrnn.model.training.checkpoint import Meta

SEED = 0  # of the example and of the parity cases, so that an export can be repeated


def write(
    module: nn.Module,
    meta: Meta,
    root: Path,
    name: str,
    version: str,
    *,
    command: str,
    figures: tuple[Figure, ...] = (),
    max_position: int | None = None,
    force: bool = False,
    explain: bool = False,
    standard_ops: bool = False,
) -> Bundle:
    """Exports the module, checks it, and writes root/<name>/<version>; the folder appears whole or not at all.

    module, meta: as model/training/checkpoint.py loads them. command: what to type to do this again, for the card. figures: added to the
    checkpoint's; one of the same name replaces it. explain: write explain.onnx too. standard_ops: as `export`.
    Raises ExportError when the version exists (unless force), when ONNX Runtime and PyTorch differ by more than PARITY_BOUND, when
    name or version cannot be a folder's, or when the description is not a valid manifest; GraphError as export.graph does.
    """
    check_names(name, version)
    if isinstance(module, StateNet) and module.longest is not None:
        max_position = min(max_position or module.longest, module.longest)
    folder = root / name / version
    if folder.exists() and not force:
        raise ExportError(f"{folder} exists; a published version does not change (--force replaces it)")
    model, error = export(module, meta, max_position, standard_ops)
    with appearing(folder, root / f".partial-{name}-{version}") as partial:
        (partial / GRAPH).write_bytes(graph.serialize(model))
        described = manifest(meta, model, name, version, digest(partial / GRAPH), error, figures, max_position)
        if explain:
            described = described.model_copy(update={"explain": _explained(module, meta, partial)})
        (partial / "manifest.json").write_text(to_json(described), encoding="utf-8")
        (partial / "CARD.md").write_text(card(described, command), encoding="utf-8")
    return read(folder)


def export(module: nn.Module, meta: Meta, max_position: int | None = None, standard_ops: bool = False) -> tuple[onnx.ModelProto, float]:
    """Return the module's graph and its parity error, over at most max_position steps.

    standard_ops: at opset 27, with `LinearAttention` in place of our ops where their decays are positive (export/standard.py).
    Raises ExportError when the error is above PARITY_BOUND, GraphError when U is not as trained.
    """
    state = parts(meta)
    size = sum(p.size for p in state)
    told = content(meta)
    modality = MODALITIES[told.modality]
    try:
        source = modality.sample(told)
    except ValueError as missing:
        raise ExportError(str(missing)) from missing
    if not described(meta.cell).bounded and max_position is None:
        raise ExportError(f"nothing bounds the state of the cell {meta.cell}: --max-position is required, the steps a session may last")
    largest = max((abs(u) for p in state for u in p.u or ()), default=0.0)
    if largest >= 1 and max_position is None:  # said before the comparison, which such a state overflows
        raise ExportError(f"max |u| is {largest:g}, which bounds no state: --max-position is required, the steps a session may last")
    B, T = parity.EXAMPLE
    x = torch.from_numpy(source(np.random.default_rng(SEED), B, T))
    model = graph.to_onnx(module, x, torch.arange(T - B + 1, T + 1), torch.zeros(B, size))
    graph.check_recurrence(model, state, told.streams)
    if standard_ops:
        model, _ = standard.to_linear_attention(model)
    parity.check_cells(module)
    error = parity.largest_error(graph.serialize(model), module, source, size, SEED, max_position, modality.unit(told), told.streams)
    if not error <= PARITY_BOUND:  # a NaN is refused too
        raise ExportError(
            f"ONNX Runtime and PyTorch differ by {error:.2g} in a logit; expected at most {PARITY_BOUND:g}{_why(largest, max_position)}"
        )
    return model, error


def add_explanation(module: nn.Module, meta: Meta, root: Path, name: str, version: str, *, command: str) -> Bundle:
    """Adds explain.onnx to root/<name>/<version>, which exists and was exported from the same weights; its model.onnx stays as it is.

    The manifest gets its entry last, in one step, and the card a section and the command. Raises ExportError when the version is not
    there, has one already, or is another network's; BundleError, GraphError.
    """
    check_names(name, version)
    folder = root / name / version
    if not folder.exists():
        raise ExportError(f"{folder} does not exist: --explain without --add writes a version with its explanation")
    bundle = read(folder)
    if bundle.manifest.explain is not None:
        raise ExportError(f"{folder} has an explanation already; a published version does not change")
    published = onnx.load(bundle.graph)
    model, _ = export(module, meta, bundle.manifest.limits.max_position, standard.opset(published) == standard.OPSET)
    if not graph.same(model, published):
        raise ExportError(f"{folder}: expected the weights that it was exported from, got a checkpoint that makes another model.onnx")
    described = bundle.manifest.model_copy(update={"explain": _explained(module, meta, folder)})
    text = json.loads((folder / "manifest.json").read_bytes())
    text["explain"] = described.model_dump(mode="json")["explain"]
    if (folder / "CARD.md").is_file():
        _replace(folder / "CARD.md", with_explanation((folder / "CARD.md").read_text(encoding="utf-8"), described, command))
    _replace(folder / "manifest.json", as_lines(text))
    return read(folder)


def _replace(path: Path, text: str) -> None:
    """Write a file anew so that whoever reads it sees the old text or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _explained(module: nn.Module, meta: Meta, folder: Path) -> Explanation:
    """Write explain.onnx beside a folder's model.onnx, and return what the manifest says of it.

    Raises ExportError when its error is above PARITY_BOUND; the file is gone then.
    """
    assert isinstance(module, StateNet)
    told = content(meta)
    source = MODALITIES[told.modality].sample(told)
    B, T = parity.EXAMPLE
    x = torch.from_numpy(source(np.random.default_rng(SEED), B, T))
    made = explaining.to_onnx(module, x, torch.arange(T - B + 1, T + 1))
    path = folder / EXPLAIN
    path.write_bytes(graph.serialize(explaining.borrow(made, (folder / GRAPH).read_bytes())))
    error = explaining.largest_error(path, module, source, SEED)
    if not error <= PARITY_BOUND:  # a NaN is refused too
        path.unlink()
        raise ExportError(f"explain.onnx and PyTorch differ by {error:.2g}; expected at most {PARITY_BOUND:g}")
    return Explanation(sha256=digest(path), error=error)


def _why(largest: float, max_position: int | None) -> str:
    """Return why rounding errors may grow, where the recurrent weights make them."""
    if largest <= 1 or max_position is None:
        return ""
    powers = max_position * math.log10(largest)
    grown = f"{10**powers:.2g}" if powers < 300 else f"10^{powers:.0f}"
    return f": |u| is up to {largest:g}, by which they grow {grown}-fold over {max_position} steps; try a smaller --max-position"
