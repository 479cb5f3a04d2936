"""`python -m model train TASK --help` says what each option is."""

import argparse

import pytest

from model.__main__ import _parser
from model.tasks import TASKS


def subparser(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    found: argparse.ArgumentParser = actions[0].choices[name]
    return found


@pytest.mark.parametrize("task", TASKS)
def test_no_option_sends_its_reader_elsewhere(task: str) -> None:
    helps = {a.dest: a.help or "" for a in subparser(subparser(_parser(), "train"), task)._actions}
    assert not [name for name, text in helps.items() if text.startswith("see ")]
