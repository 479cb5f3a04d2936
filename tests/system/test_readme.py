"""The README's commands and examples, run as they stand there."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from conftest import CLASSES, ROOT, Server

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def at(server: Server, text: str) -> str:
    assert "127.0.0.1:8000" in text
    return text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")


def test_the_curl_example_answers_wave(server: Server) -> None:
    (command,) = [b for b in blocks("bash") if b.startswith("curl") and "/predict" in b]
    done = subprocess.run(["bash", "-ec", at(server, command)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    reply = json.loads(done.stdout)
    assert reply["predictions"][0]["label"] == "wave"
    (shown,) = blocks("json")
    assert json.loads(shown)["predictions"][0].keys() == reply["predictions"][0].keys()


def test_the_session_example_applies_each_step_once(server: Server) -> None:
    (command,) = [b for b in blocks("bash") if b.startswith("id=")]
    done = subprocess.run(["bash", "-ec", at(server, command)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    first, again, second = map(json.loads, done.stdout.splitlines())
    assert first == again
    assert [r["session"]["position"] for r in (first, second)] == [36, 72]
    assert second["predictions"][0]["label"] == "wave"


def test_the_state_example_takes_a_state_out_and_in(server: Server, tmp_path: Path) -> None:
    (command,) = [b for b in blocks("bash") if b.startswith("sessions=")]
    done = subprocess.run(["bash", "-ec", at(server, command)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    uploaded, forked, reset = map(json.loads, done.stdout.splitlines())
    assert len({s["session_id"] for s in (uploaded, forked, reset)}) == 3
    assert {s["step"] for s in (uploaded, forked, reset)} == {0}
    (said,) = re.findall(r"its step and position: (\d+) KB", command)
    assert round((tmp_path / "session.safetensors").stat().st_size / 1000) == int(said)


def test_the_stock_runtime_example_runs() -> None:
    (example,) = [b for b in blocks("python") if "onnxruntime" in b]
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"(1, 10, {CLASSES})"), done.stderr


def test_the_stream_example_reads_resumes_and_writes(server: Server) -> None:
    (example,) = [b for b in blocks("python") if "websockets" in b]
    done = subprocess.run([sys.executable, "-c", at(server, example)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, opened, *written = done.stdout.split("\n", 2)
    assert first.startswith("likely next: ['")
    assert "'step': 1, 'position': 42" in opened
    assert len("".join(written)) >= 300


def test_every_file_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.skipif(
    os.environ.get("INDRNN_TEST_INSTALL") not in ("1", "all"),
    reason="installs from nothing, needs package registries: INDRNN_TEST_INSTALL=1, or all",
)
def test_make_serve_on_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True, timeout=60)
    assert "make serve " in blocks("bash")[0]
    env = {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_")} | {"PORT": "0"}
    for seconds in (180, 5):
        env["PORT"] = str(free_port())
        start = time.monotonic()
        process = subprocess.Popen(["make", "serve"], cwd=clone, env=env, stderr=subprocess.PIPE)
        try:
            took = answered(f"http://127.0.0.1:{env['PORT']}", process, start)
        finally:
            process.terminate()
            process.communicate(timeout=30)
        assert took < seconds, f"{took:.1f} s to the first answer"
    held = subprocess.run([clone / ".venv/bin/python", "-m", "pip", "list"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert not re.search(r"^(torch|onnx|lightning) ", held, re.MULTILINE)


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def answered(url: str, process: subprocess.Popen[bytes], start: float) -> float:
    """Seconds to the first prediction."""
    while process.poll() is None and time.monotonic() < start + 300:
        try:
            reply = httpx.post(f"{url}/predict", content=(ROOT / "examples/wave.json").read_bytes(), timeout=10)
            assert reply.status_code == 200
            return time.monotonic() - start
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError("make serve did not answer")
