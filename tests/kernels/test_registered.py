"""The library where it is absent, broken or of another runtime: the portable loop runs, and the log says why."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indrnn.export.bundle import read
from indrnn.kernels import build
from indrnn.kernels.native import Library
from indrnn.kernels.registered import refusal, registered
from indrnn.service.engine import runtime as engine
from indrnn.service.engine.runtime import Engine, Row

ROOT = Path(__file__).parent.parent.parent
BUNDLES = sorted((ROOT / "bundles").glob("*/*/model.onnx"))


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found is remembered for the life of a process; not here."""
    registered.cache_clear()
    yield
    registered.cache_clear()


def test_the_runtime_takes_the_library(library: Library) -> None:
    assert refusal(library.path) is None


def test_a_file_that_is_no_library_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "indrnn.so").write_bytes(b"no library")
    assert "indrnn.so" in str(refusal(tmp_path / "indrnn.so"))


def test_without_a_library_the_log_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    with caplog.at_level(logging.INFO):
        assert registered() is None
        assert registered() is None
    (line,) = caplog.messages
    assert "indrnn kernels" in line


def test_a_library_that_is_refused_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "made").write_bytes(b"no library")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    build.seal(tmp_path / "made", f"indrnn-{build._sources_digest()}-0")
    assert registered() is None
    assert registered() is None
    (line,) = caplog.messages
    assert "the portable loop runs" in line


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_a_library_that_was_cut_short_is_not_loaded_and_is_built_anew(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Loaded, it would kill the process: the end of the file is mapped, and is not there."""
    whole = library.path.read_bytes()
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "_compile", lambda command, flags, folder: (folder / "indrnn.so").write_bytes(whole))
    path = build.build()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(build.KernelMissing, match="no library of these sources"):
        build.find()
    assert registered() is None
    assert build.build() == path
    assert build.find().read_bytes() == whole


def test_a_compiler_that_cannot_be_run_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c++").write_text("no program")
    (tmp_path / "c++").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    with pytest.raises(build.KernelMissing, match="cannot run"):
        build.build()


def test_a_library_of_other_sources_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "indrnn-0123456789abcdef-0.so").write_bytes(b"")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    with pytest.raises(build.KernelMissing, match="no library of these sources"):
        build.find()


def test_no_compiler_is_a_reason_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.KernelMissing, match="no-such-compiler not found"):
        build.build()


def test_a_compiler_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = tmp_path / "c++"
    fails.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "this is what it said" >&2\nexit 1\n')
    fails.chmod(0o755)
    monkeypatch.setenv("CXX", str(fails))
    monkeypatch.setattr(build, "FOLDER", tmp_path / "built")
    with pytest.raises(build.KernelMissing, match="this is what it said"):
        build.build()
    assert list((tmp_path / "built").iterdir()) == []


def test_a_second_build_is_the_first(library: Library) -> None:
    first = build.build()
    made = first.stat().st_mtime_ns
    assert (build.build(), build.find()) == (first, first)
    assert first.stat().st_mtime_ns == made


@pytest.mark.skipif(not BUNDLES, reason="needs a bundle below bundles/")
def test_an_engine_runs_fused_and_falls_back_with_the_same_answers(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = read(BUNDLES[0].parent)
    fused = Engine(bundle, "cpu", 1, 2)
    assert fused.kernel == "fused"
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    answers = []
    for path, kernel in ((None, "loop"), (broken, "loop"), (library.path, "fused")):
        monkeypatch.setattr(engine, "registered", lambda path=path: path)
        caplog.clear()
        made = Engine(bundle, "cpu", 1, 2)
        assert made.kernel == kernel
        assert [r.levelname for r in caplog.records if r.levelname == "WARNING"] == ["WARNING"] * (path == broken)
        rng = np.random.default_rng(0)
        x = rng.uniform(-1, 1, (9, *made._sample.shape)) if made._sample.shape else rng.integers(0, 9, 9)
        row = Row(x.astype(made._sample.dtype), np.zeros(made.manifest.state_size, np.float32))
        answers.append(made.run([row])[0][0])
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5 * max(1, np.abs(answers[0]).max()))
