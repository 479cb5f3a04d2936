"""The options of both shells: the names of 0.1.0, by keyword, and no other."""

from typing import Any, get_type_hints

import pytest

from indrnn.client import aio, sync
from indrnn.client.options import GenerateOptions, PredictOptions, SessionOptions, chosen

# As the signatures of 0.1.0 had them; names may be added, and none leaves.
NAMED = {
    SessionOptions: {"layout", "hz", "top_k", "every", "version"},
    PredictOptions: {"model", "layout", "hz", "top_k", "session_id", "step"},
    GenerateOptions: {"max_chars", "temperature", "top_p", "seed", "stop"},
}


@pytest.mark.parametrize("kind", NAMED, ids=lambda kind: kind.__name__)
def test_every_name_of_the_first_release_is_taken_and_none_means_left_out(kind: Any) -> None:
    assert set(get_type_hints(kind)) >= NAMED[kind]
    assert chosen(kind, dict.fromkeys(NAMED[kind], 0)) == dict.fromkeys(NAMED[kind], 0)
    assert chosen(kind, dict.fromkeys(NAMED[kind])) == {}


async def test_a_misspelt_option_is_an_error_at_the_call_as_it_was() -> None:
    with sync.Client("http://127.0.0.1:9") as client, pytest.raises(TypeError, match="'topk'"):
        client.predict([], topk=3)  # type: ignore[call-arg]
    with sync.Client("http://127.0.0.1:9") as client, pytest.raises(TypeError, match="'max_chars'"):
        client.session("chars", max_chars=3)  # type: ignore[call-arg]
    async with aio.Client("http://127.0.0.1:9") as other:
        with pytest.raises(TypeError, match="'topk'"):
            await other.predict([], topk=3)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="'seeds'"):
            other.session("chars", seeds=3)  # type: ignore[call-arg]
