"""Clients that take more than they give: none of them costs the others their service, or the process its memory."""

import contextlib
import queue
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
import pytest
from conftest import Server
from test_inference import free_port
from test_wire import CLOSE, CONTINUATION, PING, PONG, TEXT, Raw, frame, raw
from tritonclient.grpc import service_pb2

Start = Callable[..., Server]
MIB = 2**20


def memory(server: Server) -> int:
    """Bytes the process holds."""
    assert server.process is not None
    line = next(s for s in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if s.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def everything(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def upload(sock: socket.socket, piece: bytes, times: int) -> None:
    with contextlib.suppress(OSError):
        for _ in range(times):
            sock.sendall(piece)


def deaf(server: Server) -> socket.socket:
    """A connection whose client's side holds next to nothing that it has not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", server.port))
    return sock


def test_a_long_message_that_comes_byte_by_byte_holds_up_nobody(server: Server) -> None:
    size = 40 * MIB
    with raw(server, "chars") as client:
        client.send(frame({"type": "open"}))
        client.reply()
        client.send(frame(b"", mask=b"\0\0\0\0")[:1] + b"\xff" + size.to_bytes(8, "big") + b"\0\0\0\0" + b" " * (size - 300))
        server.get("/health/live")  # whatever had been sent is read by now
        before = time.process_time(), cpu(server)
        for _ in range(200):
            client.send(b" ")
            httpx.get(f"{server.url}/health/live")
        assert cpu(server) - before[1] < 1.5 + time.process_time() - before[0]  # 200 copies of 40 MiB would be some 3 s more


def cpu(server: Server) -> float:
    """Seconds of processor time the process has had."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("piece", [b"a" * MIB, b"a: b\r\n" * 150_000], ids=["one header", "many headers"])
def test_headers_without_end_are_refused(server: Server, piece: bytes) -> None:
    before = memory(server)
    with connected(server) as sock:
        sending = threading.Thread(target=upload, args=(sock, b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: " + piece, 40))
        sending.start()
        said = everything(sock)
        sending.join()
    assert said == b"" or said.startswith(b"HTTP/1.1 431 ")  # a reset may overtake the answer to who is still sending
    assert memory(server) - before < 30 * MIB


def test_headers_a_little_over_the_limit_are_answered_431_and_any_below_are_taken(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n")
        server.get("/health/live")  # the first piece is read alone
        sock.sendall(b"X: " + b"a" * 70_000)
        assert everything(sock).startswith(b"HTTP/1.1 431 ")
    assert httpx.get(f"{server.url}/health/live", headers={"X": "a" * 60_000}).status_code == 200


def test_what_follows_a_chunked_body_is_no_header(server: Server) -> None:
    body = orjson.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1]}]})
    head = b"POST /v2/models/chars/infer HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(server) as sock:
        sock.sendall(head + b"%x\r\n%s\r\n0\r\nInference-Header-Content-Length: 0\r\n\r\n" % (len(body), body))
        assert everything(sock).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("line", [b"POST /v2/models/chars/infer", b"POST /stream/chars", b"GET /stream/chars"])
def test_a_handshake_with_a_body_keeps_no_connection(own_server: Start, line: bytes) -> None:
    server = own_server(INDRNN_HEADER_TIMEOUT="0.5")
    for body, said in (b"hello", b"HTTP/1.1 400 "), (b"hell", b""):
        with connected(server) as sock:
            sock.settimeout(10)
            sock.sendall(line + b" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n" + body)
            assert everything(sock).startswith(said)  # a connection that stays open is an error here


def test_replies_that_are_not_read_wait_at_the_client_and_not_in_memory(own_server: Start) -> None:
    server = own_server()
    tensor = {"name": "x", "shape": [1, 1000], "datatype": "INT64", "parameters": {"binary_data_size": 8000}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    lines = b"POST /v2/models/chars/infer HTTP/1.1\r\nHost: a\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
    request = lines % (len(head), len(head) + 8000) + head + bytes(8000)
    with deaf(server) as sock:
        before = memory(server)
        for _ in range(100):  # each reply has 336 KB, of which the system's buffers take some 4 MB
            sock.sendall(request)
            time.sleep(0.1)  # two that are read as one would go the long way
        assert memory(server) - before < 12 * MIB  # 100 replies would be 33 MB


def test_pings_of_who_does_not_read_are_answered_once(own_server: Start) -> None:
    server = own_server()
    with raw(server, "chars") as client:
        before = memory(server)
        pings = b"".join(frame(b"a" * 125, PING, mask=b"\0\0\0\0") for _ in range(1000))
        for _ in range(300):  # 37 MB; socket buffers hold some 6 of the answers
            client.send(pings)
        client.send(frame(b"last", PING), frame(orjson.dumps({"type": "open"}), TEXT))
        assert memory(server) - before < 15 * MIB
        heard = []
        while (message := client.hear())[0] == PONG:
            heard.append(message[1])
        assert orjson.loads(message[1])["type"] == "opened"
        assert len(heard) < 300_000
        assert b"last" in (heard[-1], client.hear()[1])


FLOODS = {
    "pings": lambda: frame(b"", PING) * 5_000,
    "empty fragments": lambda: frame(b"", CONTINUATION, fin=False) * 5_000,
    "requests": lambda: b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n" * 5_000,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_small_things_holds_up_nobody(server: Server, kind: str) -> None:
    flood, ended = FLOODS[kind](), threading.Event()

    def send(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                sock.sendall(flood)

    def read(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sock.recv(MIB):
                pass

    with connected(server) if kind == "requests" else raw(server, "chars") as client:
        sock = client if isinstance(client, socket.socket) else client.sock
        if kind == "empty fragments":
            sock.sendall(frame(b"", fin=False))
        threads = [threading.Thread(target=act, args=(sock,)) for act in (send, read)]
        for thread in threads:
            thread.start()
        took = []
        for _ in range(20):
            begun = time.monotonic()
            server.get("/health/live")
            took.append(time.monotonic() - begun)
            time.sleep(0.05)
        ended.set()
        with contextlib.suppress(OSError):  # it is closed where a message had too many pieces
            sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
    assert sorted(took)[10] < 0.1, took  # requests took 0.4 s at the median, frames half a minute
    assert max(took) < 2, took


def test_a_message_in_too_many_pieces_is_refused(server: Server) -> None:
    with raw(server, "chars") as client:
        client.send(frame(b"", fin=False), frame(b"", CONTINUATION, fin=False) * 65_536)
        client.send(frame(orjson.dumps({"type": "open"}), CONTINUATION))
        opcode, said = client.hear()
        assert (opcode, int.from_bytes(said[:2], "big")) == (CLOSE, 1008)
    with raw(server, "chars") as client:
        client.send(frame(b"", fin=False), frame(b"", CONTINUATION, fin=False) * 60_000)
        client.send(frame(orjson.dumps({"type": "open"}), CONTINUATION))
        assert client.reply()["type"] == "opened"


def test_requests_in_line_are_all_answered_in_order(server: Server) -> None:
    paths = [b"/health/live", b"/nowhere", b"/v2/health/live"] * 1_000
    with connected(server) as sock:
        sock.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in paths))
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        said = everything(sock)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", said) == [b"200", b"404", b"200"] * 1_000 + [b"200"]


HANDSHAKE = (
    b"GET /stream/chars HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n\r\n"
)


@pytest.mark.parametrize(("path", "times"), [("/v1/completions", 1), ("/v2/models/chars/infer", 3), ("/v2/models/chars/infer", 100)])
def test_a_handshake_behind_an_unanswered_request_is_not_taken(server: Server, path: str, times: int) -> None:
    """Its answer would come into the WebSocket."""
    numbers = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}
    body = orjson.dumps(numbers if "v2" in path else {"model": "chars", "prompt": "a", "max_tokens": 100})
    request = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
    with connected(server) as sock:
        sock.sendall(request * times + HANDSHAKE + frame({"type": "open"}))
        said = everything(sock)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", said) == [b"200"] * times


def test_a_handshake_before_a_long_piece_of_requests_is_taken_and_read_on(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(HANDSHAKE + b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        client = Raw(sock)
        while client.file.readline() != b"\r\n":
            pass
        client.send(frame({"type": "open"}))
        assert client.reply()["type"] == "opened"


def test_who_leaves_with_requests_in_line_ends_the_one_that_runs(own_server: Start) -> None:
    server = own_server()
    body = orjson.dumps({"model": "chars", "prompt": "a", "max_tokens": 4000})
    health = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    with connected(server) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body + health)
        generated(server)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    alone = {"model": "chars", "prompt": "b", "max_tokens": 4000}
    assert httpx.post(f"{server.url}/v1/completions", json=alone, timeout=60).status_code == 200  # by now the first would have ended
    assert "Traceback" not in server.log()


def generated(server: Server) -> None:
    """Waits until a request is at work."""
    deadline = time.monotonic() + 10
    while httpx.get(f"{server.url}/v2/models/chars/stats").json()["model_stats"][0]["execution_count"] < 3:
        assert time.monotonic() < deadline


LARGE = "100000000"  # bytes: replies of long texts are as long
TURN = 2_048  # steps of one run at most


def runs(server: Server) -> int:
    return int(httpx.get(f"{server.url}/v2/models/chars/stats").json()["model_stats"][0]["execution_count"])


def waiting(server: Server) -> bool:
    """Whether anything is at work. The metric has a line for each model."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return any(float(line.split()[-1]) for line in lines if line.startswith("indrnn_waiting{"))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline


def long_request(rows: int, length: int) -> bytes:
    """Rows of text, whose state at the end is asked for."""
    tensor = {"name": "x", "shape": [rows, length], "datatype": "INT64", "parameters": {"binary_data_size": 8 * rows * length}}
    head = orjson.dumps({"inputs": [tensor], "outputs": [{"name": "state_out"}]})
    lines = b"POST /v2/models/chars/infer HTTP/1.1\r\nHost: a\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
    return lines % (len(head), len(head) + 8 * rows * length) + head + bytes(8 * rows * length)


@pytest.mark.parametrize(("connections", "rows", "length"), [(1, 4, 50_000), (30, 1, 8_000)], ids=["long way", "short way"])
def test_rows_whose_client_has_left_are_not_run_to_their_end(own_server: Start, connections: int, rows: int, length: int) -> None:
    server = own_server(INDRNN_MAX_BODY=LARGE)
    before, request = runs(server), long_request(rows, length)
    socks = [connected(server) for _ in range(connections)]
    for sock in socks:
        sock.sendall(request)
    until(lambda: waiting(server))
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        sock.close()
    until(lambda: not waiting(server))
    assert runs(server) - before < connections * rows * length / TURN / 2
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_rows_of_a_grpc_call_that_was_cancelled_are_not_run_to_their_end(own_server: Start, method: str) -> None:
    server = own_server(INDRNN_GRPC_PORT=free_port(), INDRNN_MAX_BODY=LARGE)
    before = runs(server)
    request = service_pb2.ModelInferRequest(model_name="chars", raw_input_contents=[np.zeros((4, 50_000), np.int64).tobytes()])
    request.inputs.add(name="x", datatype="INT64", shape=[4, 50_000])
    request.outputs.add(name="state_out")
    with grpc.insecure_channel(f"127.0.0.1:{server.env['INDRNN_GRPC_PORT']}") as channel:
        kind = channel.unary_unary if method == "ModelInfer" else channel.stream_stream
        ask = kind(f"/inference.GRPCInferenceService/{method}", service_pb2.ModelInferRequest.SerializeToString, lambda data: data)
        call = ask.future(request) if method == "ModelInfer" else ask(iter([request, request]))
        until(lambda: waiting(server))
        call.cancel()
        until(lambda: not waiting(server))
    assert runs(server) - before < 4 * 50_000 / TURN / 2
    assert "Traceback" not in server.log()


def test_grpc_streams_have_no_more_places_than_there_are_and_give_them_back(own_server: Start) -> None:
    server = own_server(INDRNN_GRPC_PORT=free_port(), INDRNN_MAX_CONNECTIONS="2")
    request = service_pb2.ModelInferRequest(model_name="chars", raw_input_contents=[bytes(8)])
    request.inputs.add(name="x", datatype="INT64", shape=[1, 1])

    def stream(channel: grpc.Channel) -> tuple[Any, queue.Queue[Any]]:
        asked: queue.Queue[Any] = queue.Queue()
        kind = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", type(request).SerializeToString, lambda data: data)
        asked.put(request)
        return kind(iter(asked.get, None)), asked

    with grpc.insecure_channel(f"127.0.0.1:{server.env['INDRNN_GRPC_PORT']}") as channel, server.socket("chars") as ws:
        ws.send('{"type": "open"}')
        ws.recv()
        first, asked = stream(channel)
        assert next(first)
        second, _ = stream(channel)
        with pytest.raises(grpc.RpcError) as refused:
            next(second)
        assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "2 connections are open already")
        with server.socket("chars") as third:
            assert orjson.loads(third.recv())["code"] == "overloaded"
        asked.put(None)
        assert list(first) == []
        third_stream, asked = stream(channel)
        assert next(third_stream)
        third_stream.cancel()
        until(lambda: b'indrnn_connections{protocol="oip_grpc"} 0.0' in httpx.get(f"{server.url}/metrics").content)


OPEN = frame({"type": "open"})
TOO_BIG = 1009
NO_TEXT = 1007


def endless(cut: bool) -> bytes:
    """A message of 60 MiB whose end does not come: one frame of it, or its pieces."""
    if cut:
        return frame(b" " * 8_192, TEXT, fin=False, mask=bytes(4)) + 7_680 * frame(b" " * 8_192, CONTINUATION, fin=False, mask=bytes(4))
    return b"\x81\xff" + (61 * MIB).to_bytes(8, "big") + bytes(4) + b" " * (60 * MIB)


@pytest.mark.parametrize("cut", [False, True], ids=["one frame", "pieces"])
@pytest.mark.parametrize("before", [[], ["no JSON"], [{"type": "open", "session_id": "no"}]], ids=["first", "after", "refused"])
def test_a_stream_that_is_not_open_takes_no_long_message(server: Server, before: list[Any], cut: bool) -> None:
    held = memory(server)
    with raw(server, "chars") as client:
        sending = threading.Thread(target=upload, args=(client.sock, b"".join(map(frame, before)) + endless(cut), 1))
        sending.start()
        everything(client.sock)  # it ends long before the message does
        sending.join(timeout=0)
        most = memory(server) - held
        sending.join()
    assert most < 8 * MIB


def test_a_message_that_is_too_long_for_an_open_is_told_so(server: Server) -> None:
    for pieces in ([frame(b" " * 20_000)], [frame(b" " * 10_000, fin=False), frame(b" " * 10_000, CONTINUATION)]):
        with raw(server, "chars") as client:
            client.send(frame("no JSON"), *pieces)
            assert client.reply()["code"] == "not_json"
            opcode, said = client.hear()
            assert (opcode, int.from_bytes(said[:2], "big")) == (CLOSE, TOO_BIG)


def test_a_text_that_is_none_closes_its_stream_and_leaves_no_traceback_in_the_log(own_server: Start) -> None:
    server = own_server()
    for pieces in ([frame(b"\xff\xfe")], [frame(b"\xc3", fin=False), frame(b"\x28", CONTINUATION)]):
        with raw(server, "chars") as client:
            client.send(*pieces)
            opcode, said = client.hear()
            assert (opcode, int.from_bytes(said[:2], "big")) == (CLOSE, NO_TEXT)
    with raw(server, "chars") as client:
        client.send(frame(b'{"type":', fin=False), frame(b'"open"}', CONTINUATION))
        assert client.reply()["type"] == "opened"
    assert "Traceback" not in server.log()


def test_a_long_message_may_be_sent_behind_open_without_waiting(server: Server) -> None:
    step = frame(orjson.dumps({"type": "step", "step": 1, "text": "a" * 90_000}).ljust(MIB), TEXT, mask=bytes(4))
    for cuts in ((), (len(OPEN),), (5, len(OPEN) + 100_000)):
        with raw(server, "chars") as client:
            client.send(OPEN, step, frame({"type": "step", "step": 2, "text": "b"}), cuts=cuts)
            assert [client.reply()["type"] for _ in range(3)] == ["opened", "result", "result"]


UPGRADES = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "TLS": "Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
    "two": "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
}


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v2/models/chars/infer"])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_offer_of_another_protocol_is_ignored_and_costs_no_body(server: Server, upgrade: str, path: str, chunked: bool) -> None:
    wish: dict[str, object] = {"model": "chars", "prompt": "a", "max_tokens": 1}
    if path.startswith("/v2"):
        wish = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}
    body = orjson.dumps(wish)
    length, sent = f"Content-Length: {len(body)}", body
    if chunked:
        length, sent = "Transfer-Encoding: chunked", b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    request = f"POST {path}?a=b HTTP/1.1\r\nHost: a\r\n{UPGRADES[upgrade]}{length}\r\n\r\n".encode() + sent
    after = b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    for cut in (0, 7, len(request) - len(sent) - 3, len(request) - len(sent), len(request) - 4):
        with connected(server) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(request[:cut])
            server.get("/health/live")  # the first piece is read alone
            sock.sendall(request[cut:] + after)
            said = everything(sock)
        assert said.count(b"HTTP/1.1 200 ") == 2, said
        assert said.endswith(b'{"status":"live"}')


def test_requests_without_a_body_that_offer_another_protocol_keep_their_connection(server: Server) -> None:
    ask = "GET /health/live HTTP/1.1\r\nHost: a\r\n"
    with connected(server) as sock:
        sock.sendall(3_000 * f"{ask}{UPGRADES['TLS']}\r\n".encode() + f"{ask}Connection: close\r\n\r\n".encode())
        assert everything(sock).count(b"HTTP/1.1 200 ") == 3_001


def test_a_tunnel_is_refused(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(b"CONNECT example.org:80 HTTP/1.1\r\nHost: example.org:80\r\nConnection: close\r\n\r\n")
        assert everything(sock).startswith(b"HTTP/1.1 4")


def sockets(server: Server) -> int:
    """The server's ends of connections that are established."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(fields[1].endswith(f":{server.port:04X}") and fields[3] == "01" for fields in lines)


@pytest.mark.parametrize("way", ["short", "long", "closing"])
def test_who_reads_no_answer_is_not_kept(own_server: Start, way: str) -> None:
    """Answers of 5 MB, more than the system's buffers take."""
    server = own_server(INDRNN_SEND_TIMEOUT="1")
    more = {"short": "", "long": "Accept-Encoding: identity\r\n", "closing": "Connection: close\r\n"}[way]
    tensor = {"name": "x", "shape": [1, 8000], "datatype": "INT64", "parameters": {"binary_data_size": 64_000}}
    head = orjson.dumps({"inputs": [tensor]})
    lines = f"POST /v2/models/chars/infer HTTP/1.1\r\nHost: a\r\n{more}Inference-Header-Content-Length: {len(head)}\r\n"
    with deaf(server) as sock:
        sock.sendall(f"{lines}Content-Length: {len(head) + 64_000}\r\n\r\n".encode() + head + bytes(64_000))
        until(lambda: sockets(server) == 1)
        until(lambda: sockets(server) == 0)
    assert "Traceback" not in server.log()


def test_who_reads_slowly_gets_all_of_his_answer(own_server: Start) -> None:
    server = own_server(INDRNN_SEND_TIMEOUT="1")
    begin = time.monotonic()
    with deaf(server) as sock:
        sock.sendall(long_request(1, 8_000).replace(b'"outputs"', b'"ignored"').replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        said = bytearray()
        while part := sock.recv(65536):
            said += part
            time.sleep(0 if len(said) > 3 * MIB else 0.005)  # the client is slow on purpose
    head, _, body = bytes(said).partition(b"\r\n\r\n")
    assert len(body) == int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert time.monotonic() - begin > 2  # twice the time that a client may read nothing
