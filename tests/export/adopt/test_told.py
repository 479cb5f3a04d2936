"""What the options of `indrnn adopt` say of a file is taken as it was typed, written down as it was typed, or refused in a line."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stateful_files import LEVEL, gru, save, step, typed

from indrnn.__main__ import main
from indrnn.export.adopt.adoption import adopt
from indrnn.export.adopt.layout import Told
from indrnn.export.errors import AdoptError

QUICK = ["--steps", "50"]
LONG = ["--max-position", "1234567", "--hz", "2822400"]


def level(folder: Path) -> Path:
    """A file that reads windows of a signal."""
    return save(folder, LEVEL, {"w": np.full(1, 0.5, np.float32)})


def recorded(folder: Path) -> list[str]:
    """Return the words of the command on a bundle's card."""
    found = re.search(r"## How to make it again\n\n```\n(.*)\n```", (folder / "CARD.md").read_text())
    assert found is not None
    return shlex.split(found[1])


@pytest.mark.parametrize(
    "told",
    [LONG, ["--window", "5", "--context", "2", "--hz", "16000"], ["--window", "5", "--hz", "0.1234567890123"]],
    ids=["millions", "window", "many digits"],
)
def test_the_command_on_the_card_says_the_same_numbers_and_makes_the_same_bundle(tmp_path: Path, told: list[str]) -> None:
    path = level(tmp_path) if "--window" in told else gru(tmp_path)
    assert main(["adopt", str(path), str(tmp_path / "bundles"), "--name", "one", *told, *QUICK]) == 0
    folder = tmp_path / "bundles" / "one" / "1"
    words = recorded(folder)
    assert [words[words.index(option) + 1] for option in told[::2]] == told[1::2]
    again = [{path.name: str(path), "bundles/": str(tmp_path / "again")}.get(word, word) for word in words[1:]]
    assert main([*again, *QUICK]) == 0
    assert (tmp_path / "again" / "one" / "1" / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert recorded(tmp_path / "again" / "one" / "1")[4:] == words[4:]


# --- numbers in the type of a tensor ----------------------------------------------------------------------------------------------------


def scaled(folder: Path, dtype: str) -> Path:
    """A file with an input `sr` of one type beside its state and its content."""
    text = f"""
    scaled (float[B, 1] x, {dtype} sr, float[B, 1] s) => (float[B, 1] y, float[B, 1] s_out) {{
        rate = Cast <to = 1> (sr)
        part = Mul (x, rate)
        s_out = Add (s, part)
        y = Identity (s_out)
    }}
    """
    return save(folder, text)


WRONG = [
    ("int16", "70000", "expected whole numbers from -32768 to 32767 (int16), got 70000"),
    ("uint8", "-1", "expected whole numbers from 0 to 255 (uint8), got -1"),
    ("int64", str(2**63), f"expected whole numbers from {-(2**63)} to {2**63 - 1} (int64), got {2**63}"),
    ("int64", "9.223372036854775808e18", "(int64), got 9.223372036854775808e18"),
    ("int32", str(10**30), f"expected whole numbers from {-(2**31)} to {2**31 - 1} (int32), got {10**30}"),
    ("int32", "0.5", "(int32), got 0.5"),
    ("int32", "nan", "(int32), got nan"),
    ("bool", "2", "expected true or false (bool), got 2"),
    ("float", "1e39", "expected numbers of at most 3.40282e+38 (float32), got 1e+39"),
    ("float16", "-70000", "expected numbers of at most 65504 (float16), got -70000"),
    ("float", str(10**400), "expected numbers of at most 3.40282e+38 (float32), got 1000"),
]


@pytest.mark.parametrize(("dtype", "value", "says"), WRONG, ids=[f"{dtype} {value[:20]}" for dtype, value, _ in WRONG])
def test_a_constant_that_its_type_does_not_have_is_refused_and_not_wrapped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: str, value: str, says: str
) -> None:
    path = scaled(tmp_path, dtype)
    assert main(["adopt", str(path), str(tmp_path / "bundles"), "--constant", f"sr={value}", *QUICK]) == 1
    said = capsys.readouterr().err
    assert said.startswith("adopt refused: --constant sr: ")
    assert says.replace("9.223372036854775808e18", "9.223372036854776e+18") in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("dtype", "value"), [("int16", 32767), ("uint8", 255.0), ("bool", 1), ("float16", 0.1), ("float", 16777217), ("double", 1e300)]
)
def test_a_constant_that_its_type_has_or_rounds_is_taken(tmp_path: Path, dtype: str, value: float) -> None:
    plan = adopt(scaled(tmp_path, dtype), Told(constants={"sr": np.array(value)}, stepped=True), ["start", "endless"], steps=5).plan
    assert float(plan.constants["sr"]) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "told", "says"),
    [
        ("uint8", np.array([[3, -1]]), "--initial position: expected whole numbers from 0 to 255 (uint8), got -1"),
        ("int64", np.array([[1, 2**63]], np.uint64), f"(int64), got {2**63}"),
        ("float16", np.array(1e5), "--initial position: expected numbers of at most 65504 (float16), got 100000.0"),
        ("float64", np.array(1e39), "--initial position: expected numbers of at most 3.40282e+38 (float64, kept as float32), got 1e+39"),
    ],
    ids=["uint8", "int64", "float16", "float64"],
)
def test_a_start_that_its_state_cannot_hold_is_refused_and_not_wrapped(tmp_path: Path, dtype: str, told: np.ndarray, says: str) -> None:
    with pytest.raises(AdoptError) as refused:
        adopt(typed(tmp_path, dtype), Told(initial={"position": told}), steps=50)
    assert says in str(refused.value)


def test_a_start_beyond_float32_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(AdoptError, match=r"--initial h: expected numbers of at most 3\.40282e\+38 \(float32\), got 1e\+39"):
        adopt(step(tmp_path), Told(initial={"h": np.array(1e39)}), steps=50)


def test_an_array_of_no_numbers_is_refused_with_what_it_has(tmp_path: Path) -> None:
    np.save(tmp_path / "h.npy", np.array([1j]))
    with pytest.raises(AdoptError, match=r"--initial h: expected numbers \[1, 4\], got complex128 \[1\]"):
        adopt(step(tmp_path), Told(initial={"h": np.load(tmp_path / "h.npy")}), steps=50)


# --- options that need another ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [gru, level], ids=["of steps", "of windows"])
def test_a_context_without_a_window_is_refused_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: Any) -> None:
    assert main(["adopt", str(file(tmp_path)), str(tmp_path / "bundles"), "--context", "2", *QUICK]) == 1
    assert capsys.readouterr().err == "adopt refused: --context 2: expected --window as well, the samples that come after these\n"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("--hz", "inf", "a number above 0"), ("--hz", "0", "a number above 0"), ("--window", "0", "a whole number from 1")],
)
def test_a_number_beyond_an_option_is_refused_as_every_command_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["adopt", "none.onnx", str(tmp_path), option, value])
    assert f"argument {option}: expected {expected}, got '{value}'" in capsys.readouterr().err
