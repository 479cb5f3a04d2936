"""Headers that decide whose request it is and for whom: each once, blanks around them left out."""

import asyncio
import hashlib
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from test_keep_alive import connected

from indrnn.service.errors import BadInput
from indrnn.service.oip.grpc import InferenceService
from indrnn.service.serving.request import Access
from indrnn.service.wire.http import Busy, Front, ShortHttp

HOST = (b"host", b"x")


async def answered(version: str, *headers: tuple[bytes, bytes], kind: str = "http", path: str = "/") -> int:
    """Returns the status of a request to an application that says 204."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    scope = {"type": kind, "http_version": version, "method": "GET", "path": path, "headers": list(headers)}
    await Front(app, app)(scope, cast(Any, None), send)
    if sent[0]["status"] == 400:
        document = json.loads(sent[1]["body"])
        assert (document["status"], document["title"]) == (400, "Bad Request"), "as the line above it"
    return int(sent[0]["status"])


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_request_of_http_1_1_names_its_host_once(kind: str) -> None:
    assert await answered("1.1", HOST, kind=kind) == 204
    assert await answered("1.1", kind=kind) == 400
    assert await answered("1.1", HOST, HOST, kind=kind) == 400
    assert await answered("1.0", kind=kind) == 204


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        (b"inference-header-content-length", "/v2/models/m/infer", 400),
        (b"content-encoding", "/v2/models/m/infer", 400),
        (b"content-encoding", "/predict", 204),  # a list, whose parts may stand in lines of their own
        (b"content-type", "/v2/models/m/infer", 400),
        (b"content-type", "/sessions", 400),
        (b"origin", "/predict", 400),
        (b"accept-encoding", "/v2", 204),
    ],
)
async def test_a_header_that_is_no_list_stands_once(name: bytes, path: str, status: int) -> None:
    assert await answered("1.1", HOST, (name, b"5"), path=path) == 204
    assert await answered("1.1", HOST, (name, b"5"), (name, b"5"), path=path) == status


async def test_a_length_of_a_body_that_stands_twice_is_refused_by_the_parser() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody asks this")

    async with connected(Short, app=Front(app, app)) as (reader, writer), asyncio.timeout(10):
        writer.write(b"POST /v2/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok")
        assert (await reader.readline()).split()[1] == b"400"


class Short(ShortHttp):
    """Answers all that it is offered."""

    def target_of(self, url: bytes) -> object:
        return url

    def answer(self, busy: Busy, body: bytes) -> bool:
        self.write(busy, 200, [], b"ok")
        return True


@pytest.mark.parametrize(("host", "status"), [(b"host: x\r\n", b"200"), (b"", b"400")])
async def test_a_request_without_a_host_goes_the_long_way_which_refuses_it(host: bytes, status: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody asks this")

    async with connected(Short, app=Front(app, app)) as (reader, writer), asyncio.timeout(10):
        writer.write(b"POST /v2/x HTTP/1.1\r\ncontent-length: 0\r\n" + host + b"\r\n")
        assert (await reader.readline()).split()[1] == status


def test_blanks_around_a_key_are_no_part_of_it() -> None:
    access = Access([("somebody", hashlib.sha256(b"secret").hexdigest())])
    for sent in ("secret", "\tsecret", "secret \t"):
        assert access.owner_of({"x-api-key": sent}) == "somebody"
        assert access.owner_of({"authorization": f"Bearer {sent}"}) == "somebody"


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
def test_a_grpc_call_names_its_key_once(name: str) -> None:
    server = cast(Any, SimpleNamespace(_owner_of=lambda metadata: metadata[name]))
    calls = [cast(Any, SimpleNamespace(invocation_metadata=lambda n=n: [(name, str(i)) for i in range(n)])) for n in (1, 2)]
    assert InferenceService._owner(server, calls[0]) == "0"
    with pytest.raises(BadInput, match=f"expected {name} once, got it twice"):
        InferenceService._owner(server, calls[1])
