"""The Open Inference Protocol's HTTP, byte by byte: what no client of Triton's would send, and what must come back all the same."""

import gzip
import http.client
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from conftest import CLASSES, ROOT, VERSION, Server

from indrnn.service.serving.request import new_key

Start = Callable[..., Server]
INFER = "/v2/models/action/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def x(walk: list[Any]) -> np.ndarray:
    """[1, 2, 1, 20, 3]"""
    return np.array(walk[:2], np.float32)[None, :, None]


def body(x: np.ndarray, raw: bool = True, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request and its headers; `more` are members of its JSON."""
    described: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
    if not raw:
        return orjson.dumps({"inputs": [{**described, "data": x.tolist()}], **more}), {}
    described["parameters"] = {"binary_data_size": x.nbytes}
    head = orjson.dumps({"inputs": [described], **more})
    return head + x.tobytes(), {LENGTH: str(len(head))}


def post(server: Server, request: tuple[bytes, dict[str, str]], path: str = INFER, **headers: str) -> httpx.Response:
    content, own = request
    return httpx.post(server.url + path, content=content, headers={"Accept-Encoding": "identity", **own, **headers}, timeout=60)


def logits(reply: httpx.Response) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    length = reply.headers.get(LENGTH)
    if length is None:
        (output,) = reply.json()["outputs"]
        return np.array(output["data"], np.float32).reshape(output["shape"])
    (output,) = orjson.loads(reply.content[: int(length)])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(reply.content) - int(length)
    return np.frombuffer(reply.content[int(length) :], np.float32).reshape(output["shape"])


def says(reply: httpx.Response, status: int, text: str) -> None:
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert text in reply.json()["error"]
    assert reply.headers["content-type"] == "application/json"


def test_json_and_raw_bytes_in_every_mixture_give_the_same_numbers(server: Server, x: np.ndarray) -> None:
    as_json = post(server, body(x, raw=False))
    assert as_json.headers["content-type"] == "application/json"
    expected = logits(as_json)
    assert expected.shape == (1, 2, CLASSES)
    for raw in (True, False):
        for named in ({"outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}, {"parameters": {"binary_data_output": True}}):
            reply = post(server, body(x, raw=raw, **named))
            assert reply.headers["content-type"] == "application/octet-stream"
            assert logits(reply) == pytest.approx(expected, abs=1e-6)
    plain = post(server, (x.tobytes(), {LENGTH: "0"}))
    assert LENGTH in plain.headers
    assert logits(plain) == pytest.approx(expected, abs=1e-6)
    named_off = post(
        server, body(x, parameters={"binary_data_output": True}, outputs=[{"name": "logits", "parameters": {"binary_data": False}}])
    )
    assert LENGTH not in named_off.headers


def test_bodies_are_compressed_both_ways_as_asked(server: Server, x: np.ndarray) -> None:
    content, headers = body(x, parameters={"binary_data_output": True})
    plain = post(server, (content, headers))
    for name, pack, unpack in (("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)):
        with httpx.stream(
            "POST", server.url + INFER, content=pack(content), headers={**headers, "Content-Encoding": name, "Accept-Encoding": name}
        ) as reply:
            packed = b"".join(reply.iter_raw())
        assert reply.headers["content-encoding"] == name
        assert reply.headers[LENGTH] == plain.headers[LENGTH]
        assert np.frombuffer(unpack(packed)[int(reply.headers[LENGTH]) :], np.float32) == pytest.approx(logits(plain).reshape(-1), abs=1e-6)
    unknown = post(server, (content, headers), **{"Content-Encoding": "br"})
    says(unknown, 501, "unsupported Content-Encoding 'br'")
    assert unknown.headers["accept-encoding"] == "gzip, deflate"
    says(post(server, (content, headers), **{"Content-Encoding": "gzip"}), 400, "cannot be decompressed")


def test_a_repeated_step_is_answered_byte_for_byte(server: Server, x: np.ndarray) -> None:
    def step(n: int, data: np.ndarray, **flags: bool) -> httpx.Response:
        parameters = {"sequence_id": "bytes", "indrnn_step": n, "binary_data_output": True, **flags}
        return post(server, body(data, id="7", parameters=parameters))

    for number, flags in ((1, {"sequence_start": True}), (2, {}), (3, {"sequence_end": True})):
        first, second = step(number, x, **flags), step(number, x, **flags)
        assert first.status_code == 200
        assert (first.content, first.headers[LENGTH]) == (second.content, second.headers[LENGTH])
    says(step(2, x), 400, "must specify the START flag on the first request of the sequence")
    says(step(3, x), 409, "step 3 was sent before with other content")  # the same numbers, but without the end


@pytest.mark.parametrize(
    ("parameters", "status", "text"),
    [
        ({"sequence_start": True}, 400, "inference request to model 'action' must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": 0, "sequence_end": True}, 400, "must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": "", "indrnn_step": 1}, 400, "must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": -1}, 400, "parameter 'sequence_id': expected a text or a whole number"),
        ({"sequence_id": 1e20}, 400, "parameter 'sequence_id'"),
        ({"indrnn_stepp": 1}, 400, "unknown parameter 'indrnn_stepp'"),
        ({"triton_x": 1}, 400, "parameter keys starting with 'triton_' are reserved"),
    ],
)
def test_parameters_that_cannot_be_are_named(server: Server, x: np.ndarray, parameters: dict[str, Any], status: int, text: str) -> None:
    says(post(server, body(x, parameters=parameters)), status, text)


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "1e3", "9" * 400])
def test_a_header_length_that_cannot_be_is_refused(server: Server, x: np.ndarray, length: str) -> None:
    says(post(server, (body(x)[0], {LENGTH: length})), 400, "Unable to parse Inference-Header-Content-Length")


def test_bytes_too_many_or_too_few_are_refused(server: Server, x: np.ndarray) -> None:
    content, headers = body(x)
    says(post(server, (content + b"1", headers)), 400, "unexpected additional input data: 1 bytes")
    says(post(server, (content[:-1], headers)), 400, "unexpected end of the body: input 'x' expects 480 bytes, 479 are left")
    says(post(server, (content[10:], {})), 400, "failed to parse the request JSON buffer")
    says(post(server, (b"", {})), 400, "failed to parse the request JSON buffer")
    says(post(server, (b"x" * 17 * 2**20, {})), 400, "expected a body of at most 16777216 bytes")
    says(post(server, (gzip.compress(b" " * 17 * 2**20), {"Content-Encoding": "gzip"})), 400, "after decompression")


@pytest.mark.parametrize(
    "shape", [[-1, 2, 1, 20, 3], [2**62, 2**62, 1, 20, 3], [1.5, 2, 1, 20, 3], "x", None, [1] * 99, [True, 2, 1, 20, 3]]
)
def test_shapes_that_cannot_be_are_refused(server: Server, x: np.ndarray, shape: object) -> None:
    described = {"name": "x", "datatype": "FP32", "shape": shape, "data": x.tolist()}
    reply = post(server, (orjson.dumps({"inputs": [described]}), {}))
    assert (reply.status_code, list(reply.json())) == (400, ["error"])


def test_a_text_tensor_and_extensions_that_are_not_offered_are_refused(server: Server, x: np.ndarray) -> None:
    texts = {"name": "x", "datatype": "BYTES", "shape": [1], "data": ["abc"]}
    says(post(server, (orjson.dumps({"inputs": [texts]}), {})), 400, "data-type is 'BYTES'")
    wanted = [{"name": "logits", "parameters": {"classification": 3}}]
    says(post(server, body(x, outputs=wanted)), 400, "parameter 'classification' is not supported")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("POST", "/v2/models/action", 405),
        ("PUT", "/v2/models/action/config", 405),
        ("POST", "/v2", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/repository/index", 405),
        ("DELETE", "/v2/models/stats", 405),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/action/versions/x/config", 404),
        ("GET", "/v2/models/action/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/nothing/ready", 404),
        ("GET", "/v2/models/action/versions/99", 404),
        ("GET", "/v2/models/..%2f..%2fetc%2fpasswd/config", 404),
        ("POST", "/v2/repository/elsewhere/index", 400),
        ("POST", "/v2/repository/models/action/load", 501),
        ("POST", "/v2/repository/x/models/action/unload", 501),
    ],
)
def test_wrong_methods_paths_and_names_are_errors_of_this_protocol(server: Server, method: str, path: str, status: int) -> None:
    reply = httpx.request(method, server.url + path, timeout=60)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])


def test_health_and_the_index_can_be_asked_plainly(server: Server) -> None:
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get("/v2/models/action/ready").status_code == 200
    assert server.get(f"/v2/models/action/versions/{VERSION}/ready").status_code == 200
    every = httpx.post(server.url + "/v2/repository/index", content=b"").json()
    ready = [one for one in every if one["state"] == "READY"]  # all but versions that no session needs
    assert ready == server.post("/v2/repository/index", {"ready": True}).json()
    assert {one["name"] for one in ready} == {"action", "chars"}
    assert server.post("/v2/repository/index", {"ready": 1}).status_code == 400
    assert {m["name"] for m in server.get("/v2/models/stats").json()["model_stats"]} == {"action", "chars"}
    assert httpx.head(server.url + "/v2/models/action").content == b""


# --- the short way and the long way through the server ----------------------------------------------------------------------------------


def wire(request: tuple[bytes, dict[str, str]], *headers: str, path: str = INFER, version: str = "1.1") -> bytes:
    content, own = request
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(content)}", *(f"{k}: {v}" for k, v in own.items()), *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Wire:
    """A connection that sends and hears bytes."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.file = self.socket.makefile("rb")

    def reply(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers, self.file.read(int(headers["content-length"]))

    def ask(self, *pieces: bytes, pause: float = 0.0) -> tuple[int, dict[str, str], bytes]:
        for piece in pieces:
            self.socket.sendall(piece)
            threading.Event().wait(pause)
        return self.reply()


@pytest.fixture
def wires(server: Server) -> Iterator[Callable[[], Wire]]:
    made: list[Wire] = []

    def connect() -> Wire:
        made.append(Wire(server))
        return made[-1]

    yield connect
    for one in made:
        one.file.close()
        one.socket.close()


LONG = "Accept-Encoding: identity"  # whatever says how a reply is to be compressed goes the long way


def test_both_ways_answer_with_the_same_bytes(wires: Callable[[], Wire], x: np.ndarray) -> None:
    both = [{"name": "state_out"}, {"name": "logits", "parameters": {"binary_data": True}}]
    sequence = {"sequence_id": "ways", "sequence_start": True, "indrnn_step": 1}
    requests = [
        body(x, id="a", parameters={"binary_data_output": True}),
        body(x[:, :1], id="b", parameters=sequence),
        body(x[:, :1], id="b", parameters=sequence, outputs=both),
        body(x[:, :1], id="b", parameters=sequence),  # of a form that the connection knew before
        body(x[:, :1], id="b", parameters={**sequence, "indrnn_step": 7}),
        body(x[:, :1], outputs=[{"name": "nothing"}]),
        body(x[:, :1], parameters={"sequence_id": "nothing"}),
        body(x * np.nan),
        body(x[0]),
        (b"{", {}),
        (b"", {}),
        body(np.repeat(x, 3, 0)),
        body(x, raw=False),
    ]
    short, long = wires(), wires()
    for request in requests:
        a, b = short.ask(wire(request)), long.ask(wire(request, LONG))
        assert a[0] == b[0]
        assert {**a[1], "date": ""} == {**b[1], "date": ""}
        assert a[2] == b[2]
    missing = wire(requests[0], path="/v2/models/nothing/infer"), wire(requests[0], LONG, path="/v2/models/nothing/infer")
    assert short.ask(missing[0])[2] == long.ask(missing[1])[2]


def test_a_request_in_pieces_and_requests_back_to_back_are_answered_each(wires: Callable[[], Wire], x: np.ndarray) -> None:
    one = wires()
    whole = wire(body(x, id="whole"))
    expected = one.ask(whole)
    for cut in (10, whole.index(b"{") - 2, whole.index(b"{") + 5, len(whole) - 1):
        assert one.ask(whole[:cut], whole[cut:], pause=0.05)[2] == expected[2]
    one.socket.sendall(b"".join(wire(body(x, id=f"p{n}"), *([LONG] if n % 3 == 1 else [])) for n in range(8)))
    heard = [one.reply() for _ in range(8)]
    assert [orjson.loads(r[2])["id"] for r in heard] == [f"p{n}" for n in range(8)]
    assert len({r[2].replace(b"p%d" % n, b"") for n, r in enumerate(heard)}) == 1


def test_a_connection_closes_after_the_reply_where_the_client_wants_that(wires: Callable[[], Wire], x: np.ndarray) -> None:
    for headers, version in ((["Connection: close"], "1.1"), ([], "1.0")):
        one = wires()
        assert one.ask(wire(body(x), *headers, version=version))[0] == 200
        assert one.file.read() == b""


def test_a_client_that_leaves_before_its_reply_harms_nobody(server: Server, wires: Callable[[], Wire], x: np.ndarray) -> None:
    for _ in range(50):
        one = wires()
        one.socket.sendall(wire(body(np.repeat(x, 50, 1))))
        one.socket.close()
    assert wires().ask(wire(body(x)))[0] == 200


def test_on_both_ways_a_key_opens_its_own_sequences_and_no_others(own_server: Start, tmp_path: Path, x: np.ndarray) -> None:
    keys = [new_key(name) for name in ("ann", "bob")]
    (tmp_path / "keys").write_text("\n".join(line for _, line in keys))
    server = own_server(INDRNN_KEYS=str(tmp_path / "keys"))
    ann, bob, nobody = (f"Authorization: Bearer {secret}" for secret in (keys[0][0], keys[1][0], "guessed"))
    for way in ([], [LONG]):
        one = Wire(server)  # one connection, and whoever it speaks for changes from request to request
        begin = wire(body(x, parameters={"sequence_id": 1, "sequence_start": True}), *way, ann)
        go_on = body(x, parameters={"sequence_id": 1})
        assert one.ask(begin)[0] == 200
        assert [one.ask(wire(go_on, *way, key))[0] for key in (ann, bob, nobody, ann, "X-None: x")] == [200, 400, 401, 200, 401]
        one.file.close()
        one.socket.close()


def test_more_than_the_queue_holds_is_refused_in_tritons_words_and_at_once(own_server: Start, x: np.ndarray) -> None:
    server = own_server(INDRNN_MAX_QUEUE="1")
    refused: list[httpx.Response] = []
    end = time.monotonic() + 60

    def hurry() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            content, headers = body(np.repeat(x, 50, 1))
            while not refused and time.monotonic() < end:
                reply = http.post(INFER, content=content, headers=headers)
                if reply.status_code != 200:
                    refused.append(reply)

    threads = [threading.Thread(target=hurry) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    says(refused[0], 503, "Exceeds maximum queue size")
    assert refused[0].headers["retry-after"] == "1"
    assert logits(post(server, body(x))).shape == (1, 2, CLASSES)


def test_the_example_in_the_documentation_runs(server: Server) -> None:
    text = (ROOT / "docs" / "inference-protocol.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("camera 3", "the documentation's camera")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[1:] == [f"(1, 10, {CLASSES}) {{'indrnn_step': 2, 'indrnn_position': 20}}"] * 2, ran.stderr


def test_the_session_that_a_router_named_is_told_back_on_both_ways(wires: Callable[[], Wire], x: np.ndarray) -> None:
    for way in ([], [LONG]):
        status, headers, _ = wires().ask(wire(body(x), "x-session-id: camera-3", *way))
        assert (status, headers.get("x-session-id")) == (200, "camera-3")


def in_one_piece(request: tuple[bytes, dict[str, str]], path: str) -> bytes:
    """A request as the short way takes it."""
    content, headers = request
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def test_one_connection_may_ask_two_models_of_the_same_form(own_server: Start, tmp_path: Path, x: np.ndarray) -> None:
    for number in ("1", "2"):
        folder = shutil.copytree(ROOT / "bundles" / "action" / "1", tmp_path / "bundles" / "action" / number)
        manifest = orjson.loads((folder / "manifest.json").read_bytes())
        (folder / "manifest.json").write_bytes(orjson.dumps({**manifest, "version": number}))
    server = own_server(INDRNN_BUNDLES=str(tmp_path / "bundles"), INDRNN_VERSIONS="2")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        for number in ("1", "1", "2", "1", "2"):
            sock.sendall(in_one_piece(body(x), f"/v2/models/action/versions/{number}/infer"))
            reply = http.client.HTTPResponse(sock)
            reply.begin()
            answer = orjson.loads(reply.read())
            assert (reply.status, answer.get("model_version")) == (200, number), answer


def test_replies_that_nobody_reads_do_not_pile_up(own_server: Start) -> None:
    """Requests of a client that reads none of the answers, 400 KB each: at some point the server takes no more of them."""
    server = own_server()
    text = np.zeros((1, 1_000), np.int64)
    described = {"name": "x", "datatype": "INT64", "shape": [1, 1_000], "parameters": {"binary_data_size": text.nbytes}}
    head = orjson.dumps({"inputs": [described], "parameters": {"binary_data_output": True}})
    request = in_one_piece((head + text.tobytes(), {LENGTH: str(len(head))}), "/v2/models/chars/infer")

    def answered() -> int:
        return int(server.get("/v2/models/chars/stats").json()["model_stats"][0]["inference_stats"]["success"]["count"])

    def comes(count: int) -> bool:
        deadline = time.monotonic() + 2
        while answered() < count and time.monotonic() < deadline:
            pass
        return answered() >= count

    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as sock:
        for sent in range(1, 101):
            sock.sendall(request)
            if not comes(sent):
                return
    raise AssertionError("a hundred answers wait in the server's memory")
