"""Checkpoints in the key layouts of the authors' code, computed by a forward pass of the test's own and by the networks they become."""

import re

import numpy as np
import pytest
import torch

from indrnn.__main__ import main
from indrnn.export.write import write
from indrnn.kernels.runtime import ort
from indrnn.model.commands.import_published import PublishedError, network
from indrnn.model.training import checkpoint

H, IN, K = 6, 4, 3
SAVED = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Weights(dict):
    """A state_dict in the making: random weights, in the order in which modules are made."""

    def __init__(self, before: bool, u: str = "weight_hh") -> None:
        super().__init__()
        self.rng, self.before, self.u = np.random.default_rng(0), before, u

    def draw(self, *shape, scale=0.6, low=None):
        values = self.rng.standard_normal(shape) * scale if low is None else self.rng.uniform(low, 1.2, shape)
        return torch.tensor(values, dtype=torch.float32)

    def linear(self, name, inputs, outputs):
        self[f"{name}.weight"], self[f"{name}.bias"] = self.draw(outputs, inputs), self.draw(outputs)

    def norm(self, name, size):
        values = (self.draw(size), self.draw(size), self.draw(size), self.draw(size, low=0.5), torch.tensor(7))
        self.update(zip([f"{name}.bn.{leaf}" for leaf in SAVED], values, strict=True))

    def layer(self, name, size):
        if self.before:
            self.norm(f"{name}.norm1", size)
        self[f"{name}.indrnn1.{self.u}"] = self.draw(size, low=-0.5)
        if not self.before:
            self.norm(f"{name}.norm1", size)


class Forward:
    """The arithmetic of their networks in NumPy, straight from the state_dict; x [T, B, in]."""

    def __init__(self, weights: Weights) -> None:
        self.w = {name: value.double().numpy() for name, value in weights.items()}
        self.before, self.u = weights.before, weights.u

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name, x):
        weight, bias, mean, var = (self.w[f"{name}.bn.{leaf}"] for leaf in SAVED[:4])
        return (x - mean) / np.sqrt(var + 1e-5) * weight + bias

    def relu(self, u, x):
        h, out = np.zeros(x.shape[1:]), []
        for step in x:
            h = np.maximum(step + u * h, 0)
            out.append(h)
        return np.stack(out)

    def layer(self, name, x):
        u = self.w[f"{name}.indrnn1.{self.u}"]
        if self.before:
            return self.relu(u, self.norm(f"{name}.norm1", x))
        return self.norm(f"{name}.norm1", self.relu(u, x))


def plain(before, maps="DIs", u="weight_hh"):
    w = Weights(before, u)
    for i in range(3):
        w.linear(f"{maps}.{i}.fc", H if i else IN, H)
    for i in range(3):
        w.layer(f"RNNs.{i}", H)
    w.linear("classifier", H, K)

    def forward(x):
        f = Forward(w)
        for i in range(3):
            x = f.layer(f"RNNs.{i}", f.linear(f"{maps}.{i}.fc", x))
        return f.linear("classifier", x)

    return w, forward


def early(before):
    """The plain network of the first release: no module joins recurrence and norm, which always stands after."""
    w = Weights(before)
    for i in range(2):
        w.linear(f"DIs.{i}", H if i else IN, H)
    for i in range(2):
        w.norm(f"BNs.{i}", H)
    for i in range(2):
        w[f"RNNs.{i}.weight_hh"] = w.draw(H, low=-0.5)
    w.linear("lastfc", H, K)

    def forward(x):
        f = Forward(w)
        for i in range(2):
            x = f.norm(f"BNs.{i}", f.relu(f.w[f"RNNs.{i}.weight_hh"], f.linear(f"DIs.{i}", x)))
        return f.linear("lastfc", x)

    return w, forward


def residual(before):
    w = Weights(before)
    w.linear("features.fc0.fc", IN, H)
    for i in (1, 2):
        for j in (1, 2):
            w.layer(f"features.resblock{i}.IndRNNwithBN{j}", H)
            w.linear(f"features.resblock{i}.fc{j}.fc", H, H)
    w.layer("features.IndRNNwithBN_last", H)
    w.linear("classifier", H, K)

    def forward(x):
        f = Forward(w)
        x = f.linear("features.fc0.fc", x)
        for i in (1, 2):
            y = x
            for j in (1, 2):
                y = f.linear(f"features.resblock{i}.fc{j}.fc", f.layer(f"features.resblock{i}.IndRNNwithBN{j}", y))
            x = x + y
        return f.linear("classifier", f.layer("features.IndRNNwithBN_last", x))

    return w, forward


def dense(before, last=True, inputs=IN):
    w, k, features = Weights(before), 2, 6
    w.linear("features.fc0.fc", inputs, features)
    w.layer("features.IndRNNwithBN0", features)
    steps = []
    for i, count in ((1, 2), (2, 1)):
        for j in range(1, count + 1):
            name = f"features.denseblock{i}.denselayer{j}"
            w.linear(f"{name}.fc1.fc", features, 4 * k)
            w.layer(f"{name}.IndRNNwithBN1", 4 * k)
            w.linear(f"{name}.fc2.fc", 4 * k, k)
            w.layer(f"{name}.IndRNNwithBN2", k)
            steps.append((name, True))
            features += k
        if i == 1 or last:
            name = "features.transition1" if i == 1 else "features.lastlayer"
            w.linear(f"{name}.fc.fc", features, features // 2)
            w.layer(f"{name}.IndRNNwithBN", features // 2)
            steps.append((name, False))
            features //= 2
    w.linear("classifier", features, K)

    def forward(x):
        f = Forward(w)
        x = f.layer("features.IndRNNwithBN0", f.linear("features.fc0.fc", x))
        for name, grows in steps:
            if grows:
                y = f.layer(f"{name}.IndRNNwithBN1", f.linear(f"{name}.fc1.fc", x))
                x = np.concatenate([x, f.layer(f"{name}.IndRNNwithBN2", f.linear(f"{name}.fc2.fc", y))], 2)
            else:
                x = f.layer(f"{name}.IndRNNwithBN", f.linear(f"{name}.fc.fc", x))
        return f.linear("classifier", x)

    return w, forward


MADE = {
    "plain after": lambda: plain(False),
    "plain before": lambda: plain(True),
    "plain, other names": lambda: plain(False, "dense_input_list", "recurrent_weight"),
    "plain, first release": lambda: early(False),
    "residual after": lambda: residual(False),
    "residual before": lambda: residual(True),
    "dense after": lambda: dense(False),
    "dense before, no last layer": lambda: dense(True, last=False),
}


@pytest.fixture(params=MADE, ids=str)
def made(request):
    """A state_dict, and the network's answers after every step."""
    return MADE[request.param]()


def answers(net, x):
    """Logits [T, B, K] of x [T, B, in], in two pieces."""
    x = torch.from_numpy(x.astype(np.float32)).transpose(0, 1)
    state, out = net.start(len(x)), []
    with torch.no_grad():
        for piece in (x[:, :4], x[:, 4:]):
            logits, state = net(piece, torch.full((len(x),), piece.shape[1]), state)
            out.append(logits)
    return torch.cat(out, 1).transpose(0, 1).numpy()


def test_the_network_answers_as_the_authors_would(made, tmp_path):
    weights, forward = made
    torch.save(dict(weights), tmp_path / "theirs.pt")
    assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(tmp_path / "ours.pt")]) == 0
    net, meta = checkpoint.load_trained(tmp_path / "ours.pt")
    x = np.random.default_rng(1).standard_normal((11, 3, IN))
    np.testing.assert_allclose(answers(net, x), forward(x), rtol=1e-3, atol=1e-4)
    assert (meta.kind, meta.labels) == ("sequence", ("0", "1", "2"))
    folded, meta = checkpoint.load(tmp_path / "ours.pt")
    logits = forward(x)
    np.testing.assert_allclose(answers(folded, x), logits - logits.mean(2, keepdims=True), rtol=1e-3, atol=1e-4)
    assert max(abs(u) for p in meta.parts for u in p.u or ()) <= folded.config.gamma


def test_whether_the_norm_stands_before_can_be_told_and_is_told_from_the_order(made):
    weights, forward = made
    backwards = dict(reversed(weights.items()))
    norm = "before" if weights.before else "after"
    x = np.random.default_rng(1).standard_normal((7, 2, IN))
    np.testing.assert_allclose(answers(network(backwards, norm), x), forward(x), rtol=1e-3, atol=1e-4)
    assert network(weights).config.norm == norm


def test_what_dataparallel_saves_and_norms_counted_by_name_are_read():
    weights, forward = plain(False)
    renamed = {re.sub(r"RNNs\.(\d)\.norm1", lambda m: f"norm{int(m[1]) + 1}", f"module.{k}"): v for k, v in weights.items()}
    assert "module.norm3.bn.bias" in renamed
    x = np.random.default_rng(1).standard_normal((7, 2, IN))
    np.testing.assert_allclose(answers(network(renamed), x), forward(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"RNNs.0.gate.weight": torch.ones(2), "extra": torch.ones(1)}, "unknown keys: RNNs.0.gate.weight, extra"),
        ({"RNNs.0.norm1.bn.scale": torch.ones(H)}, "unknown keys: RNNs.0.norm1.bn.scale"),
        ({"RNNs.1.indrnn1.weight_hh": None}, "stack.layers.1.u|layers"),
        ({"classifier.weight": None}, "readout.weight"),
        ({"DIs.1.fc.weight": torch.ones(H, H + 1)}, "layers.1.project.weight"),
        ({"RNNs.1.indrnn1.recurrent_weight": torch.ones(H)}, "another key says the same"),
    ],
    ids=str,
)
def test_keys_too_many_too_few_or_misshapen_are_an_error_that_names_them(change, said, tmp_path, capsys):
    weights = dict(plain(False)[0])
    for key, value in change.items():
        if value is None:
            del weights[key]
        else:
            weights[key] = value
    with pytest.raises(PublishedError, match=said):
        network(weights)
    torch.save(weights, tmp_path / "theirs.pt")
    assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(tmp_path / "ours.pt")]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "ours.pt").exists()


class Nasty:
    def __reduce__(self):
        return print, ("unpickled",)


STRANGE = [{"encoder.weight": torch.ones(2)}, [1, 2], {"a": 1}, {}, {"RNNs.0.weight_hh": Nasty()}, None]


@pytest.mark.parametrize("content", STRANGE, ids=lambda c: type(c).__name__)
def test_a_file_that_is_no_such_network_is_refused_and_nothing_in_it_is_run(content, tmp_path, capsys):
    if content is not None:
        torch.save(content, tmp_path / "theirs.pt")
    assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(tmp_path / "ours.pt")]) == 1
    out, err = capsys.readouterr()
    assert "unpickled" not in out
    assert "expected" in err or "no such file" in err


def test_a_network_of_skeletons_becomes_a_bundle_that_answers_the_same(tmp_path):
    """Two persons of 25 joints, as NTU RGB+D's arrays are laid out; its |u| > 1 are good for as many steps as it was trained on."""
    weights, forward = dense(False, inputs=150)
    weights["features.fc0.fc.weight"] /= 20
    torch.save(dict(weights), tmp_path / "theirs.pt")
    (tmp_path / "labels.txt").write_text("sit\nstand\nwave\n")
    arguments = ["--out", str(tmp_path / "ours.pt"), "--layout", "ntu25", "--labels", str(tmp_path / "labels.txt")]
    assert main(["import", str(tmp_path / "theirs.pt"), *arguments]) == 0
    module, meta = checkpoint.load(tmp_path / "ours.pt")
    bundle = write(module, meta, tmp_path / "bundles", "ntu", "1", command="", max_position=20)
    m = bundle.manifest
    assert (m.kind, m.persons, m.layout, m.labels) == ("action", 2, "ntu25", ("sit", "stand", "wave"))
    x = np.random.default_rng(1).standard_normal((1, 9, 2, 25, 3)).astype(np.float32)
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    state = np.zeros((1, m.state_size), np.float32)
    logits, _ = session.run(None, {"x": x, "lengths": np.array([9]), "state": state})
    want = forward(x.reshape(9, 1, 150))
    np.testing.assert_allclose(logits.transpose(1, 0, 2), want - want.mean(2, keepdims=True), rtol=1e-3, atol=1e-3)


def test_labels_and_joints_that_do_not_fit_are_refused(tmp_path, capsys):
    torch.save(dict(plain(False)[0]), tmp_path / "theirs.pt")
    (tmp_path / "labels.txt").write_text("sit\nstand\n")
    (tmp_path / "twice.txt").write_text("sit\nsit\nstand\n")
    wrong = {
        "3 labels": ["--labels", str(tmp_path / "labels.txt")],
        "different labels, one a line, got 2 in 3": ["--labels", str(tmp_path / "twice.txt")],
        "a multiple of 60": ["--layout", "utd20"],
        "a multiple of 6 ": ["--joints", str(tmp_path / "labels.txt")],
    }
    for said, more in wrong.items():
        assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(tmp_path / "ours.pt"), *more]) == 1
        assert f"expected {said}" in capsys.readouterr().err


@pytest.mark.parametrize("make", [plain, residual, dense])
def test_a_network_of_numbers_becomes_a_bundle_that_answers_the_same(make, tmp_path):
    """Four numbers a step: one joint and a third, the rest of the second filled up with what is not looked at."""
    weights, forward = make(False)
    torch.save(dict(weights), tmp_path / "theirs.pt")
    assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(tmp_path / "ours.pt"), "--numbers"]) == 0
    module, meta = checkpoint.load(tmp_path / "ours.pt")
    bundle = write(module, meta, tmp_path / "bundles", "numbers", "1", command="", max_position=9)
    m = bundle.manifest
    assert (m.layout, m.persons, m.layouts["numbers"].joint_names) == ("numbers", 1, ("numbers 0 to 2", "numbers 3 to 5"))
    x = np.random.default_rng(1).standard_normal((9, 1, IN))
    filled = np.concatenate([x, np.full((9, 1, 2), 7)], 2).reshape(1, 9, 1, 2, 3).astype(np.float32)
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    logits, _ = session.run(None, {"x": filled, "lengths": np.array([9]), "state": np.zeros((1, m.state_size), np.float32)})
    want = forward(x)
    np.testing.assert_allclose(logits.transpose(1, 0, 2), want - want.mean(2, keepdims=True), rtol=1e-3, atol=1e-3)


def test_joints_of_a_skeleton_that_nobody_knows_are_named_in_a_file(tmp_path, capsys):
    weights, _ = plain(False)
    weights["DIs.0.fc.weight"] = torch.randn(H, 12) / 4
    torch.save(dict(weights), tmp_path / "theirs.pt")
    (tmp_path / "joints.txt").write_text("nose\ntail\n")
    arguments = ["--out", str(tmp_path / "ours.pt"), "--joints", str(tmp_path / "joints.txt"), "--hz", "12"]
    assert main(["import", str(tmp_path / "theirs.pt"), *arguments]) == 0
    assert main(["evaluate", str(tmp_path / "ours.pt")]) == 1
    assert "no data to measure it on" in capsys.readouterr().err
    module, meta = checkpoint.load(tmp_path / "ours.pt")
    m = write(module, meta, tmp_path / "bundles", "mouse", "1", command="", max_position=20).manifest
    assert (m.layout, m.persons, m.hz, m.layouts["own"].joint_names) == ("own", 2, 12, ("nose", "tail"))


@pytest.mark.parametrize("named", [True, False])
def test_a_network_of_numbers_is_a_model_of_numbers_in_its_own_axes_or_in_those_of_old_requests(named, tmp_path, capsys):
    weights, forward = plain(False)
    torch.save(dict(weights), tmp_path / "theirs.pt")
    (tmp_path / "features.txt").write_text("heat\nhum\nrain\nwind\n")
    told = ["--features", str(tmp_path / "features.txt"), "--hz", "0.5"] if named else ["--numbers"]
    assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(tmp_path / "ours.pt"), *told]) == 0
    module, meta = checkpoint.load(tmp_path / "ours.pt")
    bundle = write(module, meta, tmp_path / "bundles", "numbers", "1", command="", max_position=9)
    m = bundle.manifest
    assert (m.modality, m.answer, m.labels, m.part("last_frame")) == ("tensor", "end", ("0", "1", "2"), None)
    assert [f.name for f in m.features] == (["heat", "hum", "rain", "wind"] if named else ["0", "1", "2", "3"])
    assert (m.hz, m.layout, m.inputs[0].shape[2:]) == ((0.5, None, (4,)) if named else (None, "numbers", (1, 2, 3)))
    card = (bundle.graph.parent / "CARD.md").read_text()
    assert not re.search("skelet|metre|person|camera", card)
    if named:
        x = np.random.default_rng(1).standard_normal((9, 1, IN)).astype(np.float32)
        session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
        state = np.zeros((1, m.state_size), np.float32)
        logits, _ = session.run(None, {"x": x.transpose(1, 0, 2), "lengths": np.array([9]), "state": state})
        want = forward(x)
        np.testing.assert_allclose(logits.transpose(1, 0, 2), want - want.mean(2, keepdims=True), rtol=1e-3, atol=1e-3)
        (tmp_path / "features.txt").write_text("heat\nhum\n")
        assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(tmp_path / "again.pt"), *told]) == 1
        assert "expected 4 features, one a line, got 2" in capsys.readouterr().err


@pytest.mark.parametrize("hz", ["0", "-30", "nan", "inf", "often"])
def test_a_rate_that_is_none_is_refused_before_anything_is_read(hz, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["import", str(tmp_path / "none.pt"), "--out", str(tmp_path / "ours.pt"), "--numbers", f"--hz={hz}"])
    assert f"argument --hz: expected a number above 0, got '{hz}'" in capsys.readouterr().err


@pytest.mark.parametrize("reads", [["--numbers"], ["--joints"]], ids=str)
@pytest.mark.parametrize("hz", ["0.5", "1001"])
def test_a_rate_that_no_bundle_of_that_form_may_state_is_refused_when_it_is_imported(hz, reads, tmp_path, capsys):
    weights, _ = plain(False)
    weights["DIs.0.fc.weight"] = torch.randn(H, 12) / 4
    torch.save(dict(weights), tmp_path / "theirs.pt")
    (tmp_path / "joints.txt").write_text("nose\ntail\n")
    told = [*reads, str(tmp_path / "joints.txt")] if reads == ["--joints"] else reads
    assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(tmp_path / "ours.pt"), *told, "--hz", hz]) == 1
    assert capsys.readouterr().err == f"--hz: expected from 1 to 1000 with {reads[0]}, got {float(hz):g}\n"
    assert not (tmp_path / "ours.pt").exists()
