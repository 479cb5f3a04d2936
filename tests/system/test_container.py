"""The image and its Compose project: what the files promise, and, where there is a container engine, the project run for real.

INDRNN_TEST_CONTAINER=1 INDRNN_DATA=… python -m pytest -m container
"""

import os
import re
import shutil
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import CLASSES

from indrnn.service.settings import PREFIX, Settings
from indrnn.service.store.redis import STRICT

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
KEYS: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.keys.yml").read_text())
PAGE = (ROOT / "docs" / "docker.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MEGABYTE = 10**6


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Dockerfile text -> (instruction, arguments), continued lines joined, comments left out."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    pairs = (re.sub(r"\s*\\\n\s*", " ", text).split(maxsplit=1) for text in re.split(r"(?<!\\)\n", "\n".join(lines)))
    return [(name, rest) for name, rest in pairs]


def recipes(language: str) -> list[str]:
    """The blocks of the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


STEPS = instructions(DOCKERFILE)
needs_engine = pytest.mark.skipif(
    os.environ.get("INDRNN_TEST_CONTAINER") != "1", reason="needs a container engine: set INDRNN_TEST_CONTAINER=1 where there is one"
)


def arguments(name: str) -> list[str]:
    return [rest for n, rest in STEPS if n == name]


def requirements(extra: str) -> set[str]:
    """The names an extra installs, those of the extras it names included."""
    names: set[str] = set()
    for requirement in EXTRAS[extra]:
        if own := re.fullmatch(r"indrnn\[([\w,-]+)\]", requirement):
            names.update(*(requirements(e) for e in own[1].split(",")))
        else:
            names.add(re.split(r"[\[<>=!~ ]", requirement)[0])
    return names


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_is_locked_down_and_watched(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert not {"privileged", "user", "network_mode", "pid", "ipc", "devices"} & set(service)


def test_the_service_has_no_capability_and_is_not_root() -> None:
    assert "cap_add" not in COMPOSE["services"]["service"]
    uid, gid = arguments("USER")[-1].split(":")
    assert int(uid) > 0
    assert int(gid) > 0


def test_nothing_is_published_beyond_this_machine_unless_asked() -> None:
    published = {name: s["ports"] for name, s in COMPOSE["services"].items() if "ports" in s}
    assert published == {"service": ["${HOST:-127.0.0.1}:${PORT:-8000}:8000"]}


def test_base_images_are_named_by_a_release() -> None:
    stages = {rest.split(" AS ")[1] for rest in arguments("FROM") if " AS " in rest}
    used = {rest.split()[0] for rest in arguments("FROM")} - stages
    used |= {s["image"] for s in COMPOSE["services"].values() if "build" not in s}
    assert used == {"python:3.11-slim-bookworm", "redis:7-bookworm"}


def test_no_variant_installs_torch_or_what_training_needs() -> None:
    builds = [COMPOSE["services"]["service"]["build"], GPU["services"]["service"]["build"]]
    assert [b["args"]["EXTRA"] for b in builds] == ["serve", "serve-gpu"]
    assert "EXTRA=serve" in arguments("ARG")
    assert [rest for rest in arguments("RUN") if "install --no-cache-dir" in rest and '--require-hashes -r "locks/$EXTRA.txt"' in rest]
    for extra in ("serve", "serve-gpu"):
        both = requirements(extra) & (requirements("train") | requirements("dev"))
        assert both <= {"numpy", "pydantic"}  # which each of them names, since the client needs neither


def test_a_change_of_source_installs_nothing_anew() -> None:
    """Every COPY from the context before the packages are installed is of the locks alone."""
    install = next(i for i, (name, rest) in enumerate(STEPS) if name == "RUN" and " install " in rest)
    before = [rest for name, rest in STEPS[:install] if name == "COPY"]
    assert before == ["locks locks"]


def test_the_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split("\n")
    copied = {rest.split()[0] for rest in arguments("COPY") if not rest.startswith("--from")}
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == copied


def test_older_builders_and_composes_can_read_the_files() -> None:
    assert "# syntax=" not in DOCKERFILE
    assert "<<" not in DOCKERFILE
    for file in (COMPOSE, GPU, KEYS):
        assert set(file) <= {"services", "volumes", "x-hardened"}


def test_every_variable_that_is_set_is_a_setting() -> None:
    """A misspelt one would stop the service."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = {n for file in (COMPOSE, GPU, KEYS) for n in file["services"]["service"]["environment"] if n.startswith(PREFIX)}
    named |= {pair.split("=")[0] for rest in arguments("ENV") for pair in rest.split() if pair.startswith(PREFIX)}
    assert named >= {"INDRNN_STORE", "INDRNN_PROVIDER"}
    assert named <= known


def test_the_service_is_given_time_to_stop() -> None:
    """Longer than it takes itself at most, open connections and steps in flight included."""
    seconds = int(COMPOSE["services"]["service"]["stop_grace_period"].removesuffix("s"))
    assert seconds > Settings().drain_timeout
    assert f"within {Settings().drain_timeout:g} s (`INDRNN_DRAIN_TIMEOUT`)" in PAGE
    assert f"after {seconds} s (`stop_grace_period`)" in PAGE


def test_the_file_of_keys_lies_on_a_volume_where_it_can_be_written() -> None:
    """The service's user owns /data in the image, and so a new volume there; all else is read-only."""
    service = KEYS["services"]["service"]
    assert service["environment"] == {"INDRNN_KEYS": "/data/keys"}
    assert service["volumes"] == ["keys:/data"]
    assert set(KEYS["volumes"]) == {"keys"}
    assert "restart" not in service
    (recipe,) = [b for b in recipes("bash") if "indrnn key ann" in b]
    assert recipe.index("indrnn key ann") < recipe.index("docker compose up"), "without a key the service would be restarted for ever"


def test_the_page_lists_what_is_passed_on_and_its_files_are_of_settings() -> None:
    passed = {name for name, value in COMPOSE["services"]["service"]["environment"].items() if value is None}
    (listed,) = re.findall(r"Compose passes these on.*?\. Others", PAGE, re.DOTALL)
    assert set(re.findall(r"INDRNN_\w+", listed)) == passed
    for own in map(yaml.safe_load, recipes("yaml")):
        assert {n.removeprefix(PREFIX).lower() for n in own["services"]["service"]["environment"]} <= set(Settings.model_fields)


def test_sessions_live_in_redis_on_a_named_volume() -> None:
    """The image by itself keeps them in a file below /data, where a volume may be mounted."""
    mounts = {name: s.get("volumes") for name, s in COMPOSE["services"].items()}
    assert mounts == {"service": None, "redis": ["redis:/data"]}
    assert set(COMPOSE["volumes"]) == {"redis"}
    assert COMPOSE["services"]["service"]["environment"]["INDRNN_STORE"] == "redis://redis:6379/0"
    assert COMPOSE["services"]["service"]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert any("INDRNN_STORE=/data/" in rest for rest in arguments("ENV"))


def test_redis_is_set_as_the_service_wants_it() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    told = dict(zip(command[1::2], command[2::2], strict=True))
    assert {f"--{name}": value for name, value in STRICT.items()}.items() <= told.items()
    assert "redis" in requirements("serve") & requirements("serve-gpu")


def test_the_runtime_reports_to_nobody() -> None:
    """onnxruntime sends telemetry unless this is set before it is loaded."""
    assert any("ORT_DISABLE_TELEMETRY=1" in rest.split() for rest in arguments("ENV"))


def test_the_gpu_variant_insists_on_a_gpu() -> None:
    service = GPU["services"]["service"]
    assert service["environment"]["INDRNN_PROVIDER"] == "cuda"
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["image"] != COMPOSE["services"]["service"]["image"]


@dataclass(frozen=True)
class Project:
    """The Compose project, up."""

    compose: tuple[str, ...]
    env: dict[str, str]
    url: str
    revision: str

    def run(self, *args: str, check: bool = True) -> str:
        """`docker compose ARGS`; its output."""
        done = subprocess.run([*self.compose, *args], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0 or not check, f"{args}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        return self.run("exec", "-T", service, *command, check=check).strip()

    def inspect(self, service: str, template: str) -> str:
        ident = self.run("ps", "-q", service).strip()
        return _docker("inspect", "-f", template, ident)

    def wait(self, service: str, status: str = "healthy") -> None:
        deadline = time.monotonic() + 120
        while (found := self.inspect(service, "{{.State.Health.Status}}")) != status:
            assert time.monotonic() < deadline, f"{service} is {found}:\n{self.run('logs', service)}"

    def ready(self) -> dict[str, Any]:
        """Waits for /health/ready; its answer."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                reply = httpx.get(f"{self.url}/health/ready", timeout=5)
                if reply.status_code == 200:
                    body: dict[str, Any] = reply.json()
                    return body
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.05)
        raise AssertionError(self.run("logs", "service"))

    def predict(self, clip: list[Any], **more: Any) -> dict[str, Any]:
        reply = httpx.post(f"{self.url}/predict", json={"sequences": [clip], "top_k": 1000, **more}, timeout=30)
        assert reply.status_code == 200, reply.text
        body: dict[str, Any] = reply.json()
        return body


def _docker(*args: str) -> str:
    return subprocess.run(["docker", *args], capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def _scores(reply: dict[str, Any]) -> dict[str, float]:
    return {t["label"]: t["score"] for t in reply["predictions"][0]["top"]}


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """Built, started and healthy; removed with its volumes at the end."""
    assert shutil.which("docker"), "INDRNN_TEST_CONTAINER=1, but there is no docker on PATH"
    current = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60).returncode == 0
    command = ("docker", "compose") if current else ("docker-compose",)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX) and k != "HOST"}
    env |= {"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1", "PORT": str(port), "REVISION": "0fab1e5"}
    made = Project((*command, "-p", "indrnn-test"), env, f"http://127.0.0.1:{port}", env["REVISION"])
    try:
        made.run("up", "--detach", "--build")
        made.wait("service")
        made.wait("redis")
        yield made
    finally:
        made.run("down", "--volumes", "--remove-orphans", check=False)


@pytest.mark.container
@needs_engine
def test_a_real_clip_is_answered_through_the_published_port(project: Project, clips: list[Any]) -> None:
    ready = project.ready()
    assert (ready["status"], ready["provider"], ready["kernel"], ready["revision"]) == ("ready", "cpu", "fused", project.revision)
    scores = _scores(project.predict(clips[0]))
    assert len(scores) == CLASSES
    assert sum(scores.values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.container
@needs_engine
def test_a_session_outlives_a_restart_and_kill_9(project: Project, clips: list[Any]) -> None:
    """The numbered steps go on where they stood, and end in the scores of the whole clip."""
    clip = clips[1]
    third = len(clip) // 3
    parts = [clip[:third], clip[third : 2 * third], clip[2 * third :]]
    project.ready()
    whole = _scores(project.predict(clip))
    ident = httpx.post(f"{project.url}/sessions", json={"model": "action"}, timeout=30).raise_for_status().json()["session_id"]

    first = project.predict(parts[0], session_id=ident, step=1)
    project.run("restart", "service")
    project.ready()
    assert project.predict(parts[0], session_id=ident, step=1) == first

    second = project.predict(parts[1], session_id=ident, step=2)
    restarts = int(project.inspect("service", "{{.RestartCount}}"))
    kill = "import os; [os.kill(int(p), 9) for p in open('/proc/1/task/1/children').read().split()]"
    project.inside("service", "python", "-c", kill, check=False)  # the exec dies with its container
    deadline = time.monotonic() + 60
    while int(project.inspect("service", "{{.RestartCount}}")) == restarts:
        assert time.monotonic() < deadline, "killed, and not restarted"
    project.ready()
    assert project.predict(parts[1], session_id=ident, step=2) == second

    third_reply = project.predict(parts[2], session_id=ident, step=3)
    assert third_reply["session"] == {"session_id": ident, "step": 3, "position": len(clip)}
    assert _scores(third_reply) == pytest.approx(whole, abs=1e-4)


@pytest.mark.container
@needs_engine
def test_the_service_runs_as_nobody_special_on_a_file_system_it_cannot_write(project: Project) -> None:
    project.ready()
    assert project.inside("service", "id", "-u") == "10001"
    status = project.inside("service", "cat", "/proc/1/status")
    assert re.search(r"CapEff:\s+0+$", status, re.M)
    assert re.search(r"CapBnd:\s+0+$", status, re.M)
    assert re.search(r"NoNewPrivs:\s+1$", status, re.M)
    for path in ("/app/x", "/opt/venv/x", "/etc/x"):
        assert "Read-only file system" in project.inside("service", "touch", path, check=False)
    project.inside("service", "touch", "/tmp/x")
    project.inside("service", "rm", "/tmp/x")
    assert "Read-only file system" in project.inside("service", "touch", "/data/x", check=False)
    assert project.inside("service", "ls", "-A", "/tmp") == ""  # no cache, no identifier of this machine


@pytest.mark.container
@needs_engine
def test_the_image_is_small_and_holds_no_torch_and_no_compiler(project: Project) -> None:
    size = int(_docker("image", "inspect", "-f", "{{.Size}}", "indrnn:cpu"))
    assert size < 450 * MEGABYTE
    for module in ("torch", "onnx", "lightning", "indrnn.model"):
        assert "ModuleNotFoundError" in project.inside("service", "python", "-c", f"import {module}", check=False)
    assert project.inside("service", "sh", "-c", "command -v cc gcc g++ make || echo none") == "none"


@pytest.mark.container
@needs_engine
def test_redis_is_no_root_either_and_keeps_what_it_is_told(project: Project) -> None:
    status = project.inside("redis", "cat", "/proc/1/status")
    assert not re.search(r"^Uid:.*\b0\b", status, re.M)
    assert re.search(r"CapEff:\s+0+$", status, re.M)
    for name, value in {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}.items():
        assert project.inside("redis", "redis-cli", "config", "get", name).split() == [name, value]
    project.inside("redis", "redis-cli", "set", "kept", "1")
    project.run("kill", "-s", "SIGKILL", "redis")
    project.run("up", "--detach", "--no-build", "redis")
    project.wait("redis")
    assert project.inside("redis", "redis-cli", "get", "kept") == "1"


@pytest.mark.container
@needs_engine
def test_keys_made_as_the_page_says_open_the_service_and_no_other_does(project: Project) -> None:
    env = {**project.env, "COMPOSE_FILE": "docker-compose.yml:docker-compose.keys.yml", "COMPOSE_PROJECT_NAME": "indrnn-test-keys"}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        env["PORT"] = str(s.getsockname()[1])
    keyed = Project(project.compose[:-2], env, f"http://127.0.0.1:{env['PORT']}", project.revision)

    def follow(block: str) -> list[str]:
        """The commands of a recipe, one after another, as a person types them; what each prints."""
        lines = [line.split("  #")[0].split() for line in block.splitlines() if line.startswith("docker compose ")]
        return [keyed.run(*typed(line)) for line in lines]

    def typed(line: list[str]) -> list[str]:
        return [*line[2:3], *(["-T"] if line[2] in ("run", "exec") else []), *line[3:]]

    def knows(secret: str) -> int:
        return httpx.get(f"{keyed.url}/models", headers={"Authorization": f"Bearer {secret}"}, timeout=30).status_code

    made, removed = (next(b for b in recipes("bash") if mark in b) for mark in ("indrnn key ann", "sed -i"))
    try:
        (secret,) = re.findall(r"^indrnn_\S+", follow(made)[0], re.M)
        keyed.ready()
        assert (knows(secret), knows("guessed")) == (200, 401)
        (other,) = re.findall(r"^indrnn_\S+", follow(removed)[0], re.M)
        deadline = time.monotonic() + 60
        while (knows(secret), knows(other)) != (401, 200):
            assert time.monotonic() < deadline, (knows(secret), knows(other))
            time.sleep(1)
    finally:
        keyed.run("down", "--volumes", "--remove-orphans", check=False)
