"""What Ray is told: options, how many replicas carry what, and which store they need. The cluster itself is in tests/cluster."""

from types import SimpleNamespace

import pytest

from indrnn.__main__ import main
from indrnn.service.cluster import ClusterOptions, Replica, ScaleBySteps, replicas_for
from indrnn.service.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("waiting", "sessions", "replicas"),
    [(0, 0, 1), (0, 1_000, 1), (0, 1_001, 2), (64, 10, 1), (65, 10, 2), (640, 3_500, 10), (0.5, 0.5, 1)],
)
def test_replicas_carry_what_steps_and_what_waits(waiting: float, sessions: float, replicas: int) -> None:
    assert replicas_for(waiting, sessions, ClusterOptions()) == replicas


def test_the_policy_adds_up_what_the_replicas_say() -> None:
    policy = ScaleBySteps(sessions=10)
    said = SimpleNamespace(aggregated_metrics={"waiting": {"a": 3.0, "b": 4.0}, "sessions": {"a": 12.0, "b": 9.0}}, target_num_replicas=1)
    assert policy(said) == (3, {})
    assert policy(SimpleNamespace(aggregated_metrics={}, target_num_replicas=2)) == (2, {})  # who has said nothing is no reason to end


def test_options_are_read_and_refused_by_name() -> None:
    assert ClusterOptions.read({"max_replicas": "8", "gpus": "0.25"}) == ClusterOptions(max_replicas=8, gpus=0.25)
    for wrong, said in (
        ({"replicas": "3"}, "unknown option replicas: expected one of min_replicas"),
        ({"max_replicas": "many"}, "expected numbers"),
        ({"min_replicas": "5"}, "expected 1 <= min_replicas <= max_replicas"),
        ({"sessions": "0"}, "above 0"),
        ({"sessions": "5000"}, "at most 4096 sessions of a replica"),
    ):
        with pytest.raises(SettingsError, match=said):
            ClusterOptions.read(wrong)


def test_a_replica_needs_a_store_that_the_others_see() -> None:
    with pytest.raises(SettingsError, match=r"INDRNN_STORE: expected a Redis, which all replicas share, got 'var/sessions.db'"):
        Replica(Settings(store="var/sessions.db"), 60.0)


def test_the_command_says_what_it_wants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--ray", "four"]) == 1
    assert capsys.readouterr().err.strip() == "indrnn: --ray: expected NAME=VALUE, got four"
