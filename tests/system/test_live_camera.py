"""The camera of the live page: a real Chromium whose camera plays a drawn figure that waves."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, Server, thorough
from drawn_figure import write_video

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

BUILT = ROOT / "service" / "http" / "static"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ADDED = BUILT / "added.json"
HAS_CAMERA = ADDED.is_file() and "camera" in json.loads(ADDED.read_text())
pytestmark = [
    pytest.mark.skipif(not (BUILT / "index.html").is_file(), reason="needs the built page: make page"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
with_camera = pytest.mark.skipif(not HAS_CAMERA, reason="needs the page with its camera: make page-full")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("camera"), {"INDRNN_PAGE": str(BUILT)}).start()
    yield made
    made.stop()
    assert "Traceback" not in made.log()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    with sync_api.sync_playwright() as made:
        yield made


class Visit:
    """A tab of a browser of its own, with what it asked for and complained of."""

    def __init__(self, playwright: Any, url: str, *arguments: str) -> None:
        self.browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        self.url = url
        self.page = self.browser.new_page(viewport={"width": 1280, "height": 860})
        self.page.set_default_timeout(30_000)
        self.asked: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if "Content Security" in said.text else None)

    def _listen(self, socket: Any) -> None:
        self.asked.append(socket.url)
        socket.on("framesent", lambda payload: self.sent.append(json.loads(payload)))

    def open(self) -> Any:
        self.page.goto(f"{self.url}/#action")
        self.page.get_by_role("button", name="Use the camera").wait_for()
        return self.page

    def close(self) -> None:
        self.browser.close()
        assert not self.complaints
        hosts = {re.sub(r"^(\w+://[^/]*).*", r"\1", url) for url in self.asked}
        assert hosts <= {self.url, self.url.replace("http", "ws")}, "nothing leaves for another host"


@with_camera
def test_a_drawn_figure_is_seen_by_the_camera_and_its_landmarks_go_to_the_service(playwright: Any, shown: Server, tmp_path: Path) -> None:
    """MediaPipe finds the drawn body, with the right hand raised; pictures never leave, and nothing is loaded before it is asked for."""
    video = write_video(tmp_path / "wave.y4m")
    fake = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={video}")
    visit = Visit(playwright, shown.url, *fake)
    page = visit.open()
    assert not [url for url in visit.asked if "/camera-" in url], "loaded when it is asked for"
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_text(re.compile(r"[5-9] pictures.*a body in [1-9]")).wait_for(timeout=120_000)
    page.get_by_text("shown: the camera").wait_for()
    page.get_by_role("button", name="Stop the camera").click()
    page.get_by_role("button", name="Use the camera").wait_for()
    assert [url for url in visit.asked if url.endswith("pose_landmark_lite.tflite")]
    assert page.evaluate("document.querySelector('.camera video').srcObject") is None, "the camera is let go"
    began, opened = [(i, message) for i, message in enumerate(visit.sent) if message["type"] == "open"][-1]
    assert (opened["layout"], opened["axes"]) == ("mediapipe33", "-x -y z")
    steps = [message for message in visit.sent[began:] if message["type"] == "step"]
    frame = steps[-1]["frames"][-1]
    assert len(frame) == 33
    nose, left, right, foot = frame[0], frame[15], frame[16], frame[31]
    assert nose[1] < left[1] < foot[1], "y goes down: the nose is above the hanging hand, and that above the foot"
    assert right[0] < 0 < left[0], "the right hand is on the picture's left"
    assert right[1] < left[1] - 0.2, "it is raised"
    moments = [moment for step in steps for moment in step["t"]]
    assert moments == sorted(set(moments))
    deadline = time.monotonic() + 10  # the last step may be under way
    while (info := httpx.get(f"{shown.url}/sessions?limit=1").json()["sessions"][0])["position"] < len(moments):
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    assert (info["model"], info["step"], info["position"]) == ("action", len(steps), len(moments))
    page.get_by_text("What a camera saw cannot be explained").wait_for()
    page.get_by_role("button", name="squat").click()
    page.locator(".answer", has_text=re.compile("^squat$")).wait_for()
    reopened = [message for message in visit.sent if message["type"] == "open"][-1]
    assert reopened.get("layout") is None, "what is drawn goes into a session of its own"
    visit.close()


@thorough
@with_camera
def test_a_refused_camera_and_none_at_all_are_told_in_a_sentence(playwright: Any, shown: Server) -> None:
    visit = Visit(playwright, shown.url, "--use-fake-device-for-media-stream", "--deny-permission-prompts")
    page = visit.open()
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("alert").get_by_text("was not allowed to use the camera").wait_for()
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('none', 'NotFoundError')); }")
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("alert").get_by_text("No camera was found.").wait_for()
    visit.close()


def test_a_page_that_is_no_localhost_says_what_a_camera_needs(playwright: Any, shown: Server) -> None:
    visit = Visit(playwright, f"http://elsewhere.test:{shown.port}", "--host-resolver-rules=MAP elsewhere.test 127.0.0.1")
    page = visit.open()
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("alert").get_by_text("only to pages of localhost or of HTTPS").wait_for()
    visit.close()


def test_a_page_that_was_built_without_the_camera_says_so(playwright: Any, shown: Server) -> None:
    visit = Visit(playwright, shown.url, "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    visit.page.route("**/added.json", lambda route: route.fulfill(json={}))
    page = visit.open()
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("alert").get_by_text("built without the camera: make page-full adds it").wait_for()
    visit.close()


def test_the_page_may_use_a_camera_and_nobody_whom_it_holds(shown: Server) -> None:
    assert "camera=(self)" in shown.get("/").headers["permissions-policy"]
    assert "microphone=()" in shown.get("/").headers["permissions-policy"]
