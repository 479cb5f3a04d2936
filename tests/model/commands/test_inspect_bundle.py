import json
from pathlib import Path

import numpy as np
import pytest

from indrnn.__main__ import main
from indrnn.model.commands import inspect_bundle
from indrnn.model.nets.action import ActionNet
from indrnn.model.training import checkpoint

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("u", "steps"), [(0.0, 1), (0.4, 1), (0.5, 2), (-0.5, 2), (0.7, 2), (0.71, 3), (0.9, 7), (0.99, 69), (1.0, np.inf), (-1.2, np.inf)]
)
def test_memory_is_the_first_step_at_which_less_than_half_is_left(u, steps):
    assert inspect_bundle.memory([u])[0] == steps
    if np.isfinite(steps):
        assert abs(u) ** steps < 0.5 <= abs(u) ** (steps - 1)


def bundle(folder: Path, parts: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"state": parts}))
    return folder


U = [-0.21, 0.01, 0.51, 0.91]
PARTS = [
    {"role": "hidden", "layer": 0, "offset": 0, "size": 4, "activation": "relu", "u": U},
    {"role": "hidden", "layer": 1, "offset": 4, "size": 2, "activation": "relu", "u": [1.0, 0.99]},
    {"role": "last_logits", "offset": 6, "size": 3},
]


def test_numbers_and_pictures_of_every_layer(tmp_path, capsys):
    folder = bundle(tmp_path / "tiny" / "1", PARTS)
    assert main(["inspect", str(folder), "--out", str(tmp_path / "pictures"), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["layers"]
    assert (first["name"], first["neurons"], first["negative"]) == ("layer 1", 4, 0.25)
    assert first["memory"] == [1, 1, 2, 8]
    assert (first["u_min"], first["u_max"], first["memory_median"]) == (-0.21, 0.91, 1.5)
    assert first["longer_than"] == {"1": 2, "3": 1, "10": 0, "30": 0, "100": 0, "300": 0}
    counts, edges = first["histogram"]["counts"], first["histogram"]["edges"]
    assert (sum(counts), len(edges)) == (4, len(counts) + 1)
    assert [e for e, n in zip(edges, counts, strict=False) if n] == pytest.approx([-0.25, 0.0, 0.5, 0.9])
    assert (second["memory"], second["memory_max"]) == ([None, 69], None)
    for name in ("recurrent_weights.png", "memory.png"):
        assert (tmp_path / "pictures" / name).read_bytes().startswith(b"\x89PNG")


def test_the_curves_of_the_card_are_drawn(tmp_path):
    values = {
        "val_accuracy_100": 97,
        "val_accuracy_50": 90,
        "val_accuracy_lost_30": 91,
        "val_accuracy_lost_10": 96,
        "val_accuracy_hz_12.5": 95,
    }
    figures = [{"name": n, "value": v} for n, v in values.items()]
    assert inspect_bundle.curves(figures) == {"lost": {"val": [(0, 97), (10, 96), (30, 91)]}, "hz": {"val": [(12.5, 95)]}}
    folder = bundle(tmp_path / "tiny" / "1", PARTS)
    (folder / "manifest.json").write_text(json.dumps({"state": PARTS, "figures": figures}))
    inspect_bundle.run(folder, tmp_path / "pictures")
    assert (tmp_path / "pictures" / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_the_published_bundles_are_read():
    published = [file.parent for file in sorted((ROOT / "bundles").glob("*/*/manifest.json"))]
    assert published
    for path in published:
        layers = inspect_bundle.run(path, None)["layers"]
        manifest = json.loads((path / "manifest.json").read_text())
        hidden = [p for p in manifest["state"] if p["role"] == "hidden"]
        assert [x["neurons"] for x in layers[: len(hidden)]] == [p["size"] for p in hidden]
        for x, p in zip(layers, hidden, strict=False):
            assert sum(x["histogram"]["counts"]) == p["size"]
            assert max(abs(u) for u in p["u"]) ** (x["memory_max"] - 1) >= 0.5


def test_people_get_one_short_line_a_layer(tmp_path, capsys):
    assert main(["inspect", str(bundle(tmp_path / "tiny" / "3", PARTS))]) == 0
    heads, first, second = capsys.readouterr().out.splitlines()
    assert heads.split()[:3] == ["neurons", "u", "least"]
    assert first.split() == ["layer", "1", "4", "-0.210", "0.260", "0.910", "25", "%", "1.5", "8", "2", "1", "0", "0", "0", "0"]
    assert second.split()[-8:] == ["for", "ever", "2", "2", "2", "2", "1", "1"]


def test_a_checkpoint_of_any_network_is_read_as_its_bundle_would_be(net, tmp_path, capsys):
    checkpoint.save(tmp_path / "model.pt", net, checkpoint.Meta("action" if isinstance(net, ActionNet) else "chars", "", 0, 0))
    assert main(["inspect", str(tmp_path / "model.pt"), "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [x["neurons"] for x in layers] == [p.size for p in net.parts() if p.u]


def test_what_is_no_bundle_is_said(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none")]) == 1
    assert "expected a checkpoint, or a bundle" in capsys.readouterr().err
    assert main(["inspect", str(bundle(tmp_path / "tiny" / "2", PARTS[2:]))]) == 1
    assert "found none" in capsys.readouterr().err
