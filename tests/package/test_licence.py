"""What is under another licence than the project's is named wherever somebody looks for licences."""

import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTICE = (ROOT / "NOTICE").read_text()


def test_the_licence_of_the_demo_motions_is_in_notice_metadata_and_readme() -> None:
    licence = json.loads((ROOT / "page" / "public" / "hdm05.json").read_text())["licence"]
    name, address = licence.split(", ")
    spdx = name.replace(" ", "-")
    assert address in NOTICE
    assert spdx in NOTICE
    assert spdx in PROJECT["license"].split(" AND ")
    assert name in (ROOT / "README.md").read_text()


def test_software_in_the_built_page_is_named() -> None:
    names = [name for path in ("page", "page/full") for name in json.loads((ROOT / path / "package.json").read_text())["dependencies"]]
    assert len(names) > 3
    for name in names:
        assert name in NOTICE.replace("uPlot", "uplot"), name
    assert "MIT" in PROJECT["license"].split(" AND ")


def test_software_that_is_copied_into_the_built_page_is_named_with_what_is_within_it() -> None:
    script = (ROOT / "page" / "build.py").read_text()
    copied = [name for name in json.loads((ROOT / "page" / "package.json").read_text())["devDependencies"] if f'"{name}"' in script]
    assert copied == ["swagger-ui-dist"]
    for name in (*copied, "swagger-ui-bundle.js.LICENSE.txt", "ieee754", "The 3-Clause BSD License"):
        assert name in NOTICE, name
    assert "BSD-3-Clause" in PROJECT["license"].split(" AND ")


def test_a_wheel_and_an_image_carry_the_files() -> None:
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]
    copied = (ROOT / "Dockerfile").read_text().splitlines()
    assert {"COPY LICENSE ./", "COPY NOTICE ./"} <= set(copied)
    assert {"!LICENSE", "!NOTICE"} <= set((ROOT / ".dockerignore").read_text().splitlines())
