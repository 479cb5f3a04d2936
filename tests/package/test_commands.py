"""Every command and every target of make that README and the pages name is there and takes what they give it."""

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from indrnn.__main__ import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "client" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MENTION = re.compile(r"(?:`|^|\s)(?:\.venv/bin/|python -m )?indrnn ((?:" + "|".join(COMMANDS) + r")\b[^`\n|]*)", re.M)
PLACEHOLDER = re.compile(r"…|\.\.\.|<|\||[A-Z]{3,}|\b[A-Z]\b|\[|\*")


def mentions() -> list[tuple[str, str]]:
    """(page, arguments) of each command line that has no placeholder in it."""
    found = []
    for page in PAGES:
        for text in MENTION.findall(page.read_text()):
            line = text.split("  #")[0].split(" # ")[0].split(" > ")[0].split(" && ")[0].strip().rstrip(",;:.)")
            if not PLACEHOLDER.search(line):
                found.append((page.name, line))
    return sorted(set(found))


def test_pages_name_commands() -> None:
    assert len(mentions()) > 20


@pytest.mark.parametrize(("page", "line"), mentions())
def test_a_command_that_a_page_names_is_taken(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = shlex.split(line)
    try:
        args = build_parser(argv[0]).parse_args(argv)
    except SystemExit:
        assert len(argv) == 1 or argv[:1] == ["train"], f"{page}: indrnn {line}\n{capsys.readouterr().err}"
        assert "required" in capsys.readouterr().err or len(argv) == 1, f"{page}: indrnn {line}"
    else:
        assert args.command == argv[0]


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every argument of a command and of the tasks below it, with the command's words."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in {id(p): p for p in action.choices.values()}.values():
                yield from arguments(one)
        else:
            yield parser.prog, action


def test_help_says_what_each_argument_is_and_which_may_be_repeated() -> None:
    found = [one for name in COMMANDS for one in arguments(build_parser(name)) if one[0].startswith(f"indrnn {name}")]
    assert not {(prog, action.dest) for prog, action in found if not action.help}
    repeated = {(prog, action.dest): str(action.help) for prog, action in found if isinstance(action, argparse._AppendAction)}
    assert len(repeated) > 5
    assert not [which for which, words in repeated.items() if "may be repeated" not in words]


@pytest.mark.parametrize(
    "target", sorted({t for page in PAGES for t in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.M)} - {"it"})
)
def test_a_target_that_a_page_names_has_a_rule(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), f"make {target} does nothing"
    assert "Nothing to be done" not in done.stdout or target in ("install", "kernel"), done.stdout
