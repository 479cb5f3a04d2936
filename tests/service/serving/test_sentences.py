"""Sentences are read word by word, an unknown word is named, and each question of a message is answered."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from indrnn.service.errors import BadInput, OutOfAlphabet, ServiceError, TooLarge
from indrnn.service.serving.language.sentences import SentencesModality
from indrnn.service.serving.modality import content_of_step
from indrnn.service.session.machine import Scores

WORDS = ("?", "anna", "garden", "is", "sang", "the", "to", "walked", "where")


def modality() -> SentencesModality:
    x = SimpleNamespace(name="x", shape=("B", "T", 5))
    manifest: Any = SimpleNamespace(name="stories", words=WORDS, inputs=[x], labels=("attic", "garden"))
    return SentencesModality(manifest, 3)


def read(*sentences: object) -> list[list[float]]:
    rows: list[list[float]] = modality().read(list(sentences), None, None, "sentences").x.tolist()
    return rows


def test_letters_blanks_and_marks_make_no_difference() -> None:
    plain = [[2, 8, 7, 6, 3], [9, 4, 2, 1, 0]]
    assert read("anna walked to the garden", "where is anna ?") == plain
    assert read("  Anna walked,  to the GARDEN.", "Where\tis Anna?") == plain
    assert read("anna sang!") == [[2, 5, 0, 0, 0]]
    assert modality().read(["anna sang"], None, None, "x").x.dtype == np.float32


def test_an_unknown_word_is_named_with_its_sentence() -> None:
    with pytest.raises(OutOfAlphabet) as refused:
        read("anna sang", "Anna walked to the kitchen.")
    assert refused.value.detail == "the word 'kitchen' is not one that the model knows (see GET /models/stories)"
    assert refused.value.field == "sentences[1]"
    with pytest.raises(OutOfAlphabet) as refused:
        read("anna " + "x" * 900)
    assert len(refused.value.detail) < 150


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ("anna sang", BadInput, "expected a list of sentences, got 'anna sang'"),
        ([], BadInput, "expected a list of sentences, got an empty list"),
        (["anna sang"] * 4, TooLarge, "expected at most 3 sentences, got 4"),
        ([3], BadInput, "expected a sentence of at most 1000 characters, got 3"),
        (["anna " * 300], BadInput, "expected a sentence of at most 1000 characters"),
        (["anna walked to the garden ?"], BadInput, "expected a sentence of 1 to 5 words, got 6"),
        ([" . "], BadInput, "expected a sentence of 1 to 5 words, got 0"),
        ([""], BadInput, "expected a sentence of 1 to 5 words, got 0"),
        (["?"], BadInput, "expected words beside '?', got none"),
    ],
)
def test_what_is_no_sentence_is_refused(value: object, error: type[ServiceError], said: str) -> None:
    with pytest.raises(error) as refused:
        modality().read(value, None, None, "sentences")
    assert said in refused.value.detail
    assert modality().read_alike([["anna sang"], value], None, [None, None])[1] is None


@pytest.mark.parametrize("other", ["text", "frames", "values"])
def test_a_step_of_another_modality_is_told_which_field_the_sentences_have(other: str) -> None:
    manifest: Any = SimpleNamespace(name="stories", modality="sentences")
    told = ["anna sang"]
    assert content_of_step(modality(), {"type": "step", "sentences": told, other: None}, manifest) == ("sentences", told)
    with pytest.raises(BadInput) as refused:
        content_of_step(modality(), {"type": "step", other: "anna sang"}, manifest)
    assert refused.value.detail == "unknown field: model stories reads sentences, in the field sentences"
    assert refused.value.field == other


@pytest.mark.parametrize(("new", "old"), [([[1.0]], [[1.0]]), ([], [[1.0]]), ([[1.0]], [])])
def test_a_field_is_not_sent_under_both_of_its_names(new: object, old: object) -> None:
    manifest: Any = SimpleNamespace(name="lift", modality="tensor")
    series: Any = SimpleNamespace(field="frames", old_field="values")
    for sent in ({"frames": new}, {"frames": new, "values": None}):
        assert content_of_step(series, sent, manifest) == ("frames", new)
    assert content_of_step(series, {"values": old}, manifest) == ("values", old)
    with pytest.raises(BadInput, match="expected frames alone, got values too, its older name") as refused:
        content_of_step(series, {"frames": new, "values": old}, manifest)
    assert refused.value.field == "values"


def test_an_empty_list_is_no_sentences_whatever_the_field() -> None:
    manifest: Any = SimpleNamespace(name="stories", modality="sentences")
    assert content_of_step(modality(), {"type": "step", "frames": []}, manifest) == ("sentences", [])


@pytest.mark.parametrize("content", [[[1]], [[[0, 0, 0]]]])
@pytest.mark.parametrize("first", ["frames", "text", "values"])
def test_an_empty_list_hides_no_content_of_another_field(first: str, content: object) -> None:
    manifest: Any = SimpleNamespace(name="stories", modality="sentences")
    for other in {"frames", "text", "values"} - {first}:
        with pytest.raises(BadInput) as refused:
            content_of_step(modality(), {"type": "step", first: [], other: content}, manifest)
        assert refused.value.field == other
    empty = {"type": "step", "frames": [], "text": [], "values": []}
    assert content_of_step(modality(), empty, manifest) == ("sentences", [])


def test_options_of_other_models_are_refused() -> None:
    for layout, hz, field in (("kinect20", None, "layout"), (None, 30, "hz")):
        with pytest.raises(BadInput, match="model stories reads sentences: expected null") as refused:
            modality().read(["anna sang"], layout, hz, "sentences")
        assert refused.value.field == field


def test_each_question_is_answered_and_the_last_is_the_prediction() -> None:
    asked = modality().read(["where is anna?", "anna walked to the garden", "where is anna?"], None, None, "sentences")
    told = modality().read(["anna sang"], None, None, "sentences")
    every = np.array([[0, 0], [9, -9], [0, np.log(3)]], np.float32)
    answers = [(Scores(every[-1], every, np.zeros(0, np.float32)), asked), (Scores(every[0], every[:1], np.zeros(0, np.float32)), told)]
    (first, second) = (words["predictions"][0] for words in modality().word(answers, 1))
    assert first["label"] == "garden"
    assert first["score"] == pytest.approx(0.75)
    assert [(a["sentence"], a["label"]) for a in first["answers"]] == [(0, "attic"), (2, "garden")]
    assert first["answers"][1]["top"] == first["top"]
    assert len(first["top"]) == 1
    assert first["steps"] == 3
    assert second == {"label": "", "score": 0.0, "top": [], "steps": 1, "answers": []}
