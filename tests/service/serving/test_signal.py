"""A signal as a client sends it: samples or rows of one, a last null that fills the window, and what is said of one that is wrong."""

from typing import Any

import numpy as np
import pytest

from indrnn.export.bundle import Manifest, Quantity, Tensor
from indrnn.service.errors import BadInput
from indrnn.service.serving.tensor import TensorModality


def modality(window: int | None = 4) -> TensorModality:
    x = Tensor(name="x", dtype="float32", shape=("B", "T", 1))
    manifest = Manifest.model_construct(
        inputs=(x,),
        answer="step",
        window=window,
        features=(Quantity(name="pcm"),),
        values=(Quantity(name="level"),),
        returned=None,
        hz=None,
    )
    return TensorModality(manifest, 100, 100)


@pytest.mark.parametrize("sent", [[0.5, 1.0, None], [[0.5], [1.0], [None]], [[0.5], [1.0], None], [0.5, 1.0, [None]]])
def test_a_last_null_fills_the_window_alone_or_as_a_row(sent: list[object]) -> None:
    content: Any = modality().read(sent, None, None, "values")
    assert np.array_equal(content.x.reshape(-1), np.array([0.5, 1, np.nan], np.float32), equal_nan=True)
    assert modality().read_alike([sent], None, [None]) == [None], "it takes a closer look"


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ([0.5, "a"], "values[1]"),
        ([0.5, None, 0.5], "values[1]"),
        ([[0.5], [None], [0.5]], "values[1][0]"),
        ([[0.5], ["a"]], "values[1][0]"),
        ([True], "values[0]"),
        ([[]], "values[0]"),
    ],
)
def test_what_is_wrong_is_named_as_it_was_sent(sent: list[object], field: str) -> None:
    with pytest.raises(BadInput) as refused:
        modality().read(sent, None, None, "values")
    assert refused.value.field == field


@pytest.mark.parametrize("sent", [[0.5, None], [[0.5], [None]]])
def test_where_no_windows_are_read_null_is_no_sample(sent: list[object]) -> None:
    with pytest.raises(BadInput):
        modality(None).read(sent, None, None, "values")
