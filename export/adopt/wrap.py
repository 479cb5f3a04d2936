"""The bundle's graph round a file: x, lengths and one packed state in; logits and the state after them out.

A file that runs over several steps itself does so where all rows have equal lengths; else a Loop runs it a step at a time. A file that
takes one step runs without a loop at T = 1. With a window a Loop runs over the windows that are complete.
"""

import numpy as np
from onnx import GraphProto, ModelProto, helper, numpy_helper

from indrnn.export.adopt.nodes import BOOL, FLOAT, INT, Nodes
from indrnn.export.adopt.packing import from_pieces, to_pieces
from indrnn.export.adopt.plan import Axes, Plan, State
from indrnn.export.adopt.source import OnnxFile

IR_VERSION = 8  # the first with functions; a file with a later one keeps it


def wrap(source: OnnxFile, plan: Plan) -> ModelProto:
    """Return the graph of the bundle."""
    core = source.model.graph
    g = Nodes()
    build = _Build(plan, core)
    logits, state_out = build.windowed(g) if plan.window else build.stepped(g)
    g.nodes += [helper.make_node("Identity", [logits], ["logits"]), helper.make_node("Identity", [state_out], ["state_out"])]
    taken = {s.name for s in plan.states} | {f.name for f in plan.fed}
    weights = [w for w in core.initializer if w.name not in taken | set(plan.constants)]
    weights += [numpy_helper.from_array(v, name) for name, v in plan.constants.items()]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        g.nodes,
        "adopted",
        [info("x", FLOAT, ["B", "T", plan.features]), info("lengths", INT, ["B"]), info("state", FLOAT, ["B", plan.state_size])],
        [info("logits", FLOAT, ["B", "T", plan.logit_size]), info("state_out", FLOAT, ["B", plan.state_size])],
        weights,
    )
    graph.sparse_initializer.extend(core.sparse_initializer)
    opsets = [helper.make_opsetid("" if o.domain == "ai.onnx" else o.domain, o.version) for o in source.model.opset_import]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(source.model.functions))
    model.ir_version = max(source.model.ir_version, IR_VERSION)
    return model


class _Build:
    """Adds nodes for a plan; carried is the packed states of the file, and `started` where there is one: [B, n]."""

    def __init__(self, plan: Plan, core: GraphProto) -> None:
        self.plan, self.core = plan, core
        self.width = plan.carried + plan.started

    # --- one run of the file

    def core_run(self, g: Nodes, x: str, carried: str, frame: int) -> tuple[str, str]:
        """Run the file on x [B, T, frame * F] -> answers [B, T, numbers], carried after them."""
        plan, feeds = self.plan, {}
        started = None
        if plan.started:
            started = g.op("Greater", g.slice(carried, plan.carried, plan.carried + 1, 1), g.const(np.float32(0.5)))
        at = 0
        for s in plan.states:
            packed = carried if s.size == self.width else g.slice(carried, at, at + s.size, 1)
            if s.initial is not None:
                assert started is not None
                packed = g.op("Where", started, packed, g.const(s.initial))
            feeds[s.name], at = self.unpack(g, packed, s), at + s.size
        at = 0
        for f in plan.fed:
            part = x if len(plan.fed) == 1 else g.slice(x, at, at + f.axes.size, 2)
            feeds[f.name], at = self.place(g, self.typed(g, part, f.dtype), f.axes, frame), at + f.axes.size
        out = g.copy(self.core, feeds)
        answers = [self.collect(g, g.cast(out[a.name], "float32"), a.axes) for a in plan.answers]
        after = [self.pack(g, out[s.output], s) for s in plan.states]
        if plan.started:
            after.append(
                g.op(
                    "Add", g.op("Mul", g.slice(carried, plan.carried, plan.carried + 1, 1), g.const(np.float32(0))), g.const(np.float32(1))
                )
            )
        return _concat(g, answers, 2), _concat(g, after, 1)

    @staticmethod
    def typed(g: Nodes, value: str, dtype: str) -> str:
        """Return numbers in the type of an input."""
        return (
            value if dtype == "float32" else g.op("Greater", value, g.const(np.float32(0.5))) if dtype == "bool" else g.cast(value, dtype)
        )

    @staticmethod
    def place(g: Nodes, value: str, axes: Axes, frame: int) -> str:
        """Return [B, T, frame * size] in the file's own order of axes."""
        own = [i for i in range(len(axes.shape)) if i not in (axes.batch, axes.time, axes.window)]
        sizes = [frame] if axes.window is not None else []
        shaped = g.op("Reshape", value, g.ints(0, 0, *sizes, *(axes.shape[i] for i in own)))
        gone = [k for k, axis in enumerate((axes.batch, axes.time)) if axis is None]
        shaped = g.op("Squeeze", shaped, g.ints(*gone)) if gone else shaped
        order = [i for i in (axes.batch, axes.time, axes.window) if i is not None] + own
        return _transposed(g, shaped, [int(k) for k in np.argsort(order)])

    @staticmethod
    def collect(g: Nodes, value: str, axes: Axes) -> str:
        """Return a tensor of the file as [B, T, size]."""
        order = [i for i in (axes.batch, axes.time) if i is not None]
        order += [i for i in range(len(axes.shape)) if i not in order]
        moved = _transposed(g, value, order)
        gone = [k for k, axis in enumerate((axes.batch, axes.time)) if axis is None]
        moved = g.op("Unsqueeze", moved, g.ints(*gone)) if gone else moved
        return g.op("Reshape", moved, g.ints(0, 0, axes.size))

    @staticmethod
    def unpack(g: Nodes, packed: str, s: State) -> str:
        """Return the file's state of packed numbers [B, size]."""
        value = from_pieces(g, packed, s.dtype, s.size)
        if s.axes.batch is None:
            return g.op("Reshape", value, g.ints(*s.axes.shape))
        order = [s.axes.batch, *(i for i in range(len(s.axes.shape)) if i != s.axes.batch)]
        return _transposed(
            g, g.op("Reshape", value, g.ints(0, *s.axes.own) if s.axes.own else g.ints(-1)), [int(k) for k in np.argsort(order)]
        )

    @staticmethod
    def pack(g: Nodes, value: str, s: State) -> str:
        """Return packed numbers [B, size] of the file's state."""
        if s.axes.batch is None:
            return to_pieces(g, g.op("Reshape", value, g.ints(1, s.axes.size)), s.dtype)
        order = [s.axes.batch, *(i for i in range(len(s.axes.shape)) if i != s.axes.batch)]
        return to_pieces(g, g.op("Reshape", _transposed(g, value, order), g.ints(-1, s.axes.size)), s.dtype)

    # --- over time

    def stepped(self, g: Nodes) -> tuple[str, str]:
        """Return logits and the state after them, a step at a time or whole."""
        plan = self.plan
        carried, last = g.slice("state", 0, self.width, 1), g.slice("state", self.width, plan.state_size, 1)
        T = g.dim("x", 1)
        even = g.op("ReduceMin", g.cast(g.op("Equal", "lengths", T), "int64"), keepdims=0)
        if not plan.whole:
            even = g.op("Mul", even, g.cast(g.scalar(g.op("Equal", T, g.ints(1))), "int64"))
        at_once = Nodes(g)
        y, after = self.core_run(at_once, "x", carried, 1)
        end = at_once.op("Squeeze", at_once.op("Slice", y, at_once.ints(-1), at_once.ints(2**31), at_once.ints(1)), at_once.ints(1))
        state = at_once.op("Concat", after, end, axis=1)
        apart = Nodes(g)
        y_apart, state_apart = self.loop(apart, carried, last)
        bodies = [
            n.body(name, [], [(a, FLOAT), (b, FLOAT)])
            for n, name, a, b in ((at_once, "at_once", y, state), (apart, "a_step_at_a_time", y_apart, state_apart))
        ]
        logits, out = g.ops("If", g.cast(even, "bool"), outputs=2, then_branch=bodies[0], else_branch=bodies[1])
        return logits, out

    def loop(self, g: Nodes, carried: str, last: str) -> tuple[str, str]:
        """Return logits and the state after them by a Loop over steps; rows stand still from their end on."""
        lengths = g.op("Unsqueeze", "lengths", g.ints(1))
        b = Nodes(g)
        i, go, before, held = (b.name(n) for n in ("step", "go", "carried", "last"))
        x = b.op("Unsqueeze", b.op("Gather", "x", i, axis=1), b.ints(1))
        y, after = self.core_run(b, x, before, 1)
        y = b.op("Squeeze", y, b.ints(1))
        live = b.op("Less", i, lengths)
        after, end = b.op("Where", live, after, before), b.op("Where", live, y, held)
        body = b.body(
            "step",
            [(i, INT, []), (go, BOOL, []), (before, FLOAT, [None, self.width]), (held, FLOAT, [None, self.plan.logit_size])],
            [(b.op("Identity", go), BOOL), (after, FLOAT), (end, FLOAT), (b.op("Identity", y), FLOAT)],
        )
        steps = g.scalar(g.dim("x", 1))
        found = g.ops("Loop", steps, g.const(np.array(True)), carried, last, outputs=3, body=body)
        return g.op("Transpose", found[2], perm=[1, 0, 2]), g.op("Concat", found[0], found[1], axis=1)

    # --- over windows

    def windowed(self, g: Nodes) -> tuple[str, str]:
        """Return logits and the state after them; samples that complete no window are kept for the next piece.

        A row's stream is its context, the samples left over, then x, then zeros: window i of it begins at i * W, whatever the other rows'
        are. A last sample of NaN is none: it fills the window with zeros, so that it is answered.
        """
        p = self.plan
        W, C, F = p.window, p.context, p.features
        ends = np.cumsum([self.width, p.buffer, 1])
        carried, buffer = g.slice("state", 0, self.width, 1), g.slice("state", self.width, int(ends[1]), 1)
        fill = g.cast(g.slice("state", int(ends[1]), int(ends[2]), 1), "int64")  # [B, 1]
        last = g.slice("state", int(ends[2]), p.state_size, 1)
        lengths = g.op("Unsqueeze", "lengths", g.ints(1))
        flushed = self.flushed(g, lengths)  # [B, 1]
        real = g.op("Sub", lengths, g.cast(flushed, "int64"))
        total = g.op("Add", fill, real)
        odd = g.op("Greater", g.op("Mod", total, g.ints(W)), g.ints(0))
        filled = g.op("And", flushed, odd)
        windows = g.op("Add", g.op("Div", total, g.ints(W)), g.cast(filled, "int64"))  # [B, 1]
        stream, J = self.stream(g, buffer, g.op("Add", fill, g.ints(C)), real)
        answers, after, end = self.rounds(g, stream, carried, last, windows, g.op("ReduceMax", windows, keepdims=0))

        t = self.count(g, g.scalar(g.dim("x", 1)))
        position = g.op("Add", fill, g.op("Add", t, g.ints(1)))
        at_flush = g.op("And", flushed, g.op("Equal", t, real))
        even = g.op("Equal", g.op("Mod", position, g.ints(W)), g.ints(0))
        ended = g.op("Where", at_flush, g.cast(odd, "float32"), g.cast(even, "float32"))
        index = g.op("Where", at_flush, windows, g.op("Min", g.op("Div", position, g.ints(W)), windows))
        logits = g.op("Concat", self.gather(g, answers, index, p.numbers), g.op("Unsqueeze", ended, g.ints(2)), axis=2)

        # what is left over: C + W - 1 samples from the last window's context on, those that have not come zero
        first = g.op("Mul", windows, g.ints(W))
        left = g.op("Max", g.op("Sub", total, first), g.ints(0))
        k = g.ints(*range(C + W - 1))
        rest = self.gather(g, stream, g.op("Min", g.op("Add", first, k), g.op("Sub", J, g.ints(1))), F)
        there = g.op("Unsqueeze", g.op("Less", k, g.op("Add", left, g.ints(C))), g.ints(2))
        rest = g.op("Reshape", g.op("Where", there, rest, g.const(np.float32(0))), g.ints(0, p.buffer))
        flag = g.op("Where", flushed, g.cast(odd, "float32"), g.cast(g.op("Equal", left, g.ints(0)), "float32"))
        moved = g.op("Concat", after, rest, g.cast(left, "float32"), end, flag, axis=1)
        return logits, g.op("Where", g.op("Less", g.ints(0), lengths), moved, "state")

    def flushed(self, g: Nodes, lengths: str) -> str:
        """Return whether each row's last sample is NaN, [B, 1]."""
        first = g.op("Max", g.op("Sub", lengths, g.ints(1)), g.ints(0))
        return g.op("IsNaN", g.op("GatherElements", g.op("Squeeze", g.slice("x", 0, 1, 2), g.ints(2)), first, axis=1))

    def stream(self, g: Nodes, buffer: str, kept: str, real: str) -> tuple[str, str]:
        """Return each row's context, its samples left over, its `real` samples of x, and zeros, [B, J, F]; and J. kept: of the buffer."""
        p = self.plan
        size = p.context + p.window - 1
        source = g.op("Concat", g.op("Reshape", buffer, g.ints(0, size, p.features)), "x", axis=1)  # with a gap between kept and x
        most = g.scalar(g.dim(source, 1))
        J = g.op("Add", most, g.const(np.array(p.window, np.int64)))
        j = g.op("Unsqueeze", self.count(g, J), g.ints(0))  # [1, J]
        beyond = g.op("Min", g.op("Sub", g.op("Add", j, g.ints(size)), kept), g.op("Sub", most, g.ints(1)))
        gathered = self.gather(g, source, g.op("Where", g.op("Less", j, kept), j, beyond), p.features)
        come = g.op("Unsqueeze", g.op("Less", j, g.op("Add", kept, real)), g.ints(2))
        return g.op("Where", come, gathered, g.const(np.float32(0))), J

    @staticmethod
    def count(g: Nodes, end: str) -> str:
        """Return 0, 1, ... below a number."""
        return g.op("Range", g.const(np.array(0, np.int64)), end, g.const(np.array(1, np.int64)))

    def rounds(self, g: Nodes, stream: str, carried: str, last: str, windows: str, rounds: str) -> tuple[str, str, str]:
        """Return the answers before and after each window [B, n + 1, numbers], what is carried after the last, and its answer."""
        p = self.plan
        W, C = p.window, p.context
        before = g.slice(last, 0, p.numbers, 1)
        first = g.op("Unsqueeze", before, g.ints(1))
        some, none = Nodes(g), Nodes(g)
        b = Nodes(some)
        i, go, was, held = (b.name(n) for n in ("window", "go", "carried", "last"))
        begin = b.op("Mul", b.op("Unsqueeze", i, b.ints(0)), b.ints(W))
        frame = b.op("Slice", stream, begin, b.op("Add", begin, b.ints(C + W)), b.ints(1))
        y, after = self.core_run(b, b.op("Reshape", frame, b.ints(0, 1, (C + W) * p.features)), was, C + W)
        y = b.op("Squeeze", y, b.ints(1))
        live = b.op("Less", i, windows)
        after, end = b.op("Where", live, after, was), b.op("Where", live, y, held)
        body = b.body(
            "window",
            [(i, INT, []), (go, BOOL, []), (was, FLOAT, [None, self.width]), (held, FLOAT, [None, p.numbers])],
            [(b.op("Identity", go), BOOL), (after, FLOAT), (end, FLOAT), (b.op("Identity", end), FLOAT)],
        )
        found = some.ops("Loop", rounds, some.const(np.array(True)), carried, before, outputs=3, body=body)
        every = some.op("Concat", first, some.op("Transpose", found[2], perm=[1, 0, 2]), axis=1)
        then = some.body("windows", [], [(every, FLOAT), (found[0], FLOAT), (found[1], FLOAT)])
        still = [none.op("Identity", n) for n in (first, carried, before)]
        otherwise = none.body("no_window", [], [(n, FLOAT) for n in still])
        answers, after_all, last_answer = g.ops(
            "If", g.op("Greater", rounds, g.const(np.array(0, np.int64))), outputs=3, then_branch=then, else_branch=otherwise
        )
        return answers, after_all, last_answer

    @staticmethod
    def gather(g: Nodes, rows: str, index: str, width: int) -> str:
        """Return rows [B, n, width] at index [B, m] -> [B, m, width]."""
        wide = g.op("Expand", g.op("Unsqueeze", index, g.ints(2)), g.ints(1, 1, width))
        return g.op("GatherElements", rows, wide, axis=1)


def _concat(g: Nodes, parts: list[str], axis: int) -> str:
    return parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=axis)


def _transposed(g: Nodes, value: str, perm: list[int]) -> str:
    return value if perm == sorted(perm) else g.op("Transpose", value, perm=perm)
