"""A class name means one thing in the package: no two classes share one, but for those that are listed here with a reason."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("client", "export", "frames", "indrnn", "kernels", "model", "service")

# (names, the files that share each of them, reason)
SHARED: list[tuple[set[str], tuple[str, ...], str]] = [
    (
        {"Client", "Generation", "Session"},
        ("client/aio.py", "client/sync.py"),
        "the two shells of the client are twins: a user changes the import and adds `await`",
    ),
    (
        {"BadInput", "Conflict", "NotFound", "SessionLimit", "StepConflict", "StepGap", "Unauthorized", "Unavailable"},
        ("client/errors.py", "service/errors.py"),
        "the client raises by its name what the service has refused, and may import nothing of the service",
    ),
    (
        {"Prediction", "SessionInfo"},
        ("client/answers.py", "service/http/schema.py"),
        "the client's reading of what the API documents under that name",
    ),
    ({"Char", "Result"}, ("client/answers.py", "service/session/machine.py"), "the client's reading of that message of the stream"),
    ({"Part"}, ("client/answers.py", "export/bundle.py"), "the client's reading of that entry of the manifest"),
    ({"Refused"}, ("client/errors.py", "service/session/machine.py"), "the client's public base of what the service refuses"),
    ({"Session"}, ("client/sync.py", "service/session/machine.py"), "one client's state, as the API calls it on both sides"),
]


def classes() -> dict[str, list[str]]:
    """Return the files, relative to the root, in which each class name is defined, once for each definition."""
    found = defaultdict(list)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):  # follows no links: those of indrnn/ lead to the other folders
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(str(path.relative_to(ROOT)))
    return found


def clashes() -> dict[str, list[str]]:
    """Return the names of several classes with their files; the files of a listed exception count as one."""
    found = classes()
    for names, files, _ in SHARED:
        for name in names:
            for file in files[1:]:
                if file in found[name]:
                    found[name].remove(file)
    return {name: sorted(files) for name, files in found.items() if len(files) > 1}


def test_a_class_name_stands_once_in_the_package() -> None:
    assert len(classes()) > 200
    assert clashes() == {}


def test_every_exception_is_still_needed() -> None:
    found = classes()
    stale = {(name, file) for names, files, _ in SHARED for name in names for file in files if file not in found[name]}
    assert not stale
