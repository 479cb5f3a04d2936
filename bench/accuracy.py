"""What are the served bundles worth, through the service?

INDRNN_DATA=... python bench/accuracy.py [action] [chars] [endless] [--split test|val] [--figures FILE]

action   single clips through POST /predict, whole and cut after 25, 50 and 75 %; and each subject's clips one after another through
         one session without a reset, in an order drawn from a written seed, and in the order of the file
chars    bits per character of the held-out texts through WS /stream/chars
         (--split val: the training subjects, all of which the bundle has learned from; a check of the way, not a figure)
endless  the same text after a million characters of the same session
Each call on the test split is one test evaluation of what it measures; count it in the card.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.server import service
from indrnn.model.data.text import TEXTS, read

TEST_SUBJECTS = (2, 4, 6, 8)
TRAINING_SUBJECTS = (1, 3, 5, 7)
ORDER_SEED = 0
AT_ONCE = 32  # clips of one request
PIECE = 10_000  # characters of one step
ENDLESS = 1_000_000


def clips_of(split: str) -> tuple[list[Any], list[str], np.ndarray]:
    path = Path(os.environ.get("INDRNN_DATA", "data")) / "skeleton" / "utd_mhad.npz"
    if not path.is_file():
        raise SystemExit(f"needs {path} (set INDRNN_DATA)")
    with np.load(path) as d:
        chosen = np.flatnonzero(np.isin(d["subject"], TEST_SUBJECTS if split == "test" else TRAINING_SUBJECTS))
        clips = [d["x"][d["off"][i] : d["off"][i + 1]].tolist() for i in chosen]
        return clips, [str(d["classes"][d["y"][i]]) for i in chosen], d["subject"][chosen]


def single(client: httpx.Client, clips: list[Any], labels: list[str], part: float) -> tuple[float, float]:
    """The share of clips whose highest score is their label's, and the share answered `other` because that score is too low; in %."""
    right = other = 0
    for at in range(0, len(clips), AT_ONCE):
        some = [c[: max(1, math.ceil(len(c) * part))] for c in clips[at : at + AT_ONCE]]
        reply = client.post("/predict", json={"sequences": some, "model": "action"})
        reply.raise_for_status()
        said = reply.json()["predictions"]
        right += sum(p["top"][0]["label"] == y for p, y in zip(said, labels[at : at + AT_ONCE], strict=True))
        other += sum(p["label"] == "other" for p in said)
    return 100 * right / len(clips), 100 * other / len(clips)


def joined(client: httpx.Client, clips: list[Any], labels: list[str], subjects: np.ndarray, shuffled: bool) -> dict[int, float]:
    """Per subject, the share of clips whose label is the answer at their end, one after another through one session."""
    found = {}
    for subject in sorted(set(subjects.tolist())):
        order = np.flatnonzero(subjects == subject)
        if shuffled:
            order = np.random.default_rng(ORDER_SEED).permutation(order)
        ident = client.post("/sessions", json={"model": "action"}).json()["session_id"]
        right = 0
        for step, i in enumerate(order, 1):
            reply = client.post("/predict", json={"sequences": [clips[i]], "session_id": ident, "step": step})
            reply.raise_for_status()
            right += reply.json()["predictions"][0]["top"][0]["label"] == labels[i]
        found[subject] = 100 * right / len(order)
    return found


def figure(name: str, value: float, unit: str, protocol: str, split: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 4), "unit": unit, "protocol": protocol, "test_evaluations": int(split == "test")}


def action(port: int, split: str) -> list[dict[str, Any]]:
    clips, labels, subjects = clips_of(split)
    split = "train" if split == "val" else split  # the served bundle has learned from all of these
    said = f"UTD-MHAD, subjects {', '.join(map(str, sorted(set(subjects.tolist()))))}, through the service"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        figures = []
        for part in (0.25, 0.5, 0.75, 1.0):
            right, other = single(client, clips, labels, part)
            how = f"{said}, POST /predict, {len(clips)} clips, after {part:.0%} of each"
            figures.append(figure(f"{split}_accuracy_{round(100 * part)}_served", right, "%", how, split))
        figures.append(figure(f"{split}_called_other_100_served", other, "%", f"{how}, answered `other`", split))
        for name, shuffled, order in (
            ("stream", True, f"an order drawn from seed {ORDER_SEED}"),
            ("stream_by_file", False, "the file's order"),
        ):
            each = joined(client, clips, labels, subjects, shuffled)
            mean = sum(v * np.sum(subjects == s) for s, v in each.items()) / len(clips)
            per = ", ".join(f"subject {s}: {v:.1f} %" for s, v in each.items())
            figures.append(
                figure(
                    f"{split}_accuracy_{name}_served",
                    float(mean),
                    "%",
                    f"{said}, each subject's clips one after another in one session, {order}, no reset ({per})",
                    split,
                )
            )
    return figures


def bits(port: int, texts: list[str]) -> list[float]:
    """Bits per character of each text, one after another through one session."""
    found = []
    with connect(f"ws://127.0.0.1:{port}/stream/chars", max_size=2**26, compression=None) as ws:

        def ask(**message: object) -> dict[str, Any]:
            ws.send(json.dumps(message))
            heard: dict[str, Any] = json.loads(ws.recv())
            if heard["type"] == "error":
                raise SystemExit(heard["detail"])
            return heard

        ask(type="open", top_k=1)
        for text in texts:
            total = 0.0
            for at in range(0, len(text), PIECE):
                total -= sum(c["logprob"] for c in ask(type="step", text=text[at : at + PIECE])["chars"])
            found.append(total / math.log(2) / len(text))
    return found


def chars(port: int, split: str) -> list[dict[str, Any]]:
    figures = []
    for name in TEXTS:
        text = read(name)[split]
        (value,) = bits(port, [text])
        what = "the last 5 %" if split == "test" else "the 5 % before the held-out part"
        protocol = f"{what} of the text, {len(text)} characters in one session from the start state, through WS /stream/chars"
        figures.append(figure(f"{split}_bpc_{name}_served", value, "bits per character", protocol, split))
    return figures


def endless(port: int, split: str) -> list[dict[str, Any]]:
    """Validation text at the start of a session, and again after a million characters of training text."""
    parts = read("war_and_peace")
    text = parts["val"][:20_000]
    much = (parts["train"] * (ENDLESS // len(parts["train"]) + 1))[:ENDLESS]
    start = time.perf_counter()
    first, _, later = bits(port, [text, much, text])
    speed = (ENDLESS + 2 * len(text)) / (time.perf_counter() - start)
    said = f"the same {len(text)} validation characters of War and Peace through WS /stream/chars"
    return [
        figure("val_bpc_at_the_start_served", first, "bits per character", said, "val"),
        figure(
            "val_bpc_after_a_million_served",
            later,
            "bits per character",
            f"{said}, {ENDLESS} characters later",
            "validation",
        ),
        figure("characters_per_second_served", speed, "1/s", f"one session, steps of {PIECE} characters, one thread", "val"),
    ]


MEASURED = {"action": action, "chars": chars, "endless": endless}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="action, chars, endless; all by default")
    parser.add_argument("--split", choices=["test", "val"], default="val")
    parser.add_argument("--figures", type=Path, help="write the figures here, for indrnn export --figures")
    parser.add_argument("--evaluation", type=int, default=1, help="which look of these weights at the test split this is: 1, 2, …")
    args = parser.parse_args()
    figures: list[dict[str, Any]] = []
    wanted = args.what or list(MEASURED)
    with service() as server:
        for what in wanted:
            figures += MEASURED[what](server.port, args.split)
    for f in figures:
        print(f"{f['value']:12.4g} {f['unit']:20} {f['name']} [{f['protocol']}]")
    for f in figures:
        f["test_evaluations"] *= args.evaluation
    if args.figures:
        args.figures.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({"accuracy": {f["name"]: f["value"] for f in figures}}))


if __name__ == "__main__":
    main()
