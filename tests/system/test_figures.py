"""The published figures are what the served bundles give: measured again here, which chooses nothing."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Server

sys.path.insert(0, str(ROOT))
from bench import accuracy

Start = Callable[..., Server]
BARS = {
    ("action", "1"): {"test_accuracy_100_served": 96.0, "test_accuracy_stream_served": 92.0},
    ("action", "2"): {"test_accuracy_100_served": 96.0, "test_accuracy_stream_served": 92.0},
    ("chars", "1"): {"test_bpc_war_and_peace_served": 2.1},
    ("chars", "2"): {"test_bpc_war_and_peace_served": 1.75, "test_bpc_war_and_peace_one_line": 1.8, "test_bpc_alice": 2.3},
}


def published(model: str, version: str) -> dict[str, float]:
    manifest = json.loads((ROOT / "bundles" / model / version / "manifest.json").read_text())
    return {f["name"]: f["value"] for f in manifest["figures"]}


def needs(path: str) -> None:
    if not (Path(os.environ.get("INDRNN_DATA", "data")) / path).is_file():
        pytest.skip(f"needs {path} below INDRNN_DATA")


@pytest.mark.parametrize(
    ("model", "version", "path"),
    [
        ("action", "1", "skeleton/utd_mhad.npz"),
        ("action", "2", "skeleton/utd_mhad.npz"),
        ("chars", "1", "text/war_and_peace.txt.gz"),
        ("chars", "2", "text/war_and_peace.txt.gz"),
    ],
)
def test_the_served_bundle_gives_its_published_figures(own_server: Start, tmp_path: Path, model: str, version: str, path: str) -> None:
    needs(path)
    shutil.copytree(ROOT / "bundles" / model / version, tmp_path / "bundles" / model / version)
    server = own_server(INDRNN_BUNDLES=str(tmp_path / "bundles"))
    measured: list[dict[str, Any]] = accuracy.MEASURED[model](server.port, "test")
    said = published(model, version)
    named = {figure["name"] for figure in measured}
    assert named & set(BARS[model, version]), "what the bars are for was measured"
    for figure in measured:
        assert figure["value"] == pytest.approx(said[figure["name"]], abs=0.3 if figure["unit"] == "%" else 0.002), figure["name"]


@pytest.mark.parametrize(("model", "version"), [("action", "1"), ("action", "2"), ("chars", "1"), ("chars", "2")])
def test_the_published_figures_are_over_their_bars(model: str, version: str) -> None:
    said = published(model, version)
    for name, bar in BARS[model, version].items():
        assert said[name] >= bar if model == "action" else said[name] <= bar


def test_a_session_is_as_good_after_a_hundred_thousand_characters(server: Server) -> None:
    needs("text/war_and_peace.txt.gz")
    parts = accuracy.read("war_and_peace")
    text = parts["val"][:20_000]
    first, _, later = accuracy.bits(server.port, [text, parts["train"][:100_000], text])
    assert later <= first + 0.02
