"""kernels/ort_api.h against ONNX Runtime's own header, where that is installed (Debian: libonnxruntime-dev)."""

import re
import subprocess
from pathlib import Path

import pytest

from indrnn.kernels.build import HERE, KernelMissing, compiler

ROOTS = ("/usr/include", "/usr/local/include", "/opt")
OURS = (HERE / "ort_api.h").read_text()
FUNCTION = re.compile(r"^    (?:const )?\w+\*? \(\*(\w+)\)\(", re.MULTILINE)


def _struct(name: str) -> str:
    return OURS.split(f"struct {name} {{\n")[1].split("\n};")[0]


def _functions(name: str) -> list[str]:
    return FUNCTION.findall(_struct(name))


def test_every_function_used_is_declared() -> None:
    """The pattern that the next test rests on finds them all."""
    source = "".join((HERE / name).read_text() for name in ("ort_op.h", "ort_op.cpp", "cuda_op.cu"))
    assert set(re.findall(r"api->(\w+)\(", source)) == set(_functions("Api"))
    assert set(re.findall(r"base->(\w+)\(", source)) == set(_functions("ApiBase"))
    assert set(re.findall(r"op\.(\w+) = ", source)) - {"version"} < set(_functions("CustomOp"))


def test_the_table_and_the_op_lie_where_the_official_header_has_them(tmp_path: Path) -> None:
    headers = [found for root in ROOTS if Path(root).is_dir() for found in Path(root).glob("**/onnxruntime_c_api.h")]
    if not headers:
        pytest.skip(f"no onnxruntime_c_api.h below {', '.join(ROOTS)}")
    lines = [f'#include "{headers[0]}"', f'#include "{HERE / "ort_api.h"}"', "#define SAME(a, b) static_assert(a == b, #a)"]
    for ours, official in (("Api", "OrtApi"), ("CustomOp", "OrtCustomOp"), ("ApiBase", "OrtApiBase")):
        names = _functions(ours)
        assert names
        lines += [f"SAME(offsetof(ort::{ours}, {n}), offsetof({official}, {n}));" for n in names]
    enums = {
        "FAIL": "ORT_FAIL",
        "INVALID_ARGUMENT": "ORT_INVALID_ARGUMENT",
        "FLOAT": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT",
        "INT64": "ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64",
        "DOUBLE": "ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE",
        "REQUIRED": "INPUT_OUTPUT_REQUIRED",
        "OPTIONAL": "INPUT_OUTPUT_OPTIONAL",
        "MEMORY_DEFAULT": "OrtMemTypeDefault",
    }
    lines += [f"SAME(int(ort::{ours}), int({official}));" for ours, official in enums.items()]
    lines.append('static_assert(ORT_API_VERSION >= ort::API_VERSION, "");')
    source = tmp_path / "compare.cpp"
    source.write_text("\n".join(lines))
    try:
        command = compiler()
    except KernelMissing as missing:
        pytest.skip(str(missing))
    done = subprocess.run([*command, "-std=c++17", "-fsyntax-only", str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
