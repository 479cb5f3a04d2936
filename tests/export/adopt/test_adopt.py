"""A file becomes a bundle that answers what the file does, or one line says which tensor is in the way and what would help."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from stateful_files import GRU, LEVEL, gru, lstm, mixed, overflowing, save, step, typed, weights

from indrnn.__main__ import main
from indrnn.export.adopt.adoption import Adoption, adopt, saved
from indrnn.export.adopt.handfed import open_session
from indrnn.export.adopt.layout import Told
from indrnn.export.adopt.packing import pieces
from indrnn.export.adopt.pairs import find_pairs
from indrnn.export.adopt.source import Value
from indrnn.export.adopt.write import write
from indrnn.export.bundle import Bundle, read
from indrnn.export.errors import AdoptError, ExportError

QUICK = 50  # steps of the long run


def taken(path: Path, **told: Any) -> Adoption:
    """Adopt a file, which passes every check."""
    adoption = adopt(path, Told(**told), steps=QUICK)
    assert adoption.faults == []
    return adoption


def written(path: Path, **told: Any) -> Bundle:
    return write(taken(path, **told), path.parent / "bundles", "one", "1", command="indrnn adopt model.onnx bundles/")


def run(adoption: Adoption, x: NDArray[Any], state: NDArray[np.float32] | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the bundle's graph on x [B, T, F], all steps at once."""
    state = np.zeros((len(x), adoption.plan.state_size), np.float32) if state is None else state
    feeds = {"x": x.astype(np.float32), "lengths": np.full(len(x), x.shape[1], np.int64), "state": state}
    with saved(adoption.model) as path:
        logits, after = open_session(path).run(["logits", "state_out"], feeds)
    return logits, after


# --- pairs -----------------------------------------------------------------------------------------------------------------------------

NAMES = [
    ("h", "h_out"), ("state", "stateN"), ("h", "hn"), ("h0", "hn"), ("c0", "cn"), ("past_kv", "present_kv"), ("h_in", "h_out"),
    ("past_key_values.0.conv_state", "present.0.conv_state"), ("past_key_values.3.recurrent_state", "present.3.recurrent_state"),
    ("prev_h", "next_h"), ("h_prev", "h_next"), ("h_prev", "h"), ("old_state", "new_state"), ("state", "new_state"),
    ("state", "next_state"), ("input_states_0", "output_states_0"), ("cache_in", "cache_out"), ("hidden_in", "hidden"),
    ("initial_h", "final_h"), ("h_0", "h_n"), ("onnx_in_state", "onnx_out_state"), ("h0", "h1"), ("state_in", "state_new"),
    ("h_tm1", "h_t"), ("state", "state_1"), ("buf", "updated_buf"),
]  # fmt: skip


def pairs(inputs: list[tuple[str, Any]], outputs: list[tuple[str, Any]], **told: str) -> list[tuple[str, str, str]]:
    found = find_pairs([Value(n, "float32", s) for n, s in inputs], [Value(n, "float32", s) for n, s in outputs], told, frozenset())
    return [(p.input.name, p.output.name, p.how) for p in found]


@pytest.mark.parametrize(("name", "out"), NAMES)
def test_a_state_is_found_by_what_it_is_called(name: str, out: str) -> None:
    outputs = [("y", ("B", 4)), ("other", ("B", 5)), (out, ("B", 4))]
    assert pairs([("x", ("B", 4)), (name, ("B", 4))], outputs) == [(name, out, "name")]


def test_states_that_share_no_name_are_found_by_shape_and_order() -> None:
    inputs = [("x", ("B", "T", 3)), ("a", (1, "B", 4)), ("b", (1, "B", 4))]
    outputs = [("getitem", ("B", "T", 4)), ("getitem_1", (1, "B", 4)), ("getitem_2", (1, "B", 4))]
    assert pairs(inputs, outputs) == [("a", "getitem_1", "shape, order"), ("b", "getitem_2", "shape, order")]
    assert pairs(inputs, outputs, a="getitem_2")[0] == ("a", "getitem_2", "told")


def test_a_name_that_is_not_there_or_no_state_at_all_is_refused() -> None:
    with pytest.raises(AdoptError, match="--state h:z: the file has no z, but y"):
        pairs([("x", (3,)), ("h", (4,))], [("y", (3,))], h="z")
    with pytest.raises(AdoptError, match=r"no state goes in and comes out .* --state in:out"):
        pairs([("x", ("B", 3))], [("y", ("B", 3))])


# --- packing ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "start"),
    [
        *(("int64", n) for n in (0, 2**24 - 7, -(2**24) - 5, -(2**40) - 3, 2**62 + 1)),
        *(("int32", n) for n in (0, 2**24 - 7, -(2**30) - 3)),
        ("int8", -100), ("uint8", 7), ("float16", 0), ("float64", 0),
    ],
)  # fmt: skip
def test_a_state_of_any_type_is_packed_exactly(tmp_path: Path, dtype: str, start: int) -> None:
    """Also across 2^24, where a float32 stops to count, and below zero."""
    adoption = adopt(typed(tmp_path, dtype, start), Told(initial={"position": np.array(start)} if start else {}), steps=QUICK)
    assert adoption.faults == []
    x = np.zeros((2, 9, 2))
    state = None
    for cut in (slice(0, 4), slice(4, 5), slice(5, 9)):
        y, state = run(adoption, x[:, cut], state)
        counted = 3 * np.arange(cut.start + 1, cut.stop + 1)
        assert (y == counted[None, :, None]).all()


def test_pieces_hold_what_the_types_do() -> None:
    extremes = np.array([[0, 1, -1, 2**24 + 1, -(2**24) - 1, 2**63 - 1, -(2**63)]], np.int64)
    parts = pieces(extremes).reshape(3, -1).astype(np.int64)
    assert (np.abs(parts) < 2**22).all()
    assert [int(a) + (int(b) << 22) + (int(c) << 44) for a, b, c in parts.T] == extremes[0].tolist()
    wide = np.random.default_rng(0).normal(size=(1, 50)) * 1e6
    assert (pieces(wide).reshape(3, -1).astype(np.float64).sum(0) == wide).all()


def test_a_flag_is_kept(tmp_path: Path) -> None:
    text = """
    toggles (float[B, 1] x, bool[B, 2] flag, float[B, 1] s) => (float[B, 2] y, bool[B, 2] flag_out, float[B, 1] s_out) {
        flag_out = Not (flag)
        y = Cast <to = 1> (flag_out)
        s_out = Add (s, x)
    }
    """
    y, _ = run(taken(save(tmp_path, text)), np.zeros((1, 5, 1)))
    assert y[0, :, 0].tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("as_file", [False, True])
def test_a_zero_row_is_the_start_also_where_the_file_starts_elsewhere(tmp_path: Path, as_file: bool) -> None:
    path = step(tmp_path)
    told = Told(initial={"h": np.array([0.1, -2, 3, 0.5], np.float32) if as_file else np.array(0.25)})
    adoption = adopt(path, told, steps=QUICK)
    assert adoption.faults == []
    start = np.broadcast_to(np.asarray(told.initial["h"], np.float32), (1, 4))
    x = np.random.default_rng(0).normal(size=(1, 6, 3)).astype(np.float32)
    original = open_session(path)
    want, h = [], start
    for t in range(6):
        action, value, h = original.run(["action", "value", "h_out"], {"obs": x[:, t], "h": h})
        want.append(np.concatenate([action, value], 1))
    got, state = run(adoption, x)
    assert got[0] == pytest.approx(np.concatenate(want), abs=1e-6)
    again, _ = run(adoption, x[:, :1], np.zeros_like(state))
    assert again[0, 0] == pytest.approx(want[0][0], abs=1e-6)
    assert state[0, :4] == pytest.approx(h[0], abs=1e-6)


# --- bundles ---------------------------------------------------------------------------------------------------------------------------


def test_a_manifest_keeps_names_types_and_shapes(tmp_path: Path) -> None:
    m = written(typed(tmp_path, "int64")).manifest
    hidden = [(p.name, p.dtype, p.shape, p.size) for p in m.state if p.role == "hidden"]
    assert hidden == [("position", "int64", ("B", 2), 6), ("sum", "float32", ("B", 2), 2)]
    assert [f.name for f in m.features or ()] == ["x_0", "x_1"]
    assert [(r.name, r.shape) for r in m.returned or ()] == [("y", (2,))]
    assert m.adopted is not None
    assert (m.adopted.file, m.cell, m.modality, m.limits.max_batch) == ("model.onnx", "adopted", "tensor", None)
    assert set(m.adopted.checks) == {"split", "rows", "state", "memory", "start", "ahead", "ragged", "endless"}


def test_a_fault_refuses_and_allow_takes_it_and_runs_it_alone_where_batching_is_at_fault(tmp_path: Path) -> None:
    path = mixed(tmp_path)
    with pytest.raises(AdoptError, match=r"rows: y: .* --allow rows takes it all the same"):
        write(adopt(path, Told(), steps=QUICK), tmp_path / "bundles", "one", "1", command="")
    adoption = adopt(path, Told(), {"rows"}, steps=QUICK)
    m = write(adoption, tmp_path / "bundles", "one", "1", command="").manifest
    assert m.limits.max_batch == 1
    assert m.adopted is not None
    assert m.adopted.checks["rows"].startswith("FAULT, allowed: y")
    assert m.adopted.checks["ragged"].startswith("rows of")


def test_a_batch_of_one_runs_a_row_at_a_time_and_says_so(tmp_path: Path) -> None:
    text = """
    fixed (float[1, 3] x, float[1, 4] h) => (float[1, 4] y, float[1, 4] h_out) {
        a = MatMul (x, W)
        b = Add (a, h)
        h_out = Tanh (b)
        y = Identity (h_out)
    }
    """
    adoption = taken(save(tmp_path, text, {"W": np.ones((3, 4), np.float32)}))
    assert adoption.plan.alone
    assert "its batch is fixed at 1: it runs a row at a time, and nothing is batched" in adoption.plan.notes


def test_the_batch_axis_of_each_tensor_is_found_by_running_it(tmp_path: Path) -> None:
    adoption = taken(lstm(tmp_path))
    assert [(s.name, s.axes.batch) for s in adoption.plan.states] == [("h0", 1), ("c0", 1)]
    assert [(f.axes.batch, f.axes.time) for f in adoption.plan.fed] == [(1, 0)]
    assert [(a.axes.batch, a.axes.time) for a in adoption.plan.answers] == [(1, 0)]
    assert adoption.plan.whole
    assert "batch axis" in adoption.plan.table()


def test_a_batch_axis_that_is_told_is_taken(tmp_path: Path) -> None:
    assert taken(lstm(tmp_path), batch_axes={"h0": 1}).plan.states[0].axes.batch == 1
    with pytest.raises(AdoptError, match="h0"):
        adopt(lstm(tmp_path), Told(batch_axes={"h0": 7}))


def test_a_time_axis_is_not_used_where_a_step_at_a_time_is_asked_for(tmp_path: Path) -> None:
    assert not taken(gru(tmp_path), stepped=True).plan.whole


def test_several_outputs_are_returned_and_those_without_rows_are_not(tmp_path: Path) -> None:
    text = """
    two (float[B, 1] x, float[B, 1] s) => (float[B, 1] y, int64[B, 2] n, float[1] scale, float[B, 1] s_out) {
        s_out = Add (s, x)
        y = Identity (s_out)
        pair = Concat <axis = 1> (s_out, s_out)
        n = Cast <to = 7> (pair)
        scale = Identity (W)
    }
    """
    adoption = taken(save(tmp_path, text, {"W": np.ones(1, np.float32)}))
    assert [a.name for a in adoption.plan.answers] == ["y", "n"]
    assert adoption.plan.notes == ("scale is not returned: it has no axis of rows ([1])",)


def test_an_optional_state_starts_from_the_file_s_own_default(tmp_path: Path) -> None:
    path = step(tmp_path, h=np.full((1, 4), 0.5, np.float32))
    adoption = taken(path)
    assert adoption.plan.started
    assert adoption.plan.states[0].initial == pytest.approx(np.full((1, 4), 0.5))


def test_a_constant_is_given_to_the_file_and_not_asked_of_clients(tmp_path: Path) -> None:
    text = """
    scaled (float[B, 1] x, int64 sr, float[B, 1] s) => (float[B, 1] y, float[B, 1] s_out) {
        rate = Cast <to = 1> (sr)
        part = Div (x, rate)
        s_out = Add (s, part)
        y = Identity (s_out)
    }
    """
    path = save(tmp_path, text)
    y, _ = run(taken(path, constants={"sr": np.array(16000)}), np.full((1, 2, 1), 16000.0))
    assert y[0, :, 0].tolist() == [1, 2]
    with pytest.raises(AdoptError, match="--constant z: the file has no such input, but s, sr, x"):
        adopt(path, Told(constants={"z": np.array(1)}))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 21])
def test_files_of_opset_7_upward_are_taken(tmp_path: Path, opset: int) -> None:
    text = """
    old (float[B, 3] x, float[B, 3] s) => (float[B, 3] y, float[B, 3] s_out) {
        half = Mul (s, w)
        s_out = Add (half, x)
        y = Relu (s_out)
    }
    """
    adoption = taken(save(tmp_path, text, {"w": np.full(3, 0.5, np.float32)}, opset=opset))
    assert (adoption.source.opset, adoption.source.notes) == ((18, (f"opset {opset} converted to 18",)) if opset < 13 else (opset, ()))


def test_a_graph_within_a_node_reads_what_is_outside(tmp_path: Path) -> None:
    text = """
    chooses (float[B, 2] x, float[B, 2] s) => (float[B, 2] y, float[B, 2] s_out) {
        total = ReduceSum <keepdims = 0> (w)
        zero = Constant <value_float = 0.0> ()
        positive = Greater (total, zero)
        scaled = Mul (s, w)
        s_out = If (positive) <
            then_branch = yes () => (a) { a = Add (scaled, x) },
            else_branch = no () => (b) { inner = Mul (x, w) b = Sub (scaled, inner) }>
        y = Identity (s_out)
    }
    """
    y, _ = run(taken(save(tmp_path, text, {"w": np.full(2, 0.5, np.float32)})), np.ones((3, 2, 2)))
    assert y[1, :, 0].tolist() == [1, 1.5]


def test_operators_of_the_runtime_s_own_domain_are_taken(tmp_path: Path) -> None:
    text = """
    gelu (float[B, 2] x, float[B, 2] s) => (float[B, 2] y, float[B, 2] s_out) {
        half = Mul (s, w)
        s_out = Add (half, x)
        y = com.microsoft.Gelu (s_out)
    }
    """
    taken(save(tmp_path, text, {"w": np.full(2, 0.5, np.float32)}))


def test_weights_beside_the_file_are_taken_and_beyond_a_size_written_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gru(tmp_path)
    model = onnx.load(path)
    for w in model.graph.initializer:
        w.raw_data = numpy_helper.to_array(w).tobytes()
    onnx.save_model(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").is_file()
    adoption = taken(path)
    monkeypatch.setattr("indrnn.export.adopt.adoption.LARGE", 100)
    bundle = write(adoption, tmp_path / "bundles", "large", "1", command="")
    assert bundle.manifest.weights_sha256 is not None
    assert (bundle.graph.parent / "model.onnx.data").is_file()
    assert (bundle.graph.parent / "model.onnx.data").stat().st_mode == bundle.graph.stat().st_mode
    assert main(["check", str(bundle.graph.parent), "--steps", "50"]) == 0
    (bundle.graph.parent / "model.onnx.data").write_bytes(b"other")
    assert main(["check", str(bundle.graph.parent)]) == 1


def test_weights_in_fields_of_their_own_type_stay_in_the_graph_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gru(tmp_path)
    model = onnx.load(path)
    for w in model.graph.initializer:
        told = numpy_helper.to_array(w)
        w.CopyFrom(helper.make_tensor(w.name, w.data_type, told.shape, told.ravel().tolist()))
        assert not w.raw_data
    onnx.save_model(model, str(path))
    monkeypatch.setattr("indrnn.export.adopt.adoption.LARGE", 100)
    y, _ = run(taken(path), np.zeros((1, 2, 3)))
    assert np.isfinite(y).all()


SEQUENCES = "xt = Transpose <perm = [1, 0, 2]> ({x}) Y, hn = GRU <hidden_size = 4> (xt, W, R, , , h) one = Constant <value_ints = [1]> ()"
KINDS = {  # inputs => outputs, nodes, whether it runs over time itself, whether a row at a time
    "an axis of time that is 1": (
        "(float[batch, 1, 3] x, float[batch, 4] h) => (float[batch, 1, 4] y, float[batch, 4] h_out)",
        "one = Constant <value_ints = [1]> () s = Squeeze (x, one) a = MatMul (s, V) b = Add (a, h) "
        "h_out = Tanh (b) y = Unsqueeze (h_out, one)",
        (False, False),
    ),
    "several inputs, one of them a flag": (
        "(float[N, 3] obs, bool[N] reset, float[N, 4] h) => (float[N, 4] action, float[N, 4] h_next)",
        "one = Constant <value_ints = [1]> () r = Unsqueeze (reset, one) z = Constant <value_float = 0.0> () k = Where (r, z, h) "
        "a = MatMul (obs, V) b = Add (a, k) h_next = Tanh (b) action = Identity (h_next)",
        (False, False),
    ),
    "an answer at the end alone": (
        "(float[B, T, 3] x, float[1, B, 4] h) => (float[B, 4] y, float[1, B, 4] hn)",
        SEQUENCES.format(x="x") + " zero = Constant <value_ints = [0]> () y = Squeeze (hn, zero)",
        (False, False),
    ),
    "symbols": (
        "(int64[B, T] ids, float[1, B, 4] h) => (float[B, T, 4] y, float[1, B, 4] hn)",
        "e = Gather (E, ids) " + SEQUENCES.format(x="e") + " q = Squeeze (Y, one) y = Transpose <perm = [1, 0, 2]> (q)",
        (True, False),
    ),
    "a position that all rows share": (
        "(float[B, 2] x, int64 pos, float[B, 2] s) => (float[B, 2] y, int64 pos_out, float[B, 2] s_out)",
        "one = Constant <value_int = 1> () pos_out = Add (pos, one) c = Cast <to = 1> (pos) s_out = Add (s, x) y = Add (s_out, c)",
        (False, True),
    ),
    "a number for each row": (
        "(float[B, 1] x, float[B] acc) => (float[B, 1] y, float[B] acc_out)",
        "one = Constant <value_ints = [1]> () s = Squeeze (x, one) acc_out = Add (acc, s) y = Unsqueeze (acc_out, one)",
        (False, False),
    ),
    "samples, each with an answer": (
        "(float[B, T] audio, float[B, 1] s) => (float[B, T] out, float[B, 1] s_out)",
        "one = Constant <value_int = 1> () ax = Constant <value_ints = [1]> () m = Constant <value_ints = [-1]> () "
        "e = Constant <value_ints = [9223372036854775807]> () c = CumSum (audio, one) out = Add (c, s) s_out = Slice (out, m, e, ax)",
        (True, False),
    ),
    "a loop over time": (
        "(float[B, T, 3] x, float[B, 4] h) => (float[B, T, 4] y, float[B, 4] hn)",
        "sh = Shape <start = 1, end = 2> (x) zero = Constant <value_ints = [0]> () n = Squeeze (sh, zero) "
        "go = Constant <value = bool {1}> () hn, yt = Loop (n, go, h) <body = each (int64 i, bool c, float[B, 4] s) => "
        "(bool c2, float[B, 4] s2, float[B, 4] o) { c2 = Identity (c) xi = Gather <axis = 1> (x, i) a = MatMul (xi, V) b = Add (a, s) "
        "s2 = Tanh (b) o = Identity (s2) }> y = Transpose <perm = [1, 0, 2]> (yt)",
        (True, False),
    ),
    "no rows at all": (
        "(float[T, 3] x, float[1, 1, 4] h) => (float[T, 4] y, float[1, 1, 4] hn)",
        "one = Constant <value_ints = [1]> () xt = Unsqueeze (x, one) Y, hn = GRU <hidden_size = 4> (xt, W, R, , , h) "
        "ax = Constant <value_ints = [1, 2]> () y = Squeeze (Y, ax)",
        (True, True),
    ),
}  # fmt: skip


def test_a_fixed_length_is_told_as_part_of_a_step(tmp_path: Path) -> None:
    nodes = (
        "t = Transpose <perm = [1, 0, 2]> (x) Y, hn = GRU <hidden_size = 4> (t, W, R, , , h) one = Constant <value_ints = [1]> () "
        "q = Squeeze (Y, one) y = Transpose <perm = [1, 0, 2]> (q)"
    )
    ends = "(float[B, 4, 3] x, float[1, B, 4] h) => (float[B, 4, 4] y, float[1, B, 4] hn)"
    adoption = taken(save(tmp_path, f"fixed {ends} {{ {nodes} }}", weights(3)))
    assert [n for n in adoption.plan.notes if n.startswith("a step of x is all of its 4 x 3 numbers")]


def test_a_flag_of_each_row_is_not_taken_for_one_of_each_step(tmp_path: Path) -> None:
    ends = "(float[T, B, 3] x, float[1, B, 4] h, float[1, B, 1] done) => (float[T, B, 4] y, float[1, B, 4] hn)"
    nodes = (
        "i = Constant <value_float = 1.0> () left = Sub (i, done) kept = Mul (h, left) Y, hn = GRU <hidden_size = 4> (x, W, R, , , kept) "
        "one = Constant <value_ints = [1]> () y = Squeeze (Y, one)"
    )
    adoption = taken(save(tmp_path, f"flagged {ends} {{ {nodes} }}", weights(3)))
    assert not adoption.plan.whole
    assert any("a step at a time" in note for note in adoption.plan.notes)
    assert {f.name: f.axes.size for f in adoption.plan.fed} == {"x": 3, "done": 1}


@pytest.mark.parametrize("what", KINDS)
def test_files_of_many_forms_are_taken(tmp_path: Path, what: str) -> None:
    ends, nodes, expected = KINDS[what]
    rng = np.random.default_rng(3)
    tables = {"V": rng.normal(size=(3, 4)).astype(np.float32), "E": rng.normal(size=(5, 3)).astype(np.float32)}
    adoption = taken(save(tmp_path, f"form {ends} {{ {nodes} }}", {**weights(3), **tables}))
    assert (adoption.plan.whole, adoption.plan.alone) == expected


def test_windows_are_state_of_the_session_whatever_the_pieces(tmp_path: Path) -> None:
    path = save(tmp_path, LEVEL, {"w": np.full(1, 0.5, np.float32)})
    with pytest.raises(AdoptError, match=r"audio: its axis length is free, which is no proof of steps in time.*--window N"):
        adopt(path, Told())
    adoption = taken(path, window=5, context=2)
    x = np.arange(1, 24, dtype=np.float32)[None, :, None]
    s, want = 0.0, []
    for k in range(4):
        s = 0.5 * s + float(x[0, max(5 * k - 2, 0) : 5 * k + 5].sum())
        want.append(2 * s)
    for sizes in ([23], [1] * 23, [4, 1, 5, 11, 2]):
        state, found, at = None, [], 0
        for size in sizes:
            y, state = run(adoption, x[:, at : at + size], state)
            found += [row[0] for row in y[0] if row[1]]
            at += size
        assert found == pytest.approx(want)


def test_a_last_sample_of_nan_fills_the_window_with_zeros(tmp_path: Path) -> None:
    """And changes nothing where no sample waits for its window."""
    adoption = taken(save(tmp_path, LEVEL, {"w": np.full(1, 0.5, np.float32)}), window=5, context=2)
    x = np.arange(1, 13, dtype=np.float32)
    padded = np.concatenate([x, np.zeros(3, np.float32), x])
    want, after = run(adoption, padded[None, :, None])
    cut = np.concatenate([x, [np.nan]])
    y, state = run(adoption, np.stack([cut, cut])[:, :, None])
    assert y[0, :, 1].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1]
    assert y[1, -1, 0] == want[0, 14, 0]
    none, state = run(adoption, np.full((2, 1, 1), np.nan), state)
    assert none[:, 0].tolist() == [[want[0, 14, 0], 0]] * 2
    y, state = run(adoption, np.stack([x, x])[:, :, None], state)
    assert y[0] == pytest.approx(want[0, 15:])
    assert state[0] == pytest.approx(after[0])


# --- refusals --------------------------------------------------------------------------------------------------------------------------

CACHE = """
cache (float[B, 1, 4] x, float[B, past, 4] past_kv) => (float[B, 1, 4] y, float[B, total, 4] present_kv) {
    present_kv = Concat <axis = 1> (past_kv, x)
    y = ReduceMean <axes = [1]> (present_kv)
}
"""
RANDOM = """
noisy (float[B, 2] x, float[B, 2] s) => (float[B, 2] y, float[B, 2] s_out) {
    s_out = Add (s, x)
    noise = RandomNormalLike (x)
    y = Add (s_out, noise)
}
"""
FOREIGN = """
foreign (float[B, 2] x, float[B, 2] s) => (float[B, 2] y, float[B, 2] s_out) {
    s_out = Add (s, x)
    y = com.example.Magic (s_out)
}
"""


def typed_input(folder: Path, state: onnx.TypeProto) -> Path:
    """A state of a type that is no tensor of numbers."""
    path = step(folder)
    model = onnx.load(path)
    model.graph.input.append(onnx.ValueInfoProto(name="memory", type=state))
    path.write_bytes(model.SerializeToString())
    return path


def refusals(folder: Path) -> dict[str, tuple[Path, str]]:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 4])
    far = folder / "far"
    far.mkdir()
    path = gru(far)
    model = onnx.load(path)
    w = model.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    w.external_data.add(key="location", value="../outside.bin")
    path.write_bytes(model.SerializeToString())
    (folder / "junk.onnx").write_bytes(b"no model")

    def own(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    return {
        "growing": (save(own("cache"), CACHE, opset=17), r"past_kv: its axis 1 grows \(past in, total out\).*window that slides"),
        "random": (save(own("random"), RANDOM), r"noise: RandomNormalLike draws without a seed"),
        "foreign": (save(own("foreign"), FOREIGN), r"y: nobody here knows the operator com.example::Magic: export it as a function"),
        "sequence": (typed_input(own("seq"), helper.make_sequence_type_proto(tensor)), r"memory: expected a tensor as input, got sequence"),
        "optional": (typed_input(own("opt"), helper.make_optional_type_proto(tensor)), r"memory: expected a tensor as input, got optional"),
        "string": (
            typed_input(own("str"), helper.make_tensor_type_proto(TensorProto.STRING, [1])),
            r"memory: an input of type string cannot be kept or sent",
        ),
        "outside": (path, r"W: its weights lie at \.\./outside.bin, outside the file's folder: put them beside model.onnx"),
        "junk": (folder / "junk.onnx", r"junk.onnx: expected an ONNX file"),
        "stateless": (
            save(own("none"), "none (float[B, 2] x) => (float[B, 3] y) { y = MatMul (x, w) }", {"w": np.ones((2, 3), np.float32)}),
            r"no state goes in and comes out",
        ),
    }


@pytest.mark.parametrize("what", ["growing", "random", "foreign", "sequence", "optional", "string", "outside", "junk", "stateless"])
def test_what_cannot_be_adopted_is_refused_in_a_line_that_names_the_tensor(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, says = refusals(tmp_path)[what]
    with pytest.raises(ExportError, match=says):
        adopt(path, Told())
    assert main(["adopt", str(path), str(tmp_path / "bundles")]) == 1
    said = capsys.readouterr().err
    assert re.search(says, said)
    assert said.count("\n") == 1
    assert not (tmp_path / "bundles").exists()


def test_a_random_operator_with_a_seed_is_taken_where_answers_do_not_depend_on_it(tmp_path: Path) -> None:
    seeded = RANDOM.replace("RandomNormalLike (x)", "RandomNormalLike <seed = 1.0> (x)")
    (fault,) = [f for f in adopt(save(tmp_path, seeded), Told(), steps=QUICK).findings if f.check == "start"]
    assert str(fault.fault).startswith("y: two starts on the same content")
    taken(save(tmp_path, seeded.replace("Add (s_out, noise)", "Identity (s_out)")))


def test_the_command_writes_a_bundle_and_prints_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, GRU.format(h="h", y="y = Identity (plain)"), weights(3), name="My Model v2.onnx")
    assert main(["adopt", str(path), str(tmp_path / "bundles"), "--steps", "50"]) == 0
    said = capsys.readouterr().out
    assert "state   h -> hn  float32  [1, B, 4]  1           name" in said
    folder = tmp_path / "bundles" / "my-model-v2" / "1"
    assert {f.name for f in folder.iterdir()} == {"model.onnx", "manifest.json", "CARD.md"}
    assert "indrnn adopt 'My Model v2.onnx' bundles/ --name my-model-v2" in (folder / "CARD.md").read_text()
    assert main(["adopt", str(path), str(tmp_path / "bundles"), "--steps", "50"]) == 1
    assert "--force replaces it" in capsys.readouterr().err


def test_a_file_that_overflows_is_taken_for_as_long_as_it_lasts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = overflowing(tmp_path)
    words = ["adopt", str(path), str(tmp_path / "bundles"), "--steps", "120000"]
    assert main(words) == 1
    assert "endless: s: is no longer finite" in capsys.readouterr().err
    assert main([*words, "--max-position", "90000"]) == 0
    assert read(tmp_path / "bundles" / "model" / "1").manifest.limits.max_position == 90_000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--state", "h"), "--state h: expected IN:OUT"),
        (("--constant", "sr"), "--constant sr: expected NAME=VALUE"),
        (("--constant", "sr=fast"), "--constant sr: expected a number or a .npy file, got fast"),
        (("--initial", "h=none.npy"), "--initial h: none.npy"),
        (("--batch-axis", "h=one"), "--batch-axis h: expected a whole number, got one"),
        (("--initial", "x=0"), "--initial x: expected a state, one of h"),
    ],
)
def test_an_argument_that_cannot_be_read_is_named(
    tmp_path: Path, words: tuple[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(gru(tmp_path)), *words]) == 1
    assert says in capsys.readouterr().err
