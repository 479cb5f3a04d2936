"""torch.func, forward mode and gradients of gradients look into the recurrence: each agrees with what plain differentiation gives."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from indrnn.model.cells.recurrence import ACTIVATIONS, DIRECTIONS, recurrence
from indrnn.model.indrnn import IndRNN

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func's own forward mode calls it

BOTH = [(activation, direction) for activation in ACTIVATIONS for direction in DIRECTIONS]
every = pytest.mark.parametrize(("activation", "direction"), BOTH)


def case(activation, direction, lens=(4, 0, 3), T=4, B=3, H=2):
    g = torch.Generator().manual_seed(5)
    x, u, h = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((T, B, H), (H,), (B, H)))
    lengths = torch.tensor(lens)

    def run(x, u, h):
        y, y_h = recurrence(x, u, lengths, h, activation, 0.1, direction)
        return torch.cat([y.reshape(-1), y_h.reshape(-1)])

    return run, (x, u, h)


def by_differences(run, inputs, tangents, eps=1e-6):
    up, down = ([i + s * eps * t for i, t in zip(inputs, tangents, strict=True)] for s in (1, -1))
    return (run(*up) - run(*down)) / (2 * eps)


@every
def test_forward_mode_is_the_derivative(activation, direction):
    run, inputs = case(activation, direction)
    tangents = tuple(torch.randn_like(i) for i in inputs)
    expected = by_differences(run, inputs, tangents)
    assert expected.abs().max() > 0.1
    _, tangent = jvp(run, inputs, tangents)
    torch.testing.assert_close(tangent, expected, rtol=0, atol=1e-7)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(i, t) for i, t in zip(inputs, tangents, strict=True)]
        torch.testing.assert_close(forward_ad.unpack_dual(run(*duals)).tangent, expected, rtol=0, atol=1e-7)


@every
def test_every_jacobian_is_the_same(activation, direction):
    run, inputs = case(activation, direction)
    plain = torch.autograd.functional.jacobian(run, inputs)
    for name, found in (("jacfwd", jacfwd(run, (0, 1, 2))(*inputs)), ("jacrev", jacrev(run, (0, 1, 2))(*inputs))):
        for one, other in zip(found, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12, msg=name)
    _, pull = vjp(run, *inputs)
    given = torch.randn_like(run(*inputs))
    for one, other in zip(pull(given), plain, strict=True):
        torch.testing.assert_close(one, torch.tensordot(given, other, dims=1), rtol=0, atol=1e-12)


@every
@pytest.mark.filterwarnings("ignore:.*non-deterministic.*")
def test_gradients_of_gradients(activation, direction):
    run, inputs = case(activation, direction)
    assert torch.autograd.gradgradcheck(run, [i.clone().requires_grad_() for i in inputs])


def test_second_derivatives_agree_three_ways():
    run, (x, u, h) = case("tanh", "forward")

    def loss(u):
        return run(x, u, h).square().sum()

    expected = torch.stack([(grad(loss)(u + e) - grad(loss)(u - e)) / 2e-5 for e in 1e-5 * torch.eye(2, dtype=u.dtype)])
    torch.testing.assert_close(hessian(loss)(u), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(torch.autograd.functional.hessian(loss, u), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(jacrev(jacrev(loss))(u), expected, rtol=0, atol=1e-7)


def test_a_third_derivative():
    run, (x, u, h) = case("sigmoid", "forward")
    point = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def loss(point):
        return run(x, u * point, h).pow(3).sum()

    first = torch.autograd.grad(loss(point), point, create_graph=True)[0]
    second = torch.autograd.grad(first, point, create_graph=True)[0]
    (third,) = torch.autograd.grad(second, point)
    assert third.item() == pytest.approx(grad(grad(grad(loss)))(point).item(), rel=1e-9)


@every
def test_vmap_over_each_input_is_a_loop(activation, direction):
    run, (x, u, h) = case(activation, direction)
    us = torch.stack([u, 0.5 * u])
    torch.testing.assert_close(vmap(run, (None, 0, None))(x, us, h), torch.stack([run(x, one, h) for one in us]))
    xs = torch.stack([x, -x])
    torch.testing.assert_close(vmap(run, (0, None, None))(xs, u, h), torch.stack([run(one, u, h) for one in xs]))


def test_vmap_over_lengths():
    x, u = torch.randn(5, 2, 3), torch.rand(3)
    lens = torch.tensor([[5, 1], [0, 3]])
    found = vmap(lambda n: recurrence(x, u, n)[0])(lens)
    torch.testing.assert_close(found, torch.stack([recurrence(x, u, n)[0] for n in lens]))


@every
def test_batched_gradients_are_a_loop(activation, direction):
    run, inputs = case(activation, direction)
    inputs = [i.requires_grad_() for i in inputs]
    y = run(*inputs)
    given = torch.randn(3, len(y), dtype=y.dtype)
    together = torch.autograd.grad(y, inputs, given, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(y, inputs, one, retain_graph=True) for one in given]
    for i, found in enumerate(together):
        torch.testing.assert_close(found, torch.stack([one[i] for one in alone]), rtol=0, atol=1e-12)


def test_gradients_of_each_sample_through_a_layer():
    """The use that people have: functional_call with vmap(grad), of a layer in two directions."""
    rnn = IndRNN(3, 4, num_layers=2, batch_first=True, bidirectional=True).double()
    weights = dict(rnn.named_parameters())
    x = torch.randn(5, 6, 3, dtype=torch.float64)

    def loss(weights, sample):
        return functional_call(rnn, weights, (sample[None],))[0].square().sum()

    together = vmap(grad(loss), (None, 0))(weights, x)
    for i, sample in enumerate(x):
        alone = torch.autograd.grad(rnn(sample[None])[0].square().sum(), list(weights.values()))
        for (name, found), expected in zip(together.items(), alone, strict=True):
            torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-10, msg=name)


def test_what_cannot_be_differentiated_says_so_here_too():
    x, u = torch.randn(3, 1, 2), torch.rand(2)
    with pytest.raises(ValueError, match="alpha"):
        jvp(lambda u: recurrence(x, u, activation="leaky_relu", alpha=-1.0)[0], (u,), (u,))
    with pytest.raises(ValueError, match="expected"):
        vmap(lambda u: recurrence(x, u, activation="nothing")[0])(u[None])


COMPILED = {
    "jvp": lambda net: lambda x: jvp(net, (x,), (torch.ones_like(x),))[1],
    "jacfwd": jacfwd,
    "grad": lambda net: grad(lambda x: net(x).square().sum()),
    "jacrev": jacrev,
    "vmap": lambda net: vmap(net, in_dims=1),
}


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_transform_is_the_transform(name):
    torch.manual_seed(4)
    rnn, x = IndRNN(2, 3, nonlinearity="tanh"), torch.randn(3, 2, 2)

    def net(x):
        return rnn(x[:, None] if x.ndim == 2 else x)[0]

    transformed = COMPILED[name](net)
    want = transformed(x)
    assert want.abs().max() > 0.1
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(transformed, backend="aot_eager")(x), want)


def test_a_plain_network_is_compiled_with_the_operator_as_it_is():
    rnn, x, seen = IndRNN(2, 3), torch.randn(3, 2, 2), []

    def backend(module, inputs):
        seen.extend(str(node.target) for node in module.graph.nodes)
        return module

    torch._dynamo.reset()
    torch.compile(lambda x: rnn(x)[0], backend=backend, fullgraph=True)(x)
    assert any("indrnn" in target for target in seen)
