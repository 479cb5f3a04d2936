import onnx
import pytest
import torch
from tiny import STATE, Tiny

from indrnn.export import graph


def to_graph(module: Tiny, B: int = 2, T: int = 6) -> onnx.ModelProto:
    x = torch.arange(B * T).reshape(B, T) % 5
    return graph.to_onnx(module, x, torch.arange(T - B + 1, T + 1), torch.zeros(B, STATE))


@pytest.fixture(scope="session")
def module() -> Tiny:
    return Tiny()


@pytest.fixture(scope="session")
def exported(module: Tiny) -> onnx.ModelProto:
    """Tiny's graph; read it, do not change it."""
    return to_graph(module)
