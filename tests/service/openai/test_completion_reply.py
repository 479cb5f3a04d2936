"""Choices that are told in pieces, without any server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indrnn.service.errors import BadInput, EngineFailed, Overloaded, TooLarge, UnknownModel
from indrnn.service.openai.reply import Choice, Scored, error_body, error_status, settled
from indrnn.service.session.machine import Generated, Reason, Sampling

texts = st.text("ab", max_size=12)
stops = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4).map(tuple)


def drawn(text: str, stop: tuple[str, ...], most: int) -> list[tuple[str, Reason | None]]:
    """The characters of a text up to where the service would end it, and the reason with the last."""
    so_far = Generated(Sampling(most, 1, 1, 0, stop), "", [], None)  # type: ignore[arg-type]
    out = []
    for char in text:
        so_far = so_far.grown(char, 0.0)
        out.append((char, so_far.reason))
        if so_far.reason:
            break
    return out


@given(texts.filter(bool), stops, st.sets(st.integers(0, 12)), texts, st.booleans())
def test_pieces_make_up_the_text_before_the_stop_string_and_scores_stand_beside_their_characters(
    text: str, stop: tuple[str, ...], told_at: set[int], prompt: str, echo: bool
) -> None:
    choice = Choice(0, prompt, echo, stop, True, prompt_scores=[Scored(c, -9.0, {}) for c in prompt])
    pieces = []
    for i, (char, reason) in enumerate(drawn(text, stop, len(text))):
        choice.grow(Scored(char, -float(i), {char: -float(i)}), reason)
        if i in told_at or reason:
            pieces.append(choice.piece())
    assert choice.piece() is None
    said = [p for p in pieces if p is not None]
    whole = "".join(str(p["text"]) for p in said)
    ended = whole.removeprefix(prompt) if echo else whole
    cut = min((text.find(s) for s in stop if s in text), default=len(text))
    assert ended == text[:cut] or (choice.text.startswith(ended) and choice.text[len(ended) :] in stop)
    assert all(s not in ended for s in stop)
    assert [p["finish_reason"] for p in said] == [None] * (len(said) - 1) + [choice.reason.value]  # type: ignore[union-attr]
    tables = [p["logprobs"] for p in said]
    tokens = [t for table in tables for t in table["tokens"]]  # type: ignore[index]
    offsets = [o for table in tables for o in table["text_offset"]]  # type: ignore[index]
    assert "".join(tokens) == whole
    assert offsets == [*range(0 if echo else len(prompt), len(prompt) + len(ended))]
    assert [lp for table in tables for lp in table["token_logprobs"]][len(whole) - len(ended) :] == [-float(i) for i in range(len(ended))]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "stop", "told"),
    [("xyz", ("zq",), 2), ("xyz", ("q",), 3), ("xyz", ("yzz", "zz"), 1), ("", ("a",), 0), ("aaa", ("aaaa",), 0), ("xyz", (), 3)],
)
def test_what_may_begin_a_stop_string_is_held_back(text: str, stop: tuple[str, ...], told: int) -> None:
    assert settled(text, stop, None) == told
    assert settled(text, stop, Reason.LENGTH) == len(text)


def test_of_stop_strings_that_end_together_the_longest_is_left_out() -> None:
    assert settled("xab", ("b", "ab", "b"), Reason.STOP) == 1


def test_errors_have_openais_shape() -> None:
    assert error_body(BadInput("expected a text, got 3", field="prompt")) == {
        "error": {
            "message": "prompt: expected a text, got 3",
            "type": "invalid_request_error",
            "param": "prompt",
            "code": "invalid_input",
        }
    }
    assert [error_status(e) for e in (BadInput("x"), UnknownModel("x"), TooLarge("x"), Overloaded("x"), EngineFailed("x"))] == [
        400,
        404,
        413,
        503,
        500,
    ]
    kinds = [error_body(e)["error"] for e in (UnknownModel("x"), EngineFailed("x"))]
    assert [(k["code"], k["type"]) for k in kinds] == [("model_not_found", "invalid_request_error"), ("engine_failed", "server_error")]  # type: ignore[index]
