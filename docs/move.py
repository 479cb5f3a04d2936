"""Moves 0.1.0's files to the rooms of 0.2.0 and rewrites what names them; docs/moves.md is its table, printed.

python docs/move.py rooms      moves files, rewrites imports, dotted names in strings and paths in prose
python docs/move.py commands   rewrites `python -m model …` and the like to `indrnn …`
python docs/move.py table      prints docs/moves.md

To carry over a branch that was begun on 0.1.0: run both, in this order, on 0.1.0 and on the branch, commit each, and apply the difference
of the two commits to main with `git apply --3way`. What a branch added to an old __main__.py is carried over by hand.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TOPS = ("service", "model", "export", "client", "kernels", "frames")
ROOMS = {
    "service": {
        "http": "routes session_routes schema metrics docs cors",
        "stream": "stream:socket lane:fast_path intake:plain_steps",
        "openai": "completions:routes completion_request:request completion_reply:reply completion_run:run completion_schema:schema",
        "oip": "oip.under_way:grpc_stream oip.documented:openapi",
        "wire": "websocket timed_http upgrade",
        "serving": "models repository access places:connections sessions body backend leaving:disconnect oip.signature:signature",
        "engine": "batcher choice:schedule engine:runtime inbox:mailbox jobs outcome turn work clips statistics quota census:population",
        "store": "store:protocol sqlite_store:sqlite redis_store:redis kept:cache probe",
        "session": "session:machine session_id:ids record sampling state_file",
    },
    "model": {
        "cells": "recurrence reference fused recurrent_weight norm chunked layer stacks baselines:table",
        "nets": "network action features adding chars pixels sequence words",
        "data": "data:sets skeletons:clips splits ntu mislabelled mnist treebank text marks:adding bodies camera augment",
        "training": "task checkpoint learner clip_learner stream_learner measure robust:robustness sampling "
        "calibrate:calibration train:training quiet:lightning_messages",
        "tasks": "tasks:table train_action:action train_adding:adding train_chars:chars train_mnist:mnist train_ntu:ntu "
        "train_ptb_char:ptb_char train_ptb_word:ptb_word train_skeleton:skeleton",
        "commands": "limits evaluate reproduce curves:plot inspect_bundle inspect_adding published:import_published",
    },
}
# Names that went from one module to another, by the module's new name.
SYMBOLS = {
    ("indrnn.service.engine.clips", "hold"): "indrnn.frames.joints",
    ("indrnn.service.engine.clips", "FARTHEST"): "indrnn.frames.joints",
    ("indrnn.model.data.camera", "hold"): "indrnn.frames.joints",
    ("indrnn.service.engine.clips", "resample"): "indrnn.frames.rate",
    ("indrnn.service.engine.clips", "HZ_RANGE"): "indrnn.frames.rate",
    ("indrnn.service.engine.clips", "may_be_left_over"): "indrnn.frames.rate",
    ("indrnn.service.session.machine", "Carry"): "indrnn.frames.rate",
    ("indrnn.service.store.protocol", "open_store"): "indrnn.service.store.address",
    ("indrnn.service.engine.work", "PIECE"): "indrnn.service.engine.runtime",
    ("indrnn.service.http.routes", "owner_of"): "indrnn.service.serving.request",
    ("indrnn.service.http.routes", "raw_body"): "indrnn.service.serving.request",
    ("indrnn.service.http.routes", "read_body"): "indrnn.service.serving.request",
    ("indrnn.service.http.routes", "same_version"): "indrnn.service.serving.models",
    ("indrnn.model.tasks.skeleton", "Source"): "indrnn.model.training.source",
    ("indrnn.model.cells.chunked", "Gathered"): "indrnn.model.cells.norm",
    ("indrnn.model.cells.chunked", "ReachedError"): "indrnn.model.cells.norm",
}
SUFFIXES = {"docs": ".html"}  # what lies beside a module and goes with it
TESTS = {
    "service": {
        "http": "openapi",
        "openai": "completion_reply completion_request",
        "oip": "protocol tensors",
        "wire": "wire_frames",
        "serving": "access leaving other repository moved sequence",
        "engine": "batcher clips drawing fairness quota statistics turn moves replicas",
        "store": "redis_store sqlite_store store probe",
        "session": "sampling session state_file",
    },
    "model": {
        "cells": "chunked narrow_recurrence recurrence stacks theorems layers_page bench_train_step",
        "nets": "features networks",
        "data": "camera clip_file marks mislabelled mnist ntu skeletons text treebank",
        "training": "calibrate measure processes train",
        "tasks": "tasks train_skeleton",
        "commands": "curves inspect inspect_adding options published read_outs",
    },
}
# Tests that name the packages in code of their own.
LITERALS = {
    "WARNING service.batcher: a": "WARNING indrnn.service.engine.batcher: a",
    "import sys, export.bundle; print": "import sys, indrnn.export.bundle; print",
    "'onnxruntime', 'model') if m in": "'onnxruntime', 'indrnn.model') if m in",
    "from indrnn.model.__main__ import _parser, main": "from indrnn.__main__ import build_parser, main",
    "from indrnn.model.__main__ import _parser": "from indrnn.__main__ import build_parser",
    "from indrnn.model.__main__ import main": "from indrnn.__main__ import main",
    "(_parser(), ": "(build_parser(), ",
    "= _parser().parse_args": "= build_parser().parse_args",
    "import indrnn.export.__main__ as command": "from indrnn.__main__ import main\nfrom indrnn.export import command",
    'command.main(["runs/tiny.pt", "bundles", *words])': 'main(["export", "runs/tiny.pt", "bundles", *words])',
    "command.main([str(": 'main(["export", str(',
    'command.main(["action.pt"': 'main(["export", "action.pt"',
    'command.main(["mine.pt"': 'main(["export", "mine.pt"',
    "import indrnn.service.__main__ as command": "from indrnn.service import command",
    'pkgutil.iter_modules(service.__path__, "service.")': 'pkgutil.walk_packages(service.__path__, "indrnn.service.")',
    'module.name != "indrnn.service.__main__"': 'module.name != "indrnn.service.command"',
    "import pkgutil, importlib, service\n": "import pkgutil, importlib\nfrom indrnn import service\n",
    '"service.batcher"': '"indrnn.service.engine.batcher"',
    'name.split(".")[0] in ("torch", "onnx", "lightning", "model", "onnxscript")': (
        'name.split(".")[0] in ("torch", "onnx", "lightning", "onnxscript") or name.startswith("indrnn.model")'
    ),
}
SKIPPED = {"docs/move.py", "docs/moves.md", "CHANGELOG.md"}


def modules() -> dict[str, str]:
    """Old dotted name -> new one, every module of ours."""
    found = {}
    for top, rooms in ROOMS.items():
        for room, names in rooms.items():
            for entry in names.split():
                old, _, new = entry.partition(":")
                found[f"{top}.{old}"] = f"indrnn.{top}.{room}.{new or old}"
    found["model.layouts"] = "indrnn.frames.layouts"
    return found


MODULES = modules()


def renamed(dotted: str) -> str:
    """The new name of a dotted name that begins with a module or package of ours."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        if new := MODULES.get(".".join(parts[:n])):
            return ".".join([new, *parts[n:]])
    return dotted if parts[0] == "indrnn" else f"indrnn.{dotted}"


def files(*patterns: str) -> Iterator[Path]:
    """Tracked files of these patterns."""
    for name in subprocess.run(["git", "ls-files", *patterns], capture_output=True, text=True, check=True).stdout.splitlines():
        if name not in SKIPPED and not name.startswith(("indrnn/", "bundles/")) and Path(name).is_file():
            yield Path(name)


def is_module(package: str, name: str) -> bool:
    """Whether `from package import name` names a module of ours."""
    return f"{package}.{name}" in MODULES or f"{package}.{name}" in OLD_MODULES


OLD_MODULES = {".".join(p.with_suffix("").parts) for top in TOPS for p in Path(top).rglob("*.py") if p.name != "__init__.py"}


def imports(text: str) -> str:
    """The same source with its imports renamed; what is imported keeps the name it had in the file."""
    lines = text.splitlines(keepends=True)
    changes = []
    rest: list[str] = []
    for node in ast.walk(ast.parse(text)):
        old: list[str] = []
        ours = isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in (*TOPS, "indrnn") and not node.level
        if isinstance(node, ast.ImportFrom) and node.module and ours:
            rest = []
            for alias in node.names:
                if is_module(node.module, alias.name):
                    package, _, leaf = renamed(f"{node.module}.{alias.name}").rpartition(".")
                    kept = alias.asname or alias.name
                    old.append(f"from {package} import {leaf}" + (f" as {kept}" if kept != leaf else ""))
                elif (renamed(node.module), alias.name) in SYMBOLS:
                    place = SYMBOLS[renamed(node.module), alias.name]
                    old.append(f"from {place} import {alias.name}" + (f" as {alias.asname}" if alias.asname else ""))
                else:
                    rest.append(alias.name + (f" as {alias.asname}" if alias.asname else ""))
            if rest:
                old.append(f"from {renamed(node.module)} import {', '.join(rest)}")
        elif isinstance(node, ast.Import) and any(a.name.split(".")[0] in TOPS for a in node.names):
            old.extend(f"import {renamed(a.name)}" + (f" as {a.asname}" if a.asname else "") for a in node.names)
        if isinstance(node, ast.ImportFrom) and old == [f"from {node.module} import {', '.join(rest)}"]:
            continue
        if old:
            assert node.end_lineno
            tail = lines[node.end_lineno - 1][node.end_col_offset :].rstrip("\n")
            indent = " " * node.col_offset
            first = lines[node.lineno - 1][: node.col_offset]
            comment = next(
                (line[line.index("  #") :].rstrip("\n") for line in lines[node.lineno - 1 : node.end_lineno] if "  # " in line), ""
            )
            block = first + f"\n{indent}".join(old) + (tail or comment) + "\n"
            changes.append((node.lineno - 1, node.end_lineno, block))
    for start, end, block in sorted(changes, reverse=True):
        lines[start:end] = [block]
    return "".join(lines)


def strings(text: str) -> str:
    """Dotted names at the start of string literals, as monkeypatch takes them, and imports within programs in strings."""
    for old, new in LITERALS.items():
        text = text.replace(old, new)

    def literal(found: re.Match[str]) -> str:
        dotted = found.group(2)
        known = any(dotted == m or dotted.startswith(m + ".") for m in OLD_MODULES)
        return found.group(1) + (renamed(dotted) if known else dotted)

    text = re.sub(r"""(["'])((?:service|model|export|client|kernels)(?:\.\w+)+)""", literal, text)

    def program(found: re.Match[str]) -> str:
        return f"{found.group(1)}from {renamed(found.group(2))} import"

    return re.sub(r"(^|[\"'(]|; )from ((?:service|model|export|client|kernels)(?:\.\w+)*) import", program, text, flags=re.M)


def paths(text: str) -> str:
    """Paths of moved files in prose and comments."""
    for old, new in sorted(MODULES.items(), key=lambda pair: -len(pair[0])):
        was, now = old.replace(".", "/") + ".py", new.removeprefix("indrnn.").replace(".", "/") + ".py"
        text = re.sub(rf"(?<![\w/]){re.escape(was)}\b", now, text)
    for old, new in test_moves().items():
        text = re.sub(rf"(?<![\w/]){re.escape(old)}\b", new, text)
    return text


def test_moves() -> dict[str, str]:
    """Old path -> new one of the tests."""
    return {
        f"tests/{top}/test_{name}.py": f"tests/{top}/{room}/test_{name}.py"
        for top, rooms in TESTS.items()
        for room, names in rooms.items()
        for name in names.split()
    }


def move() -> None:
    """git mv of every file that has a new place; each new room has an __init__.py."""
    moves = {old.replace(".", "/") + ".py": new.removeprefix("indrnn.").replace(".", "/") + ".py" for old, new in MODULES.items()}
    moves |= test_moves()
    for old, new in list(moves.items()):
        for stem, suffix in SUFFIXES.items():
            if Path(old).name == stem + ".py":
                moves[str(Path(old).with_suffix(suffix))] = str(Path(new).with_suffix(suffix))
    for old, new in moves.items():
        if Path(old).is_file():
            Path(new).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["git", "mv", old, new], check=True)
    for top, rooms in ROOMS.items():
        for room in rooms:
            (Path(top) / room / "__init__.py").touch()
    subprocess.run(["git", "add", *TOPS], check=True)


def rooms() -> None:
    """Moves, then rewrites."""
    deeper = set(test_moves().values())
    move()
    for path in files("*.py"):
        text = path.read_text()
        new = paths(strings(imports(text)))
        if str(path) in deeper and path.parts[0] == "tests":  # one folder further down
            new = new.replace("Path(__file__).parent.parent.parent", "Path(__file__).parents[3]")
        if new != text:
            path.write_text(new)
    for path in files("*.md", "*.h", "*.cpp", "*.cu", "Makefile", "*.yml"):
        text = path.read_text()
        if (new := paths(text)) != text:
            path.write_text(new)
    for command in (["check", "--fix", "--select", "I", "-q", "."], ["format", "-q", "."]):
        subprocess.run([sys.executable, "-m", "ruff", *command], check=False)


SPELLINGS = (
    (r"python -m model\.ntu", "python -m indrnn.model.data.ntu"),
    (r"python -m service(?= (?:settings|openapi|backup|key)\b)", "indrnn"),
    (r"python -m service", "indrnn serve"),
    (r"python -m model", "indrnn"),
    (r"python -m export", "indrnn export"),
    (r"python -m kernels", "indrnn kernels"),
    (r'"-m", "(?:indrnn\.)?service", "(key|backup|settings|openapi)"', r'"-m", "indrnn", "\1"'),
    (r'"-m", "(?:indrnn\.)?service"', '"-m", "indrnn", "serve"'),
    (r'"-m", "(?:indrnn\.)?model"', '"-m", "indrnn"'),
    (r'"-m", "(?:indrnn\.)?(export|kernels)"', r'"-m", "indrnn", "\1"'),
)


def commands() -> None:
    """`indrnn …` for `python -m …`, in code, tests and prose; the cards and manifests of shipped bundles keep what made them."""
    for path in files("*.py", "*.md", "Makefile", "Dockerfile", "*.yml"):
        text = new = path.read_text()
        for old, spelling in SPELLINGS:
            new = re.sub(old, spelling, new)
        if new != text:
            path.write_text(new)


SINCE = {
    "service.engine: batcher jobs work turn mailbox outcome schedule": "indrnn.service.engine: requests port inbox loop runtime",
    "service.engine.clips": "indrnn.service.serving.skeleton",
    "service.engine.population, service.store.probe": "indrnn.service.store.refreshed",
    "service.serving: access body request disconnect": "indrnn.service.serving.request",
    "service.serving.models (reading, wording)": "indrnn.service.serving: skeleton text tensor",
    "service.serving.sessions (steps)": "indrnn.service.serving.steps",
    "service.session.record, service.store.cache": "indrnn.service.store.record",
    "service.stream: fast_path plain_steps": "indrnn.service.stream.plain_steps",
    "service.wire: timed_http upgrade": "indrnn.service.wire.http",
    "service.oip: ask message": "indrnn.service.oip.message",
    "service.oip: tensors rows": "indrnn.service.oip.rows",
    "model.nets.features": "indrnn.model.nets.action",
    "model.cells.baselines": "indrnn.model.cells: cell table independent gru lstm rnn",
    "export.sample": "indrnn.export.modalities",
}


def table() -> None:
    """Prints the table."""
    print("# Where files of 0.1.0 are\n")
    print("`docs/move.py` did this: imports, strings and paths in prose. Its docstring says how to carry over a branch begun on 0.1.0.\n")
    print("| 0.1.0 | now |\n|---|---|")
    for old, new in sorted(MODULES.items()):
        print(f"| `{old}` | `{new}` |")
    print("\nAll other modules keep their name below `indrnn.`: `client.sync` is `indrnn.client.sync`.")
    print("\nFiles that have been joined or rewritten since the move:\n\n| then | now |\n|---|---|")
    for old, new in SINCE.items():
        print(f"| `{old}` | `{new}` |")


if __name__ == "__main__":
    {"rooms": rooms, "commands": commands, "table": table}[sys.argv[1]]()
