"""One file shows one network: its own `forward` says the whole way of a step, and the axes in its comments are those that run."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

from indrnn.model.nets.action import ActionConfig, ActionNet
from indrnn.model.nets.adding import AddingConfig, AddingNet
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.detect import DetectConfig, DetectNet
from indrnn.model.nets.network import StateNet
from indrnn.model.nets.pictures.images import ImagesConfig, ImagesNet
from indrnn.model.nets.pictures.labels import LabelsConfig, LabelsNet
from indrnn.model.nets.pixels import PixelsConfig, PixelsNet
from indrnn.model.nets.sequence import SequenceConfig, SequenceNet
from indrnn.model.nets.stories import MemoryNet, StoriesConfig, StoryNet
from indrnn.model.nets.tensor import TensorConfig, TensorNet
from indrnn.model.nets.words import WordsConfig, WordsNet
from indrnn.model.nets.wordwise import WordwiseNet
from indrnn.model.training.checkpoint import NETWORKS

B, T, H = 2, 3, 4
SHAPES = re.compile(r"#\s*((?:\[[^\]]+\](?:, )?)+)")


def action(**more: Any) -> tuple[ActionNet, Tensor]:
    config = ActionConfig(persons=2, joints=5, root=2, classes=7, hidden=H, layers=1, pools=(0.5, 0.6, 0.7), **more)
    return ActionNet(config), torch.randn(B, T, 2, 5, 3)


def tensor(**more: Any) -> tuple[TensorNet, Tensor]:
    return TensorNet(TensorConfig((0.0,) * 5, (1.0,) * 5, 7, hidden=H, layers=1, **more)), torch.randn(B, T, 5)


# name -> nets, x, and the sizes of the letters in its comments
PAGES: dict[str, list[tuple[StateNet, Tensor]]] = {
    "action": [
        action(),
        action(across=((0, 1),), apart=True, jump=0.1, together=True),
        (action(steady=0.5)[0].eval(), action()[1]),
    ],
    "adding": [(AddingNet(AddingConfig(hidden=H, layers=1)), torch.rand(B, T, 2))],
    "chars": [(CharsNet(CharsConfig(7, hidden=H, layers=1)), torch.randint(0, 7, (B, T)))],
    "detect": [
        (
            DetectNet(DetectConfig(persons=2, joints=5, root=2, classes=7, hidden=H, layers=1, pools=(0.5, 0.6, 0.7))),
            torch.randn(B, T, 2, 5, 3),
        )
    ],
    "images": [(ImagesNet(ImagesConfig("md_relu", side=8, classes=7, hidden=H, layers=1)), torch.rand(B, T, 8))],
    "labels": [(LabelsNet(LabelsConfig(columns=5, classes=7, hidden=H, layers=1, rounds=2)), torch.rand(B, T, 5))],
    "pixels": [(PixelsNet(PixelsConfig(7, hidden=H, layers=1)), torch.rand(B, T))],
    "sequence": [(SequenceNet(SequenceConfig(inputs=5, classes=7, layers=1, hidden=H)), torch.randn(B, T, 5))],
    "stories": [(MemoryNet(StoriesConfig(9, 5, 7, hidden=H, slots=6)), torch.randint(0, 9, (B, T, 5)).float())],
    "wordwise": [(WordwiseNet(StoriesConfig(9, 5, 7, "indrnn", H)), torch.randint(0, 9, (B, T, 5)).float())],
    "tensor": [tensor(), (TensorNet(TensorConfig((0.0,), (1.0,), 1, (0.0,), (1.0,), hidden=H)), torch.randn(B, T, 1))],
    "words": [(WordsNet(WordsConfig(7, hidden=H, layers=1)), torch.randint(0, 7, (B, T)))],
}


def letters(net: StateNet) -> dict[str, int]:
    """The sizes that a network's letters have."""
    c = net.config
    pools = len(getattr(c, "pools", ()))
    sizes = {"B": B, "T": T, "H": H, "C": pools, "K": net.classes, "N": net.state_size, "S": net.sizes[0]}
    if isinstance(net, StoryNet):
        return sizes | {"W": c.width, "M": c.slots}
    if isinstance(net, ImagesNet):
        return sizes | {"R": c.side}
    if isinstance(net, LabelsNet):
        return sizes | {"K": c.classes, "W": c.columns}
    if isinstance(net, DetectNet):
        return sizes | {"K": c.classes, "E": net.sizes[-2], "L": net.sizes[-1]}
    if isinstance(net, ActionNet):
        return sizes | {"P": c.persons, "J": c.joints, "F": c.features}
    return sizes | {"F": len(getattr(c, "mean", ())) or getattr(c, "inputs", 1)}


def size(text: str, sizes: dict[str, int]) -> int:
    """One axis as comments write it, `T + 1` or `J (J - 1) / 2`, in numbers."""
    tokens = re.findall(r"[A-Z]|\d+|[-+/()]", text)
    product = ""
    for token in tokens:
        if product and product[-1] not in "-+/(" and token not in "-+/)":
            product += "*"
        product += str(sizes[token]) if token.isalpha() else token
    return int(eval(product))  # digits and signs alone


def said(path: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Last line, targets and shapes of each assignment of the file with shapes in its comment."""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Assign) and node.end_lineno is not None:
            found = SHAPES.search(lines[node.end_lineno - 1])
            target = node.targets[0]
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            if found:
                yield node.lineno, [n.id if isinstance(n, ast.Name) else "" for n in names], re.findall(r"\[([^\]]+)\]", found[1])


def watched(net: StateNet, x: Tensor, path: Path) -> tuple[set[int], list[str]]:
    """Run the network: lines with shapes that ran, and which of their shapes were not so."""
    told = {line: (names, shapes) for line, names, shapes in said(path)}
    sizes, ran, wrong = letters(net), set(), []
    last: dict[FrameType, int] = {}

    def look(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != str(path):
            return None
        if event in ("line", "return"):
            before = last.pop(frame, 0)
            if before in told and not (event == "return" and before == frame.f_lineno):
                names, shapes = told[before]
                ran.add(before)
                for name, shape in zip(names, shapes, strict=False):
                    want = [size(axis, sizes) for axis in shape.split(", ")]
                    got = list(frame.f_locals[name].shape)
                    if got != want:
                        wrong.append(f"line {before}: {name} [{shape}] is {want}, got {got}")
            last[frame] = frame.f_lineno
        return look

    forward = type(net).forward
    before = sys.gettrace()
    sys.settrace(look)
    try:
        forward(net, x, torch.tensor([T, T - 1]), net.start(B))
    finally:
        sys.settrace(before)
    return ran, wrong


@pytest.mark.parametrize("name", NETWORKS)
def test_the_axes_in_the_comments_are_those_that_run(name: str) -> None:
    path = Path(inspect.getfile(NETWORKS[name][1])).absolute()
    ran: set[int] = set()
    for net, x in PAGES[name]:
        lines, wrong = watched(net, x, path)
        assert not wrong
        ran |= lines
    assert ran == {line for line, _, _ in said(path)}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_line_of_forward_that_makes_an_array_says_its_axes(name: str) -> None:
    network = NETWORKS[name][1]
    source = inspect.getsource(network.forward)
    assert network.forward.__qualname__.startswith(network.__name__), "a forward of its own"
    assigned = [line for line in source.splitlines() if re.match(r"\s+[a-z_, *]+ = ", line) and "config" not in line]
    assert len(assigned) >= 4
    assert [line for line in assigned if not re.search(r"#.*\[", line)] == []


def test_the_page_of_the_action_network_opens_no_file_for_what_it_does_to_a_frame() -> None:
    """Cells and stacks are what it is built of; of the networks' folder only the state's vector and the options' words are elsewhere."""
    path = Path(inspect.getfile(ActionNet))
    modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {m for m in modules if m.startswith("indrnn.")}
    assert {m for m in ours if ".cells." not in m} == {"indrnn.model.nets.network", "indrnn.model.nets.options"}
    assert len(ours) <= 5


def test_a_comment_that_is_wrong_is_found() -> None:
    sizes = letters(PAGES["action"][0][0])
    assert [size(text, sizes) for text in ("T + 1", "PJ3", "J (J - 1) / 2", "CH + C")] == [4, 30, 10, 15]
