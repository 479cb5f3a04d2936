"""No module imports another in a circle; that none imports a floor above it is import-linter's to say (`make check`)."""

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]


def test_no_imports_run_in_a_circle() -> None:
    """Also not those that only type checkers see."""
    graph = grimp.build_graph("indrnn", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 150
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


def test_no_import_runs_up_a_floor() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_a_room_has_a_dozen_files_or_so() -> None:
    rooms = [path.parent for top in ("service", "model") for path in (ROOT / top).rglob("__init__.py")]
    full = {str(room.relative_to(ROOT)): n for room in rooms if (n := len(list(room.glob("*.py")))) > 15}
    assert not full
