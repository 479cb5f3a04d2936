"""Each check of the kit finds the fault it is made for, and says where and how large it is."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stateful_files import FAULTS, gru, lstm, overflowing, step

from indrnn.__main__ import main
from indrnn.export import kit
from indrnn.export.adopt.adoption import adopt
from indrnn.export.adopt.layout import Told

SAYS = {
    "state": r"[hc]0: after \d+ steps in one piece and in .*row \d: off by 0\.\d+",
    "memory": r"h: is never fed back",
    "rows": r"y: \d+ steps alone and among 4 rows, row \d, step \d+: off by 0\.\d+",
    "ahead": r"y: the answers before step \d+ with other content from there on, row \d, step \d+: off by \d+\.\d+",
    "endless": r"s: is no longer finite between 9\d,\d+ and 10\d,\d+ steps",
}


def failed(path: Path, steps: int = 2_000) -> dict[str, str]:
    return {f.check: str(f.fault) for f in adopt(path, Told(), steps=steps).findings if f.fault is not None}


@pytest.mark.parametrize(("name", "make"), FAULTS.items())
def test_a_broken_file_is_caught_by_its_own_check(tmp_path: Path, name: str, make: Callable[[Path], Path]) -> None:
    found = failed(make(tmp_path), 200_000 if name == "endless" else 2_000)
    assert re.search(SAYS[name], found[name]), found
    beside = {"split", "start", "ragged"}  # whole and a step at a time are no longer the same
    assert set(found) - {name} <= {"state": beside, "memory": {*beside, "state"}, "ahead": beside, "rows": {"start", "ragged"}}.get(
        name, set()
    )


@pytest.mark.parametrize("make", [lstm, gru, step])
def test_a_right_file_passes_every_check(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert failed(make(tmp_path)) == {}


def test_check_says_it_in_a_table_and_by_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(overflowing(tmp_path)), "--steps", "200000"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[-len(kit.CHECKS) :]] == ["ok"] * 7 + ["FAULT"]
    assert main(["check", str(gru(tmp_path)), "--steps", "50"]) == 0
    assert "h -> hn  float32  [1, B, 4]" in capsys.readouterr().out


def test_a_bundle_is_checked_by_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[3] / "bundles"
    assert main(["check", str(root / "action" / "1"), "--steps", "300"]) == 0
    assert "300 steps" in capsys.readouterr().out


def test_a_long_run_without_a_number_of_steps_says_how_far_it_came(tmp_path: Path) -> None:
    adoption = adopt(overflowing(tmp_path), Told(), seconds=1e-9)
    assert adoption.findings[-1].note.startswith("0 steps in 1e-09 s; --steps 1000000")


@pytest.mark.parametrize(("slow", "most"), [(3.0, 5), (0.01, 1_500)])
def test_a_long_run_ends_in_time_also_where_a_step_takes_seconds(monkeypatch: pytest.MonkeyPatch, slow: float, most: int) -> None:
    clock = [0.0]
    ran: list[int] = []

    def run(x: kit.Array, lengths: np.ndarray, state: kit.Floats) -> tuple[kit.Floats, kit.Floats]:
        ran.append(x.shape[1])
        clock[0] += slow * x.shape[1]
        return np.zeros((1, x.shape[1], 1), np.float32), state

    monkeypatch.setattr(kit.time, "monotonic", lambda: clock[0])
    part = kit.Stretch("h", 0, 1)
    slowly = kit.Subject("slow", run, lambda rng, B, T: np.zeros((B, T, 1), np.float32), (part,), (part,), frozenset())
    assert "in 10 s" in kit.check_endless(slowly, np.random.default_rng(0))
    assert 10 <= clock[0] <= 13
    assert sum(ran) <= most
    assert set(ran) == {1} if slow > 1 else max(ran) > 32
