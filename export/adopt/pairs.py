"""Which inputs and outputs of a file are a state going in and coming out: by what they are called, then by shape and order."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from indrnn.export.adopt.source import Value
from indrnn.export.errors import AdoptError

# What an input is called, and what the same state is called when it comes out; \1 and so on are parts of the first.
RENAMED = (
    (r"(.+)", r"\1_out"), (r"(.+)", r"\1_output"), (r"(.+)", r"\1_next"), (r"(.+)", r"\1_new"), (r"(.+)", r"\1N"), (r"(.+)", r"\1n"),
    (r"(.+)", r"\1_n"), (r"(.+)", r"\1_1"), (r"(.+)", r"new_\1"), (r"(.+)", r"next_\1"), (r"(.+)", r"out_\1"), (r"(.+)", r"output_\1"),
    (r"(.+)", r"updated_\1"), (r"(.+)", r"present_\1"), (r"(.+)", r"\1_t"), (r"(.+)", r"\1'"), (r"(.+)", r"\1.out"), (r"(.+)", r"\1out"),
    (r"(.+)", r"\1_final"), (r"(.+)", r"final_\1"), (r"(.+)", r"last_\1"), (r"(.+)", r"\1_last"), (r"(.+)", r"\1_present"),
    (r"(.*)past_key_values(.*)", r"\1present\2"), (r"(.*)past_key_values(.*)", r"\1present_key_values\2"),
    (r"(.*)past(.*)", r"\1present\2"), (r"(.*)in(.*)", r"\1out\2"), (r"(.*)In(.*)", r"\1Out\2"), (r"(.*)IN(.*)", r"\1OUT\2"),
    (r"(.*)input(.*)", r"\1output\2"), (r"(.+)0", r"\1n"), (r"(.+)0", r"\1N"), (r"(.+)0", r"\1"), (r"(.+)_0", r"\1_n"),
    (r"(.+)0", r"\g<1>1"), (r"(.*)prev(?:ious)?_?(.*)", r"\1next_\2"), (r"(.*)prev(?:ious)?(.*)", r"\1next\2"),
    (r"prev(?:ious)?_(.+)", r"\1"), (r"(.+)_prev(?:ious)?", r"\1"), (r"(.*)prev(?:ious)?_(.*)", r"\1new_\2"),
    (r"(.*)old(.*)", r"\1new\2"), (r"(.*)initial_?(.*)", r"\1final_\2"), (r"(.*)init_?(.*)", r"\1final_\2"),
    (r"initial_(.+)", r"\1"), (r"init_(.+)", r"\1"), (r"(.+)_initial", r"\1"), (r"(.+)_init", r"\1_n"), (r"(.+)_init", r"\1"),
    (r"(.*)last(.*)", r"\1next\2"),
    (r"(.+)_in", r"\1"), (r"(.+)_in", r"\1_new"), (r"in_(.+)", r"\1"), (r"(.+)_t_?minus_?1", r"\1_t"), (r"(.+)_tm1", r"\1_t"),
    (r"(.+)_in", r"\1_next"), (r"(.+)_input", r"\1"), (r"(.+)", r"\1\.1"),
)  # fmt: skip
NEVER = {"input", "inputs", "x", "in", "obs", "observation", "audio", "signal", "sr"}  # an input of that name is what is fed
FEW = 3  # free axes of a state: batch, and two that would have to be told


@dataclass(frozen=True)
class Pair:
    """A state going in and coming out; how it was found: told, by name, or by shape and order."""

    input: Value
    output: Value
    how: str


def find_pairs(inputs: Sequence[Value], outputs: Sequence[Value], told: Mapping[str, str], fixed: frozenset[str]) -> list[Pair]:
    """Return the pairs in the order of the inputs. told: input -> output by name. fixed: inputs with a value of their own, never states.

    Raises AdoptError where a name that is told is not there, or nothing looks like a state.
    """
    ins, outs = {v.name: v for v in inputs}, {v.name: v for v in outputs}
    pairs: dict[str, Pair] = {}
    for name, out in told.items():
        if name not in ins or out not in outs:
            missing, known = (name, ins) if name not in ins else (out, outs)
            raise AdoptError(f"--state {name}:{out}: the file has no {missing}, but {', '.join(known)}")
        pairs[name] = Pair(ins[name], outs[out], "told")
    _by_name(ins, outs, pairs, fixed)
    _by_shape(inputs, outputs, pairs, fixed)
    if not pairs:
        what = f"inputs {', '.join(f'{v.name} {v}' for v in inputs)}; outputs {', '.join(f'{v.name} {v}' for v in outputs)}"
        raise AdoptError(f"no state goes in and comes out by the same name or shape; --state in:out names one ({what})")
    return [pairs[v.name] for v in inputs if v.name in pairs]


def _by_name(ins: Mapping[str, Value], outs: Mapping[str, Value], pairs: dict[str, Pair], fixed: frozenset[str]) -> None:
    taken = {p.output.name for p in pairs.values()}
    for name, value in ins.items():
        if name in pairs or name in fixed or name.lower() in NEVER:
            continue
        for candidate in _names(name):
            out = outs.get(candidate)
            if out is not None and candidate not in taken and alike(value, out):
                pairs[name] = Pair(value, out, "name")
                taken.add(candidate)
                break


def _names(name: str) -> Iterator[str]:
    for pattern, renamed in RENAMED:
        match = re.fullmatch(pattern, name)
        if match:
            yield match.expand(renamed)


def _by_shape(inputs: Sequence[Value], outputs: Sequence[Value], pairs: dict[str, Pair], fixed: frozenset[str]) -> None:
    """Pair what is left where as many inputs as outputs have a type and shape, in their order; the first input is what is fed.

    Shapes are the same where their symbols are, else where the same axes are free, else where no two sizes differ.
    """
    taken = {p.output.name for p in pairs.values()}
    left_in = [v for v in inputs[1:] if v.name not in pairs and v.name not in fixed and v.name.lower() not in NEVER and v.shape]
    left_out = [v for v in outputs if v.name not in taken]
    for same in (lambda a, b: (a.dtype, a.shape) == (b.dtype, b.shape), lambda a, b: _form(a) == _form(b), alike):
        for value in left_in:
            same_in = [v for v in left_in if v.name not in pairs and same(value, v)]
            same_out = [v for v in left_out if v.name not in taken and same(value, v)]
            if value in same_in and len(same_in) == len(same_out):
                for a, b in zip(same_in, same_out, strict=True):
                    pairs[a.name] = Pair(a, b, "shape" if len(same_in) == 1 else "shape, order")
                    taken.add(b.name)


def _form(value: Value) -> tuple[object, ...]:
    return value.dtype, tuple(n if isinstance(n, int) else None for n in value.shape)


def alike(value: Value, out: Value) -> bool:
    """Return whether an output can be what an input is next time: the same type, as many axes, no two sizes that differ."""
    if value.dtype != out.dtype or len(value.shape) != len(out.shape):
        return False
    return all(a == b for a, b in zip(value.shape, out.shape, strict=True) if isinstance(a, int) and isinstance(b, int))
