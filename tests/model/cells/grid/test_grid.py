"""Layers of pictures: they are what their specification in NumPy says, their gradients are right, and what they promise holds."""

import math

import numpy as np
import pytest
import torch

from indrnn.model.cells.grid import reference
from indrnn.model.cells.grid.multidimensional import KINDS, MultiDimensional, skew, unskew
from indrnn.model.cells.grid.recurrent_conv import ALPHA, BETA, NORMS, PlaneNorm, RecurrentConv
from indrnn.model.cells.norm import BatchNorm


def stirred(layer):
    """The layer in float64 with nothing at its initial value, statistics of norms included."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in layer.double().state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(0.5 + noise.abs() if name.endswith("var") else tensor + 0.2 * noise)
    return layer.eval()


def planes(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numpy(tensor):
    return tensor.detach().numpy()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("looks", "reach"), [(0, 3), (1, 1), (3, 3), (2, 5)])
def test_a_recurrent_convolution_is_its_specification(norm, looks, reach):
    torch.manual_seed(0)
    layer, u = stirred(RecurrentConv(2, 17, looks, reach, norm)), planes(2, 2, 5, 4)
    affine = [n.affine() if isinstance(n, PlaneNorm) else (torch.ones(17), torch.zeros(17)) for n in layer.norms]
    scale, shift = (np.stack([numpy(a[i]) for a in affine]) for i in (0, 1))
    weights = numpy(layer.forth.weight), numpy(layer.forth.bias), numpy(layer.back.weight)
    response = (ALPHA, BETA) if norm == "response" else None
    with torch.no_grad():
        got = layer(100 * u)
    for b in range(2):
        want = reference.recurrent_conv(100 * numpy(u[b]), *weights, looks, scale, shift, response)
        np.testing.assert_allclose(got[b], want, rtol=1e-9, atol=1e-9)
    layer.fold_()
    assert not any(isinstance(m, BatchNorm) for m in layer.modules())
    with torch.no_grad():
        torch.testing.assert_close(layer(100 * u), got)


def test_the_response_norm_is_the_one_of_torch():
    x = 100 * planes(2, 17, 4, 3)
    layer = RecurrentConv(17, 17, 0, 1, "response").double()
    with torch.no_grad():
        layer.forth.weight.copy_(torch.eye(17)[:, :, None, None])
        layer.forth.bias.zero_()
        want = torch.nn.functional.local_response_norm(x.relu(), 3, ALPHA, BETA, 1.0)
        torch.testing.assert_close(layer(x), want)


def test_each_look_sees_one_place_farther():
    layer = stirred(RecurrentConv(1, 3, 3, 3, "none"))
    for looks in (0, 1, 3):
        layer.looks = looks
        u = torch.zeros(1, 1, 9, 9, dtype=torch.float64, requires_grad=True)
        (layer.forth(u) * 0 + layer(u + 1)).sum(1)[0, 4, 4].backward()
        rows = (u.grad[0, 0] != 0).any(1).nonzero()[:, 0].tolist()
        assert (4 - rows[0]) <= looks + 1


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_of_a_recurrent_convolution_is_that_of_finite_differences(norm):
    torch.manual_seed(3)
    layer = stirred(RecurrentConv(2, 3, 2, 3, norm))
    u = planes(2, 2, 3, 4).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def run(x, *own):
        return torch.func.functional_call(layer, dict(zip(names, own, strict=True)), (x,))

    torch.autograd.gradcheck(run, (u, *weights))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (4, 1), (3, 5), (5, 3)])
def test_a_multi_dimensional_layer_is_its_specification(kind, rows, columns):
    torch.manual_seed(0)
    layer = stirred(MultiDimensional(3, 2, rows, columns, kind, norm=False))
    x = planes(2, rows, columns, 3)
    with torch.no_grad():
        got = layer(x)
    for b in range(2):
        weights = map(numpy, (layer.project.weight, layer.project.bias, layer.recurrent()))
        want = reference.multidimensional(numpy(x[b]), *weights, kind)
        np.testing.assert_allclose(got[b], want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_multi_dimensional_layer_is_that_of_finite_differences(kind):
    torch.manual_seed(5)
    layer = stirred(MultiDimensional(2, 2, 3, 2, kind))
    x = planes(2, 3, 2, 2).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def run(x, *own):
        return torch.func.functional_call(layer, dict(zip(names, own, strict=True)), (x,))

    torch.autograd.gradcheck(run, (x, *weights))


def test_a_place_knows_of_all_others_once_all_directions_are_heard():
    """And one direction alone of those above and to the left."""
    layer = stirred(MultiDimensional(1, 2, 4, 3, "tanh", norm=False)).float()
    x = torch.zeros(1, 4, 3, 1, requires_grad=True)
    h = layer(x)
    (first,) = torch.autograd.grad(h[0, 2, 1, :2].sum(), x, retain_graph=True)
    assert (first[0, :3, :2] != 0).all()
    assert first.count_nonzero() == 6
    (every,) = torch.autograd.grad(h[0, 2, 1].sum(), x)
    assert (every != 0).all()


def test_vectors_beyond_the_bound_are_scaled_back_to_it_and_others_are_left():
    """From corner to corner of 6 x 9 places a gradient grows at most gamma-fold."""
    layer = MultiDimensional(1, 3, 6, 9, "indrnn", norm=False, gamma=2.0).double()
    most = 2 ** (1 / 13)
    with torch.no_grad():
        layer.u.copy_(torch.tensor([3.0, 0.2, -0.1]))
        layer.u[1, :, 0] = -1.0
        layer.project.bias.fill_(1e3)  # every neuron above 0
        layer.project.weight.fill_(1.0)
    used = layer.recurrent()
    torch.testing.assert_close(used.abs().sum(0)[:, 0], torch.full((4,), most, dtype=torch.float64))
    assert torch.equal(used[:, :, 1:], layer.u[:, :, 1:])
    with torch.no_grad():
        layer.u.fill_(9.0)
    x = torch.zeros(1, 6, 9, 1, dtype=torch.float64, requires_grad=True)
    (grown,) = torch.autograd.grad(layer(x)[0, 5, 8, 0], x)
    paths = math.comb(13, 5)
    assert grown[0, 0, 0, 0].item() == pytest.approx(paths * (most / 2) ** 13, rel=1e-5)
    assert grown.max() <= 2.0


def test_skewing_and_back_is_nothing():
    a = planes(2, 3, 4, 5)
    skewed = skew(a)
    assert skewed.shape == (2, 3, 6, 5)
    assert torch.equal(skewed[:, 2, 3], a[:, 2, 1])
    assert not skewed[:, 1, 0].any()
    assert torch.equal(unskew(skewed, 4), a)
