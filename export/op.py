"""The ops of `ai.indrnn` v1: their schemas, and their portable bodies for runtimes that have no kernel of ours.

IndRNN: h_t = activation(X_t + U * h_{t-1}), Li et al., CVPR 2018 (arXiv 1803.04831), equation 4.
DiagonalRecurrence: h_t = clip(A_t * h_{t-1} + B_t, lo, hi). model/cells/reference.py is the specification of both.
A function body cannot choose an operator by an attribute, so each (activation, direction) and each (bounds, direction) is a function of its
own, told apart by ONNX's `overload`. The node repeats what chooses it, alpha, lo and hi as attributes, which is where a native kernel reads
them.
"""

from collections.abc import Sequence

import onnx
from onnx.defs import OpSchema

from indrnn.export.bundle import DIAGONAL_TYPE, OP_DOMAIN, OP_TYPE, OP_VERSION
from indrnn.kernels.activations import ACTIVATIONS as ACTIVATIONS

OPSET = 18  # of the standard operators; the newest at which PyTorch's exporter does not have to convert versions
IR_VERSION = 10  # the first with `overload`

DIRECTIONS = ("forward", "reverse")
BOUNDS: dict[str, tuple[str, ...]] = {"free": (), "low": ("lo",), "high": ("hi",), "both": ("lo", "hi")}
"""Kind of bounds of DiagonalRecurrence -> its attributes that are there."""

# Masks cost as much as the recurrence, and a loop of one step costs more than the step, so the body has three ways with the same numbers.
# Measured, ONNX Runtime 1.31 CPU, one thread, 4 layers of 512, relu, ms (a masked Loop alone -> this body):
# T=1 B=1 0.035 -> 0.031; T=1 B=64 0.223 -> 0.121; T=20 B=1 0.357 -> 0.237; T=150 B=1 2.49 -> 1.48; T=20 B=64 4.8 -> 4.1.
# Ragged rows pay 2 to 8 % for the choice.
_BODY = """
<opset_import: ["": {opset}], domain: "{domain}", overload: "{overload}">
{op} <{attributes}>
({inputs}, sequence_lens, initial_h) => (Y, Y_h) {{
    X_shape = Shape ({X})
    T_1d = Shape <start = 0, end = 1> ({X})
    T = Squeeze (T_1d)
    zero_int = Constant <value_int = 0> ()
    one_int = Constant <value_int = 1> ()
    {set_numbers}
    go_first = Constant <value = bool {{1}}> ()
    is_short = Less (sequence_lens, T)
    is_short_int = Cast <to = 7> (is_short)
    short_rows = ReduceSum <keepdims = 0> (is_short_int)
    even = Equal (short_rows, zero_int)
    single = Equal (T, one_int)
    Y, Y_h = If (even) <
        then_branch = every_row_runs_all_steps () => (Y_even, h_even) {{
            Y_even, h_even = If (single) <
                then_branch = one_step () => (Y_step, h_step) {{
                    uh = Mul ({U}, initial_h)
                    a = Add ({X}, uh)
                    {activate}
                    h_step = Gather <axis = 0> (Y_step, zero_int)
                }},
                else_branch = all_steps () => (Y_all, h_all) {{
                    {all_steps}
                }}>
        }},
        else_branch = rows_end_apart () => (Y_ragged, h_ragged) {{
            axis1 = Constant <value_ints = [1]> ()
            lens = Unsqueeze (sequence_lens, axis1)
            zero_float = Constant <value_float = 0.0> ()
            zero = CastLike (zero_float, {U})
            {ragged_steps}
        }}>
}}
"""

# Where, not a product with the mask: what lies past a row's length may be NaN. Reshape, because a Loop of no steps gives shape (0,).
# The first condition is given though it may be left out: onnx's reference evaluator runs no step without it. Y is turned round by
# last - (0, 1, ...), because ONNX Runtime 1.31 makes an empty Slice of a Gather by a Range that counts down to 0. The slope is an
# input of PRelu, because an attribute of the function is not everywhere seen from inside a nested body.
_LOOP = """
    {set_last}
    h_{name}, stacked = Loop <body = step_{name} (int64 i, bool go, h) => (go_on, h_next, y) {{
        {set_t}
        x = Gather <axis = 0> ({X}, {t})
        {u}
        a = Add (x, uh)
        {keep}
        go_on = Identity (go)
    }}> (T, go_first, initial_h)
    {in_order} = Reshape <allowzero = 1> (stacked, X_shape)
    {turn_back}
"""


# An attribute as a number that nodes can read.
_NUMBER = "{attribute}_float = Constant <value_float: float = @{attribute}> () {name} = CastLike ({attribute}_float, {like})"
# Where, and not Clip or Max: NaN stays NaN in every runtime.
_LOW = "is_low = Less (a, lo) {y} = Where (is_low, lo, a)"
_HIGH = "is_high = Greater ({a}, hi) {y} = Where (is_high, hi, {a})"
_CLIP = {
    "free": "{y} = Identity (a)",
    "low": _LOW,
    "high": _HIGH.format(a="a", y="{y}"),
    "both": _LOW.format(y="raised") + " " + _HIGH.format(a="raised", y="{y}"),
}


def _loop(name: str, nodes: str, direction: str, ragged: bool, varying: bool) -> str:
    """Return the Loop over all T steps round the nodes of f; in reverse it writes Y from its last step to its first and turns it round."""
    back = direction == "reverse"
    X = "B" if varying else "X"
    t = "t" if back else "i"
    if ragged:
        keep = f"{nodes.format(y='new')} live = Less ({t}, lens) h_next = Where (live, new, h) y = Where (live, new, zero)"
    else:
        keep = f"{nodes.format(y='h_next')} y = Identity (h_next)"
    turn_back = f"""
        from_first = Range (zero_int, T, one_int)
        from_last = Sub (last, from_first)
        Y_{name} = Gather <axis = 0> (turned, from_last)
    """
    return _LOOP.format(
        name=name,
        set_last="last = Sub (T, one_int)" if back else "",
        in_order="turned" if back else f"Y_{name}",
        set_t="t = Sub (last, i)" if back else "",
        t=t,
        X=X,
        u=f"w = Gather <axis = 0> (A, {t}) uh = Mul (w, h)" if varying else "uh = Mul (U, h)",
        keep=keep,
        turn_back=turn_back if back else "",
    )


def overload(activation: str, direction: str) -> str:
    """Return the overload that a node of this activation and direction names; KeyError when there is no such function."""
    if activation not in ACTIVATIONS or direction not in DIRECTIONS:
        raise KeyError(f"expected one of {tuple(ACTIVATIONS)} and {DIRECTIONS}, got {activation!r} and {direction!r}")
    return f"{activation}_{direction}"


def function(activation: str, direction: str) -> onnx.FunctionProto:
    """Return the op's portable body for one activation and direction, in standard operators around a Loop.

    All four inputs must be given: a body in standard operators cannot tell whether an optional input is there.
    """
    takes_alpha = ACTIVATIONS[activation].takes_alpha
    return _function(
        OP_TYPE,
        overload(activation, direction),
        f'activation: string = "{activation}", direction: string = "{direction}", alpha: float = 0.01',
        ACTIVATIONS[activation].onnx,
        direction,
        _NUMBER.format(name="slope", attribute="alpha", like="U") if takes_alpha else "",
        varying=False,
    )


def diagonal_overload(bounds: str, direction: str) -> str:
    """Return the overload that a DiagonalRecurrence of these bounds and direction names; KeyError when there is no such function."""
    if bounds not in BOUNDS or direction not in DIRECTIONS:
        raise KeyError(f"expected one of {tuple(BOUNDS)} and {DIRECTIONS}, got {bounds!r} and {direction!r}")
    return f"{bounds}_{direction}"


def diagonal_function(bounds: str, direction: str) -> onnx.FunctionProto:
    """Return the portable body of DiagonalRecurrence for one kind of bounds and direction; all four inputs must be given."""
    there = BOUNDS[bounds]
    attributes = ", ".join([f'direction: string = "{direction}"', *there])
    numbers = " ".join(_NUMBER.format(name=name, attribute=name, like="A") for name in there)
    return _function(DIAGONAL_TYPE, diagonal_overload(bounds, direction), attributes, _CLIP[bounds], direction, numbers, varying=True)


def bounds_of(attributes: Sequence[str]) -> str:
    """Return the kind of bounds of a DiagonalRecurrence that has attributes of these names."""
    there = tuple(name for name in ("lo", "hi") if name in attributes)
    return next(kind for kind, names in BOUNDS.items() if names == there)


def _function(
    op_type: str, overload: str, attributes: str, nodes: str, direction: str, set_numbers: str, varying: bool
) -> onnx.FunctionProto:
    """Return the body round the nodes of f, for an op whose weights are one for all steps, or varying."""
    text = _BODY.format(
        opset=OPSET,
        domain=OP_DOMAIN,
        op=op_type,
        overload=overload,
        attributes=attributes,
        inputs="A, B" if varying else "X, U",
        X="B" if varying else "X",
        U="A" if varying else "U",
        activate=nodes.format(y="Y_step"),
        set_numbers=set_numbers,
        all_steps=_loop("all", nodes, direction, ragged=False, varying=varying),
        ragged_steps=_loop("ragged", nodes, direction, ragged=True, varying=varying),
    )
    return onnx.parser.parse_function(text)


def schema() -> OpSchema:
    """Return the signature of IndRNN, for the checker, shape inference and PyTorch's exporter."""
    parameter, attribute = OpSchema.FormalParameter, OpSchema.Attribute
    return _schema(
        OP_TYPE,
        "h_t = activation(X_t + U * h_{t-1}).",
        [
            parameter("X", "T", "[T, B, H], the projected input W x + b"),
            parameter("U", "T", "[H], one recurrent weight per neuron"),
        ],
        [
            attribute("activation", onnx.helper.make_attribute("activation", "relu"), f"one of {', '.join(ACTIVATIONS)}"),
            attribute("alpha", onnx.helper.make_attribute("alpha", 0.01), "slope of leaky_relu below 0"),
        ],
    )


def diagonal_schema() -> OpSchema:
    """Return the signature of DiagonalRecurrence."""
    parameter, attribute = OpSchema.FormalParameter, OpSchema.Attribute
    return _schema(
        DIAGONAL_TYPE,
        "h_t = clip(A_t * h_{t-1} + B_t, lo, hi).",
        [
            parameter("A", "T", "[T, B, H], the recurrent weight of each step"),
            parameter("B", "T", "[T, B, H], the input of each step"),
        ],
        [
            attribute("lo", OpSchema.AttrType.FLOAT, "least of the state; no bound when absent", required=False),
            attribute("hi", OpSchema.AttrType.FLOAT, "most of the state; no bound when absent", required=False),
        ],
    )


def _schema(op_type: str, doc: str, inputs: list[OpSchema.FormalParameter], attributes: list[OpSchema.Attribute]) -> OpSchema:
    optional = OpSchema.FormalParameterOption.Optional
    parameter, attribute = OpSchema.FormalParameter, OpSchema.Attribute
    return OpSchema(
        op_type,
        OP_DOMAIN,
        OP_VERSION,
        doc=f"{doc} Y is 0 at t >= sequence_lens[b]; a length of 0 returns initial_h.",
        inputs=[
            *inputs,
            parameter("sequence_lens", "tensor(int64)", "[B], steps to run per row; all when absent", param_option=optional),
            parameter("initial_h", "T", "[B, H], the state carried in; zeros when absent", param_option=optional),
        ],
        outputs=[parameter("Y", "T", "[T, B, H], h_t for every step"), parameter("Y_h", "T", "[B, H], the state carried out")],
        type_constraints=[("T", ["tensor(float)", "tensor(double)"], "Float tensors.")],
        attributes=[
            *attributes,
            attribute("direction", onnx.helper.make_attribute("direction", "forward"), "forward, or reverse within each row's length"),
        ],
    )


def register() -> None:
    """Makes the schemas known to this process's onnx; a second call does nothing."""
    for name, made in ((OP_TYPE, schema), (DIAGONAL_TYPE, diagonal_schema)):
        if not onnx.defs.has(name, OP_DOMAIN):
            onnx.defs.register_schema(made())
