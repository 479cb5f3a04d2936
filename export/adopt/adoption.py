"""A file, what was found out about it, the graph round it, and what the kit says of that."""

import math
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from indrnn.export import kit
from indrnn.export.adopt.handfed import answers_by_hand, open_session, wrapped_run
from indrnn.export.adopt.layout import Told, discover, made_up
from indrnn.export.adopt.plan import Plan
from indrnn.export.adopt.source import LARGE, OnnxFile, read_source
from indrnn.export.adopt.wrap import wrap
from indrnn.export.bundle import WEIGHTS
from indrnn.export.errors import AdoptError
from indrnn.kernels.runtime import ort

BATCHING = {"rows"}  # checks whose fault a row that runs alone does not have


@dataclass(frozen=True)
class Adoption:
    """A file that may become a bundle. allowed: names of checks that failed and were allowed to."""

    source: OnnxFile
    plan: Plan
    model: ModelProto
    findings: tuple[kit.Finding, ...]
    allowed: tuple[str, ...] = ()

    @property
    def faults(self) -> list[kit.Finding]:
        """Return what the kit found wrong and nobody has allowed."""
        return [f for f in self.findings if f.fault is not None and f.check not in self.allowed]


def adopt(
    path: Path,
    told: Told,
    allow: Collection[str] = (),
    steps: int | None = None,
    seconds: float = kit.SECONDS,
    longest: int | None = None,
) -> Adoption:
    """Find out how a file is fed, wrap it, and check it.

    steps, seconds: of the long run. longest: steps that a session may have, and the file is good for. allow: checks that may fail; where
    it is batching alone that fails, the bundle runs a row at a time. Raises AdoptError where it cannot be adopted at all; what the kit
    finds is in `faults`.
    """
    source = read_source(path)
    plan = discover(source, told)
    model = wrap(source, plan)
    findings = check_plan(source, plan, model, steps, seconds, longest)
    failed = {f.check for f in findings if f.fault is not None}
    if failed & BATCHING and failed & BATCHING <= set(allow) and not plan.alone:
        plan = replace(plan, alone=True, notes=(*plan.notes, "its rows depend on their neighbours: it runs a row at a time"))
        again = check_plan(source, plan, model, steps, seconds, longest)
        findings = tuple(old if old.check in BATCHING else new for old, new in zip(findings, again, strict=True))
    return Adoption(source, plan, model, findings, tuple(sorted(failed & set(allow))))


def check_plan(
    source: OnnxFile, plan: Plan, model: ModelProto, steps: int | None, seconds: float, longest: int | None = None
) -> tuple[kit.Finding, ...]:
    """Run the kit over the graph round a file, and compare it with the file fed by hand."""
    with saved(model) as path:
        told = subject(plan, open_session(path), open_session(source.path), source.path.name)
        return tuple(kit.check(replace(told, longest=longest), steps=steps, seconds=seconds))


@contextmanager
def saved(model: ModelProto) -> Iterator[Path]:
    """Give the model as a file, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        yield path


def save(model: ModelProto, path: Path, large: int | None = None) -> None:
    """Write the model as one file, or with its weights beside it where they are more than `large` bytes (default: 2 GB)."""
    most = LARGE if large is None else large
    if sum(len(w.raw_data) or 8 * math.prod(w.dims) for w in model.graph.initializer) < most:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    copied = ModelProto()
    copied.CopyFrom(model)
    onnx.save_model(
        copied, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=WEIGHTS, size_threshold=min(1024, most)
    )
    if (beside := path.parent / WEIGHTS).exists():  # it is not where all weights are in typed fields (float_data), which stay in the graph
        beside.chmod(path.stat().st_mode)  # onnx lets nobody but the owner read it, and who serves may be another


def parts(plan: Plan) -> tuple[kit.Stretch, ...]:
    """Return the tensors within a row of state."""
    found, at = [], 0
    sizes = [(s.name, s.size, s.dtype) for s in plan.states]
    sizes += [("started", 1, "float32")] if plan.started else []
    sizes += [("samples", plan.buffer, "float32"), ("samples since the last window", 1, "float32")] if plan.window else []
    sizes += [("the last answer", plan.logit_size, "float32")]
    for name, size, dtype in sizes:
        found.append(kit.Stretch(name, at, size, dtype))
        at += size
    return tuple(found)


def answers(plan: Plan) -> tuple[kit.Stretch, ...]:
    """Return the tensors within a row of logits."""
    found, at = [], 0
    for a in plan.answers:
        found.append(kit.Stretch(a.name, at, a.axes.size))
        at += a.axes.size
    return (*found, kit.Stretch("whether a window ends", at, 1)) if plan.window else tuple(found)


def sample(plan: Plan, rng: np.random.Generator, B: int, T: int) -> NDArray[np.float32]:
    """Return made-up content for a plan's inputs."""
    return np.concatenate([made_up(rng, f.dtype, (B, T, f.axes.size)) for f in plan.fed], 2)


def half(plan: Plan) -> bool:
    """Return whether some of the file's tensors are float16, which is good to three digits."""
    dtypes = [*(s.dtype for s in plan.states), *(f.dtype for f in plan.fed), *(a.dtype for a in plan.answers)]
    return "float16" in dtypes


def subject(plan: Plan, session: ort.InferenceSession, original: ort.InferenceSession | None, name: str) -> kit.Subject:
    """Return the graph round a file as the kit reads it."""

    return kit.Subject(
        name,
        wrapped_run(session),
        lambda rng, B, T: sample(plan, rng, B, T),
        parts(plan),
        answers(plan),
        frozenset(s.name for s in plan.states),
        max(plan.window, 1),
        plan.alone,
        kit.HALF if half(plan) else kit.BOUND,
        None if original is None else lambda x: answers_by_hand(original, plan, x),
        numbers=all(f.dtype.startswith("float") for f in plan.fed),
    )


def check_adopted(adoption: Adoption) -> None:
    """Raise AdoptError, in a line, where the kit found a fault that nobody has allowed."""
    if adoption.faults:
        first = adoption.faults[0]
        others = f" (and {', '.join(f.check for f in adoption.faults[1:])})" if adoption.faults[1:] else ""
        raise AdoptError(f"{first.check}: {first.fault}{others}; --allow {first.check} takes it all the same")
