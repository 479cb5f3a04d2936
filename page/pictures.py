"""Takes the pictures of docs/page.md from a running service: python page/pictures.py http://127.0.0.1:8000 docs/page

Needs playwright, pillow and a Chromium; $CHROMIUM names another than /usr/bin/chromium.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright


def action(page: Any) -> None:
    """Play two motions, stop within the second, and ask why."""
    page.get_by_role("button", name="wave", exact=True).click()
    page.locator(".answer", has_text=re.compile("^wave$")).wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    page.get_by_role("button", name="tennis serve", exact=True).click()
    page.locator(".answer", has_text=re.compile("^tennis serve$")).wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Explain the answer at this frame").click()
    page.get_by_role("button", name="Show the frame that counts most").click()
    page.get_by_text("Over all").wait_for()


def characters(page: Any) -> None:
    """Begin a sentence and let two continuations go their ways."""
    page.get_by_role("button", name=re.compile("Prince Andrew")).click()
    page.get_by_text("42 characters").wait_for()
    page.get_by_role("button", name="Fork").click()
    for n in (0, 1):
        page.get_by_label("seed").nth(n).fill(str(3 + n))
        page.get_by_role("button", name="Continue the text").first.click()
        page.get_by_role("button", name="Go on").nth(n).wait_for()
    page.wait_for_timeout(500)
    page.locator(".paper").first.locator("span").nth(50).hover()
    page.locator(".mattered").wait_for()


def neurons(page: Any) -> None:
    """Look for a neuron that knows quotes."""
    page.get_by_role("button", name="Read a passage of Alice").click()
    page.get_by_text("763 steps so far").wait_for()
    page.get_by_role("button", name="inside quotes").click()
    page.locator(".found li").first.wait_for()
    page.wait_for_timeout(500)


ASKED = """async () => {
  const body = await (await fetch("wave.json")).text(), end = Date.now() + 14000;
  const ask = async () => { while (Date.now() < end) { await fetch("predict", { method: "POST", body }); } };
  await Promise.all([ask(), ask(), ask()]);
}"""


def service(page: Any) -> None:
    """Watch some seconds in which something is asked."""
    page.evaluate(ASKED)


VIEWS = {"action": (action, 1180), "characters": (characters, 1180), "neurons": (neurons, 1460), "service": (service, 860)}
COLOURS = 256  # half of the bytes
LOOKS = {"": (1180, "light"), "-dark": (1180, "dark"), "-phone": (390, "light")}


def main(url: str, folder: str) -> None:
    """Take every view, light; action in the dark and on a phone too."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
        for look, (width, scheme) in LOOKS.items():
            for view, (show, height) in VIEWS.items():
                if look and view != ("neurons" if look == "-dark" else "action"):
                    continue
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(f"{url}/#{view}")
                show(page)
                page.evaluate("scrollTo(0, 0)")
                path = f"{folder}/{view}{look}.png"
                page.screenshot(path=path)
                Image.open(path).quantize(COLOURS, kmeans=2).save(path, optimize=True)
                page.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
