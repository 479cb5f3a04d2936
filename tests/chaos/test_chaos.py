"""A minute of chaos, and that its checker sees what goes wrong. `make chaos` goes on for ten."""

import os
import random
import threading
import time
from pathlib import Path

import chaos_load
import pytest
from chaos_load import Forgotten, Infer, Lost, Predict, Tally, Truth, differs, go_through, insist
from chaos_run import Chaos
from chaos_service import ChaosService

SECONDS = float(os.environ.get("INDRNN_TEST_CHAOS", "60"))


def test_nothing_is_lost_or_applied_twice(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10_000)
    found = Chaos(tmp_path, seed, False).run(SECONDS)
    print(found.table())
    assert found.failures == [], found.table() + "\n" + (tmp_path / "log").read_text()[-4_000:]
    assert found.steps > 100
    assert sum(found.faults.values()) >= 3


def test_a_service_that_forgets_is_found_out(tmp_path: Path) -> None:
    service, tally, end = ChaosService(tmp_path), Tally(), threading.Event()
    service.ready()
    truths = {kind: Truth.of(kind, service.url) for kind in (Predict, Infer)}
    threads = [threading.Thread(target=go_through, args=(kind, service.url, truths[kind], tally, end, 0.05)) for kind in truths]
    for thread in threads:
        thread.start()
    time.sleep(1)
    service.process.kill()
    service.process.wait(10)
    for file in tmp_path.glob("sessions.db*"):
        file.unlink()
    service.ready()
    time.sleep(1)
    end.set()
    for thread in threads:
        thread.join(60)
    service.end()
    assert len(tally.failures) >= 2, tally.failures


def test_what_differs_is_said() -> None:
    assert differs({"at": [1, 2], "n": [0.5]}, {"at": [1, 2], "n": [0.50001]}) is None
    assert differs({"at": [2, 2], "n": [0.5]}, {"at": [1, 2], "n": [0.5]}) == "at: expected [1, 2], got [2, 2]"
    assert differs({"n": [0.6]}, {"n": [0.5]}) == "off by 0.067"
    assert differs({"n": [float("nan")]}, {"n": [0.5]}) == "off by nan"
    assert differs({"n": []}, {"n": [0.5]}) == "expected (1,) numbers, got (0,)"


@pytest.mark.parametrize(("n", "leapt", "raised"), [(Infer.length, 2.0, Forgotten), (Infer.length, 0.0, Lost), (3, 2.0, Lost)])
def test_only_an_end_that_the_clock_leapt_over_may_be_forgotten(
    n: int, leapt: float, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise Lost("400: … must specify the START flag on the first request of the sequence")

    monkeypatch.setattr(chaos_load, "asked", refused)
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    with pytest.raises(raised):
        Infer("http://x").step("a", n, Tally(leapt=leapt))


def test_what_is_never_answered_is_lost() -> None:
    with pytest.raises(Lost, match="never answered"):
        insist(lambda: None, Tally(), 0.1)
