"""The fast lane: however a client's bytes are cut and its messages follow one another, the answers are those of a patient client."""

import base64
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Server

TEXT, CONTINUATION, CLOSE, PING, PONG = 1, 0, 8, 9, 10


def frame(payload: bytes | str | dict[str, Any], opcode: int = TEXT, fin: bool = True, mask: bytes = b"\x12\x34\x56\x78") -> bytes:
    """A client's frame (RFC 6455, section 5.2)."""
    data = json.dumps(payload).encode() if isinstance(payload, dict) else payload.encode() if isinstance(payload, str) else payload
    n = len(data)
    size = bytes([0x80 | n]) if n < 126 else b"\xfe" + n.to_bytes(2, "big") if n < 2**16 else b"\xff" + n.to_bytes(8, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


class Raw:
    """A WebSocket client that decides where its bytes are cut."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def send(self, *frames: bytes, cuts: tuple[int, ...] = ()) -> None:
        data = b"".join(frames)
        for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
            self.sock.sendall(data[begin:end])

    def hear(self) -> tuple[int, bytes]:
        first, size = self.file.read(2)
        n = size if size < 126 else int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
        return first & 0x0F, self.file.read(n)

    def reply(self) -> dict[str, Any]:
        opcode, data = self.hear()
        assert opcode == TEXT, (opcode, data)
        return dict(json.loads(data))


@contextmanager
def raw(server: Server, model: str) -> Iterator[Raw]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET /stream/{model} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        client = Raw(sock)
        assert b" 101 " in client.file.readline()
        while client.file.readline() != b"\r\n":
            pass
        yield client


def words(server: Server, texts: list[str]) -> list[dict[str, Any]]:
    """What a client hears that waits for each answer."""
    with raw(server, "chars") as client:
        client.send(frame({"type": "open"}))
        client.reply()
        heard = []
        for i, text in enumerate(texts):
            client.send(frame({"type": "step", "step": i + 1, "text": text}))
            heard.append(client.reply())
        return heard


def test_bytes_may_be_cut_anywhere(server: Server) -> None:
    texts = ["To be", ", or not", " to be"]
    patient = words(server, texts)
    steps = [frame({"type": "step", "step": i + 1, "text": t}) for i, t in enumerate(texts)]
    draw = random.Random(0)
    size = len(b"".join(steps))
    for cuts in [(1,), (2,), (6,), (7,), *(tuple(sorted(draw.sample(range(1, size), 3))) for _ in range(12))]:
        with raw(server, "chars") as client:
            client.send(frame({"type": "open"}))
            client.reply()
            client.send(*steps, cuts=cuts)
            assert [client.reply() for _ in texts] == patient, cuts


def test_messages_sent_without_waiting_are_answered_in_order(server: Server) -> None:
    patient = words(server, ["a", "b", "c"])
    with raw(server, "chars") as client:
        client.send(
            frame({"type": "open"}),
            frame({"type": "step", "step": 1, "text": "a"}),
            frame("no JSON"),
            frame({"type": "step", "step": 2, "text": "b"}),
            frame({"type": "step", "step": 9, "text": "b"}),
            frame({"type": "watch", "neurons": False}),
            frame({"type": "generate", "step": 3, "max_chars": 1, "seed": 1}),
            frame({"type": "step", "step": 4, "text": "c", "more": 1}),
            frame({"type": "step", "step": 4, "text": "c"}),
        )
        kinds = [client.reply() for _ in range(10)]
    assert kinds[0]["type"] == "opened"
    assert [kinds[1], kinds[3]] == patient[:2]
    assert [k.get("code") or k["type"] for k in kinds[2:]] == [
        "not_json", "result", "step_gap", "watching", "char", "done", "invalid_input", "result",
    ]  # fmt: skip


def test_a_ping_between_two_pieces_of_a_message_is_answered_and_the_message_read_whole(server: Server) -> None:
    patient = words(server, ["abc"])
    step = json.dumps({"type": "step", "step": 1, "text": "abc"}).encode()
    with raw(server, "chars") as client:
        client.send(frame({"type": "open"}))
        client.reply()
        client.send(frame(step[:9], fin=False), frame(b"hello", PING), frame(step[9:], CONTINUATION))
        assert client.hear() == (PONG, b"hello")
        assert client.reply() == patient[0]


def test_a_text_frame_inside_a_fragmented_message_breaks_the_protocol(server: Server) -> None:
    with raw(server, "chars") as client:
        client.send(frame({"type": "open"}))
        client.reply()
        client.send(frame(b'{"type":', fin=False), frame({"type": "step", "step": 1, "text": "a"}))
        opcode, data = client.hear()
        assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, 1002)


def test_a_frame_without_a_mask_breaks_the_protocol(server: Server) -> None:
    with raw(server, "chars") as client:
        client.send(frame({"type": "open"}))
        client.reply()
        client.send(b"\x81\x02{}")
        opcode, data = client.hear()
        assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, 1002)


def test_text_that_is_no_utf8_breaks_the_protocol(own_server: Callable[..., Server]) -> None:
    with raw(own_server(), "chars") as client:  # uvicorn logs it with a traceback
        client.send(frame({"type": "open"}))
        client.reply()
        client.send(frame(b'{"type":"step","text":"\xff"}'))
        opcode, data = client.hear()
        assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, 1007)


def test_a_step_sent_right_before_leaving_is_applied(server: Server) -> None:
    with raw(server, "chars") as client:
        client.send(frame({"type": "open"}))
        ident = client.reply()["session_id"]
        client.send(frame({"type": "step", "step": 1, "text": "a"}), frame((1000).to_bytes(2, "big"), CLOSE))
        while client.hear()[0] != CLOSE:
            pass
    for _ in range(1000):
        if server.get(f"/sessions/{ident}").json()["step"] == 1:
            return
    raise AssertionError("the step is not there")


@pytest.mark.parametrize("mask", [bytes(4), b"\xff\x00\x80\x7f"])
def test_any_mask_is_taken_off(server: Server, mask: bytes, walk: list[Any]) -> None:
    with raw(server, "action") as client:
        client.send(frame({"type": "open"}, mask=mask))
        client.reply()
        for i, count in enumerate((1, 3, 30)):
            client.send(frame({"type": "step", "step": i + 1, "frames": walk[:count]}, mask=mask))
            assert client.reply()["predictions"][0]["frames"] == count


def test_one_bad_clip_among_many_harms_only_itself(server: Server, walk: list[Any]) -> None:
    bad = [[*walk[0][:19], [0, 0, True]], [*walk[0][:19], [0, 0, 51]], [*walk[0][:19], None], walk[0][:19], walk[0]]
    with raw(server, "action") as first, raw(server, "action") as second:
        for client in (first, second):
            client.send(frame({"type": "open"}))
            client.reply()
        for i, clip in enumerate(bad):
            first.send(frame({"type": "step", "step": i + 1, "frames": [walk[i]]}))
            second.send(frame({"type": "step", "frames": [clip]}))
            assert first.reply()["step"] == i + 1
            second.reply()
        second.send(frame({"type": "step", "step": 1, "frames": [bad[2]]}))
        assert second.reply()["expected_step"] == 3  # a joint not seen and the whole frame were steps, the others were refused


def test_a_long_text_among_numbers_is_named_and_the_neighbours_are_answered(server: Server, walk: list[Any]) -> None:
    """As one array of texts these would be 1.3 GB; read in one turn with a neighbour's message."""
    bad = [[[0, 0, "x" * 30_000]] + [[0, 0, 0]] * 19] + [[[0, 0, 0]] * 20] * 180
    with raw(server, "action") as client, raw(server, "action") as other:
        for one in (client, other):
            one.send(frame({"type": "open"}))
            one.reply()
        client.send(frame({"type": "step", "frames": bad}))
        other.send(frame({"type": "step", "frames": walk[:1]}))
        assert client.reply()["field"] == "frames[0][0][2]"
        assert other.reply()["type"] == "result"
        client.send(frame({"type": "step", "frames": walk[:1]}))
        assert client.reply()["type"] == "result"


def test_the_limit_on_a_message_holds_on_the_fast_lane_too(own_server: Callable[..., Server]) -> None:
    with raw(own_server(INDRNN_MAX_BODY="1024"), "chars") as client:
        client.send(frame({"type": "open"}))
        client.reply()
        client.send(frame({"type": "step", "text": "a" * 1_000}))
        assert client.reply()["code"] == "too_large"
        client.send(frame({"type": "step", "text": "a" * 900}))
        assert client.reply()["step"] == 1


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("GET /models", b""),
        ("POST /v2/models/chars/infer", b'{"inputs": [{"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [1]}]}'),
    ],
)
def test_a_client_that_closes_its_side_behind_a_request_is_answered(server: Server, line: str, body: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(f"{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        sock.shutdown(socket.SHUT_WR)
        assert sock.makefile("rb").read().startswith(b"HTTP/1.1 200")
