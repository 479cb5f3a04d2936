"""A list of texts is sentences, and the answers to questions among them are read."""

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
