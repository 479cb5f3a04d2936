"""The JavaScript client, packed as its users get it, against the real service: cut connections, ended servers, its page of docs."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Server
from cutter import cutting
from test_client import PIECES, TEXT, logprobs

from indrnn.client import sync

PAGE = ROOT / "page"
DOCS = (ROOT / "docs" / "javascript.md").read_text()
WISH: dict[str, Any] = {"maxChars": 60, "temperature": 0.8, "seed": 5}
SHORT: dict[str, Any] = {"max_chars": 60, "temperature": 0.8, "seed": 5}
LONG = {**SHORT, "max_chars": 600}
Expected = tuple[list[float], str, list[float]]
Start = Callable[..., Server]


@dataclass(frozen=True)
class Node:
    """Node, and a folder in which the client is installed."""

    folder: Path
    bin: Path

    def start(self, script: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [self.bin / "node", script, *arguments]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, script: Path, *arguments: str) -> str:
        process = self.start(script, *arguments)
        said, wrong = process.communicate(timeout=120)
        assert process.returncode == 0, wrong
        return said


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    found = subprocess.run([sys.executable, PAGE / "build.py", "--node", "--present"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"needs node: {found.stderr.strip()}")
    if not (PAGE / "node_modules" / "typescript").is_dir():
        pytest.skip("needs page/node_modules: make page")
    folder, bin = tmp_path_factory.mktemp("node"), Path(found.stdout.strip())
    env = {"PATH": f"{bin}:/usr/bin:/bin", "HOME": str(folder)}
    packed = subprocess.run(
        [bin / "npm", "pack", "--silent", "--pack-destination", folder], cwd=PAGE / "client", env=env, capture_output=True, text=True
    )
    assert packed.returncode == 0, packed.stdout + packed.stderr
    with tarfile.open(next(folder.glob("indrnn-client-*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    (folder / "node_modules").mkdir()
    (folder / "package").rename(folder / "node_modules" / "indrnn-client")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(Path(__file__).parent / "js_steps.mjs", folder)
    return Node(folder, bin)


def test_what_is_packed_is_whole_and_needs_nothing_else(node: Node) -> None:
    packed = node.folder / "node_modules" / "indrnn-client"
    described = json.loads((packed / "package.json").read_text())
    assert not described.get("dependencies")
    assert {path.suffixes[-1] for path in packed.rglob("*") if path.is_file()} <= {".js", ".ts", ".json", ".md"}
    for target in described["exports"]["."].values():
        assert (packed / target).is_file()
    for path in (packed / "dist").glob("*.js"):
        for name in re.findall(r'(?:from|import) "([^"]+)"', path.read_text()):
            assert (packed / "dist" / name).is_file() or (name.startswith("node:") and path.name == "node_socket.js"), (path, name)


def undisturbed(client: sync.Client, wish: dict[str, Any]) -> Expected:
    """Log-probabilities of the pieces, then a generate and its own."""
    with client.session("chars") as session:
        results = [session.step(piece) for piece in PIECES]
        chars = list(session.generate(**wish))
        return logprobs(results), "".join(c.char for c in chars), [c.logprob for c in chars]


def answers(said: str) -> tuple[list[list[float]], str, list[float], dict[str, Any]]:
    """Log-probabilities of the steps, the text and its own, and the last line."""
    lines = [json.loads(line) for line in said.splitlines()]
    steps = [line for line in lines if "logprobs" in line]
    drawn = [line for line in lines if "char" in line]
    assert [(s["step"], s["position"]) for s in steps] == [(i + 1, len("".join(PIECES[: i + 1]))) for i in range(len(PIECES))]
    return [s["logprobs"] for s in steps], "".join(d["char"] for d in drawn), [d["logprob"] for d in drawn], lines[-1]


def check(said: str, direct: sync.Client, expected: Expected) -> dict[str, Any]:
    """Every step was applied once, with the numbers of an undisturbed run. Return the last line."""
    steps, text, drawn, last = answers(said)
    assert [p for step in steps for p in step] == pytest.approx(expected[0], abs=1e-4)
    assert (text, last["text"], last["reason"]) == (expected[1], expected[1], "length")
    assert drawn == pytest.approx(expected[2], abs=1e-4)
    there = direct.look(last["id"])
    assert (there.step, there.position) == (last["step"], last["position"]) == (len(PIECES) + 2, len(TEXT) + len(text) + 1)
    return last


@pytest.mark.parametrize("seed", range(2))
def test_through_cut_connections_every_step_is_applied_once_with_the_same_numbers(node: Node, server: Server, seed: int) -> None:
    with sync.Client(server.url) as direct, cutting(server.port, seed, 1_000, 8_000) as cutter:
        expected = undisturbed(direct, SHORT)
        said = node.run(node.folder / "js_steps.mjs", cutter.url, json.dumps({"pieces": PIECES, "wish": WISH}))
        assert cutter.cuts > 3
        assert "waiting" in check(said, direct, expected)["links"]


def test_the_client_goes_on_while_its_server_is_ended_in_a_step_and_in_a_generate(node: Node, own_server: Start) -> None:
    """Killed and drained; each time before the client had all of it."""
    server = own_server()
    with sync.Client(server.url) as direct:
        expected = undisturbed(direct, LONG)
    said: list[str] = []
    with cutting(server.port) as cutter:
        cutter.gentle = True
        wish = {**WISH, "maxChars": LONG["max_chars"]}
        process = node.start(node.folder / "js_steps.mjs", cutter.url, json.dumps({"pieces": PIECES, "wish": wish}))
        assert process.stdout is not None
        assert process.stderr is not None
        reader = threading.Thread(target=said.extend, args=(process.stdout,))
        reader.start()
        steps = len(PIECES)
        for after, before, how in (
            (5, steps, signal.SIGKILL),
            (steps + 20, steps + LONG["max_chars"], signal.SIGKILL),
            (0, 0, signal.SIGTERM),
        ):
            while len(said) < after and reader.is_alive():
                time.sleep(0.001)
            server.stop(how)
            time.sleep(0.2)
            assert len(said) < before or not before, "it was over before the server was ended"
            server.start()
            cutter.target = server.port
        reader.join(120)
        wrong = process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        assert process.wait(60) == 0, wrong
        with sync.Client(server.url) as direct:
            check("".join(said), direct, expected)


def test_the_examples_of_its_page_run(node: Node, server: Server) -> None:
    text, frames = (b.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}") for b in re.findall(r"```js\n(.*?)```", DOCS, re.DOTALL))
    before = {s["session_id"] for s in server.get("/sessions").json()["sessions"]}  # other tests' stay
    (node.folder / "text.mjs").write_text(text)
    (node.folder / "frames.mjs").write_text(frames)
    said = node.run(node.folder / "text.mjs").splitlines()
    assert said[0].startswith("1 42 {")
    assert re.search(r" (length|stop) \S{20,} 2$", said[-1])
    said = node.run(node.folder / "frames.mjs").splitlines()
    assert said[0] == "wave"
    assert said[1:3] == ["connecting ", "open "]
    assert "label: 'wave'" in said[-3]
    assert re.match(r"\d+ (\d+) \d+$", said[-2])
    assert said[-1] == "closed "
    left = [s for s in server.get("/sessions").json()["sessions"] if s["session_id"] not in before]
    assert "action" not in [s["model"] for s in left], "both were deleted"
