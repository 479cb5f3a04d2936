"""Tasks on sequences of numbers: anybody's file by `tensor PATH`, classes or values, of each step or at the end.

The network reads the file's own numbers in their own units: means and deviations, of the training part alone, are part of it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from indrnn.model.data import series as data
from indrnn.model.data.series import ANSWERS, Series, SeriesSet
from indrnn.model.data.splits import each, pick
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.tensor import TensorConfig
from indrnn.model.tasks.skeleton import passes
from indrnn.model.training.checkpoint import Meta
from indrnn.model.training.measure import series_accuracy, series_errors
from indrnn.model.training.online.series import OnlineSeriesLearner
from indrnn.model.training.series_learner import SeriesLearner, SeriesRecipe
from indrnn.model.training.task import Figures, Job, NothingHeldError, Task, figure

HORIZONS = (69, 6931)  # steps, the least and the most that U's bound is told from: |u| at most 0.99 to 0.9999
WHAT = "sequences"


@dataclass(frozen=True)
class TensorRecipe(SeriesRecipe):
    """file: the sequences; test, held: which of them to test on and to select by (model/data/splits.py); answer: whether y is of steps.

    horizon: steps after which a neuron may have forgotten half, |u| at most 0.5^(1/horizon); 0: as many as a training sequence has.
    delay: steps after which a step's answer is given, so that it rests on as many of its future; where each step has one.
    """

    file: str = field(default="", metadata={"positional": True, "help": "an .npz of sequences, as model/data/series.py says"})
    test: str = field(
        default="fold=1/5",
        metadata={"help": "sequences to test on: flag, subject=1,2, NAME=VALUE of any array, fold=1/5, fold=each/all:NAME, none"},
    )
    held: str = field(default="fold=1/5", metadata={"help": "of the others, sequences to select by; none: train on all"})
    answer: str = field(default="auto", metadata={"choices": ANSWERS, "help": "what y is of, where its shape leaves it open"})
    delay: int = field(default=0, metadata={"help": "steps by which answers come later, and have seen more; where each step has one"})
    horizon: int = field(default=0, metadata={"help": "steps after which half may be forgotten; 0: as many as a training sequence has"})


@dataclass(frozen=True)
class TensorSource:
    """The place of the sequences and how they are split, as a checkpoint tells it."""

    file: str
    test: str
    held: str
    answer: str
    delay: int = 0

    @classmethod
    def told(cls, meta: Meta) -> "TensorSource":
        """Return a checkpoint's source of sequences. Raises NothingHeldError for one that says none."""
        try:
            return TypeAdapter(cls).validate_python(meta.clips)
        except ValidationError as error:
            raise NothingHeldError(f"expected a network of {WHAT} that says which ones, got one of {meta.task!r} that does not") from error

    def read(self) -> SeriesSet:
        """Read the file: a path as it is, and what is no file is looked for under INDRNN_DATA.

        Raises SeriesFileError, also where answers are to come later and a sequence has but one.
        """
        found = data.read(Path(self.file) if Path(self.file).exists() else self.file, self.answer)
        if not self.delay:
            return found
        if found.answer != "step":
            raise data.SeriesFileError(
                f"{self.file}: expected an answer for each step, to come {self.delay} steps later, got one a sequence"
            )
        return dataclasses.replace(found, series=[data.delayed(s, self.delay) for s in found.series])

    def split(self, series: list[Series]) -> tuple[list[Series], list[Series], list[Series]]:
        """Return training, held and test sequences."""
        rest, test = pick(series, self.test, WHAT)
        train, held = pick(rest, self.held, WHAT)
        return train, held, test


def begin(job: Job, config: dict[str, Any], recipe: TensorRecipe) -> tuple[SeriesLearner, Meta]:
    """Reads the sequences and splits them as the recipe says. Raises SeriesFileError, DataMissingError, SplitError."""
    source = TensorSource(recipe.file, recipe.test, recipe.held, recipe.answer, recipe.delay)
    found = source.read()
    train, held, test = source.split(found.series)
    mean, scale = _spread([s.x for s in train])
    value_mean, value_scale = ((), ()) if found.classes is not None else _spread([np.atleast_2d(s.y) for s in train])
    longest = max(len(s.x) for s in train)
    horizon = recipe.horizon or min(longest, recipe.length if found.answer == "step" and not recipe.online else longest)
    horizon = horizon if recipe.horizon else min(max(horizon, HORIZONS[0]), HORIZONS[1])
    lightning.seed_everything(job.seed, verbose=False)
    sizes = TensorConfig(
        mean=mean,
        scale=scale,
        classes=len(found.classes if found.classes is not None else found.values),
        value_mean=value_mean,
        value_scale=value_scale,
        bound=0.5 ** (1 / horizon),
        norm=not recipe.online,
        ends=found.answer == "end",
        **config,
    )
    if recipe.delay and sizes.bidirectional:
        raise SizeError(f"--delay {recipe.delay}: expected 0 beside --bidirectional, which sees all of a sequence's future")
    told: dict[str, Any] = {"features": _quantities(found.features, found.units, mean, scale), "answer": found.answer}
    if recipe.delay:
        told["delay"] = recipe.delay
    if found.classes is None:
        told["values"] = _quantities(found.values, found.value_units, value_mean, value_scale)
    meta = Meta("tensor", job.command, job.seed, job.steps, labels=found.classes, hz=found.hz, told=told)
    held_out = None if source.held == "none" else source.held
    learner = (OnlineSeriesLearner if recipe.online else SeriesLearner)(sizes, recipe, train, held, job.seed)
    learner.about = about(source, found, (len(train), len(held), len(test)), len(train), recipe, job.steps)
    return learner, dataclasses.replace(meta, held=held_out, clips=dataclasses.asdict(source))


def about(
    source: TensorSource, found: SeriesSet, parts: tuple[int, int, int], count: int, recipe: TensorRecipe, steps: int
) -> tuple[tuple[str, str], ...]:
    """Return what training says before it begins: what was read and how it is split. parts: trained on, held, tested."""
    train, held, test = parts
    told = f"{len(found.classes)} classes" if found.classes is not None else f"values {', '.join(found.values[:8])}"
    return (
        (WHAT, f"{sum(parts):,}: {train:,} to train on, {held:,} held ({source.held}), {test:,} to test on ({source.test})"),
        ("numbers", f"{len(found.features)} a step{f', {found.hz:g} Hz' if found.hz else ''}"),
        ("answer", f"{told}, of {'each step' if found.answer == 'step' else 'each sequence, at its end'}"),
        *passes(steps, recipe.rows * (recipe.length / mean_steps(found) if recipe.online else 1), count, "sequence"),
    )


def mean_steps(found: SeriesSet) -> float:
    """Return how many steps a sequence has on the average."""
    return float(np.mean([len(s.x) for s in found.series]))


def _spread(pieces: Sequence[NDArray[np.float32]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each column over all rows; of one that never changes 1.

    Two passes: of a column far from 0 the mean of squares says nothing.
    """
    n = sum(len(p) for p in pieces)
    mean = np.sum([p.sum(0, np.float64) for p in pieces], 0) / n
    scale = np.sqrt(np.sum([((p - mean) ** 2).sum(0) for p in pieces], 0) / n)
    scale = np.where(scale > 1e-6 * np.abs(mean), scale, 1.0)  # less than that float32 cannot tell from no change at all
    return tuple(float(np.float32(m)) for m in mean), tuple(float(np.float32(s)) or 1.0 for s in scale)


def _quantities(
    names: Sequence[str], units: Sequence[str | None], mean: Sequence[float], scale: Sequence[float]
) -> tuple[dict[str, Any], ...]:
    return tuple({"name": n, "unit": u, "mean": m, "scale": s} for n, u, m, s in zip(names, units, mean, scale, strict=True))


def folds(args: Any) -> list[str]:
    """Return the tests that `--test fold=each/…` stands for. Raises SeriesFileError, DataMissingError, SplitError."""
    return each(TensorSource(args.file, args.test, "none", args.answer).read().series, args.test)


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Return the accuracy after parts of the sequences or on all steps, and that of the most frequent class; or error and R^2 of values.

    Raises NothingHeldError for a split without sequences, as `val` of a network that learned from all of them.
    """
    source = TensorSource.told(meta)
    found = source.read()
    train, held, test = source.split(found.series)
    series, which = (test, source.test) if split == "test" else (held, source.held)
    if not series:
        raise NothingHeldError(f"expected {WHAT} held out to measure {split} on, but this network was given none ({which})")
    where = "at every step" if found.answer == "step" else "at the end"
    how = f"{which}; {len(series)} {WHAT}, each from a zero state"
    how += f", answers {source.delay} steps later, before that the first step's" if source.delay else ""
    if found.classes is None:
        errors, r2 = series_errors(net, series)
        rows = []
        for d, (name, unit) in enumerate(zip(found.values, found.value_units, strict=True)):
            tail = "" if len(found.values) == 1 else f"_{d}"
            rows.append(figure(f"{split}_rmse{tail}", float(errors[d]), unit or "", f"{name}; {how}, {where}; root mean squared error"))
            if np.isfinite(r2[d]):
                rows.append(figure(f"{split}_r2{tail}", float(r2[d]), "", f"{name}; {how}, {where}; the mean of these values has 0"))
        return tuple(rows)
    common = np.bincount(np.concatenate([np.ravel(s.y) for s in train])).argmax()
    blind = float(np.mean(np.concatenate([np.ravel(s.y) for s in series]) == common))
    rows = []
    for part, share in series_accuracy(net, series).items():
        when = where if part == 1 else f"after {round(100 * part)} %"
        name = f"{split}_accuracy" + ("" if part == 1 else f"_{round(100 * part)}")
        rows.append(figure(name, 100 * share, "%", f"{how}, {when}; the class most frequent in training has {100 * blind:.1f} %"))
    return tuple(rows)


TASK = Task(
    "tensor",
    TensorConfig,
    TensorRecipe,
    begin,
    figures,
    "test_accuracy",
    "sequences of numbers of a file of your own: classes or values",
    steps=1000,
    decay=500,
    published=(),
    given=frozenset({"mean", "scale", "classes", "value_mean", "value_scale", "bound", "ends"}),
    folds=folds,
)
