"""Sequences that go on at one service after another one has begun them anew on another version, on one Redis.

What a service remembers of where a sequence runs is then wrong, and no client may be told so: it gets its answer, once, and in order.
"""

import json
import queue
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from conftest import ROOT, Server
from redis_process import running_redis
from test_inference import Client, Failed, free_port
from test_inference_http import LENGTH, LONG, Wire, wire
from test_watching import without_bounds

Pair = tuple[Server, Server]
WAYS = ("short", "long", "grpc")
OTHERS = ("2", "3", "1")  # than 4, the newest: another graph, its graph under another number, and a model that reads something else


def version(bundles: Path, number: str, source: str = "action") -> Path:
    """A version of `moving` with the graph of a real bundle."""
    folder = shutil.copytree(ROOT / "bundles" / source / "1", bundles / "moving" / number)
    manifest = json.loads((folder / "manifest.json").read_text())
    if number == "2":
        manifest["sha256"] = without_bounds(folder / "model.onnx")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "name": "moving", "version": number}))
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two services with the same four versions."""
    bundles = tmp_path_factory.mktemp("bundles")
    for number, source in (("4", "action"), ("2", "action"), ("3", "action"), ("1", "chars")):
        version(bundles, number, source)
    with running_redis(tmp_path_factory.mktemp("redis")) as made:
        env = {"INDRNN_STORE": made.url, "INDRNN_BUNDLES": str(bundles), "INDRNN_VERSIONS": "4", "INDRNN_POLL": "0"}
        servers = [Server(tmp_path_factory.mktemp(name), {**env, "INDRNN_GRPC_PORT": free_port()}).start() for name in ("one", "other")]
        yield servers[0], servers[1]
        for server in servers:
            assert server.stop() in (0, -signal.SIGTERM), server.log()
            assert "Traceback" not in server.log()


class Told(NamedTuple):
    """What came of a step; of a refused one only its status and text."""

    status: int
    version: str = ""
    step: int = 0
    position: int = 0
    numbers: tuple[float, ...] = ()
    error: str = ""


def x_of(number: str, n: int) -> np.ndarray:
    """What the n-th step of a sequence on that version feeds: one frame, or one character."""
    if number == "1":
        return np.array([[n % 40]])
    rng = np.random.default_rng(n)
    return rng.uniform(-1, 1, (1, 1, 1, 20, 3)).astype(np.float32)


class Asking:
    """Steps of one sequence, each sent to whichever service, in one way."""

    def __init__(self, way: str, ident: str) -> None:
        self.way = way
        self.ident = f"{way} {ident}"
        self._wires: dict[str, Wire] = {}

    def __call__(self, server: Server, x: np.ndarray, path: str = "", **parameters: Any) -> Told:
        parameters = {"sequence_id": self.ident, **parameters}
        if self.way == "grpc":
            return self._over_grpc(server, x, path.rpartition("/")[2], parameters)
        tensor = {"name": "x", "datatype": "INT64" if x.dtype == np.int64 else "FP32", "shape": x.shape}
        if self.way == "long":
            content, headers = json.dumps({"inputs": [{**tensor, "data": x.tolist()}], "parameters": parameters}).encode(), [LONG]
        else:  # in a form that the connection then knows
            tensor["parameters"] = {"binary_data_size": x.nbytes}
            head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
            content, headers = head + x.tobytes(), [f"{LENGTH}: {len(head)}"]
        if server.url not in self._wires:
            self._wires[server.url] = Wire(server)
        status, _, body = self._wires[server.url].ask(wire((content, {}), *headers, path=f"/v2/models/moving{path}/infer"))
        reply = json.loads(body)
        if status != 200:
            return Told(status, error=reply["error"])
        p = reply["parameters"]
        numbers = tuple(np.float32(reply["outputs"][0]["data"]).tolist())
        return Told(200, reply["model_version"], p["indrnn_step"], p["indrnn_position"], numbers)

    def _over_grpc(self, server: Server, x: np.ndarray, version: str, parameters: dict[str, Any]) -> Told:
        client = Client("grpc", server)
        tensor = client.module.InferInput("x", x.shape, "INT64" if x.dtype == np.int64 else "FP32").set_data_from_numpy(x)
        ours = {"indrnn_step": parameters.pop("indrnn_step")} if "indrnn_step" in parameters else {}
        try:
            raw = client.call(lambda: client.client.infer("moving", [tensor], version, parameters=ours, **parameters)).get_response()
        except Failed as error:
            return Told({"INVALID_ARGUMENT": 400, "ABORTED": 409}[error.status], error=error.text)
        finally:
            client.close()
        numbers = tuple(np.frombuffer(raw.raw_output_contents[0], np.float32).tolist())
        p = raw.parameters
        return Told(200, raw.model_version, p["indrnn_step"].int64_param, p["indrnn_position"].int64_param, numbers)

    def begin(self, server: Server, number: str, **more: Any) -> Told:
        """The first step, on that version."""
        told = self(server, x_of(number, 1), f"/versions/{number}", sequence_start=True, **more)
        assert told[:4] == (200, number, 1, 1), told
        return told

    def close(self) -> None:
        for one in self._wires.values():
            one.file.close()
            one.socket.close()


@pytest.fixture(params=WAYS)
def asking(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Asking]]:
    made: list[Asking] = []

    def ask(ident: str) -> Asking:
        made.append(Asking(request.param, ident))
        return made[-1]

    yield ask
    for one in made:
        one.close()


@pytest.mark.parametrize("number", OTHERS)
def test_a_sequence_begun_anew_elsewhere_on_another_version_goes_on_where_the_old_one_was_remembered(
    pair: Pair, asking: Callable[[str], Asking], number: str
) -> None:
    here, there = pair
    moved, alone = asking(f"anew {number}"), asking(f"alone {number}")
    moved.begin(here, "4")
    assert moved(here, x_of("4", 2), indrnn_step=2)[:4] == (200, "4", 2, 2)
    moved.begin(there, number)
    alone.begin(there, number)
    for n in (2, 3, 4):
        told = moved(here if n < 4 else there, x_of(number, n), indrnn_step=n)
        undisturbed = alone(there, x_of(number, n), indrnn_step=n)
        assert told == undisturbed
        assert told[:4] == (200, number, n, n), told
        assert moved(here, x_of(number, n), indrnn_step=n) == told, "a repeat, here"
        assert moved(there, x_of(number, n), indrnn_step=n) == told, "a repeat, there"


def test_it_may_move_again_and_again_with_steps_that_have_no_numbers(pair: Pair, asking: Callable[[str], Asking]) -> None:
    ask = asking("to and fro")
    for turn in range(8):
        number = str(turn % 4 + 1)
        ask.begin(pair[turn % 2], number)
        for n in (2, 3):
            assert ask(pair[(turn + n) % 2], x_of(number, n))[:4] == (200, number, n, n)


def test_a_sequence_that_ended_elsewhere_and_was_begun_anew_goes_on_too_and_its_end_is_repeated(
    pair: Pair, asking: Callable[[str], Asking]
) -> None:
    here, there = pair
    ask = asking("ended")
    ask.begin(here, "4")
    assert ask(there, x_of("4", 2), indrnn_step=2, sequence_end=True)[:3] == (200, "4", 2)
    refused = ask(here, x_of("4", 3), indrnn_step=3)
    assert (refused.status, "must specify the START flag" in refused.error) == (400, True)
    ask.begin(there, "2")
    last = ask(here, x_of("2", 2), indrnn_step=2, sequence_end=True)
    assert last[:4] == (200, "2", 2, 2)
    ask.begin(here, "3")
    ask.begin(there, "2")
    end = ask(there, x_of("2", 2), indrnn_step=2, sequence_end=True)
    assert end == last
    assert ask(here, x_of("2", 2), indrnn_step=2, sequence_end=True) == end, "remembered on 3, ended on 2: the stored answer"
    refused = ask(here, x_of("2", 3), indrnn_step=3)
    assert (refused.status, "must specify the START flag" in refused.error) == (400, True)


def test_a_first_step_that_was_stored_elsewhere_is_a_repeat_also_where_an_older_sequence_is_remembered(
    pair: Pair, asking: Callable[[str], Asking]
) -> None:
    """Without a version it would begin on the newest; it has begun on another one, and is answered from there."""
    here, there = pair
    ask = asking("first again")
    ask.begin(here, "4")
    first = ask.begin(there, "2", indrnn_step=1)
    assert ask(here, x_of("2", 1), sequence_start=True, indrnn_step=1) == first
    assert ask(here, x_of("2", 2), indrnn_step=2)[:4] == (200, "2", 2, 2)


def test_a_version_that_is_named_is_compared_with_where_the_sequence_is_now(pair: Pair, asking: Callable[[str], Asking]) -> None:
    here, there = pair
    ask = asking("named")
    ask.begin(here, "4")
    ask.begin(there, "2")
    assert ask(here, x_of("2", 2), "/versions/2", indrnn_step=2)[:4] == (200, "2", 2, 2)
    ask.begin(there, "3")
    refused = ask(here, x_of("2", 2), "/versions/2", indrnn_step=2)
    assert (refused.status, refused.error) == (400, "the sequence runs on version 3 of model 'moving', got a request for version 2")
    ask.begin(there, "1")
    assert ask(here, x_of("1", 2), "/versions/1", indrnn_step=2)[:4] == (200, "1", 2, 2)


def test_what_is_wrong_is_said_by_the_version_that_the_sequence_is_on(pair: Pair, asking: Callable[[str], Asking]) -> None:
    """Also gaps and conflicts; nothing of these moves it."""
    here, there = pair
    ask = asking("wrong")
    ask.begin(here, "4")
    ask.begin(there, "1")
    wrong = ask(here, x_of("4", 2), indrnn_step=2)
    assert (wrong.status, "data-type is 'FP32'" in wrong.error) == (400, True), wrong
    ask.begin(there, "4")
    wrong = ask(here, x_of("4", 2)[:, :, :, :19], indrnn_step=2)
    assert (wrong.status, "unexpected shape" in wrong.error) == (400, True), wrong
    ask.begin(there, "2")
    gap = ask(here, x_of("2", 3), indrnn_step=3)
    assert (gap.status, "expected step 2" in gap.error) == (409, True), gap
    ask.begin(there, "3")
    conflict = ask(here, x_of("3", 2), indrnn_step=1)
    assert (conflict.status, conflict.error) == (409, "step 1 was sent before with other content")
    assert ask(here, x_of("3", 2), indrnn_step=2)[:4] == (200, "3", 2, 2)


def streamed(server: Server, steps: list[tuple[str, np.ndarray, dict[str, Any]]]) -> list[Told]:
    """Steps of one sequence that a gRPC stream sends without waiting: each with the version it names, what it feeds, and its flags."""
    client = Client("grpc", server)
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.client.start_stream(lambda result, error: replies.put((result, error)))
    for number, x, flags in steps:
        tensor = client.module.InferInput("x", x.shape, "INT64" if x.dtype == np.int64 else "FP32").set_data_from_numpy(x)
        client.client.async_stream_infer("moving", [tensor], model_version=number, **flags)
    told = []
    for _ in steps:
        result, error = replies.get(timeout=60)
        if error is not None:
            told.append(Told(400, error=error.message()))
            continue
        raw = result.get_response()
        p, numbers = raw.parameters, tuple(np.frombuffer(raw.raw_output_contents[0], np.float32).tolist())
        told.append(Told(200, raw.model_version, p["indrnn_step"].int64_param, p["indrnn_position"].int64_param, numbers))
    client.client.stop_stream()
    client.close()
    return told


@pytest.mark.parametrize("number", OTHERS)
def test_steps_of_a_stream_that_are_under_way_together_stay_in_order_when_their_sequence_has_moved(pair: Pair, number: str) -> None:
    here, there = pair
    moved, alone = Asking("grpc", f"stream {number}"), Asking("grpc", f"stream alone {number}")
    for turn in range(5):
        moved.begin(here, "4")
        moved.begin(there, number)
        told = streamed(here, [("", x_of(number, n), {"sequence_id": moved.ident}) for n in range(2, 60)])
        assert [t[:4] for t in told] == [(200, number, n, n) for n in range(2, 60)], turn
    alone.begin(there, number)
    undisturbed = [alone(there, x_of(number, n)) for n in range(2, 60)]
    np.testing.assert_allclose([t.numbers for t in told], [t.numbers for t in undisturbed], atol=1e-4)


def test_a_stream_may_begin_anew_on_another_version_and_send_what_follows_at_once(pair: Pair) -> None:
    ask = Asking("grpc", "begun in a stream")
    for number in ("4", "2", "1", "4", "3"):
        steps = [(number if n == 1 else "", x_of(number, n), {"sequence_id": ask.ident, "sequence_start": n == 1}) for n in range(1, 20)]
        assert [t[:4] for t in streamed(pair[0], steps)] == [(200, number, n, n) for n in range(1, 20)]


def test_a_session_deleted_at_one_service_is_gone_at_the_other_that_remembers_it(pair: Pair) -> None:
    here, there = pair
    ident = here.post("/sessions", {"model": "moving", "version": "4"}).json()["session_id"]
    frame = [x_of("4", 1)[0, 0, 0].tolist()]
    body = {"sequences": [frame], "session_id": ident, "step": 1}
    assert here.post("/predict", body).status_code == there.post("/predict", body).status_code == 200
    assert httpx.delete(f"{there.url}/sessions/{ident}").status_code == 204
    for server in pair:
        assert server.post("/predict", {**body, "step": 2}).json()["code"] == "session_expired"
        assert httpx.delete(f"{server.url}/sessions/{ident}").status_code == 410
