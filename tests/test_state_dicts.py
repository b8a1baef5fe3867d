"""State dicts of torch: what their weights mean, against torch's own forward pass; what they do not say; refusals."""

import itertools
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

torch = pytest.importorskip("torch")

from bnnverify.errors import FormatError, ModelError, UnsupportedError  # noqa: E402
from bnnverify.formats import import_model, kind_of, torchstate  # noqa: E402
from bnnverify.formats.coding import InputCoding  # noqa: E402
from bnnverify.formats.latentweights import Latent  # noqa: E402
from bnnverify.formats.torchstate import Between  # noqa: E402
from bnnverify.formats.units import mean_magnitudes  # noqa: E402

SIGNS = InputCoding.signs()
CUBE = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=7)), dtype=torch.float64)


def plus(x):
    """The sign with +1 at 0."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def xnor(w):
    return plus(w) * w.abs().flatten(1).mean(1).reshape(-1, *[1] * (w.ndim - 1))


def dorefa(w):
    return plus(w) * w.abs().mean()


class Quantized(torch.nn.Linear):
    """A linear layer whose forward pass uses `quantize(weight)`, times `scale` where there is one."""

    def __init__(self, inputs, outputs, quantize=plus, bias=False):
        super().__init__(inputs, outputs, bias=bias)
        self.quantize = quantize

    def forward(self, x):
        w = self.quantize(self.weight)
        for name in ("alpha", "scale"):
            if hasattr(self, name):
                w = w * getattr(self, name).reshape(-1, 1)
        return torch.nn.functional.linear(x, w, self.bias)


class Net(torch.nn.Module):
    """fc1, bn1, sign, fc2, bn2, sign, fc3; with `first` a batch norm and a sign before all."""

    def __init__(
        self, seed, layer=Quantized, classes=3, first=False, bias=False, last_norm=False, sign=plus, **options
    ):
        super().__init__()
        torch.manual_seed(seed)
        if first:
            self.bn0 = torch.nn.BatchNorm1d(7)
        self.fc1, self.bn1 = Quantized(7, 6, bias=bias, **options), torch.nn.BatchNorm1d(6, eps=2e-5)
        self.fc2, self.bn2 = Quantized(6, 5, bias=bias, **options), torch.nn.BatchNorm1d(5, eps=2e-5)
        self.fc3 = Quantized(5, classes, bias=True, **options)
        if last_norm:
            self.bn3 = torch.nn.BatchNorm1d(classes, eps=2e-5)
        self.sign = sign
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.eps = 2e-5
                module.weight.data = torch.randn(module.num_features)
                module.bias.data = torch.randn(module.num_features)
                module.running_mean = torch.randn(module.num_features)
                module.running_var = torch.rand(module.num_features) * 4 + 0.25
        self.double().eval()

    def forward(self, x):
        if hasattr(self, "bn0"):
            x = self.sign(self.bn0(x))
        x = self.sign(self.bn1(self.fc1(x)))
        x = self.fc3(self.sign(self.bn2(self.fc2(x))))
        return self.bn3(x) if hasattr(self, "bn3") else x


def saved(path, state, **options):
    torch.save(state, path, **options)
    return path


def agree(module, imported):
    """All classes on the cube, where the two best scores of torch are not within 1e-9 of each other."""
    with torch.no_grad():
        scores = module(CUBE)
    network = imported.network
    found = network.evaluate_batch(CUBE.numpy().astype(int))
    best = scores.topk(2, dim=1).values
    clear = ((best[:, 0] - best[:, 1]).abs() > 1e-9).numpy()
    assert clear.sum() > 20
    assert found[clear].tolist() == scores.argmax(1).numpy()[clear].tolist()
    exact = np.array([[float(v) for v in network.scores(x)] for x in CUBE.numpy().astype(int)[:16]])
    np.testing.assert_allclose(exact, scores[:16].numpy(), rtol=1e-9, atol=1e-9)


GIVEN = {"coding": SIGNS, "epsilon": 2e-5, "activation": "sign", "zero_sign": 1}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("last_norm", [False, True])
@pytest.mark.parametrize(("method", "quantize"), [("sign", plus), ("xnor", xnor), ("dorefa", dorefa)])
def test_latent_weights_are_read_as_the_user_says(tmp_path, seed, method, quantize, last_norm):
    net = Net(seed, quantize=quantize, bias=seed % 2 == 0, last_norm=last_norm)
    path = saved(tmp_path / "m.pt", net.state_dict())
    imported = torchstate.load(path, **GIVEN, latent=Latent(method))
    agree(net, imported)
    assert imported.network.provenance.assumptions == ()
    with pytest.raises(UnsupportedError, match=r"m\.pt: layer 'fc1' has real-valued weights .* --latent-weights sign"):
        torchstate.load(path, **GIVEN)


def binarized(net, values):
    """The network with weights as its forward pass uses them."""
    for layer in (net.fc1, net.fc2, net.fc3):
        layer.weight.data = values(layer.weight.data)
        layer.quantize = lambda w: w
    return net


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "values",
    [
        plus,
        lambda w: torch.where(w.abs() < 0.2, 0.0, w.sign()),
        xnor,
        lambda w: w.sign() * (torch.arange(len(w)).reshape(-1, 1) + 1.3),
        lambda w: torch.where(w.abs() < 0.2, 0.0, w.sign()) * 0.75,
    ],
    ids=["signs", "ternary", "xnor", "per row", "ternary per row"],
)
def test_binarized_weights_are_read_as_they_are_with_zeros_absent_and_scales_kept(tmp_path, values, seed):
    net = binarized(Net(seed, bias=True, last_norm=seed % 2 == 0), values)
    imported = torchstate.load(saved(tmp_path / "m.pt", net.state_dict()), **GIVEN)
    agree(net, imported)
    zeros = sum(int((layer.weight == 0).sum()) for layer in (net.fc1, net.fc2, net.fc3))
    assert imported.network.n_cells == 7 * 6 + 6 * 5 + 5 * 3 - zeros


def test_a_batch_norm_and_sign_before_the_first_layer_are_read(tmp_path):
    for seed in range(4):
        net = Net(seed, first=True)
        imported = torchstate.load(saved(tmp_path / "m.pt", net.state_dict()), **GIVEN, latent=Latent("sign"))
        agree(net, imported)


def test_binarized_layers_among_latent_ones_keep_their_scale(tmp_path):
    net = Net(2, last_norm=True)
    net.fc3.weight.data = net.fc3.weight.data.sign() * torch.tensor([[0.5], [0.25], [2.0]])
    net.fc3.quantize = lambda w: w
    net.fc2.weight.data = net.fc2.weight.data.sign()
    imported = torchstate.load(saved(tmp_path / "m.pt", net.state_dict()), **GIVEN, latent=Latent("sign"))
    agree(net, imported)
    (text,) = imported.network.provenance.assumptions
    assert text.startswith("the weights of layer 'fc3' are one magnitude per row times -1, 0 and +1 already")


def test_a_constant_scale_is_said_per_layer(tmp_path):
    net = Net(4, last_norm=True, quantize=lambda w: plus(w) * 0.125)
    path = saved(tmp_path / "m.pt", net.state_dict())
    between = {name: Between.parse("scale=0.125") for name in ("fc1", "fc2", "fc3")}
    imported = torchstate.load(path, **GIVEN, between=between)
    agree(net, imported)
    assert imported.network.provenance.assumptions == ()
    with pytest.raises(UnsupportedError, match=r"its scale is given as 1/8, but --latent-weights is xnor"):
        torchstate.load(path, **GIVEN, between=between, latent=Latent("xnor"))
    for text in ("scale=0", "scale=-1", "scale=1e999", "scale=a", "scale=1/0"):
        with pytest.raises(ModelError, match=r"a layer has scale=.*, expected a number above 0"):
            Between.parse(text)


def test_bits_are_not_taken_for_absent_weights_in_silence(tmp_path):
    path = saved(tmp_path / "m.pt", {"f.weight": torch.tensor([[True, False], [True, True]])})
    with pytest.raises(UnsupportedError, match=r"layer 'f' stores its weights as bits"):
        torchstate.load(path, **GIVEN)
    path = saved(tmp_path / "n.pt", {"f.weight": torch.tensor([[1, 0], [1, 1]])})
    network = torchstate.load(path, **GIVEN).network
    assert network.output.weights.tolist() == [[1, 0], [1, 1]]
    (text,) = network.provenance.assumptions
    assert "0 was read as absent, not as -1" in text
    network = torchstate.load(path, **GIVEN, latent=Latent(zero="minus")).network
    assert network.output.weights.tolist() == [[1, -1], [1, 1]]


@pytest.mark.parametrize("text", ["stride=0", "pool=0", "pool_after_sign=1", "pool=1,pool_after_sign=1", "sign=x"])
def test_a_layer_that_cannot_be_is_refused(text):
    with pytest.raises(ModelError, match=r"a layer has '.*', expected"):
        Between.parse(text)


def test_what_is_said_of_a_layer_must_fit_it(tmp_path):
    kernels, matrix = torch.ones(2, 1, 3, 3), torch.ones(3, 2 * 6 * 6)
    path = saved(tmp_path / "m.pt", {"c.weight": kernels, "f.weight": matrix})
    for between, match in (
        ({"c": Between(pool=2)}, r"layer 'f' has weights of shape \(3, 72\), but 18 values come before it.*--layer"),
        ({"f": Between(stride=2)}, r"layer 'f' is linear, expected no stride"),
    ):
        with pytest.raises(FormatError, match=match):
            torchstate.load(path, **GIVEN, input_shape=(1, 8, 8), between=between)
    path = saved(tmp_path / "n.pt", {"c.weight": kernels})
    with pytest.raises(FormatError, match=r"layer 'c' is the last one"):
        torchstate.load(path, **GIVEN, input_shape=(1, 3, 3), between={"c": Between(pool=2, pool_after_sign=True)})


def test_a_scale_in_front_of_the_first_layer_without_a_sign_is_named(tmp_path):
    path = saved(tmp_path / "m.pt", Net(0, first=True).state_dict())
    without = {"fc1": Between.parse("sign=0")}
    with pytest.raises(UnsupportedError, match=r"layer 'fc1' takes the input after a batch norm .* Is a sign missing"):
        torchstate.load(path, **GIVEN, latent=Latent("sign"), between=without)


class Binarized(torch.nn.Conv2d):
    """A convolution with signs of latent weights, times `factor(weight)` per filter."""

    factor = staticmethod(lambda w: torch.ones(len(w), 1, 1, 1, dtype=w.dtype))

    def forward(self, x):
        w = plus(self.weight) * self.factor(self.weight)
        return torch.nn.functional.conv2d(x, w, self.bias, self.stride, self.padding)


@pytest.mark.parametrize("method", ["sign", "xnor", "dorefa"])
@pytest.mark.parametrize("seed", range(3))
def test_convolutions_with_a_norm_and_sign_in_front_are_what_torch_computes(tmp_path, method, seed):
    class Signs(torch.nn.Module):
        def forward(self, x):
            return plus(x)

    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.BatchNorm2d(2), Signs(), Binarized(2, 8, 3, padding=1), torch.nn.MaxPool2d(2), torch.nn.BatchNorm2d(8),
        Signs(), Binarized(8, 16, 2, bias=False), torch.nn.Flatten(), torch.nn.BatchNorm1d(16), Signs(),
        Quantized(16, 3, {"sign": plus, "xnor": xnor, "dorefa": dorefa}[method]),
    )  # fmt: skip
    for module in net.modules():
        if isinstance(module, Binarized):
            module.factor = {
                "sign": module.factor,
                "xnor": lambda w: w.abs().flatten(1).mean(1).reshape(-1, 1, 1, 1),
                "dorefa": lambda w: w.abs().mean(),
            }[method]
        if hasattr(module, "running_var"):
            module.weight.data, module.bias.data = torch.randn(2, module.num_features)
            module.running_mean, module.running_var = (
                torch.randn(module.num_features),
                torch.rand(module.num_features) + 0.1,
            )
    net[2].bias.data[:] = -4.0 if method == "sign" else -0.5  # the greatest sums of windows around 0
    net = net.double().eval()
    said = {"module.2": Between(padding=1, pool=2), "6": Between()}
    given = {**GIVEN, "coding": InputCoding.integers(-3, 3), "epsilon": 1e-5}
    path = saved(tmp_path / "m.pt", {f"module.{n}": v for n, v in net.state_dict().items()})
    imported = torchstate.load(path, **given, latent=Latent(method), between=said, input_shape=(2, 4, 4))
    assert imported.network.provenance.assumptions == ()
    x = torch.randint(-3, 4, (60, 2, 4, 4), dtype=torch.float64)
    with torch.no_grad():
        expected = net(x).numpy()
    found = np.array([[float(v) for v in imported.network.scores(p)] for p in imported.read(x.numpy())])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert len({tuple(row) for row in expected.tolist()}) > 1


def test_a_sign_of_the_input_is_said_per_layer(tmp_path):
    state = {"fc1.weight": torch.tensor([[1.0, 1.0], [1.0, -1.0]])}
    coding = InputCoding.integers(-3, 3)
    path = saved(tmp_path / "m.pt", state)
    plain = torchstate.load(path, coding=coding).network
    signed = torchstate.load(path, coding=coding, between={"fc1": Between.parse("sign=1")}).network
    assert plain.scores([3, -1]) == (2, 4)
    assert signed.scores([3, -1]) == (0, 2)


@pytest.mark.parametrize("bias", [0.0, 1.0, -3.0])
def test_a_single_logit_is_class_1_where_it_is_at_least_0(tmp_path, bias):
    net = binarized(Net(3, classes=1), plus)
    net.fc3.bias.data[:] = bias
    imported = torchstate.load(saved(tmp_path / "m.pt", net.state_dict()), **GIVEN)
    with torch.no_grad():
        expected = (net(CUBE)[:, 0] >= 0).long()
    assert imported.network.evaluate_batch(CUBE.numpy().astype(int)).tolist() == expected.tolist()
    assert any("a score of exactly 0 is class 1" in text for text in imported.network.provenance.assumptions)


@pytest.mark.parametrize("activation", ["sign", "step"])
def test_the_activation_between_the_layers_is_an_option(tmp_path, activation):
    meaning = {"sign": plus, "step": lambda x: (x >= 0).to(x.dtype)}[activation]
    net = binarized(Net(5, bias=True, sign=meaning), plus)
    path = saved(tmp_path / "m.pt", net.state_dict())
    agree(net, torchstate.load(path, **{**GIVEN, "activation": activation}))


@pytest.mark.parametrize("name", ["alpha", "scale"])
def test_a_scale_beside_the_weights_is_not_dropped(tmp_path, name):
    net = Net(1, last_norm=True)
    for layer in (net.fc1, net.fc2, net.fc3):
        layer.register_buffer(name, torch.rand(layer.out_features, 1, dtype=torch.float64) + 0.1)
    imported = torchstate.load(saved(tmp_path / "m.pt", net.state_dict()), **GIVEN)
    agree(net, imported)
    assert sum("scale beside the weights" in text for text in imported.network.provenance.assumptions) == 3


def test_the_scale_of_brevitas_is_kept_and_its_sign_of_0_is_plus(tmp_path):
    net = Net(2)
    net.fc1.weight.data[0, 0] = 0
    state = net.state_dict()
    for name in ("fc1", "fc2", "fc3"):
        layer = getattr(net, name)
        layer.alpha = torch.rand(layer.out_features, dtype=torch.float64) + 0.5
        state[f"{name}.weight_quant.tensor_quant.scaling_impl.value"] = layer.alpha.reshape(-1, 1)
    agree(net, torchstate.load(saved(tmp_path / "m.pt", state), **GIVEN))


@pytest.mark.parametrize("spelling", ["weight_org", "weight.org"])
@pytest.mark.parametrize("written", ["latent", "signs"])
def test_a_latent_copy_says_that_the_weights_are_latent(tmp_path, spelling, written):
    net = Net(6)
    state = {}
    for name, value in net.state_dict().items():
        is_weight = name.startswith("fc") and name.endswith("weight")
        state[name] = value.sign() if is_weight and written == "signs" else value
        if is_weight:
            state[name.replace("weight", spelling)] = value
    agree(net, torchstate.load(saved(tmp_path / "m.pt", state), **GIVEN))


def test_a_latent_copy_that_disagrees_with_the_weights_counts_and_it_is_said(tmp_path):
    state = {
        "f.weight": torch.tensor([[1.0, 1.0], [-1.0, 1.0]]),
        "f.weight_org": torch.tensor([[0.5, -0.1], [0.0, 1.0]]),
    }
    imported = torchstate.load(saved(tmp_path / "m.pt", state), **GIVEN)
    assert imported.network.output.weights.tolist() == [[1, -1], [-1, 1]]
    (text,) = imported.network.provenance.assumptions
    assert text.startswith("1 weights of layer 'f' differ from the signs of its latent copy (weight_org)")
    state["f.weight"] *= 0.5
    with pytest.raises(UnsupportedError, match=r"1 of its weights contradict the signs of its latent copy"):
        torchstate.load(saved(tmp_path / "m.pt", state), **GIVEN)


@pytest.mark.parametrize("name", ["bin_conv1", "BinarizeLinear_0", "features.binarized_fc", "binary.2", "bnn1"])
def test_a_name_that_says_binarized_is_believed_and_it_is_said(tmp_path, name):
    state = {f"{name}.weight": torch.tensor([[0.5, -0.25], [0.125, 1.0]])}
    imported = torchstate.load(saved(tmp_path / "m.pt", state), **GIVEN)
    assert imported.network.output.weights.tolist() == [[1, -1], [1, 1]]
    (text,) = imported.network.provenance.assumptions
    assert "taken as latent, because of its name" in text


@pytest.mark.parametrize("name", ["fc1", "combine", "cabin", "robin.fc", "bing"])
def test_no_other_name_makes_real_weights_latent(tmp_path, name):
    path = saved(tmp_path / "m.pt", {f"{name}.weight": torch.tensor([[0.5, -0.25], [0.125, 1.0]])})
    with pytest.raises(UnsupportedError, match=r"in row 0 of magnitude 0\.25 to 0\.5\), and nothing in the file says"):
        torchstate.load(path, **GIVEN)


def test_a_network_with_relu_is_no_binarized_network(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    path = saved(tmp_path / "m.pt", module.state_dict())
    with pytest.raises(UnsupportedError, match=r"m\.pt: layer '0' has real-valued weights.*ReLU, is no binarized"):
        import_model(path)


@pytest.mark.parametrize(("zero", "value"), [("absent", 0), ("plus", 1), ("minus", -1)])
def test_a_latent_weight_of_exactly_0_is_what_the_user_says(tmp_path, zero, value):
    path = saved(tmp_path / "m.pt", {"f.weight": torch.tensor([[0.5, 0.0], [-0.25, 1.0]])})
    found = torchstate.load(path, **GIVEN, latent=Latent("sign", zero)).network
    assert found.output.weights.tolist() == [[1, value], [-1, 1]]
    with pytest.raises(UnsupportedError, match=r"has 1 latent weights of exactly 0, .*--zero-weights absent, plus"):
        torchstate.load(path, **GIVEN, latent=Latent("sign"))
    ternary = saved(tmp_path / "t.pt", {"f.weight": torch.tensor([[1.0, 0.0], [-1.0, 1.0]])})
    assert torchstate.load(ternary, **GIVEN).network.output.weights.tolist() == [[1, 0], [-1, 1]]
    found = torchstate.load(ternary, **GIVEN, latent=Latent(zero=zero)).network
    assert found.output.weights.tolist() == [[1, value], [-1, 1]]


def test_what_nobody_says_is_assumed_and_kept_in_the_provenance(tmp_path):
    net = binarized(Net(0), plus)
    imported = import_model(saved(tmp_path / "m.pt", net.state_dict()))
    words = " | ".join(imported.network.provenance.assumptions)
    for part in (
        "the inputs were taken as -1/+1",
        "with a sign in front of layer 'fc2', 'fc3' (--activation)",
        "the epsilon of 2 batch norms was taken as 1e-05 (--epsilon)",
    ):
        assert part in words
    assert "sign of exactly 0" not in words  # no sum of these batch norms can meet it
    tied = import_model(saved(tmp_path / "t.pt", {"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2, 2)}))
    assert "the sign of exactly 0 was taken as +1, torch.sign gives 0; 2 units" in " ".join(tied.notes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "what", ["fc1.weight", "fc1.bias", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value, what, dtype):
    state = {name: array.clone().to(dtype) for name, array in Net(0, bias=True).state_dict().items()}
    state[what].view(-1)[1] = value
    with pytest.raises(FormatError, match=r"m\.pt: (layer 'fc1'|batch norm 'bn1'): .* are not finite"):
        torchstate.load(saved(tmp_path / "m.pt", state), **GIVEN, latent=Latent("sign", "plus"))


def test_a_variance_and_epsilon_that_are_not_above_0_are_refused(tmp_path):
    state = Net(0).state_dict()
    state["bn1.running_var"][2] = -1.0
    with pytest.raises(FormatError, match=r"batch norm 'bn1': variance \+ epsilon of unit 2 is -0\.99998"):
        torchstate.load(saved(tmp_path / "m.pt", state), **GIVEN, latent=Latent("sign"))


WRAPPED = {
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
    "model": lambda s: {"model": s, "best": 0.98, "args": ["a"]},
    "net": lambda s: {"net": s, "acc": 98.4, "epoch": 7},
    "twice": lambda s: {"checkpoint": {"model_state_dict": s, "epoch": 1}},
    "own name": lambda s: {"epoch": 1, "bnn_weights": s},
    "data parallel": lambda s: {f"module.{name}": value for name, value in s.items()},
    "lightning": lambda s: {"state_dict": {f"model.{n}": v for n, v in s.items()}, "pytorch-lightning_version": "2.4"},
    "compiled": lambda s: {"model": {f"_orig_mod.module.{n}": v for n, v in s.items()}},
    "counters": lambda s: {**s, "bn1.num_batches_tracked": torch.tensor(7)},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_checkpoints_are_unwrapped(tmp_path, kind, zipped):
    net = binarized(Net(1), plus)
    plain = torchstate.load(saved(tmp_path / "a.pt", net.state_dict()), **GIVEN)
    path = saved(tmp_path / "b.weights", WRAPPED[kind](net.state_dict()), _use_new_zipfile_serialization=zipped)
    assert kind_of(path) == "torch"
    assert import_model(path, **GIVEN).network == plain.network


def refused(path, match, error=FormatError):
    with pytest.raises(error, match=match) as caught:
        import_model(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.count(path.name) == 1
    return text


def test_what_is_no_state_dict_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(b"hello")
    refused(path, r"m\.pt: cannot be read .*, expected a state dict .*torch\.save\(model\.state_dict")
    saved(path, torch.nn.Linear(2, 2))
    refused(
        path, r"object of torch\.nn\.modules\.linear\.Linear: a whole module .* would run code\), .*model\.state_dict"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    refused(path, r"is a TorchScript program, of which torch\.jit\.load\(FILE\)\.state_dict\(\)")
    saved(path, torch.zeros(3))
    refused(path, r"holds a Tensor, expected a state dict")
    saved(path, {})
    refused(path, r"holds an empty dictionary, expected a state dict")
    saved(path, {"weight": torch.ones(2, 2), "rate": 3.5})
    refused(path, r"'rate' is a float and no tensor, expected a state dict")
    saved(path, {"teacher": {"f.weight": torch.ones(2, 2)}, "student": {"f.weight": torch.ones(2, 2)}})
    refused(path, r"holds several state dicts \(teacher, student\), expected one")
    saved(path, {"f.weight": torch.ones(2, 2, dtype=torch.complex64)})
    refused(path, r"'f\.weight': is a complex tensor, expected plain numbers")
    saved(path, {"f.weight": torch.empty(2, 2, device="meta")})
    refused(path, r"'f\.weight': is a meta tensor|cannot be read")


def test_what_is_no_layer_of_a_binarized_network_is_refused_by_name(tmp_path):
    path = saved(tmp_path / "m.pt", {"gru.weight_ih_l0": torch.zeros(3, 3)})
    refused(path, r"m\.pt: module 'gru' holds weight_ih_l0, expected a linear.*torch\.onnx\.export", UnsupportedError)
    saved(path, {"c.weight": torch.ones(2, 1, 3, 3)})
    refused(path, r"m\.pt: the first layer is a convolution.*--input-shape", UnsupportedError)
    with pytest.raises(FormatError, match=r"there is no layer 'x', expected one of c"):
        torchstate.load(path, between={"x": Between()})
    saved(path, {"c.weight": torch.ones(2, 3), "c.alpha": -torch.ones(2)})
    refused(path, r"layer 'c' has the scale alpha of shape \(2,\), expected one positive", UnsupportedError)


@given(arrays(np.float64, (3, 5), elements=st.floats(-4, 4, width=32)))
def test_the_mean_magnitude_of_a_row_is_exact(latent):
    expected = [sum(abs(Fraction(v)) for v in row) / len(row) for row in latent.tolist()]
    assert mean_magnitudes(latent).tolist() == expected
