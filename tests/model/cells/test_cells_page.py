"""docs/cells.md has a row for every cell, and its formulas of parameters and state are what the cells have."""

import math
import re
from pathlib import Path

import pytest

from indrnn.model.cells.table import CELLS

PAGE = (Path(__file__).parents[3] / "docs" / "cells.md").read_text(encoding="utf-8")
H, F = 64, 24


def rows() -> dict[str, list[str]]:
    """The cells of the first table, by the name in its first column."""
    table = PAGE.split("\n\n| cell | equations")[1].split("\n\n")[0]
    split = [re.split(r"\s*\|\s*", line.strip("| ")) for line in table.splitlines()[2:]]
    return {cells[0].strip("`"): cells for cells in split}


def value(formula: str) -> float:
    """`3 H (F + 1) + 2 H²` in numbers: what stands side by side is multiplied."""
    formula = formula.replace("²", " ** 2").replace("log2(", "log(").removesuffix("bytes").strip()
    formula = re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", formula)
    return float(eval(formula, {"__builtins__": {}}, {"H": H, "F": F, "log": math.log2}))  # a page of ours


def test_every_cell_has_a_row() -> None:
    assert list(rows()) == list(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_the_formulas_are_what_the_cell_has(name: str) -> None:
    cell = CELLS[name](H if CELLS[name].projected else F, H)
    parameters = sum(p.numel() for p in cell.parameters()) + (H * (F + 1) if cell.projected else 0)
    _, _, _, of_weights, of_state = rows()[name]
    assert value(of_weights) == parameters
    assert value(of_state) == 4 * cell.state_size
