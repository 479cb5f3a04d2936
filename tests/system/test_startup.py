"""What the service refuses to start with, in one line, and what it must not need."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import ROOT, VERSION, Server
from replica_process import clean_environment

from indrnn.kernels.cuda import registered_cuda
from indrnn.kernels.registered import registered


def start(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    settings = {"PORT": "0", "INDRNN_STORE": str(tmp_path / "s.db"), **env}
    return subprocess.run(
        [sys.executable, "-m", "indrnn", "serve"], cwd=ROOT, env=clean_environment(**settings), capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"INDRNN_BUNDELS": "x"}, "unknown variable INDRNN_BUNDELS: expected one of INDRNN_"),
        ({"INDRNN_PROVIDER": "gpu"}, "INDRNN_PROVIDER: expected 'auto', 'cuda' or 'cpu', got 'gpu'"),
        ({"INDRNN_MAX_BATCH": "0"}, "INDRNN_MAX_BATCH: expected a whole number from 1, got '0'"),
        ({"PORT": "x"}, "PORT: expected a whole number from 0 to 65535, got 'x'"),
        ({"INDRNN_PORT": "x", "PORT": ""}, "PORT: expected a whole number from 0 to 65535, got ''"),
        ({"INDRNN_GRPC_PORT": "7", "PORT": "7"}, "INDRNN_GRPC_PORT: expected another port than PORT, got 7 for both"),
        ({"INDRNN_KEYS": "/nowhere"}, "keys /nowhere: "),
        ({"INDRNN_STORE": ""}, "store: expected the path of a file or the address of a Redis (INDRNN_STORE), got nothing"),
        ({"INDRNN_BUNDLES": "/nowhere"}, "/nowhere: no bundle found"),
        ({"INDRNN_STORE": "/proc/s.db"}, "store /proc/s.db:"),
        ({"INDRNN_STORE": ":memory:"}, "store :memory:: expected a file, which outlives the service"),
        ({"INDRNN_STORE": "redis://u:secret@127.0.0.1:1/0"}, "store redis://127.0.0.1:1/0: Error 111 connecting to 127.0.0.1:1"),
        ({"INDRNN_STORE": "http://localhost"}, "store: expected redis://[user:password@]host[:port][/db], rediss://… or unix://path"),
        ({"INDRNN_STORE_DURABILITY": "none"}, "INDRNN_STORE_DURABILITY: expected 'strict' or 'relaxed', got 'none'"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path: Path, env: dict[str, str], said: str) -> None:
    done = start(tmp_path, **env)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("indrnn: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_cuda_without_a_gpu_is_an_error_and_not_a_silent_cpu_run(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0:
        pytest.skip("this machine has a GPU")
    done = start(tmp_path, INDRNN_PROVIDER="cuda")
    assert done.returncode == 1
    assert f"indrnn: action/{VERSION}: INDRNN_PROVIDER=cuda, but" in done.stderr


def test_ready_names_the_provider_and_the_kernel(server: Server) -> None:
    ready = server.get("/health/ready").json()
    fused = (registered() if ready["provider"] == "cpu" else registered_cuda()) is not None
    assert (ready["status"], ready["kernel"]) == ("ready", "fused" if fused else "loop")
    assert ready["provider"] in ("cpu", "cuda")
    assert [m["name"] for m in ready["models"]] == ["action", "chars"]
    assert server.get("/health/live").json() == {"status": "live"}


def test_a_bundle_whose_file_does_not_match_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bundles", tmp_path / "bundles")
    newest = max((tmp_path / "bundles" / "chars").iterdir(), key=lambda folder: int(folder.name))
    graph = newest / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    done = start(tmp_path, INDRNN_BUNDLES=str(tmp_path / "bundles"))
    assert done.returncode == 1
    assert f"indrnn: bundle chars/{newest.name}: model.onnx: expected sha256" in done.stderr


def test_a_graph_that_is_not_what_its_manifest_says_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bundles", tmp_path / "bundles")
    chars, action = (tmp_path / "bundles" / name / VERSION for name in ("chars", "action"))
    manifest = json.loads((action / "manifest.json").read_text())
    shutil.copy(chars / "model.onnx", action / "model.onnx")
    manifest["sha256"] = hashlib.sha256((action / "model.onnx").read_bytes()).hexdigest()
    (action / "manifest.json").write_text(json.dumps(manifest))
    done = start(tmp_path, INDRNN_BUNDLES=str(tmp_path / "bundles"))
    assert done.returncode == 1
    assert f"indrnn: action/{VERSION}: model.onnx does not run as its manifest says" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_service_on_the_same_store_is_refused(server: Server, tmp_path: Path) -> None:
    done = start(tmp_path, INDRNN_STORE=str(server.folder / "sessions.db"))
    assert done.returncode == 1
    assert "another process holds it" in done.stderr


def test_a_backup_is_taken_beside_the_running_service_and_served_by_another(
    tmp_path: Path, server: Server, own_server: Callable[..., Server]
) -> None:
    ident = server.post("/sessions", {"model": "chars"}).json()["session_id"]
    env = {**os.environ, "INDRNN_STORE": str(server.folder / "sessions.db")}
    command = [sys.executable, "-m", "indrnn", "backup", str(tmp_path / "copy.db")]
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, timeout=60)
    assert own_server(INDRNN_STORE=str(tmp_path / "copy.db")).get(f"/sessions/{ident}").json()["step"] == 0
    refused = subprocess.run(command, cwd=ROOT, env={**env, "INDRNN_STORE": "redis://h"}, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "indrnn: backup: expected a store in an SQLite file" in refused.stderr


def test_a_port_that_is_taken_is_refused(server: Server, tmp_path: Path) -> None:
    done = start(tmp_path, PORT=str(server.port))
    assert done.returncode != 0
    assert "address already in use" in done.stderr


def test_a_grpc_port_that_is_taken_is_one_line(server: Server, tmp_path: Path) -> None:
    done = start(tmp_path, INDRNN_GRPC_PORT=str(server.port))
    assert done.returncode == 1
    assert done.stderr == f"indrnn: INDRNN_GRPC_PORT: 127.0.0.1:{server.port} cannot be listened on: address already in use\n"


def test_a_grpc_port_that_is_taken_meanwhile_is_one_line_too(server: Server, tmp_path: Path) -> None:
    """Free when the service looked, taken when the models were loaded: as if nobody had looked."""
    code = "import indrnn.service.command as c; c._check = lambda settings: None; raise SystemExit(c.run('serve', None, []))"
    env = clean_environment(PORT="0", INDRNN_STORE=str(tmp_path / "s.db"), INDRNN_GRPC_PORT=str(server.port))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert done.stderr.count(f"indrnn: INDRNN_GRPC_PORT: 127.0.0.1:{server.port} cannot be listened on") == 1


def test_a_file_of_keys_is_read_before_the_models(tmp_path: Path) -> None:
    assert "keys /nowhere: " in start(tmp_path, INDRNN_KEYS="/nowhere", INDRNN_BUNDLES="/nowhere").stderr


def test_a_session_of_a_version_that_is_gone_says_so(tmp_path: Path, own_server: Callable[..., Server]) -> None:
    bundles = tmp_path / "bundles"
    shutil.copytree(ROOT / "bundles", bundles)
    server = own_server(INDRNN_BUNDLES=str(bundles))
    ident = server.post("/sessions", {"model": "chars"}).json()["session_id"]
    shutil.rmtree(bundles / "chars")
    server.restart(signal.SIGTERM)
    assert server.get(f"/sessions/{ident}").json()["model"] == "chars"
    reply = server.post("/predict", {"sequences": [[[0, 0, 0]]], "session_id": ident})
    assert (reply.status_code, reply.json()["code"]) == (409, "model_gone")
    assert httpx.delete(f"{server.url}/sessions/{ident}").status_code == 204
    assert server.get(f"/sessions/{ident}").status_code == 410


def test_serving_imports_neither_torch_nor_onnx_nor_the_trainer() -> None:
    code = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "lightning", "onnxscript") or name.startswith("indrnn.model"):
            raise ImportError(f"the service imported {name}")
sys.meta_path.insert(0, Forbidden())
import pkgutil, importlib
from indrnn import service
for module in pkgutil.walk_packages(service.__path__, "indrnn.service."):
    if module.name != "indrnn.service.command":
        importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_runtime_leaves_no_telemetry_behind(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    code = "from indrnn.kernels.runtime import ort; ort.SessionOptions()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**env, "HOME": str(tmp_path)}, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []
