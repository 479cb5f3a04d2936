"""The gRPC messages, field by field against those that Triton's client brings."""

from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from indrnn.service.errors import BadInput
from indrnn.service.oip.grpc import read
from indrnn.service.oip.protocol import DATA_TYPES, MESSAGES, METHODS, SERVICE, message_classes

CLASSES = message_classes()
THEIRS = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}


def shape(field: Any) -> tuple[object, ...]:
    choice = field.containing_oneof.name if field.containing_oneof else None
    named = field.message_type or field.enum_type
    return field.number, field.type, field.is_repeated, choice, named.full_name if named else None


def differences(ours: Any, theirs: Any) -> list[str]:
    found = [f.full_name for f in ours.fields if f.name not in theirs.fields_by_name or shape(f) != shape(theirs.fields_by_name[f.name])]
    for inner in ours.nested_types:
        found += differences(inner, theirs.nested_types_by_name[inner.name])
    return found


@pytest.mark.parametrize("name", [n for n in MESSAGES if "." not in n])
def test_a_message_has_the_protocols_fields(name: str) -> None:
    assert differences(CLASSES[name].DESCRIPTOR, THEIRS[name]) == []


def test_requests_and_replies_of_inference_have_all_of_the_protocols_fields() -> None:
    unknown = {"response_stats"}  # of models that answer more than once, in newer clients: there are none here
    for name in ("ModelInferRequest", "ModelInferResponse", "ModelStreamInferResponse", "InferParameter", "ModelStatistics"):
        assert set(CLASSES[name].DESCRIPTOR.fields_by_name) == set(THEIRS[name].fields_by_name) - unknown


def test_methods_and_data_types_are_the_protocols() -> None:
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == SERVICE
    for name in METHODS:
        method = service.methods_by_name[name]
        assert (method.input_type.name, method.output_type.name) == (f"{name}Request", f"{name}Response")
    values = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    assert all(values[name].number == number for name, number in DATA_TYPES.items())


def test_a_message_of_the_client_is_read_and_our_reply_by_the_client() -> None:
    request = service_pb2.ModelInferRequest(model_name="m", id="1", raw_input_contents=[b"abcd"])
    request.parameters["sequence_id"].int64_param = 7
    found = CLASSES["ModelInferRequest"].FromString(request.SerializeToString())
    assert (found.model_name, found.parameters["sequence_id"].int64_param, list(found.raw_input_contents)) == ("m", 7, [b"abcd"])
    reply = CLASSES["ModelStreamInferResponse"](error_message="no", infer_response=CLASSES["ModelInferResponse"](id="1"))
    assert service_pb2.ModelStreamInferResponse.FromString(reply.SerializeToString()).infer_response.id == "1"


def test_half_precision_comes_as_bytes_alone() -> None:
    asked = CLASSES["ModelInferRequest"](model_name="m", raw_input_contents=[b"\0\0"])
    asked.inputs.add(name="x", datatype="FP16", shape=[1, 1])
    assert read(asked).inputs[0].raw == b"\0\0"
    del asked.raw_input_contents[:]
    asked.inputs[0].contents.fp32_contents.append(0)
    with pytest.raises(BadInput, match="input 'x': expected numbers of FP16 in raw_input_contents"):
        read(asked)
