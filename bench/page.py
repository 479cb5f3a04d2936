"""Does the live page keep its pace while neurons stream? A real headless Chromium on this machine, without a GPU, beside the service.

python bench/page.py [--rounds 3]     (needs the built page: make page; playwright and chromium)

First paint is what Chromium calls first contentful paint, of a tab that has nothing of the page yet, from the running service.
The view of neurons shows every neuron of `chars`, 3,200 by 300 steps, while 150 characters are written. A frame is from one animation frame
to the next, the browser's drawing included; the script's own time is what Chromium counts. Beside them: the same page at rest, which
is what the browser does without any of it.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.figure import Figure, table
from bench.server import ROOT, service

BUILT = ROOT / "service" / "http" / "static"
PASSAGE = 763  # steps of the passage that the page reads
WRITTEN = 150
WHOLE, SCRIPT, PAINT = 16.7, 8.0, 1000.0  # milliseconds
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
COUNT = """() => { window.frames_ = []; let last = null; window.on_ = true;
requestAnimationFrame(function next(now) {
  if (last !== null) window.frames_.push(now - last);
  last = now;
  if (window.on_) requestAnimationFrame(next);
}); }"""
STOP = "() => { window.on_ = false; return window.frames_; }"


def spent(cdp: Any) -> float:
    """Return the seconds that scripts have taken so far."""
    return float(next(m["value"] for m in cdp.send("Performance.getMetrics")["metrics"] if m["name"] == "ScriptDuration"))


def measured(page: Any, cdp: Any, until: Any) -> tuple[float, float, int]:
    """Return the median frame and the script's time a frame, in milliseconds, and how many frames there were."""
    before = spent(cdp)
    page.evaluate(COUNT)
    until()
    frames = sorted(page.evaluate(STOP))
    return round(frames[len(frames) // 2], 1), 1000 * (spent(cdp) - before) / len(frames), len(frames)


def one_round(browser: Any, port: int) -> dict[str, float]:
    """Open the page, read a passage, and measure it at rest and while it streams."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(120_000)
    page.goto(f"http://127.0.0.1:{port}/#neurons")
    page.get_by_role("button", name="Read a passage of Alice").click()
    page.get_by_text(f"{PASSAGE} steps so far").wait_for()
    page.get_by_role("button", name="all", exact=True).click()
    rows = page.evaluate("document.querySelector('.paint canvas').height")
    page.get_by_label("characters", exact=True).fill(str(WRITTEN))
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")
    rest, _, _ = measured(page, cdp, lambda: page.wait_for_timeout(2000))

    def write() -> None:
        page.get_by_role("button", name="Continue the text").click()
        page.get_by_text(f"{PASSAGE + WRITTEN} steps so far").wait_for()

    whole, script, frames = measured(page, cdp, write)
    page.close()
    return {"whole": whole, "script": script, "frames": frames, "rest": rest, "rows": rows}


def first_paint(browser: Any, port: int) -> float:
    """Return the milliseconds until a fresh tab shows something of the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    while (painted := page.evaluate(PAINTED)) is None:
        page.wait_for_timeout(20)
    context.close()
    return float(painted)


def main() -> None:
    """Measure some rounds, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or not (BUILT / "index.html").is_file():
        raise SystemExit("needs chromium and the built page: make page")
    with service(env={"INDRNN_PAGE": str(BUILT)}) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        painted = [first_paint(browser, server.port) for _ in range(args.rounds)]
        rounds = [one_round(browser, server.port) for _ in range(args.rounds)]
        version = browser.version
        browser.close()
    rest = ", ".join(f"{r['rest']:.1f}" for r in rounds)
    beside = f"at rest {rest} ms; {rounds[0]['rows']:.0f} neurons by 300 steps"
    details = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "chromium": version, "frames": [r["frames"] for r in rounds]}
    figures = [
        Figure("paint", "first paint from the running service", "ms", painted, PAINT, False),
        Figure("whole", "a whole frame while neurons stream, median", "ms", [r["whole"] for r in rounds], WHOLE, False, beside, details),
        Figure("script", "the script's own time a frame", "ms", [r["script"] for r in rounds], SCRIPT, False),
    ]
    print(table(figures))
    print(f"Chromium {version}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(json.dumps({"page": {f.name: f.json() for f in figures}}))


if __name__ == "__main__":
    main()
