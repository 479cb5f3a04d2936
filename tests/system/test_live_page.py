"""The live page in a real Chromium, against a running service: each view, what goes wrong, a narrow screen, the dark, the keyboard."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ROOT, Server
from cutter import Cutter
from safetensors.numpy import load
from websockets.sync.client import connect

from indrnn.frames.layouts import ORDERS, UTD20

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

BUILT = ROOT / "service" / "http" / "static"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = ROOT / "page" / "node_modules" / "axe-core" / "axe.min.js"
BUNDLER = ROOT / "page" / "node_modules" / ".bin" / "rolldown"
pytestmark = [
    pytest.mark.skipif(not (BUILT / "index.html").is_file(), reason="needs the built page: make page"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
VIEWS = ("action", "characters", "neurons", "service")
MOTION = 'input[aria-label="A file with a motion"]'
STATE = 'input[aria-label="Load a state…"] >> nth=0'
PASSAGE_LENGTH = 763


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("page"), {"INDRNN_PAGE": str(BUILT)}).start()
    yield made
    made.stop()
    assert "Traceback" not in made.log()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Visitor:
    """Opens tabs, and keeps what they asked for and complained of."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser, self.url = browser, url
        self.asked: set[str] = set()
        self.complaints: list[str] = []
        self.contexts: list[Any] = []

    def tab(self, view: str, width: int = 1280, dark: bool = False, url: str | None = None) -> Any:
        size = {"width": width, "height": 860}
        context = self.browser.new_context(viewport=size, color_scheme="dark" if dark else "light", accept_downloads=True)
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: self.asked.add(re.sub(r"^(\w+://[^/]*).*", r"\1", request.url)))
        page.on("websocket", lambda ws: self.asked.add(re.sub(r"^(\w+://[^/]*).*", r"\1", ws.url)))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if "Content Security" in said.text else None)
        page.goto(f"{url or self.url}/#{view}")
        page.get_by_role("heading", level=2, name=view.capitalize()).wait_for()
        return page


@pytest.fixture
def visitor(browser: Any, shown: Server) -> Iterator[Visitor]:
    made = Visitor(browser, shown.url)
    yield made
    for context in made.contexts:
        context.close()
    assert not made.complaints
    assert made.asked <= {shown.url, shown.url.replace("http", "ws")}, "nothing leaves for another host"


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).first.click()


def read_passage(page: Any) -> None:
    read_passage_after(page, 0)


def until(page: Any, holds: Callable[[], bool]) -> None:
    """Wait for what no locator can say; the page's policy forbids Playwright to look by itself."""
    for _ in range(600):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came")


def read_passage_after(page: Any, steps: int) -> None:
    press(page, "Read a passage of Alice")
    page.get_by_text(f"{PASSAGE_LENGTH + steps} steps so far").wait_for()


def test_a_motion_is_recognised_and_another_follows_in_the_same_session(visitor: Visitor) -> None:
    page = visitor.tab("action")
    press(page, "wave")
    page.get_by_text("sure since").wait_for()
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    press(page, "squat")
    page.locator(".answer", has_text=re.compile("^squat$")).wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    slider = page.get_by_label("Frame that is shown")
    frames = int(slider.get_attribute("max")) + 1
    slider.fill("50")
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    info = httpx.get(f"{visitor.url}/sessions?limit=1").json()["sessions"][0]
    assert (info["model"], info["position"]) == ("action", frames)


@pytest.mark.skipif(not BUNDLER.is_file(), reason="needs page/node_modules: make page")
def test_every_demo_motion_is_named_by_its_model(shown: Server, tmp_path: Path) -> None:
    subprocess.run(
        [BUNDLER, "src/action/motions.ts", "--format", "esm", "-d", tmp_path], cwd=ROOT / "page", check=True, capture_output=True
    )
    show = "import('./motions.js').then(m => console.log(JSON.stringify(m.MOTIONS.map(one => [one.name, m.frames(one)]))))"
    motions = json.loads(subprocess.run(["node", "-e", show], cwd=tmp_path, check=True, capture_output=True).stdout)
    first = json.loads((ROOT / "bundles" / "action" / "1" / "manifest.json").read_text())["labels"]
    assert sorted(name for name, _ in motions) == sorted(first), "one for each class of version 1, which later ones keep"
    assert set(first) <= set(shown.get("/models/action").json()["versions"][-1]["labels"])
    reply = shown.post("/predict", {"model": "action", "sequences": [frames for _, frames in motions]}).json()
    assert [p["label"] for p in reply["predictions"]] == [name for name, _ in motions]


def test_every_mean_of_recordings_is_named_by_its_model_and_plays(visitor: Visitor) -> None:
    motions = json.loads(httpx.get(f"{visitor.url}/hdm05.json").raise_for_status().content)["motions"]
    sequences = [(np.cumsum(one["frames"], 0).reshape(-1, 20, 3) / 1000).tolist() for one in motions]
    reply = httpx.post(f"{visitor.url}/predict", json={"model": "action", "sequences": sequences}).json()
    assert [p["label"] for p in reply["predictions"]] == [one["name"] for one in motions]
    page = visitor.tab("action")
    page.get_by_role("group", name="Means of recordings").get_by_role("button", name="kick").click()
    page.locator(".answer", has_text=re.compile("^kick$")).wait_for()
    page.get_by_text("shown: kick, mean of 18").wait_for()


def test_an_answer_is_explained_by_joint_and_frame(visitor: Visitor) -> None:
    page = visitor.tab("action")
    press(page, "wave")
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    press(page, "Explain the answer at this frame")
    page.get_by_text(re.compile("At .* for it: ")).wait_for()
    told = page.get_by_role("group", name="Why").inner_text()
    assert re.search(r"for wave: (right|left) (hand|wrist|elbow)", told), told
    assert "wave against the mean of the 53 others" in told
    page.get_by_role("img", name=re.compile("Joints by frames: .*for or against wave")).wait_for()
    slider = page.get_by_label("Frame that is shown")
    slider.focus()
    page.keyboard.press("Home")
    page.get_by_text("At 0.0 s", exact=True).wait_for()
    page.get_by_label("what speaks for").select_option("squat")
    slider.fill("40")
    press(page, "Explain the answer at this frame")
    page.get_by_text(re.compile("squat against the mean of the 53 others, at 1.3 s: there it leads by −")).wait_for()
    slider.fill(slider.get_attribute("max"))
    page.get_by_text("came after the answer that is explained").wait_for()
    press(page, "Show the frame that counts most")
    page.get_by_text(re.compile("At .* for it: ")).wait_for()
    page.locator(".why").hover(position={"x": 5, "y": 5})
    assert re.match(r"head at 0.0 s: [+−]\d", page.locator(".why").get_attribute("title"))
    press(page, "Colour by sides again")
    page.get_by_text("▬ left").wait_for()


def test_the_answer_to_the_motion_before_is_not_sure_since_this_one(visitor: Visitor) -> None:
    page = visitor.tab("action")
    press(page, "wave")
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    frames = int(page.get_by_label("Frame that is shown").get_attribute("max")) + 1
    press(page, "squat")
    slider = page.get_by_label("Frame that is shown")
    until(page, lambda: int(slider.get_attribute("max")) > frames + 20)
    slider.fill(str(frames))
    told = page.locator(".told").inner_text()
    assert told.startswith("wave")
    assert "sure since" not in told
    assert "as before this motion began" in told


def test_an_opened_session_of_motions_is_told_goes_on_and_is_kept(visitor: Visitor) -> None:
    made = httpx.post(f"{visitor.url}/sessions", json={"model": "action"}).json()["session_id"]
    clip = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"]
    httpx.post(f"{visitor.url}/predict", json={"model": "action", "sequences": clip, "session_id": made}).raise_for_status()
    page = visitor.tab("service")
    row = page.get_by_role("row", name=re.compile(re.escape(made[:8])))
    row.get_by_role("button", name="Open").click()
    page.get_by_text(f"Session {made[:8]}… of action 2 is open: 72 frames were read in 1 step.").wait_for()
    press(page, "squat")
    page.locator(".answer", has_text=re.compile("^squat$")).wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    assert httpx.get(f"{visitor.url}/sessions/{made}").json()["position"] == 72 + 84
    press(page, "Forget everything")
    page.get_by_text("It knows 54 motions").wait_for()
    assert httpx.get(f"{visitor.url}/sessions/{made}").status_code == 200, "it was somebody's before"


def test_an_error_comes_into_view_on_a_phone(visitor: Visitor, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.json"
    wrong.write_text("not JSON")
    page = visitor.tab("action", 390)
    page.evaluate("scrollTo(0, 0)")
    page.set_input_files(MOTION, str(wrong))
    page.get_by_role("alert").wait_for()
    box = "e => { const b = e.getBoundingClientRect(); return b.top >= 0 && b.bottom <= innerHeight; }"
    until(page, lambda: page.get_by_role("alert").evaluate(box))


def test_a_dropped_file_is_asked_about_and_played(visitor: Visitor) -> None:
    page = visitor.tab("action")
    page.set_input_files(MOTION, str(ROOT / "examples" / "wave.json"))
    page.get_by_text("one clip, 72 frames of 20 joints").wait_for()
    assert page.get_by_role("button", name="Show it").is_disabled(), "the unit is never guessed"
    page.get_by_label("unit").select_option("metres")
    page.get_by_label("axes").select_option("y up, as the model has it")
    press(page, "Show it")
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()


def recorded(folder: Path) -> dict[str, tuple[Path, str, str]]:
    """Write a wave in each form that is read: where it is, what the page says of it, its unit."""
    wave = np.array(json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"][0])
    np.savez_compressed(folder / "two.npz", x=np.concatenate([wave, wave]), off=[0, len(wave), 2 * len(wave)], joint_names=np.array(UTD20))
    (folder / "mm.json").write_text(json.dumps({"frames": (1000 * wave).tolist(), "hz": 30}))
    header = ["time", *(f"{name.replace(' ', '_')}_{axis}" for name in UTD20 for axis in "xyz")]
    rows = [[t / 30, *frame.ravel().tolist()] for t, frame in enumerate(wave)]
    (folder / "wide.csv").write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]))
    names = ORDERS["kinect25"].names
    near = {"spine base": "hip centre", "spine middle": "spine", "neck": "shoulder centre", "spine shoulder": "shoulder centre"}
    sources = [UTD20.index(near.get(n, re.sub("hand tip|thumb", "hand", n))) for n in names]
    body = [f"{' '.join(map(str, place))} 0 0 0 0 0 0 0 0 2" for frame in wave[:, sources] for place in frame]
    frames = [["1", "7 0 0 0 0 0 0 0 0 2", "25", *body[25 * t : 25 * (t + 1)]] for t in range(len(wave))]
    (folder / "S001.skeleton").write_text("\n".join([str(len(wave)), *(line for frame in frames for line in frame)]))
    return {
        "npz": (folder / "two.npz", "2 clips, 144 frames of 20 joints", "metres"),
        "json": (folder / "mm.json", "one clip, 72 frames of 20 joints", "millimetres"),
        "csv": (folder / "wide.csv", "one clip, 72 frames of 20 joints", "metres"),
        "skeleton": (folder / "S001.skeleton", "one clip, 72 frames of 25 joints", "metres"),
    }


def test_who_is_new_is_offered_a_motion_and_a_neuron_at_once(visitor: Visitor) -> None:
    page = visitor.tab("action")
    press(page, "or see a wave at once")
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    page.goto(f"{visitor.url}/#neurons")
    page.get_by_placeholder("Type here").locator("visible=true").fill('He said "Come in" and went.')
    press(page, "Show a neuron that follows quotes")
    page.locator(".detail").get_by_text(re.compile(r"It goes .*inside quotes \(r = ")).wait_for()
    page.get_by_role("group", name="Colour the text by").wait_for()


def test_every_form_of_file_is_read_its_mapping_shown_and_one_follows_another(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.tab("action")
    page.get_by_label("speed").select_option("4 ×")
    for n, (form, (path, said, unit)) in enumerate(recorded(tmp_path).items(), 1):
        page.set_input_files(MOTION, str(path))
        page.get_by_text(said).wait_for()
        show = page.get_by_role("button", name="Show it")
        page.get_by_text("Which joint becomes which").click()
        assert (
            page.get_by_role("combobox", name="left wrist", exact=True).locator("option:checked").inner_text().replace("_", " ")
            == "left wrist"
        )
        page.get_by_label("axes").select_option("y up, as the model has it")
        assert show.is_disabled(), "the unit is never guessed"
        page.get_by_label("unit").select_option(unit)
        if form == "csv":
            page.get_by_role("combobox", name="left foot", exact=True).select_option("not there")
            page.get_by_text("Not in the file, and held where they are not seen: left foot.").wait_for()
        show.click()
        page.locator(f'input[aria-label="Frame that is shown"][max="{72 * n - 1}"]').wait_for()
        page.get_by_role("button", name="Play", exact=True).wait_for()
        page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    info = httpx.get(f"{visitor.url}/sessions?limit=1").json()["sessions"][0]
    assert info["position"] == 4 * 72, "one after another, in one session"


def test_a_wrong_file_says_what_was_expected(visitor: Visitor, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.json"
    wrong.write_text("not JSON")
    page = visitor.tab("action")
    page.set_input_files(MOTION, str(wrong))
    page.get_by_role("alert").get_by_text("it is no JSON").wait_for()
    page.goto(f"{visitor.url}/#characters")
    state = tmp_path / "other.safetensors"
    state.write_bytes(b"nothing of the kind")
    page.set_input_files(STATE, str(state))
    page.get_by_role("alert").get_by_text("not_a_state").wait_for()


def test_what_is_typed_is_coloured_and_markup_is_only_text(visitor: Visitor) -> None:
    page = visitor.tab("characters")
    page.get_by_placeholder("Type here").press_sequentially("The zqx <b>", delay=5)
    page.get_by_text("11 characters").wait_for()
    paper = page.get_by_role("group", name="The text of")
    assert paper.inner_text() == "The zqx <b>"
    assert paper.locator("b").count() == 0
    assert paper.locator(".s6, .s7").count() >= 2, "nobody expects zqx"
    paper.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.get_by_text(re.compile(r"h came where it had \d")).wait_for()


def test_earlier_characters_are_told_that_counted_for_the_one_pointed_at(visitor: Visitor) -> None:
    page = visitor.tab("characters")
    page.get_by_placeholder("Type here").fill("Natasha said to Natash£a")
    page.get_by_text("24 characters").wait_for()
    paper = page.get_by_role("group", name="The text of")
    paper.focus()
    for key in ("Home", *["ArrowRight"] * 21):
        page.keyboard.press(key)
    page.get_by_text("How much each earlier character counted for h:").wait_for()
    counted = page.locator(".mattered")
    assert counted.inner_text() == "Natasha said to Natash"
    told = page.get_by_text(re.compile("Most for it: ")).inner_text()
    assert re.search(r"“s” 1 before it \+\d", told), told
    assert counted.locator("[class*=against]").count() >= 1
    page.keyboard.press("Home")
    page.get_by_text("Nothing stands before it").wait_for()
    paper.locator("span").nth(23).hover()
    page.get_by_text("How much each earlier character counted for a:").wait_for()
    paper.locator("span").nth(22).hover()
    page.get_by_text("is not in the model's alphabet").wait_for()
    assert counted.count() == 0


def test_a_seed_draws_the_same_text_and_a_fork_goes_its_own_way(visitor: Visitor) -> None:
    page = visitor.tab("characters")
    press(page, "It was late in the evening, and …")
    page.get_by_label("seed").fill("7")
    page.get_by_label("characters", exact=True).fill("40")
    page.get_by_text("32 characters").wait_for()
    press(page, "Fork")
    for n in (0, 1):
        page.get_by_role("button", name="Continue the text").first.click()
        page.get_by_role("button", name="Go on").nth(n).wait_for()
        if n == 0:
            page.get_by_label("seed").nth(1).fill("7")
            page.get_by_label("characters", exact=True).nth(1).fill("40")
    papers = page.locator(".paper").all_inner_texts()
    assert len(papers[0]) > 60
    assert papers[0] == papers[1]
    page.get_by_placeholder("Type here").nth(1).press_sequentially("x")
    page.get_by_text("73 characters").wait_for()
    assert page.locator(".paper").nth(0).inner_text() == papers[0]
    page.get_by_role("progressbar").first.wait_for()


def test_generating_stops_and_goes_on(visitor: Visitor) -> None:
    page = visitor.tab("characters")
    press(page, "It was late in the evening, and …")
    page.get_by_label("characters", exact=True).fill("4000")
    press(page, "Continue the text")
    page.locator(".paper .drawn").nth(20).wait_for()
    press(page, "Stop")
    page.get_by_role("button", name="Go on").wait_for()
    count = page.locator(".paper .drawn").count()
    assert 20 < count < 4000
    page.get_by_label("characters", exact=True).fill("30")
    press(page, "Go on")
    page.locator(".paper .drawn").nth(count + 29).wait_for()


def test_a_saved_state_goes_on_in_another_browser(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.tab("characters")
    press(page, "Prince Andrew looked at the sky and said: …")
    page.get_by_text("42 characters").wait_for()
    with page.expect_download() as download:
        press(page, "Save the state")
    state = tmp_path / download.value.suggested_filename
    download.value.save_as(state)
    expected = page.locator(".guesses").inner_text()
    other = visitor.tab("characters")
    other.set_input_files(STATE, str(state))
    other.get_by_text("(42 characters were read before)").wait_for()
    other.get_by_placeholder("Type here").press_sequentially(" ")
    other.get_by_text("step 2, 43 characters").wait_for()
    page.get_by_placeholder("Type here").press_sequentially(" ")
    page.get_by_text("step 2, 43 characters").wait_for()
    assert expected
    assert other.locator(".guesses").inner_text() == page.locator(".guesses").inner_text()


@pytest.mark.skipif(not (BUILT / "assets").is_dir() or not list(BUILT.glob("assets/runtime-*")), reason="needs make page-full")
def test_a_session_goes_on_in_the_browser_without_the_service_and_comes_back(visitor: Visitor) -> None:
    page = visitor.tab("characters")
    press(page, "It was late in the evening, and …")
    page.get_by_text("32 characters").wait_for()
    mine = httpx.get(f"{visitor.url}/sessions?limit=1").json()["sessions"][0]["session_id"]
    twin = httpx.post(f"{visitor.url}/sessions/{mine}/fork").json()["session_id"]
    page.get_by_label("run here").click()
    page.get_by_text("This browser computes now").wait_for()
    page.context.set_offline(True)
    field = page.get_by_placeholder("Type here")
    field.fill("Natasha said")
    page.get_by_text("44 characters").wait_for()
    page.get_by_label("characters", exact=True).fill("20")
    press(page, "Continue the text")
    page.get_by_text("64 characters").wait_for()
    text = page.locator(".paper").inner_text()
    page.get_by_label("run here").click()
    page.get_by_text("It waits for the service").wait_for()
    page.context.set_offline(False)
    page.get_by_text("The server computes").wait_for()
    field.fill(".")
    page.get_by_text("step 4, 65 characters").wait_for()
    with connect(f"{visitor.url.replace('http', 'ws')}/stream/chars") as ws:
        ws.send(json.dumps({"type": "open", "session_id": twin}))
        ws.recv(10)
        ws.send(json.dumps({"type": "step", "text": text[32:] + "."}))
        assert json.loads(ws.recv(10))["position"] == 65
    states = [load(httpx.get(f"{visitor.url}/sessions/{name}/state").content)["state"] for name in (mine, twin)]
    assert np.abs(states[0] - states[1]).max() <= 1e-4


def test_a_neuron_that_knows_quotes_is_found(visitor: Visitor) -> None:
    page = visitor.tab("neurons")
    read_passage(page)
    press(page, "inside quotes")
    best = page.locator(".found li").first.inner_text()
    correlation = re.search(r"r = (-?[\d.]+)", best)
    assert correlation
    assert abs(float(correlation[1])) > 0.6, best
    page.get_by_text("its own weight u").wait_for()
    assert page.locator(".paper .n5, .paper .n6, .paper .n7").count() > 30, "the text is coloured by the neuron"


def test_a_stretch_finds_neurons_by_keyboard_alone(visitor: Visitor) -> None:
    page = visitor.tab("neurons")
    read_passage(page)
    page.locator(".paper").focus()
    for key in ("Home", "ArrowRight", "Shift+ArrowDown", "Shift+ArrowDown"):
        page.keyboard.press(key)
    page.get_by_role("button", name="Search by the marked stretch").focus()
    page.keyboard.press("Enter")
    page.get_by_text("higher in the marked 41 steps").wait_for()
    assert page.locator(".found").nth(0).locator("li").count() == 10
    assert page.locator(".found").nth(1).locator("li").count() == 5
    page.locator(".paint canvas").focus()
    before = page.locator(".detail h3").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator(".detail h3").inner_text() != before
    page.get_by_role("button", name="Pinned").wait_for()


def by_key(page: Any, name: str, key: str = "Enter", role: str = "button") -> None:
    """Go with the tab key to what has that name, and press a key there."""
    target = page.get_by_role(role, name=name, exact=True).first
    target.wait_for()
    for _ in range(150):
        if target.evaluate("it => it === document.activeElement"):
            page.keyboard.press(key)
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the tab key does not come to {name}")


def test_every_view_is_used_with_the_keyboard_alone(visitor: Visitor) -> None:
    page = visitor.tab("action")
    by_key(page, "wave")
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    by_key(page, "Explain the answer at this frame")
    page.get_by_text(re.compile("At .* for it: ")).wait_for()
    slider = page.get_by_label("Frame that is shown")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.input_value() == "0"
    by_key(page, "Characters", role="link")
    by_key(page, "It was late in the evening, and …")
    page.get_by_text("32 characters").wait_for()
    by_key(page, "Continue the text")
    until(page, lambda: not page.get_by_text("32 characters", exact=True).is_visible())
    by_key(page, "Service", role="link")
    before = len(httpx.get(f"{visitor.url}/sessions?limit=100").json()["sessions"])
    by_key(page, "Delete")
    until(page, lambda: len(httpx.get(f"{visitor.url}/sessions?limit=100").json()["sessions"]) == before - 1)


def test_a_drag_that_begins_and_ends_between_two_lines_is_counted(visitor: Visitor) -> None:
    page = visitor.tab("neurons")
    read_passage(page)
    page.locator(".paper").evaluate("box => { box.scrollTop = 0; }")
    boxes = [page.locator(".paper span[data-i]").nth(i).bounding_box() for i in (5, 200)]
    gaps = [(box["x"] + 2, box["y"] + box["height"] + 1) for box in boxes]
    for x, y in gaps:
        assert page.evaluate(f"document.elementFromPoint({x}, {y}).classList.contains('paper')"), "it is a gap"
    page.mouse.move(*gaps[0])
    page.mouse.down()
    page.mouse.move(*gaps[1], steps=2)
    page.mouse.up()
    page.get_by_role("button", name="Unmark (196 steps)").wait_for()


def test_colours_correlations_and_the_map_are_told_as_they_are(visitor: Visitor) -> None:
    page = visitor.tab("neurons")
    page.get_by_placeholder("Type here").fill("It was late.")
    page.get_by_text("12 steps so far").wait_for()
    page.get_by_text("the right is still empty").wait_for()
    page.get_by_text("surprise, bits:").wait_for()
    read_passage_after(page, 12)
    page.get_by_text("the newest at the right").wait_for()
    press(page, "inside quotes")
    page.get_by_text("off to its highest:").wait_for()
    page.locator(".found li").first.wait_for()
    lines = page.locator(".found li").all_inner_texts()
    assert len(lines) >= 5, "neurons are found"
    for line in lines:
        assert re.search(r"r = -\d.*, against it|r = \d.*, with it", line), line


def test_a_model_is_switched_without_an_error(visitor: Visitor) -> None:
    """What is complained of on the way is seen by the visitor at the end."""
    page = visitor.tab("neurons")
    page.get_by_placeholder("Type here").wait_for()
    for name in ("action", "chars", "action", "chars"):
        page.get_by_label("Model").select_option(name)
        (page.get_by_role("button", name="squat") if name == "action" else page.get_by_placeholder("Type here")).wait_for()
        page.wait_for_timeout(100)


def test_a_fork_parts_from_its_origin_and_meets_it_again(visitor: Visitor) -> None:
    page = visitor.tab("neurons")
    read_passage(page)
    press(page, "Fork and compare")
    page.get_by_placeholder("Type here").fill("The cat sat. ")
    page.get_by_label("The fork reads").fill("The dog ran. ")
    page.get_by_text(re.compile("parted at character 5 .*c.* and .*d")).wait_for()
    page.get_by_label("Both read").fill("It was a long way, and the night was dark, and she had nobody to ask for the road. " * 4)
    page.get_by_text("and met again at character").wait_for()


def test_two_motions_part_and_meet_again(visitor: Visitor) -> None:
    page = visitor.tab("neurons")
    page.get_by_label("Model").select_option("action")
    press(page, "swipe left")
    press(page, "Fork and compare")
    page.get_by_text("Both stand at the same place").wait_for()
    page.get_by_role("group", name="The fork plays").get_by_role("button", name="swipe right").click()
    both = page.get_by_role("group", name="Both play").get_by_role("button", name="squat")
    until(page, both.is_enabled)
    both.click()
    page.get_by_text(re.compile(r"They parted at frame 1 after the fork and met again at frame \d+: their distance")).wait_for(
        timeout=60_000
    )
    press(page, "difference")
    press(page, "Leave the fork")
    page.get_by_role("button", name="Fork and compare").wait_for()


def test_two_sessions_of_motions_are_compared_and_stay_as_they_are(visitor: Visitor) -> None:
    """Other beginnings, then one motion for both: apart at first, and as good as the same in the end."""
    clip = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"]
    mine, other = (httpx.post(f"{visitor.url}/sessions", json={"model": "action"}).json()["session_id"] for _ in range(2))
    for session, read in ((mine, clip[0][:20]), (other, clip[0][20:60])):
        body = {"model": "action", "sequences": [read], "session_id": session}
        httpx.post(f"{visitor.url}/predict", json=body).raise_for_status()
    page = visitor.tab("neurons")
    page.get_by_label("Model").select_option("action")
    page.get_by_label("Begin with").select_option(mine)
    page.get_by_text(f"a copy of session {mine[:8]}…, which had read 20").wait_for()
    page.get_by_label("Compare with session").select_option(other)
    page.get_by_role("heading", name=f"Session {other[:8]}… beside this one").wait_for()
    page.get_by_role("group", name="Both play").get_by_role("button", name="stand to sit").click()
    page.get_by_text(re.compile(r"They are apart at first and .* frame \d+: ")).wait_for()
    page.get_by_text("57 steps so far").wait_for(timeout=120_000)
    page.get_by_role("group", name="Which map").get_by_role("button", name="difference").click()
    page.get_by_role("button", name="Leave the other").click()
    page.get_by_role("heading", name="beside this one").wait_for(state="detached")
    assert [httpx.get(f"{visitor.url}/sessions/{one}").json()["position"] for one in (mine, other)] == [20, 40]


def test_a_body_is_coloured_by_a_neuron(visitor: Visitor) -> None:
    page = visitor.tab("neurons")
    page.get_by_label("Model").select_option("action")
    press(page, "squat")
    page.get_by_text("84 steps so far").wait_for(timeout=120_000)  # at the pace of the motion, where a core is free
    press(page, "height of the hips")
    page.get_by_text("The body has the colour of layer").wait_for()
    assert "r = " in page.locator(".found li").first.inner_text()


def test_tables_fit_a_phone(visitor: Visitor) -> None:
    httpx.post(f"{visitor.url}/sessions", json={"model": "action"}).raise_for_status()
    page = visitor.tab("service", 390)
    page.get_by_role("button", name="Delete").first.wait_for()
    for table in ("models", "sessions"):
        box = page.get_by_role("group", name=f"Table of {table}")
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), table


def test_sessions_are_listed_opened_and_deleted(visitor: Visitor) -> None:
    page = visitor.tab("characters")
    press(page, "It was late in the evening, and …")
    page.get_by_text("32 characters").wait_for()
    mine = httpx.get(f"{visitor.url}/sessions?limit=1").json()["sessions"][0]["session_id"]
    page.get_by_role("link", name="Service").click()
    row = page.get_by_role("row", name=re.compile(re.escape(mine[:8])))
    row.get_by_role("button", name="Fork").click()
    page.wait_for_function(f"document.querySelectorAll('td .acts').length >= 2 && {len(mine)} > 0")
    row.get_by_role("button", name="Open").click()
    page.get_by_text("(32 characters were read before)").wait_for()
    page.get_by_role("link", name="Service").click()
    row.get_by_role("button", name="Delete").click()
    row.wait_for(state="detached")
    assert httpx.get(f"{visitor.url}/sessions/{mine}").status_code == 410


def test_a_lost_connection_is_told_and_loses_nothing(browser: Any, shown: Server) -> None:
    cutter = Cutter(shown.port, seed=1, low=50, high=50)
    cutter.gentle = True
    cutter.start()
    visitor = Visitor(browser, cutter.url)
    try:
        page = visitor.tab("characters")
        field = page.get_by_placeholder("Type here")
        field.press_sequentially("To be")
        page.get_by_text("5 characters").wait_for()
        cutter.gentle = False  # cuts every connection, and the next ones within their handshake
        field.press_sequentially(" or not")
        page.get_by_text("Connection lost").wait_for()
        cutter.gentle = True
        page.get_by_text("Connected again").wait_for()
        page.get_by_text("12 characters").wait_for()
        assert cutter.cuts
        assert page.locator(".paper").inner_text() == "To be or not"
        assert httpx.get(f"{shown.url}/sessions?limit=1").json()["sessions"][0]["position"] == 12
    finally:
        for context in visitor.contexts:
            context.close()
        cutter.stop()


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(browser: Any, own_server: Callable[..., Server], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ann:{hashlib.sha256(b'secret').hexdigest()}\n")
    server = own_server(INDRNN_PAGE=str(BUILT), INDRNN_KEYS=str(keys))
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/#characters")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key").fill("wrong")
    dialog.get_by_role("button", name="Go on").click()
    dialog.get_by_text("is not known").wait_for()
    dialog.get_by_label("Key").fill("secret")
    dialog.get_by_role("button", name="Go on").click()
    press(page, "It was late in the evening, and …")
    page.get_by_text("32 characters").wait_for()
    assert page.evaluate("[localStorage.length, document.cookie, location.href.includes('secret')]") == [0, "", False]
    other = context.new_page()
    other.goto(f"{server.url}/#characters")
    other.get_by_role("dialog").get_by_label("Key").wait_for()
    context.close()


def test_no_key_text_or_clip_leaves_for_another_host_from_any_view(browser: Any, own_server: Callable[..., Server], tmp_path: Path) -> None:
    """A key is in no address and in no request but those to this service, whatever is done in which view."""
    keys = tmp_path / "keys"
    keys.write_text(f"ann:{hashlib.sha256(b'topsecret').hexdigest()}\n")
    server = own_server(INDRNN_PAGE=str(BUILT), INDRNN_KEYS=str(keys))
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request))
    page.on("websocket", lambda ws: asked.append(ws))
    page.goto(f"{server.url}/#characters")
    page.get_by_role("dialog").get_by_label("Key").fill("topsecret")
    page.get_by_role("dialog").get_by_role("button", name="Go on").click()
    press(page, "It was late in the evening, and …")
    page.get_by_text("32 characters").wait_for()
    page.get_by_role("link", name="Action").click()
    page.set_input_files(MOTION, str(ROOT / "examples" / "wave.json"))
    page.get_by_label("unit").select_option("metres")
    page.get_by_label("axes").select_option("y up, as the model has it")
    press(page, "Show it")
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    press(page, "Use the camera")  # there is none here, or no part of the page for it
    page.locator(".camera").get_by_role("alert").wait_for()
    page.get_by_role("link", name="Neurons").click()
    read_passage(page)
    page.get_by_role("link", name="Service").click()
    page.get_by_role("row").nth(4).wait_for()
    context.close()
    assert len(asked) > 10
    addresses = [one.url for one in asked]
    assert {re.sub(r"^\w+://([^/]*).*", r"\1", url) for url in addresses} == {f"127.0.0.1:{server.port}"}
    assert not [url for url in addresses if "topsecret" in url]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_nothing_is_too_wide_and_axe_finds_nothing(visitor: Visitor, width: int, dark: bool) -> None:
    page = visitor.tab("action", width, dark)
    press(page, "wave")
    page.get_by_text("sure since").wait_for()
    for view in VIEWS:
        page.goto(f"{visitor.url}/#{view}")
        page.get_by_role("heading", level=2, name=view.capitalize()).wait_for()
        if view == "characters":
            press(page, "It was late in the evening, and …")
            page.get_by_text("32 characters").wait_for()
            page.locator(".paper span").nth(3).hover()
        if view == "neurons":
            read_passage(page)
            press(page, "inside quotes")
            page.locator(".found li").first.wait_for()
        if view == "service":
            page.get_by_role("row").nth(4).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == (
            "rgb(15, 21, 27)" if dark else "rgb(244, 246, 248)"
        )
        if AXE.is_file():
            page.evaluate(AXE.read_text())
            found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.target)]))")
            assert found == [], view


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
def test_what_explains_is_not_too_wide_and_axe_finds_nothing(visitor: Visitor, width: int, dark: bool) -> None:
    page = visitor.tab("action", width, dark)
    press(page, "wave")
    page.get_by_text("sure since").wait_for()
    press(page, "Explain the answer at this frame")
    page.get_by_text("Over all").wait_for()
    page.get_by_text("Every joint at").click()
    shown = [page, visitor.tab("characters", width, dark)]
    press(shown[1], "It was late in the evening, and …")
    shown[1].get_by_text("32 characters").wait_for()
    shown[1].locator(".paper span").nth(20).hover()
    shown[1].locator(".mattered").wait_for()
    for page in shown:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if AXE.is_file():
            page.evaluate(AXE.read_text())
            assert page.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.target)]))") == []


def test_the_map_of_neurons_costs_little_while_it_streams(visitor: Visitor) -> None:
    """1,500 neurons and more by 300 steps: the script's own time, 8 ms a frame at most, the map's part by its median."""
    page = visitor.tab("neurons")
    read_passage(page)
    press(page, "all")
    assert page.evaluate("document.querySelector('.paint canvas').height") >= 1500
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")

    def script() -> float:
        return float(next(m["value"] for m in cdp.send("Performance.getMetrics")["metrics"] if m["name"] == "ScriptDuration"))

    page.evaluate("window.frames_ = 0; (function count() { window.frames_++; requestAnimationFrame(count); })()")
    page.get_by_label("characters", exact=True).fill("150")
    before = script()
    press(page, "Continue the text")
    page.get_by_text(f"{PASSAGE_LENGTH + 150} steps so far").wait_for()
    spent, frames = 1000 * (script() - before), page.evaluate("window.frames_")
    painted = page.evaluate("performance.getEntriesByName('heat map').map(m => m.duration).sort((a, b) => a - b)")
    assert frames > 10
    assert spent / frames <= 8, (spent, frames)
    assert painted[len(painted) // 2] <= 8, painted


def test_the_page_is_small() -> None:
    """What the browser loads for the page, without camera and runtime: at most 120 KB compressed."""
    index = (BUILT / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="\./([^"]+)"', index)
    assert any(name.endswith(".js") for name in loaded)
    total = sum(len(gzip.compress((BUILT / name).read_bytes())) for name in loaded) + len(gzip.compress(index.encode()))
    assert total <= 120 * 1024
