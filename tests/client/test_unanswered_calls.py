"""While a step has no answer, no call of a session takes away on the server what the step waits for."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from indrnn.client import aio, sync
from indrnn.client.conversation import Conversation
from indrnn.client.errors import Unanswered

INFO = {"session_id": "s", "model": "m", "version": "1", "step": 0, "position": 0, "created_at": "then", "expires_at": "later"}
PUTS_ELSEWHERE = {"reset": lambda session: session.reset(), "upload": lambda session: session.upload(b"a state")}


class Asked:
    """A server that answers every request, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        return httpx.Response(200, json=INFO)


def waiting() -> Conversation:
    """A session of four steps, whose fifth has been sent and has no answer."""
    talk = Conversation("ws://x/stream/m", {}, "s")
    talk.stand(4, 40)
    talk.claim_rewind({"step": 2})
    return talk


@pytest.mark.parametrize("call", PUTS_ELSEWHERE.values(), ids=PUTS_ELSEWHERE)
def test_a_session_is_not_put_elsewhere_while_a_step_has_no_answer(call: Callable[[sync.Session], None]) -> None:
    asked, talk = Asked(), waiting()
    with sync.Client("http://x") as client:
        client._http = httpx.Client(base_url="http://x", transport=httpx.MockTransport(asked.answer))
        session = sync.Session(client, talk, None)
        with pytest.raises(Unanswered, match="step 5 has no answer yet"):
            call(session)
        assert (asked.paths, session.number, session.position) == ([], 4, 40)
        talk.not_rewound()
        call(session)
        assert (len(asked.paths), session.number, session.position) == (1, 0, 0)


@pytest.mark.parametrize("call", PUTS_ELSEWHERE.values(), ids=PUTS_ELSEWHERE)
async def test_nor_is_it_with_asyncio(call: Callable[[aio.Session], Any]) -> None:
    asked, talk = Asked(), waiting()
    async with aio.Client("http://x") as client:
        client._http = httpx.AsyncClient(base_url="http://x", transport=httpx.MockTransport(asked.answer))
        session = aio.Session(client, talk, None)
        with pytest.raises(Unanswered, match="step 5 has no answer yet"):
            await call(session)
        assert (asked.paths, session.number, session.position) == ([], 4, 40)
        talk.not_rewound()
        await call(session)
        assert (len(asked.paths), session.number, session.position) == (1, 0, 0)
