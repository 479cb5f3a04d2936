"""Below the score that a bundle states, an answer is `other`, whatever came first."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from indrnn.export.bundle import Manifest
from indrnn.service.engine.requests import Frames
from indrnn.service.serving.skeleton import SkeletonModality
from indrnn.service.session.machine import Scores


def told(**changes: Any) -> Manifest:
    return Manifest.model_validate(json.loads(Path("bundles/action/1/manifest.json").read_text()) | changes)


def answer(manifest: Manifest, score: float) -> dict[str, Any]:
    """What is answered when class 2 has the score and the others share the rest."""
    rest = (1 - score) / (manifest.classes - 1)
    logits = np.log(np.full(manifest.classes, rest, np.float32))
    logits[2] = np.log(score)
    clip = Frames(np.zeros((30, 1, 1, 3), np.float32), None)
    (words,) = SkeletonModality(manifest, 5_000).word([(Scores(logits, logits[:0], logits[:0]), clip)], 2)
    (prediction,) = words["predictions"]
    return dict(prediction)


@pytest.mark.parametrize(("below", "score", "label"), [(0.6, 0.59, "other"), (0.6, 0.61, "wave"), (None, 0.06, "wave")])
def test_an_answer_is_other_below_the_score_that_the_bundle_states(below: float | None, score: float, label: str) -> None:
    found = answer(told(other_below=below), score)
    assert found["label"] == label
    assert found["score"] == pytest.approx(score, abs=1e-5)
    assert found["top"][0]["label"] == "wave"


@pytest.mark.parametrize("wrong", [{"other_below": 1.0}, {"other_below": 0.0}])
def test_a_threshold_that_calls_all_or_nothing_other_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="other_below"):
        told(**wrong)


def test_a_class_may_not_be_called_other_where_other_has_a_meaning() -> None:
    m = told()
    assert m.labels is not None
    labels = ["other", *m.labels[1:]]
    assert told(labels=labels, other_below=None).labels is not None
    with pytest.raises(ValidationError, match="scores below other_below"):
        told(labels=labels, other_below=0.5)
