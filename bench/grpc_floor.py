"""A service whose gRPC answers every step with the same bytes at once: what any service on Python's gRPC can answer at most.

python bench/grpc_floor.py    then PORT and INDRNN_GRPC_PORT as for `indrnn serve`; a load tool asks it

Nothing is read of a request but its id, nothing is run or stored. The load tool looks at the statistics, so these grow.
"""

import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from indrnn.__main__ import main
from indrnn.service.oip import describe
from indrnn.service.oip import grpc as oip_grpc
from indrnn.service.oip.protocol import METHODS, SERVICE
from indrnn.service.serving.models import ServedModel

LOGITS = 27  # of `action` 1
told = describe.statistics
asked = [0]


class ConstantService(oip_grpc.InferenceService):
    """The protocol's service, which describes its models and answers nothing but zeros."""

    def handler(self) -> grpc.GenericRpcHandler:
        """Return every method; those of steps take and give bytes."""
        reply = self._classes["ModelInferResponse"](model_name="action", model_version="1")
        reply.outputs.add(name="logits", datatype="FP32", shape=[1, 1, LOGITS])
        reply.raw_output_contents.append(np.zeros(LOGITS, np.float32).tobytes())
        constant, read = reply.SerializeToString(), self._classes["ModelInferRequest"].FromString

        async def answer(data: bytes, context: Any) -> bytes:
            asked[0] += 1
            ident = read(data).id.encode()
            if len(ident) > 127:
                raise ValueError(f"expected an id of at most 127 bytes, got {len(ident)}")  # more is a length of two bytes
            return bytes(constant + b"\x1a" + bytes([len(ident)]) + ident)  # the field `id` behind the others

        handlers = {name: self._unary(name) for name in METHODS}
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(answer, None, None)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)


async def statistics(model: ServedModel) -> dict[str, Any]:
    """Return statistics in which every request was answered."""
    said: dict[str, Any] = await told(model)
    took = {"count": asked[0], "ns": asked[0]}
    kinds = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    return said | {"inference_count": asked[0], "execution_count": asked[0], "inference_stats": dict.fromkeys(kinds, took)}


if __name__ == "__main__":
    oip_grpc.InferenceService = ConstantService  # type: ignore[misc]  # `serve_grpc` looks it up there
    describe.statistics = statistics
    sys.exit(main(["serve"]))
