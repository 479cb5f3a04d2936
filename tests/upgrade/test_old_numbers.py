"""An imported network of numbers is a tensor model, takes every request that 0.1.0 took for it, and answers what 0.1.0 answered."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from asking import NEAR, Service, serving
from old_numbers import ALL, BODIES, DIGESTED, FOLDER, OPENED, STEPS, F, J, X, ask_all, hidden, persons

from indrnn.__main__ import main
from indrnn.export.bundle import Bundle, Manifest, read
from indrnn.service.errors import BadInput, OutOfRange
from indrnn.service.serving.steps import StepOptions, native_step, options_key
from indrnn.service.serving.tensor import TensorModality

ROOT = Path(__file__).parent.parent.parent
WRITTEN = (FOLDER / "told.json").read_text()
TOLD: dict[str, Any] = json.loads(WRITTEN)
WAYS = ("then", "now")  # imported by 0.1.0, whose state has the last frame, and as it is imported now, whose has not


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The bundle of 0.1.0's checkpoint, and of their weights as they are imported now."""
    folder = tmp_path_factory.mktemp("numbers")
    checkpoints = {"then": FOLDER / "imported.pt", "now": folder / "ours.pt"}
    assert main(["import", str(FOLDER / "theirs.pt"), "--out", str(checkpoints["now"]), "--numbers"]) == 0
    for way in WAYS:
        assert main(["export", str(checkpoints[way]), str(folder / "bundles"), "--name", way]) == 0
    return {way: read(folder / "bundles" / way / "1") for way in WAYS}


@pytest.fixture(scope="module")
def service(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    env = {"INDRNN_BUNDLES": str(bundles["now"].graph.parents[2]), "INDRNN_STORE": str(folder / "sessions.db")}
    with serving(["-m", "indrnn", "serve"], ROOT, folder, **env) as running:
        yield running


@pytest.fixture
def manifest(bundles: dict[str, Bundle]) -> Manifest:
    return bundles["now"].manifest


def told_as(got: Any, expected: Any) -> None:
    """Asserts that a reply has all that 0.1.0's had, numbers nearly."""
    if isinstance(expected, dict):
        assert set(got) >= set(expected)
        for name, value in expected.items():
            told_as(got[name], value)
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            told_as(one, other)
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, rel=1e-4, abs=NEAR["abs"])
    else:
        assert got == expected


@pytest.mark.parametrize("way", WAYS)
def test_every_form_that_the_old_service_took_is_answered_as_it_did(service: Service, way: str) -> None:
    got = ask_all(service, way)
    want = json.loads(WRITTEN.replace('"model": "numbers"', f'"model": "{way}"'))
    assert set(got) == set(want) - {"digests"}
    for name, told in got.items():
        told_as(told, want[name])


def test_they_are_told_apart_from_each_other_by_what_they_ask() -> None:
    """What was recorded tells joints that are held and other rates from plain clips; else it would prove nothing."""
    scores = [round(TOLD[name]["predictions"][0]["score"], 4) for name in ("joints", "null", "null at first", "slower", "quicker")]
    assert len(set(scores)) == 5
    assert [told[2] for told in TOLD["resampled"]] == [3, 5, 6, 9]  # in the client's frames
    assert not [name for name, (status, code, field) in TOLD["refused"].items() if status != 422 or not code or not field]
    assert len(TOLD["refused"]) == 8


@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_the_same_in_either_of_its_forms_and_another_conflicts(service: Service, way: str) -> None:
    ident = service.post("/sessions", {"model": way}).json()["session_id"]
    body = {"session_id": ident, "step": 1, "top_k": 2, "hz": 30}
    first = service.post("/predict", {**body, "sequences": [X[:4]]}).json()
    again = service.post("/predict", {**body, "sequences": [persons(X[:4])], "layout": "numbers"}).json()
    assert again == first
    opened = {"type": "open", "session_id": ident, "top_k": 2, "hz": 30}
    over_stream = service.stream(way, [opened, {"type": "step", "step": 1, "frames": X[:4]}])[-1]
    assert over_stream["predictions"] == first["predictions"]
    other = service.post("/predict", {**body, "sequences": [hidden(X[:4], (1, 0))]})
    assert (other.status_code, other.json()["code"]) == (409, "step_conflict")
    rate = service.post("/predict", {**body, "step": 2, "hz": 20, "sequences": [X[:4]]})
    assert (rate.status_code, rate.json()["field"]) == (422, "hz")


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_the_same_numbers_and_are_taken_beside_the_old_form(service: Service, way: str) -> None:
    rows = np.reshape(X[:9], (9, -1))[:, :F].tolist()
    for body in BODIES["joints"], BODIES["slower"]:
        asked = {"model": way, **ALL, **body}
        want = service.post("/predict", asked).json()["predictions"][0]["score"]
        assert service.post("/predict", {**asked, "sequences": [rows]}).json()["predictions"][0]["score"] == pytest.approx(want, abs=1e-6)
    steps = [{"type": "step", "step": 1, "values": rows[:4]}, {"type": "step", "step": 2, "frames": X[4:9]}]
    told = service.stream(way, [{"type": "open"}, *steps])[-1]
    want = service.post("/predict", {"model": way, **BODIES["joints"]}).json()
    assert told["predictions"][0]["score"] == pytest.approx(want["predictions"][0]["score"], abs=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_state_goes_to_another_session_with_the_joints_it_holds_also_where_they_are_far_from_0(service: Service, way: str) -> None:
    far = [[[500.0, -3.0, 1e4], [2.0, 3.0, 0.0]]]
    ident = service.post("/sessions", {"model": way}).json()["session_id"]
    assert service.post("/predict", {"session_id": ident, "sequences": [far]}).status_code == 200
    fork = service.post(f"/sessions/{ident}/fork", {}).json()["session_id"]
    replies = [service.post("/predict", {"session_id": i, "step": 2, "sequences": [[[None, [1, 2, 3]]]]}).json() for i in (ident, fork)]
    assert replies[0]["predictions"] == replies[1]["predictions"]
    state = service.get(f"/sessions/{ident}/state").content
    moved = httpx.post(f"{service.url}/sessions", content=state, headers={"Content-Type": "application/octet-stream"}, timeout=60)
    assert moved.status_code == 201, moved.text


def test_a_step_has_the_digest_that_the_old_service_kept(manifest: Manifest) -> None:
    modality = TensorModality(manifest, 5_000, 1_024)
    found = []
    for clip, hz, top_k, every in DIGESTED:
        key = options_key(modality.field, StepOptions(hz, top_k, every))
        found.append(native_step("s", "", 1, modality.read(clip, None, hz, "x"), key).digest.hex())
    assert found == TOLD["digests"]
    assert len(set(found)) == 2


def test_many_messages_at_once_are_read_as_each_alone(manifest: Manifest) -> None:
    modality = TensorModality(manifest, 9, 9)
    rows = np.reshape(X[:3], (3, -1))[:, :F].tolist()
    for values in ([X[:2], X[2:5]], [rows, rows[:1]]):
        together = modality.read_alike(values, "numbers", [None, 15.0])
        for value, hz, got in zip(values, (None, 15.0), together, strict=True):
            want = modality.read(value, "numbers", hz, "x")
            assert got is not None
            assert (type(got), got[1:]) == (type(want), want[1:])
            np.testing.assert_array_equal(got.x, want.x)
    for odd in ([X[:2], rows], [[]], [hidden(X[:2], (0, 0))], [persons(X[:2])], [X[:10]], [[[1.0] * (F - 1)]], [[[[1e39] * 3] * J]]):
        assert not any(modality.read_alike(odd, None, [None] * len(odd)))


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        ([[[1, 2, 3], [4]]], "x[0][1]", "expected three numbers, or null, got 1 elements"),
        ([[[1, 2, 3], 4]], "x[0][1]", "expected a list of three numbers, or null, got 4"),
        ([[[1, 2, 3]]], "x[0]", "expected 2 joints, got 1"),
        ([[[1, 2, 3], [4, True, 6]]], "x[0][1][1]", "expected a number, got true"),
        ([[[1, 2, 3], [4, 5, 1e39]]], "x[0][1][2]", "within float32"),
        ([X[0], [1, 2, 3, 4]], "x[1]", "expected 2 joints, got 4"),
        ([X[0], [1, 2]], "x[1][0]", "expected a list of three numbers, or null, got 1"),
        ([[X[0], X[1]]], "x[0]", "expected at most 1, got 2 persons"),
        ([persons(X[:1])[0], X[1]], "x[1]", "expected 1 as in the first step, got 2 persons"),
        ([[X[0]], [X[1], X[2]]], "x[1]", "expected 1 as in the first step, got 2 persons"),
        ([[1, 2, 3, 4], X[0]], "x[1]", "expected 4 numbers, got 2"),
    ],
)
def test_what_fits_neither_form_is_refused_with_its_place(manifest: Manifest, value: Any, field: str, says: str) -> None:
    with pytest.raises((BadInput, OutOfRange), match=re.escape(says)) as refused:
        TensorModality(manifest, 9, 9).read(value, None, None, "x")
    assert refused.value.field == field


@pytest.mark.parametrize(("way", "hz", "kept"), [("then", 30.0, True), ("now", None, False)])
def test_its_card_speaks_of_numbers_and_both_ways_name_the_same_features(
    bundles: dict[str, Bundle], way: str, hz: float | None, kept: bool
) -> None:
    m = bundles[way].manifest
    assert (m.modality, m.layout, [f.name for f in m.features or ()]) == ("tensor", "numbers", ["0", "1", "2", "3"])
    assert not re.search("skelet|metre|person|camera", (bundles[way].graph.parent / "CARD.md").read_text())
    assert (m.hz, m.part("last_frame") is not None) == (hz, kept)


def test_all_that_is_asked_of_a_stream_is_in_one_opening() -> None:
    assert OPENED.keys() >= {"layout", "hz", "top_k", "every"}
    assert {protocol for steps in STEPS.values() for protocol, _ in steps} == {"predict", "stream"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"persons": None}, "layout: expected persons"),
        ({"layout": "others"}, "layout: expected persons"),
        ({"hz": 0.5}, "hz: expected from 1 to 1000 in 0.1.0's form of requests, got 0.5"),
        ({"layouts": {"numbers": {"joint_names": ["a", "b"], "table": [[0], [0, 1]]}}}, "layouts.numbers.table: expected 2 joints"),
    ],
)
def test_a_manifest_whose_old_form_makes_no_sense_is_refused(manifest: Manifest, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Manifest.model_validate({**manifest.model_dump(), **changes})
