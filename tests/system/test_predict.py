"""POST /predict as a client uses it."""

from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, Server, scores

ALL = 1000


def test_a_real_clip_is_answered_as_the_contract_says(server: Server, clips: list[Any]) -> None:
    reply = server.post("/predict", {"sequences": clips[:3], "top_k": 3})
    assert reply.status_code == 200
    body = reply.json()
    assert set(body) == {"model", "version", "predictions"}
    assert (body["model"], len(body["predictions"])) == ("action", 3)
    for prediction, clip in zip(body["predictions"], clips, strict=False):
        assert set(prediction) == {"label", "score", "top", "frames"}
        assert prediction["frames"] == len(clip)
        assert [t["score"] for t in prediction["top"]] == sorted((t["score"] for t in prediction["top"]), reverse=True)
        best = prediction["top"][0]
        assert prediction["score"] == best["score"]
        assert prediction["label"] in (best["label"], "other")


def test_top_k_above_the_classes_means_all_and_scores_add_up(server: Server, clips: list[Any]) -> None:
    top = server.post("/predict", {"sequences": clips[:1], "top_k": ALL}).json()["predictions"][0]["top"]
    assert len(top) == CLASSES
    assert sum(t["score"] for t in top) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [1, 7, 30])
def test_a_clip_in_chunks_ends_in_the_same_scores(server: Server, clips: list[Any], size: int) -> None:
    for clip in clips[:4]:
        whole = scores(server.post("/predict", {"sequences": [clip], "top_k": ALL}).json()["predictions"][0])
        ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
        for step, at in enumerate(range(0, len(clip), size), 1):
            body = {"sequences": [clip[at : at + size]], "top_k": ALL, "session_id": ident, "step": step}
            reply = server.post("/predict", body).json()
        assert reply["session"] == {"session_id": ident, "step": step, "position": len(clip)}
        chunked = scores(reply["predictions"][0])
        assert max(abs(chunked[k] - whole[k]) for k in whole) <= 1e-4


def test_a_clip_alone_scores_as_in_company(server: Server, clips: list[Any]) -> None:
    together = server.post("/predict", {"sequences": clips[:8], "top_k": ALL}).json()["predictions"]
    for clip, prediction in zip(clips[:8], together, strict=True):
        alone = scores(server.post("/predict", {"sequences": [clip], "top_k": ALL}).json()["predictions"][0])
        assert max(abs(alone[k] - v) for k, v in scores(prediction).items()) <= 1e-4


def test_layouts_are_mapped(server: Server, clips: list[Any]) -> None:
    own = server.post("/predict", {"sequences": clips[:1], "top_k": ALL}).json()["predictions"][0]
    layouts = server.get("/models/action").json()["versions"][0]["layouts"]
    utd, kinect = layouts["utd20"]["joint_names"], layouts["kinect20"]["joint_names"]
    order = [utd.index(name) for name in kinect]
    sent = [[frame[j] for j in order] for frame in clips[0]]
    mapped = server.post("/predict", {"sequences": [sent], "layout": "kinect20", "top_k": ALL}).json()["predictions"][0]
    assert scores(mapped) == pytest.approx(scores(own), abs=1e-5)
    wide = server.post("/predict", {"sequences": [np.zeros((2, 25, 3)).tolist()], "layout": "ntu25"})
    assert wide.status_code == 200


def test_a_person_axis_changes_nothing(server: Server, clips: list[Any]) -> None:
    flat = server.post("/predict", {"sequences": clips[:1]}).json()["predictions"]
    assert server.post("/predict", {"sequences": [[[frame] for frame in clips[0]]]}).json()["predictions"] == flat


def test_another_rate_is_resampled_and_may_be_sent_in_pieces(server: Server, clips: list[Any]) -> None:
    clip = np.array(clips[0])
    double = np.repeat(clip, 2, 0)
    double[1:-1:2] = (clip[1:] + clip[:-1]) / 2  # the frames between
    own = scores(server.post("/predict", {"sequences": [clip.tolist()], "top_k": ALL}).json()["predictions"][0])
    fast = server.post("/predict", {"sequences": [double.tolist()], "hz": 60, "top_k": ALL}).json()["predictions"][0]
    assert fast["frames"] == len(double)
    assert scores(fast) == pytest.approx(own, abs=1e-4)
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    for at in range(0, len(double), 5):
        reply = server.post("/predict", {"sequences": [double[at : at + 5].tolist()], "hz": 60, "top_k": ALL, "session_id": ident}).json()
    assert scores(reply["predictions"][0]) == pytest.approx(own, abs=1e-4)
    changed = server.post("/predict", {"sequences": [clip.tolist()], "hz": 30, "session_id": ident})
    assert (changed.status_code, changed.json()["field"]) == (422, "hz")
    assert server.get(f"/sessions/{ident}").json()["position"] == len(double)


def test_a_joint_not_seen_holds_its_place(server: Server, walk: list[Any]) -> None:
    held = [list(frame) for frame in walk]
    with_null = [list(frame) for frame in walk]
    for t in range(20, 30):
        held[t][7] = walk[19][7]
        with_null[t][7] = None
    expected = server.post("/predict", {"sequences": [held], "top_k": ALL}).json()["predictions"]
    assert server.post("/predict", {"sequences": [with_null], "top_k": ALL}).json()["predictions"] == expected
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    for at in (0, 25, 50):
        reply = server.post("/predict", {"sequences": [with_null[at : at + 25]], "top_k": ALL, "session_id": ident}).json()
    assert scores(reply["predictions"][0]) == pytest.approx(scores(expected[0]), abs=1e-4)


def test_a_repeated_step_is_answered_from_the_store_and_advances_nothing(server: Server, walk: list[Any]) -> None:
    ident = server.post("/sessions", {"model": "action"}).json()["session_id"]
    body = {"sequences": [walk], "session_id": ident, "step": 1}
    first = server.post("/predict", body)
    assert server.post("/predict", body).content == first.content
    other = server.post("/predict", {**body, "sequences": [walk[:5]]})
    assert (other.status_code, other.json()["code"]) == (409, "step_conflict")
    gap = server.post("/predict", {**body, "step": 3})
    assert (gap.status_code, gap.json()["code"], gap.json()["expected_step"]) == (409, "step_gap", 2)
    assert server.get(f"/sessions/{ident}").json()["position"] == len(walk)
