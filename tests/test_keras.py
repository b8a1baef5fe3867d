"""Keras models in HDF5 as larq writes them, against the meaning of their layers in plain loops."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats import import_model, kind_of
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.keras import load

SMALL = InputCoding.integers(-3, 3)
SIGN = {"class_name": "Larq>SteSign", "config": {"clip_value": 1.0}}


def save(path, entries, shape, functional=False, version=2):
    """A file as model.save writes it: `entries` are (class, options, arrays)."""
    listed = []
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        for k, (kind, options, arrays) in enumerate(entries):
            name = f"layer_{k}"
            first = {"batch_input_shape" if version == 2 else "batch_shape": [None, *shape]} if k == 0 else {}
            ending = ":0" if version == 2 else ""
            entry = {"class_name": kind, "config": {"name": name, **first, **options}}
            if functional and version == 2:
                entry["inbound_nodes"] = [[[f"layer_{k - 1}", 0, 0, {}]]] if k else []
            elif functional:
                history = {"shape": [None], "dtype": "float32", "keras_history": [f"layer_{k - 1}", 0, 0]}
                node = {"args": [{"class_name": "__keras_tensor__", "config": history}], "kwargs": {}}
                entry["inbound_nodes"] = [node] if k else []
            listed.append(entry)
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [f"{name}/{what}{ending}".encode() for what in arrays]
            for what, array in arrays.items():
                inner[f"{name}/{what}{ending}"] = np.asarray(array, dtype=np.float32)
        config = {"class_name": "Functional" if functional else "Sequential", "config": {"layers": listed}}
        file.attrs["model_config"] = json.dumps(config)
    return path


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def same(size, kernel, step):
    total = max((-(-size // step) - 1) * step + kernel - size, 0)
    return total // 2, total - total // 2


def conv(x, kernel, step, mode, value):
    """Channels last, in loops over positions."""
    (h, w, _), (rows, columns, _, filters) = x.shape, kernel.shape
    if mode == "same":
        x = np.pad(x, (same(h, rows, step), same(w, columns, step), (0, 0)), constant_values=value)
    out = np.zeros(((x.shape[0] - rows) // step + 1, (x.shape[1] - columns) // step + 1, filters))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            patch = x[i * step : i * step + rows, j * step : j * step + columns]
            out[i, j] = np.einsum("rcd,rcdf->f", patch, kernel)
    return out


def pool(x):
    h, w, c = x.shape
    return x[: h // 2 * 2, : w // 2 * 2].reshape(h // 2, 2, w // 2, 2, c).max(axis=(1, 3))


def norm_arrays(rng, n):
    return {
        "gamma": rng.choice([-1.5, 0.5, 2.0], n),
        "beta": rng.normal(size=n),
        "moving_mean": rng.normal(size=n) * 3,
        "moving_variance": rng.random(n) * 5 + 0.1,
    }


def normed(x, arrays, epsilon=1e-3):
    a = {k: np.float32(v).astype(np.float64) for k, v in arrays.items()}
    return (x - a["moving_mean"]) / np.sqrt(a["moving_variance"] + epsilon) * a["gamma"] + a["beta"]


@pytest.mark.parametrize(("mode", "value", "functional"), [("valid", 0, False), ("same", 0, True), ("same", 1, False)])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("step", [1, 2])
def test_a_larq_network_is_what_its_layers_mean(tmp_path, mode, value, functional, version, step):
    rng = np.random.default_rng(step + value)
    k0, k1 = rng.normal(size=(3, 3, 2, 3)), rng.normal(size=(2, 2, 3, 4))
    n0, n1 = norm_arrays(rng, 3), norm_arrays(rng, 5)
    quantized = {"kernel_quantizer": SIGN, "use_bias": False}
    inner = {**quantized, "input_quantizer": "ste_sign", "padding": mode, "pad_values": value, "strides": [step, step]}

    def forward(x):
        h = pool(conv(x, sign(k0), 1, "valid", 0))
        h = sign(normed(h, n0))
        h = conv(h, sign(k1), step, mode, value)
        h = sign(h).ravel()
        h = sign(normed(h @ sign(w0), n1))
        return h @ sign(w1)

    size = conv(np.zeros((3, 3, 3)), k1, step, mode, value).size
    w0, w1 = rng.normal(size=(size, 5)), rng.normal(size=(5, 3))
    entries = [
        ("InputLayer", {}, {}),
        ("Larq>QuantConv2D", quantized, {"kernel": k0}),
        ("MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"}, {}),
        ("BatchNormalization", {"axis": [3], "epsilon": 1e-3}, n0),
        ("QuantConv2D", inner, {"kernel": k1}),
        ("Flatten", {}, {}),
        ("QuantDense", {**quantized, "input_quantizer": "approx_sign"}, {"kernel": w0}),
        ("BatchNormalization", {"epsilon": 1e-3}, n1),
        ("QuantDense", {**quantized, "input_quantizer": "ste_sign"}, {"kernel": w1}),
        ("Activation", {"activation": "softmax"}, {}),
    ]
    path = save(tmp_path / "m.h5", entries, (8, 8, 2), functional, version)
    assert kind_of(path) == "keras"
    imported = import_model(path, coding=SMALL)
    x = rng.integers(-3, 4, (25, 8, 8, 2))
    expected = np.array([forward(point.astype(np.float64)) for point in x])
    points = imported.read(x)
    assert [[float(v) for v in imported.network.scores(p)] for p in points] == expected.tolist()
    assert len({tuple(row) for row in expected.tolist()}) > 1
    assert sum("latent weights" in note for note in imported.notes) == 4
    assert "softmax of layer 'layer_9' (Activation) at the end was dropped" in imported.notes[-1]


def test_activations_of_zero_and_one_are_folded(tmp_path):
    heaviside = {"kernel_quantizer": "ste_sign", "use_bias": False, "input_quantizer": "ste_heaviside"}
    weights = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    imported = load(save(tmp_path / "m.h5", [("QuantDense", heaviside, {"kernel": weights})], (3,)), coding=SMALL)
    for x in ([0, 1, 2], [-3, 0, 3], [1, 1, 1]):
        expected = (np.array(x) > 0) @ weights
        assert [float(v) for v in imported.network.scores(x)] == expected.tolist()


def test_a_sign_that_keras_3_serialises_as_a_function_is_known(tmp_path):
    activation = {"module": "builtins", "class_name": "function", "config": "ste_sign", "registered_name": "function"}
    entries = [
        ("Activation", {"activation": activation}, {}),
        ("Dense", {"use_bias": False}, {"kernel": np.ones((3, 2))}),
    ]
    network = load(save(tmp_path / "m.h5", entries, (3,), version=3), coding=SMALL).network
    assert network.scores([0, -1, 3]) == (1, 1)


def refused(path, match, error=UnsupportedError, **options):
    with pytest.raises(error, match=match) as caught:
        load(path, **{"coding": SMALL, **options})
    assert "\n" not in str(caught.value)


def test_what_is_no_binarized_network_is_refused_by_its_layer(tmp_path):
    path = tmp_path / "m.h5"
    kernel = {"kernel": np.array([[0.3, 0.5], [1.0, -1.0]])}
    save(path, [("Dense", {"use_bias": False}, kernel)], (2,))
    refused(path, r"m\.h5: layer 'layer_0' \(Dense\) has weights of different magnitude in row 0")
    save(path, [("QuantDense", {"kernel_quantizer": "dorefa_quantizer", "use_bias": False}, kernel)], (2,))
    refused(path, r"quantizes its kernel by 'dorefa_quantizer', .* expected one of ste_sign")
    save(path, [("LSTM", {}, {})], (2,))
    refused(path, r"layer 'layer_0' \(LSTM\) is no layer of a binarized network")
    save(path, [("QuantDense", {"kernel_quantizer": "ste_sign"}, kernel)], (2,))
    refused(path, r"has no array 'bias' \(it has kernel\)", FormatError)
    save(path, [("Softmax", {}, {}), ("QuantDense", {"kernel_quantizer": "ste_sign", "use_bias": False}, kernel)], (2,))
    refused(path, r"has the activation softmax before the last layer")
    refused(path, r"does not say which numbers are inputs", coding=None)


def test_branches_are_refused(tmp_path):
    path = save(tmp_path / "m.h5", [("InputLayer", {}, {}), ("Flatten", {}, {}), ("Flatten", {}, {})], (2,), True)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][2]["inbound_nodes"] = [[["layer_0", 0, 0, {}]]]
        file.attrs["model_config"] = json.dumps(config)
    refused(path, r"layer 'layer_2' \(Flatten\) follows layer_0, expected a chain of layers")


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "m.h5"
    path.write_bytes(b"hello")
    refused(path, r"m\.h5: is neither HDF5 nor a \.keras archive \(it starts with b'hell'\)", FormatError)
    refused(tmp_path / "none.h5", r"none\.h5: cannot be read \(no such file", FormatError)
    with h5py.File(path, "w") as file:
        file["layer"] = np.zeros(3)
    refused(path, r"m\.h5: holds no model, only weights", FormatError)
    with h5py.File(path, "w") as file:
        file.create_group("model_weights")
        file.attrs["model_config"] = "{"
    refused(path, r"m\.h5: is not valid JSON", FormatError)


def dense_file(path, names, kernels, options=None, wrap=None, prefix="", dtype=np.float32):
    """Two QuantDense layers of these names, a sign before the second; `wrap` puts both into an inner model."""
    options = options or {}
    entries = []
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        for k, (name, kernel) in enumerate(zip(names, kernels, strict=True)):
            config = {"name": name, "use_bias": False, "kernel_quantizer": SIGN, **options}
            config |= {"input_quantizer": SIGN} if k else {"batch_input_shape": [None, kernel.shape[0]]}
            entries.append({"class_name": "QuantDense", "config": config})
            inner = group.require_group(wrap or name)
            full = f"{prefix}{name}/kernel:0"
            inner.attrs["weight_names"] = [*inner.attrs.get("weight_names", ()), full]
            inner[full] = np.asarray(kernel, dtype=dtype)
        chain = {"class_name": "Sequential", "config": {"name": wrap or "m", "layers": entries}}
        if wrap:
            chain = {"class_name": "Sequential", "config": {"name": "m", "layers": [chain]}}
        file.attrs["model_config"] = json.dumps(chain)
    return path


def as_archive(path, config, arrays):
    """A .keras archive with groups `layers/...` of numbered arrays."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for place, values in arrays.items():
            for k, array in enumerate(values):
                file[f"{place}/vars/{k}"] = np.asarray(array, dtype=np.float32)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


def test_a_keras_archive_is_the_same_network_as_the_hdf5_file(tmp_path):
    rng = np.random.default_rng(8)
    kernels, norm = (rng.normal(size=(4, 3)), rng.normal(size=(3, 2))), norm_arrays(rng, 3)
    quiet = {"kernel_quantizer": SIGN, "use_bias": False}
    entries = [
        ("QuantDense", quiet, {"kernel": kernels[0]}),
        ("BatchNormalization", {}, norm),
        ("QuantDense", {**quiet, "use_bias": True, "input_quantizer": SIGN}, {"kernel": kernels[1], "bias": [0.5, 0]}),
    ]
    plain = load(save(tmp_path / "m.h5", entries, (4,)), coding=SMALL).network
    with h5py.File(tmp_path / "m.h5") as file:
        config = json.loads(file.attrs["model_config"])
    arrays = {
        "layers/quant_dense": [kernels[0]],
        "layers/batch_normalization": [norm[name] for name in ("gamma", "beta", "moving_mean", "moving_variance")],
        "layers/quant_dense_1": [kernels[1], [0.5, 0]],
    }
    path = as_archive(tmp_path / "m.keras", config, arrays)
    assert kind_of(path) == "keras"
    assert load(path, coding=SMALL).network.identity == plain.identity
    inner = {"class_name": "Sequential", "config": {"name": "m", "layers": [config]}}
    nested = {f"layers/sequential/{place}": values for place, values in arrays.items()}
    again = load(as_archive(tmp_path / "n.keras", inner, nested), coding=SMALL).network
    assert again.identity == plain.identity
    arrays["layers/quant_dense"].append([0.0])
    refused(
        as_archive(path, config, arrays),
        r"layer 'layer_0' \(QuantDense\) has 2 arrays, expected 1: kernel",
        FormatError,
    )


SIGNS = InputCoding.signs()


@pytest.mark.parametrize("names", [("block1/hidden", "block2/scores"), ("a.b", "c.d/e"), ("x", "x/x"), ("x/x", "x")])
def test_layer_names_with_slashes_and_dots_change_nothing(tmp_path, names):
    rng = np.random.default_rng(3)
    kernels = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    plain = load(dense_file(tmp_path / "a.h5", ("hidden", "scores"), kernels), coding=SIGNS).network
    assert load(dense_file(tmp_path / "b.h5", names, kernels), coding=SIGNS).network.identity == plain.identity


@pytest.mark.parametrize("prefix", ["", "outer/", "outer/inner/"])
def test_the_arrays_of_an_inner_model_are_found_by_the_names_of_its_layers(tmp_path, prefix):
    rng = np.random.default_rng(4)
    kernels = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    plain = load(dense_file(tmp_path / "a.h5", ("hidden", "scores"), kernels), coding=SIGNS).network
    nested = dense_file(tmp_path / "b.h5", ("hidden", "hidden_1"), kernels, wrap="inner", prefix=prefix)
    assert load(nested, coding=SIGNS).network.identity == plain.identity


def test_noop_takes_stored_signs_as_they_are_and_refuses_latent_weights(tmp_path):
    signs = np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [1.0, -1.0]])
    noop = {"kernel_quantizer": {"class_name": "Larq>NoOp", "config": {"precision": 1}}}
    plain = load(dense_file(tmp_path / "a.h5", ("h", "s"), signs), coding=SIGNS).network
    for quantizer in (noop["kernel_quantizer"], "no_op", None):
        path = dense_file(tmp_path / "b.h5", ("h", "s"), signs, {"kernel_quantizer": quantizer})
        assert load(path, coding=SIGNS).network.identity == plain.identity
    latent = dense_file(tmp_path / "c.h5", ("h", "s"), (signs[0] * [[0.5], [0.25]], signs[1]), noop)
    refused(latent, r"layer 'h' \(QuantDense\) has weights of different magnitude", coding=SIGNS)


QUANTIZERS = [
    (name, {}, lambda w: np.where(w >= 0, 1.0, -1.0))
    for name in ("SteSign", "ApproxSign", "SwishSign", "ste_sign", "approx_sign", "swish_sign")
]
QUANTIZERS += [
    ("MagnitudeAwareSign", {}, lambda w: np.where(w >= 0, 1.0, -1.0) * np.abs(w).mean(axis=0)),
    ("magnitude_aware_sign", {}, lambda w: np.where(w >= 0, 1.0, -1.0) * np.abs(w).mean(axis=0)),
    ("SteHeaviside", {}, lambda w: (w > 0) * 1.0),
    ("SteTern", {"threshold_value": 0.25}, lambda w: np.where(np.abs(w) >= 0.25, np.sign(w), 0)),
    ("ste_tern", {}, lambda w: np.where(np.abs(w) >= np.float32(0.05), np.sign(w), 0)),
    ("sign", {}, np.sign),
]


@pytest.mark.parametrize(("name", "options", "meaning"), QUANTIZERS, ids=[row[0] for row in QUANTIZERS])
def test_every_kernel_quantizer_is_what_larq_computes(tmp_path, name, options, meaning):
    rng = np.random.default_rng(len(name))
    kernel = rng.choice([-0.5, -0.25, -0.125, 0.0, 0.03125, 0.25, 1.0], (8, 5))
    bias = rng.choice([-0.5, 0.25, 1.0], 5)
    serialised = {"class_name": f"Larq>{name}", "config": options} if name[0].isupper() else name
    entries = [("QuantDense", {"kernel_quantizer": serialised, "use_bias": True}, {"kernel": kernel, "bias": bias})]
    network = load(save(tmp_path / "m.h5", entries, (8,)), coding=SMALL).network
    for x in rng.integers(-3, 4, (20, 8)):
        assert [float(v) for v in network.scores(x)] == (x @ meaning(kernel) + bias).tolist()


def test_dorefa_of_one_bit_is_a_threshold_of_a_half_and_more_bits_are_refused(tmp_path):
    def path(options):
        quantizer = {"class_name": "Larq>DoReFaQuantizer", "config": options}
        norm = {"beta": [0.5] * 3, "moving_mean": [0] * 3, "moving_variance": [2] * 3}
        layer = {"kernel_quantizer": SIGN, "use_bias": False, "input_quantizer": quantizer}
        entries = [("BatchNormalization", {"scale": False}, norm), ("QuantDense", layer, {"kernel": np.eye(3) - 0.5})]
        return save(tmp_path / "m.h5", entries, (3,))

    network = load(path({"k_bit": 1, "mode": "activations"}), coding=SMALL).network
    for x in ([0, 1, -1], [3, 0, 0], [1, 1, 1]):
        bits = np.array(x) > 0  # x + 1/2 > 1/2; the half itself is rounded to the even 0
        assert [float(v) for v in network.scores(x)] == (
            bits @ np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
        ).tolist()
    refused(path({"k_bit": 2, "mode": "activations"}), r"input quantizer 'dorefa_quantizer' of 2 bits")
    refused(path({}), r"input quantizer 'dorefa_quantizer' of 2 bits")


def test_a_plain_sign_needs_to_be_told_what_0_becomes(tmp_path):
    kernels = {"kernel": np.array([[1.0], [1.0]])}, {"kernel": np.array([[1.0, -1.0]])}
    quiet = {"kernel_quantizer": "ste_sign", "use_bias": False}
    entries = [("QuantDense", quiet, kernels[0]), ("QuantDense", {**quiet, "input_quantizer": "sign"}, kernels[1])]
    path = save(tmp_path / "m.h5", entries, (2,))
    refused(path, r"the sum of unit 0 can be 0, its threshold.*--zero-sign plus")
    assert load(path, coding=SMALL, zero_sign=1).network.scores([1, -1]) == (1, -1)
    assert load(path, coding=SMALL, zero_sign=-1).network.scores([1, -1]) == (-1, 1)
    other = save(tmp_path / "n.h5", [("QuantDense", quiet, {"kernel": np.ones((2, 2))})], (2,))
    refused(other, r"sign of 0 is given \(--zero-sign\), but no layer has a plain sign", zero_sign=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e6])
@pytest.mark.parametrize("what", ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value, what):
    linear = {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}
    norm = {"gamma": np.ones(2), "beta": np.zeros(2), "moving_mean": np.zeros(2), "moving_variance": np.ones(2)}
    arrays = {**linear, **norm}
    arrays[what] = np.where([[True, False]] * 2 if what == "kernel" else [True, False], value, arrays[what])
    with np.errstate(over="ignore"):
        arrays = {name: np.asarray(array, dtype=np.float16) for name, array in arrays.items()}  # 1e6 overflows
    entries = [
        ("QuantDense", {"kernel_quantizer": "ste_sign"}, {name: arrays[name] for name in linear}),
        ("BatchNormalization", {}, {name: arrays[name] for name in norm}),
    ]
    path = save(tmp_path / "m.h5", entries, (2,))
    refused(path, r"m\.h5: layer 'layer_\d' .* are not finite", FormatError)


def test_a_variance_and_epsilon_that_are_not_above_0_are_refused(tmp_path):
    norm = {"moving_mean": np.zeros(2), "moving_variance": np.array([1.0, -0.5])}
    linear = ("QuantDense", {"kernel_quantizer": "ste_sign", "use_bias": False}, {"kernel": np.ones((2, 2))})
    path = save(tmp_path / "m.h5", [linear, ("BatchNormalization", {"scale": False, "center": False}, norm)], (2,))
    refused(path, r"variance \+ epsilon of unit 1 is -0\.499, expected above 0", FormatError)


def test_an_array_whose_meaning_is_not_known_is_refused(tmp_path):
    arrays = {"kernel": np.ones((2, 2)), "alpha": np.ones(2)}
    path = save(tmp_path / "m.h5", [("QuantDense", {"kernel_quantizer": "ste_sign", "use_bias": False}, arrays)], (2,))
    refused(path, r"layer 'layer_0' \(QuantDense\) holds an array 'alpha' whose meaning is not known")


@pytest.mark.parametrize("bias", [0.0, 1.0, -1.0])
def test_a_single_sigmoid_is_two_classes(tmp_path, bias):
    kernel = np.array([[1.0], [-1.0], [1.0]])
    arrays = {"kernel": kernel, "bias": np.array([bias])}
    entries = [("QuantDense", {"kernel_quantizer": "ste_sign", "activation": "sigmoid"}, arrays)]
    imported = load(save(tmp_path / "m.h5", entries, (3,)), coding=SMALL)
    assert imported.gives == "logit"
    assert any("a score of exactly 0 is class 1" in note for note in imported.notes)
    for x in ([0, 0, 0], [1, 2, 1], [-1, 0, 0], [1, 0, 0], [3, -3, 3], [1, 3, 1]):
        assert imported.network.evaluate(x) == int(np.dot(x, kernel[:, 0]) + bias >= 0)
