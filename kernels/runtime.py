"""ONNX Runtime, imported without its telemetry, which is on by default on Linux and counts processes from the import on.

Import `ort` from here and nowhere else.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort  # the variable has to be there first

__all__ = ["ort"]
