"""The folders are one package: each module has one name, and each command imports what it needs and no more."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "indrnn"
FOLDERS = sorted(link.name for link in PACKAGE.iterdir() if (link / "__init__.py").is_file())
OPTIONAL = {"triton"}  # is not there for every platform

IMPORT_ALL = """
import collections, importlib, json, os, pkgutil, sys, warnings
warnings.simplefilter("ignore")
import indrnn
missing, failed = {}, {}
names = [m.name for m in pkgutil.walk_packages(indrnn.__path__, "indrnn.", lambda name: None)]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name
    except Exception as error:
        failed[name] = repr(error)
found = collections.defaultdict(set)
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None)
    if file and os.path.realpath(file).startswith(os.path.realpath(sys.argv[1]) + os.sep) and ".venv" not in file:
        found[os.path.realpath(file)].add(module.__name__)
twice = {file: sorted(held) for file, held in found.items() if len(held) > 1}
print(json.dumps({"names": names, "missing": missing, "failed": failed, "twice": twice}))
"""
# Runs `python -m indrnn …` as if some modules were not installed.
WITHOUT = """
import runpy, sys
sys.modules |= dict.fromkeys(sys.argv.pop(1).split(","))
runpy.run_module("indrnn", run_name="__main__", alter_sys=True)
"""


def environment(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_") and k not in ("HOST", "PORT")} | more


def python(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)


def test_every_module_can_be_imported_and_has_one_name() -> None:
    done = python("-c", IMPORT_ALL, str(ROOT))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {name.split(".")[1] for name in told["names"]} >= set(FOLDERS)
    assert not told["failed"]
    assert set(told["missing"].values()) <= OPTIONAL, told["missing"]
    assert told["twice"] == {}


def test_the_modules_are_all_those_of_the_folders() -> None:
    """Each folder of sources has an __init__.py: none is left out of the wheel, which takes packages alone."""
    assert FOLDERS == ["client", "export", "frames", "kernels", "model", "service"]
    for name in FOLDERS:
        for path in (ROOT / name).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folders_bare_name_is_refused_in_one_sentence(name: str) -> None:
    done = python("-c", f"import {name}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: import indrnn.{name}, not {name}: ")


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("indrnn.client.sync", "httpx", "client"),
        ("indrnn.client.aio", "websockets", "client"),
        ("indrnn.model.indrnn", "torch", "train"),
        ("indrnn.model.cells.stacks", "torch", "train"),
        ("indrnn.service.app", "fastapi", "serve"),
    ],
)
def test_a_module_says_which_extra_it_needs(module: str, missing: str, extra: str) -> None:
    """Whoever catches ModuleNotFoundError, to go on without, still does."""
    folder = ".".join(module.split(".")[:2])
    code = f"""
import sys
sys.modules[{missing!r}] = None
try:
    import {module}
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    assert python("-c", code).stdout == f"{missing} {folder} needs {missing}: pip install 'indrnn[{extra}]'\n"


@pytest.mark.parametrize(
    ("command", "missing", "extras"), [("serve", "fastapi", "extra 'serve'"), ("export", "torch", "extras 'train' and 'serve'")]
)
def test_a_command_says_which_extras_it_needs(command: str, missing: str, extras: str) -> None:
    done = python("-c", WITHOUT, missing, command)
    assert (done.returncode, done.stderr) == (1, f"indrnn {command} needs {missing}, which comes with the {extras}\n")


def test_help_needs_neither_torch_nor_fastapi() -> None:
    done = python("-c", WITHOUT, "torch,fastapi,numpy,pydantic,onnxruntime", "--help")
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert "serve" in done.stdout


def test_training_imports_nothing_of_the_service() -> None:
    done = python("-c", WITHOUT, "fastapi,uvicorn,starlette,onnxruntime", "train", "--help")
    assert done.returncode == 0, done.stderr
    assert "adding" in done.stdout


def test_serving_imports_nothing_of_training(tmp_path: Path) -> None:
    log = tmp_path / "log"
    env = environment(PORT="0", INDRNN_STORE=str(tmp_path / "sessions.db"))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", WITHOUT, "torch,lightning,onnx,matplotlib", "serve"], cwd=ROOT, env=env, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and "http://" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert "http://" in log.read_text(), log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.parametrize("args", [("-m", "indrnn", "serve"), ("-c", "import indrnn.service")])
def test_a_checkout_without_symbolic_links_says_so_in_one_sentence(args: tuple[str, ...], tmp_path: Path) -> None:
    """Git on Windows writes a link as a text file unless it is told otherwise."""
    (tmp_path / "indrnn").mkdir()
    for path in PACKAGE.iterdir():
        if path.is_symlink():
            (tmp_path / "indrnn" / path.name).write_text(os.readlink(path))
        elif path.is_file():
            shutil.copy(path, tmp_path / "indrnn")
    done = python(*args, cwd=tmp_path)
    assert done.returncode == 1
    assert "this checkout has no symbolic links" in done.stderr.splitlines()[-1]
    assert "install the wheel" in done.stderr.splitlines()[-1]
    if args[0] == "-m":
        assert len(done.stderr.splitlines()) == 1
