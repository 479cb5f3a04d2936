"""A step's content names its modality: a list of texts is sentences, whose answers are read, and numbers are values."""

from array import array
from typing import Any

import numpy as np
import pytest

from indrnn.client.answers import Label, QuestionAnswer, predicted, result
from indrnn.client.connection import content_of

TOP = [{"label": "attic", "score": 0.75}]
ASKED = {"label": "attic", "score": 0.75, "top": TOP, "steps": 3, "answers": [{"sentence": 2, "label": "attic", "score": 0.75, "top": TOP}]}
TOLD = {"label": "", "score": 0.0, "top": [], "steps": 1, "answers": []}


def test_a_list_of_texts_is_sentences() -> None:
    assert content_of(["anna sang", "where is anna ?"]) == {"sentences": ["anna sang", "where is anna ?"]}
    assert content_of(("anna sang",)) == {"sentences": ("anna sang",)}
    assert content_of("anna sang") == {"text": "anna sang"}
    assert content_of([[1, 2]]) == {"values": [[1, 2]]}
    assert content_of([]) == {"frames": []}


def test_each_question_has_its_answer() -> None:
    (asked, told) = result({"step": 1, "position": 3, "predictions": [ASKED, TOLD]}).predictions
    assert asked.answers == [QuestionAnswer(2, "attic", 0.75, [Label("attic", 0.75)])]
    assert (told.label, told.answers, told.frames) == ("", [], 1)
    assert predicted({"model": "m", "version": "1", "predictions": [ASKED]}).predictions == [asked]
    old = {name: value for name, value in ASKED.items() if name != "answers"}
    assert predicted({"model": "m", "version": "1", "predictions": [old]}).predictions[0].answers is None


@pytest.mark.parametrize(
    "content",
    [
        *([0.1, 0.2], (1, 2), [0.1, None], [None], (None,), [[0.1], [None]], [[None]], [(None,)], [[0.5, 1], [2, 3]], [[None, 0.5]]),
        *(np.zeros(4), np.zeros((4, 3), np.float32), [np.float32(0.5)], [np.zeros(3)], array("f", [0.5])),
    ],
)
def test_numbers_and_rows_of_them_are_values_also_where_the_last_fills_a_window(content: Any) -> None:
    assert content_of(content) == {"values": content}


@pytest.mark.parametrize(
    "content", [[[None, None]], [[None, [0, 0, 0]]], [[[0, 0, 0]]], [[[None, None], [[0, 0, 0], None]]], np.zeros((4, 2, 3)), []]
)
def test_lists_of_joints_are_frames_also_where_none_was_seen(content: Any) -> None:
    assert content_of(content) == {"frames": content}
