"""Keras models in HDF5 as larq writes them, against the meaning of their layers in plain loops."""

import json

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
    refused(path, r"quantizes its kernel by 'dorefa_quantizer', expected ste_sign")
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
    refused(path, r"m\.h5: cannot be read", FormatError)
    refused(tmp_path / "none.h5", r"none\.h5: cannot be read \(no such file", FormatError)
    with h5py.File(path, "w") as file:
        file["layer"] = np.zeros(3)
    refused(path, r"m\.h5: holds no model, only weights", FormatError)
    with h5py.File(path, "w") as file:
        file.create_group("model_weights")
        file.attrs["model_config"] = "{"
    refused(path, r"m\.h5: is damaged", FormatError)
