"""The locks the image is installed from: what pyproject.toml asks for, from PyPI, each package by its hashes."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def lines(extra: str) -> list[str]:
    """The lock's requirements, each with its hashes on the same line."""
    text = re.sub(r"\s*\\\n\s*", " ", (ROOT / "locks" / f"{extra}.txt").read_text())
    return [line for line in text.splitlines() if not line.startswith("#")]


def wanted(extra: str) -> Iterator[Requirement]:
    """What an extra asks for, those it names included."""
    for text in EXTRAS[extra]:
        requirement = Requirement(text)
        if requirement.name == "indrnn":
            for other in requirement.extras:
                yield from wanted(other)
        else:
            yield requirement


@pytest.mark.parametrize("extra", ["serve", "serve-gpu"])
def test_a_lock_holds_what_is_asked_for_in_a_version_that_fits(extra: str) -> None:
    locked = {r.name: r for line in lines(extra) if (r := Requirement(line.split(" --hash")[0]))}
    for requirement in wanted(extra):
        (pinned,) = locked[requirement.name].specifier
        assert pinned.operator == "=="
        assert requirement.specifier.contains(pinned.version), f"{requirement} and {pinned}: write the lock anew"


@pytest.mark.parametrize("extra", ["serve", "serve-gpu", "node"])
def test_every_package_is_named_by_hashes_and_comes_from_no_index_of_its_own(extra: str) -> None:
    for line in lines(extra):
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; [^#@]+?)?( --hash=sha256:[0-9a-f]{64})+", line), line[:100]
