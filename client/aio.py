"""The client for asyncio. The core (conversation.py, calls.py) decides, this does."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
from websockets.asyncio.client import ClientConnection, connect

from indrnn.client import calls
from indrnn.client.answers import Char, Part, Predicted, Result, SessionInfo
from indrnn.client.commands import Close, Command, Connect, HttpRequest, Lost, Plan, Receive, Send, Show, Sleep
from indrnn.client.connection import (
    CLOSE_WITHIN,
    HTTP_ERRORS,
    SOCKET_ERRORS,
    WEBSOCKET,
    Server,
    answer_of,
    content_of,
    given,
    lost_call,
    lost_socket,
    request_of,
)
from indrnn.client.conversation import Conversation, Emission
from indrnn.client.errors import Refused
from indrnn.client.handle import GenerationHandle, SessionHandle
from indrnn.client.options import GenerateOptions, PredictOptions, SessionOptions, chosen
from indrnn.client.patience import Patience

R = TypeVar("R")


class Client:
    """A server. Use it in an `async with`, or close() it. One client may be used by many tasks, one session by one at a time.

    `timeout`: seconds that a call may take, reconnecting and repeating included, where the call names no other.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", api_key: str | None = None, timeout: float = 60.0) -> None:
        self.server = Server(url, api_key, timeout)
        self._http = httpx.AsyncClient(base_url=self.server.url, headers=self.server.headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Drops the HTTP connections."""
        await self._http.aclose()

    def session(
        self,
        model: str,
        session_id: str | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[SessionOptions],
    ) -> "Opening":
        """Return a new session, or one to go on with: `async with` it, or await it. Raises NotFound, SessionExpired, DeadlineExceeded."""
        fields = {**given(api_key=self.server.api_key), **chosen(SessionOptions, options)}
        return Opening(Session(self, Conversation(self.server.stream(model), fields, session_id), timeout))

    async def predict(
        self,
        sequences: list[Any],
        *,
        timeout: float | None = None,
        **options: Unpack[PredictOptions],
    ) -> Predicted:
        """POST /predict. With a session, give `step`: without it a request whose answer was lost is not repeated."""
        return await self.run(calls.predict(sequences, chosen(PredictOptions, options), self.patience(timeout)))

    async def models(self) -> list[dict[str, Any]]:
        """Return every served model."""
        return await self.run(calls.models(self.patience()))

    async def new_session(self, model: str, *, keep: int = 0) -> SessionInfo:
        """Opens a session for `predict`. keep: how many states after earlier steps it keeps, to be rewound to."""
        return await self.run(calls.new_session(model, self.patience(), keep))

    async def new_session_at(self, state: bytes) -> SessionInfo:
        """Opens a session where a downloaded state stood."""
        return await self.run(calls.new_session_at(state, self.patience()))

    async def sessions(self, limit: int = 100) -> list[SessionInfo]:
        """One's own sessions, newest first."""
        return await self.run(calls.sessions(limit, self.patience()))

    async def look(self, session_id: str) -> SessionInfo:
        """Return where a session stands."""
        return await self.run(calls.look(session_id, self.patience()))

    async def delete(self, session_id: str) -> None:
        """End a session on the server."""
        await self.run(calls.delete(session_id, self.patience()))

    async def download(self, session_id: str) -> bytes:
        """Download a session's state as a file."""
        return await self.run(calls.download(session_id, self.patience()))

    async def upload(self, session_id: str, state: bytes) -> SessionInfo:
        """Puts a downloaded state in place of the session's."""
        return await self.run(calls.upload(session_id, state, self.patience()))

    async def fork(self, session_id: str) -> SessionInfo:
        """Open a second session that stands where this one does."""
        return await self.run(calls.fork(session_id, self.patience()))

    async def reset(self, session_id: str) -> SessionInfo:
        """Puts a session back at the start."""
        return await self.run(calls.reset(session_id, self.patience()))

    def patience(self, timeout: float | None = None) -> Patience:
        """Return the patience for one call."""
        return Patience(self.server.timeout if timeout is None else timeout, time.monotonic, self.server.random)

    async def run(self, plan: Plan[R]) -> R:
        """Does what a plan of HTTP calls asks for."""
        return await _follow(plan, self._perform)

    async def rewind(
        self, session_id: str, *, step: int | None = None, mark: str | None = None, number: int | None = None, timeout: float | None = None
    ) -> SessionInfo:
        """Go back to a step or a mark, as one step. Give `number`: without it a request whose answer was lost is not repeated."""
        return await self.run(calls.rewind(session_id, given(step=step, mark=mark), number, self.patience(timeout)))

    async def mark(self, session_id: str, name: str, *, remove: bool = False) -> SessionInfo:
        """Name the step where a session stands, or take the name away."""
        return await self.run(calls.mark(session_id, name, remove, self.patience()))

    async def _perform(self, command: Command) -> object:
        if isinstance(command, Sleep):
            await asyncio.sleep(command.seconds)
            return None
        assert isinstance(command, HttpRequest), "HTTP needs no other"
        try:
            async with asyncio.timeout(command.timeout):  # httpx's own is for each read
                return answer_of(await self._http.request(**request_of(command)))
        except HTTP_ERRORS as error:
            return lost_call(error)
        except TimeoutError as error:
            return Lost(error)


class Opening:
    """A session that is about to be opened."""

    def __init__(self, session: "Session") -> None:
        self._session = session

    def __await__(self) -> "Generator[Any, None, Session]":
        return self._opened().__await__()

    async def __aenter__(self) -> "Session":
        return await self._opened()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def _opened(self) -> "Session":
        try:
            await self._session.open()
        except BaseException:
            await self._session.close()
            raise
        return self._session


class Session(SessionHandle):
    """One session over a WebSocket. It stays on the server when this is closed."""

    def __init__(self, client: Client, conversation: Conversation, timeout: float | None) -> None:
        super().__init__(conversation)
        self._client = client
        self._timeout = timeout
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects. Every other call does so by itself."""
        await self._run(self._conversation.open(self._patience(None)))

    async def close(self) -> None:
        """Drop the connection to the server."""
        self._conversation.lost()
        socket, self._socket = self._socket, None
        if socket is None:
            return
        try:
            async with asyncio.timeout(CLOSE_WITHIN):  # websockets' own deadline does not count what is still to be written
                await socket.close()
        except TimeoutError:
            socket.transport.abort()

    async def step(
        self, content: Any, *, number: int | None = None, timeout: float | None = None, t: Sequence[float] | None = None
    ) -> Result:
        """Take one step of text, sentences (a list of texts), frames [T][J][3] or [T][P][J][3], or numbers, rows [T][F] or samples [T].

        Applied exactly once, whatever happens to connections and servers.

        After DeadlineExceeded it may have been applied or not: the same call again finds out. `number` is for those who count themselves.
        `t` is of frames that come unevenly: the seconds, rising, at which each was taken; the session's later steps have it too.
        """
        body = content_of(content) | given(t=None if t is None else list(t))
        return await self._run(self._conversation.feed(body, number, self._patience(timeout)))

    def generate(
        self,
        *,
        number: int | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> "Generation":
        """Return characters as the model draws them; iterate over it. `timeout` is for the next character."""
        return Generation(self, chosen(GenerateOptions, options), number, timeout)

    async def cancel(self) -> None:
        """Ends the generate that is under way; also from another task. Its iteration ends with what was drawn until then."""
        urgent = self._conversation.cancel()
        if urgent is not None:
            await self._perform(Send(urgent, self._client.server.timeout))  # if it fails, the iteration finds out and sends it again

    async def watch(self, neurons: bool = True) -> list[Part]:
        """Choose whether results and characters from now on carry every recurrent neuron; return the layers."""
        return await self._run(self._conversation.watch(neurons, self._patience(None)))

    async def reset(self) -> None:
        """Put the session back at the start of a sequence; the next step is number 1. Raises Unanswered where a step has no answer yet."""
        await self._settle()
        self._conversation.need_answers()
        self._stands(await self._client.reset(self.id))

    async def download(self) -> bytes:
        """Download the state as a file: it can be uploaded here or elsewhere."""
        await self._settle()
        return await self._client.download(self.id)

    async def upload(self, state: bytes) -> None:
        """Go on where a downloaded state stood. Raises Unanswered where a step has no answer yet."""
        await self._settle()
        self._conversation.need_answers()
        self._stands(await self._client.upload(self.id, state))

    async def fork(self) -> "Session":
        """Open a second session that stands where this one does, with the same options."""
        await self._settle()
        twin = Session(self._client, self._conversation.of((await self._client.fork(self.id)).session_id), self._timeout)
        await twin.open()
        return twin

    async def delete(self) -> None:
        """Ends the session, and closes."""
        await self._client.delete(self.id)
        await self.close()

    async def _begin(self, wish: dict[str, object], number: int | None, timeout: float | None) -> Emission:
        return await self._run(self._conversation.begin(wish, number, self._patience(timeout)))

    async def _settle(self) -> None:
        await self._run(self._conversation.settle(self._patience(None)))

    def _stands(self, info: SessionInfo) -> None:
        self._conversation.stand(info.step, info.position)

    def _patience(self, timeout: float | None) -> Patience:
        return self._client.patience(self._timeout if timeout is None else timeout)

    async def _run(self, plan: Plan[R]) -> R:
        return await _follow(plan, lambda command: self._perform_or_drop(command, plan))

    async def _perform_or_drop(self, command: Command, plan: Plan[Any]) -> object:
        """An interrupt leaves an answer on its way, which must not be taken for the next one's."""
        try:
            return await self._perform(command)
        except BaseException:
            plan.close()
            self._conversation.lost()
            socket, self._socket = self._socket, None
            if socket is not None:
                socket.transport.abort()  # whoever is cancelled does not wait for a goodbye
            raise

    async def _perform(self, command: Command) -> object:
        try:
            return await self._do(command)
        except SOCKET_ERRORS as error:
            return lost_socket(error)

    async def _do(self, command: Command) -> object:
        if isinstance(command, Receive):
            async with asyncio.timeout(command.timeout):
                return await self._connected().recv()
        if isinstance(command, Send):
            async with asyncio.timeout(command.timeout):
                await self._connected().send(command.text)
        elif isinstance(command, Sleep):
            await asyncio.sleep(command.seconds)
        else:
            assert isinstance(command, Connect | Close), "a stream needs no other"
            await self.close()
            if isinstance(command, Connect):
                self._socket = await connect(command.url, open_timeout=command.timeout, **WEBSOCKET)
        return None

    def _connected(self) -> ClientConnection:
        if self._socket is None:
            raise OSError("the connection was dropped")
        return self._socket

    async def rewind(self, *, step: int | None = None, mark: str | None = None) -> None:
        """Go back to where the session stood after a step, or to a mark: one step, applied exactly once. Raises Conflict (`not_kept`).

        After DeadlineExceeded it may have been applied or not: the same call again finds out.
        """
        await self._settle()
        number = self._conversation.claim_rewind(given(step=step, mark=mark))
        try:
            info = await self._client.rewind(self.id, step=step, mark=mark, number=number, timeout=self._timeout)
        except Refused:
            self._conversation.not_rewound()
            raise
        self._conversation.rewound(info.step, info.position)

    async def mark(self, name: str, *, remove: bool = False) -> None:
        """Name the step where the session stands, to rewind to; its state is kept until the name is moved or taken away."""
        await self._settle()
        await self._client.mark(self.id, name, remove=remove)


class Generation(GenerationHandle):
    """A generate: iterate over it. `text` is what the session has consumed; left early, the next call of the session cancels it."""

    def __init__(self, session: Session, wish: dict[str, object], number: int | None, timeout: float | None) -> None:
        super().__init__(wish, number, timeout)
        self._session = session

    async def __aiter__(self) -> AsyncIterator[Char]:
        if self._emission is None:
            self._emission = await self._session._begin(self._wish, self._number, self._timeout)
        running = self._emission.running
        assert running is not None, "begin has made it"
        outcome: object = None
        while True:
            try:
                command = running.send(outcome)
            except StopIteration:
                return
            if isinstance(command, Show):
                outcome = None
                yield command.char
            else:
                outcome = await self._session._perform_or_drop(command, running)


async def _follow(plan: Plan[R], perform: Callable[[Command], Awaitable[object]]) -> R:
    """Do what a plan asks for, command by command, and return what it comes to."""
    outcome: object = None
    while True:
        try:
            command = plan.send(outcome)
        except StopIteration as end:
            result: R = end.value
            return result
        outcome = await perform(command)
