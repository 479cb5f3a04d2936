"""The wheel, installed where there is no checkout, beside a user's own model.py and client.py."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

INSTALL = os.environ.get("INDRNN_TEST_INSTALL")
pytestmark = pytest.mark.skipif(
    INSTALL not in ("1", "all"), reason="builds and installs, needs package registries: INDRNN_TEST_INSTALL=1, or all"
)
ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("indrnn", "bundles", "client", "export", "frames", "kernels", "model", "service")
PAGE = ROOT / "service" / "http" / "static"
FILES = ("LICENSE", "NOTICE", "README.md", "openapi.yaml", "pyproject.toml")
(TORCH,) = re.findall(r'"(torch==[\d.]+)"', (ROOT / "pyproject.toml").read_text())
USER = {"model.py": "mine = 1\n", "client.py": "mine = 2\n"}


def environment(**more: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("INDRNN_") and k not in ("HOST", "PORT", "PYTHONPATH")}
    return env | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | more


def run(*command: str | Path, cwd: Path, timeout: float = 600) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, and a folder in which somebody works."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def run(self, *args: str, timeout: float = 600) -> str:
        return run(self.python, *args, cwd=self.folder, timeout=timeout)

    def packages(self) -> set[str]:
        return {line.split("==")[0].lower() for line in self.run("-m", "pip", "list", "--format=freeze").splitlines()}


def installed(folder: Path, wheel: Path, extra: str, *before: str) -> Installed:
    """An empty environment, and into it the wheel with one extra, after the packages that are named."""
    folder.mkdir()
    for name, text in USER.items():
        (folder / name).write_text(text)
    made = Installed(folder)
    venv.create(folder / "venv", with_pip=True)
    for packages in (before, (f"{wheel}[{extra}]",)):
        if packages:
            made.run("-m", "pip", "install", "--quiet", *packages, timeout=1800)
    return made


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is packed, copied with its links: a build leaves folders behind, and what lies in them is packed again."""
    folder = tmp_path_factory.mktemp("source") / "indrnn"
    folder.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="session")
def wheel(source: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", ".", cwd=source)
    (made,) = (source / "dist").glob("*.whl")
    return made


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_source_and_bundle_and_nothing_else(wheel: Path) -> None:
    held = contents(wheel)
    expected = {"indrnn/__init__.py", "indrnn/__main__.py", "indrnn/extras.py", "indrnn/ranges.py", "indrnn/openapi.yaml"}
    expected |= {"indrnn/model/data/vocabulary.toml", "indrnn/service/http/docs.html"}
    built = (path for path in PAGE.rglob("*") if path.is_file() and not path.name.startswith("."))  # nothing, where node is not
    expected |= {f"indrnn/{path.relative_to(ROOT)}" for path in built}
    for name in FOLDERS[2:]:
        expected |= {f"indrnn/{path.relative_to(ROOT)}" for path in (ROOT / name).rglob("*.py")}
    expected |= {f"indrnn/kernels/{path.name}" for kind in ("*.h", "*.cpp", "*.cu") for path in (ROOT / "kernels").glob(kind)}
    for manifest in (ROOT / "bundles").glob("*/*/manifest.json"):
        expected |= {f"indrnn/{(manifest.parent / name).relative_to(ROOT)}" for name in ("manifest.json", "model.onnx", "CARD.md")}
        expected |= {f"indrnn/{path.relative_to(ROOT)}" for path in manifest.parent.glob("explain.onnx")}
    assert set(held) == expected
    assert all(data == (ROOT / name.removeprefix("indrnn/")).read_bytes() for name, data in held.items() if name.count("/") > 1)


@pytest.mark.skipif(not (PAGE / "index.html").is_file(), reason="needs the built page: make page")
def test_the_wheel_holds_the_page(wheel: Path) -> None:
    held = contents(wheel)
    index = held["indrnn/service/http/static/index.html"].decode()
    named = re.findall(r'(?:src|href)="\./([^"]+)"', index)
    assert [name for name in named if name.endswith(".js")]
    assert {f"indrnn/service/http/static/{name}" for name in (*named, "viewer/index.html")} <= set(held)


def test_the_source_archive_makes_the_same_wheel(source: Path, wheel: Path) -> None:
    backend = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    run(sys.executable, "-c", backend, cwd=source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "again", archive, cwd=source)
    (again,) = (source / "again").glob("*.whl")
    assert contents(again) == contents(wheel)


def test_the_installed_service_answers_beside_the_users_own_modules(wheel: Path, tmp_path: Path) -> None:
    made = installed(tmp_path / "work", wheel, "serve")
    assert made.run("-c", "import model, client; print(model.mine, client.mine)").split() == ["1", "2"]
    assert not {"torch", "onnx", "lightning", "httpx"} & made.packages()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = [made.folder / "venv/bin/indrnn", "serve"]
        process = subprocess.Popen(command, cwd=made.folder, env=environment(PORT=str(port)), stdout=out, stderr=out)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while not answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        reply = httpx.post(f"{url}/predict", content=(ROOT / "examples" / "wave.json").read_bytes(), timeout=30)
        assert reply.json()["predictions"][0]["label"] == "wave"
    finally:
        process.terminate()
        process.wait(30)
    assert "Traceback" not in log.read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_the_client_comes_without_numpy_pydantic_or_the_service(wheel: Path, tmp_path: Path) -> None:
    made = installed(tmp_path / "work", wheel, "client")
    made.run("-c", "import indrnn.client.sync, indrnn.client.aio, client, model; assert client.mine == 2 and model.mine == 1")
    assert made.packages() >= {"httpx", "indrnn", "websockets"}
    assert not {"numpy", "pydantic", "fastapi", "uvicorn", "torch", "onnxruntime"} & made.packages()
    said = subprocess.run([made.python, "-m", "indrnn", "serve"], cwd=made.folder, env=environment(), capture_output=True, text=True)
    assert said.returncode == 1
    assert re.fullmatch(r"indrnn serve needs \w+, which comes with the extra 'serve'\n", said.stderr)


@pytest.mark.skipif(INSTALL != "all", reason="installs PyTorch, which takes gigabytes from some registries: INDRNN_TEST_INSTALL=all")
def test_training_is_installed_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """The first example of docs/layers.md learns, and so does the command."""
    made = installed(tmp_path / "work", wheel, "train", TORCH)
    example = (ROOT / "docs" / "layers.md").read_text().split("```python\n")[1].split("```")[0]
    learn = """
before = [p.detach().clone() for p in rnn.parameters()]
output.square().mean().backward()
assert all(p.grad is not None and p.grad.isfinite().all() for p in rnn.parameters())
optimizer.step()
assert output.shape == (32, 784, 256) and h_n.shape == (4, 32, 128)
assert not any(torch.equal(old, new) for old, new in zip(before, rnn.parameters()))
import indrnn, model
print(indrnn.__file__, model.mine)
"""
    place, mine = made.run("-c", example + learn).split()
    assert place.startswith(str(made.folder))
    assert mine == "1"
    assert not {"fastapi", "uvicorn", "onnxruntime", "httpx", "websockets"} & made.packages()
    command = made.folder / "venv" / "bin" / "indrnn"
    said = run(command, "train", "adding", "--steps", "3", "--length", "10", "--no-progress", cwd=made.folder)
    assert (made.folder / said.strip().splitlines()[-1]).is_file()


def test_training_needs_no_more_than_its_extra(wheel: Path, tmp_path: Path) -> None:
    """The packages are those of this environment, so that PyTorch is not installed anew; the wheel is a fresh one."""
    (tmp_path / "model.py").write_text(USER["model.py"])
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "wheel")
    served = ("fastapi", "uvicorn", "starlette", "websockets", "redis", "grpc", "orjson", "prometheus_client", "pydantic_settings", "httpx")
    code = f"""
import runpy, sys
sys.modules |= dict.fromkeys({(*served, "onnxruntime")!r})
sys.path.insert(1, {str(tmp_path / "wheel")!r})
sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__name__", "").startswith("_Editable")]
from indrnn.model.indrnn import IndRNN
import indrnn, model
assert indrnn.__file__.startswith({str(tmp_path)!r}) and model.mine == 1
sys.argv[1:] = ["train", "adding", "--steps", "2", "--length", "10", "--no-progress"]
runpy.run_module("indrnn", run_name="__main__", alter_sys=True)
"""
    assert run(sys.executable, "-c", code, cwd=tmp_path).strip().endswith("model.pt")
