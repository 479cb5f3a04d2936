"""What release 0.1.0 wrote is read and gone on with, and the answers are the ones that 0.1.0 gives: see make.py, which wrote it."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from asking import NEAR, WRITTEN, Service, fill, same, serving, write_texts
from redis_process import running_redis
from safetensors.numpy import load

from indrnn.__main__ import main
from indrnn.export import bundle
from indrnn.model.tasks.table import TASKS
from indrnn.model.training import checkpoint

torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent.parent
SERVE = ["-m", "indrnn", "serve"]
BYTES = {"Content-Type": "application/octet-stream"}
EXPECTED: dict[str, Any] = json.loads((WRITTEN / "expected.json").read_text())
NETWORKS = sorted(path.stem for path in WRITTEN.glob("*.pt"))
ADDED: set[str] = {"copying", "detect", "images", "motions", "stories", "strokes", "tensor"}  # tasks that 0.1.0 did not have


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """This release on a copy of the old one's file."""
    folder = tmp_path_factory.mktemp("sqlite")
    store = shutil.copy(WRITTEN / "sessions.db", folder)
    with serving(SERVE, ROOT, folder, INDRNN_STORE=str(store)) as service:
        yield service


@pytest.fixture(scope="module")
def on_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """This release on a Redis that holds what the old one left there."""
    folder = tmp_path_factory.mktemp("redis")
    with running_redis(folder) as redis:
        with contextlib.closing(redis.client()) as client:
            fill(client, json.loads((WRITTEN / "redis.json").read_text()))
        with serving(SERVE, ROOT, folder, INDRNN_STORE=redis.url) as service:
            yield service


@pytest.fixture(scope="module")
def on_bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """This release with the old one's bundle and its file of keys."""
    folder = tmp_path_factory.mktemp("bundle")
    env = {"INDRNN_BUNDLES": str(WRITTEN / "bundles"), "INDRNN_KEYS": str(WRITTEN / "keys")}
    with serving(SERVE, ROOT, folder, INDRNN_STORE=str(folder / "sessions.db"), **env) as service:
        yield service


@pytest.mark.parametrize("name", EXPECTED["sqlite"])
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_session_stands_where_it_was_left_gives_its_last_reply_again_and_goes_on(
    store: str, name: str, request: pytest.FixtureRequest
) -> None:
    service: Service = request.getfixturevalue(f"on_{store}")
    told = EXPECTED[store][name]
    if told["id"]:  # a sequence's is the client's own, and is not shown
        assert service.get(f"/sessions/{told['id']}").json() == told["info"]
    same(service.ask(told["last"]), told["last"]["reply"])
    same(service.ask(told["next"]), told["next"]["reply"])
    same(service.ask(told["next"]), told["next"]["reply"])  # and that is stored now


def test_a_step_that_the_old_service_took_over_http_is_the_same_over_a_stream(tmp_path: Path) -> None:
    store = shutil.copy(WRITTEN / "sessions.db", tmp_path)
    with serving(SERVE, ROOT, tmp_path, INDRNN_STORE=str(store)) as service:
        for name in ("frames", "resampled"):
            last = EXPECTED["sqlite"][name]["last"]
            asked, told = last["request"], last["reply"]
            opening = {"type": "open", **{name: asked[name] for name in ("session_id", "top_k", "hz") if name in asked}}
            step = {"type": "step", "step": asked["step"], "frames": asked["sequences"][0]}
            (result,) = service.stream("action", [opening, step])
            same(result["predictions"], told["predictions"])
            assert (result["step"], result["position"]) == (told["session"]["step"], told["session"]["position"])
            (refused,) = service.stream("action", [opening, step | {"frames": step["frames"][1:]}])
            assert refused["code"] == "step_conflict"


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_all_sessions_are_listed_and_sequences_are_not(store: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(f"on_{store}")
    listed = {s["session_id"] for s in service.get("/sessions").json()["sessions"]}
    assert listed >= {told["id"] for told in EXPECTED[store].values() if told["id"]}
    assert not any(ident.startswith("seq:") for ident in listed)


def test_a_session_of_the_old_service_is_deleted_and_gone(tmp_path: Path) -> None:
    store = shutil.copy(WRITTEN / "sessions.db", tmp_path)
    ident = EXPECTED["sqlite"]["text"]["id"]
    with serving(SERVE, ROOT, tmp_path, INDRNN_STORE=str(store)) as service:
        before = len(service.get("/sessions").json()["sessions"])
        assert httpx.delete(f"{service.url}/sessions/{ident}", timeout=60).status_code == 204
        assert service.get(f"/sessions/{ident}").status_code == 410
        assert len(service.get("/sessions").json()["sessions"]) == before - 1


@pytest.mark.parametrize(("model", "of"), [("action", "resampled"), ("chars", "text")])
def test_a_file_of_a_state_is_taken_and_gone_on_with(on_sqlite: Service, model: str, of: str) -> None:
    content, told = (WRITTEN / f"{model}.safetensors").read_bytes(), EXPECTED["sqlite"][of]
    taken = httpx.post(f"{on_sqlite.url}/sessions", content=content, headers=BYTES, timeout=60)
    assert taken.status_code == 201, taken.text
    assert {n: taken.json()[n] for n in ("model", "version", "step", "position")} == {
        n: told["info"][n] for n in ("model", "version", "step", "position")
    }
    ident = taken.json()["session_id"]
    assert on_sqlite.get(f"/sessions/{ident}/state").content == content  # one state is always the same bytes
    next_ = json.loads(json.dumps(told["next"]).replace(told["id"], ident))
    same(on_sqlite.ask(told["next"] | next_), next_["reply"])


def test_a_session_of_the_old_service_is_downloaded_as_the_old_one_wrote_it(tmp_path: Path) -> None:
    store = shutil.copy(WRITTEN / "sessions.db", tmp_path)
    with serving(SERVE, ROOT, tmp_path, INDRNN_STORE=str(store)) as service:
        for model, of in (("action", "resampled"), ("chars", "text")):
            content = service.get(f"/sessions/{EXPECTED['sqlite'][of]['id']}/state").content
            assert set(load(content)) == ({"state", "carry"} if of == "resampled" else {"state"})
            assert content == (WRITTEN / f"{model}.safetensors").read_bytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_loaded_and_answers_as_it_did(name: str) -> None:
    net, _ = checkpoint.load(WRITTEN / f"{name}.pt")
    with np.load(WRITTEN / "logits.npz") as arrays:
        x, lengths, state, logits, state_out = (
            torch.from_numpy(arrays[f"{name}/{part}"]) for part in ("x", "lengths", "state", "logits", "state_out")
        )
    assert logits.abs().max() > 0
    got, got_state = net(x, lengths, state)
    torch.testing.assert_close(got, logits, rtol=NEAR["rel"], atol=NEAR["abs"])
    torch.testing.assert_close(got_state, state_out, rtol=NEAR["rel"], atol=NEAR["abs"])


def test_every_task_has_a_network_of_the_old_release() -> None:
    assert {checkpoint.load_trained(WRITTEN / f"{name}.pt")[1].task for name in NETWORKS} >= set(TASKS) - ADDED


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # Lightning's, of any run whose folder was moved
@pytest.mark.parametrize("task", ["adding", "chars"])
def test_a_run_goes_on_from_where_it_stopped(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "data")
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path / "data"))
    out = shutil.copytree(WRITTEN / "runs" / task, tmp_path / "run")
    options = {"adding": ("--length", "6"), "chars": ("--rows", "4", "--length", "16")}[task]
    small = ("--hidden", "8", "--layers", "2", "--epoch", "5", "--warmup", "5", "--rate", "0.01", "--no-progress")
    lines = (out / "log.txt").read_text().splitlines()
    weights = checkpoint.load_trained(out / "model.pt")[0].state_dict()
    assert main(["train", task, *options, *small, "--steps", "15", "--decay", "5", "--out", str(out), "--resume"]) == 0
    after = (out / "log.txt").read_text().splitlines()
    assert after[: len(lines)] == lines
    assert [line.split()[1] for line in after] == ["5", "10", "15"]
    net, meta = checkpoint.load_trained(out / "model.pt")
    assert meta.steps == 15
    assert meta.command.startswith(f"python -m model train {task}")  # what made them, then what went on with them
    assert len(meta.command.split(" && ")) == 2
    assert any(not torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    if task == "adding":  # the other one multiplies in bfloat16, which does so differently on another processor
        for name, value in checkpoint.load_trained(out / "resumed.pt")[0].state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], value, rtol=0, atol=1e-5, msg=name)


def test_a_run_s_curve_is_drawn_and_its_network_is_measured_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = WRITTEN / "runs" / "adding"
    assert main(["plot", str(tmp_path / "curve.svg"), str(run), "--figure", "val_mse"]) == 0
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
    assert main(["evaluate", str(run / "model.pt"), "--json"]) == 0
    (figure,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    at_the_end = dict(zip(*[iter((run / "log.txt").read_text().split())] * 2, strict=True))["val_mse"]
    assert figure["value"] == pytest.approx(float(at_the_end), abs=1e-4)
    assert main(["export", str(WRITTEN / "chars.pt"), str(tmp_path / "bundles")]) == 0
    old, new = (bundle.read(folder / "bundles" / "chars" / "1") for folder in (WRITTEN, tmp_path))
    assert new.manifest.state == old.manifest.state
    assert new.graph.stat().st_size > 0


def test_a_bundle_is_read_and_served_and_a_key_is_known(on_bundle: Service) -> None:
    made = bundle.read(WRITTEN / "bundles" / "chars" / "1")
    assert (made.manifest.name, made.manifest.version) == ("chars", "1")
    exchange = EXPECTED["bundle"]
    same(on_bundle.ask(exchange), exchange["reply"])
    assert on_bundle.get("/sessions", **{"X-API-Key": exchange["open"]["api_key"]}).status_code == 200
    assert on_bundle.get("/sessions").status_code == 401


def test_what_was_written_names_no_folder_of_the_machine_it_was_written_on() -> None:
    for path in filter(Path.is_file, WRITTEN.rglob("*")):
        for name in (b"/tmp/", b"/home/", b"/root/"):
            assert name not in path.read_bytes(), path
