"""Pixels: the idx format, the split, the permutation, the network."""

import hashlib
import struct

import numpy as np
import pytest
import torch

from indrnn.model.cells.norm import BatchNorm, settle_
from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.data import mnist
from indrnn.model.nets.pictures.images import ImagesConfig
from indrnn.model.nets.pixels import PixelsConfig, PixelsNet
from indrnn.model.tasks.mnist import PixelsLearner, PixelsRecipe
from indrnn.model.tasks.pictures.images import ImagesLearner, ImagesRecipe

FILES = [f"mnist/{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def test_an_idx_file_is_read_by_its_own_shape():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = b"\0\0\x08\x03" + struct.pack(">3i", 2, 3, 4) + images.tobytes()
    np.testing.assert_array_equal(mnist.idx(content), images)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "00 00 08"), (b"\0\0\x0d\x01\0\0\0\1\0\0\0\0", "00 00 0d"), (b"\0\0\x08\x01\0\0\0\x05abc", "expected 5 bytes of data")],
)
def test_what_is_no_idx_file_of_bytes_is_refused_with_what_came(content, said):
    with pytest.raises(mnist.IdxError, match=said):
        mnist.idx(content)


def test_the_permutation_is_the_one_of_the_written_seed_for_ever():
    order = mnist.permutation()
    assert sorted(order) == list(range(784))
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == "b82d3cf1dc5fcb94"


def test_the_images_are_split_as_published_and_no_image_is_in_two_parts(needs):
    for name in FILES:
        needs(name)
    parts = {part: mnist.read(part, permuted=False) for part in ("train", "val", "test")}
    assert {part: x.shape for part, (x, _) in parts.items()} == {"train": (57_000, 784), "val": (3_000, 784), "test": (10_000, 784)}
    assert all(sorted(np.unique(y)) == list(range(10)) for _, y in parts.values())
    assert np.bincount(parts["val"][1]).min() > 230  # drawn, not the end of the file
    kept = {x.tobytes() for x in parts["train"][0]}
    assert sum(x.tobytes() in kept for x in parts["val"][0]) == 0
    assert sum(x.tobytes() in kept for x in parts["test"][0]) == 0


def test_permuted_images_are_the_same_images_in_that_order(needs):
    for name in FILES[2:]:
        needs(name)
    (x, y), (permuted, same) = mnist.read("test", permuted=False), mnist.read("test", permuted=True)
    np.testing.assert_array_equal(permuted, x[:, mnist.permutation()])
    np.testing.assert_array_equal(y, same)
    assert not np.array_equal(x, permuted)


def test_a_pooled_image_is_the_means_of_its_squares_row_after_row():
    x = np.zeros((2, 28, 28), np.uint8)
    x[1, 2:4, 4:6] = [[10, 20], [30, 41]]  # the square of row 1 and column 2
    small = mnist.pooled(x.reshape(2, -1), 2)
    assert small.shape == (2, 196)
    assert small.dtype == np.uint8
    assert np.argwhere(small).tolist() == [[1, 14 + 2]]
    assert small[1, 16] == 25
    assert mnist.pooled(np.full((1, 784), 255, np.uint8), 7).tolist() == [[255] * 16]


def test_pooled_images_are_permuted_in_an_order_of_their_own_length(needs):
    for name in FILES[2:]:
        needs(name)
    (x, _), (permuted, _) = mnist.read("test", permuted=False, pool=2), mnist.read("test", permuted=True, pool=2)
    assert x.shape == (10_000, 196)
    np.testing.assert_array_equal(permuted, x[:, mnist.permutation(196)])


def test_pixels_go_from_minus_one_to_one():
    assert mnist.scaled(np.array([0, 255], np.uint8)).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("kind", ["skip", "plain", "residual"])
def test_the_answer_is_that_of_the_last_step_and_any_split_gives_it(kind):
    torch.manual_seed(0)
    net = PixelsNet(PixelsConfig(kind=kind, hidden=8, layers=3, steps=20))
    with torch.no_grad():
        torch.nn.init.normal_(net.readout.weight)
        net.answer(torch.randn(4, 20))  # statistics other than 0 and 1
    net.eval()
    x = torch.randn(3, 20)
    logits, _ = net(x, torch.full((3,), 20), net.start(3))
    torch.testing.assert_close(logits[:, -1], net.answer(x))
    _, state = net(x[:, :9], torch.full((3,), 9), net.start(3))
    later, _ = net(x[:, 9:], torch.full((3,), 11), state)
    torch.testing.assert_close(later[:, -1], logits[:, -1])
    folded = net.fold()
    torch.testing.assert_close(folded.answer(x).softmax(1), net.answer(x).softmax(1))


@pytest.mark.parametrize("kind", ["skip", "plain"])
def test_the_last_layer_starts_near_one_and_no_layer_beyond_the_bound(kind):
    layers = PixelsNet(PixelsConfig(kind=kind)).stack.indrnns()
    assert all(0 <= layer.cell.u.min() and layer.cell.u.max() <= 2 ** (1 / 784) for layer in layers)
    assert layers[-1].cell.u.min() >= 0.5 ** (1 / 784)
    assert layers[0].cell.u.min() < 0.5


def test_settled_statistics_are_those_of_the_batches_and_nothing_else_moves():
    torch.manual_seed(0)
    net = PixelsNet(PixelsConfig(kind="skip", hidden=4, layers=1, steps=20)).eval()
    before = {name: p.clone() for name, p in net.named_parameters()}
    batches = [torch.randn(16, 20) + 3 for _ in range(4)]
    settle_(net, 4, lambda i: net.answer(batches[i]))
    layer = net.stack.indrnns()[0]
    norm = layer.norm
    assert isinstance(norm, BatchNorm)
    a = layer.project(torch.cat(batches).t()[:, :, None]).detach().flatten(0, 1)
    torch.testing.assert_close(norm.mean, a.mean(0))
    torch.testing.assert_close(norm.var, torch.stack([layer.project(x[:, :, None]).detach().flatten(0, 1).var(0) for x in batches]).mean(0))
    assert not net.training
    assert not norm.training
    assert norm.momentum == 0.05
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())


@pytest.mark.parametrize("kind", ["pixels", "images"])
def test_a_batch_of_more_images_than_there_are_is_refused(kind):
    few = np.zeros((8, 784), np.uint8), np.zeros(8, np.int64)
    made = {
        "pixels": lambda rows: PixelsLearner(PixelsConfig(steps=784, hidden=4), PixelsRecipe(1, 1, rows=rows), few, few, 0),
        "images": lambda rows: ImagesLearner(ImagesConfig(hidden=4), ImagesRecipe(1, 1, rows=rows), few, few, 0),
    }[kind]
    assert len(made(8).batch(0)[0]) == 8
    with pytest.raises(SizeError, match="--rows 9: expected at most 8 rows, the images to learn from"):
        made(9)
