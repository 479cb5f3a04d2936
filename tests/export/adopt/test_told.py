"""What the options of `indrnn adopt` say of a file is taken as it was typed, written down as it was typed, or refused in a line."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from stateful_files import LEVEL, gru, save

from indrnn.__main__ import main

QUICK = ["--steps", "50"]
LONG = ["--max-position", "1234567", "--hz", "2822400"]


def level(folder: Path) -> Path:
    """A file that reads windows of a signal."""
    return save(folder, LEVEL, {"w": np.full(1, 0.5, np.float32)})


def recorded(folder: Path) -> list[str]:
    """Return the words of the command on a bundle's card."""
    found = re.search(r"## How to make it again\n\n```\n(.*)\n```", (folder / "CARD.md").read_text())
    assert found is not None
    return shlex.split(found[1])


@pytest.mark.parametrize(
    "told",
    [LONG, ["--window", "5", "--context", "2", "--hz", "16000"], ["--window", "5", "--hz", "0.1234567890123"]],
    ids=["millions", "window", "many digits"],
)
def test_the_command_on_the_card_says_the_same_numbers_and_makes_the_same_bundle(tmp_path: Path, told: list[str]) -> None:
    path = level(tmp_path) if "--window" in told else gru(tmp_path)
    assert main(["adopt", str(path), str(tmp_path / "bundles"), "--name", "one", *told, *QUICK]) == 0
    folder = tmp_path / "bundles" / "one" / "1"
    words = recorded(folder)
    assert [words[words.index(option) + 1] for option in told[::2]] == told[1::2]
    again = [{path.name: str(path), "bundles/": str(tmp_path / "again")}.get(word, word) for word in words[1:]]
    assert main([*again, *QUICK]) == 0
    assert (tmp_path / "again" / "one" / "1" / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert recorded(tmp_path / "again" / "one" / "1")[4:] == words[4:]
