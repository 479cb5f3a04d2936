"""The CUDA library of the op for ONNX Runtime: which file it is, and how nvcc compiles it.

CUDA's runtime is linked into it, so that it loads on a machine without CUDA as well. Register it in sessions on the CUDA provider only.
It holds machine code for compute capabilities 8.0 and 9.0, and PTX that the driver compiles for newer GPUs.
"""

import functools
import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

from indrnn.kernels import build as cpu
from indrnn.kernels.build import HERE, KernelMissing

log = logging.getLogger(__name__)

SOURCE = HERE / "cuda_op.cu"
USUAL = "/usr/local/cuda/bin/nvcc"
# Contraction off, as on the CPU, for the same bits.
FLAGS = (
    *("-std=c++17", "-O3", "-fmad=false", "-cudart", "static", "-shared"),
    *("-Xcompiler", "-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra"),
    *("-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=[sm_90,compute_90]"),
)


def find_cuda() -> Path:
    """Return the library of these sources, whichever compiler made it. Raises KernelMissing with the reason."""
    built = cpu.intact(f"indrnn_cuda-{_digest()}")
    if not built:
        raise KernelMissing(f"no CUDA library of these sources in {cpu.FOLDER} (indrnn kernels cuda builds it)")
    return built


def nvcc() -> str:
    """Return the command of CUDA's compiler: NVCC, or nvcc. Raises KernelMissing when there is none."""
    wanted = os.environ.get("NVCC") or "nvcc"
    found = shutil.which(wanted) or (USUAL if wanted == "nvcc" and Path(USUAL).exists() else None)
    if not found:
        raise KernelMissing(f"no CUDA compiler: {wanted} not found")
    return found


def build_cuda() -> Path:
    """Compiles the library unless it is there already; the path appears only when it is complete. Raises KernelMissing with the reason."""
    command = nvcc()
    said = cpu._run([command, "--version"])
    name = f"indrnn_cuda-{_digest()}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    if there := cpu.intact(name):
        return there
    try:
        cpu.FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cpu.FOLDER) as folder:
            made = Path(folder) / "indrnn_cuda.so"
            cpu._run([command, *FLAGS, str(SOURCE), "-o", str(made)])
            return cpu.seal(made, name)
    except OSError as error:
        raise KernelMissing(f"cannot write {cpu.FOLDER}: {error}") from error


@functools.cache
def registered_cuda() -> Path | None:
    """Return what a CUDA session gives to `register_custom_ops_library`, or None where there is nothing; said once, in the log."""
    try:
        return find_cuda()
    except KernelMissing as missing:
        log.info("on CUDA the portable loop runs: %s", missing)
        return None


def _digest() -> str:
    digest = hashlib.sha256(f"{FLAGS}".encode())
    for path in [*sorted(HERE.glob("*.h")), SOURCE]:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
