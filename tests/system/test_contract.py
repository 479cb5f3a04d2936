"""Whatever is sent, also nonsense, is answered as openapi.yaml says: no 500, no status or shape that is not described."""

import pytest
import schemathesis
from conftest import ROOT, Server
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
schema = schemathesis.openapi.from_path(ROOT / "openapi.yaml")


@pytest.fixture(scope="module")
def living(server: Server) -> list[str]:
    """Sessions that exist, for requests to meet."""
    wishes = ({"model": "action"}, {"model": "chars"}, {"model": "chars", "keep": 3})
    return [server.post("/sessions", wish).json()["session_id"] for wish in wishes]


@schema.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_answer_is_one_that_is_described(case: Case, server: Server, living: list[str]) -> None:
    refused = case.path.startswith("/v2/repository/models/")  # loading by command: 501 is all it says, and is described
    case.call_and_validate(base_url=server.url, checks=CHECKS[1:] if refused else CHECKS, timeout=60)
    if "session_id" in case.path_parameters and case.method != "DELETE":
        for ident in living:
            case.path_parameters["session_id"] = ident
            case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)
