"""uvicorn's WebSocket protocol with a short way for the common message: one whole text frame, read without a task or a queue in between.

websockets' parser and uvicorn's queue, task and ASGI messages cost some 40 µs a message, more than all else that a step needs. Here a
whole, unfragmented text frame is offered to the stream first (`taker`); whatever it does not take, and every other frame (ping, close,
fragments, handshake), goes the way uvicorn has for it.
"""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C where there is one, else in Python

EXTENSION = "indrnn.wire"  # the scope's extension that names this protocol's instance
TEXT = 0x81  # FIN and the opcode of text
CONTROL = 0x08  # opcodes from here on are no part of a message
NO_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
OPENING = 2**14  # bytes of a message before the stream is open: who has no key may not fill the memory, and an open has some 300
SHORT = 2**16  # bytes: longer messages are read where they do not hold up others
TURN = 128  # frames of one connection, some 3 ms, after which the others have their turn: uvloop reads megabytes at a time
FRAGMENTS = 2**16  # of one message


class Wire(WebSocketsSansIOProtocol):
    """One connection. `taker(frame, payload)` is offered whole text messages; one that it takes it must decide on (`decided`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.taker: Callable[[bytes, bytes], bool] | None = None
        self._rest = bytearray()  # the begin of a frame whose end has not come
        self._need = 0  # its size, once its header is there: it is not looked at before, else each byte would cost a copy of all
        self._pong = b""
        self._fragments = False  # inside a message of several frames
        self._too_long = False
        self._held: list[bytes] | None = None  # frames that wait for the decision on the one that was taken
        self._opening = True
        self._waits = False  # a message is with the stream that may open it: only then it is known how long the next may be
        self._longest = self.conn.max_message_size = OPENING
        self._yielded = False  # the frames in `_rest` are read in the loop's next turn, and nothing is read from the socket before
        self._pieces = 0  # fragments of the message that has begun

    def opened(self) -> None:
        """From the next message on they may be as long as is set."""
        self._opening = False
        self._longest = self.conn.max_message_size = self.config.ws_max_size

    def handle_connect(self, event: Any) -> None:
        """uvicorn's; the scope, made in there, is handed to a task that has not begun, so it can still be added to."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"][EXTENSION] = {"wire": self}  # ASGI lets servers name their own

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames; the parser gets them whole, so that it is always between two frames here."""
        if not self.handshake_initiated or self._too_long:
            super().data_received(data)
            if not self.handshake_initiated and not self.transport.is_closing():  # the head came whole, and is none of a handshake
                self.transport.write(NO_HANDSHAKE)
                self.transport.close()
            return
        if self._yielded:  # somebody else has let it be read again
            self._rest += data
            self.transport.pause_reading()
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, end, last = 0, len(data), TURN
        while at < end:
            if self._waits and not self.close_sent:
                self._rest += data[at:]
                self._need = 0
                return
            if last == 0:
                if not self.transport.is_closing():
                    self._rest += data[at:]
                    self._yield()
                return
            last -= 1
            size = frame_size(data, at)
            if size is None or (at + size > end and size <= self._longest):
                self._rest += data[at:]
                self._need = size or 0
                return
            if at + size > end:  # longer than is allowed: the parser says so, and closes
                self._too_long = True
                super().data_received(data[at:])
                return
            self._frame(data if size == end else data[at : at + size])
            at += size

    def _yield(self) -> None:
        self._need, self._yielded = 0, True
        self.transport.pause_reading()
        self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._yielded = False
        if self.transport.is_closing():
            return
        self.data_received(b"")
        if not self._yielded and not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def send_receive_event_to_app(self) -> None:
        """A message is whole. One that is no text, uvicorn would put into the log with a traceback for each."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(b"".join(self.frames)):
            self.frames = []
            self.conn.send_close(1007)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()
        self._waits = self._opening

    async def receive(self) -> Any:
        """Return the stream's next message. Until it is open, what comes behind one is read when the stream has dealt with it."""
        if self._waits and self.queue.empty():
            self._waits = False
            self.data_received(b"")
            if self.read_paused and self.queue.empty():
                self.read_paused = False
                self.transport.resume_reading()
        message = await super().receive()
        if self._waits and not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()
        return message

    async def send(self, message: Any) -> None:
        """Send what the stream says. A refused handshake is complete too, which uvicorn would put into the log as an error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True

    def _frame(self, frame: bytes) -> None:
        if self._held is not None:
            self._held.append(frame)
            return
        opcode = frame[0] & 0x0F
        whole = frame[0] == TEXT and frame[1] & 0x80 and not self._fragments
        if opcode < CONTROL:
            self._fragments = not frame[0] & 0x80
            self._pieces = 0 if whole or opcode else self._pieces + 1
            if self._pieces > FRAGMENTS:
                self._refuse_pieces()
                return
        if whole and len(frame) <= SHORT and self.taker is not None and self.queue.empty():
            head = 6 if frame[1] & 0x7F < 126 else 8
            if self.taker(frame, apply_mask(frame[head:], frame[head - 4 : head])):
                self._held = []
                return
        super().data_received(frame)

    def _refuse_pieces(self) -> None:
        """Let go who sends a message in too many pieces (1008): empty ones add nothing to its length, and would fill the memory."""
        if not self.close_sent and not self.transport.is_closing():
            self._rest.clear()
            self.conn.send_close(1008, f"expected at most {FRAGMENTS} fragments of a message")
            self.handle_parser_exception()

    def decided(self, back: bytes | None) -> None:
        """The taken message is on its way, or comes back as the frame it was; then those go on that came after it."""
        held, self._held = self._held or [], None
        if back is not None:
            super().data_received(back)
        for frame in held:
            self._frame(frame)

    def handle_ping(self) -> None:
        """Answer a ping; of those that come while the client reads nothing the last, when it reads again (RFC 6455, section 5.5.3)."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)
        else:
            self._pong = pong

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        pong, self._pong = self._pong, b""
        if pong and not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)

    def write_text(self, payload: bytes) -> None:
        """Send one text message; what the client's side cannot take waits in the transport (`writable` is cleared)."""
        n = len(payload)
        if self.disconnected or self.close_sent or self.transport.is_closing():
            return
        if n < 126:
            head = bytes((TEXT, n))
        elif n < 2**16:
            head = b"\x81\x7e" + n.to_bytes(2, "big")
        else:
            head = b"\x81\x7f" + n.to_bytes(8, "big")
        self.transport.write(head + payload)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def frame_size(data: bytes | bytearray, at: int) -> int | None:
    """Return the length in bytes of the frame that begins at `at` (RFC 6455, section 5.2); None while its header is not all there."""
    if len(data) - at < 2:
        return None
    second = data[at + 1]
    mask, size = 4 if second & 0x80 else 0, second & 0x7F
    if size < 126:
        return 2 + mask + size
    wide = 2 if size == 126 else 8
    if len(data) - at < 2 + wide:
        return None
    return 2 + wide + mask + int.from_bytes(data[at + 2 : at + 2 + wide], "big")
