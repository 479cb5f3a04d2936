"""What the page does with frames before a model runs in the browser, against what the service does with them."""

import json
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indrnn.export.bundle import read
from indrnn.export.modalities.skeleton import anatomy, skeletons
from indrnn.frames.anatomy import ENTRIES
from indrnn.frames.joints import hold
from indrnn.frames.rate import resample

ROOT = Path(__file__).parent.parent.parent
BUNDLER = ROOT / "page" / "node_modules" / ".bin" / "rolldown"
pytestmark = pytest.mark.skipif(not BUNDLER.is_file(), reason="needs page/node_modules: make page")

ENTRY = """
import {{ readFileSync }} from "node:fs";
import {{ hold }} from "{local}/joints.ts";
import {{ resample, stride }} from "{local}/rate.ts";
import {{ Anatomy, fromHex, toHex }} from "{local}/anatomy.ts";
const asked = JSON.parse(readFileSync(0, "utf-8"));
const flat = (frame) => Float32Array.from(frame.flat().flatMap((joint) => joint ?? [NaN, NaN, NaN]));
const answers = asked.map(({{ kind, persons, frames, before, hz, own, pieces, names, bodies }}) => {{
  if (kind === "stride") return stride(hz, own);
  if (kind === "hold") {{
    const held = hold(frames.map(flat), flat(before), persons);
    return held.frames.map((frame) => Array.from(frame));
  }}
  if (kind === "resample") {{
    let carry = null;
    const made = [];
    for (const piece of pieces) {{
      const one = resample(piece.map(flat), hz, own, carry, persons);
      carry = one.carry;
      made.push(...one.frames.map((frame) => Array.from(frame)));
    }}
    return {{ made, phase: carry.phase }};
  }}
  const evidence = new Float32Array(16);
  const watch = new Anatomy(names, bodies, hz);
  let last = flat(before);
  const held = hold(frames.map(flat), last, 1);
  held.frames.forEach((frame, t) => {{ watch.look(last, frame, held.lost[t], evidence); last = frame; }});
  return {{ evidence: Array.from(fromHex(toHex(evidence))), doubts: [...watch.doubts(evidence), ...watch.absence([evidence])] }};
}});
console.log(JSON.stringify(answers));
"""


def listed(x: np.ndarray) -> Any:
    """Return frames as JSON has them, null for NaN."""
    return [[[None if np.isnan(place).any() else place.tolist() for place in person] for person in frame] for frame in x]


def asked(tmp_path: Path, questions: list[dict[str, Any]]) -> Any:
    """Answer questions by the page's own modules, in node."""
    entry = tmp_path / "entry.mjs"
    entry.write_text(ENTRY.format(local=ROOT / "page" / "src" / "local"))
    subprocess.run([BUNDLER, str(entry), "--format", "esm", "--platform", "node", "-d", tmp_path / "out"], check=True, capture_output=True)
    ran = subprocess.run(["node", tmp_path / "out" / "entry.js"], input=json.dumps(questions), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def clip(rng: np.random.Generator, persons: int, T: int, lost: float = 0.0) -> np.ndarray:
    x = skeletons(persons, 20)(rng, 1, T)[0]
    x[rng.random(x.shape[:3]) < lost] = np.nan
    return x


def test_lost_joints_rates_and_evidence_on_bodies_are_the_services_own(tmp_path: Path) -> None:
    """One run of node for all: joints that hold their place, any rate in any pieces, and every check of bodies."""
    rng = np.random.default_rng(0)
    questions: list[dict[str, Any]] = []
    expected: list[Any] = []
    for persons in (1, 2):
        for began in (False, True):
            x = clip(rng, persons, 9, 0.4)
            before = clip(rng, persons, 1)[0] if began else np.zeros((persons, 20, 3), np.float32)
            questions.append({"kind": "hold", "persons": persons, "frames": listed(x), "before": before.tolist()})
            expected.append(hold(x, before).reshape(len(x), -1))
    rates = [(15, 30), (60, 30), (29.97, 30), (10, 30), (100, 30), (30000 / 1001, 25), (7.5, 20)]
    for hz, own in rates:
        x = clip(rng, 2, 23)
        cuts = [0, 1, 2, 9, 23]
        pieces = [x[a:b] for a, b in pairwise(cuts)]
        questions.append({"kind": "resample", "persons": 2, "hz": hz, "own": own, "pieces": [p.tolist() for p in pieces]})
        made, carry = [], None
        for piece in pieces:
            frames, carry = resample(piece, hz, own, carry)
            made.append(frames)
        assert carry is not None
        expected.append((np.concatenate(made).reshape(-1, 120), [carry.numerator, carry.denominator]))
    manifest = read(ROOT / "bundles" / "action" / "2").manifest
    watch = anatomy(manifest)
    assert watch is not None
    assert manifest.hz is not None
    bodies = {"pairs": watch.pairs, "limits": vars(watch.limits)}
    wave = np.array(json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"][0], np.float32)[:, None]
    shapes = {
        "body": wave,
        "down": wave * np.array([1, -1, 1], np.float32),
        "flat": wave * np.array([1, 1, 0], np.float32),
        "huge": wave * 9,
        "behind": wave * np.array([-1, 1, 1], np.float32),
        "mixed": wave[:, :, rng.permutation(20)],
        "nobody": wave * 0,
        "gaps": np.where(rng.random((*wave.shape[:3], 1)) < 0.3, np.nan, wave).astype(np.float32),
    }
    for x in shapes.values():
        questions.append(
            {"kind": "look", "frames": listed(x), "before": np.zeros((1, 20, 3)).tolist(), "hz": 30, "names": watch.names, "bodies": bodies}
        )
        missing = np.isnan(x).any(-1)[None]
        held = hold(x, np.zeros((1, 20, 3), np.float32))
        evidence = np.zeros((1, 1, ENTRIES), np.float32)
        start = np.zeros((1, 1, 20, 3), np.float32)
        seen = watch.look(held[None], start, np.array([len(x)]), evidence, 30.0, missing if missing.any() else None)
        expected.append((seen[0, 0], watch.doubts(seen)[0]))
    answers = asked(tmp_path, questions)
    for question, answer, want in zip(questions, answers, expected, strict=True):
        if question["kind"] == "hold":
            np.testing.assert_allclose(answer, want, atol=1e-6)
        elif question["kind"] == "resample":
            np.testing.assert_allclose(answer["made"], want[0], atol=1e-6)
            assert answer["phase"] == want[1], question["hz"]
        else:
            np.testing.assert_allclose(answer["evidence"], want[0], rtol=1e-4, atol=1e-4)
            assert tuple(answer["doubts"]) == want[1]
    told = {name: answer["doubts"] for name, answer in zip(shapes, answers[-len(shapes) :], strict=True)}
    assert (told["body"], told["flat"], told["gaps"]) == ([], ["flat"], [])
    assert told["nobody"] == ["nobody"]
    assert "upright" in told["down"]
    assert "size" in told["huge"]
    assert "sides" in told["behind"]
    assert "shape" in told["mixed"]
