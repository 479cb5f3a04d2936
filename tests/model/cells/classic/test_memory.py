"""The memory: the same in PyTorch, in its specification and in ONNX; its gradient; what it keeps, forgets and answers."""

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from indrnn.kernels.runtime import ort
from indrnn.model.cells.classic.memory import QUESTION, Memory

W, D, V, M, K = 4, 6, 9, 5, 3


def memory(hops: int = K) -> Memory:
    torch.manual_seed(0)
    cell = Memory(W, D, V, M, hops)
    with torch.no_grad():
        cell.embedding.normal_(std=0.7)
        cell.when.normal_(std=0.7)
    return cell


def sentences(seed: int, T: int, B: int) -> np.ndarray:
    """Told and asked, with words past their ends, and some beyond the list."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, V + 1, (T, B, W)) * (np.arange(W) < rng.integers(1, W + 1, (T, B, 1)))
    return np.where(rng.random(x.shape) < 0.05, rng.integers(-3, 40, x.shape), x).astype(np.float32)


@pytest.mark.parametrize("hops", [1, 3])
def test_it_answers_and_keeps_what_its_specification_does(hops: int) -> None:
    cell, x, lengths = memory(hops), sentences(1, 12, 4), np.array([12, 0, 7, 1])
    state = np.random.default_rng(2).normal(size=(4, M * W)) * 3
    want = cell.specified(x.astype(np.float64), lengths, state)
    got = cell(torch.from_numpy(x), torch.from_numpy(lengths), torch.from_numpy(state).float())
    for expected, answered in zip(want, got, strict=True):
        np.testing.assert_allclose(answered.detach().numpy(), expected, atol=1e-5)


def test_its_gradient_is_that_of_finite_differences() -> None:
    cell = memory().double()
    told = torch.from_numpy(sentences(3, M, 2).clip(0, V)).long().transpose(0, 1)
    told[0, :2] = 0  # slots that hold nothing
    asked = torch.tensor([[2, 3, QUESTION, 0], [4, QUESTION, 0, 0]])

    def found(embedding: Tensor, when: Tensor) -> Tensor:
        cell_ = memory().double()
        del cell_.embedding, cell_.when
        cell_.embedding, cell_.when = embedding, when  # type: ignore[assignment]
        return cell_.find(told, asked)

    assert torch.autograd.gradcheck(found, (cell.embedding.detach().requires_grad_(), cell.when.detach().requires_grad_()))


def test_a_softmax_that_is_left_out_is_left_out_of_the_gradient_too() -> None:
    cell = memory()
    told, asked = torch.from_numpy(sentences(3, M, 2).clip(0, V)).long().transpose(0, 1), torch.tensor([[2, 3, 1, 0]] * 2)
    with_, cell.linear = cell.find(told, asked), True
    assert (with_ - cell.find(told, asked)).abs().max() > 1e-2


def test_a_question_is_not_kept_and_the_first_of_more_sentences_than_slots_is_forgotten() -> None:
    cell = memory()
    x = torch.zeros(M + 2, 1, W)
    x[:, 0, 0] = torch.arange(2, M + 4)
    x[3, 0, 1] = QUESTION
    _, state = cell(x, None, torch.zeros(1, M * W))
    assert state.view(M, W)[:, 0].tolist() == [3, 4, 6, 7, 8]  # 2 is forgotten, 5 was asked
    y, after = cell(x[3:4], None, state)
    assert torch.equal(after, state)
    assert (y[0] - cell(x[3:4], None, torch.zeros(1, M * W))[0][0]).abs().max() > 1e-2, "an answer is of what was told"


def test_where_nothing_is_told_nothing_is_found() -> None:
    asked = torch.tensor([[2, 3, QUESTION, 0]])
    assert not memory().find(torch.zeros(1, M, W, dtype=torch.int64), asked).any()


def test_when_something_was_told_counts() -> None:
    cell, told = memory(), torch.zeros(1, M, W, dtype=torch.int64)
    told[0, -2:, 0] = torch.tensor([4, 5])
    asked = torch.tensor([[2, QUESTION, 0, 0]])
    assert (cell.find(told, asked) - cell.find(told.roll(1, 1), asked)).abs().max() > 1e-2


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30, -1e30, -5.0, 1e6])
def test_the_graph_says_the_same_in_any_pieces_and_nothing_that_is_sent_breaks_it(odd: float) -> None:
    cell, x, run = memory(), sentences(5, 20, 3), graph_of(memory())
    start = np.zeros((3, M * W), np.float32)
    want, kept = cell(torch.from_numpy(x), None, torch.from_numpy(start))
    state, got, at = start, [], 0
    for size in (1, 0, 7, 12):
        y, state = run(x[at : at + size], np.full(3, size), state)
        got.append(y)
        at += size
    np.testing.assert_allclose(np.concatenate(got), want.detach().numpy(), atol=1e-5)
    np.testing.assert_array_equal(state, kept.numpy())
    x[4, 1, 0] = odd
    start[1, 3] = odd
    y, state = run(x, np.array([20, 20, 0]), start)
    assert np.isfinite(y).all()
    assert np.isfinite(state).all()
    np.testing.assert_allclose(y[:, 0], want[:, 0].detach().numpy(), atol=1e-5)
    lengths = torch.tensor([20, 20, 0])
    y_torch, state_torch = (got.detach().numpy() for got in cell(torch.from_numpy(x), lengths, torch.from_numpy(start)))
    y_said, state_said = cell.specified(x.astype(np.float64), lengths.numpy(), start.astype(np.float64))
    for answered, kept_ in ((y, state), (y_torch, state_torch)):
        np.testing.assert_allclose(answered[:, :2], y_said[:, :2], atol=1e-5)
        np.testing.assert_array_equal(kept_, state_said)


def graph_of(cell: Memory):
    low = cell.lowering()
    given = ", ".join(("X", "lengths", "state", *low.weights))
    text = f'<opset_import: ["": 18], domain: "own">\nh ({given}) => (Y, state_out) {{\n{low.nodes}\n}}'
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("h", ["X", "lengths", "state", *low.weights], ["Y", "state_out"], domain="own")],
        "g",
        [tensor("X", 1, ["T", "B", W]), tensor("lengths", 7, ["B"]), tensor("state", 1, ["B", M * W])],
        [tensor("Y", 1, ["T", "B", D]), tensor("state_out", 1, ["B", M * W])],
        [onnx.numpy_helper.from_array(w, name) for name, w in low.weights.items()],
    )
    imports = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("own", 1)]
    model = onnx.helper.make_model(graph, opset_imports=imports, functions=[onnx.parser.parse_function(text)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda x, lengths, state: session.run(None, {"X": x, "lengths": lengths.astype(np.int64), "state": state})


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="expected W, d, words, slots and hops of 1 and more"):
        Memory(W, D, V, 0, K)
