"""What a request for completions may ask for, without any server."""

from typing import Any

import pytest

from indrnn.service.errors import BadInput, TooLarge
from indrnn.service.openai.request import CompletionLimits, read_wish

BOUNDS = CompletionLimits(max_prompt=20, max_tokens=50, max_choices=4, max_scored=60)
ALPHABET = "abc "


def wish(**body: Any) -> Any:
    return read_wish({"model": "m", "prompt": "a", **body}, ALPHABET, BOUNDS)


def test_what_is_left_out_or_null_is_openais_default() -> None:
    plain = wish()
    nulls = ("max_tokens", "temperature", "top_p", "n", "logprobs", "echo", "stop", "seed", "stream", "suffix", "logit_bias", "best_of")
    assert wish(**dict.fromkeys(nulls)) == plain
    assert (plain.prompts, plain.max_tokens, plain.temperature, plain.top_p, plain.n) == (("a",), 16, 1, 1, 1)
    assert (plain.logprobs, plain.echo, plain.stop, plain.seed, plain.stream) == (None, False, (), None, False)


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("ab", ("ab",)),
        ("", ("",)),
        (["ab", ""], ("ab", "")),
        ([0, 1, 3], ("ab ",)),
        ([[2], [0, 0]], ("c", "aa")),
        (["a", [1]], ("a", "b")),
    ],
)
def test_a_prompt_is_a_text_or_numbers_of_characters_or_several(prompt: Any, read: tuple[str, ...]) -> None:
    assert wish(prompt=prompt).prompts == read


def test_the_kth_text_draws_with_the_kth_seed_after_the_one_that_was_sent() -> None:
    assert [wish(seed=-1).seed_of(k, 99) for k in range(2)] == [2**64 - 1, 0]
    assert [wish().seed_of(k, 99) for k in range(2)] == [99, 100]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"prompt": None}, "prompt", "got null"),
        ({"prompt": []}, "prompt", "got an empty list"),
        ({"prompt": [True]}, "prompt[0]", "got true"),
        ({"prompt": [4]}, "prompt", "0 to 3, got 4"),
        ({"prompt": ["a", [-1]]}, "prompt[1]", "got -1"),
        ({"prompt": ["a"] * 5}, "prompt", "at most 4 prompts, got 5"),
        ({"prompt": "a" * 21}, "prompt", "at most 20 characters, got 21"),
        ({"max_tokens": -1}, "max_tokens", "from 0 to 50, got -1"),
        ({"max_tokens": 51}, "max_tokens", "got 51"),
        ({"temperature": 2.5}, "temperature", "from 0 to 2, got 2.5"),
        ({"top_p": "1"}, "top_p", "got '1'"),
        ({"n": 5}, "n", "from 1 to 4, got 5"),
        ({"n": 2, "prompt": ["a"] * 3}, "n", "3 prompts times 2"),
        ({"n": 2, "best_of": 3}, "best_of", "expected 2"),
        ({"logprobs": 6}, "logprobs", "from 0 to 5"),
        ({"logprobs": True}, "logprobs", "got true"),
        ({"logprobs": 0, "n": 2, "max_tokens": 31}, "logprobs", "at most 60 characters with log-probabilities, got up to 62"),
        ({"logprobs": 0, "n": 2, "max_tokens": 21, "prompt": "a" * 10, "echo": True}, "logprobs", "got up to 62"),
        ({"echo": "yes"}, "echo", "got 'yes'"),
        ({"stop": ""}, "stop", "got ''"),
        ({"stop": ["a"] * 5}, "stop", "at most 4 texts"),
        ({"stop": "a" * 65}, "stop", "1 to 64"),
        ({"seed": 2**63}, "seed", "expected a whole number"),
        ({"suffix": "z"}, "suffix", "not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
        ({"frequency_penalty": -1}, "frequency_penalty", "not supported"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "not supported"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "without stream"),
        ({"stream": True, "stream_options": {"x": 1}}, "x", "unknown field"),
        ({"messages": []}, "messages", "unknown field"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(body: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises((BadInput, TooLarge)) as caught:
        wish(**body)
    assert caught.value.field == field
    assert said in caught.value.detail


def test_parameters_that_ask_for_nothing_are_taken() -> None:
    assert wish(suffix="", presence_penalty=0, frequency_penalty=0.0, logit_bias={}, user="me", best_of=1) == wish()
