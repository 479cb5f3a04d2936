"""The tutorials for applications, ONNX users and operators, run as they stand there (tests/model has the researchers')."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CLASSES, ROOT, VERSION, Server
from test_readme import at


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """The blocks of a page in these languages: (language, text)."""
    found = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def run(language: str, text: str, folder: Path = ROOT, **env: str) -> str:
    """What a block prints."""
    text = text.replace(".venv/bin/indrnn", f"{sys.executable} -m indrnn")
    command = ["bash", "-ec", text] if language == "bash" else [sys.executable, "-c", text]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_")}
    done = subprocess.run(command, cwd=folder, env={**clean, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_tutorial_for_applications(server: Server) -> None:
    asked, told, followed, survived, errors = (run(lang, at(server, text)) for lang, text in blocks("tutorial-app.md", "bash", "python"))
    assert (json.loads(asked)["predictions"][0]["label"], json.loads(asked)["predictions"][0]["frames"]) == ("wave", 72)
    assert f"{CLASSES} motions at 30.0 frames a second" in told
    assert "utd20 20 ['head'" in told
    assert re.findall(r"^frame (\d+):", followed, re.M) == ["18", "36", "54", "72"]
    assert "frame 72: wave" in followed
    assert survived == "the session stands at step 1\nframe 72 wave\n"
    joints, misspelt = map(json.loads, errors.splitlines())
    assert (joints["detail"], joints["field"]) == ("expected 20 joints, got 1", "sequences[0][0]")
    assert (misspelt["detail"][:13], misspelt["field"]) == ("unknown field", "topk")


def test_the_tutorial_for_onnx_users() -> None:
    shown, pieces, ragged, fixed = (run(lang, text) for lang, text in blocks("tutorial-onnx.md", "python"))
    assert re.search(r"^x +tensor\(float\) +\['B', 'T', 1, 20, 3\]$", shown, re.M)
    assert pieces == "wave as in one piece: True\n"
    assert ragged == "True\n"
    assert fixed == "(1, 1, 27)\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_the_tutorial_for_operators(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    script = "".join(text for _, text in blocks("tutorial-operator.md", "bash")).replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    printed = run("bash", "trap 'kill $service 2> /dev/null || true' EXIT\n" + script, tmp_path, PORT=port)
    lines = printed.splitlines()
    assert lines[:2] == ["ann", "bob"]
    ready, opened = (json.loads(line) for line in lines[2:4])
    assert (ready["status"], opened["model"], opened["step"]) == ("ready", "action", 0)
    assert lines[4] == "401 without a key"
    assert {line.split("{")[0].split(" ")[0] for line in lines if line.startswith("indrnn_")} >= {
        "indrnn_sessions_active",
        "indrnn_waiting",
        "indrnn_store_failures_total",
    }
    assert '"servers":[{"url":"/motion"}]' in lines
    assert "-rw-------" in lines
    assert {"name": "action", "version": VERSION, "state": "READY", "reason": ""} in next(
        json.loads(x) for x in lines if x.startswith("[{")
    )
    logged = [json.loads(line) for line in (tmp_path / "var" / "log").read_text().splitlines()]
    assert all("message" in line for line in logged)
    assert json.loads(lines[-1]) == logged[-1]


@pytest.mark.parametrize("page", ["access.md", "store.md"])
def test_indented_commands_of_other_pages_run_in_order(page: str, tmp_path: Path) -> None:
    """All but `make serve`, which tests/system/test_readme.py runs on a fresh clone."""
    text = (ROOT / "docs" / page).read_text()
    commands = [line.split("   #")[0].strip() for line in re.findall(r"^    ((?:export |INDRNN_\w+=|\.venv/).*)$", text, re.M)]
    assert commands
    if page == "store.md":  # a copy wants a store that is there
        run(
            "python",
            "from indrnn.service.store.address import open_store; open_store('var/sessions.db', 'strict').close()",
            folder_with(tmp_path, "var"),
        )
    run("bash", "\n".join(commands), tmp_path)
    assert (tmp_path / ("var/keys" if page == "access.md" else "copy.db")).is_file()


def folder_with(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder
