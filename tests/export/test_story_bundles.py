"""A bundle of sentences says its words and their most in one sentence, and none is read that contradicts itself."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from test_bundle import chars_manifest

from indrnn.export.bundle import Manifest
from indrnn.export.manifest import content
from indrnn.export.modalities.modality import Content
from indrnn.export.modalities.sentences import SLOTS
from indrnn.export.modalities.table import MODALITIES
from indrnn.model.cells.classic.memory import Memory
from indrnn.model.cells.table import CELLS, described
from indrnn.model.training.checkpoint import Meta
from indrnn.service.serving.signature import Signature

WORDS = ("?", "anna", "is", "where")


def sentences_manifest(**changes: Any) -> dict[str, Any]:
    _, last = chars_manifest()["state"]
    slots = {"role": "hidden", "layer": 0, "name": "slots", "offset": 0, "size": 12}
    told: dict[str, Any] = {"modality": "sentences", "kind": "stories", "cell": "memory", "alphabet": None, "labels": ["attic", "garden"]}
    told |= {
        "words": WORDS,
        "width": 4,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", "T", 4]}],
        "state": [slots, {**last, "offset": 12, "size": 2}],
    }
    return chars_manifest(**{**told, **changes})


def test_a_manifest_of_sentences_is_read() -> None:
    m = Manifest.model_validate(sentences_manifest())
    assert (m.classes, m.words, MODALITIES[m.modality].step(m)) == (2, WORDS, (4,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": None}, "has labels, words and width"),
        ({"words": None}, "has labels, words and width"),
        ({"width": None}, "has labels, words and width"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"words": ("?", "is", "is")}, "expected different ones"),
        ({"words": ("?", "Anna")}, "in small letters"),
        ({"words": ("?", "a b")}, "without blanks"),
        ({"words": ("anna", "?")}, "first, which makes a sentence a question"),
        ({"alphabet": "ab"}, "neither an alphabet nor other_below"),
        ({"other_below": 0.5}, "neither an alphabet nor other_below"),
    ],
)
def test_one_that_contradicts_itself_is_not(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Manifest.model_validate(sentences_manifest(**changes))


def test_made_up_sentences_are_told_and_asked_with_words_of_the_list() -> None:
    told = Content(modality="sentences", kind="stories", labels=("a", "b"), words=WORDS, width=4)
    x = MODALITIES["sentences"].sample(told)(np.random.default_rng(0), 20, 30)
    assert (x.dtype, x.shape) == (np.float32, (20, 30, 4))
    assert set(np.unique(x)) == {0, 1, 2, 3, 4}
    assert (x > 0).any(2).all(), "no sentence is empty"
    assert 0.1 < (x == 1).any(2).mean() < 0.5


def test_a_checkpoint_that_does_not_say_its_words_is_refused() -> None:
    with pytest.raises(ValueError, match="state its words"):
        MODALITIES["sentences"].step(content(Meta("stories", "", 0, 0, labels=("a",))))


def test_a_memorys_slots_are_known_by_their_name_wherever_words_are_checked() -> None:
    assert [part.name for part in Memory(4, 2, words=4, slots=3, hops=1).parts()] == [SLOTS]
    assert Signature.of(Manifest.model_validate(sentences_manifest())).slots == (0, 12)


def test_a_memory_is_known_by_its_name_and_no_stack_is_made_of_it() -> None:
    assert described("memory") is Memory
    assert "memory" not in CELLS
    assert all(described(name) is cell for name, cell in CELLS.items())
    with pytest.raises(KeyError):
        described("mamba")
