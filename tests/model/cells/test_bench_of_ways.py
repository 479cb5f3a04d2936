"""The benchmarks of depth, of equal sizes and of the future gone through on networks that take no time: what they print."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[3]


def loaded(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str, **small: Any) -> Any:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.setattr(sys, "path", list(sys.path))
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    for key, value in small.items():
        monkeypatch.setattr(bench, key, value)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    return bench


def test_each_way_to_the_future_has_its_error(monkeypatch, capsys):
    bench = loaded("future", monkeypatch, "--steps", "2", "--cells", "indrnn", ROWS=4, HELD=4, H=4)
    bench.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["way"] for row in told["rows"]] == list(bench.WAYS)
    assert all(0 < row["error"] < 3 for row in told["rows"])


def test_no_held_row_is_one_of_a_batch(monkeypatch):
    bench, given = loaded("future", monkeypatch, ROWS=4, HELD=6, H=4), []
    squared = bench.squared
    monkeypatch.setattr(bench, "squared", lambda net, x, *rest: given.append(x) or squared(net, x, *rest))
    bench.trained("indrnn", "plain", 2)
    *batches, held = ({row.numpy().tobytes() for row in x} for x in given)
    assert [len(rows) for rows in (*batches, held)] == [4, 4, 6]
    assert not held & set.union(*batches)


def test_a_late_answer_is_compared_with_what_it_is_of(monkeypatch):
    """A made-up network that answers x_{t-3} is right about y_t = x_t with a delay of 3, and with no other."""
    bench = loaded("future", monkeypatch)
    x, _, lengths = bench.draw(np.random.default_rng(0), 5)

    class Late(torch.nn.Module):
        def forward(self, x, lengths, state):
            return x.roll(3, 1), state

        def start(self, rows):
            return torch.zeros(rows, 1)

    errors = [float(bench.squared(Late(), x, x[:, :, 0], lengths, delay)) for delay in (2, 3, 4)]
    assert errors[1] == 0
    assert min(errors[0], errors[2]) > 1


def test_depth_keeps_runs_and_does_not_make_them_again(monkeypatch, capsys, tmp_path):
    images = np.random.default_rng(0).random((8, 9, 1)).astype(np.float32), np.arange(8) % 3
    arguments = ["--minutes", "0.0001", "--layers", "2", "--log", str(tmp_path / "log")]
    small = {"pooled": lambda part: images, "keep_memory": lambda: None, "H": 4, "B": 2}
    loaded("depth", monkeypatch, *arguments, **small).main()
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(r["cell"], r["layers"]) for r in first["rows"]] == [("lstm", 2), ("indrnn", 2)]
    loaded("depth", monkeypatch, *arguments, **small | {"trained": None}).main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == first["rows"]


@pytest.mark.parametrize("form", ["\n".join, lambda lines: "[\n" + ",\n".join(lines) + "\n]\n"])
def test_a_kept_run_is_read_in_either_form_and_another_is_added(monkeypatch, tmp_path, form):
    runs, file = loaded("runs", monkeypatch), tmp_path / "log"
    kept = [{"network": name, "minutes": 3.0, "bits": bits} for name, bits in (("tanh", 2.1), ("SCRN", 2.0))]
    file.write_text(form([json.dumps(row) for row in kept]))
    assert runs.once(file, {"network": "SCRN", "minutes": 3.0}, lambda: pytest.fail("it is there")) == kept[1]
    made = runs.once(file, {"network": "SCRN", "minutes": 4.0}, lambda: {"bits": 1.9})
    assert runs.read(file) == json.loads(file.read_text()) == [*kept, {"network": "SCRN", "minutes": 4.0, "bits": 1.9}] == [*kept, made]


def test_networks_of_one_size_are_of_one_size(monkeypatch, capsys):
    made_up = type("Treebank", (), {"characters": staticmethod(lambda part: "the cat sat on the mat\n" * 40)})
    small = {"treebank": made_up, "keep_memory": lambda: None, "ROWS": 2, "LENGTH": 8, "MEASURED": 64}
    bench = loaded("equal_size", monkeypatch, "--minutes", "0.0001", **small)
    bench.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["network"] for row in told["rows"]] == list(bench.NETWORKS)
    assert all(0 < row["bits"] < 9 for row in told["rows"])
    sizes = []
    for cell, layers, hidden in bench.NETWORKS.values():
        net = bench.CharsNet(bench.CharsConfig(50, hidden=hidden, layers=layers, cell=cell))
        sizes.append(sum(p.numel() for p in net.parameters()))
    assert max(sizes) < 1.01 * min(sizes)
