"""Makes tests/upgrade/written anew: `python tests/upgrade/make.py CHECKOUT`, with a checkout of release 0.1.0 whose kernels are built.

Everything is written by the code of that checkout: its service (over HTTP, WebSocket and the Open Inference Protocol, once on SQLite and
once on Redis), its training and its export. What the old code answers when it goes on from there is in expected.json and logits.npz;
it is asked of copies, so that the files stay as they were left. Sessions live for ten years, the longest that 0.1.0 allows. The runs are
made in a folder of its own (--folder), because Lightning writes that folder's name into last.ckpt.
"""

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from asking import WRITTEN, Service, dump, fill, same, serving, write_clips, write_images, write_texts, write_treebank
from old_numbers import record

TTL = "315360000"  # seconds
ALL = 99  # scores of every class
SMALL = ["--hidden", "8", "--layers", "2"]
BRIEF = ["--steps", "10", "--decay", "5", "--epoch", "5", "--warmup", "5", "--rate", "0.01", "--no-progress"]
STREAM = ["--rows", "4", "--length", "16"]
CLIPS = ["--rows", "8", "--clips", "1"]
BASELINES = ("lstm", "gru", "tanh", "irnn")
# Name of the file: the task, and how it is trained.
RUNS: dict[str, tuple[str, ...]] = {
    "adding": ("adding", "--length", "6", *SMALL),
    **{f"adding-{cell}": ("adding", "--cell", cell, "--length", "6", *SMALL) for cell in BASELINES},
    "mnist": ("mnist", *SMALL, "--rows", "8", "--settling", "2"),
    "pmnist": ("pmnist", "--kind", "residual", "--hidden", "8", "--layers", "3", "--rows", "8", "--settling", "2"),
    "chars": ("chars", *SMALL, *STREAM),
    "ptb-char": ("ptb-char", *SMALL, *STREAM),
    "ptb-word": ("ptb-word", *SMALL, *STREAM),
    "action": ("action", *SMALL, *CLIPS, "--held", "3"),
    "skeleton": ("skeleton", "mine.npz", *SMALL, *CLIPS, "--test", "subject=4,5", "--held", "subject=3"),
    "nwucla": ("nwucla", *SMALL, *CLIPS),
    "hdm05": ("hdm05", *SMALL, *CLIPS),
    "ntu": ("ntu", *SMALL, *CLIPS, "--held", "subject=4"),
}
WHOLE = ("adding", "chars")  # runs that are kept with last.ckpt
WHOLE_ROWS = {f"adding-{cell}" for cell in BASELINES}  # these take no shorter ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="of release 0.1.0, with its kernels built")
    parser.add_argument("--folder", type=Path, default=Path("/srv/indrnn"), help="where the runs are made, which must not be there yet")
    args = parser.parse_args()
    old = args.checkout.resolve()
    sys.path[:0] = [str(old), str(old / "tests")]
    shutil.rmtree(WRITTEN, ignore_errors=True)
    WRITTEN.mkdir()
    args.folder.mkdir(parents=True)
    try:
        os.chdir(args.folder)
        train()
        write_sequence_net()
        write_logits()
        export()
        expected = {"sqlite": on_sqlite(old), "redis": on_redis(old), "bundle": on_bundle(old)}
    finally:
        shutil.rmtree(args.folder)
    (WRITTEN / "expected.json").write_text(json.dumps(expected) + "\n")
    record(old)


# --- runs -----------------------------------------------------------------------------------------------------------------------------


def train() -> None:
    """Each task for ten steps on data made up here."""
    import torch
    from model.__main__ import main as run

    from model import mnist

    torch.set_num_threads(1)
    mnist.HELD_OUT = 16  # of eighty images
    data = Path("data")
    os.environ["INDRNN_DATA"] = str(data)
    for write in (write_texts, write_images, write_treebank):
        write(data)
    bones = np.array([f"{side}{bone}" for bone in ("femur", "tibia", "foot") for side in "lr"] + ["root"])
    people = np.array([1, 2, 4, 3, 5, 6])[np.arange(24) // 4]
    write_clips(Path("mine.npz"), 9)
    write_clips(data / "skeleton" / "utd_mhad.npz", 20, subject=np.arange(24) // 3 + 1)
    write_clips(data / "skeleton" / "nwucla.npz", 20, view=np.arange(24) % 4 // 2 + np.arange(24) // 12 + 1)
    write_clips(data / "skeleton" / "hdm05.npz", 7, joint_names=bones, test=np.arange(24) // 4 > 3)
    ntu = np.array([f"S001C002P{s:03}R001A{k % 2 + 1:03}" for k, s in enumerate(people)])
    write_clips(data / "skeleton" / "ntu.npz", 25, 2, subject=people, names=ntu)
    for name, options in RUNS.items():
        if run(["train", *options, *BRIEF, "--out", f"runs/{name}"]) != 0:
            raise SystemExit(f"{name} was refused")
        shutil.copy(f"runs/{name}/model.pt", WRITTEN / f"{name}.pt")
    for name in WHOLE:
        (WRITTEN / "runs" / name).mkdir(parents=True)
        for file in ("last.ckpt", "model.pt", "log.txt"):
            shutil.copy(f"runs/{name}/{file}", WRITTEN / "runs" / name / file)
    later = [*BRIEF, "--steps", "15", "--out", "runs/adding", "--resume"]
    if run(["train", *RUNS["adding"], *later]) != 0:
        raise SystemExit("going on was refused")
    shutil.copy("runs/adding/model.pt", WRITTEN / "runs" / "adding" / "resumed.pt")


def write_sequence_net() -> None:
    """The kind of network that `python -m model import` writes."""
    import torch
    from model.checkpoint import Meta, save
    from model.sequence import SequenceConfig, SequenceNet

    torch.manual_seed(0)
    net = SequenceNet(SequenceConfig(kind="residual", layers=3, hidden=8, inputs=3, classes=5))
    save(WRITTEN / "sequence.pt", net, Meta("sequence", "python -m model import theirs.pt --out sequence.pt --numbers", 0, 0))


def write_logits() -> None:
    """What each network answers, folded, from a state that is not the start."""
    import torch

    from model import checkpoint

    rng, arrays = np.random.default_rng(0), {}
    for path in sorted(WRITTEN.glob("*.pt")):
        net, meta = checkpoint.load(path)
        x = torch.from_numpy(_input(meta.kind, net.config, rng))
        lengths = torch.tensor([7, 7 if path.stem in WHOLE_ROWS else 4])
        _, state = net(x, lengths, net.start(2))
        logits, state_out = net(x, lengths, state)
        told = {"x": x, "lengths": lengths, "state": state, "logits": logits, "state_out": state_out}
        arrays |= {f"{path.stem}/{name}": tensor.numpy() for name, tensor in told.items()}
    np.savez_compressed(WRITTEN / "logits.npz", **arrays)


def _input(kind: str, config: Any, rng: np.random.Generator) -> np.ndarray:
    if kind in ("chars", "words"):
        return rng.integers(0, config.classes, (2, 7))
    features = {"adding": (2,), "pixels": ()}.get(kind)
    if kind == "action":
        features = (config.persons, config.joints, 3)
    if kind == "sequence":
        features = (config.inputs,)
    assert features is not None
    return rng.uniform(-1, 1, (2, 7, *features)).astype(np.float32)


def export() -> None:
    from export.__main__ import main as run

    if run(["runs/chars/model.pt", "bundles"]) != 0:
        raise SystemExit("the export was refused")
    shutil.copytree("bundles", WRITTEN / "bundles")


# --- sessions -------------------------------------------------------------------------------------------------------------------------


def on_sqlite(old: Path) -> dict[str, Any]:
    """sessions.db and the two files of states."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _served(old, folder, INDRNN_STORE=str(folder / "sessions.db")) as service:
            sessions = begin(service, old)
            for model, of in (("action", "resampled"), ("chars", "text")):
                state = service.get(f"/sessions/{sessions[of]['id']}/state")
                (WRITTEN / f"{model}.safetensors").write_bytes(state.content)
        with contextlib.closing(sqlite3.connect(folder / "sessions.db")) as db:  # the file alone, without a log beside it
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        shutil.copy(folder / "sessions.db", WRITTEN)
        with _served(old, folder, INDRNN_STORE=str(folder / "sessions.db")) as service:
            go_on(service, sessions)
    return sessions


def on_redis(old: Path) -> dict[str, Any]:
    """redis.json."""
    from redis_process import running_redis

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_redis(folder) as redis:
            with _served(old, folder, INDRNN_STORE=redis.url) as service:
                sessions = begin(service, old)
            with redis.client() as client:
                keys = dump(client)
                client.flushall()
                fill(client, keys)
            (WRITTEN / "redis.json").write_text(json.dumps(keys, indent=1) + "\n")
            with _served(old, folder, INDRNN_STORE=redis.url) as service:
                go_on(service, sessions)
    return sessions


def on_bundle(old: Path) -> dict[str, Any]:
    """What the service answers with the tiny bundle, to the owner of a key in the file `keys`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {"INDRNN_KEYS": str(WRITTEN / "keys")}
        made = subprocess.run([sys.executable, "-m", "service", "key", "alice"], cwd=old, env={**os.environ, **env}, stdout=-1, check=True)
        key = made.stdout.decode().strip()
        store = {"INDRNN_STORE": str(folder / "sessions.db"), "INDRNN_BUNDLES": str(WRITTEN / "bundles")}
        with _served(old, folder, **store, **env) as service:
            exchange = {"model": "chars", "open": {"type": "open", "top_k": ALL, "api_key": key}}
            exchange |= {"request": {"type": "step", "step": 1, "text": "to be or not "}}
            return exchange | {"reply": service.ask(exchange)}


def _served(old: Path, folder: Path, **env: str) -> contextlib.AbstractContextManager[Service]:
    env.pop("INDRNN_DATA", None)
    return serving(["-m", "service"], old, folder, INDRNN_SESSION_TTL=TTL, **env)


def begin(service: Service, old: Path) -> dict[str, Any]:
    """Sessions some steps in: id, where it stands (`info`), the last exchange (`last`) and, without its reply, the one to come (`next`)."""
    wave = json.loads((old / "examples" / "wave.json").read_text())["sequences"][0]
    sessions = {
        "frames": _frames(service, wave, (0, 20, 37, 72)),
        "resampled": _frames(service, wave, (0, 17, 30, 50), hz=25),
        "text": _chars(service, _step(1, "To be, or not"), _step(2, " to be, that"), _step(3, " is the question:\n")),
        "generated": _chars(service, _step(1, "To be"), _generate(2, 40), _step(3, " or not")),
        "cut": _chars(service, _step(1, "To be"), _generate(2, 400), _step(3, " or not"), most=5),
        "sequence": _sequence(service, "action", "camera 3", lambda n: np.array(wave[10 * n - 10 : 10 * n])[None, :, None]),
        "numbered": _sequence(service, "chars", 7, lambda n: np.arange(5 * n, 5 * n + 8)[None]),
    }
    for told in sessions.values():
        if told["id"]:
            told["info"] = service.get(f"/sessions/{told['id']}").json()
    return sessions


def go_on(service: Service, sessions: dict[str, Any]) -> None:
    """The replies of a service that was started on the copy: to the last request again, and to the next."""
    for name, told in sessions.items():
        again = service.ask(told["last"])
        if name != "cut":
            same(again, told["last"]["reply"])
        told["last"]["reply"] = again
        told["next"]["reply"] = service.ask(told["next"])


def _frames(service: Service, wave: list[Any], at: tuple[int, ...], **more: Any) -> dict[str, Any]:
    ident = service.post("/sessions", {"model": "action"}).json()["session_id"]
    exchanges: list[dict[str, Any]] = []
    for step, (begin, end) in enumerate(pairwise(at), 1):
        body = {"sequences": [wave[begin:end]], "session_id": ident, "step": step, "top_k": ALL, **more}
        exchanges.append({"path": "/predict", "request": body})
    return _told(service, ident, exchanges)


def _step(number: int, text: str) -> dict[str, Any]:
    return {"type": "step", "step": number, "text": text}


def _generate(number: int, most: int) -> dict[str, Any]:
    return {"type": "generate", "step": number, "max_chars": most, "temperature": 0.8, "top_p": 0.95, "seed": 5, "stop": ["\n\n\n"]}


def _chars(service: Service, *messages: dict[str, Any], most: int = 2**30) -> dict[str, Any]:
    """most: characters after which the connection of the last message but one is closed."""
    ident = service.post("/sessions", {"model": "chars"}).json()["session_id"]
    opening = {"type": "open", "session_id": ident, "top_k": 5}
    service.stream("chars", [opening, *messages[:-1]], most)
    exchanges = [{"model": "chars", "open": opening, "request": m} for m in messages[-2:]]
    if most < 2**30:  # the generate ends when the service has noticed
        return {"id": ident, "last": exchanges[0], "next": exchanges[1]}
    return _told(service, ident, exchanges)


def _sequence(service: Service, model: str, ident: str | int, x_of: Callable[[int], np.ndarray]) -> dict[str, Any]:
    exchanges = []
    for n in (1, 2, 3):
        x = x_of(n)
        tensor = {"name": "x", "datatype": "INT64" if x.dtype == np.int64 else "FP32", "shape": x.shape, "data": x.tolist()}
        parameters = {"sequence_id": ident, "sequence_start": n == 1, "indrnn_step": n}
        exchanges.append({"path": f"/v2/models/{model}/infer", "request": {"inputs": [tensor], "parameters": parameters}})
    return _told(service, "", exchanges)


def _told(service: Service, ident: str, exchanges: list[dict[str, Any]]) -> dict[str, Any]:
    """Has all exchanges but the last, which is the one to come."""
    for exchange in exchanges[:-1]:
        exchange["reply"] = service.ask(exchange)
    return {"id": ident, "last": exchanges[-2], "next": exchanges[-1]}


if __name__ == "__main__":
    main()
