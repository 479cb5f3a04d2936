"""The Open Inference Protocol through Triton's own clients: HTTP and gRPC, each synchronous and asyncio."""

import asyncio
import importlib
import queue
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import CLASSES, ROOT, VERSION, Server
from tritonclient.utils import InferenceServerException

Start = Callable[..., Server]
KINDS = ("http", "http.aio", "grpc", "grpc.aio")
SCORES = {"top_k": 99}


@dataclass
class Failed(Exception):
    """What a client raised: the HTTP status of the error, or the name of gRPC's, and its text."""

    status: str
    text: str


@dataclass
class Client:
    """One of Triton's four Python clients, made to look alike."""

    kind: str
    server: Server
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def __post_init__(self) -> None:
        self.module = importlib.import_module(f"tritonclient.{self.kind}")
        self.grpc = self.kind.startswith("grpc")
        port = self.server.env["INDRNN_GRPC_PORT"] if self.grpc else self.server.port
        self.client = self.call(lambda: self.module.InferenceServerClient(f"127.0.0.1:{port}"))

    def call(self, function: Callable[[], Any]) -> Any:
        """The result of a client's method, awaited where it is a coroutine."""

        async def main() -> Any:
            result = function()
            return await result if asyncio.iscoroutine(result) else result

        try:
            return self.runner.run(main()) if self.kind.endswith("aio") else function()
        except InferenceServerException as error:
            raise Failed(str(error.status()).rpartition(".")[2], error.message()) from None

    def ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Any other method; gRPC's messages as JSON."""
        if self.grpc and method.startswith("get_"):
            options["as_json"] = True
        return self.call(lambda: getattr(self.client, method)(*args, **options))

    def infer(self, model: str = "action", outputs: list[str] | None = None, step: int | None = None, **more: Any) -> "Reply":
        """Tensors by name; the rest goes to the client's infer."""
        inputs = []
        for name in [n for n, value in more.items() if isinstance(value, np.ndarray)]:
            array = more.pop(name)
            kinds = {"float32": "FP32", "int64": "INT64", "float16": "FP16", "float64": "FP64"}
            inputs.append(self.module.InferInput(name, array.shape, kinds[array.dtype.name]).set_data_from_numpy(array))
        if step is not None:
            more["parameters"] = {"indrnn_step": step}
        wanted = None if outputs is None else [self.module.InferRequestedOutput(o) for o in outputs]
        result = self.call(lambda: self.client.infer(model, inputs, outputs=wanted, **more))
        raw = result.get_response()
        if not self.grpc:
            told = {name: value for name, value in raw.get("parameters", {}).items() if name in NUMBERS}
            return Reply(raw.get("id", ""), told, {o["name"]: result.as_numpy(o["name"]) for o in raw["outputs"]})
        parameters = {name: p.int64_param for name, p in raw.parameters.items() if name in NUMBERS}
        return Reply(raw.id, parameters, {o.name: result.as_numpy(o.name) for o in raw.outputs})

    def refused(self, **options: Any) -> tuple[str, str]:
        with pytest.raises(Failed) as caught:
            self.infer(**options)
        return caught.value.status, caught.value.text

    def status(self, http: str, grpc: str) -> str:
        return grpc if self.grpc else http

    def close(self) -> None:
        self.call(self.client.close)
        self.runner.close()


NUMBERS = ("indrnn_step", "indrnn_position")  # what a sequence is told; warnings come beside them, for these frames are no body's


@dataclass
class Reply:
    id: str
    parameters: dict[str, int]
    tensors: dict[str, np.ndarray]

    @property
    def logits(self) -> np.ndarray:
        return self.tensors["logits"]


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@pytest.fixture(scope="module")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that also speaks gRPC, for all tests that do not hurt it."""
    made = Server(tmp_path_factory.mktemp("inference"), {"INDRNN_GRPC_PORT": free_port(), "INDRNN_MAX_EVERY": "100"}).start()
    yield made
    assert made.stop() in (0, -signal.SIGTERM), made.log()
    assert "Traceback" not in made.log()


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, triton_server: Server) -> Iterator[Client]:
    made = Client(request.param, triton_server)
    yield made
    made.close()


@pytest.fixture(scope="session")
def frames(walk: list[Any]) -> np.ndarray:
    """[1, 60, 1, 20, 3]"""
    return np.array(walk, np.float32)[None, :, None]


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def fresh_id(client: Client, name: str) -> str:
    return f"{client.kind} {name}"


# --- what the server says of itself ---------------------------------------------------------------------------------------------------


def test_health_metadata_configuration_and_index_say_what_is_served(client: Client) -> None:
    assert client.ask("is_server_live")
    assert client.ask("is_server_ready")
    assert client.ask("is_model_ready", "action")
    assert client.ask("is_model_ready", "chars", "2")
    assert not client.ask("is_model_ready", "nothing")
    assert {"sequence", "binary_tensor_data", "statistics", "model_repository", "model_configuration"} <= set(
        client.ask("get_server_metadata")["extensions"]
    )
    metadata = client.ask("get_model_metadata", "action")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("action", [VERSION], "onnxruntime_onnx")
    (x,) = metadata["inputs"]
    assert (x["name"], x["datatype"], [int(n) for n in x["shape"]]) == ("x", "FP32", [-1, -1, 1, 20, 3])
    (logits,) = metadata["outputs"]
    assert (logits["name"], [int(n) for n in logits["shape"]]) == ("logits", [-1, -1, CLASSES])
    config = client.ask("get_model_config", "chars")
    config = config["config"] if client.grpc else config
    assert config["sequence_batching"]["state"][0]["input_name"] == "state"
    assert config["input"][0]["data_type"] == "TYPE_INT64"
    assert '"lengths"' in config["parameters"]["optional"]["string_value"]
    index = client.ask("get_model_repository_index")
    assert [(m["name"], m["version"], m["state"]) for m in (index["models"] if client.grpc else index)] == [
        (model, version, "READY" if version == versions[-1] else "UNAVAILABLE")
        for model in ("action", "chars")
        for versions in [sorted((path.name for path in (ROOT / "bundles" / model).iterdir()), key=int)]
        for version in versions
    ]


def test_metadata_marks_lengths_and_state_optional(triton_server: Server) -> None:
    metadata = triton_server.get("/v2/models/action").json()
    assert {t["name"]: (t["datatype"], t["optional"]) for t in metadata["optional_inputs"]} == {
        "lengths": ("INT64", True),
        "state": ("FP32", True),
    }
    assert [t["name"] for t in metadata["optional_outputs"]] == ["state_out"]


def test_loading_is_refused_while_the_repository_is_not_to_be_commanded(client: Client) -> None:
    for method in ("load_model", "unload_model"):
        with pytest.raises(Failed) as caught:
            client.ask(method, "action")
        assert caught.value.status == client.status("501", "UNIMPLEMENTED")
        assert "explicit model load / unload is not allowed" in caught.value.text


# --- sequences ------------------------------------------------------------------------------------------------------------------------


def test_a_sequence_answers_as_the_native_api_and_as_all_of_it_in_one_request(client: Client, frames: np.ndarray, walk: list[Any]) -> None:
    ident = fresh_id(client, "whole")
    singles = [
        client.infer(x=frames[:, t : t + 1], sequence_id=ident, sequence_start=t == 0, sequence_end=t == 19, request_id=f"r{t}")
        for t in range(20)
    ]
    assert [r.id for r in singles] == [f"r{t}" for t in range(20)]
    assert [r.parameters for r in singles] == [{"indrnn_step": t + 1, "indrnn_position": t + 1} for t in range(20)]
    assert singles[0].tensors.keys() == {"logits"}
    whole = client.infer(x=frames[:, :20], sequence_id=ident, sequence_start=True, sequence_end=True)
    assert whole.logits.shape == (1, 20, CLASSES)
    assert np.concatenate([r.logits for r in singles], 1) == pytest.approx(whole.logits, abs=1e-4)
    native = client.server.post("/predict", {"sequences": [walk[:20]], **SCORES}).json()["predictions"][0]
    labels = {m["version"]: m["labels"] for m in client.server.get("/models/action").json()["versions"]}[VERSION]
    by_label = {t["label"]: t["score"] for t in native["top"]}
    assert softmax(whole.logits[0, -1]) == pytest.approx([by_label[label] for label in labels], abs=1e-4)


def test_numbers_under_which_the_state_would_overflow_are_refused_as_the_clients(client: Client, frames: np.ndarray) -> None:
    size = sum(p["size"] for p in client.server.get("/models/action").json()["versions"][0]["state"])
    status, text = client.refused(x=frames[:, :3], state=np.full((1, size), 3e38, np.float32))
    assert status == client.status("400", "INVALID_ARGUMENT")
    assert "would overflow" in text


def test_the_type_of_an_id_tells_sequences_apart_and_both_protocols_know_the_same_ones(client: Client, frames: np.ndarray) -> None:
    number = 1_000 + KINDS.index(client.kind)
    client.infer(x=frames[:, :3], sequence_id=number, sequence_start=True)
    other = client.infer(x=frames[:, :1], sequence_id=str(number), sequence_start=True)
    assert other.parameters["indrnn_position"] == 1
    assert client.infer(x=frames[:, 3:4], sequence_id=number).parameters["indrnn_position"] == 4
    across = Client("http" if client.grpc else "grpc", client.server)
    assert across.infer(x=frames[:, 4:5], sequence_id=number).parameters == {"indrnn_step": 3, "indrnn_position": 5}
    across.close()
    assert client.refused(x=frames[:, :1], sequence_id=number, model="chars")[0] == client.status("400", "INVALID_ARGUMENT")


def test_the_native_api_neither_lists_nor_knows_a_sequence(client: Client, frames: np.ndarray) -> None:
    before = client.server.get("/sessions?limit=1000").json()
    client.infer(x=frames[:, :1], sequence_id=fresh_id(client, "hidden"), sequence_start=True)
    assert client.server.get("/sessions?limit=1000").json() == before


def test_the_start_of_a_live_sequence_begins_anew(client: Client, frames: np.ndarray) -> None:
    ident = fresh_id(client, "anew")
    first = client.infer(x=frames[:, :1], sequence_id=ident, sequence_start=True)
    client.infer(x=frames[:, 1:9], sequence_id=ident)
    again = client.infer(x=frames[:, :1], sequence_id=ident, sequence_start=True)
    assert again.parameters == {"indrnn_step": 1, "indrnn_position": 1}
    assert again.logits == pytest.approx(first.logits, abs=1e-5)


def test_a_numbered_step_is_applied_once_and_answered_the_same_as_often_as_it_is_sent(client: Client, frames: np.ndarray) -> None:
    ident = fresh_id(client, "once")

    def step(n: int, t: int, **more: Any) -> Reply:
        return client.infer(x=frames[:, t : t + 2], sequence_id=ident, step=n, **more)

    first = [step(1, 0, sequence_start=True) for _ in range(3)]
    assert all(np.array_equal(r.logits, first[0].logits) and r.parameters == first[0].parameters for r in first)
    second = [step(2, 2) for _ in range(3)]
    assert all(np.array_equal(r.logits, second[0].logits) for r in second)
    assert second[2].parameters == {"indrnn_step": 2, "indrnn_position": 4}
    last = [step(3, 4, sequence_end=True) for _ in range(3)]
    assert all(np.array_equal(r.logits, last[0].logits) for r in last)
    whole = client.infer(x=frames[:, :6], sequence_id=ident, sequence_start=True, step=1)
    assert np.concatenate([first[0].logits, second[0].logits, last[0].logits], 1) == pytest.approx(whole.logits, abs=1e-4)


def test_gaps_and_other_content_are_conflicts_that_move_nothing(client: Client, frames: np.ndarray) -> None:
    ident = fresh_id(client, "gap")
    conflict = client.status("409", "ABORTED")
    x = frames[:, :1]
    status, text = client.refused(x=x, sequence_id=ident, sequence_start=True, step=2)
    assert (status, text.endswith("expected step 1")) == (conflict, True)
    client.infer(x=x, sequence_id=ident, sequence_start=True, step=1)
    status, text = client.refused(x=x, sequence_id=ident, step=3)
    assert status == conflict
    assert "expected step 2" in text
    assert client.refused(x=x * 2, sequence_id=ident, step=1) == (conflict, "step 1 was sent before with other content")
    assert client.refused(x=x, sequence_id=ident, step=1, sequence_end=True)[0] == conflict
    assert client.infer(x=x, sequence_id=ident, step=2).parameters["indrnn_position"] == 2


START = "inference request for sequence {} to model 'action' must specify the START flag on the first request of the sequence"


def test_errors_have_tritons_status_and_words(client: Client, frames: np.ndarray) -> None:
    bad, missing = client.status("400", "INVALID_ARGUMENT"), client.status("404", "NOT_FOUND")
    x, ident = frames[:, :1], fresh_id(client, "errors")
    assert client.refused(x=x, sequence_id=ident) == (bad, START.format(ident))
    client.infer(x=x, sequence_id=ident, sequence_start=True, sequence_end=True)
    assert client.refused(x=x, sequence_id=ident) == (bad, START.format(ident))
    assert client.refused(x=np.repeat(x, 2, 0), sequence_id=ident, sequence_start=True) == (
        bad,
        "inference request to model 'action' must specify batch-size 1 due to requirements of sequence batcher",
    )
    assert client.refused(x=x, model="nothing") == (missing, "Request for unknown model: 'nothing' is not found")
    assert client.refused(x=x, model_version="9")[0] == missing
    assert client.refused(x=x, outputs=["scores"]) == (bad, "unexpected inference output 'scores' for model 'action'")
    assert client.refused(y=x)[1] == "unexpected inference input 'y' for model 'action'"
    assert client.refused(x=x.astype(np.float64))[1].startswith("inference input 'x' data-type is 'FP64'")
    assert "unexpected shape for input 'x' for model 'action'" in client.refused(x=x[0])[1]
    state = np.zeros((1, client.server.get("/models/action").json()["versions"][0]["state_size"]), np.float32)
    status, text = client.refused(x=x, state=state, sequence_id=ident, sequence_start=True)
    assert (status, "both a correlation ID and input 'state'" in text) == (bad, True)
    odd = x.copy()
    odd[0, 0, 0, 0, 0] = np.nan
    assert client.refused(x=odd) == (bad, "inference input 'x' for model 'action': expected finite numbers, got NaN")
    assert client.refused(x=np.repeat(x, 101, 1), sequence_id=ident, sequence_start=True)[0] == bad


# --- without a sequence ---------------------------------------------------------------------------------------------------------------


def test_a_client_that_holds_the_state_itself_gets_what_a_sequence_gets(client: Client, frames: np.ndarray) -> None:
    both = ["logits", "state_out"]
    pair = np.concatenate([frames[:, :10], frames[:, 30:40]])
    first = client.infer(x=pair[:, :4], outputs=both)
    second = client.infer(x=pair[:, 4:], state=first.tensors["state_out"])
    assert second.tensors.keys() == {"logits", "state_out"}
    whole = client.infer(x=pair, outputs=both)
    assert np.concatenate([first.logits, second.logits], 1) == pytest.approx(whole.logits, abs=1e-4)
    assert second.tensors["state_out"] == pytest.approx(whole.tensors["state_out"], abs=1e-3)


def test_rows_of_several_lengths_are_answered_each_to_its_own(client: Client, frames: np.ndarray) -> None:
    x = np.concatenate([frames[:, :8], frames[:, 20:28], frames[:, 40:48]])
    ragged = client.infer(x=x, lengths=np.array([[8], [1], [3]]))
    for row, t in enumerate((8, 1, 3)):
        alone = client.infer(x=x[row : row + 1, :t])
        assert ragged.logits[row, :t] == pytest.approx(alone.logits[0], abs=1e-4)
        assert not ragged.logits[row, t:].any()


def test_characters_are_symbols_of_the_alphabet(client: Client) -> None:
    alphabet = client.server.get("/models/chars").json()["versions"][0]["alphabet"]
    text = "Prince Andre"
    symbols = np.array([[alphabet.index(c) for c in text]])
    logits = client.infer(model="chars", x=symbols, sequence_id=fresh_id(client, "text"), sequence_start=True).logits
    assert alphabet[int(logits[0, -1].argmax())] == "w"
    status, said = client.refused(model="chars", x=symbols + 1_000)
    assert (status, "expected symbols from 0 to" in said) == (client.status("400", "INVALID_ARGUMENT"), True)


def test_the_statistics_count_rows_and_runs(client: Client, frames: np.ndarray) -> None:
    def counts() -> dict[str, int]:
        (stats,) = client.ask("get_inference_statistics", "action")["model_stats"]
        success = stats["inference_stats"]["success"]
        return {"rows": int(stats["inference_count"]), "runs": int(stats["execution_count"]), "success": int(success["count"])}

    before = counts()
    client.infer(x=np.repeat(frames[:, :1], 5, 0))
    after = counts()
    assert {name: after[name] - before[name] for name in after} == {"rows": 5, "runs": 1, "success": 5}


# --- gRPC's streams -------------------------------------------------------------------------------------------------------------------


def test_a_stream_answers_in_order_and_stays_open_after_an_error(triton_server: Server, frames: np.ndarray) -> None:
    client = Client("grpc", triton_server)
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.client.start_stream(lambda result, error: replies.put((result, error)))
    inputs = [client.module.InferInput("x", [1, 1, 1, 20, 3], "FP32").set_data_from_numpy(frames[:, :1])]
    for n in range(60):  # two sequences, interleaved; each begins with a step that has to be refused
        client.client.async_stream_infer("action", inputs, sequence_id=f"stream {n % 2}", sequence_start=n in (2, 3), request_id=str(n))
    heard = [replies.get(timeout=30) for _ in range(60)]
    client.client.stop_stream()
    assert [error.message() for _, error in heard[:2]] == [START.format(f"stream {n}") for n in (0, 1)]
    ids = [result.get_response().id for result, _ in heard[2:]]
    assert ids == [str(n) for n in range(2, 60)]
    assert [r.get_response().parameters["indrnn_step"].int64_param for r, _ in heard[2:]] == [n // 2 for n in range(2, 60)]
    client.close()


# --- what a kill may cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_kill_in_mid_sequence_loses_no_step_and_applies_none_twice(own_server: Start, frames: np.ndarray, kind: str) -> None:
    server = own_server(INDRNN_GRPC_PORT=free_port())
    client = Client(kind, server)
    undisturbed = client.infer(x=frames[:, :12], sequence_id=1, sequence_start=True)
    logits = []
    for n in range(1, 13):
        flags = {"sequence_start": n == 1, "sequence_end": n == 12}
        step: dict[str, Any] = {"x": frames[:, n - 1 : n], "sequence_id": 2, "step": n, **flags}
        reply = client.infer(**step)
        if n in (1, 5, 12):
            client.close()
            server.restart(signal.SIGKILL)
            client = Client(kind, server)
            again = client.infer(**step)
            assert np.array_equal(again.logits, reply.logits)
            assert again.parameters == reply.parameters == {"indrnn_step": n, "indrnn_position": n}
        logits.append(reply.logits)
    assert np.concatenate(logits, 1) == pytest.approx(undisturbed.logits, abs=1e-4)
    assert client.refused(x=frames[:, :1], sequence_id=2) == (client.status("400", "INVALID_ARGUMENT"), START.format(2))
    client.close()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_sequences_of_a_key_are_bounded_and_one_that_ends_makes_room(own_server: Start, frames: np.ndarray, kind: str) -> None:
    server = own_server(INDRNN_GRPC_PORT=free_port(), INDRNN_MAX_SESSIONS="2")
    client = Client(kind, server)

    def step(ident: str, **flags: bool) -> dict[str, int]:
        return client.infer(x=frames[:, :1], sequence_id=ident, **flags).parameters

    def refused() -> None:
        status, text = client.refused(x=frames[:, :1], sequence_id="c", sequence_start=True)
        assert status == client.status("503", "UNAVAILABLE")
        assert text.startswith("Exceeds maximum number of sequences: expected at most 2 living sessions")

    step("a", sequence_start=True)
    step("b", sequence_start=True)
    refused()
    assert step("b", sequence_start=True)["indrnn_step"] == 1, "one that is there begins anew in its own place"
    assert server.post("/sessions", {"model": "action"}).status_code == 201, "sessions have a bound of their own"
    server.restart(signal.SIGTERM)
    client = Client(kind, server)
    refused()
    assert step("b", sequence_start=True)["indrnn_step"] == 1
    assert step("a", sequence_end=True)["indrnn_step"] == 2
    assert step("c", sequence_start=True)["indrnn_step"] == 1
    step("c", sequence_end=True)
    for n in range(5):
        assert step(f"short {n}", sequence_start=True, sequence_end=True)["indrnn_step"] == 1, "ended ones do not count"
    client.close()


def test_only_a_living_sequence_that_ends_makes_room_and_only_once(own_server: Start, frames: np.ndarray) -> None:
    client = Client("http", own_server(INDRNN_MAX_SESSIONS="2"))

    def step(ident: str, **options: Any) -> int:
        return client.infer(x=frames[:, :1], sequence_id=ident, **options).parameters["indrnn_step"]

    def refused(ident: str) -> None:
        status, text = client.refused(x=frames[:, :1], sequence_id=ident, sequence_start=True)
        assert (status, text[:35]) == ("503", "Exceeds maximum number of sequences")

    step("a", sequence_start=True)
    step("b", sequence_start=True)
    for _ in range(3):
        assert step("b", sequence_end=True, step=2) == 2, "answered again from the store"
    assert step("c", sequence_start=True) == 1
    refused("d")
    refused("b")
    for _ in range(3):
        assert step("brief", sequence_start=True, sequence_end=True, step=1) == 1, "what ends as it begins takes no place"
    refused("d")
    client.close()


def test_a_full_queue_and_a_passed_deadline_have_tritons_words(own_server: Start, frames: np.ndarray) -> None:
    server = own_server(INDRNN_GRPC_PORT=free_port(), INDRNN_MAX_QUEUE="4", INDRNN_THREADS="1")
    for kind in ("http", "grpc"):
        client = Client(kind, server)
        unavailable = client.status("503", "UNAVAILABLE")
        status, text = client.refused(x=frames[:, :1], timeout=1)  # a microsecond
        assert (status, text.startswith("Request timeout expired")) == (unavailable, True)
        client.close()
    with httpx.Client(base_url=server.url, timeout=60) as http:
        config = http.get("/v2/models/action/config").json()
        assert config["max_batch_size"] == 4
