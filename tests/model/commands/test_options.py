"""`indrnn train TASK --help` says what each option is."""

import argparse

import pytest

from indrnn.__main__ import build_parser, main
from indrnn.model.tasks.table import TASKS


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
    ],
)
def test_a_value_beyond_its_limits_is_refused_in_one_line(option: str, value: str, expected: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "skeleton", "none.npz", f"{option}={value}"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"argument {option}: expected {expected}, got '{value}'" in error
