"""The client takes states out, puts them in, forks, resets, and shows its key."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Server

from indrnn.client import aio, sync
from indrnn.client.answers import Result
from indrnn.client.errors import BadInput, Conflict, NotFound, SessionExpired, Unauthorized

TEXT = "To be, or not to be, that is the question:\n"
Start = Callable[..., Server]


@pytest.fixture
def client(server: Server) -> Iterator[sync.Client]:
    with sync.Client(server.url) as made:
        yield made


def logprobs(result: Result) -> list[float]:
    return [c.logprob for c in result.chars]


def test_a_session_moves_by_its_state_and_goes_on_with_the_same_numbers(client: sync.Client, own_server: Start) -> None:
    elsewhere = own_server()
    with client.session("chars") as session, sync.Client(elsewhere.url) as other:
        session.step(TEXT)
        state = session.download()
        expected = logprobs(session.step(TEXT))
        ident = other.new_session_at(state).session_id
        with other.session("chars", ident) as moved:
            assert (moved.number, moved.position) == (1, len(TEXT))
            result = moved.step(TEXT)
            assert (result.step, logprobs(result)) == (2, pytest.approx(expected, abs=1e-4))
        with other.session("chars") as third:
            third.step("x")
            third.upload(state)
            with pytest.raises(Conflict) as stored:
                third.step(TEXT, number=1)
            assert stored.value.code == "no_stored_reply"
            assert logprobs(third.step(TEXT)) == pytest.approx(expected, abs=1e-4)
            with pytest.raises(BadInput):
                third.upload(b"nonsense")
            assert third.step("x").step == 3


def test_a_fork_goes_its_own_way_and_a_reset_begins_anew(client: sync.Client) -> None:
    with client.session("chars", top_k=3) as session:
        first = session.step(TEXT)
        with session.fork() as twin:
            assert twin.id != session.id
            assert twin.step(TEXT, number=1) == first  # the last result came along
            mine, theirs = session.step("A"), twin.step("A")
            assert (mine.step, mine.next) == (theirs.step, theirs.next)
            assert len(theirs.next) == 3
            twin.step("b")
        assert session.step("c").step == 3
        session.reset()
        assert (session.number, session.position) == (0, 0)
        assert session.step(TEXT) == first
        assert client.reset(session.id).step == 0
        assert client.fork(session.id).position == 0


def test_a_state_is_taken_after_a_generate_that_was_left_has_ended(client: sync.Client) -> None:
    with client.session("chars") as session:
        generation = session.generate(max_chars=4000, seed=1)
        next(iter(generation))
        state = session.download()
        assert generation.reason == "cancelled"
        session.upload(state)
        assert (session.number, session.position) == (1, len(generation.text))


async def test_the_same_with_asyncio(server: Server) -> None:
    async with aio.Client(server.url) as client, client.session("chars") as session:
        first = await session.step(TEXT)
        state = await session.download()
        twins = await asyncio.gather(*(client.fork(session.id) for _ in range(3)))
        assert [t.position for t in twins] == [len(TEXT)] * 3
        async with await session.fork() as twin:
            assert (await twin.step("A")).step == 2
        await session.step("more")
        await session.upload(state)
        assert session.number == 1
        await session.reset()
        assert await session.step(TEXT) == first
        await session.delete()
        with pytest.raises(SessionExpired):
            await client.look(session.id)


def test_a_key_opens_its_own_sessions_and_no_others(own_server: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("mine", "yours")))
    server = own_server(INDRNN_KEYS=str(keys))
    with (
        sync.Client(server.url, api_key="mine") as mine,
        sync.Client(server.url, api_key="yours") as yours,
        mine.session("chars") as session,
    ):
        assert session.step("x").step == 1
        assert [s.session_id for s in mine.sessions()] == [session.id]
        assert yours.sessions() == []
        with pytest.raises(NotFound):
            yours.session("chars", session.id)
        with pytest.raises(NotFound):
            yours.download(session.id)
    for key in (None, "nobody's"):
        with sync.Client(server.url, api_key=key) as stranger:
            with pytest.raises(Unauthorized):
                stranger.session("chars")
            with pytest.raises(Unauthorized):
                stranger.sessions()
