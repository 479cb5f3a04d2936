"""Numbers: x [B, T, F], rows of features in units of their own; answers are scores of classes or plain values.

Networks that 0.1.0 served as "joints of three numbers" keep that form of x, [B, T, 1, J, 3]: they state a layout. Everywhere a step's F
numbers fill x's axes after B and T in their order, and what is left is 0.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from indrnn.export.modalities.modality import Content, Modality, Quantity, Sample
from indrnn.frames.rate import HZ_RANGE

OLD_HZ = 30.0  # frames a second of a network in 0.1.0's form, where nothing else is said, as 0.1.0's import had it
ULPS = 500.0  # a float32 of size v is good to v 2^-24: 1e-4 of v / ULPS is three times that


class TensorContent(Modality):
    """Rows of numbers, each a feature with a name, a unit and its scaling, which the graph applies."""

    name = "tensor"
    kind = "tensor"
    reads = "numbers"
    fields = ("features", "values", "answer", "labels", "hz", "layout", "layouts", "persons", "returned", "window", "events", "delay")
    farthest = math.inf  # in any unit

    def check(self, m: Content, state: Mapping[str, int]) -> None:
        """Raise ValueError as the class says."""
        if not m.features or m.answer is None or (m.labels is None) == (m.values is None):
            raise ValueError("a tensor bundle has features, an answer (step or end), and either labels or values")
        for field, names in (
            ("features", [f.name for f in m.features]),
            ("values", [v.name for v in m.values or ()]),
            ("labels", m.labels or ()),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{field}: expected different names, got {len(set(names))} in {len(names)}")
        if not self.answers(m):
            raise ValueError("expected an answer of one number or more, got none")
        if m.alphabet is not None or m.other_below is not None:
            raise ValueError("a tensor bundle has neither an alphabet nor other_below")
        if m.hz is not None and not m.hz > 0:
            raise ValueError(f"hz: expected steps a second above 0, got {m.hz:g}")
        if m.layout is not None:
            self._check_old_form(m)
        if m.delay is not None and not m.streams:
            raise ValueError("delay: expected none where whole sequences are read: every step's future is there")
        if m.delay is not None and m.answer != "step":
            raise ValueError("delay: expected of answers of steps, got those of sequences")
        if m.window is not None and m.returned is None:
            raise ValueError("window: expected returned as well, which say what a window's answer is")
        if m.returned is not None and sum(math.prod(o.shape) for o in m.returned) + (m.window is not None) != self.answers(m):
            raise ValueError(f"returned: expected tensors of the {self.answers(m)} values, got {[list(o.shape) for o in m.returned]}")
        if len(m.features) > math.prod(self.step(m)):
            raise ValueError(f"features: expected at most {math.prod(self.step(m))}, the numbers of a step of x, got {len(m.features)}")

    def _check_old_form(self, m: Content) -> None:
        own = m.layouts.get(m.layout or "")
        if own is None or m.persons is None:
            raise ValueError(f"layout: expected persons, and one of {sorted(m.layouts)}, got {m.persons} and {m.layout}")
        for name, layout in m.layouts.items():
            if len(layout.table) != own.joints or any(len(sources) != 1 for sources in layout.table):
                raise ValueError(f"layouts.{name}.table: expected {own.joints} joints, each of one that is sent")
        if m.hz is not None and not HZ_RANGE[0] <= m.hz <= HZ_RANGE[1]:
            raise ValueError(f"hz: expected from {HZ_RANGE[0]:g} to {HZ_RANGE[1]:g} in 0.1.0's form of requests, got {m.hz:g}")

    def step(self, m: Content) -> tuple[int, ...]:
        """Return (F,), of a network in 0.1.0's form (1, J, 3). Raises ValueError where a checkpoint does not say which."""
        if m.layout is not None and m.persons is not None and m.layout in m.layouts:
            return m.persons, m.layouts[m.layout].joints, 3
        if not m.features:
            raise ValueError("expected a network of numbers to state its features, got none")
        return (len(m.features),)

    def rate(self, m: Content) -> float | None:
        """Return the rate that other ones are resampled to, of a network in 0.1.0's form; rows of others are taken as they come."""
        return None if m.layout is None else m.hz or OLD_HZ

    def answers(self, m: Content) -> int:
        """Return how many classes there are, or values."""
        return len(m.labels if m.labels is not None else m.values or ())

    def unit(self, m: Content) -> NDArray[np.float64]:
        """Return each value's deviation, or as much of its size as float32 can tell; of scores 1."""
        if m.values is None:
            return super().unit(m)
        return np.array([max(v.scale, abs(v.mean) / ULPS) for v in m.values])

    def sample(self, m: Content) -> Sample:
        """Return numbers that drift and tremble about each feature's mean."""
        return numbers(m.features or (), self.step(m))

    def what(self, m: Content) -> str:
        """Return what a network of numbers does."""
        said = "which class they belong to" if m.values is None else ", ".join(f"{v.name}{_in(v)}" for v in m.values)
        when = "step by step and says, after every step," if m.streams else "of whole sequences and says"
        return f"Reads rows of {len(m.features or ())} numbers {when} {said}."

    def contract(self, m: Content) -> str:
        """Return the features, and what the answers are and when they can be relied on."""
        words = ["`x` is raw numbers, one row a step"]
        words += [f", {m.hz:g} a second" if m.hz is not None else "", ", in the order and the units of the table below. "]
        if m.layout is not None:
            words.append(f"A row fills x's axes {list(self.step(m))} in order, zeros follow. ")
        words.append("Scaling is part of the graph. ")
        if m.values is None:
            words.append(f"`logits` are scores of the {self.answers(m)} classes below. ")
        else:
            words.append("`logits` are the values of the table below in their own units; 0 before the first step. ")
        if m.delay is not None:
            words.append(
                f"An answer is of the step {m.delay} steps before, and rests on what came since; after a sequence's end {m.delay} more "
                "rows (its last, repeated) fetch what is due. "
            )
        words.append(
            "It was trained to answer after every step." if m.answer == "step" else "It was trained to answer at a sequence's end: "
        )
        if m.answer == "end":
            words.append(
                "earlier answers are what it would say if the sequence ended there." if m.streams else "earlier answers mean nothing."
            )
        return "".join(words)

    def limits(self, m: Content, data: tuple[str, ...]) -> str:
        """Return how far its answers can be believed."""
        known = "It knows the classes listed below and no others, and names one of them whatever it is shown. " if m.values is None else ""
        return (
            f"{known}It has learned from the sensors, units and ranges of its training data; a column in another place or unit, or numbers "
            "far from the means below, give wrong answers that look like any other. Measure before relying on it."
        )

    def sections(self, m: Content) -> list[str]:
        """Return the features, the values or classes."""
        values = [] if m.values is None else [_table("Values", m.values)]
        return [_table("Features", m.features or ()), *values, *super().sections(m)]


def _in(q: Quantity) -> str:
    return f" in {q.unit}" if q.unit else ""


def _table(title: str, quantities: Sequence[Quantity]) -> str:
    rows = [f"| {i} | {q.name} | {q.unit or ''} | {q.mean:g} | {q.scale:g} |" for i, q in enumerate(quantities)]
    return "\n".join([f"## {title}", "", "| | name | unit | mean in training | deviation |", "|---|---|---|---|---|", *rows])


def numbers(features: Sequence[Quantity], step: tuple[int, ...]) -> Sample:
    """Return rows that drift and tremble within some deviations of each feature's mean; some only tremble. What fills x up is 0."""
    mean, scale = (np.array([getattr(f, name) for f in features]) for name in ("mean", "scale"))

    def sample(rng: np.random.Generator, B: int, T: int) -> NDArray[np.float32]:
        size = (B, T, len(features))
        period = rng.uniform(10, 200, (B, 1, len(features)))
        drift = np.sin(2 * np.pi * (np.arange(T)[None, :, None] / period + rng.random((B, 1, len(features)))))
        still = rng.random((B, 1, 1)) < 0.25
        x = np.zeros((B, T, math.prod(step)), np.float32)
        x[..., : len(features)] = mean + scale * (np.where(still, 0, drift) + rng.normal(size=size) * np.where(still, 1.5, 0.5))
        return x.reshape(B, T, *step)

    return sample
