"""What a bundle on disk must be, and that a reader says which bundle is wrong and why."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from indrnn.export.bundle import BundleError, Figure, Manifest, digest, read


def chars_manifest(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "tiny",
        "version": "1",
        "kind": "chars",
        "sha256": "0" * 64,
        "op_version": 1,
        "opset": 18,
        "inputs": [{"name": "x", "dtype": "int64", "shape": ["B", "T"]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["B", "T", 3]}],
        "state": [
            {"role": "hidden", "layer": 0, "offset": 0, "size": 2, "activation": "relu", "u": [0.5, -0.99]},
            {"role": "last_logits", "offset": 2, "size": 3},
        ],
        "alphabet": "ab\n",
        "training": {"command": "indrnn train chars", "seed": 1, "parameters": 10, "data": []},
        "figures": [],
        "parity_error": 1e-6,
        "created": "2024-01-01T00:00:00+00:00",
        "source_revision": "unknown",
    }
    return {**values, **changes}


def action_manifest(**changes: Any) -> dict[str, Any]:
    layouts = {
        "own": {"joint_names": ["head", "hip"], "table": [[0], [1]]},
        "other": {"joint_names": ["hip", "neck", "head"], "table": [[1, 2], [0]]},
    }
    hidden, last = chars_manifest()["state"]
    state = [hidden, {"role": "last_frame", "offset": 2, "size": 6}, {**last, "offset": 8}]
    action = {"kind": "action", "alphabet": None, "labels": ["a", "b", "c"], "layout": "own", "layouts": layouts, "persons": 1, "hz": 30}
    action["state"] = state
    return chars_manifest(**{**action, **changes})


def put(root: Path, name: str = "tiny", version: str = "1", graph: bytes = b"graph") -> Path:
    folder = root / name / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph)
    values = chars_manifest(name=name, version=version, sha256=digest(folder / "model.onnx"))
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder


def test_whole_bundle_is_read(tmp_path: Path) -> None:
    folder = put(tmp_path)
    bundle = read(folder)
    assert bundle.graph == folder / "model.onnx"
    m = bundle.manifest
    assert (m.name, m.state_size, m.classes, m.max_abs_u) == ("tiny", 5, 3, 0.99)
    assert m.part("last_logits") == m.state[1]
    assert m.part("pool") is None


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path, name: str, linked: bool) -> None:
    folder = put(tmp_path)
    (folder / name).unlink()
    os.mkfifo(tmp_path / "pipe" if linked else folder / name)
    if linked:
        (folder / name).symlink_to(tmp_path / "pipe")
    code = f"from pathlib import Path; from indrnn.export.bundle import read; read(Path({str(folder)!r}))"
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert f"bundle tiny/1: {name}: expected a regular file" in refused.stderr


def test_changed_graph_is_refused_by_name(tmp_path: Path) -> None:
    folder = put(tmp_path)
    (folder / "model.onnx").write_bytes(b"grapH")
    with pytest.raises(BundleError, match=r"bundle tiny/1: model\.onnx: expected sha256 [0-9a-f]{64}, got"):
        read(folder)


@pytest.mark.parametrize(
    ("file", "message"), [("model.onnx", r"model\.onnx is missing"), ("manifest.json", r"manifest\.json: .*No such file")]
)
def test_missing_file_is_refused_by_name(tmp_path: Path, file: str, message: str) -> None:
    folder = put(tmp_path)
    (folder / file).unlink()
    with pytest.raises(BundleError, match="bundle tiny/1: " + message):
        read(folder)


FILES = ["manifest.json", "model.onnx", "model.onnx.data", "explain.onnx"]
FAULTS = {
    "a permission": PermissionError(errno.EACCES, "Permission denied"),
    "a file that goes": FileNotFoundError(errno.ENOENT, "No such file or directory"),
    "a disk": OSError(errno.EIO, "Input/output error"),
}


@pytest.mark.parametrize("call", ["is_file", "open"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, fault: str, call: str
) -> None:
    folder = put(tmp_path)
    for name in FILES[2:]:
        (folder / name).write_bytes(b"more")
    stated = json.loads((folder / "manifest.json").read_text())
    more = digest(folder / FILES[2])
    (folder / "manifest.json").write_text(json.dumps({**stated, "weights_sha256": more, "explain": {"sha256": more, "error": 0}}))
    read(folder)
    before = getattr(Path, call)

    def failing(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == file:
            raise FAULTS[fault]
        return before(path, *args, **more)

    monkeypatch.setattr(Path, call, failing)
    with pytest.raises(BundleError, match=rf"bundle tiny/1: {re.escape(file)}: "):
        read(folder)


@pytest.mark.parametrize("moved", ["tiny/2", "other/1"])
def test_folder_of_another_name_is_refused(tmp_path: Path, moved: str) -> None:
    folder = put(tmp_path)
    (tmp_path / moved).parent.mkdir(exist_ok=True)
    folder.rename(tmp_path / moved)
    with pytest.raises(BundleError, match=rf"bundle {moved}: manifest\.json says tiny/1"):
        read(tmp_path / moved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "tiny"}'])
def test_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    folder = put(tmp_path)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle tiny/1: manifest\.json"):
        read(folder)


def test_a_bundle_with_an_empty_graph_is_an_error(tmp_path: Path) -> None:
    bad = put(tmp_path, "bad")
    (bad / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="bundle bad/1"):
        read(bad)


HIDDEN, LAST = chars_manifest()["state"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Tiny"}, "name"),
        ({"name": "../tiny"}, "name"),
        ({"version": "1.0"}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"sha256": "0"}, "sha256"),
        ({"op_version": 2}, "op_version: expected 1, got 2"),
        ({"parity_error": 1.1e-4}, "parity_error"),
        ({"parity_error": float("nan")}, "parity_error"),
        ({"alphabet": "aba"}, "distinct"),
        ({"alphabet": "abcd"}, "last_logits part of 4"),
        ({"state": [HIDDEN]}, "last_logits part of 3"),
        ({"state": [HIDDEN, {**LAST, "offset": 3}]}, "expected a part at offset 2, got last_logits at 3"),
        ({"state": [{**HIDDEN, "u": [0.5]}, LAST]}, "expected 2 weights, got 1"),
        ({"state": [{**LAST, "offset": 0}, {**HIDDEN, "offset": 3}]}, "expected the hidden parts first"),
        ({"state": [{**HIDDEN, "u": None}, LAST]}, "states its layer, activation and u"),
        ({"state": [{**HIDDEN, "u": [0.5, -1.0]}, LAST]}, r"max \|u\| is 1: limits.max_position is required"),
    ],
)
def test_manifest_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    Manifest.model_validate(chars_manifest())
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(chars_manifest(**changes))


@pytest.mark.parametrize(("part", "says"), [({"role": "origin"}, "state.1.role"), ({"role": "pool", "activation": "gelu"}, "state.1")])
def test_a_part_of_a_role_or_an_activation_that_nothing_writes_is_refused_in_one_line(
    tmp_path: Path, part: dict[str, Any], says: str
) -> None:
    """No network of any release had an origin in its state; the name was taken, and is free again."""
    folder = put(tmp_path)
    hidden, last = chars_manifest()["state"]
    state = [hidden, {"offset": 2, "size": 1, **part}, {**last, "offset": 3}]
    (folder / "manifest.json").write_text(json.dumps(chars_manifest(state=state, sha256=digest(folder / "model.onnx"))))
    with pytest.raises(BundleError, match=re.escape(f"bundle tiny/1: manifest.json: {says}: ")) as refused:
        read(folder)
    assert "\n" not in str(refused.value)
    assert str(part.get("activation", "'hidden'")) in str(refused.value)


def test_large_u_is_taken_with_a_horizon() -> None:
    state = [{**HIDDEN, "u": [0.5, -1.1]}, LAST]
    assert Manifest.model_validate(chars_manifest(state=state, limits={"max_position": 1000})).max_abs_u == 1.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "has labels, layout, persons and hz"),
        ({"hz": None}, "has labels, layout, persons and hz"),
        ({"hz": 0}, "greater than or equal to 1"),
        ({"hz": 1e-9}, "greater than or equal to 1"),
        ({"persons": 0}, "greater than or equal to 1"),
        ({"persons": 2}, "expected a last_frame part of 12"),
        ({"alphabet": "ab"}, "expected labels or an alphabet, got both"),
        ({"persons": None}, "has labels, layout, persons and hz"),
        ({"layout": "third"}, "own layout 'third' is not in"),
        ({"layouts": {"own": {"joint_names": ["a"], "table": [[1]]}}}, r"table\[0\]: expected indices in 0\.\.0, got \(1,\)"),
        ({"layouts": {"own": {"joint_names": ["a"], "table": [[]]}}}, r"table\[0\]: expected indices"),
        (
            {"layouts": {**action_manifest()["layouts"], "other": {"joint_names": ["a"], "table": [[0]]}}},
            r"layouts.other.table: expected 2 joints, got 1",
        ),
    ],
)
def test_action_manifest_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    Manifest.model_validate(action_manifest())
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(action_manifest(**changes))


texts = st.text(st.characters(codec="utf-8"), max_size=20)
figures = st.builds(
    Figure,
    name=texts,
    value=st.floats(allow_nan=False, allow_infinity=False),
    unit=texts,
    protocol=texts,
    test_evaluations=st.integers(0, 1000),
)


@given(
    alphabet=st.sets(st.characters(codec="utf-8"), min_size=1, max_size=30).map("".join),
    u=st.lists(st.floats(-0.5, 0.5, width=32), min_size=1, max_size=10),
    figures=st.lists(figures, max_size=3),
)
def test_manifest_survives_its_file(alphabet: str, u: list[float], figures: list[Figure]) -> None:
    state = [{**HIDDEN, "size": len(u), "u": u}, {"role": "last_logits", "offset": len(u), "size": len(alphabet)}]
    m = Manifest.model_validate(chars_manifest(alphabet=alphabet, state=state, figures=figures))
    assert Manifest.model_validate_json(m.model_dump_json()) == m


def test_reading_a_bundle_needs_no_torch() -> None:
    code = "import sys, indrnn.export.bundle; print([m for m in ('torch', 'onnx', 'onnxruntime', 'indrnn.model') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
