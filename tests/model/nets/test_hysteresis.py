"""Hysteresis: the same in PyTorch, in its specification, in ONNX and for many thresholds at once, and each motion told once."""

import numpy as np
import onnx
import pytest
import torch

from indrnn.kernels.runtime import ort
from indrnn.model.detection.figures import Thresholds, ToldEvent, told_events
from indrnn.model.nets.hysteresis import Hysteresis

RULES = [Thresholds(0.5, 0.3, 2, 4), Thresholds(0.35, 0.1, 1, 0), Thresholds(0.6, 0.6, 3, 7)]


def scores(seed: int, T: int, K: int = 4) -> np.ndarray:
    """Scores that wander, so that every rule finds something."""
    rng = np.random.default_rng(seed)
    logits = 2.5 * np.stack([np.convolve(rng.normal(size=T + 6), np.ones(7) / 2, "valid") for _ in range(K)], 1)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return (odds / odds.sum(1, keepdims=True)).astype(np.float32)


def by_reference(cell: Hysteresis, p: np.ndarray) -> np.ndarray:
    return cell.specified(p[:, None].astype(np.float64), None, np.zeros((1, cell.state_size)))[0][:, 0]


@pytest.mark.parametrize("rules", RULES)
def test_torch_and_the_search_tell_what_the_specification_tells(rules: Thresholds) -> None:
    cell, streams = Hysteresis(4, *rules), [scores(seed, 150 + 30 * seed) for seed in range(3)]
    many = told_events(streams, RULES)[RULES.index(rules)]
    for p, told in zip(streams, many, strict=True):
        want = by_reference(cell, p)
        y, _ = cell(torch.from_numpy(p)[:, None], None, torch.zeros(1, cell.state_size))
        np.testing.assert_allclose(y[:, 0].numpy(), want, atol=1e-6)
        assert told == [ToldEvent(int(k), t) for t, k in enumerate(want[:, 0]) if k]
        assert len(told) > 3


@pytest.mark.parametrize("rules", RULES)
def test_the_graph_tells_the_same_in_any_pieces(rules: Thresholds) -> None:
    cell, p = Hysteresis(4, *rules), scores(7, 200)
    run = graph_of(cell)
    want = by_reference(cell, p)
    state, got, at = np.zeros((1, cell.state_size), np.float32), [], 0
    for size in (1, 0, 40, 3, 1, 155):
        y, state = run(p[at : at + size, None], np.array([size]), state)
        got.append(y[:, 0])
        at += size
    np.testing.assert_allclose(np.concatenate(got), want, atol=1e-6)


def graph_of(cell: Hysteresis):
    low = cell.lowering()
    given = ", ".join(("X", "lengths", "state", *low.weights))
    text = f'<opset_import: ["": 18], domain: "own">\nh ({given}) => (Y, state_out) {{\n{low.nodes}\n}}'
    node = onnx.helper.make_node("h", ["X", "lengths", "state", *low.weights], ["Y", "state_out"], domain="own")
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [tensor("X", 1, ["T", "B", 4]), tensor("lengths", 7, ["B"]), tensor("state", 1, ["B", cell.state_size])],
        [tensor("Y", 1, ["T", "B", 3]), tensor("state_out", 1, ["B", cell.state_size])],
        [onnx.numpy_helper.from_array(w, name) for name, w in low.weights.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("own", 1)]
    model = onnx.helper.make_model(graph, functions=[onnx.parser.parse_function(text)], opset_imports=opsets, ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda x, lengths, state: session.run(None, {"X": x, "lengths": lengths, "state": state})


def one_class(*p: float) -> np.ndarray:
    """Scores of a network of one motion."""
    high = np.array(p, np.float32)
    return np.stack([1 - high, high], 1)


@pytest.mark.parametrize(
    ("p", "told"),
    [
        ((0.1, 0.4, 0.6, 0.6, 0.6, 0.4, 0.6, 0.6, 0.1), [(3, 2)]),  # between off and on it lasts: told once, begun when it passed off
        ((0.6, 0.6, 0.1, 0.6, 0.6), [(1, 1)]),  # it ends, and comes again too soon after the last event
        ((0.6, 0.6, 0.1, 0.1, 0.1, 0.1, 0.6, 0.6), [(1, 1), (7, 1)]),
        ((0.6, 0.1, 0.6, 0.4, 0.6, 0.1), []),  # never two steps in a row
        ((0.4, 0.4, 0.4, 0.4), []),
    ],
)
def test_a_motion_is_told_once(p: tuple[float, ...], told: list[tuple[int, int]]) -> None:
    found = by_reference(Hysteresis(2, 0.5, 0.3, 2, 3), one_class(*p))
    assert [(t, ago) for t, (k, ago, _) in enumerate(found.tolist()) if k] == told


def test_another_class_takes_over_when_it_reaches_on() -> None:
    first, second = [0.55, 0.4, 0.02], [0.36, 0.6, 0.04]
    p = np.array([first, first, second, second], np.float32)[:, [2, 0, 1]]
    found = by_reference(Hysteresis(3, 0.5, 0.3, 1, 0), p)
    assert found[:, 0].tolist() == [1, 0, 2, 0]


def test_a_stream_without_end_stays_bounded() -> None:
    cell = Hysteresis(2, 0.5, 0.3, 2, 3)
    state = torch.tensor([[1, 1e6, 2, 1, 0, 0.9]])
    assert cell.step(torch.tensor([[0.1, 0.9]]), state)[1].tolist() == state.tolist()


@pytest.mark.parametrize("rules", [(0.3, 0.5, 1, 0), (0.5, 0, 1, 0), (1.2, 0.5, 1, 0), (0.5, 0.3, 0, 0), (0.5, 0.3, 1, -1)])
def test_thresholds_that_cannot_be_are_refused(rules: tuple[float, float, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 0 < off <= on <= 1"):
        Hysteresis(3, *rules)
