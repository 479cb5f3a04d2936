"""How long classes and functions of the service are, so that one can read them, and that replies are typed and not asserted."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPLIES = {
    "Created",
    "Looked",
    "Result",
    "Follow",
    "Char",
    "Deleted",
    "Placed",
    "Forked",
    "Prompted",
    "Drawn",
    "Rewound",
    "Marked",
    "Scores",
}


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Every node of every file of the service."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            yield path, node


def test_no_class_is_longer_than_300_lines_and_no_function_than_60() -> None:
    sizes = [
        (isinstance(node, ast.ClassDef), (node.end_lineno or 0) - node.lineno + 1, f"{path.name}: {node.name}")
        for path, node in nodes()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(sizes) > 1_000
    assert [what for is_class, lines, what in sizes if lines > (300 if is_class else 60)] == []


def test_no_reply_of_an_engine_is_told_by_an_assertion() -> None:
    asserted = [
        f"{path.name}:{node.lineno}"
        for path, node in nodes()
        if isinstance(node, ast.Assert) and REPLIES & {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
    ]
    assert asserted == []
