"""IndRNN beside torch.nn.RNN: with a diagonal recurrent matrix nn.RNN is an IndRNN, so shapes, order and figures must all agree."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from indrnn.model.cells.recurrence import ACTIVATIONS
from indrnn.model.cells.recurrent_weight import clamp_recurrent_, recurrent_weights
from indrnn.model.cells.reference import indrnn
from indrnn.model.indrnn import IndRNN, IndRNNCell


def twins(nonlinearity="tanh", **options):
    """An IndRNN and the nn.RNN that computes the same, in float64."""
    torch.manual_seed(0)
    ours = IndRNN(3, 5, nonlinearity=nonlinearity, dtype=torch.float64, recurrent_init=nn.init.normal_, **options)
    theirs = nn.RNN(3, 5, nonlinearity=nonlinearity, dtype=torch.float64, **options)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "weight_hh" in name:
                p.copy_(torch.diag(getattr(ours, name)))
            elif "bias_hh" in name:
                p.zero_()
            else:
                p.copy_(getattr(ours, name).normal_())
    return ours, theirs


OPTIONS = [
    {},
    {"nonlinearity": "relu"},
    {"num_layers": 3},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "nonlinearity": "relu"},
    {"bias": False, "batch_first": True},
]
each = pytest.mark.parametrize("options", OPTIONS, ids=str)


def hidden(ours, *batch):
    return torch.randn(ours.num_layers * (2 if ours.bidirectional else 1), *batch, 5, dtype=torch.float64)


@each
@pytest.mark.parametrize("given", [False, True], ids=["zero", "h0"])
@pytest.mark.parametrize("shape", [(7, 4, 3), (1, 1, 3), (6, 3)], ids=str)
def test_outputs_states_and_gradients_are_those_of_torchs_rnn(options, given, shape):
    ours, theirs = twins(**options)
    x = torch.randn(shape, dtype=torch.float64)
    batch = () if len(shape) == 2 else (shape[0 if ours.batch_first else 1],)
    h0 = hidden(ours, *batch) if given else None
    results = []
    for rnn in (ours, theirs):
        inputs = [t.clone().requires_grad_() for t in ((x, h0) if given else (x,))]
        output, h_n = rnn(*inputs)
        grads = torch.autograd.grad((output * output.detach().cos()).sum() + h_n.square().sum(), [*inputs, rnn.weight_ih_l0])
        results.append((output, h_n, *grads))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


@each
@pytest.mark.parametrize("ordered", [False, True], ids=["any order", "sorted"])
@pytest.mark.parametrize("given", [False, True], ids=["zero", "h0"])
def test_packed_sequences_come_back_packed_and_each_row_is_reversed_within_its_length(options, ordered, given):
    ours, theirs = twins(**options)
    lengths = [6, 4, 3, 1] if ordered else [3, 6, 1, 4]
    x = pack_sequence([torch.randn(n, 3, dtype=torch.float64) for n in lengths], enforce_sorted=ordered)
    h0 = hidden(ours, 4) if given else None
    (got, h_got), (want, h_want) = ours(x, h0), theirs(x, h0)
    assert isinstance(got, PackedSequence)
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)
    torch.testing.assert_close(h_got, h_want)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_nonlinearity_equals_the_specification_in_both_directions(activation):
    rnn = IndRNN(3, 4, bidirectional=True, nonlinearity=activation, recurrent_init=nn.init.normal_, dtype=torch.float64)
    x, lengths = torch.randn(6, 3, 3, dtype=torch.float64), np.array([6, 2, 4])
    output, h_n = rnn(pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False))
    padded, _ = nn.utils.rnn.pad_packed_sequence(output)
    for i, (names, direction) in enumerate((("_l0", "forward"), ("_l0_reverse", "reverse"))):
        weight, bias, u = (getattr(rnn, n + names).detach().numpy() for n in ("weight_ih", "bias_ih", "weight_hh"))
        y, h = indrnn(x.numpy() @ weight.T + bias, u, lengths, None, activation, 0.01, direction)
        np.testing.assert_allclose(padded[:, :, 4 * i : 4 * i + 4].detach(), y, atol=1e-12)
        np.testing.assert_allclose(h_n[i].detach(), h, atol=1e-12)


def test_the_name_is_all_that_changes_where_an_lstm_stood():
    for cls in (nn.LSTM, IndRNN):
        rnn = cls(8, 16, 2, True, True, 0.1, True)
        rnn.flatten_parameters()
        output, _ = rnn(torch.randn(4, 9, 8))
        assert output.shape == (4, 9, 32)
        assert {n for n, _ in rnn.named_parameters()} >= {"weight_ih_l0", "weight_hh_l1_reverse", "bias_ih_l1"}


def test_an_optimised_module_in_any_type_and_place_answers_in_its_type():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        rnn = IndRNN(3, 4, 2, dtype=dtype)
        output, h_n = rnn(torch.randn(5, 2, 3, dtype=dtype))
        assert (output.dtype, h_n.dtype) == (dtype, dtype)
    assert IndRNN(3, 4, device="meta").weight_hh_l0.is_meta


def test_a_cell_is_one_step_of_the_layer():
    rnn = IndRNN(3, 4, dtype=torch.float64)
    cell = IndRNNCell(3, 4, dtype=torch.float64)
    cell.load_state_dict({name.removesuffix("_l0"): t for name, t in rnn.state_dict().items()})
    x, h = torch.randn(6, 2, 3, dtype=torch.float64), torch.rand(1, 2, 4, dtype=torch.float64)
    output, _ = rnn(x, h)
    state = h[0]
    for t in range(6):
        state = cell(x[t], state)
        torch.testing.assert_close(state, output[t])
    torch.testing.assert_close(cell(x[0, 0]), rnn(x[:1, 0])[0][0])
    assert cell(x[0, 0]).shape == (4,)


def test_recurrent_weights_start_within_the_bound_and_the_last_layers_hold_on():
    rnn = IndRNN(3, 400, 3, bidirectional=True, recurrent_max_abs=(4.0, 20))
    high, low = 4 ** (1 / 20), 0.5 ** (1 / 20)
    *others, forward, backward = recurrent_weights(rnn)
    assert all(0 <= u.min() < 0.05 and high - 0.05 < u.max() <= high for u in others)
    assert all(low <= u.min() < low + 0.01 and high - 0.01 < u.max() <= high for u in (forward, backward))
    assert 0 <= min(u.min() for u in recurrent_weights(IndRNN(3, 400, 2))) < 0.01
    assert all((u == 1).all() for u in recurrent_weights(IndRNN(3, 4, 2, recurrent_init=nn.init.ones_)))


@pytest.mark.parametrize(("max_abs", "top"), [(0.5, 0.5), ((2.0, 10), 2**0.1), (None, 9.0)])
def test_the_clamp_keeps_the_bound(max_abs, top):
    net = nn.Sequential(IndRNN(2, 3, 2, bidirectional=True, recurrent_max_abs=max_abs), IndRNNCell(2, 3, recurrent_max_abs=max_abs))
    for i, u in enumerate(recurrent_weights(net)):
        nn.init.constant_(u, 9.0 if i % 2 else -9.0)
    clamp_recurrent_(net)
    assert [u.unique().item() for u in recurrent_weights(net)] == pytest.approx([-top, top, -top, top, -top])


def test_dropout_stands_between_layers_with_one_mask_over_time():
    rnn = IndRNN(3, 64, 2, dropout=0.5, nonlinearity="sigmoid")
    first = IndRNN(3, 64, nonlinearity="sigmoid")
    first.load_state_dict({n: p for n, p in rnn.state_dict().items() if n.endswith("_l0")})
    with torch.no_grad():
        nn.init.eye_(rnn.weight_ih_l1)
        nn.init.zeros_(rnn.weight_hh_l1)
        x = torch.randn(9, 2, 3)
        seen = torch.logit(rnn(x)[0].double()) / first(x)[0]  # 0 or 2, the same at every step
    assert torch.allclose(seen, seen[:1].expand_as(seen), atol=1e-4)
    assert set(seen[0].round().unique().tolist()) == {0.0, 2.0}
    assert torch.equal(rnn.eval()(x)[0], rnn(x)[0])
    with pytest.warns(UserWarning, match="one layer"):
        IndRNN(3, 4, dropout=0.5)


def test_the_representation_names_what_differs_from_the_defaults():
    assert repr(IndRNN(3, 4)) == "IndRNN(3, 4)"
    assert "num_layers=2, batch_first=True, dropout=0.1, bidirectional=True" in repr(IndRNN(3, 4, 2, True, True, 0.1, True))
    assert repr(IndRNNCell(3, 4, False, "tanh", recurrent_max_abs=(2.0, 9))) == (
        "IndRNNCell(3, 4, bias=False, nonlinearity='tanh', recurrent_max_abs=(2.0, 9))"
    )


@pytest.mark.parametrize(
    ("x", "h0"),
    [((5, 2, 4), None), ((3,), None), ((5, 2, 3), (1, 2, 4)), ((5, 2, 3), (2, 1, 4)), ((5, 3), (2, 1, 4)), ((5, 3), (1, 4))],
    ids=str,
)
def test_a_wrong_shape_is_refused_with_what_was_expected(x, h0):
    with pytest.raises(ValueError, match="expected"):
        IndRNN(3, 4, 2)(torch.zeros(x), None if h0 is None else torch.zeros(h0))


@pytest.mark.parametrize(("x", "h"), [((2, 4), None), ((5, 2, 3), None), ((2, 3), (1, 4)), ((3,), (2, 4)), ((2, 3), (2, 3))], ids=str)
def test_a_cell_refuses_a_wrong_shape(x, h):
    with pytest.raises(ValueError, match="expected"):
        IndRNNCell(3, 4)(torch.zeros(x), None if h is None else torch.zeros(h))


@pytest.mark.parametrize(
    "wrong", [{"nonlinearity": "gelu"}, {"num_layers": 0}, {"dropout": 2.0}, {"recurrent_max_abs": (2.0, 0)}, {"recurrent_max_abs": -1.0}]
)
def test_a_wrong_argument_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        IndRNN(3, 4, **wrong)


def test_an_lstms_pair_of_states_is_refused_by_name():
    h = torch.zeros(1, 2, 4)
    with pytest.raises(TypeError, match="no second state"):
        IndRNN(3, 4)(torch.zeros(5, 2, 3), (h, h))


def test_rows_past_their_length_of_a_packed_batch_do_not_reach_the_gradient():
    rnn = IndRNN(3, 4, 2, bidirectional=True, dtype=torch.float64)
    rows = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (2, 5)]
    together = rnn(pack_sequence(rows, enforce_sorted=False))[1].square().sum()
    alone = sum(rnn(row)[1].square().sum() for row in rows)
    for a, b in zip(torch.autograd.grad(together, rows), torch.autograd.grad(alone, rows), strict=True):
        torch.testing.assert_close(a, b)


def test_export_sees_the_layer_at_any_batch_and_length():
    rnn, free = IndRNN(3, 4, 2, bidirectional=True).eval(), torch.export.Dim.DYNAMIC
    graph = torch.export.export(rnn, (torch.randn(4, 2, 3),), dynamic_shapes=({0: free, 1: free},)).module()
    x = torch.randn(9, 3, 3)
    for got, want in zip(graph(x), rnn(x), strict=True):
        torch.testing.assert_close(got, want)
