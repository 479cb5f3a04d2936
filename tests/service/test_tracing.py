"""What is asked becomes a span: which one is whose, what it is told, and that what nobody waits for any more ends too."""

from typing import Any

import numpy as np
import pytest

from indrnn.service.engine.requests import Delivery, Exact, InferRequest, LookRequest, StepRequest, Ticket
from indrnn.service.errors import Overloaded, StepGap
from indrnn.service.session.machine import Refused, Result, Scores
from indrnn.service.tracing import TimedAnswers, Times, Tracing, _route, digest

pytest.importorskip("opentelemetry.sdk.trace", reason="needs indrnn[otel]")
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

NOTHING = np.zeros(0, np.float32)
PARENT = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


class Port:
    """Stands where a model's engine is."""


@pytest.fixture
def told() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(told: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(told))
    return Tracing(provider)


def step(ident: str = "s", number: int = 1) -> StepRequest:
    return StepRequest(ident, "", number, b"", Exact(np.zeros(3, np.int64)), protocol="stream")


def result(number: int) -> Result[Scores]:
    return Result(number, 3 * number, Scores(NOTHING, NOTHING.reshape(0, 0), NOTHING), None)


def test_a_request_without_a_frame_is_a_span_of_its_own(tracing: Tracing, told: InMemorySpanExporter) -> None:
    tracing.asked([1], Port(), step("ident", 4), tracing.parent(PARENT))  # type: ignore[arg-type]
    tracing.answered(1, result(4), Times(8, 1_000, 2_000))
    tracing.answered(1, result(4), None)  # nobody's
    (span,) = told.get_finished_spans()
    a: Any = span.attributes
    assert (span.name, a["indrnn.step"], a["indrnn.position"], a["indrnn.batch"], a["indrnn.length"]) == ("stream step", 4, 12, 8, 3)
    assert (a["indrnn.run_seconds"], a["indrnn.store_seconds"]) == pytest.approx((1e-6, 2e-6))
    assert a["indrnn.session"] == digest("ident") != "ident"
    assert span.parent is not None
    assert span.parent.span_id == 0x00F067AA0BA902B7


def test_within_a_request_the_answer_leaves_its_attributes_on_that_one(tracing: Tracing, told: InMemorySpanExporter) -> None:
    with tracing.request("POST /predict", {}, {}):
        tracing.asked([1, 2], Port(), InferRequest(Exact(np.zeros(1, np.int64))))  # type: ignore[arg-type]
        for number in (1, 2):
            tracing.answered(number, result(0), None)
    (span,) = told.get_finished_spans()
    assert (span.name, span.attributes["indrnn.request"]) == ("POST /predict", "infer")  # type: ignore[index]
    tracing.asked([3], Port(), LookRequest("s", ""))  # type: ignore[arg-type]
    tracing.answered(3, None, None)
    assert [span.name for span in told.get_finished_spans()] == ["POST /predict", "http look"]


def test_a_span_of_several_tickets_ends_with_the_last(tracing: Tracing, told: InMemorySpanExporter) -> None:
    tracing.asked([1, 2], Port(), step())  # type: ignore[arg-type]
    tracing.answered(1, result(1), None)
    assert not told.get_finished_spans()
    tracing.left([2, 9])
    (span,) = told.get_finished_spans()
    assert span.attributes["indrnn.withdrawn"]  # type: ignore[index]


def test_a_refusal_is_told_and_is_a_fault_where_it_is_ours(tracing: Tracing, told: InMemorySpanExporter) -> None:
    for number, error in enumerate((StepGap("no"), Overloaded("full"))):
        tracing.asked([number], Port(), step())  # type: ignore[arg-type]
        tracing.answered(number, Refused(error), None)
    theirs, ours = told.get_finished_spans()
    assert (theirs.attributes["error.type"], theirs.status.is_ok) == ("step_gap", True)  # type: ignore[index]
    assert (ours.attributes["error.type"], ours.status.is_ok) == ("overloaded", False)  # type: ignore[index]


def test_deliveries_are_timed_by_the_turn_that_made_them() -> None:
    heard: list[Times] = []
    timed = TimedAnswers(lambda deliveries, times: heard.append(times))
    s, some = timed.statistics, [Delivery(Ticket(1, 1), None)]
    timed(some)
    s.noted_runs.append((4, 1, 20, 3, 0.0))
    s.noted.append((s.store, 50))
    timed(some)
    timed(some)  # a turn that ran nothing
    s.noted_runs.append((2, 1, 30, 3, 0.0))
    s.noted.append((s.success, 60))  # and one that committed nothing
    timed(some)
    assert heard == [Times(0, 0, 0), Times(4, 20, 50), Times(0, 0, 0), Times(2, 30, 0)]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/predict", "/predict"),
        ("/sessions", "/sessions"),
        ("/sessions/secret", "/sessions/{session_id}"),
        ("/sessions/secret/state", "/sessions/{session_id}/state"),
        ("/models/action/graph", "/models/{model}/graph"),
        ("/v2/models/action/infer", "/v2/models/{model}/infer"),
        ("/v2/models/action/versions/2/infer", "/v2/models/{model}/versions/{version}/infer"),
        ("/v2/repository/models/x/load", "/v2/repository/load"),
        ("/health/ready", ""),
        ("/metrics", ""),
        ("/", ""),
    ],
)
def test_a_route_holds_nothing_that_a_client_chose(path: str, route: str) -> None:
    assert _route(path) == route
