"""An inference request, whatever carried it: what is asked of a model, before the model has looked at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from indrnn.service.engine.requests import ClientProtocol
from indrnn.service.errors import BadInput, said
from indrnn.service.oip.tensors import SentTensor
from indrnn.service.serving.request import MAX_STEP

MAX_UINT64 = 2**64 - 1
LONGEST_ID = 128  # bytes of a text id, as Triton has it
_OURS = "indrnn_"
_NOT_RESERVED = "triton_enable_empty_final_response"  # for streams of many replies per request, which there are none of


class Wanted(NamedTuple):
    """A requested output; binary: as raw bytes behind the JSON."""

    name: str
    binary: bool


@dataclass(slots=True)
class Ask:
    """An inference request. sequence None: without state from request to request; step None: the server counts; timeout in seconds."""

    id: str
    inputs: list[SentTensor]
    outputs: list[Wanted] | None
    sequence: int | str | None = None
    start: bool = False
    end: bool = False
    step: int | None = None
    timeout: float | None = None
    binary: bool = False
    """whether outputs that were not named come as raw bytes"""
    protocol: ClientProtocol = "oip_http"

    @property
    def goes_on(self) -> bool:
        """Return whether it is a step of a sequence that has begun, on whichever version that was."""
        return self.sequence is not None and not self.start

    def take_parameters(self, parameters: Mapping[str, object]) -> None:
        """Read the request's parameters. Raises BadInput for one of a wrong type, a reserved one, and one of ours that is not known."""
        for name, value in parameters.items():
            if name == "sequence_id":
                self.sequence = _sequence(value)
            elif name == "sequence_start":
                self.start = boolean(value, name)
            elif name == "sequence_end":
                self.end = boolean(value, name)
            elif name == "indrnn_step":
                self.step = _whole(value, name, 1, MAX_STEP)
            elif name == "timeout":
                micros = _whole(value, name, 0, MAX_UINT64)
                self.timeout = micros / 1e6 if micros else None
            elif name == "binary_data_output":
                self.binary = boolean(value, name)
            elif name.startswith(_OURS):
                raise BadInput(f"unknown parameter '{name[:80]}', expected indrnn_step")
            elif name.startswith("triton_") and name != _NOT_RESERVED:
                raise BadInput(
                    f"parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified: '{name[:80]}'"
                )

    def check_sequence(self, model: str) -> None:
        """Raises BadInput where something is said of a sequence that is not named."""
        if self.sequence is None and (self.start or self.end or self.step is not None):
            raise BadInput(f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID")


def _sequence(value: object) -> int | str | None:
    """Return a correlation id, text or uint64, its type kept; 0 and "" are none."""
    if isinstance(value, str):
        if len(value.encode("utf-8", "surrogatepass")) > LONGEST_ID:
            raise BadInput(f"string correlation ID: expected at most {LONGEST_ID} bytes, got {len(value.encode('utf-8', 'surrogatepass'))}")
        return value or None
    if type(value) is not int or not 0 <= value <= MAX_UINT64:
        raise BadInput(f"parameter 'sequence_id': expected a text or a whole number from 0 to 2^64 - 1, got {said(value)}")
    return value or None


def boolean(value: object, name: str) -> bool:
    """Return true or false. Raises BadInput."""
    if value is not True and value is not False:
        raise BadInput(f"parameter '{name}': expected true or false, got {said(value)}")
    return value


def _whole(value: object, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise BadInput(f"parameter '{name}': expected a whole number from {low} to {high}, got {said(value)}")
    return value
