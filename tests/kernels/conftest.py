from pathlib import Path

import pytest
from native_calls import Kernel

from indrnn.kernels.build import KernelMissing, build
from indrnn.kernels.native import Library


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--library", help="the native library to test, instead of the one that is built; seen when tests/kernels is named")


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> Library:
    """The library of these sources, built when a compiler is there."""
    given = request.config.getoption("--library", default=None)
    try:
        return Library(Path(given) if given else build())
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
