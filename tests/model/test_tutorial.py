"""The tutorial for researchers, run command by command as it stands there, but for the service at its end."""

import re
import shlex
from pathlib import Path

import pytest

from indrnn.__main__ import build_parser, run_command

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial-research.md").read_text()


def test_the_tutorial_for_researchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for language, text in re.findall(r"```(python|bash)\n(.*?)```", PAGE, re.DOTALL):
        if language == "python":
            exec(text, {})
            continue
        for line in text.splitlines():
            argv = shlex.split(re.sub(r"^(INDRNN_\w+=\S+ )*indrnn ", "", line))
            if argv[0] == "serve":
                assert build_parser("serve").parse_args(argv).command == "serve"
            else:
                assert run_command(argv) == 0, line
    assert {f.name for f in (tmp_path / "my-bundles" / "slopes" / "1").iterdir()} >= {"model.onnx", "manifest.json", "CARD.md"}
    assert list((tmp_path / "pictures").iterdir())
    assert "accuracy" in capsys.readouterr().out
