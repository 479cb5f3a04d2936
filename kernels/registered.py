"""The native library as ONNX Runtime takes it."""

import functools
import logging
from pathlib import Path

from indrnn.kernels.build import KernelMissing, find
from indrnn.kernels.runtime import ort

log = logging.getLogger(__name__)


@functools.cache
def registered() -> Path | None:
    """Return what to give to `register_custom_ops_library`; None, said once in the log, where there is nothing that this runtime takes."""
    try:
        path = find()
    except KernelMissing as missing:
        log.info("the portable loop runs: %s", missing)
        return None
    if reason := refusal(path):
        log.warning("the portable loop runs: onnxruntime %s does not take %s: %s", ort.__version__, path, reason)
        return None
    return path


def refusal(path: Path) -> str | None:
    """Why the runtime does not take the library; None when it does."""
    try:
        ort.SessionOptions().register_custom_ops_library(str(path))
    except Exception as error:  # the runtime's exceptions have no common base of their own
        return str(error)
    return None
