"""The Open Inference Protocol over gRPC, on its own port, in the event loop of the rest."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import grpc
import grpc.aio
from google.protobuf.json_format import ParseDict

from indrnn.service.errors import BadInput, NotSupported, Overloaded, ServiceError, Stopping, UnknownModel, unanswered, unexpected
from indrnn.service.oip import describe
from indrnn.service.oip.grpc_stream import Begun, UnderWay
from indrnn.service.oip.http import NO_LOADING, refuse_parameters
from indrnn.service.oip.inference import InferAsked, Inference
from indrnn.service.oip.message import MAX_AXES, Ask, InferAnswer, SentTensor, Wanted, refuse_what_is_not_offered
from indrnn.service.oip.protocol import METHODS, SERVICE, message_classes
from indrnn.service.oip.refusal import refusal
from indrnn.service.serving.request import aside
from indrnn.service.serving.services import Services
from indrnn.service.settings import Settings, SettingsError
from indrnn.service.wire.http import KEYS, repeated

log = logging.getLogger(__name__)

Waiting = asyncio.Queue[tuple[Any, Begun | ServiceError] | None]
"""Requests of a stream with what was begun of them, in the order in which they came."""

AHEAD = 64  # requests of one stream that may be under way; a client that sends more waits
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip
"""Where the numbers of a datatype stand that do not come as bytes. FP16's always do: the protocol has no field for them."""

Context = Any  # grpc.aio.ServicerContext[Any, Any]
Message = Any


class InferenceService:
    """The protocol's service: each method is the RPC of that name, reading its request into what HTTP's JSON would have said."""

    def __init__(self, inference: Inference, services: Services) -> None:
        self._inference = inference
        self._places = services.places
        self._tickets = services.steps.tickets
        self._repository = services.repository
        self._readings: set[asyncio.Task[None]] = set()
        self._leaving = False
        self._settings = services.settings
        self._owner_of = services.access.owner_of
        self._classes = message_classes()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return every method with its messages."""
        handlers = {name: self._unary(name) for name in METHODS}
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream, self._classes["ModelInferRequest"].FromString, _serialized
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _unary(self, name: str) -> grpc.RpcMethodHandler:
        answer: Callable[[Message, str], Awaitable[Message]] = getattr(self, f"_{name}")
        open_to_all = name in ("ServerLive", "ServerReady")

        async def call(request: Message, context: Context) -> Message:
            trace = self._tickets.trace
            if trace is None or name != "ModelInfer":
                return await answered(request, context)
            with trace.request(f"{SERVICE}/{name}", _metadata(context), {"rpc.system": "grpc", "rpc.method": name}):
                return await answered(request, context)

        async def answered(request: Message, context: Context) -> Message:
            model = getattr(request, "model_name", getattr(request, "name", ""))
            try:
                return await answer(request, "" if open_to_all else self._owner(context))
            except ServiceError as error:
                said = refusal(error, model, _sequence_of(request))
            except Exception as error:
                log.exception("%s failed", name)
                said = refusal(unanswered(error) if name == "ModelInfer" else unexpected(error), model)
            await context.abort(grpc.StatusCode[said.grpc], said.text)

        request = self._classes[f"{name}Request"]
        return grpc.unary_unary_rpc_method_handler(call, request.FromString, _serialized)

    def _owner(self, context: Context) -> str:
        if twice := repeated(((name.encode(), b"") for name, _ in context.invocation_metadata() or ()), KEYS):
            raise BadInput(f"expected {twice} once, got it twice: whose request it is would be a matter of who reads it")
        return self._owner_of(_metadata(context))

    # --- health, descriptions, repository ---------------------------------------------------------------------------------------------

    async def _ServerLive(self, request: Message, owner: str) -> Message:  # noqa: N802  # named as the protocol does
        return self._classes["ServerLiveResponse"](live=True)

    async def _ServerReady(self, request: Message, owner: str) -> Message:  # noqa: N802
        return self._classes["ServerReadyResponse"](ready=all(m.port.ready for m in self._inference.models))

    async def _ServerMetadata(self, request: Message, owner: str) -> Message:  # noqa: N802
        return self._filled("ServerMetadataResponse", describe.server())

    async def _ModelReady(self, request: Message, owner: str) -> Message:  # noqa: N802
        try:
            ready = self._inference.model(request.name, request.version or None).port.ready
        except UnknownModel:
            ready = False
        return self._classes["ModelReadyResponse"](ready=ready)

    async def _ModelMetadata(self, request: Message, owner: str) -> Message:  # noqa: N802
        model = self._inference.model(request.name, request.version or None)
        return self._filled("ModelMetadataResponse", describe.metadata(model, self._inference.models))

    async def _ModelConfig(self, request: Message, owner: str) -> Message:  # noqa: N802
        model = self._inference.model(request.name, request.version or None)
        return self._filled("ModelConfigResponse", {"config": describe.config(model, self._settings, self._inference.max_rows)})

    async def _ModelStatistics(self, request: Message, owner: str) -> Message:  # noqa: N802
        models = self._inference.versions(request.name, request.version or None)
        return self._filled("ModelStatisticsResponse", {"model_stats": [await describe.statistics(m) for m in models]})

    async def _RepositoryIndex(self, request: Message, owner: str) -> Message:  # noqa: N802
        if request.repository_name:
            raise BadInput("'repository_name' specification is not supported")
        return self._filled("RepositoryIndexResponse", {"models": [line._asdict() for line in self._repository.index(request.ready)]})

    async def _RepositoryModelLoad(self, request: Message, owner: str) -> Message:  # noqa: N802
        self._need_control(request)
        await self._repository.load(request.model_name)
        return self._classes["RepositoryModelLoadResponse"]()

    async def _RepositoryModelUnload(self, request: Message, owner: str) -> Message:  # noqa: N802
        self._need_control(request)
        await self._repository.unload(request.model_name)
        return self._classes["RepositoryModelUnloadResponse"]()

    def _need_control(self, request: Message) -> None:
        if not self._settings.model_control:
            raise NotSupported(NO_LOADING)
        refuse_parameters(request.parameters)

    def _filled(self, name: str, fields: Mapping[str, object]) -> Message:
        return ParseDict(fields, self._classes[name](), ignore_unknown_fields=True)

    # --- inference --------------------------------------------------------------------------------------------------------------------

    async def _ModelInfer(self, request: Message, owner: str) -> Message:  # noqa: N802
        return self._reply(await self._inference.answer(await self._asked(request, owner)))

    async def _asked(self, request: Message, owner: str) -> InferAsked:
        size = 0 if request.raw_input_contents else request.ByteSize()
        ask = await aside(read, size, request)
        return InferAsked(ask, request.model_name, request.model_version or None, owner, size)

    async def _stream(self, requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        """A stream, where there is a place for it and its client may come in."""
        async with AsyncExitStack() as stack:
            try:
                owner = self._owner(context)
                stack.enter_context(self._places.one("oip_grpc"))
            except Overloaded as error:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, error.detail)
            except ServiceError as error:
                said = refusal(error, "")
                await context.abort(grpc.StatusCode[said.grpc], said.text)
            replies = await stack.enter_async_context(aclosing(self._replies(requests, owner, context)))
            async for reply in replies:
                yield reply

    async def _replies(self, requests: AsyncIterator[Message], owner: str, context: Context) -> AsyncGenerator[Message, None]:
        """Replies in the order of the requests, of which several are under way. An error is a reply too, and the stream stays open."""
        strict = ("triton_grpc_error", "true") in [(key, value) for key, value in context.invocation_metadata() or ()]
        waiting: Waiting = asyncio.Queue()
        room = asyncio.Semaphore(AHEAD)
        under_way = UnderWay(self._inference)
        reading = asyncio.create_task(self._read_stream(requests, owner, waiting, room, under_way, _metadata(context)))
        self._readings.add(reading)
        try:
            while (item := await waiting.get()) is not None:
                request, begun = item
                room.release()
                try:
                    if isinstance(begun, ServiceError):
                        raise begun
                    yield self._classes["ModelStreamInferResponse"](infer_response=self._reply(await under_way.answer(begun)))
                except ServiceError as error:
                    said = refusal(error, request.model_name, _sequence_of(request))
                    if strict:
                        await context.abort(grpc.StatusCode[said.grpc], said.text)
                    failed = self._classes["ModelInferResponse"](id=request.id, model_name=request.model_name)
                    yield self._classes["ModelStreamInferResponse"](error_message=said.text, infer_response=failed)
            if self._leaving:
                await context.abort(grpc.StatusCode.UNAVAILABLE, refusal(Stopping("send again what was not answered"), "").text)
        finally:
            reading.cancel()
            self._readings.discard(reading)
            _let_go(waiting)

    def leave(self) -> None:
        """Let the streams read no further, answer what they have read, and end, as the server stops."""
        self._leaving = True
        for reading in self._readings:
            reading.cancel()

    async def _read_stream(
        self,
        requests: AsyncIterator[Message],
        owner: str,
        waiting: Waiting,
        room: asyncio.Semaphore,
        under_way: UnderWay,
        metadata: Mapping[str, str],
    ) -> None:
        if self._tickets.trace is not None:
            self._tickets.trace.under(metadata)
        try:
            async for request in requests:
                await room.acquire()  # before it is queued: who leaves meanwhile has not had it applied
                try:
                    begun: Begun | ServiceError = await under_way.begin(await self._asked(request, owner))
                except ServiceError as error:
                    begun = error
                except Exception as error:
                    log.exception("a request of a stream failed")
                    begun = unanswered(error)
                waiting.put_nowait((request, begun))
        finally:
            waiting.put_nowait(None)

    def _reply(self, answer: InferAnswer) -> Message:
        reply = self._classes["ModelInferResponse"](model_name=answer.model, model_version=answer.version, id=answer.id)
        if answer.step is not None:
            reply.parameters["indrnn_step"].int64_param = answer.step
            reply.parameters["indrnn_position"].int64_param = answer.position
        if answer.warnings:
            reply.parameters["indrnn_warnings"].string_param = answer.warnings
        for output in answer.outputs:
            reply.outputs.add(name=output.name, datatype=output.datatype, shape=output.array.shape)
            reply.raw_output_contents.append(output.array.tobytes())
        return reply


def read(request: Message) -> Ask:
    """Return a ModelInferRequest as an inference request. Raises BadInput."""
    ask = Ask(request.id, [], None, protocol="oip_grpc")
    if request.parameters:
        ask.take_parameters(_parameters(request.parameters))
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        detail = f"expected {len(request.inputs)} raw_input_contents as there are inputs, got {len(raw)}"
        raise BadInput(f"{detail} for model '{request.model_name[:80]}'")
    for i, tensor in enumerate(request.inputs):
        refuse_what_is_not_offered(_parameters(tensor.parameters))
        shape = tuple(tensor.shape)
        if len(shape) > MAX_AXES or any(n < 0 for n in shape):
            raise BadInput(
                f"input '{tensor.name[:80]}': expected a shape of at most {MAX_AXES} whole numbers from 0, got {list(shape)[:8]}"
            )
        if raw and tensor.HasField("contents"):
            expected = f"contents field must not be specified when using raw_input_contents for '{tensor.name[:80]}'"
            raise BadInput(f"{expected} for model '{request.model_name[:80]}'")
        if not raw and tensor.datatype == "FP16":
            raise BadInput(f"input '{tensor.name[:80]}': expected numbers of FP16 in raw_input_contents, as contents has no field for them")
        values = None if raw else list(getattr(tensor.contents, _CONTENTS.get(tensor.datatype, "fp32_contents")))
        ask.inputs.append(SentTensor(tensor.name, tensor.datatype, shape, raw[i] if raw else None, values))
    if request.outputs:
        for output in request.outputs:
            refuse_what_is_not_offered(_parameters(output.parameters))
        ask.outputs = [Wanted(output.name, True) for output in request.outputs]
    return ask


def _metadata(context: Context) -> dict[str, str]:
    """Return what a client said beside its call."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _let_go(waiting: Waiting) -> None:
    """Let go of requests whose answers nobody will read."""
    while not waiting.empty():
        item = waiting.get_nowait()
        if item is not None and not isinstance(item[1], ServiceError):
            item[1].leave()


def _parameters(fields: Mapping[str, Message]) -> dict[str, object]:
    """Return parameters as JSON would have them; one that holds nothing is absent."""
    chosen = {name: (value, value.WhichOneof("parameter_choice")) for name, value in fields.items()}
    return {name: getattr(value, choice) for name, (value, choice) in chosen.items() if choice is not None}


def _sequence_of(request: Message) -> int | str | None:
    """Return the correlation id of an inference request, which may be refused; None for other requests."""
    ident = _parameters(getattr(request, "parameters", {})).get("sequence_id")
    return ident if isinstance(ident, int | str) else None


def _serialized(message: Message) -> bytes:
    """Return the same bytes for the same message, maps included."""
    data: bytes = message.SerializeToString(deterministic=True)
    return data


class GrpcServer:
    """The gRPC server, which is running."""

    def __init__(self, server: grpc.aio.Server, service: InferenceService) -> None:
        self._server = server
        self._service = service

    async def leave(self, seconds: float) -> None:
        """Take nothing new, let what was begun be answered, and end; after so many seconds whatever is left is cut off."""
        self._service.leave()
        await self._server.stop(seconds)


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    """Return gRPC's options of every connection: how much it may carry, and how each side finds out that the other is gone."""
    return [
        ("grpc.max_receive_message_length", settings.max_body),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", round(settings.grpc_keepalive * 1e3)),
        ("grpc.keepalive_timeout_ms", round(settings.grpc_keepalive_timeout * 1e3)),
        ("grpc.keepalive_permit_without_calls", 1),  # both ways: an idle connection is looked after too
        ("grpc.http2.max_pings_without_data", 0),  # any number of ours
        ("grpc.http2.min_ping_interval_without_data_ms", round(settings.grpc_ping_interval * 1e3)),
    ]


async def serve_grpc(inference: Inference, services: Services) -> GrpcServer:
    """Listen on the setting's port, 0 for one the system chooses. Raises SettingsError where that cannot be had."""
    settings = services.settings
    server = grpc.aio.server(options=channel_options(settings))
    service = InferenceService(inference, services)
    server.add_generic_rpc_handlers((service.handler(),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:  # it was free when the service looked; somebody has taken it while the models were loaded
        raise SettingsError(f"INDRNN_GRPC_PORT: {settings.host}:{settings.grpc_port} cannot be listened on any more") from error
    await server.start()
    log.info("gRPC on %s:%d", host, port)
    return GrpcServer(server, service)
