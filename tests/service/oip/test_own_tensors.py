"""An adopted file's own inputs and outputs over /v2: the same numbers as x and logits, by name and in their types."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from indrnn.service.errors import BadInput, NotFinite, TooLarge
from indrnn.service.oip.message import Ask, SentTensor, Wanted, read_raw
from indrnn.service.oip.rows import InferLimits, Rows, outputs, read
from indrnn.service.serving.signature import Own, OwnTensor, Signature, Spec
from indrnn.service.session.machine import Result, Scores

BOUNDS = InferLimits(rows=8, steps=100, sequence_steps=10, reply=10_000)
DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_, "INT8": np.int8, "INT64": np.int64}


def own(name: str, datatype: str, shape: tuple[int, ...], start: int, size: int, timed: bool = False) -> OwnTensor:
    return OwnTensor(Spec(name, datatype, shape), timed, start, start + size)


def signature(inputs: list[OwnTensor], given: list[OwnTensor], window: int = 1) -> Signature:
    F, K, N = inputs[-1].stop, given[-1].stop + (window > 1), 6
    packed = [Spec("x", "FP32", (-1, -1, F)), Spec("lengths", "INT64", (-1, 1), True), Spec("state", "FP32", (-1, N), True)]
    answered = [Spec("logits", "FP32", (-1, -1, K)), Spec("state_out", "FP32", (-1, N), True)]
    names = Own({t.spec.name: t for t in inputs}, {t.spec.name: t for t in given})
    return Signature("m", "1", {t.name: t for t in packed}, {t.name: t for t in answered}, K, N, names, window)


STEPPED = signature(
    [own("obs", "FP32", (-1, 2, 2), 0, 4), own("mode", "INT64", (-1, 1), 4, 1)],
    [own("action", "FP16", (-1, 3), 0, 3), own("done", "BOOL", (-1, 1), 3, 1), own("count", "INT64", (-1, 1), 4, 1)],
)
WHOLE = signature(
    [own("x", "FP32", (-1, -1, 3), 0, 3, True)], [own("y", "FP32", (-1, -1, 2), 0, 2, True), own("end", "FP32", (-1, 2), 2, 2)]
)
WINDOW = signature([own("audio", "FP32", (-1, -1), 0, 1, True)], [own("level", "FP32", (-1, -1), 0, 1, True)], window=5)


def ask(outputs: list[str] | None = None, flush: bool = False, **arrays: Any) -> Ask:
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    inputs = [SentTensor(n.removesuffix("_"), names[a.dtype], a.shape, np.ascontiguousarray(a).tobytes()) for n, a in arrays.items()]
    return Ask("", inputs, None if outputs is None else [Wanted(n, True) for n in outputs], flush=flush)


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def result(every: np.ndarray, each: bool) -> Any:
    none = np.zeros(0, np.float32)
    return Result(1, 1, Scores(every[-1], every if each else every[:0], none), np.zeros(6, np.float32))


def told(made: Signature, asked: Ask, *rows: np.ndarray) -> dict[str, np.ndarray]:
    found: Rows = read(asked, made, BOUNDS)
    return {o.name: o.array for o in outputs(asked, made, found, [result(r, found.x.shape[1] > 1) for r in rows])}


ANSWER = np.array([[0.1, 0.2, 0.3, 1, 7]], np.float32)


def test_one_step_of_a_file_goes_in_and_comes_out_in_its_own_shapes_and_types() -> None:
    asked = ask(obs=numbers(2, 2, 2), mode=np.array([[7], [-8]], np.int64))
    assert read(asked, STEPPED, BOUNDS).x.tolist() == [[[0, 1, 2, 3, 7]], [[4, 5, 6, 7, -8]]]
    found = told(STEPPED, asked, ANSWER, 2 * ANSWER)
    assert {name: (a.dtype.name, a.shape) for name, a in found.items()} == {
        "action": ("float16", (2, 3)),
        "done": ("bool", (2, 1)),
        "count": ("int64", (2, 1)),
    }
    assert found["action"].tolist() == np.float16([[0.1, 0.2, 0.3], [0.2, 0.4, 0.6]]).tolist()
    assert (found["done"].tolist(), found["count"].tolist()) == ([[True], [True]], [[7], [14]])


def test_steps_may_stand_before_the_own_axes_and_an_input_without_them_holds_for_all() -> None:
    asked = ask(obs=numbers(1, 3, 2, 2), mode=np.array([[7]], np.int64))
    assert read(asked, STEPPED, BOUNDS).x[0, :, 3:].tolist() == [[3, 7], [7, 7], [11, 7]]
    found = told(STEPPED, asked, np.concatenate([ANSWER, 2 * ANSWER, 3 * ANSWER]))
    assert (found["action"].shape, found["count"].tolist()) == ((1, 3, 3), [[[7], [14], [21]]])


def test_a_request_names_outputs_of_both_kinds() -> None:
    asked = ask(["count", "logits", "state_out"], obs=numbers(1, 2, 2), mode=np.array([[7]], np.int64))
    found = told(STEPPED, asked, ANSWER)
    assert {name: a.shape for name, a in found.items()} == {"count": (1, 1), "logits": (1, 1, 5), "state_out": (1, 6)}
    packed = told(STEPPED, ask(x_=numbers(1, 1, 5)), ANSWER)
    assert {name: a.shape for name, a in packed.items()} == {"logits": (1, 1, 5)}  # who sends x is answered as before
    assert told(STEPPED, ask(["action"], x_=numbers(1, 1, 5)), ANSWER)["action"].shape == (1, 1, 3)
    with pytest.raises(BadInput, match="unexpected inference output 'other'"):
        read(ask(["other"], x_=numbers(1, 1, 5)), STEPPED, BOUNDS)


def test_an_input_that_is_called_x_is_the_files_own_and_an_output_without_time_is_of_the_last_step() -> None:
    every = numbers(4, 4)
    found = told(WHOLE, ask(x=numbers(1, 4, 3)), every)
    assert {name: a.tolist() for name, a in found.items()} == {"y": every[None, :, :2].tolist(), "end": [[14, 15]]}
    two = signature([own("x", "FP32", (-1, 2), 0, 2), own("sr", "FP32", (-1, 1), 2, 1)], [own("y", "FP32", (-1, 1), 0, 1)])
    assert not read(ask(x=numbers(1, 1, 3)), two, BOUNDS).named
    assert read(ask(x=numbers(1, 2), sr=numbers(1, 1)), two, BOUNDS).x.shape == (1, 1, 3)
    square = signature([own("x", "FP32", (-1, 2, 2), 0, 4)], [own("y", "FP32", (-1, 1), 0, 1)])
    assert [read(ask(x=numbers(*s)), square, BOUNDS).named for s in ((1, 2, 2), (1, 3, 2, 2), (1, 3, 4))] == [True, True, False]


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "UINT64", "UINT8"])
def test_a_whole_number_at_the_end_of_its_type_stays_there(datatype: str) -> None:
    made = signature([own("a", "FP32", (-1, 1), 0, 1)], [own("y", datatype, (-1, 4), 0, 4)])
    ends = np.iinfo(datatype.lower())
    found = told(made, ask(a=numbers(1, 1)), np.array([[ends.max, ends.min, 7, -1e30]], np.float32))
    assert found["y"].tolist() == [[ends.max, ends.min, 7, ends.min]]


def test_a_name_that_both_have_is_the_files_own_beside_its_own_inputs_and_ours_beside_x() -> None:
    both = signature(
        [own("obs", "FP32", (-1, 2), 0, 2)],
        [own("logits", "FP32", (-1, 2), 0, 2), own("value", "FP32", (-1, 1), 2, 1), own("state_out", "FP32", (-1, 1), 3, 1)],
    )
    answer, state = np.array([[1, 2, 3, 4]], np.float32), np.zeros((1, 6), np.float32)
    found = told(both, ask(x_=numbers(1, 1, 2), state=state), answer)
    assert {name: a.tolist() for name, a in found.items()} == {"logits": [[[1, 2, 3, 4]]], "state_out": [[0] * 6]}
    assert told(both, ask(["logits"], x_=numbers(1, 1, 2)), answer)["logits"].tolist() == [[[1, 2, 3, 4]]]
    found = told(both, ask(obs=numbers(1, 2)), answer)
    assert {name: a.tolist() for name, a in found.items()} == {"logits": [[1, 2]], "value": [[3]], "state_out": [[4]]}
    with pytest.raises(BadInput, match="unexpected inference input 'state' for model 'm': output 'state_out' is the file's own"):
        read(ask(obs=numbers(1, 2), state=state), both, BOUNDS)


def test_an_input_x_of_another_datatype_than_the_files_own_is_all_of_them() -> None:
    coded = signature([own("x", "INT64", (-1, -1, 3), 0, 3, True)], [own("y", "FP32", (-1, -1, 2), 0, 2, True)])
    found = [read(ask(x_=numbers(1, 4, 3).astype(t)), coded, BOUNDS) for t in (np.float32, np.int64)]
    assert [(rows.named, rows.x.tolist()) for rows in found] == [(named, numbers(1, 4, 3).tolist()) for named in (False, True)]
    with pytest.raises(BadInput, match="'x' data-type is 'FP32', but model 'm' expects 'INT64'"):
        read(ask(x_=numbers(4, 3)), coded, BOUNDS)


def test_the_outputs_bytes_are_counted_in_their_own_types_and_each_once() -> None:
    wide = signature([own("a", "FP32", (-1, 1), 0, 1)], [own("y", "FP64", (-1, 100), 0, 100), own("z", "INT64", (-1, 100), 100, 100)])
    exact, a = ([InferLimits(8, 100, 10, reply=n) for n in (1600, 1599)], numbers(1, 1))
    assert read(ask(a=a), wide, exact[0]).named
    with pytest.raises(TooLarge, match="would have 1600 bytes, of at most 1599"):
        read(ask(a=a), wide, exact[1])
    with pytest.raises(TooLarge, match="would have 2424 bytes, of at most 1600"):
        read(ask(["state_out", "y", "z", "logits"], a=a), wide, exact[0])
    with pytest.raises(TooLarge, match="would have 4800 bytes"):  # three steps
        read(ask(a=numbers(1, 3, 1)), wide, exact[0])
    assert read(ask(audio=numbers(1, 100)), WINDOW, InferLimits(8, 100, 10, reply=4 * (100 * 2 + 6))).named  # 20 windows
    with pytest.raises(BadInput, match="output 'y' already exists in request"):
        read(ask(["y", "z", "y"], a=a), wide, BOUNDS)


def test_a_window_answers_as_often_as_one_ended_and_not_at_all_before() -> None:
    ended, begun = np.array([[0.5, 1]], np.float32), np.array([[0.5, 0]], np.float32)
    assert told(WINDOW, ask(audio=numbers(1, 1)), begun)["level"].shape == (1, 0)
    assert told(WINDOW, ask(audio=numbers(1, 1)), ended)["level"].tolist() == [[0.5]]
    asked = ask(audio=numbers(2, 12), lengths=np.array([12, 7]))
    rows = [np.array([[1, 1], [2, 1]], np.float32), np.array([[3, 1]], np.float32)]
    assert told(WINDOW, asked, *rows)["level"].tolist() == [[1, 2], [3, 0]]


def test_a_flush_is_a_sample_of_nan_behind_each_row_and_may_come_alone() -> None:
    found = read(ask(flush=True, audio=numbers(2, 3), lengths=np.array([3, 2])), WINDOW, BOUNDS)
    assert found.lengths == [4, 3]
    assert np.isnan(found.x[:, :, 0]).tolist() == [[False, False, False, True], [False, False, True, False]]
    assert [len(found.content(row).x) for row in (0, 1)] == [4, 3]
    for alone in (ask(flush=True, audio=numbers(1, 0)), ask(flush=True, x_=numbers(1, 0, 1))):
        assert np.isnan(read(alone, WINDOW, BOUNDS).x).tolist() == [[[True]]]
    with pytest.raises(TooLarge, match="got 101"):
        read(ask(flush=True, audio=numbers(1, 100)), WINDOW, BOUNDS)
    with pytest.raises(TooLarge, match="got 0"):
        read(ask(audio=numbers(1, 0)), WINDOW, BOUNDS)
    with pytest.raises(BadInput, match="'indrnn_flush' is for models that read windows"):
        read(ask(flush=True, x=numbers(1, 4, 3)), WHOLE, BOUNDS)


def test_what_does_not_fit_says_which_tensor() -> None:
    mode = np.array([[7]], np.int64)
    for asked, text in (
        (ask(obs=numbers(1, 2, 2)), r"missing required input\(s\) \['mode'\]"),
        (ask(lengths=np.array([[1]])), r"missing required input\(s\) \['obs', 'mode'\]"),
        (ask(obs=numbers(1, 2, 2), mode=mode, x_=numbers(1, 1, 5)), "unexpected inference input 'x'"),
        (ask(obs=numbers(1, 2, 2), mode=mode.astype(np.float32)), "'mode' data-type is 'FP32', but model 'm' expects 'INT64'"),
        (ask(obs=numbers(1, 2, 3), mode=mode), r"unexpected shape for input 'obs' for model 'm'. Expected \[-1,2,2\], got \[1,2,3\]"),
        (ask(obs=numbers(2, 2, 2), mode=mode), "expected the same rows and steps in each"),
        (ask(obs=numbers(1, 3, 2, 2), mode=np.zeros((1, 2, 1), np.int64)), "expected the same rows and steps in each"),
        (ask(obs=numbers(1, 2, 2), mode=np.array([[2**24 + 1]])), r"'mode' for model 'm': expected whole numbers of at most 2\^24"),
        (ask(obs=numbers(1, 2, 2), mode=np.array([[-(2**63)]])), "at most 2"),
    ):
        with pytest.raises(BadInput, match=text):
            read(asked, STEPPED, BOUNDS)
    wide = signature([own("a", "FP64", (-1, 1), 0, 1)], [own("y", "FP32", (-1, 1), 0, 1)])
    with pytest.raises(NotFinite):
        read(ask(a=np.array([[1e300]])), wide, BOUNDS)
    truth = signature([own("a", "BOOL", (-1, 2), 0, 2)], [own("y", "FP32", (-1, 1), 0, 1)])
    assert read(Ask("", [SentTensor("a", "BOOL", (1, 2), None, [True, False])], None), truth, BOUNDS).x.tolist() == [[[1, 0]]]
    with pytest.raises(BadInput, match="expected true or false, got 1"):
        read(Ask("", [SentTensor("a", "BOOL", (1, 2), None, [True, 1])], None), truth, BOUNDS)


def test_inputs_that_would_be_repeated_beyond_the_bounds_take_no_memory() -> None:
    wide = signature([own("image", "FP32", (-1, 2000), 0, 2000), own("mode", "BOOL", (-1, 1), 2000, 1)], [own("y", "FP32", (-1, 1), 0, 1)])
    bounds = InferLimits(rows=8, steps=30_000, sequence_steps=10, reply=1_000_000)
    tracemalloc.start()
    try:
        for steps, text in (
            (50_000, "must have from 1 to 30000 time steps, got 50000"),
            (20_000, "would have 160080000 bytes, of at most"),
        ):
            with pytest.raises(TooLarge, match=text):
                read(ask(image=numbers(1, 2000), mode=np.zeros((1, steps, 1), np.bool_)), wide, bounds)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert read(ask(image=numbers(1, 2000), mode=np.zeros((1, 100, 1), np.bool_)), wide, bounds).x.shape == (1, 100, 2001)
    assert read(ask(image=numbers(1, 150, 2000), mode=np.zeros((1, 150, 1), np.bool_)), wide, bounds).x.shape == (1, 150, 2001)


def test_bytes_alone_are_the_one_input_and_listed_tensors_are_the_files_own() -> None:
    asked = read_raw(numbers(1, 7).tobytes(), WINDOW)
    assert [(t.name, t.shape) for t in asked.inputs] == [("audio", (1, 7))]
    assert [(t.name, t.shape) for t in read_raw(numbers(1, 10).tobytes(), STEPPED).inputs] == [("x", (1, 2, 5))]
    assert [[t.name for t in tensors] for tensors in STEPPED.asked] == [["obs", "mode"], ["action", "done", "count"]]
    assert [[t.name for t in tensors] for tensors in WHOLE.optional] == [["lengths", "state"], ["logits", "state_out"]]


@pytest.mark.parametrize(("wrong", "what"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_what_is_not_finite_is_told_of_the_input_that_was_sent(wrong: float, what: str) -> None:
    with pytest.raises(NotFinite, match=f"'obs' for model 'm': expected finite numbers, got {what}"):
        read(ask(obs=np.full((1, 2, 2), wrong, np.float32), mode=np.array([[7]], np.int64)), STEPPED, BOUNDS)


def test_a_flush_may_come_with_an_empty_tensor() -> None:
    found = read(ask(audio=np.zeros((1, 0), np.float32), flush=True), WINDOW, BOUNDS)
    assert np.isnan(found.x).tolist() == [[[True]]]
    with pytest.raises(BadInput, match="missing required input"):
        read(ask(flush=True), WINDOW, BOUNDS)
