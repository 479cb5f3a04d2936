"""The HTTP calls' core: when a request is sent again, and what errors become."""

import json
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from indrnn.client import calls
from indrnn.client.commands import HttpRequest, HttpResponse, Lost, Plan, R, Sleep
from indrnn.client.errors import (
    BadInput,
    ConnectionLost,
    DeadlineExceeded,
    NotFound,
    ProtocolError,
    Refused,
    SessionExpired,
    StepGap,
    Unavailable,
    refused,
)
from indrnn.client.patience import Patience

INFO = {"session_id": "s", "model": "m", "version": "1", "step": 2, "position": 9, "created_at": "then", "expires_at": "later"}
PREDICTED = {"model": "m", "version": "1", "predictions": [{"label": "a", "score": 1.0, "top": [], "frames": 2}]}
LOST, UNSENT = Lost(ConnectionError("reset")), Lost(ConnectionError("refused"), sent=False)


def answer(status: int, body: Any, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, json.dumps(body).encode())


def run(plan: Plan[R], outcomes: Iterable[object], slept: list[float] | None = None) -> tuple[R, list[HttpRequest]]:
    """The plan's result, and the calls it made; the last outcome is repeated."""
    left, sent, outcome = list(outcomes), [], None
    while True:
        try:
            command = plan.send(outcome)
        except StopIteration as end:
            return end.value, sent
        if isinstance(command, Sleep):
            clock[0] += command.seconds
            if slept is not None:
                slept.append(command.seconds)
            outcome = None
        else:
            assert isinstance(command, HttpRequest)
            sent.append(command)
            outcome = left.pop(0) if len(left) > 1 else left[0]


clock = [0.0]


def patience(seconds: float = 60) -> Patience:
    return Patience(seconds, lambda: clock[0], Random(0))


def test_a_call_is_sent_again_until_it_is_answered_and_waits_as_long_as_it_is_told() -> None:
    slept: list[float] = []
    busy = HttpResponse(503, {"retry-after": "7"}, b'{"code": "overloaded", "detail": "full"}')
    bare = HttpResponse(502, {}, b"<html>")
    info, sent = run(calls.look("s", patience()), [UNSENT, LOST, busy, bare, answer(200, INFO)], slept)
    assert (info.step, info.position) == (2, 9)
    assert {(c.method, c.path) for c in sent} == {("GET", "/sessions/s")}
    assert len(sent) == 5
    assert slept[2] >= 7


@pytest.mark.parametrize(("options", "again"), [({}, True), ({"session_id": "s", "step": 3}, True), ({"session_id": "s"}, False)])
def test_a_step_without_number_is_not_sent_again_once_the_server_may_have_seen_it(options: dict[str, object], again: bool) -> None:
    assert len(run(calls.predict([], options, patience()), [UNSENT, answer(200, PREDICTED)])[1]) == 2
    if again:
        assert len(run(calls.predict([], options, patience()), [LOST, answer(200, PREDICTED)])[1]) == 2
        return
    with pytest.raises(ConnectionLost):
        run(calls.predict([], options, patience()), [LOST, answer(200, PREDICTED)])


def test_gone_at_a_second_delete_means_that_the_first_has_done_it() -> None:
    gone = answer(410, {"code": "session_expired", "detail": "gone"})
    run(calls.delete("s", patience()), [LOST, gone])
    with pytest.raises(SessionExpired):
        run(calls.delete("s", patience()), [gone])


def test_what_stays_unavailable_is_the_cause_of_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        run(calls.models(patience(20)), [answer(503, {"code": "stopping", "detail": "bye"})])
    assert isinstance(caught.value.__cause__, Unavailable)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(404, {"code": "unknown_session", "detail": "none"}), NotFound),
        (answer(409, {"code": "step_gap", "detail": "gap", "expected_step": 4}), StepGap),
        (answer(422, {"code": "invalid_input", "detail": "no", "field": "model"}), BadInput),
        (HttpResponse(404, {}, b"<html>"), Refused),
        (HttpResponse(200, {}, b"<html>"), ProtocolError),
    ],
)
def test_errors_are_raised_at_once_with_what_the_server_said(reply: HttpResponse, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        run(calls.look("s", patience()), [reply])
    if kind is StepGap:
        assert isinstance(caught.value, StepGap)
        assert (caught.value.expected_step, caught.value.status, caught.value.code) == (4, 409, "step_gap")


def test_ids_are_quoted_and_an_empty_one_is_refused() -> None:
    _, sent = run(calls.look("a/b?c", patience()), [answer(200, INFO)])
    assert sent[0].path == "/sessions/a%2Fb%3Fc"
    with pytest.raises(BadInput):
        run(calls.look("", patience()), [answer(200, INFO)])


def test_every_code_of_the_service_has_a_kind_of_its_own() -> None:
    from indrnn.service import errors

    codes = {c.code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ServiceError)}
    plain = {code for code in codes if type(refused({"code": code})) is Refused}
    assert plain <= {"internal", "engine_failed", "body_timeout", "method_not_allowed", "not_supported"}
