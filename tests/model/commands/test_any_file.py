"""No command ends in a traceback for anything that a user can hand it: one sentence says what was expected and what came."""

import contextlib
import copy
import gzip
import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indrnn.__main__ import main
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.training import checkpoint, training
from indrnn.model.training.learner import Learner
from indrnn.model.training.task import Job

QUIET = ["--steps", "2", "--decay", "1", "--hidden", "4", "--layers", "1", "--rows", "4", "--no-progress"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the steps: what is read, split and built, one batch's loss and one look at the held clips."""

    def looked_at(job: Job, learner: Learner[Any, Any], meta: object) -> Path:
        assert np.isfinite(learner.loss(0).item())
        learner.validate()
        return job.out / "model.pt"

    monkeypatch.setattr(training, "run", looked_at)


def arrays(kind: str = "skeleton", n: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(scale=0.4, size=(5 * n, 6, 3)).astype(np.float32)
    x = x if kind == "skeleton" else x.reshape(5 * n, 18)
    return {
        "x": x,
        "off": np.arange(0, 5 * n + 1, 5),
        "y": np.arange(n) % 2,
        "classes": np.array(["rest", "wave"]),
        "names": np.array([f"c{i}" for i in range(n)]),
        "subject": np.arange(n) // 2,
        "test": np.arange(n) % 3 == 0,
        "hz": np.array(30.0),
    }


def told(*argv: object) -> tuple[int, str]:
    """Run a command and return its status and what it said; an exception is a traceback."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main([str(a) for a in argv])
        except SystemExit as end:
            status = int(str(end.code))
    return status, out.getvalue()


def refused(*argv: object) -> str:
    status, said = told(*argv)
    assert status == 1, said
    lines = said.strip().splitlines()
    assert "Traceback" not in said
    return lines[-1]


def written(path: Path, **change: object) -> Path:
    found = {k: v for k, v in (arrays() | change).items() if v is not None}
    np.savez(path, **found)
    return path


def npy(path: Path) -> None:
    np.save(path.with_suffix(".npy"), arrays()["x"])
    path.with_suffix(".npy").rename(path)


def cut(path: Path) -> None:
    written(path)
    path.write_bytes(path.read_bytes()[:-300])


def spoilt(path: Path) -> None:
    written(path)
    content = bytearray(path.read_bytes())
    content[200:260] = b"\xff" * 60
    path.write_bytes(content)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("readme.txt", "hello")


def long_header(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as z:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 3, 3), }\n"
        z.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"1234")


def pickled(path: Path) -> None:
    x = np.empty(2, object)
    x[:] = [np.zeros((3, 6, 3)), np.zeros((2, 6, 3))]
    np.savez(path, x=x, off=np.array([0, 3, 5]), y=np.array([0, 1]))


FILES = {
    "npy": (npy, r"got one array \(\.npy\)"),
    "empty": (lambda p: p.write_bytes(b""), "got an empty file"),
    "text": (lambda p: p.write_text("a,b\n1,2\n"), "got a text"),
    "cut": (cut, "damaged or cut off"),
    "spoilt": (spoilt, "damaged or cut off"),
    "zip": (other_zip, "a zip archive with 'readme.txt' in it"),
    "header": (long_header, "damaged or cut off"),
    "pickles": (pickled, "an array of Python objects"),
    "hdf5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50)), "got an HDF5 file"),
    "matlab": (lambda p: p.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200)), "got a MATLAB file"),
    "folder": (lambda p: p.mkdir(), "got a folder"),
}


@pytest.mark.parametrize("task", ["skeleton", "tensor"])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_file_of_arrays_is_one_sentence(kind: str, task: str, tmp_path: Path) -> None:
    make, got = FILES[kind]
    path = tmp_path / "mine.npz"
    make(path)
    said = refused("train", task, path, "--out", tmp_path / "run", *QUIET)
    assert said.startswith(f"{path}: expected an .npz file of plain arrays")
    assert re.search(got, said), said


X = arrays()["x"]
WRONG = [
    ({"hz": np.array(np.nan)}, "hz: expected one number from 1 to 1000, frames a second, got nan"),
    ({"hz": np.array(0)}, "hz: expected one number from 1 to 1000, frames a second, got 0"),
    ({"hz": np.array(1e6)}, "hz: expected one number from 1 to 1000, frames a second, got 1000000.0"),
    ({"hz": np.array([30, 30])}, r"hz: .* got \[30, 30\]"),
    ({"hz": np.array("30")}, "hz: .* got 30"),
    ({"classes": np.array("wave")}, r"y: expected classes 0\.\.0, got 0\.\.1"),
    ({"classes": np.array(["a", "a"])}, "classes: expected a different name for each class, got a, a"),
    ({"names": np.array(["c0", "c1"])}, "names: expected 8 one a clip, got 2"),
    ({"names": np.array("c0")}, "names: expected 8 one a clip, got 1"),
    ({"x": np.full_like(X, np.nan)}, "x: expected bodies, got no joint that is seen"),
    ({"x": np.zeros_like(X)}, "x: expected bodies, got no joint that is seen and not at 0"),
    ({"x": X[:, :0]}, "x: expected frames, persons and joints, at least one of each"),
    ({"x": X.astype(str)}, "x: expected numbers"),
    ({"x": X.astype(complex)}, "x: expected numbers"),
    ({"x": X > 0}, "x: expected numbers"),
    ({"x": np.zeros(40, [("a", "f4"), ("b", "f4")])}, "x: expected numbers or texts, got rows of named fields"),
    ({"off": np.array(40)}, "off: expected to rise"),
    ({"off": np.array(["0", "40"])}, "off: expected to rise"),
    ({"off": np.arange(0, 41, 5) + 0.5}, "off: expected to rise"),
    ({"y": np.arange(8) / 2}, "y: expected 8 whole numbers"),
    ({"y": np.arange(8) - 1, "classes": None}, "y: expected classes from 0, got -1"),
    ({"subject": np.array([1])}, "subject: expected 8 whole numbers"),
    ({"test": np.array(["yes"] * 8)}, "test: expected 8 whole numbers"),
    ({"joint_names": np.array(["a", "b"])}, "joint_names: expected 6"),
    ({"y": None, "labels": np.array(["a"] * 8)}, "labels: expected names in classes, got a"),
]


@pytest.mark.parametrize(("change", "expected"), WRONG, ids=[w[:40] for _, w in WRONG])
def test_a_wrong_array_is_one_sentence(change: dict[str, object], expected: str, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.npz", **change)
    said = refused("train", "skeleton", path, "--out", tmp_path / "run", *QUIET)
    assert re.search(expected, said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lost", [0.0, np.nan])
def test_bodies_that_only_the_other_clips_have_are_a_sentence(lost: float, tmp_path: Path) -> None:
    x = X.copy()
    for i in np.flatnonzero(~arrays()["test"]):
        x[5 * i : 5 * i + 5] = lost
    path = written(tmp_path / "mine.npz", x=x)
    said = refused("train", "skeleton", path, "--test", "flag", "--out", tmp_path / "run", *QUIET)
    assert re.search(r"expected bodies in the \d clips to train on, got no joint that is seen and not at 0", said), said
    status, said = told("train", "skeleton", path, "--test", "none", "--held", "none", "--out", tmp_path / "run", *QUIET)
    assert status == 0, said


def some(n: int) -> dict[str, np.ndarray]:
    return arrays(n=n) | {"subject": np.arange(n)}


@pytest.mark.parametrize("task", ["skeleton", "tensor"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_so_few_clips_that_nothing_is_left_to_train_on_is_a_sentence(task: str, n: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **(arrays(task, n) | {"y": np.arange(n) % 2}))
    status, said = told("train", task, tmp_path / "mine.npz", "--out", tmp_path / "run", *QUIET)
    if status:
        assert len(said.strip().splitlines()) == 1, said
        assert "expected" in said


@pytest.mark.parametrize("command", ["evaluate", "inspect", "calibrate", "export", "import"])
def test_clips_in_place_of_a_network_are_told_from_one(command: str, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.npz")
    more = {"export": [tmp_path / "bundles"], "import": ["--out", tmp_path / "net.pt"]}.get(command, [])
    said = refused(command, path, *more)
    assert "got a file of arrays (.npz), which `indrnn train` reads" in said


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """The arrays of a file of which some have other types, shapes and values."""
    found: dict[str, object] = dict(arrays())
    dtypes = st.sampled_from(["f2", ">f4", "f8", "i1", ">i2", "u2", "u8", "i8", "?", "c8", "U3", "S3", "M8[s]", "m8[s]", "V4"])
    extreme = st.sampled_from([0.0, -1.0, 1.0, 2.0, np.nan, np.inf, -np.inf, -9999.0, 1e30, 1e308, 5e-324, 2**31, -(2**63)])
    for name in draw(st.sets(st.sampled_from(sorted(found)), min_size=1, max_size=4)):
        a = np.asarray(found[name])
        match draw(st.sampled_from(["gone", "dtype", "scalar", "empty", "short", "axis", "fill", "some", "scale", "turn", "row"])):
            case "gone":
                del found[name]
                continue
            case "dtype":
                with contextlib.suppress(ValueError, TypeError), np.errstate(all="ignore"):
                    a = a.astype(draw(dtypes))
            case "scalar":
                a = np.asarray(a.reshape(-1)[0])
            case "empty":
                a = a[..., :0] if a.ndim else np.zeros(0, a.dtype)
            case "short":
                a = a[: draw(st.integers(0, 3))] if a.ndim else a
            case "axis":
                a = a[..., None] if draw(st.booleans()) else a[None]
            case "turn":
                a = a.T
            case "row":
                a = np.atleast_2d(a).astype(np.float64) if a.dtype.kind in "iuf" else np.atleast_2d(a)
            case how if a.dtype.kind in "fiu" and a.size:
                a = a.astype(np.float64)
                v = draw(extreme)
                with np.errstate(all="ignore"):
                    a = a * v if how == "scale" else np.full_like(a, v) if how == "fill" else a
                if how == "some":
                    a.reshape(-1)[:: draw(st.integers(1, 9))] = v
        found[name] = a
    return {k: np.asarray(v) for k, v in found.items()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    mutations(),
    st.sampled_from(["skeleton", "tensor", "ntu"]),
    st.sampled_from(["fold=1/3", "flag", "none", "subject=1", "view=0"]),
    st.sampled_from(["fold=1/2", "none"]),
)
def test_whatever_the_arrays_are_the_command_trains_or_says_why_not(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, np.ndarray], task: str, test: str, held: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    np.savez(folder / "mine.npz", **found)
    file = ["--file"] if task == "ntu" else []
    status, said = told("train", task, *file, folder / "mine.npz", "--test", test, "--held", held, "--out", folder / "run", *QUIET)
    if status:
        assert len(said.strip().splitlines()) == 1, said


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(st.integers(0, 3000), st.binary(max_size=40), st.booleans())
def test_whatever_the_bytes_are_the_command_trains_or_says_why_not(
    tmp_path_factory: pytest.TempPathFactory, at: int, noise: bytes, short: bool
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(written(folder / "mine.npz").read_bytes())
    content[at : at + len(noise)] = noise
    (folder / "mine.npz").write_bytes(content[:at] if short else content)
    status, said = told("train", "skeleton", folder / "mine.npz", "--out", folder / "run", *QUIET)
    if status:
        assert len(said.strip().splitlines()) == 1, said


WORDS = "well, Prince, so Genoa é and Lucca are now just family estates. " * 30
TEXTS = {
    "latin1": (gzip.compress(WORDS.encode("latin-1")), "another encoding at byte 23|can't decode byte 0xe9"),
    "utf16": (gzip.compress(WORDS.encode("utf-16")), "one in UTF-16|can't decode byte 0xff"),
    "plain": (WORDS.encode(), r"gzip -c FILE > \S+.gz\), got a text|Not a gzipped file"),
    "cut": (gzip.compress(WORDS.encode())[:60], "damaged or cut off|ended before"),
    "empty": (b"", "got an empty one|beginning with 00 00 08, got nothing"),
    "one": (gzip.compress(b"aaaa" * 50), "expected sentences of 2 words|beginning with 00 00 08, got 61 61 61"),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("task", ["chars", "ptb-char", "mnist"])
def test_a_text_or_an_idx_file_that_is_none_is_a_sentence(kind: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if task == "chars" and kind in ("empty", "one"):
        pytest.skip("model/data/text.py says what is too short")
    content, expected = TEXTS[kind]
    monkeypatch.setenv("INDRNN_DATA", str(tmp_path))
    names = [f"text/{name}.txt.gz" for name in ("shakespeare", "war_and_peace")] + [
        f"ptb/ptb.{p}.txt.gz" for p in ("train", "valid", "test")
    ]
    for name in [*names, *(f"mnist/{p}-{k}-ubyte.gz" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1"))]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    said = refused("train", task, "--out", tmp_path / "run", "--steps", "2", "--no-progress")
    assert re.search(f"{expected}|beginning with 00 00 08" if task == "mnist" else expected, said), said


CONFIGS = ("joints", "persons", "classes", "hidden", "layers", "norm", "cell")
METAS = ("kind", "labels", "layout", "layouts", "persons", "hz", "figures", "task", "clips", "temperature", "parts", "command")


def test_whatever_a_checkpoint_says_its_commands_say_what_is_wrong(tmp_path: Path) -> None:
    net = ActionNet(ActionConfig(joints=5, persons=1, root=0, classes=2, hidden=4, layers=1))
    own = {"own": (tuple("abcde"), tuple((i,) for i in range(5)))}
    clips = {"file": str(tmp_path / "none.npz"), "test": "none", "held": "fold=1/2", "layout": "", "unit": 1.0, "left_out": ()}
    meta = checkpoint.Meta(
        "action", "", 0, 0, labels=("a", "b"), layout="own", layouts=own, persons=1, hz=30.0, clips=clips, task="skeleton"
    )
    checkpoint.save(tmp_path / "model.pt", net, meta)
    good = torch.load(tmp_path / "model.pt", weights_only=True)
    ways = [("config", k) for k in CONFIGS if k in good["config"]] + [("meta", k) for k in METAS]
    ways += [(k,) for k in good] + [("meta", "clips", k) for k in clips] + [("weights", next(iter(good["weights"])))]
    for way in ways:
        for value in (None, -1, {}, ["a"]):
            content = copy.deepcopy(good)
            inner = content
            for key in way[:-1]:
                inner = inner[key]
            inner[way[-1]] = value
            torch.save(content, tmp_path / "odd.pt")
            for command in ("evaluate", "inspect"):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of layers without numbers
                    status, said = told(command, tmp_path / "odd.pt")
                assert status == 0 or len(said.strip().splitlines()) == 1, (way, value, command, said)


def test_a_log_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe\xff", b"step x", b"step 1 seconds a loss b\n", b"step one loss 2\n", b"loss 2\n", b"\n\n"):
        (tmp_path / "log.txt").write_bytes(content)
        assert str(tmp_path) in refused("plot", tmp_path / "p.svg", tmp_path, "--figure", "loss")


def test_a_manifest_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    states = (
        "3",
        '[{"u":[1]}]',
        '[{"u":"x","role":"hidden","layer":0}]',
        '[{"u":[1e999],"role":"hidden","layer":0}]',
        '[{"u":[1],"role":"hidden"}]',
    )
    texts = ["", "{}", "[]", "[" * 50_000, *(f'{{"state": {s}}}' for s in states)]
    texts += ['{"state": [{"u": [1, 2], "role": "hidden", "layer": 0}], "figures": [3]}']
    for text in texts:
        (tmp_path / "manifest.json").write_text(text)
        assert refused("inspect", tmp_path, "--out", tmp_path / "pictures").startswith(f"{tmp_path}: expected")


def test_a_state_dict_that_is_none_of_the_authors_is_a_sentence(tmp_path: Path) -> None:
    u, vector = "RNNs.0.weight_hh", torch.zeros(4)
    for content in (1, "x", [1], {1: vector}, {u: 1}, {u: vector}, {"state_dict": 3}, {u: torch.zeros(4, 4, 4), "DIs.0.weight": vector}):
        torch.save(content, tmp_path / "odd.pt")
        refused("import", tmp_path / "odd.pt", "--out", tmp_path / "net.pt")
