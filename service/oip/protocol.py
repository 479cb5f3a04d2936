"""The Open Inference Protocol's gRPC messages: the public protocol's package, names and field numbers, as far as this server has them.

They are put together at import in a pool of their own, since a process may hold a client's copy of the same package beside it.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = "inference.GRPCInferenceService"

_INFER_PARAMETER = (
    "=parameter_choice bool_param:bool:1 int64_param:int64:2 string_param:string:3 double_param:double:4 uint64_param:uint64:5"
)
_REPOSITORY_PARAMETER = "=parameter_choice bool_param:bool:1 int64_param:int64:2 string_param:string:3 bytes_param:bytes:4"
_TENSOR = "name:string:1 datatype:string:2 shape:int64*:3"
_NAMED = "name:string:1 version:string:2"

# name:type:number, * repeated, {} a map from text, = the fields that follow are a oneof of that name; Outer.Inner is nested in Outer.
MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool:1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool:1",
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": "ready:bool:1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": f"{_NAMED} extensions:string*:3",
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": "name:string:1 versions:string*:2 platform:string:3 inputs:ModelMetadataResponse.TensorMetadata*:4 "
    "outputs:ModelMetadataResponse.TensorMetadata*:5",
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "InferParameter": _INFER_PARAMETER,
    "InferTensorContents": "bool_contents:bool*:1 int_contents:int32*:2 int64_contents:int64*:3 uint_contents:uint32*:4 "
    "uint64_contents:uint64*:5 fp32_contents:float*:6 fp64_contents:double*:7 bytes_contents:bytes*:8",
    "ModelInferRequest": "model_name:string:1 model_version:string:2 id:string:3 parameters:InferParameter{}:4 "
    "inputs:ModelInferRequest.InferInputTensor*:5 outputs:ModelInferRequest.InferRequestedOutputTensor*:6 raw_input_contents:bytes*:7",
    "ModelInferRequest.InferInputTensor": f"{_TENSOR} parameters:InferParameter{{}}:4 contents:InferTensorContents:5",
    "ModelInferRequest.InferRequestedOutputTensor": "name:string:1 parameters:InferParameter{}:2",
    "ModelInferResponse": "model_name:string:1 model_version:string:2 id:string:3 parameters:InferParameter{}:4 "
    "outputs:ModelInferResponse.InferOutputTensor*:5 raw_output_contents:bytes*:6",
    "ModelInferResponse.InferOutputTensor": f"{_TENSOR} parameters:InferParameter{{}}:4 contents:InferTensorContents:5",
    "ModelStreamInferResponse": "error_message:string:1 infer_response:ModelInferResponse:2",
    "ModelConfigRequest": _NAMED,
    "ModelConfigResponse": "config:ModelConfig:1",
    "ModelConfig": "name:string:1 platform:string:2 backend:string:17 version_policy:ModelVersionPolicy:3 max_batch_size:int32:4 "
    "input:ModelInput*:5 output:ModelOutput*:6 =scheduling_choice sequence_batching:ModelSequenceBatching:13 = "
    "default_model_filename:string:8 parameters:ModelParameter{}:14",
    "ModelVersionPolicy": "=policy_choice all:ModelVersionPolicy.All:2",
    "ModelVersionPolicy.All": "",
    "ModelInput": "name:string:1 data_type:DataType:2 dims:int64*:4 optional:bool:8",
    "ModelOutput": "name:string:1 data_type:DataType:2 dims:int64*:3",
    "ModelParameter": "string_value:string:1",
    "ModelSequenceBatching": "max_sequence_idle_microseconds:uint64:1 =strategy_choice oldest:ModelSequenceBatching.StrategyOldest:4 = "
    "state:ModelSequenceBatching.State*:5",
    "ModelSequenceBatching.StrategyOldest": "max_candidate_sequences:int32:1 max_queue_delay_microseconds:uint64:3",
    "ModelSequenceBatching.State": "input_name:string:1 output_name:string:2 data_type:DataType:3 dims:int64*:4",
    "ModelStatisticsRequest": _NAMED,
    "ModelStatisticsResponse": "model_stats:ModelStatistics*:1",
    "ModelStatistics": "name:string:1 version:string:2 last_inference:uint64:3 inference_count:uint64:4 execution_count:uint64:5 "
    "inference_stats:InferStatistics:6 batch_stats:InferBatchStatistics*:7 memory_usage:MemoryUsage*:8",
    "InferStatistics": " ".join(
        f"{name}:StatisticDuration:{number}"
        for number, name in enumerate(
            ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"), start=1
        )
    ),
    "StatisticDuration": "count:uint64:1 ns:uint64:2",
    "InferBatchStatistics": "batch_size:uint64:1 compute_input:StatisticDuration:2 compute_infer:StatisticDuration:3 "
    "compute_output:StatisticDuration:4",
    "MemoryUsage": "type:string:1 id:int64:2 byte_size:uint64:3",
    "ModelRepositoryParameter": _REPOSITORY_PARAMETER,
    "RepositoryIndexRequest": "repository_name:string:1 ready:bool:2",
    "RepositoryIndexResponse": "models:RepositoryIndexResponse.ModelIndex*:1",
    "RepositoryIndexResponse.ModelIndex": "name:string:1 version:string:2 state:string:3 reason:string:4",
    "RepositoryModelLoadRequest": "repository_name:string:1 model_name:string:2 parameters:ModelRepositoryParameter{}:3",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "repository_name:string:1 model_name:string:2 parameters:ModelRepositoryParameter{}:3",
    "RepositoryModelUnloadResponse": "",
}

DATA_TYPES = {
    "TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_UINT32": 4, "TYPE_UINT64": 5, "TYPE_INT8": 6,
    "TYPE_INT16": 7, "TYPE_INT32": 8, "TYPE_INT64": 9, "TYPE_FP16": 10, "TYPE_FP32": 11, "TYPE_FP64": 12,
}  # fmt: skip

METHODS = (
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer",
    "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
)  # fmt: skip
"""Of one request and one reply, {name}Request and {name}Response. ModelStreamInfer has streams of both."""


def file_descriptor() -> FileDescriptorProto:
    """Return the messages as protobuf describes them."""
    file = FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, DescriptorProto] = {}
    for name, fields in MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        message = made[name] = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=name)
        _add_fields(message, name, fields)
    types = file.enum_type.add(name="DataType")
    for name, number in DATA_TYPES.items():
        types.value.add(name=name, number=number)
    return file


def _add_fields(message: DescriptorProto, full_name: str, fields: str) -> None:
    choice = None
    for item in fields.split():
        if item.startswith("="):
            choice = None
            if item != "=":
                choice = len(message.oneof_decl)
                message.oneof_decl.add(name=item[1:])
            continue
        name, kind, number = item.split(":")
        field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
        if choice is not None:
            field.oneof_index = choice
        if kind.endswith("*") or kind.endswith("{}"):
            field.label = FieldDescriptorProto.LABEL_REPEATED
        if kind.endswith("{}"):
            kind = _add_entry(message, full_name, name, kind[:-2])
        _set_type(field, kind.removesuffix("*"))


def _add_entry(message: DescriptorProto, full_name: str, field: str, kind: str) -> str:
    """Return the message that an entry of a map is."""
    entry = message.nested_type.add(name=f"{field.title()}Entry")
    entry.options.map_entry = True
    key = entry.field.add(name="key", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL)
    value = entry.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL)
    _set_type(key, "string")
    _set_type(value, kind)
    return f"{full_name}.{entry.name}"


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind[0].isupper():
        field.type = FieldDescriptorProto.TYPE_ENUM if kind == "DataType" else FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


def message_classes() -> dict[str, Any]:
    """Return every message's class by its name."""
    pool = DescriptorPool()
    pool.AddSerializedFile(file_descriptor().SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}
