"""Models that read numbers: rows of features as clients send them -> x as the graph reads it, and answers in words.

A row has the manifest's features, in order and units. A network in 0.1.0's form, whose x is joints of three numbers, also takes a step
as that: [J][3], or the row, which fills x's axes in their order.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Manifest
from indrnn.export.modalities.modality import Returned
from indrnn.service.engine.requests import Content, Exact
from indrnn.service.errors import BadInput, OutOfRange, TooLarge, said
from indrnn.service.serving.modality import Options, Words
from indrnn.service.serving.skeleton import softmax
from indrnn.service.session.machine import Floats, Scores

LARGEST = float(np.finfo(np.float32).max)


class TensorModality:
    """What a service knows of a model that reads numbers. max_steps: rows of one message; max_every: where each of them is answered."""

    field = "values"

    def __init__(self, manifest: Manifest, max_steps: int, max_every: int) -> None:
        x = next(t for t in manifest.inputs if t.name == "x")
        self.each_step = manifest.answer == "step"
        self._window = manifest.window
        self.max_steps = (min(max_steps, max_every) if self.each_step else max_steps) * (manifest.window or 1)
        self._shape = tuple(int(n) for n in x.shape[2:])
        self._features = len(manifest.features or ())
        self.old_field = "frames" if len(self._shape) == 3 else None  # they were frames of joints of three numbers
        self._hz = manifest.hz
        self._labels = manifest.labels
        self._values = [v.name for v in manifest.values or ()]
        self._returned = manifest.returned

    def check_options(self, layout: object, hz: object) -> Options:
        """Check the options of a stream or a request: numbers have no layout, and are taken at the model's own rate. Raises BadInput."""
        if layout is not None:
            raise BadInput(f"expected null, as the model reads numbers, got {said(layout)}", field="layout")
        if hz is not None and hz != self._hz:
            own = "null" if self._hz is None else f"null or {self._hz:g}, the model's own"
            raise BadInput(f"expected {own}, got {said(hz)}", field="hz")
        return Options(None, None)

    def read(self, value: object, layout: object, hz: object, field: str) -> Exact:
        """Return a client's rows [T][F] as content. Raises BadInput naming the element, OutOfRange, TooLarge."""
        self.check_options(layout, hz)
        if not isinstance(value, list) or not value:
            raise BadInput(f"expected a list of rows, got {said(value)}", field=field)
        if len(value) > self.max_steps:
            raise TooLarge(f"expected at most {self.max_steps} rows, got {len(value)}", field=field)
        flush = self._window and value[-1] is None  # the graph fills the window with zeros, and answers it
        value = value[:-1] if flush else value
        if self._features == 1:  # a signal may come as its samples alone
            value = [row if isinstance(row, list) else [row] for row in value]
        rows = [self._row(row, f"{field}[{t}]") for t, row in enumerate(value)] + [[math.nan] * self._features] * bool(flush)
        return self._filled(np.array(rows, np.float64), field)

    def read_alike(self, values: Sequence[object], layout: str | None, rates: Sequence[float | None]) -> list[Content | None]:
        """Return rows of plain numbers as contents, all at once; None for those that take a closer look (`read`)."""
        found: list[Content | None] = [None] * len(values)
        plain = [(i, value) for i, value in enumerate(values) if isinstance(value, list) and 0 < len(value) <= self.max_steps]
        rows = [row for _, value in plain for row in value]
        if self._features == 1 and rows and all(type(row) is float for row in rows):
            rows = [rows]  # samples of a signal
        elif not rows or not all(type(row) is list and len(row) == self._features for row in rows):
            return found
        try:
            x = np.asarray(rows, np.float64)
        except (ValueError, TypeError, OverflowError):
            return found
        if x.ndim == 2 and self._features == 1:
            x = x.reshape(-1, 1)
        if x.ndim != 2 or not (np.abs(x) <= LARGEST).all():
            return found
        at = 0
        for i, value in plain:
            found[i], at = self._filled(x[at : at + len(value)], self.field), at + len(value)
        return found

    def _row(self, row: object, where: str) -> list[float]:
        if not isinstance(row, list):
            raise BadInput(f"expected a list of {self._features} numbers, got {said(row)}", field=where)
        if row and isinstance(row[0], list) and len(self._shape) == 3 and len(row) == self._shape[1]:
            row = [number for joint in row for number in (joint if isinstance(joint, list) and len(joint) == 3 else [joint])]
            row = row[: self._features]  # what fills x up
        if len(row) != self._features:
            raise BadInput(f"expected {self._features} numbers, got {len(row)}", field=where)
        for i, number in enumerate(row):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise BadInput(f"expected a number, got {said(number)}", field=f"{where}[{i}]")
            if abs(number) > LARGEST:
                raise OutOfRange(f"expected a number within float32, got {said(number)}", field=f"{where}[{i}]")
        return [float(number) for number in row]

    def _filled(self, rows: NDArray[np.float64], field: str) -> Exact:
        """Return [T, F] as x [T, ...]; what is left of x is 0."""
        x: Floats = np.zeros((len(rows), math.prod(self._shape)), np.float32)
        x[:, : self._features] = rows
        return Exact(x.reshape(len(rows), *self._shape))

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
        frames = {"frames": rows} if self.old_field else {}  # 0.1.0's clients look for it
        return {**top[0], "top": top, "steps": rows, **frames, **each}
