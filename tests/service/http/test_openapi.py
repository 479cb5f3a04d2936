"""openapi.yaml is what the app says, and says enough."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import yaml

from indrnn.export.bundle import read
from indrnn.service.app import create_app
from indrnn.service.http.routes import _model_info
from indrnn.service.oip.http import OPERATIONS
from indrnn.service.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def app_document() -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(orjson.dumps(create_app(Settings()).openapi()))
    return document


def test_the_committed_file_is_what_the_app_says(app_document: dict[str, Any]) -> None:
    assert yaml.safe_load((ROOT / "openapi.yaml").read_text()) == app_document, "run `make openapi`"


def test_what_a_model_is_described_by_is_in_the_document_and_a_delay_too(app_document: dict[str, Any]) -> None:
    manifest = read(ROOT / "bundles" / "action" / "2").manifest.model_copy(update={"delay": 3})
    modality = SimpleNamespace(field="values", max_steps=1)
    model: Any = SimpleNamespace(manifest=manifest, modality=modality, provider="cpu", kernel="")
    (told,) = _model_info([model], Settings(), full=True)["versions"]  # type: ignore[misc,union-attr]
    described = app_document["components"]["schemas"]["VersionInfo"]["properties"]
    assert told.keys() == described.keys()
    assert told["delay"] == 3
    assert "late" in described["delay"]["description"]


def test_every_route_of_the_app_is_described_with_its_errors(app_document: dict[str, Any]) -> None:
    assert {path for path in app_document["paths"] if not path.startswith("/v2")} == {
        "/predict",
        "/explain",
        "/models",
        "/models/{name}",
        "/models/{name}/graph",
        "/sessions",
        "/sessions/{session_id}",
        "/sessions/{session_id}/state",
        "/sessions/{session_id}/fork",
        "/sessions/{session_id}/reset",
        "/sessions/{session_id}/rewind",
        "/sessions/{session_id}/mark",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/v1/completions",
        "/v1/models",
        "/v1/models/{model}",
    }
    for path, methods in app_document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (path, method)
            errors = {code for code in operation["responses"] if int(code) >= 400}
            assert errors or path.startswith(("/health", "/models", "/v1/models", "/v2")), (path, method)
            shape = "application/json" if path.startswith(("/v1/", "/v2")) else "application/problem+json"
            for code in errors:
                assert operation["responses"][code]["content"].keys() == {shape}, (path, method, code)


def test_every_path_of_the_inference_protocol_is_described(app_document: dict[str, Any]) -> None:
    described = {path for path in app_document["paths"] if path.startswith("/v2")}
    assert len(described) == 17
    of_models = {p.removeprefix("/v2/models/{name}") for p in described if p.startswith("/v2/models/{name}") and "versions" not in p}
    assert of_models == {f"/{o}" if o else "" for o in OPERATIONS}


def test_every_reference_exists(app_document: dict[str, Any]) -> None:
    text = orjson.dumps(app_document).decode()
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in app_document["components"]["schemas"]


def test_the_bodies_have_examples_and_the_limits_are_told(app_document: dict[str, Any]) -> None:
    schemas = app_document["components"]["schemas"]
    assert all("example" in schemas[name] for name in ("PredictRequest", "PredictResponse", "OpenRequest", "SessionInfo", "Problem"))
    for limit in ("16777216 bytes", "5000 frames", "256 clips", "100000 characters", "4096 characters"):
        assert limit in app_document["info"]["description"]
