"""Skeletons and numbers that go on in the browser without the service, and come back: a real Chromium, its network cut in between."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ROOT, Server, thorough
from safetensors import safe_open
from safetensors.numpy import load_file
from stateful_files import LEVEL, gru, save
from websockets.sync.client import connect

from indrnn.export.adopt.adoption import adopt
from indrnn.export.adopt.layout import Told
from indrnn.export.adopt.write import write as write_adopted

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

BUILT = ROOT / "service" / "http" / "static"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    thorough,
    pytest.mark.skipif(not list(BUILT.glob("assets/runtime-*")), reason="needs the page with its runtime: make page-full"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
WAVE = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"][0]
NEAR = 1e-4


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of action 1 and 2, an adopted GRU, and an adopted file that answers by windows."""
    folder = tmp_path_factory.mktemp("local")
    write_adopted(adopt(gru(folder), Told(), steps=20), folder / "bundles", "gru", "1", command="")
    file = save(folder, LEVEL, {"w": np.full(1, 0.5, np.float32)})
    write_adopted(adopt(file, Told(window=5, context=2), steps=50), folder / "bundles", "window", "1", command="")
    (folder / "bundles" / "action").symlink_to(ROOT / "bundles" / "action")
    made = Server(folder, {"INDRNN_PAGE": str(BUILT), "INDRNN_BUNDLES": str(folder / "bundles"), "INDRNN_VERSIONS": "2"}).start()
    yield made
    made.stop()
    assert "Traceback" not in made.log()


@pytest.fixture
def page(shown: Server) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        made = browser.new_page(viewport={"width": 1280, "height": 900})
        made.set_default_timeout(30_000)
        asked: set[str] = set()
        complaints: list[str] = []
        made.on("request", lambda request: asked.add(re.sub(r"^\w+://([^/]*).*", r"\1", request.url)))
        made.on("pageerror", lambda error: complaints.append(str(error)))
        made.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        yield made
        browser.close()
        assert not complaints
        assert asked == {f"127.0.0.1:{shown.port}"}, "nothing leaves for another host"


def newest(shown: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{shown.url}/sessions?limit=1").json()["sessions"][0]
    return found


def state_of(shown: Server, session: str, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    path = folder / f"{session}.safetensors"
    path.write_bytes(httpx.get(f"{shown.url}/sessions/{session}/state").content)
    with safe_open(path, "numpy") as file:
        return load_file(path), file.metadata()


def alike(shown: Server, mine: str, twin: str, folder: Path) -> None:
    """Assert that two sessions stand alike: state, what waits to be resampled, evidence on bodies, position."""
    (a, told), (b, expected) = state_of(shown, mine, folder), state_of(shown, twin, folder)
    assert a.keys() == b.keys()
    assert max(float(np.abs(a[name] - b[name]).max()) for name in a) <= NEAR
    bodies = [np.frombuffer(bytes.fromhex(one.get("bodies", "")), "<f4") for one in (told, expected)]
    np.testing.assert_allclose(bodies[0], bodies[1], rtol=NEAR, atol=NEAR)
    assert [told.get(name) for name in ("position", "carry_phase")] == [expected.get(name) for name in ("position", "carry_phase")]
    assert float(told.get("carry_hz", 0)) == float(expected.get("carry_hz", 0))


def feed(shown: Server, model: str, session: str, content: dict[str, Any], times: int, hz: float | None = None) -> None:
    """Feed a session as often, in one step each."""
    with connect(f"{shown.url.replace('http', 'ws')}/stream/{model}") as ws:
        ws.send(json.dumps({"type": "open", "session_id": session, "hz": hz}))
        assert json.loads(ws.recv(10))["type"] == "opened"
        for _ in range(times):
            ws.send(json.dumps({"type": "step", **content}))
            assert json.loads(ws.recv(10))["type"] == "result"


def drop(page: Any, folder: Path, clip: list[Any], hz: float) -> None:
    """Drop a clip into the view of Action and have it played."""
    file = folder / "clip.json"
    file.write_text(json.dumps({"sequences": [clip], "hz": hz}))
    page.set_input_files('input[aria-label="A file with a motion"]', str(file))
    page.get_by_label("unit").select_option("metres")
    page.get_by_label("axes").select_option("y up, as the model has it")
    page.get_by_label("speed").select_option("4 ×")
    page.get_by_role("button", name="Show it").click()


def shown_until(page: Any, frames: int) -> None:
    """Wait until so many frames were answered and shown."""
    page.locator(f'input[aria-label="Frame that is shown"][max="{frames - 1}"]').wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()


@pytest.mark.parametrize("hz", [30, 15])
def test_a_skeleton_goes_on_in_the_browser_without_the_service_and_comes_back(page: Any, shown: Server, tmp_path: Path, hz: int) -> None:
    """At half the rate with joints missing: what the service does to frames is done in the browser, and its leftovers come along."""
    clip: list[Any] = [list(frame) for frame in WAVE[:: 30 // hz]]
    if hz != 30:
        for t, joint in ((3, 10), (4, 10), (5, 10), (9, 0), (9, 15), (len(clip) - 1, 11)):
            clip[t][joint] = None
    page.goto(f"{shown.url}/#action")
    drop(page, tmp_path, clip, hz)
    page.get_by_role("button", name="Play", exact=True).wait_for()
    mine = newest(shown)
    assert mine["position"] == len(clip)
    twin = httpx.post(f"{shown.url}/sessions/{mine['session_id']}/fork").json()["session_id"]
    page.get_by_label("run here").click()
    page.get_by_text("This browser computes now").wait_for()
    page.context.set_offline(True)
    page.get_by_role("button", name="clip.json").click()
    shown_until(page, 2 * len(clip))
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    assert newest(shown)["position"] == len(clip), "the service has not heard of it"
    page.get_by_label("run here").click()
    page.get_by_text("It waits for the service").wait_for()
    page.context.set_offline(False)
    page.get_by_text("The server computes").wait_for()
    page.get_by_role("button", name="clip.json").click()
    shown_until(page, 3 * len(clip))
    feed(shown, "action", twin, {"frames": clip}, 2, hz)
    alike(shown, mine["session_id"], twin, tmp_path)
    info = httpx.get(f"{shown.url}/sessions/{mine['session_id']}").json()
    assert info["position"] == 3 * len(clip)


def test_a_session_that_was_stepped_elsewhere_meanwhile_is_not_overwritten(page: Any, shown: Server, tmp_path: Path) -> None:
    page.goto(f"{shown.url}/#action")
    drop(page, tmp_path, WAVE[:20], 30)
    page.get_by_role("button", name="Play", exact=True).wait_for()
    mine = newest(shown)["session_id"]
    page.get_by_label("run here").click()
    page.get_by_text("This browser computes now").wait_for()
    page.get_by_role("button", name="clip.json").click()
    shown_until(page, 40)
    feed(shown, "action", mine, {"frames": WAVE[:3]}, 1)
    page.get_by_label("run here").click()
    page.get_by_role("alert").get_by_text("was stepped elsewhere meanwhile").wait_for()
    page.get_by_text("This browser computes now").wait_for()
    assert httpx.get(f"{shown.url}/sessions/{mine}").json()["position"] == 23


def test_a_session_of_an_older_version_is_shown_and_runs_here_as_that_one(page: Any, shown: Server, tmp_path: Path) -> None:
    """Whether it is explained, and the graph that is taken down, are its own version's; the next session's are the newest's."""
    with connect(f"{shown.url.replace('http', 'ws')}/stream/action") as ws:
        ws.send(json.dumps({"type": "open", "version": "1"}))
        mine = json.loads(ws.recv(10))["session_id"]
    twin = httpx.post(f"{shown.url}/sessions/{mine}/fork").json()["session_id"]
    page.goto(f"{shown.url}/#service")
    page.get_by_role("row", name=re.compile(re.escape(mine[:8]))).get_by_role("button", name="Open").click()
    page.get_by_text(f"Session {mine[:8]}… of action 1 is open").wait_for()
    page.get_by_text("this version of action has no explanation").wait_for()
    drop(page, tmp_path, WAVE[:20], 30)
    shown_until(page, 20)
    here = page.get_by_role("checkbox", name="run here")  # of the view that is shown
    with page.expect_request(re.compile("/graph")) as graph:
        here.click()
    assert graph.value.url.endswith("/models/action/graph?version=1")
    page.get_by_text("This browser computes now").wait_for()
    page.get_by_role("button", name="clip.json").click()
    shown_until(page, 40)
    here.click()
    page.get_by_role("region").get_by_text("The server computes").wait_for()
    feed(shown, "action", twin, {"frames": WAVE[:20]}, 2, 30)
    alike(shown, mine, twin, tmp_path)
    page.get_by_role("button", name="Forget everything").click()
    page.get_by_text("It knows 54 motions").wait_for()
    page.get_by_role("button", name="Explain the answer at this frame").wait_for()


def test_numbers_go_on_in_the_browser_and_what_it_cannot_answer_is_said(page: Any, shown: Server, tmp_path: Path) -> None:
    page.goto(f"{shown.url}/#service")
    page.get_by_role("combobox", name="Model").select_option("gru")
    page.get_by_label("x_0, as a number").fill("0.5")
    row = page.get_by_role("button", name="One row")
    row.click()
    page.get_by_text("1 rows so far").wait_for()
    mine = newest(shown)["session_id"]
    twin = httpx.post(f"{shown.url}/sessions/{mine}/fork").json()["session_id"]
    page.get_by_label("run here").click()
    page.get_by_text("This browser computes now").wait_for()
    page.context.set_offline(True)
    for n in (2, 3, 4):
        row.click()
        page.get_by_text(f"{n} rows so far").wait_for()
    here = page.locator(".key b").all_inner_texts()
    page.context.set_offline(False)
    page.get_by_label("run here").click()
    page.get_by_text("The server computes").wait_for()
    feed(shown, "gru", twin, {"values": [[0.5, 0, 0]]}, 3)
    alike(shown, mine, twin, tmp_path)
    assert httpx.get(f"{shown.url}/sessions/{mine}").json()["step"] == 4
    told = httpx.post(f"{shown.url}/predict", json={"model": "gru", "sequences": [[[0.5, 0, 0]] * 4]}).json()["outputs"]["y"]
    assert here[-4:] == [f"{v:.2f}" for v in np.array(told).reshape(-1, 4)[-1]]
    page.get_by_role("combobox", name="Model").select_option("window")
    page.get_by_label("run here").click()
    page.get_by_role("alert").get_by_text("answers once for 5 rows").wait_for()
