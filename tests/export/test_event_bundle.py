"""Bundles of networks that detect: the events are told by the file itself, the same in any pieces, and the manifest states when."""

from pathlib import Path

import numpy as np
import pytest
from detecting import LABELS, bodies, meta, network
from pydantic import ValidationError

from indrnn.export.bundle import Manifest
from indrnn.export.write import write
from indrnn.kernels.runtime import ort
from indrnn.model.training.checkpoint import load, save


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("events")
    save(folder / "model.pt", network(), meta())
    module, told = load(folder / "model.pt")
    return write(module, told, folder / "bundles", "detect", "1", command="indrnn export")


def test_the_manifest_states_the_hysteresis_and_the_card_explains_it(bundle) -> None:
    m = bundle.manifest
    assert m.events is not None
    assert m.events.model_dump() == {"on": 0.5, "off": 0.3, "least": 2, "pause": 3}
    assert (m.labels, m.classes, m.part("event").size) == (LABELS, len(LABELS) + 3, 6)
    assert "at least 0.5 for 2 steps in a row" in (bundle.graph.parent / "CARD.md").read_text()


def test_any_split_of_a_stream_tells_the_same_events(bundle) -> None:
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    x = bodies(2, 300)

    def run(pieces: list[int]) -> np.ndarray:
        state, told, at = np.zeros((2, bundle.manifest.state_size), np.float32), [], 0
        for n in pieces:
            logits, state = session.run(["logits", "state_out"], {"x": x[:, at : at + n], "lengths": np.full(2, n), "state": state})
            told.append(logits[:, :, -3:])
            at += n
        return np.concatenate(told, 1)

    whole = run([300])
    assert (whole[..., 0] > 0).sum() > 10
    for pieces in ([1] * 300, [7] * 42 + [6], [256, 44], [299, 1]):
        np.testing.assert_array_equal(run(pieces)[..., :2], whole[..., :2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"events": None}, "if and only if events are stated"),
        ({"events": {"on": 0.3, "off": 0.4, "least": 1, "pause": 0}}, "expected off of at most on"),
        ({"events": {"on": 1.4, "off": 0.4, "least": 1, "pause": 0}}, "less than or equal to 1"),
        ({"labels": ["nothing"]}, "the first of them nothing"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(bundle, change: dict[str, object], said: str) -> None:
    told = bundle.manifest.model_dump(mode="json", exclude_none=True)
    with pytest.raises(ValidationError, match=said):
        Manifest.model_validate({k: v for k, v in (told | change).items() if v is not None})


def test_a_checkpoint_keeps_its_hysteresis(tmp_path: Path) -> None:
    made = network()
    made.set_hysteresis(0.7, 0.2, 3, 10)
    save(tmp_path / "model.pt", made, meta())
    found, told = load(tmp_path / "model.pt")
    assert (found.hysteresis.on, found.hysteresis.off, found.hysteresis.least, found.hysteresis.pause) == (0.7, 0.2, 3, 10)
    assert told.told["events"] == {"on": 0.7, "off": 0.2, "least": 3, "pause": 10}
    assert found.config == network().config  # the same network: a run goes on with it
