"""page/mean_motions.py: the aligned mean of clips, and the file that was made with it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from indrnn.model.data.sets import DataMissingError, find

ROOT = Path(__file__).parents[2]
MADE = ROOT / "page" / "public" / "hdm05.json"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mean_motions", ROOT / "page" / "mean_motions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def places(made: dict[str, list[list[int]]]) -> np.ndarray:
    return np.cumsum(made["frames"], 0).reshape(-1, 20, 3) / 1000


def test_a_warp_begins_and_ends_together_and_passes_every_frame(script: ModuleType) -> None:
    cost = np.random.default_rng(1).random((9, 14))
    pairs = script.warp(cost)
    assert (pairs[0], pairs[-1]) == ((0, 0), (8, 13))
    assert {i for i, _ in pairs} == set(range(9))
    assert {j for _, j in pairs} == set(range(14))
    steps = np.diff(pairs, axis=0)
    assert steps.min() >= 0
    assert steps.max() == 1


def test_a_warp_takes_the_least_of_all_ways(script: ModuleType) -> None:
    cost = np.random.default_rng(2).random((6, 7))

    def least(i: int, j: int) -> float:
        if (i, j) == (0, 0):
            return float(cost[0, 0])
        ways = [(least(i - 1, j - 1), cost[i, j])] if min(i, j) > 0 else []
        ways += [(least(i - 1, j - 2), cost[i, j] + cost[i, j - 1])] if i > 0 and j > 1 else []
        ways += [(least(i - 2, j - 1), cost[i, j] + cost[i - 1, j])] if i > 1 and j > 0 else []
        return min((before + here for before, here in ways), default=float("inf"))

    assert sum(cost[i, j] for i, j in script.warp(cost)) == pytest.approx(least(5, 6))


def test_the_mean_of_one_motion_at_several_paces_is_that_motion(script: ModuleType) -> None:
    """A mean frame by frame would be off by the whole way of a hand that is late."""
    t = np.linspace(0, 1, 60)
    still = np.random.default_rng(3).normal(size=(20, 3))

    def at(time: np.ndarray) -> np.ndarray:
        x = np.repeat(still[None], len(time), 0)
        x[:, 11, 1] += np.sin(2 * np.pi * time) ** 2 * 0.5
        return x

    paced = [at(t), at(t**1.4), at(t**0.7)]
    found = script.mean(paced)
    apart = np.array([np.abs(found - frame).max((1, 2)).min() for frame in at(t)])
    assert apart.max() < 0.03  # the bell flattens a peak by that
    assert np.abs(np.mean(paced, 0) - script.stretched(found, 60)).max() > 0.08


def test_a_motion_is_turned_to_the_camera_and_bones_get_their_lengths(script: ModuleType) -> None:
    body = np.random.default_rng(4).normal(size=(5, 20, 3))
    turned = script.faced(body)
    across = (turned[:3, script.RIGHT] - turned[:3, script.LEFT]).mean(0)
    assert across[2] == pytest.approx(0)
    assert across[0] > 0
    assert turned[0, script.BODY.root].tolist() == pytest.approx([0, 0, script.AWAY])
    np.testing.assert_allclose(script.bones(turned), script.bones(body))
    lengths = np.arange(20.0) + 1
    lengths[script.BODY.root] = 0
    np.testing.assert_allclose(script.bones(script.whole(body, lengths)), lengths)


def test_the_file_is_what_the_script_makes(script: ModuleType) -> None:
    try:
        find("skeleton/hdm05.npz")
    except DataMissingError as error:
        pytest.skip(str(error))
    clips, hop = script.means(["hop"])["hop"]
    made = next(one for one in json.loads(MADE.read_text("utf-8"))["motions"] if one["name"] == "hop")
    assert made["clips"] == clips
    np.testing.assert_allclose(places(made), hop, atol=0.0011)  # whole millimetres; other processors may round otherwise
