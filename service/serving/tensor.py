"""Models that read numbers: rows of features as clients send them -> x as the graph reads it, and answers in words.

A row has the manifest's features, in order and units. A network in 0.1.0's form, whose x is joints of three numbers, takes what 0.1.0 took
too: a layout, other rates, steps [J][3] or [P][J][3], and `null` for a joint that stays where it was. A row fills x's axes in order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Layout, Manifest
from indrnn.export.modalities.modality import Returned
from indrnn.frames.rate import HZ_RANGE
from indrnn.service.engine.requests import Content, Exact, Frames
from indrnn.service.errors import BadInput, OutOfRange, TooLarge, said
from indrnn.service.serving.modality import Options, Words
from indrnn.service.serving.skeleton import a_list, has_persons, softmax
from indrnn.service.session.machine import Floats, Scores

LARGEST = float(np.finfo(np.float32).max)
_STAYS = (math.nan, math.nan, math.nan)  # a joint that is null


class TensorModality:
    """What a service knows of a model that reads numbers. max_steps: rows of one message; max_every: where each of them is answered."""

    def __init__(self, manifest: Manifest, max_steps: int, max_every: int) -> None:
        x = next(t for t in manifest.inputs if t.name == "x")
        self.each_step = manifest.answer == "step"
        self._window = manifest.window
        self.max_steps = (min(max_steps, max_every) if self.each_step else max_steps) * (manifest.window or 1)
        self._shape = tuple(int(n) for n in x.shape[2:])
        self._features = len(manifest.features or ())
        self._old = OldForm.of(manifest)
        # Steps were `frames` in 0.1.0, and are digested so where it took them: a step is the same in either of its forms.
        self.field, self.old_field = ("values", None) if self._old is None else ("frames", "values")
        self._hz = manifest.hz
        self._labels = manifest.labels
        self._values = [v.name for v in manifest.values or ()]
        self._returned = manifest.returned

    field: str
    old_field: str | None

    def check_options(self, layout: object, hz: object) -> Options:
        """Check the options of a stream or a request: rows have no layout, and are taken at the model's own rate. Raises BadInput."""
        if self._old is not None:
            return self._old.check_options(layout, hz)
        if layout is not None:
            raise BadInput(f"expected null, as the model reads numbers, got {said(layout)}", field="layout")
        if hz is not None and hz != self._hz:
            own = "null" if self._hz is None else f"null or {self._hz:g}, the model's own"
            raise BadInput(f"expected {own}, got {said(hz)}", field="hz")
        return Options(None, None)

    def read(self, value: object, layout: object, hz: object, field: str) -> Content:
        """Return a client's rows [T][F] as content. Raises BadInput naming the element, OutOfRange, TooLarge."""
        options = self.check_options(layout, hz)
        if not isinstance(value, list) or not value:
            raise BadInput(f"expected a list of rows, got {said(value)}", field=field)
        if len(value) > self.max_steps:
            raise TooLarge(f"expected at most {self.max_steps} rows, got {len(value)}", field=field)
        if self._old is not None and self._old.is_step(value[0]):
            x = self._old.read(value, options.layout, field)
            return Frames(x, options.hz, whole=not np.isnan(x).any())
        flush = self._window and (
            value[-1] is None or (self._features == 1 and value[-1] == [None])
        )  # the graph fills the window with zeros, and answers it
        value = value[:-1] if flush else value
        rows = [self._row(row, f"{field}[{t}]") for t, row in enumerate(value)] + [[math.nan] * self._features] * bool(flush)
        return self._filled(np.array(rows, np.float64), options.hz)

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None]:
        """Return steps of plain numbers as contents, all at once; None for those that take a closer look (`read`)."""
        found: list[Content | None] = [None] * len(values)
        plain = [(i, value) for i, value in enumerate(values) if isinstance(value, list) and 0 < len(value) <= self.max_steps]
        rows = [row for _, value in plain for row in value]
        samples = self._features == 1 and bool(rows) and all(type(row) is float for row in rows)  # of a signal
        if not rows or not (samples or all(type(row) is list for row in rows)):
            return found
        try:
            x = np.asarray(rows, np.float64)
        except (ValueError, TypeError, OverflowError):
            return found
        x = x.reshape(-1, 1) if samples else x
        old = self._old is not None and x.shape[1:] == (self._old.sent(layout), 3)
        if not (old or x.shape[1:] == (self._features,)) or not (np.abs(x) <= LARGEST).all():
            return found
        at = 0
        for i, value in plain:
            piece, at = x[at : at + len(value)], at + len(value)
            if old and self._old is not None:
                found[i] = Frames(self._old.own(piece[:, None], layout), rates[i], whole=True)
            else:
                found[i] = self._filled(piece, rates[i])
        return found

    def _row(self, row: object, where: str) -> list[float]:
        if self._features == 1 and not isinstance(row, list):  # a signal may come as its samples alone
            return [_number(row, where)]
        if not isinstance(row, list):
            raise BadInput(f"expected a list of {self._features} numbers, got {said(row)}", field=where)
        if len(row) != self._features:
            raise BadInput(f"expected {self._features} numbers, got {len(row)}", field=where)
        return [_number(number, f"{where}[{i}]") for i, number in enumerate(row)]

    def _filled(self, rows: NDArray[np.float64], hz: float | None) -> Content:
        """Return [T, F] as x [T, ...]; what is left of x is 0."""
        x: Floats = np.zeros((len(rows), math.prod(self._shape)), np.float32)
        x[:, : self._features] = rows
        x = x.reshape(len(rows), *self._shape)
        return Exact(x) if self._old is None else Frames(x, hz, whole=True)

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Return each answer as the native protocols word it: predictions of classes with their softmax, or values in their own units.

        A model that answers after each step says so of each: `labels`, or as many values as rows.
        """
        if self._labels is None:
            return [{"outputs": self._outputs(scores)} for scores, _ in answers]
        odds = softmax(np.stack([scores.logits for scores, _ in answers]))
        order = np.argsort(-odds, axis=-1, kind="stable")[:, :top_k]
        return [
            {"predictions": [self._prediction(self._labels, ks, row, scores, len(content.x))]}
            for ks, row, (scores, content) in zip(order.tolist(), odds.tolist(), answers, strict=True)
        ]

    def _outputs(self, scores: Scores) -> Words:
        values = scores.every if self.each_step else scores.logits[None]
        if self._returned is not None:
            return self._tensors(self._returned, values)
        return {name: values[:, k].tolist() for k, name in enumerate(self._values)}

    @staticmethod
    def _tensors(returned: Sequence[Returned], values: Floats) -> Words:
        """Return each tensor of an adopted file by its name, in its own shape, for each answer [t, K]."""
        found, at = {}, 0
        for one in returned:
            size = math.prod(one.shape)
            found[one.name] = values[:, at : at + size].reshape(len(values), *one.shape).tolist()
            at += size
        return found

    def _prediction(self, labels: Sequence[str], best: Sequence[int], odds: Sequence[float], scores: Scores, rows: int) -> Words:
        top = [{"label": labels[k], "score": odds[k]} for k in best]
        each = {"labels": [labels[k] for k in scores.every.argmax(-1).tolist()]} if self.each_step else {}
        frames = {"frames": rows} if self._old is not None else {}  # 0.1.0's clients look for it
        return {**top[0], "top": top, "steps": rows, **frames, **each}


@dataclass(frozen=True)
class OldForm:
    """0.1.0's form of numbers: clips of "joints" of three, in the order of a layout, by persons where the first step has them."""

    layouts: Mapping[str, Layout]
    layout: str
    persons: int

    @classmethod
    def of(cls, manifest: Manifest) -> "OldForm | None":
        """Return the form of a network's x; None where x is rows."""
        if manifest.layout is None:
            return None
        assert manifest.persons is not None, "checked with the manifest"
        return cls(manifest.layouts, manifest.layout, manifest.persons)

    def check_options(self, layout: object, hz: object) -> Options:
        """Return layout and rate, as 0.1.0 took them. Raises BadInput."""
        if layout is not None and (not isinstance(layout, str) or layout not in self.layouts):
            raise BadInput(f"expected one of {', '.join(self.layouts)}, got {said(layout)}", field="layout")
        low, high = HZ_RANGE
        if hz is not None and (isinstance(hz, bool) or not isinstance(hz, int | float) or not low <= hz <= high):
            raise BadInput(f"expected frames per second from {low:g} to {high:g}, got {said(hz)}", field="hz")
        return Options(layout, None if hz is None else float(hz))

    def sent(self, layout: str | None) -> int:
        """Return how many joints a client's frame has."""
        return self.layouts[layout or self.layout].joints

    def is_step(self, step: object) -> bool:
        """Return whether a step is joints, and not a row of numbers."""
        return isinstance(step, list) and any(one is None or isinstance(one, list) for one in step)

    def read(self, clip: Sequence[object], layout: str | None, field: str) -> Floats:
        """Return a clip [T][J][3] or [T][P][J][3] as x [T, P, J, 3]; NaN where a joint is null, 0 where a person is not sent.

        Raises BadInput naming the first element that does not fit, OutOfRange.
        """
        joints, frames = self.sent(layout), []
        with_persons = has_persons(clip[0], joints)
        for t, step in enumerate(clip):
            where = f"{field}[{t}]"
            if not with_persons:
                frames.append([_joints(step, joints, where)])
                continue
            people = a_list(step, where, "persons")
            expected = f"at most {self.persons}" if t == 0 else f"{len(frames[0])} as in the first step"
            if len(people) > self.persons or (t and len(people) != len(frames[0])):
                raise BadInput(f"expected {expected}, got {len(people)} persons", field=where)
            frames.append([_joints(person, joints, f"{where}[{p}]") for p, person in enumerate(people)])
        return self.own(np.array(frames, np.float64), layout)

    def own(self, x: NDArray[np.float64], layout: str | None) -> Floats:
        """Return frames [T, P, J, 3] as sent in the model's own order, with all its persons."""
        x = np.pad(x, [(0, 0), (0, self.persons - x.shape[1]), (0, 0), (0, 0)])
        return x[:, :, [sources[0] for sources in self.layouts[layout or self.layout].table]].astype(np.float32)


def _joints(person: object, joints: int, where: str) -> list[Sequence[float]]:
    found = a_list(person, where, f"{joints} joints")
    if len(found) != joints:
        raise BadInput(f"expected {joints} joints, got {len(found)}", field=where)
    return [_STAYS if joint is None else _three(joint, f"{where}[{j}]") for j, joint in enumerate(found)]


def _three(joint: object, where: str) -> list[float]:
    numbers = a_list(joint, where, "three numbers, or null")
    if len(numbers) != 3:
        raise BadInput(f"expected three numbers, or null, got {len(numbers)} elements", field=where)
    return [_number(number, f"{where}[{k}]") for k, number in enumerate(numbers)]


def _number(number: object, where: str) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise BadInput(f"expected a number, got {said(number)}", field=where)
    if abs(number) > LARGEST:
        raise OutOfRange(f"expected a number within float32, got {said(number)}", field=where)
    return float(number)
