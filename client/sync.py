"""The client for programs without asyncio: blocking calls. The core (conversation.py, calls.py) decides, this does."""

import os
import socket as sockets
import struct
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
from websockets.sync.client import ClientConnection, connect

from indrnn.client import calls
from indrnn.client.answers import Char, Part, Predicted, Result, SessionInfo
from indrnn.client.commands import Close, Command, Connect, HttpRequest, Plan, Receive, Send, Show, Sleep, follow
from indrnn.client.connection import (
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
    """A server. Use it in a `with`, or close() it. One client may be used by many threads, one session by one at a time.

    `timeout`: seconds that a call may take, reconnecting and repeating included, where the call names no other.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", api_key: str | None = None, timeout: float = 60.0) -> None:
        self.server = Server(url, api_key, timeout)
        self._http = httpx.Client(base_url=self.server.url, headers=self.server.headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Drops the HTTP connections."""
        self._http.close()

    def session(
        self,
        model: str,
        session_id: str | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[SessionOptions],
    ) -> "Session":
        """Opens a session, or goes on with one. Raises NotFound, SessionExpired, DeadlineExceeded and their kin."""
        fields = {**given(api_key=self.server.api_key), **chosen(SessionOptions, options)}
        session = Session(self, Conversation(self.server.stream(model), fields, session_id), timeout)
        try:
            session.open()
        except BaseException:
            session.close()
            raise
        return session

    def predict(
        self,
        sequences: list[Any],
        *,
        timeout: float | None = None,
        **options: Unpack[PredictOptions],
    ) -> Predicted:
        """POST /predict. With a session, give `step`: without it a request whose answer was lost is not repeated."""
        return self.run(calls.predict(sequences, chosen(PredictOptions, options), self.patience(timeout)))

    def models(self) -> list[dict[str, Any]]:
        """Return every served model."""
        return self.run(calls.models(self.patience()))

    def new_session(self, model: str, *, keep: int = 0) -> SessionInfo:
        """Opens a session for `predict`. keep: how many states after earlier steps it keeps, to be rewound to."""
        return self.run(calls.new_session(model, self.patience(), keep))

    def new_session_at(self, state: bytes) -> SessionInfo:
        """Opens a session where a downloaded state stood."""
        return self.run(calls.new_session_at(state, self.patience()))

    def sessions(self, limit: int = 100) -> list[SessionInfo]:
        """One's own sessions, newest first."""
        return self.run(calls.sessions(limit, self.patience()))

    def look(self, session_id: str) -> SessionInfo:
        """Return where a session stands."""
        return self.run(calls.look(session_id, self.patience()))

    def delete(self, session_id: str) -> None:
        """End a session on the server."""
        self.run(calls.delete(session_id, self.patience()))

    def download(self, session_id: str) -> bytes:
        """Download a session's state as a file."""
        return self.run(calls.download(session_id, self.patience()))

    def upload(self, session_id: str, state: bytes) -> SessionInfo:
        """Puts a downloaded state in place of the session's."""
        return self.run(calls.upload(session_id, state, self.patience()))

    def fork(self, session_id: str) -> SessionInfo:
        """Open a second session that stands where this one does."""
        return self.run(calls.fork(session_id, self.patience()))

    def reset(self, session_id: str) -> SessionInfo:
        """Puts a session back at the start."""
        return self.run(calls.reset(session_id, self.patience()))

    def patience(self, timeout: float | None = None) -> Patience:
        """Return the patience for one call."""
        return Patience(self.server.timeout if timeout is None else timeout, time.monotonic, self.server.random)

    def run(self, plan: Plan[R]) -> R:
        """Does what a plan of HTTP calls asks for."""
        return follow(plan, self._perform)

    def rewind(
        self, session_id: str, *, step: int | None = None, mark: str | None = None, number: int | None = None, timeout: float | None = None
    ) -> SessionInfo:
        """Go back to a step or a mark, as one step. Give `number`: without it a request whose answer was lost is not repeated."""
        return self.run(calls.rewind(session_id, given(step=step, mark=mark), number, self.patience(timeout)))

    def mark(self, session_id: str, name: str, *, remove: bool = False) -> SessionInfo:
        """Name the step where a session stands, or take the name away."""
        return self.run(calls.mark(session_id, name, remove, self.patience()))

    def _perform(self, command: Command) -> object:
        if isinstance(command, Sleep):
            time.sleep(command.seconds)
            return None
        assert isinstance(command, HttpRequest), "HTTP needs no other"
        try:
            return answer_of(self._http.request(**request_of(command)))
        except HTTP_ERRORS as error:
            return lost_call(error)


class Session(SessionHandle):
    """One session over a WebSocket. It stays on the server when this is closed."""

    def __init__(self, client: Client, conversation: Conversation, timeout: float | None) -> None:
        super().__init__(conversation)
        self._client = client
        self._timeout = timeout
        self._socket: ClientConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def open(self) -> None:
        """Connects. Every other call does so by itself."""
        self._run(self._conversation.open(self._patience(None)))

    def close(self) -> None:
        """Drop the connection to the server."""
        self._conversation.lost()
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def step(self, content: Any, *, number: int | None = None, timeout: float | None = None, t: Sequence[float] | None = None) -> Result:
        """Take one step of text, sentences (a list of texts), frames [T][J][3] or [T][P][J][3], or numbers, rows [T][F] or samples [T].

        Applied exactly once, whatever happens to connections and servers.

        After DeadlineExceeded it may have been applied or not: the same call again finds out. `number` is for those who count themselves.
        `t` is of frames that come unevenly: the seconds, rising, at which each was taken; the session's later steps have it too.
        """
        body = content_of(content) | given(t=None if t is None else list(t))
        return self._run(self._conversation.feed(body, number, self._patience(timeout)))

    def generate(
        self,
        *,
        number: int | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> "Generation":
        """Return characters as the model draws them; iterate over it. `timeout` is for the next character."""
        return Generation(self, chosen(GenerateOptions, options), number, timeout)

    def cancel(self) -> None:
        """Ends the generate that is under way; also from another thread. Its iteration ends with what was drawn until then."""
        urgent = self._conversation.cancel()
        if urgent is not None:
            self._perform(Send(urgent, self._client.server.timeout))  # if it fails, the iteration finds out and sends it again

    def watch(self, neurons: bool = True) -> list[Part]:
        """Choose whether results and characters from now on carry every recurrent neuron; return the layers."""
        return self._run(self._conversation.watch(neurons, self._patience(None)))

    def reset(self) -> None:
        """Put the session back at the start of a sequence; the next step is number 1. Raises Unanswered where a step has no answer yet."""
        self._settle()
        self._conversation.need_answers()
        self._stands(self._client.reset(self.id))

    def download(self) -> bytes:
        """Download the state as a file: it can be uploaded here or elsewhere."""
        self._settle()
        return self._client.download(self.id)

    def upload(self, state: bytes) -> None:
        """Go on where a downloaded state stood. Raises Unanswered where a step has no answer yet."""
        self._settle()
        self._conversation.need_answers()
        self._stands(self._client.upload(self.id, state))

    def fork(self) -> "Session":
        """Open a second session that stands where this one does, with the same options."""
        self._settle()
        twin = Session(self._client, self._conversation.of(self._client.fork(self.id).session_id), self._timeout)
        twin.open()
        return twin

    def delete(self) -> None:
        """Ends the session, and closes."""
        self._client.delete(self.id)
        self.close()

    def _begin(self, wish: dict[str, object], number: int | None, timeout: float | None) -> Emission:
        return self._run(self._conversation.begin(wish, number, self._patience(timeout)))

    def _settle(self) -> None:
        self._run(self._conversation.settle(self._patience(None)))

    def _stands(self, info: SessionInfo) -> None:
        self._conversation.stand(info.step, info.position)

    def _patience(self, timeout: float | None) -> Patience:
        return self._client.patience(self._timeout if timeout is None else timeout)

    def _run(self, plan: Plan[R]) -> R:
        return follow(plan, lambda command: self._perform_or_drop(command, plan))

    def _perform_or_drop(self, command: Command, plan: Plan[Any]) -> object:
        """An interrupt leaves an answer on its way, which must not be taken for the next one's."""
        try:
            return self._perform(command)
        except BaseException:
            plan.close()
            self.close()
            raise

    def _perform(self, command: Command) -> object:
        try:
            return self._do(command)
        except SOCKET_ERRORS as error:
            return lost_socket(error)

    def _do(self, command: Command) -> object:
        if isinstance(command, Receive):
            return self._connected().recv(command.timeout)
        if isinstance(command, Send):
            self._connected().send(command.text)
        elif isinstance(command, Sleep):
            time.sleep(command.seconds)
        else:
            assert isinstance(command, Connect | Close), "a stream needs no other"
            self.close()
            if isinstance(command, Connect):
                self._socket = _connect(command.url, command.timeout, self._client.server.timeout)
        return None

    def _connected(self) -> ClientConnection:
        if self._socket is None:
            raise OSError("the connection was dropped")
        return self._socket

    def rewind(self, *, step: int | None = None, mark: str | None = None) -> None:
        """Go back to where the session stood after a step, or to a mark: one step, applied exactly once. Raises Conflict (`not_kept`).

        After DeadlineExceeded it may have been applied or not: the same call again finds out.
        """
        self._settle()
        number = self._conversation.claim_rewind(given(step=step, mark=mark))
        try:
            info = self._client.rewind(self.id, step=step, mark=mark, number=number, timeout=self._timeout)
        except Refused:
            self._conversation.not_rewound()
            raise
        self._conversation.rewound(info.step, info.position)

    def mark(self, name: str, *, remove: bool = False) -> None:
        """Name the step where the session stands, to rewind to; its state is kept until the name is moved or taken away."""
        self._settle()
        self._client.mark(self.id, name, remove=remove)


class Generation(GenerationHandle):
    """A generate: iterate over it. `text` is what the session has consumed; left early, the next call of the session cancels it."""

    def __init__(self, session: Session, wish: dict[str, object], number: int | None, timeout: float | None) -> None:
        super().__init__(wish, number, timeout)
        self._session = session

    def __iter__(self) -> Iterator[Char]:
        if self._emission is None:
            self._emission = self._session._begin(self._wish, self._number, self._timeout)
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
                outcome = self._session._perform_or_drop(command, running)


def _connect(url: str, timeout: float, send_timeout: float) -> ClientConnection:
    connection: ClientConnection = connect(url, open_timeout=timeout, **WEBSOCKET)
    connection.__enter__()
    if os.name == "posix":  # send() itself knows no deadline; elsewhere only the signs of life bound it
        connection.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDTIMEO, struct.pack("ll", int(send_timeout) + 1, 0))
    return connection
