"""`indrnn train TASK --help` says what each option is."""

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indrnn.__main__ import build_parser, main
from indrnn.model.commands.command import require_limits
from indrnn.model.commands.limits import UnlimitedError
from indrnn.model.nets.adding import AddingConfig
from indrnn.model.tasks.table import TASKS

ROOT = Path(__file__).parents[3]


def subparser(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    found: argparse.ArgumentParser = actions[0].choices[name]
    return found


@pytest.mark.parametrize("task", TASKS)
def test_no_option_sends_its_reader_elsewhere(task: str) -> None:
    helps = {a.dest: a.help or "" for a in subparser(subparser(build_parser(), "train"), task)._actions}
    assert not [name for name, text in helps.items() if text.startswith("see ")]


@pytest.mark.parametrize("task", TASKS)
def test_every_default_is_a_value_that_its_option_takes(task: str) -> None:
    for action in subparser(subparser(build_parser(), "train"), task)._actions:
        given = action.default if isinstance(action.default, tuple) else (action.default,)
        for value in given:
            if action.type is not None and value is not None and value is not argparse.SUPPRESS:
                assert action.type(str(value)) == value  # type: ignore[operator]  # a callable, not a name of one


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--left-out", "wave", "a whole number from 0"),
        ("--left-out", "1.5", "a whole number from 0"),
    ],
)
def test_an_option_beyond_a_table_says_what_it_takes(option: str, value: str, expected: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "action", f"{option}={value}"])
    assert f"argument {option}: expected {expected}, got '{value}'" in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_no_default_is_shown_empty_or_as_python_writes_it(task: str) -> None:
    text = " ".join(subparser(subparser(build_parser(), "train"), task).format_help().split())
    assert "(default: )" not in text
    assert "(default: (" not in text


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--steps", "-1", "a whole number from 1"),
        ("--hidden", "0", "a whole number from 1"),
        ("--rows", "x", "a whole number from 1"),
        ("--validate-every", "0", "a whole number from 1"),
        ("--dropout", "1", "a number from 0 to below 1"),
        ("--steady", "1.5", "a number from 0 to below 1"),
        ("--pools", "2", "a number from 0 to below 1"),
        ("--mirror", "nan", "a number from 0 to 1"),
        ("--jump", "-0.1", "a number from 0"),
        ("--bound", "0", "a number above 0"),
        ("--seed", "-1", "a whole number from 0 to 4294967295"),
        ("--max-wall-time", "-1", "a number from 0"),
    ],
)
def test_a_value_beyond_its_limits_is_refused_in_one_line(option: str, value: str, expected: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "skeleton", "none.npz", f"{option}={value}"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"argument {option}: expected {expected}, got '{value}'" in error


@pytest.mark.parametrize(("name", "default"), [("loudness", 1), ("loudness", 0.5), ("loudness", (1, 2)), ("loudness", ())])
def test_an_option_of_numbers_without_limits_is_an_error_that_names_it(name: str, default: Any) -> None:
    config = dataclasses.make_dataclass(
        "Loud", [(name, type(default), dataclasses.field(default=default))], bases=(AddingConfig,), frozen=True
    )
    with pytest.raises(
        UnlimitedError, match=r"task adding: the option loudness takes numbers: expected its limits in model/commands/limits.py"
    ):
        require_limits([dataclasses.replace(TASKS["adding"], config=config)])
    require_limits([dataclasses.replace(TASKS["adding"], config=config, given=frozenset({name}))])


def test_texts_switches_and_choices_need_no_limits() -> None:
    fields: list[Any] = [("a", str, "x"), ("b", bool, True), ("c", int, dataclasses.field(default=1, metadata={"choices": (1, 2)}))]
    config = dataclasses.make_dataclass("Free", fields, bases=(AddingConfig,), frozen=True)
    require_limits([dataclasses.replace(TASKS["adding"], config=config)])


def test_such_an_option_is_an_error_at_import() -> None:
    code = (
        "import dataclasses\n"
        "from indrnn.model.tasks.table import TASKS\n"
        "adding = TASKS['adding']\n"
        "fields = [('loudness', int, 1)]\n"
        "loud = dataclasses.make_dataclass('Loud', fields, bases=(adding.config,), frozen=True)\n"
        "TASKS['adding'] = dataclasses.replace(adding, config=loud)\n"
        "import indrnn.model.commands.command\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "UnlimitedError: task adding: the option loudness" in done.stderr.splitlines()[-1]


def test_what_an_option_is_is_written_once() -> None:
    """A text that two fields share is one constant, and a subclass that changes a default says nothing."""
    classes = {c for t in TASKS.values() for top in (t.config, t.recipe) for c in top.__mro__ if dataclasses.is_dataclass(c)}
    texts = {f.metadata["help"] for c in classes for f in dataclasses.fields(c) if "help" in f.metadata}
    assert len(texts) > 50
    rooms = ("nets", "data", "training", "tasks")  # those of the tasks; a stack's configuration is no task's
    sources = [path.read_text() for room in rooms for path in (ROOT / "model" / room).rglob("*.py")]
    assert not {text: n for text in texts if (n := sum(s.count(f'"help": "{text}"') for s in sources)) > 1}
