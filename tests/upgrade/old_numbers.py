"""A network of numbers as 0.1.0 imported and served it: what it was asked, in every form that it took, and what it answered.

make.py records with a checkout of 0.1.0 (`record`), test_old_numbers.py asks this release the same.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from asking import WRITTEN, Service, serving

FOLDER = WRITTEN / "numbers"
F, J, H, K = 4, 2, 6, 3
X = np.random.default_rng(5).normal(0, 2, (40, J, 3)).round(3).tolist()  # a clip [T][J][3]; the last two numbers of a step fill it up
ALL = {"top_k": K}


def hidden(clip: list[Any], *gone: tuple[int, int]) -> list[Any]:
    """The clip with `null` for joints j at steps t."""
    return [[None if (t, j) in gone else joint for j, joint in enumerate(step)] for t, step in enumerate(clip)]


def persons(clip: list[Any]) -> list[Any]:
    """[T][J][3] as [T][1][J][3]."""
    return [[step] for step in clip]


GAPS = ((0, 1), (3, 0), (4, 0), (6, 0), (6, 1), (8, 1))
BODIES: dict[str, dict[str, Any]] = {
    "joints": {"sequences": [X[:9]]},
    "persons": {"sequences": [persons(X[:9])]},
    "null": {"sequences": [hidden(X[:12], *GAPS)]},
    "null in persons": {"sequences": [persons(hidden(X[:12], *GAPS))]},
    "null at first": {"sequences": [hidden(X[:3], (0, 0), (0, 1), (1, 0))]},
    "slower": {"sequences": [X[:9]], "hz": 15},
    "quicker": {"sequences": [hidden(X[:20], (5, 1))], "hz": 47.5},
    "own rate": {"sequences": [X[:9]], "hz": 30.0},
    "layout": {"sequences": [X[:9]], "layout": "numbers"},
    "all": {"sequences": [persons(hidden(X[:9], (2, 1)))], "layout": "numbers", "hz": 15, "top_k": 2},
    "several": {"sequences": [X[:4], hidden(X[4:9], (1, 1)), persons(X[9:20])]},
}
# Sessions: each step is asked over this protocol with these options.
STEPS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "held": [
        ("predict", {"sequences": [X[:4]]}),
        ("predict", {"sequences": [hidden(X[4:8], (0, 1), (1, 1), (3, 0))]}),
        ("stream", {"frames": hidden(X[8:10], (0, 0))}),
        ("stream", {"frames": persons(X[10:12])}),
        ("predict", {"sequences": [hidden(X[12:13], (0, 0))], "layout": "numbers"}),
    ],
    "resampled": [
        ("predict", {"sequences": [X[:3]], "hz": 20}),
        ("predict", {"sequences": [hidden(X[3:5], (0, 1))]}),
        ("predict", {"sequences": [persons(X[5:6])], "hz": 20}),
        ("stream", {"frames": X[6:9]}),
    ],
}
OPENED = {"type": "open", "layout": "numbers", "hz": 45, "top_k": 2, "every": True}
STREAMED = [hidden(X[:5], (1, 1)), persons(X[5:6]), hidden(X[6:8], (0, 0), (0, 1))]
# Digests of steps are kept in stores: what is told of each is its content, and the options hz, top_k and every.
DIGESTED = [(X[:4], None, 5, False), (persons(X[:4]), None, 5, False), (hidden(X[:4], (1, 0)), 20.0, 3, True)]


def ask_all(service: Service, model: str = "numbers") -> dict[str, Any]:
    """What a service answers to all of it."""
    told: dict[str, Any] = {name: service.post("/predict", {"model": model, **ALL, **body}).json() for name, body in BODIES.items()}
    for name, steps in STEPS.items():
        told[name] = _session(service, model, steps)
    told["streamed"] = _streamed(service, model)
    told["tensor"] = _tensor(service, model, X[:7], {})
    told["sequence"] = [_tensor(service, model, X[a:b], {"sequence_id": 7, "sequence_start": a == 0}) for a, b in ((0, 3), (3, 4), (4, 9))]
    told["moved"] = _moved(service, model)
    told["refused"] = {name: _refused(service, model, body) for name, body in REFUSED.items()}
    return told


REFUSED: dict[str, dict[str, Any]] = {
    "a layout that is not there": {"sequences": [X[:2]], "layout": "kinect20"},
    "a rate that is too low": {"sequences": [X[:2]], "hz": 0.5},
    "two persons": {"sequences": [[[X[0], X[1]]]]},
    "a joint too many": {"sequences": [[[*X[0], X[0][0]]]]},
    "two numbers": {"sequences": [[[[1, 2], [1, 2, 3]]]]},
    "null for a number": {"sequences": [[[[1, 2, None], [1, 2, 3]]]]},
    "a text": {"sequences": [[[[1, 2, "3"], [1, 2, 3]]]]},
    "no step": {"sequences": [[]]},
}


def _refused(service: Service, model: str, body: dict[str, Any]) -> list[Any]:
    told = service.post("/predict", {"model": model, **ALL, **body})
    return [told.status_code, told.json()["code"], told.json()["field"]]


def _session(service: Service, model: str, steps: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    ident = service.post("/sessions", {"model": model}).json()["session_id"]
    told = []
    for n, (protocol, body) in enumerate(steps, 1):
        if protocol == "predict":
            reply = service.post("/predict", {"session_id": ident, "step": n, "top_k": K, **body}).json()
            told.append([reply["predictions"], reply["session"]["step"], reply["session"]["position"]])
        else:
            reply = service.stream(model, [{"type": "open", "session_id": ident, "top_k": K}, {"type": "step", "step": n, **body}])[-1]
            told.append([reply["predictions"], reply["step"], reply["position"]])
    return told


def _streamed(service: Service, model: str) -> list[Any]:
    ident, told = None, []
    for n, frames in enumerate(STREAMED, 1):
        opened = {**OPENED, "session_id": ident}
        if ident is None:
            ident = service.stream(model, [opened])[-1]["session_id"]
            opened["session_id"] = ident
        reply = service.stream(model, [opened, {"type": "step", "step": n, "frames": frames}])[-1]
        told.append([reply["predictions"], reply["step"], reply["position"], reply["scores"]])
    return told


def _tensor(service: Service, model: str, clip: list[Any], parameters: dict[str, Any]) -> Any:
    x = np.reshape(clip, (1, len(clip), 1, J, 3))
    inputs = [{"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.reshape(-1).tolist()}]
    (logits,) = service.post(f"/v2/models/{model}/infer", {"inputs": inputs, "parameters": parameters}).json()["outputs"]
    return logits


def _moved(service: Service, model: str) -> Any:
    """A joint that is not seen stays where it was when the state is taken to another session."""
    ident = service.post("/sessions", {"model": model}).json()["session_id"]
    for n, clip in enumerate((X[:2], hidden(X[2:5], (0, 0), (1, 0), (2, 1))), 1):
        reply = service.post("/predict", {"session_id": ident, "step": n, "top_k": K, "sequences": [clip]}).json()
    state = service.get(f"/sessions/{ident}/state").content
    moved = httpx.post(f"{service.url}/sessions", content=state, headers={"Content-Type": "application/octet-stream"}, timeout=60).json()
    body = {"session_id": moved["session_id"], "step": n + 1, "top_k": K, "sequences": [hidden(X[5:6], (0, 0))]}
    return [reply["predictions"], service.post("/predict", body).json()["predictions"]]


def write_theirs(path: Path) -> None:
    """A checkpoint of the authors' plain network: F numbers in, three layers, K classes."""
    import torch

    rng = np.random.default_rng(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(0, 0.6, shape).astype(np.float32))

    weights = {}
    for i in range(3):
        weights |= {f"DIs.{i}.fc.weight": draw(H, H if i else F), f"DIs.{i}.fc.bias": draw(H)}
    for i in range(3):
        weights[f"RNNs.{i}.indrnn1.weight_hh"] = torch.from_numpy(rng.uniform(-0.5, 0.9, H).astype(np.float32))
        norm = [draw(H), draw(H), draw(H), draw(H).abs() + 0.5, torch.tensor(7)]
        names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        weights |= {f"RNNs.{i}.norm1.bn.{name}": value for name, value in zip(names, norm, strict=True)}
    weights |= {"classifier.weight": 3 * draw(K, H), "classifier.bias": draw(K)}
    torch.save(weights, path)


_DIGESTS = """
import json, sys
from service.clips import ClipReader
from service.sessions import content_digest, digest_key
from export.bundle import Layout
layout = Layout(joint_names=("a", "b"), table=((0,), (1,)))
reader = ClipReader({"numbers": layout}, "numbers", 1, 30.0, 5000)
for clip, hz, top_k, every in json.load(sys.stdin):
    x = reader.read(clip, layout, "x")
    print(content_digest(digest_key("frames", [hz, top_k, every]), x.tobytes()).hex())
"""


def record(old: Path) -> None:
    """Write FOLDER: their weights, 0.1.0's checkpoint of them, and what 0.1.0's service answered."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    run: Callable[..., Any] = lambda *words, **more: subprocess.run([sys.executable, *words], cwd=old, check=True, **more)  # noqa: E731
    write_theirs(FOLDER / "theirs.pt")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(FOLDER / "theirs.pt", old)
        run("-m", "model", "import", "theirs.pt", "--out", "imported.pt", "--numbers")
        run("-m", "export", "imported.pt", str(folder / "bundles"), "--name", "numbers")
        shutil.move(old / "imported.pt", FOLDER / "imported.pt")
        (old / "theirs.pt").unlink()
        env = {"INDRNN_BUNDLES": str(folder / "bundles"), "INDRNN_STORE": str(folder / "sessions.db")}
        with serving(["-m", "service"], old, folder, **env) as service:
            told = ask_all(service)
        digests = run("-c", _DIGESTS, input=json.dumps(DIGESTED), capture_output=True, text=True).stdout.split()
    (FOLDER / "told.json").write_text(json.dumps({**told, "digests": digests}) + "\n")
