"""A symbol that the alphabet lacks is read where a client asks for it, said in the reply, and never written."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from indrnn.service.engine.requests import Exact
from indrnn.service.engine.runtime import Feeding, Generating, LastLogits
from indrnn.service.errors import BadInput, OutOfAlphabet, TooLarge
from indrnn.service.openai.request import CompletionLimits, read_wish
from indrnn.service.serving.steps import StepOptions, native_step, options_key, replacing_key
from indrnn.service.serving.text import TextModality, replaced, replaces
from indrnn.service.session.machine import Generated, Sampling, Scores

ALPHABET = "\n abc\ufffd"
UNKNOWN = 5


def modality(unknown: int | None = UNKNOWN) -> TextModality:
    manifest: Any = SimpleNamespace(alphabet=ALPHABET if unknown else ALPHABET[:-1], unknown_symbol=unknown, name="chars", version="2")
    return TextModality(manifest, 20)


def test_what_the_alphabet_lacks_is_read_as_its_symbol_and_told():
    content, unread = modality().read_replacing("a€b→→€", "text")
    assert content.x.tolist() == [2, UNKNOWN, 3, UNKNOWN, UNKNOWN, UNKNOWN]
    assert unread == "€→→€"
    assert replaced(unread) == {"count": 4, "chars": "€→"}
    assert modality().read_replacing("abc", "text")[1] == ""


def test_without_the_option_it_is_refused_as_ever_and_so_is_the_symbol_itself():
    for text, said in (("a€", "'€' (U+20AC) at 1"), ("ab\ufffd", "(U+FFFD) at 2")):
        with pytest.raises(OutOfAlphabet) as refused:
            modality().read(text, None, None, "text")
        assert said in refused.value.detail
        assert '"unknown": "replace"' in refused.value.detail
    with pytest.raises(OutOfAlphabet, match="quotes and dashes are plain"):
        modality(None).read("a€", None, None, "text")


def test_a_text_whose_accents_stand_by_themselves_is_told_how_to_be_sent():
    manifest: Any = SimpleNamespace(alphabet=" aé\ufffd", unknown_symbol=3, name="chars", version="2")
    text = TextModality(manifest, 20)
    assert text.read("aé", None, None, "text").x.tolist() == [1, 2]
    with pytest.raises(OutOfAlphabet, match="NFC, with accents and letters in one"):
        text.read("ae\u0301", None, None, "text")
    for other in ("e\u0301e", "a\ufffd"):
        with pytest.raises(OutOfAlphabet, match="replace"):
            text.read(other, None, None, "text")


def test_bounds_hold_with_the_option_too():
    with pytest.raises(TooLarge):
        modality().read_replacing("€" * 21, "text")
    for value in ("", None, 3):
        with pytest.raises(BadInput):
            modality().read_replacing(value, "text")


def test_the_option_is_null_or_replace_and_for_models_that_have_the_symbol():
    assert [replaces(modality(), value) for value in (None, "replace")] == [False, True]
    assert replaces(object(), None) is False  # type: ignore[arg-type]
    for model, value, said in (
        (modality(), "ignore", 'expected "replace" or null'),
        (modality(None), "replace", "chars 2 has no symbol for what its alphabet lacks"),
        (object(), "replace", "reads no text"),
    ):
        with pytest.raises(BadInput, match=said) as refused:
            replaces(model, value)  # type: ignore[arg-type]
        assert refused.value.field == "unknown"


def test_other_characters_in_the_same_places_are_another_step():
    key = options_key("text", StepOptions())
    digests = []
    for text in ("a€", "a→", "a€"):
        content, unread = modality().read_replacing(text, "text")
        digests.append(native_step("s", "", 1, content, replacing_key(key, unread)).digest)
    assert digests[0] == digests[2] != digests[1]
    plain, _ = modality().read_replacing("ab", "text")
    assert native_step("s", "", 1, plain, replacing_key(key, "")).digest == native_step("s", "", 1, plain, key).digest


def test_a_reply_gives_it_no_log_probability_and_never_says_it_comes_next():
    logits = np.array([0, 0, 0, 0, 0, 50], np.float32)
    words = modality().word(
        [(Scores(logits, np.zeros((0, 6), np.float32), np.array([-1.0, -np.inf], np.float32)), Exact(np.array([2, 5])))], 9
    )
    assert words[0]["chars"] == [{"char": "a", "logprob": -1.0}, {"char": "\ufffd", "logprob": None}]
    assert [n["char"] for n in words[0]["next"]] == list("\n abc")
    assert sum(np.exp(n["logprob"]) for n in words[0]["next"]) == pytest.approx(1)


def test_it_is_never_drawn_not_even_from_a_start_that_knows_nothing():
    place = LastLogits(slice(0, 6), UNKNOWN)
    nothing = Generated(Sampling(1, 10.0, 1.0, 0, ()), "", np.zeros(0, np.float32), None)
    drawn = set()
    for seed in range(200):
        work = Generating(np.array([0, 0, 0, 0, 0, 30], np.float32), place, None)
        row = work.next_row(dataclasses.replace(nothing, sampling=Sampling(1, 10.0, 1.0, seed, ())))
        drawn.add(int(row.x[0]))
    assert drawn == {0, 1, 2, 3, 4}


def test_scores_of_what_is_read_are_shared_among_the_others():
    work = Feeding(np.array([2, 5]), None, 2, np.zeros(6, np.float32), LastLogits(slice(0, 6), UNKNOWN), False, None, 0.0)
    work.take(np.zeros((2, 6), np.float32), np.zeros(6, np.float32))
    (scores,) = work.logprobs
    assert scores[0] == pytest.approx(-np.log(5))
    assert scores[1] == -np.inf


def test_a_wish_for_completions_says_so():
    limits = CompletionLimits(10, 10, 2, 10)
    assert read_wish({"prompt": "a", "unknown": "replace"}, ALPHABET, limits, replace=True).replace
    assert not read_wish({"prompt": "a", "unknown": None}, ALPHABET, limits).replace
