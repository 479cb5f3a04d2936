"""`indrnn export`: a whole bundle, or none and a line that says why."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from tiny import ALPHABET, STATE, Backwards, Forgetful, K, Tiny, meta

from indrnn.__main__ import main
from indrnn.export import command, folder, graph, manifest, parity, write
from indrnn.export.bundle import PARITY_BOUND, Manifest, digest, read
from indrnn.export.card import card
from indrnn.export.errors import ExportError
from indrnn.frames.layouts import LAYOUTS
from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.training.checkpoint import Meta, save


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch, exported: onnx.ModelProto, module: Tiny) -> Tiny:
    """Tiny, with the seconds of exporting it saved: for tests of what comes before and after."""
    monkeypatch.setattr(write, "export", lambda *args: (exported, 1e-6))
    return module


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ready: Tiny) -> Any:
    """`indrnn export` on Tiny, typed in tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "load", lambda path: (ready, meta(ready)))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    return lambda *words: main(["export", "runs/tiny.pt", "bundles", *words])


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("../x", "1", "name: expected up to 64 small letters, digits, - and _ that begin with a letter, got '../x'"),
        ("Tiny", "1", "name: expected up to 64 small letters"),
        ("tiny", "0", "version: expected a whole number, 1, 2, 3 and so on, got '0'"),
        ("tiny", "01", "version: expected a whole number, 1, 2, 3 and so on, got '01'"),
        ("tiny", "../1", "version: expected a whole number"),
    ],
)
def test_a_name_that_cannot_be_a_folders_is_refused_before_it_is_one(
    tmp_path: Path, ready: Tiny, name: str, version: str, said: str
) -> None:
    with pytest.raises(ExportError) as refused:
        write.write(ready, meta(ready), tmp_path / "bundles", name, version, command="")
    assert str(refused.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_command_writes_a_bundle_that_reads(run: Any, tmp_path: Path, exported: onnx.ModelProto) -> None:
    assert run() == 0
    bundle = read(tmp_path / "bundles/chars/1")
    m = bundle.manifest
    assert bundle.graph.read_bytes() == graph.serialize(exported)
    assert (m.kind, m.alphabet, m.state_size, m.classes, m.opset, m.parity_error) == ("chars", ALPHABET, STATE, K, 18, 1e-6)
    assert [(p.role, p.offset, p.size) for p in m.state] == [("hidden", 0, 4), ("hidden", 4, 4), ("last_logits", 8, 5)]
    assert m.inputs[0].shape == ("B", "T")
    assert m.outputs[0].shape == ("B", "T", K)
    assert {p.name for p in bundle.graph.parent.iterdir()} == {"model.onnx", "manifest.json", "CARD.md"}
    assert [p.name for p in (tmp_path / "bundles").iterdir()] == ["chars"]


def test_card_says_what_it_must(run: Any, tmp_path: Path) -> None:
    assert run("--name", "bard", "--version", "2") == 0
    text = (tmp_path / "bundles/bard/2/CARD.md").read_text()
    for words in (
        "indrnn train tiny\nindrnn export runs/tiny.pt bundles/ --name bard --version 2\n",
        "| bits | 2.5 bits per character | made up | 1 |",
        "**nothing**. Terms: none. Source: nobody",
        "2 layers of 4 neurons (relu, tanh), 123 parameters",
        "1.0e-06",
        "below 1: the state stays bounded",
        "`a`",
    ):
        assert words in text
    assert str(tmp_path) not in text


def test_paths_elsewhere_stay_out_of_the_card(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert main(["export", str(tmp_path / "tiny.pt"), str(tmp_path / "bundles")]) == 0
    assert "indrnn export tiny.pt bundles/\n" in (tmp_path / "bundles/chars/1/CARD.md").read_text()


def test_existing_version_is_refused_and_kept(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    before = (tmp_path / "bundles/chars/1/manifest.json").read_bytes()
    assert run() == 1
    assert capsys.readouterr().err == "export refused: bundles/chars/1 exists; a published version does not change (--force replaces it)\n"
    assert (tmp_path / "bundles/chars/1/manifest.json").read_bytes() == before


def test_force_replaces_it_whole(run: Any, tmp_path: Path) -> None:
    assert run() == 0
    (tmp_path / "bundles/chars/1/stray").touch()
    assert run("--force") == 0
    read(tmp_path / "bundles/chars/1")
    assert not (tmp_path / "bundles/chars/1/stray").exists()
    assert [p.name for p in (tmp_path / "bundles").iterdir()] == ["chars"]


@pytest.mark.parametrize("force", [False, True])
def test_failure_half_way_leaves_what_was_there(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    if force:
        assert run() == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fail(*args: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(write, "card", fail)
    assert run("--force") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_what_a_kill_leaves_is_no_bundle_and_does_not_stop_the_next(run: Any, tmp_path: Path) -> None:
    assert run("--version", "2") == 0
    (tmp_path / "bundles/chars/2").rename(tmp_path / "bundles/.partial-chars-1")  # as complete as a partial one can be
    assert not list((tmp_path / "bundles").glob("*/*/manifest.json")), "where the service looks for bundles"
    assert run() == 0
    assert [p.name for p in (tmp_path / "bundles").iterdir()] == ["chars"]


def test_figures_are_added_and_replace_their_namesake(run: Any, tmp_path: Path) -> None:
    figure = {"name": "bits", "value": 1.9, "unit": "bits per character", "protocol": "through the service", "test_evaluations": 2}
    other = {**figure, "name": "speed", "test_evaluations": 0}
    (tmp_path / "figures.json").write_text(json.dumps([figure, other]))
    assert run("--figures", "figures.json") == 0
    m = read(tmp_path / "bundles/chars/1").manifest
    assert [(f.name, f.value, f.test_evaluations) for f in m.figures] == [("bits", 1.9, 2), ("speed", 1.9, 0)]
    assert "bundles/ --figures figures.json\n" in (tmp_path / "bundles/chars/1/CARD.md").read_text()


@pytest.mark.parametrize("text", ["{", "{}", '[{"name": "bits"}]', None])
def test_bad_figures_are_refused_in_one_line(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None) -> None:
    if text is not None:
        (tmp_path / "figures.json").write_text(text)
    assert run("--figures", "figures.json") == 1
    error = capsys.readouterr().err
    assert error.startswith("export refused: ")
    assert "figures.json" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "bundles").exists()


def test_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "none.pt"), str(tmp_path / "bundles")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("export refused: ")
    assert "none.pt" in error
    assert error.count("\n") == 1


def test_bad_name_is_refused(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--name", "Bard") == 1
    assert "name: expected up to 64 small letters, digits, - and _" in capsys.readouterr().err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_u_of_one_needs_a_horizon(exported: onnx.ModelProto, module: Tiny) -> None:
    state = list(meta(module).parts)
    state[0] = dataclasses.replace(state[0], u=(1.0,) * 4)
    described = meta(module, parts=tuple(state))
    arguments = (described, exported, "tiny", "1", "0" * 64, 0.0, ())
    with pytest.raises(ExportError, match=r"max \|u\| is 1: limits.max_position is required"):
        manifest.manifest(*arguments, None)
    m = manifest.manifest(*arguments, 5000)
    assert m.limits.max_position == 5000
    assert "may not be longer than 5,000 steps" in card(m, "")


def test_weights_above_one_are_refused_with_the_option_that_bounds_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a horizon that is said before any comparison, and with one that is too long it is the reason that is given."""
    net = ActionNet(ActionConfig(hidden=8, layers=2, classes=3, bound=1.2))
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("cell.u"):
                weight.fill_(1.1)
    torch.nn.init.normal_(net.readout.weight, std=0.3)
    described = Meta("action", "", 0, 0, labels=("a", "b", "c"), layout="utd20", layouts=LAYOUTS, persons=1, hz=30.0)
    save(tmp_path / "big.pt", net, described)
    asked = ["export", str(tmp_path / "big.pt"), str(tmp_path / "bundles")]
    assert main(asked) == 1
    said = capsys.readouterr().err
    assert "max |u| is 1.1, which bounds no state: --max-position is required" in said
    assert "differ" not in said
    assert main([*asked, "--max-position", "300"]) == 1
    assert "|u| is up to 1.1, by which they grow 2.6e+12-fold over 300 steps; try a smaller --max-position" in capsys.readouterr().err
    assert main([*asked, "--max-position", "5"]) == 0


def test_manifest_survives_its_file(exported: onnx.ModelProto, module: Tiny) -> None:
    m = manifest.manifest(meta(module), exported, "tiny", "1", "0" * 64, 1e-7, (), None)
    assert Manifest.model_validate_json(manifest.to_json(m)) == m
    assert [torch.tensor(p.u).tolist() for p in m.state[:2]] == [u.tolist() for u in module.u], "short decimals, the same float32"


@pytest.mark.parametrize("error", [PARITY_BOUND * 1.01, 3.0, math.nan, math.inf])
def test_disagreement_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exported: onnx.ModelProto, module: Tiny, error: float
) -> None:
    monkeypatch.setattr(graph, "to_onnx", lambda *args: exported)
    monkeypatch.setattr(parity, "largest_error", lambda *args: error)
    with pytest.raises(ExportError, match="ONNX Runtime and PyTorch differ by"):
        write.write(module, meta(module), tmp_path, "tiny", "1", command="")
    assert not list(tmp_path.iterdir())


def test_a_module_that_is_not_its_graph_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exported: onnx.ModelProto) -> None:
    """A real comparison, no stand-in: the graph of one module, the weights of another but for U."""
    other = Tiny(seed=1)
    other.u = Tiny().u
    monkeypatch.setattr(graph, "to_onnx", lambda *args: exported)
    with pytest.raises(ExportError, match="ONNX Runtime and PyTorch differ by"):
        write.write(other, meta(other), tmp_path, "tiny", "1", command="")


def test_module_that_forgets_u_is_refused(tmp_path: Path) -> None:
    module = Forgetful()
    with pytest.raises(ExportError, match="IndRNN node 1, neuron 0 of part hidden at 4"):
        write.write(module, meta(module), tmp_path, "tiny", "1", command="")
    assert not list(tmp_path.iterdir())


def test_a_network_that_reads_in_both_directions_is_refused(tmp_path: Path) -> None:
    module = Backwards()
    with pytest.raises(ExportError, match="IndRNN node 1: expected the direction forward, got reverse"):
        write.write(module, meta(module), tmp_path, "tiny", "1", command="")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["adding", "pixels", "words", "sequence"])
def test_a_network_of_neither_skeletons_nor_text_is_refused_by_its_kind(tmp_path: Path, module: Tiny, kind: str) -> None:
    with pytest.raises(ExportError, match=f"expected a network of skeletons or text.*got one of '{kind}'"):
        write.write(module, meta(module, kind=kind), tmp_path, "tiny", "1", command="")


def test_an_imported_network_is_refused_with_the_options_that_say_what_it_reads(tmp_path: Path, module: Tiny) -> None:
    with pytest.raises(ExportError, match="indrnn import` says with --layout, --joints or --numbers"):
        write.write(module, dataclasses.replace(meta(module, kind="sequence"), task="import"), tmp_path, "tiny", "1", command="")


def test_revision_is_unknown_outside_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folder, "__file__", str(tmp_path / "folder.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert folder.source_revision() == "unknown"
    monkeypatch.setenv("PATH", "")
    assert folder.source_revision() == "unknown"


def test_real_action_checkpoint_becomes_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer's own file, nothing replaced: batch norm folded, checked and read back."""
    torch.manual_seed(0)
    net = ActionNet(ActionConfig(hidden=8, layers=2, persons=2, classes=3, bound=0.5))
    torch.nn.init.normal_(net.readout.weight, std=0.1)
    described = Meta(
        kind="action",
        command="indrnn train action",
        seed=0,
        steps=0,
        labels=("a", "b", "c"),
        layout="utd20",
        layouts=LAYOUTS,
        persons=2,
        hz=30,
    )
    save(tmp_path / "action.pt", net, described)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    assert main(["export", "action.pt", "bundles"]) == 0
    bundle = read(tmp_path / "bundles/action/1")
    m = bundle.manifest
    assert m.inputs[0].shape == ("B", "T", 2, 20, 3)
    assert m.sha256 == digest(bundle.graph)
    assert {p.role for p in m.state} >= {"hidden", "last_frame", "pool", "last_logits"}
    assert m.layouts["kinect20"].joints == 20
    names = {n.op_type for n in onnx.load(bundle.graph).graph.node}
    assert not names & {"BatchNormalization", "Loop", "Scan"}
    assert dataclasses.asdict(described)["hz"] == m.hz


@pytest.mark.parametrize("more", [{}, {"own": True}, {"own": True, "apart": True, "jump": 0.1, "steady": 0.95}])
def test_a_net_of_anybodys_joints_becomes_a_bundle_with_its_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """Nine joints, two persons seen from their own side, no layout of ours."""
    torch.manual_seed(0)
    sizes = {"joints": 9, "persons": 2, "root": 2, "classes": 3, "hidden": 8, "layers": 2}
    net = ActionNet(ActionConfig(**sizes, across=((0, 1), (3, 4)), together=True, **more))
    torch.nn.init.normal_(net.readout.weight, std=0.1)
    names = tuple(f"joint {j}" for j in range(9))
    layouts = {"own": (names, tuple((j,) for j in range(9)))}
    described = Meta("action", "", 0, 0, labels=("a", "b", "c"), layout="own", layouts=layouts, persons=2, hz=25.0, other_below=0.4)
    save(tmp_path / "mine.pt", net, described)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    assert main(["export", "mine.pt", "bundles", "--name", "mine"]) == 0
    m = read(tmp_path / "bundles/mine/1").manifest
    assert (m.inputs[0].shape, m.hz, m.other_below, m.layouts["own"].joint_names) == (("B", "T", 2, 9, 3), 25, 0.4, names)
    assert "label `other`" in (tmp_path / "bundles/mine/1/CARD.md").read_text()
