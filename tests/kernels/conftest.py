import pytest
from native_calls import Kernel

from kernels.build import KernelMissing, build
from kernels.native import Library


@pytest.fixture(scope="session")
def library() -> Library:
    """The library of these sources, built when a compiler is there."""
    try:
        return Library(build())
    except KernelMissing as missing:
        pytest.skip(f"no kernel: {missing}")


@pytest.fixture(scope="session")
def kernel(library: Library) -> Kernel:
    return Kernel(library)


@pytest.fixture(scope="session", params=["plain", "avx2", "avx512"])
def each_isa(request: pytest.FixtureRequest, kernel: Kernel) -> Kernel:
    """The kernel in each instruction set that this machine has."""
    if request.param not in kernel.library.isas():
        pytest.skip(f"this machine has no {request.param}")
    return kernel.having(isa=request.param)
