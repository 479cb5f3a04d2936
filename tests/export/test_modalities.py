"""A modality is one file and one line of a table: its checks, card, sample and fields of the manifest."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_bundle import action_manifest, chars_manifest
from test_story_bundles import sentences_manifest
from tiny import Tiny, meta

from indrnn.export import write
from indrnn.export.bundle import BundleError, Manifest, digest, read
from indrnn.export.card import card
from indrnn.export.errors import ExportError
from indrnn.export.manifest import content
from indrnn.export.modalities.modality import Content, Modality, Sample
from indrnn.export.modalities.table import MODALITIES
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.training.checkpoint import Meta, load, save
from indrnn.service.app import create_application
from indrnn.service.engine.requests import Exact
from indrnn.service.errors import BadInput
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.modalities import MODALITIES as SERVED
from indrnn.service.serving.modality import Options
from indrnn.service.session.machine import Scores
from indrnn.service.settings import Settings

ROOT = Path(__file__).parents[2]
VALUES = [{"name": "level", "unit": "m", "mean": 5.0, "scale": 2.0}, {"name": "flow", "mean": 1e6, "scale": 1.0}]


def tensor_manifest(**changes: Any) -> dict[str, Any]:
    features = [{"name": "pressure", "unit": "Pa", "mean": 1e5, "scale": 50.0}, {"name": "hum"}]
    hidden, last = chars_manifest()["state"]
    values: dict[str, Any] = {"modality": "tensor", "kind": "tensor", "alphabet": None, "features": features, "values": VALUES}
    values |= {
        "answer": "end",
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", "T", 2]}],
        "state": [hidden, {**last, "size": 2}],
    }
    return chars_manifest(**{**values, **changes})


@pytest.mark.parametrize(
    ("streams", "said"),
    [(False, "of whole sequences and says which class they"), (True, "step by step and says, after every step, which class they")],
)
def test_a_card_says_whether_numbers_have_an_answer_at_every_step(streams: bool, said: str) -> None:
    m = Manifest.model_validate(tensor_manifest(streams=streams, values=None, labels=["a", "b"]))
    assert MODALITIES["tensor"].what(m) == f"Reads rows of 2 numbers {said} belong to."


@pytest.mark.parametrize(
    ("told", "modality", "kind", "K"),
    [
        (chars_manifest(), "text", "chars", 3),
        (action_manifest(), "skeleton", "action", 3),
        (tensor_manifest(), "tensor", "tensor", 2),
        ({k: v for k, v in tensor_manifest().items() if k != "kind"}, "tensor", "tensor", 2),
        ({k: v for k, v in chars_manifest(modality="text").items() if k != "kind"}, "text", "chars", 3),
    ],
)
def test_modality_and_kind_say_each_other(told: dict[str, Any], modality: str, kind: str, K: int) -> None:
    m = Manifest.model_validate(told)
    assert (m.modality, m.kind, m.classes) == (modality, kind, K)
    assert Manifest.model_validate_json(m.model_dump_json()) == m


@pytest.mark.parametrize("told", [{"kind": "image"}, {"kind": None}, {"modality": "image"}, {"modality": "skeleton"}, {"modality": 1}])
def test_a_modality_that_is_not_known_or_not_that_kind_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(
        ValidationError, match=r"expected one of skeleton \(action\), text \(chars\), tensor \(tensor\), sentences \(stories\), got"
    ):
        Manifest.model_validate(chars_manifest(**told))


LABELS = {"values": None, "labels": ["a", "b"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": None}, "has features, an answer"),
        ({"features": []}, "has features, an answer"),
        ({"answer": None}, "has features, an answer"),
        ({"answer": "now"}, "answer"),
        ({"values": None}, "either labels or values"),
        ({"labels": ["a", "b"]}, "either labels or values"),
        ({**LABELS, "labels": []}, "expected an answer of one number or more"),
        ({**LABELS, "labels": ["a", "a"]}, "labels: expected different names, got 1 in 2"),
        ({"values": [VALUES[0], VALUES[0]]}, "values: expected different names"),
        ({"features": [{"name": "a"}, {"name": "a"}]}, "features: expected different names"),
        ({"features": [{"name": "a", "scale": 0.0}]}, "greater than 0"),
        ({"alphabet": "ab"}, "neither an alphabet nor"),
        ({**LABELS, "other_below": 0.5}, "neither an alphabet nor"),
        ({"hz": 0}, "steps a second above 0"),
        ({"values": VALUES[:1]}, "last_logits part of 1"),
    ],
)
def test_a_tensor_manifest_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    Manifest.model_validate(tensor_manifest(hz=1e-3))
    Manifest.model_validate(tensor_manifest(**LABELS))
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(tensor_manifest(**changes))


@pytest.mark.parametrize("x", [{"dtype": "int64", "shape": ["B", "T", 2]}, {"dtype": "float32", "shape": ["B", "T", 3]}, None])
def test_a_bundle_whose_x_is_not_its_modalitys_is_refused(tmp_path: Path, x: dict[str, Any] | None) -> None:
    folder = tmp_path / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    told = tensor_manifest(sha256=digest(folder / "model.onnx"))
    (folder / "manifest.json").write_text(Manifest.model_validate(told).model_dump_json())
    read(folder)
    told["inputs"] = [] if x is None else [{"name": "x", **x}]
    (folder / "manifest.json").write_text(Manifest.model_validate(told).model_dump_json())
    with pytest.raises(BundleError, match=r"bundle tiny/1: manifest.json: inputs: expected x, float32 \[B, T, 2\], first, got"):
        read(folder)


def test_a_difference_is_measured_in_each_values_deviation_and_in_what_float32_can_tell() -> None:
    tensor = MODALITIES["tensor"]
    assert tensor.unit(Manifest.model_validate(tensor_manifest())).tolist() == [2.0, 2000.0]
    assert tensor.unit(Manifest.model_validate(tensor_manifest(**LABELS))).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("more", [{}, LABELS, {"answer": "step"}])
def test_a_card_of_numbers_speaks_of_numbers(more: dict[str, Any]) -> None:
    text = card(Manifest.model_validate(tensor_manifest(**more)), "indrnn export")
    assert not re.search(r"skelet|metres|joint|person|camera|alphabet", text, re.IGNORECASE)
    assert "| 0 | pressure | Pa | 100000 | 50 |" in text
    assert ("level in m" in text) == (not more or "answer" in more)


@pytest.mark.parametrize("name", MODALITIES)
def test_made_up_input_has_the_axes_that_the_modality_says(name: str) -> None:
    manifests = {"skeleton": action_manifest, "text": chars_manifest, "tensor": tensor_manifest, "sentences": sentences_manifest}
    m = Manifest.model_validate(manifests[name]())
    modality = MODALITIES[name]
    x = modality.sample(m)(np.random.default_rng(0), 3, 5)
    assert (x.shape, str(x.dtype)) == ((3, 5, *modality.step(m)), modality.dtype)


def test_a_network_of_numbers_that_says_no_features_is_one_line(tmp_path: Path, module: Tiny) -> None:
    with pytest.raises(ExportError, match="expected a network of numbers to state its features"):
        write.write(module, meta(module, kind="tensor", alphabet=None), tmp_path, "tiny", "1", command="")
    with pytest.raises(ExportError, match=r"does not make a manifest: features.0.scale"):
        content(meta(module, kind="tensor", told={"features": [{"name": "a", "scale": -1}]}))


class Beats(Modality):
    """A fourth modality, complete: rows of two whole beats and how loud they are, [B, T, 2, 2]; answers are scores of rhythms."""

    name, kind, reads, fields = "beats", "drum", "drums", ("labels",)

    def check(self, m: Content, state: Mapping[str, int]) -> None:
        if not m.labels:
            raise ValueError("a bundle of beats has labels")

    def step(self, m: Content) -> tuple[int, ...]:
        return (2, 2)

    def answers(self, m: Content) -> int:
        return len(m.labels or ())

    def sample(self, m: Content) -> Sample:
        return lambda rng, B, T: rng.integers(0, 2, (B, T, 2, 2)).astype(np.float32)

    def what(self, m: Content) -> str:
        return "Listens to drums."

    def contract(self, m: Content) -> str:
        return "`x` is two drums."

    def limits(self, m: Content, data: tuple[str, ...]) -> str:
        return "It knows drums."


def test_a_fourth_modality_needs_one_file_on_the_export_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry in the public table, and a checkpoint of its kind, of a network that is there or of one file more: nothing else is told."""
    monkeypatch.setitem(MODALITIES, Beats.name, Beats())
    torch.manual_seed(0)
    net = SequenceNet(SequenceConfig(layers=2, hidden=8, T=20, gamma=0.9, inputs=4, classes=3))
    save(tmp_path / "net.pt", net, Meta("drum", "", 0, 0, labels=("march", "waltz", "swing")))
    module, told = load(tmp_path / "net.pt")
    bundle = write.write(module, told, tmp_path / "bundles", "drums", "1", command="")
    m = bundle.manifest
    assert (m.modality, m.kind, m.labels, m.inputs[0].shape) == ("beats", "drum", ("march", "waltz", "swing"), ("B", "T", 2, 2))
    assert read(tmp_path / "bundles" / "drums" / "1") == bundle
    text = (bundle.graph.parent / "CARD.md").read_text()
    assert "Listens to drums." in text
    assert "It knows drums." in text


class BeatsReader:
    """The service's side of it: "x." is a beat of the first drum and none of the second."""

    field, old_field, each_step, max_steps = "beats", None, False, 100

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels

    def check_options(self, layout: object, hz: object) -> Options:
        return Options(None, None)

    def read(self, value: object, layout: object, hz: object, field: str) -> Exact:
        if not isinstance(value, str) or not value or set(value) - set("x."):
            raise BadInput("expected beats", field=field)
        hits = np.array([c == "x" for c in value], np.float32)
        return Exact(np.repeat(hits, 4).reshape(-1, 2, 2))

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Any]:
        return [None for _ in values]

    def word(self, answers: Sequence[tuple[Scores, Any]], top_k: int) -> list[dict[str, Any]]:
        return [{"predictions": [{"label": self.labels[int(scores.logits.argmax())], "beats": len(c.x)}]} for scores, c in answers]


async def test_a_fourth_modality_is_served_and_touches_two_tables_beside_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registered in the public table of each side; no other file of ours knows its name."""
    monkeypatch.setitem(MODALITIES, Beats.name, Beats())
    monkeypatch.setitem(SERVED, Beats.name, lambda manifest, limits: BeatsReader(manifest.labels or ()))
    net = SequenceNet(SequenceConfig(layers=2, hidden=8, T=20, gamma=0.9, inputs=4, classes=3))
    save(tmp_path / "net.pt", net, Meta("drum", "", 0, 0, labels=("march", "waltz", "swing")))
    write.write(*load(tmp_path / "net.pt"), tmp_path / "bundles", "drums", "1", command="")
    settings = Settings(store=str(tmp_path / "s.db"), bundles=tmp_path / "bundles", poll=0)
    application = create_application(settings, Backend.open(settings))
    async with application.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(application.asgi), base_url="http://x") as client:
        whole = (await client.post("/predict", json={"model": "drums", "sequences": ["x..x", "x"]})).json()
        assert [p["beats"] for p in whole["predictions"]] == [4, 1]
        ident = (await client.post("/sessions", json={"model": "drums"})).json()["session_id"]
        for n, piece in enumerate(("x.", ".x"), 1):
            told = (await client.post("/predict", json={"sequences": [piece], "session_id": ident, "step": n})).json()
        assert told["predictions"][0]["label"] == whole["predictions"][0]["label"]
        assert told["session"] == {"session_id": ident, "step": 2, "position": 4}
        assert (await client.post("/predict", json={"model": "drums", "sequences": ["?"]})).json()["field"] == "sequences[0]"
    tables = ("export/modalities/table.py", "service/serving/modalities.py")
    assert len(tables) <= 3
    ours = [p for top in ("export", "model", "service") for p in (ROOT / top).rglob("*.py")]
    assert [p for p in ours if re.search("beats|drums?", p.read_text(), re.IGNORECASE)] == []
    assert all((ROOT / table).exists() for table in tables)


def test_no_file_but_a_modalitys_own_asks_which_one_it_is() -> None:
    names = "|".join(sorted({m.name for m in MODALITIES.values()} | {m.kind for m in MODALITIES.values()}))
    asks = re.compile(rf"""(kind|modality)\s*(==|!=|in)\s*[\[("']*({names})\b""")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for top in ("export", "model", "service")
        for path in (ROOT / top).rglob("*.py")
        if path.parent.name != "modalities" and path.parent.name != "serving"
        for line in path.read_text().splitlines()
        if asks.search(line)
    ]
    assert not found
    assert asks.search('if m.kind == "action":')
    assert asks.search("elif meta.modality in ('skeleton', 'text'):")


def test_a_card_of_text_names_its_blanks_and_says_what_stands_for_the_rest():
    text = MODALITIES["text"]
    plain = Content(modality="text", kind="chars", alphabet="\n ab")
    assert text.sections(plain) == ["## Alphabet\n\nBlank, newline, and: `a` `b`"]
    assert "lacks" not in text.contract(plain)
    wider = Content(modality="text", kind="chars", alphabet="\t\n `\xa0\ufffd", unknown="\ufffd")
    assert text.sections(wider) == ["## Alphabet\n\nBlank, newline, tabulator, and: `` ` `` U+00A0, and U+FFFD for all others"]
    assert "Index 5 is every character that the alphabet lacks" in text.contract(wider)
    with pytest.raises(ValueError, match="unknown: expected a symbol of the alphabet"):
        text.check(Content(modality="text", kind="chars", alphabet="ab", unknown="\ufffd"), {})
