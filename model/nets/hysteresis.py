"""From scores after each step to events, each told once: a recurrence without weights, in the form of a cell.

Of the classes 1 and more the likeliest, k with score p_k, is looked at beside the class a that lasts (0: none), at each step:

    lasts   = a > 0 and p_a >= off and not (k != a and p_k >= on)      another class that reaches `on` takes its place
    a'      = a if lasts, else k if p_k >= off, else 0
    since'  = steps that a' has lasted
    high'   = steps in a row, up to this one, in which p_a' >= on
    event   = high' >= least, a' was not told yet, and the last event was more than `pause` steps ago

`on`, `off`, `least` and `pause` are the whole of it (a Schmitt trigger, whose two thresholds keep a score that trembles from being told
twice). Everything is bounded: a stream may go on for ever.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from indrnn.model.cells.cell import Floats, Lowering, StatePart, Stepwise

LONGEST = 1e6  # steps that are counted at most
COLUMNS = 3  # of an answer: the class of an event (0: none), how many steps ago it began, its score
_STATE = 6  # a, since, high, whether it was told, steps before another may be told, its best score


class Hysteresis(Stepwise):
    """x [T, B, K] scores that add up to 1, class 0 being nothing -> events [T, B, 3]: class or 0, steps since its start, its best score."""

    name = "hysteresis"
    about = "Scores with hysteresis"
    carried = "Its hysteresis is a `Loop` of standard operators."
    endless = "everything that it carries is bounded."

    def __init__(self, inputs: int, on: float, off: float, least: int, pause: int) -> None:
        super().__init__(inputs, COLUMNS)
        if not (0 < off <= on <= 1 and least >= 1 and pause >= 0):
            raise ValueError(f"expected 0 < off <= on <= 1, least of 1 and pause of 0 or more, got {off}, {on}, {least}, {pause}")
        self.on, self.off, self.least, self.pause = on, off, least, pause

    def parts(self) -> tuple[StatePart, ...]:
        """Return the one part, which is no neuron's."""
        return (StatePart("event", _STATE),)

    def one_step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step in PyTorch, as the module says."""
        a, since, high, told, busy, best = torch.split_with_sizes(state, [1] * _STATE, 1)
        labels = torch.arange(self.inputs, device=x.device, dtype=x.dtype)
        labels[0] = -1
        p_a = (x * (labels == a)).sum(1, keepdim=True)
        p_k, k = x[:, 1:].max(1, keepdim=True)
        k = k.to(x.dtype) + 1
        lasts = (a > 0) & (p_a >= self.off) & ~((k != a) & (p_k >= self.on))
        zero = torch.zeros_like(a)
        a = torch.where(lasts, a, torch.where(p_k >= self.off, k, zero))
        p = torch.where(lasts, p_a, p_k)
        there = (a > 0).to(x.dtype)
        since = torch.where(lasts, (since + 1).clamp_max(LONGEST), there)
        high = torch.where(p >= self.on, (torch.where(lasts, high, zero) + 1).clamp_max(self.least), zero)
        best = torch.maximum(torch.where(lasts, best, zero), p) * there
        event = ((high >= self.least) & (busy <= 0) & (torch.where(lasts, told, zero) <= 0)).to(x.dtype)
        told = torch.maximum(torch.where(lasts, told, zero), event)
        busy = torch.where(event > 0, torch.full_like(busy, self.pause), (busy - 1).clamp_min(0))
        return torch.cat([event * a, event * (since - 1), event * best], 1), torch.cat([a, since, high, told, busy, best], 1)

    def step_lowering(self) -> Lowering:
        """Return the step in ONNX."""
        labels = np.arange(self.inputs, dtype=np.float32)[None]
        labels[0, 0] = -1
        numbers = {"On": self.on, "Off": self.off, "Least": self.least, "Pause": self.pause, "Longest": LONGEST}
        weights = {name: np.array([[value]], np.float32) for name, value in numbers.items()}
        return Lowering({"Labels": labels, **weights}, _STEP.format(K=self.inputs))

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One step of one row in NumPy, the specification."""
        a, since, high, told, busy, best = state
        k = 1 + int(np.argmax(x[1:]))
        p_a = x[int(a)] if a in range(1, len(x)) else 0.0
        if not (a > 0 and p_a >= self.off and not (k != a and x[k] >= self.on)):
            a, since, high, told, best = (k if x[k] >= self.off else 0), 0.0, 0.0, 0.0, 0.0
            p_a = x[k]
        since = min(since + 1, LONGEST) if a > 0 else 0.0
        high = min(high + 1, self.least) if p_a >= self.on else 0.0
        best = max(best, p_a) if a > 0 else 0.0
        event = high >= self.least and busy <= 0 and told <= 0
        told = max(told, float(event))
        busy = self.pause if event else max(busy - 1, 0.0)
        y = (a, since - 1, best) if event else (0.0, 0.0, 0.0)
        return np.array(y), np.array((a, since, high, told, busy, best))


_STEP = """
    ones = Constant <value_ints = [1, 1, 1, 1, 1, 1]> ()
    second = Constant <value_ints = [1]> ()
    past_last = Constant <value_ints = [{K}]> ()
    zero = Constant <value_float = 0.0> ()
    one = Constant <value_float = 1.0> ()
    a, since, high, told, busy, best = Split <axis = 1> (s, ones)
    is_a = Equal (Labels, a)
    of_a = Cast <to = 1> (is_a)
    masked = Mul (x, of_a)
    p_a = ReduceSum <keepdims = 1> (masked, second)
    motions = Slice (x, second, past_last, second)
    p_k = ReduceMax <keepdims = 1> (motions, second)
    index = ArgMax <axis = 1, keepdims = 1> (motions)
    index_f = Cast <to = 1> (index)
    k = Add (index_f, one)
    is_there = Greater (a, zero)
    stays = GreaterOrEqual (p_a, Off)
    same = Equal (k, a)
    other = Not (same)
    reaches = GreaterOrEqual (p_k, On)
    replaced = And (other, reaches)
    not_replaced = Not (replaced)
    there_and_stays = And (is_there, stays)
    lasts = And (there_and_stays, not_replaced)
    begins = GreaterOrEqual (p_k, Off)
    k_or_none = Where (begins, k, zero)
    a_next = Where (lasts, a, k_or_none)
    p = Where (lasts, p_a, p_k)
    is_there_next = Greater (a_next, zero)
    there = Cast <to = 1> (is_there_next)
    since_more = Add (since, one)
    since_bounded = Min (since_more, Longest)
    since_next = Where (lasts, since_bounded, there)
    high_before = Where (lasts, high, zero)
    high_more = Add (high_before, one)
    high_bounded = Min (high_more, Least)
    is_high = GreaterOrEqual (p, On)
    high_next = Where (is_high, high_bounded, zero)
    best_before = Where (lasts, best, zero)
    best_either = Max (best_before, p)
    best_next = Mul (best_either, there)
    told_before = Where (lasts, told, zero)
    is_untold = LessOrEqual (told_before, zero)
    is_free = LessOrEqual (busy, zero)
    is_enough = GreaterOrEqual (high_next, Least)
    may = And (is_untold, is_free)
    is_event = And (may, is_enough)
    event = Cast <to = 1> (is_event)
    told_next = Max (told_before, event)
    busy_less = Sub (busy, one)
    busy_left = Max (busy_less, zero)
    busy_next = Where (is_event, Pause, busy_left)
    event_class = Mul (event, a_next)
    steps_ago = Sub (since_next, one)
    event_start = Mul (event, steps_ago)
    event_score = Mul (event, best_next)
    y = Concat <axis = 1> (event_class, event_start, event_score)
    s_next = Concat <axis = 1> (a_next, since_next, high_next, told_next, busy_next, best_next)
"""
