"""Operators of QONNX mean what their definition says, in plain numbers."""

import itertools
from fractions import Fraction

import numpy as np
import onnx
import pytest

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.onnx import load
from tests.onnxmodels import Model

DOMAIN = "qonnx.custom_op.general"
SMALL = InputCoding.integers(-3, 3)
POINTS = list(itertools.product(range(-3, 4), repeat=2))


def quant(x, scale, zero, bits, *, signed, narrow, mode):
    """One number, as the definition says; halves round to the even integer."""
    y = Fraction(x) / Fraction(scale) + zero
    if bits == 1 and signed:
        level = 1 if y >= 0 else -1
    else:
        least = -(2 ** (bits - 1)) + narrow if signed else 0
        most = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
        y = min(max(y, least), most)
        level = {"ROUND": round, "CEIL": lambda v: -(-v // 1), "FLOOR": lambda v: v // 1}[mode](y)
    return (level - zero) * Fraction(scale)


def start(domain=DOMAIN):
    return Model([1, 2]).add("MatMul", [[1.0, -1.0], [1.0, 1.0]])


def scores(model):
    return model.add("MatMul", [[1.0, -1.0], [1.0, 1.0]])


@pytest.mark.parametrize("domain", [DOMAIN, "onnx.brevitas"])
@pytest.mark.parametrize("mode", ["ROUND", "CEIL", "FLOOR"])
@pytest.mark.parametrize("signed", [0, 1])
def test_quant_to_one_bit_is_a_sign(tmp_path, domain, mode, signed):
    model, scale = start(), 2.0
    names = [model.constant(np.array(v, dtype=np.float32)) for v in (scale, 0.0, 1.0)]
    model.add("Quant", *names, domain=domain, signed=signed, narrow=0, rounding_mode=mode)
    network = load(scores(model).save(tmp_path / "m.onnx"), coding=SMALL).network
    for a, b in POINTS:
        h = [quant(v, scale, 0, 1, signed=signed, narrow=0, mode=mode) for v in (a + b, b - a)]
        assert network.scores([a, b]) == (h[0] + h[1], -h[0] + h[1])


@pytest.mark.parametrize(
    ("bits", "signed", "narrow"), [(1, 1, 0), (1, 1, 1), (2, 1, 1), (1, 0, 0), (2, 1, 0), (2, 0, 1)]
)
def test_quant_of_weights_is_folded(tmp_path, bits, signed, narrow):
    latent = np.array([[0.3, -2.0, 0.0], [0.1, 0.7, -0.5]], dtype=np.float32)
    wanted = [
        [quant(v, 0.5, 0, bits, signed=signed, narrow=narrow, mode="ROUND") for v in row] for row in latent.T.tolist()
    ]
    model = Model([1, 2])
    names = [model.constant(v) for v in (latent, 0.5, 0.0, float(bits))]
    options = {"signed": signed, "narrow": narrow, "rounding_mode": "ROUND"}
    model.nodes.append(onnx.helper.make_node("Quant", names, ["w"], "q", domain=DOMAIN, **options))
    path = model.add("MatMul", "w").save(tmp_path / "m.onnx")
    if any(len({abs(v) for v in row if v}) > 1 for row in wanted):
        with pytest.raises(UnsupportedError, match="weights of different magnitude"):
            load(path, coding=SMALL)
        return
    network = load(path, coding=SMALL).network
    for point in POINTS[::5]:
        assert list(network.scores(point)) == [sum(w * v for w, v in zip(row, point, strict=True)) for row in wanted]


@pytest.mark.parametrize("count", [1, 2])
def test_one_threshold_per_channel_is_a_sign(tmp_path, count):
    limits = np.repeat([[0.5], [-1.0]], count, axis=1)  # equal thresholds are passed together
    model = start().add("MultiThreshold", limits, domain=DOMAIN, out_scale=2.0, out_bias=-1.0, out_dtype="BIPOLAR")
    network = load(scores(model).save(tmp_path / "m.onnx"), coding=SMALL).network
    for a, b in POINTS:
        h = [2 * count * (a + b >= 0.5) - 1, 2 * count * (b - a >= -1) - 1]
        assert network.scores([a, b]) == (h[0] + h[1], -h[0] + h[1])


def test_the_layout_says_where_the_channels_of_a_threshold_are(tmp_path):
    for layout, shape in (("NCHW", [1, 2, 1, 1]), ("NHWC", [1, 1, 1, 2])):
        model = start()
        model.add("Reshape", model.constant(shape, np.int64))
        model.add("MultiThreshold", [[2.0], [-2.0]], domain=DOMAIN, data_layout=layout, out_dtype="BINARY")
        model.add("Flatten")
        network = load(scores(model).save(tmp_path / "m.onnx"), coding=SMALL).network
        assert network.scores([1, 0]) == (1, 1) and network.scores([3, 0]) == (1, -1)


def test_agreeing_bits_are_counted(tmp_path):
    model = start().add("MultiThreshold", [[1.0]], domain=DOMAIN, out_dtype="BINARY")
    bits = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    model.add("XnorPopcountMatMul", bits, domain=DOMAIN)
    network = load(model.save(tmp_path / "m.onnx"), coding=SMALL).network
    for a, b in POINTS:
        given = [int(a + b >= 1), int(b - a >= 1)]
        assert list(network.scores([a, b])) == [
            sum(int(w == h) for w, h in zip(row, given, strict=True)) for row in bits.T
        ]


def test_what_is_no_sign_is_refused_by_name(tmp_path):
    def refused(model, match):
        with pytest.raises((UnsupportedError, FormatError), match=match):
            load(model.save(tmp_path / "m.onnx"), coding=SMALL)

    def quantized(scale=1.0, zero=0.0, bits=1.0, **options):
        model = start()
        names = [model.constant(np.array(v, dtype=np.float32)) for v in (scale, zero, bits)]
        return model.add("Quant", *names, domain=DOMAIN, **{"signed": 1, "narrow": 0, **options})

    refused(quantized(bits=2.0), r"node 'n1' \(.*Quant\) quantizes what depends on the input to 2.* bits")
    refused(quantized(zero=1.0), r"'n1'.* around 1.*, expected one bit around 0")
    refused(quantized(scale=-1.0), r"'n1'.* has a scale that is not above 0")
    refused(quantized(scale=float("nan")), r"'n1'.* holds nan: it is not finite")
    refused(quantized(signed=0, rounding_mode="HALF_UP"), r"'n1'.* rounds by HALF_UP, expected one of ROUND")
    two = start().add("MultiThreshold", [[0.0, 1.0]], domain=DOMAIN)
    refused(two, r"'n1' \(.*MultiThreshold\) has 2 thresholds per channel, expected one")
    refused(
        start().add("MultiThreshold", [[0.0]] * 3, domain=DOMAIN), r"'n1'.* has thresholds of 3 channels .* expected 2"
    )
    refused(
        start().add("XnorPopcountMatMul", [[1.0], [0.0]], domain=DOMAIN), r"'n1'.* counts agreeing bits of what are"
    )
    bits = (
        start().add("MultiThreshold", [[1.0]], domain=DOMAIN).add("XnorPopcountMatMul", [[2.0], [0.0]], domain=DOMAIN)
    )
    refused(bits, r"'n2'.* no matrix of 0 and 1")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "kind", ["MatMul", "Add", "Mul", "Greater", "Conv", "BatchNormalization", "Sign", "BipolarQuant"]
)
def test_constants_that_are_not_finite_are_refused_with_the_node(tmp_path, kind, wrong):
    model = Model([1, 2])
    if kind in ("MatMul", "Add", "Mul", "Greater"):
        model.add(kind, [[1.0, wrong], [1.0, 1.0]] if kind == "MatMul" else [wrong, 1.0])
    elif kind == "Conv":
        model.add("Reshape", model.constant([1, 2, 1, 1], np.int64)).add("Conv", np.full((2, 2, 1, 1), wrong))
    elif kind == "BatchNormalization":
        model.add("BatchNormalization", [1.0, 1.0], [0.0, wrong], [0.0, 0.0], [1.0, 1.0])
    else:  # of constants: a sign would hide what is wrong
        extra = [model.constant(1.0)] if kind == "BipolarQuant" else []
        names = [model.constant([[1.0, wrong], [1.0, 1.0]]), *extra]
        domain = DOMAIN if extra else None
        model.nodes.append(onnx.helper.make_node(kind, names, ["w"], "n0", domain=domain))
        model.add("MatMul", "w")
    with pytest.raises(FormatError, match=rf"m\.onnx: node 'n\d' \(.*{kind}\) takes the constant .* is not finite"):
        load(scores(model).save(tmp_path / "m.onnx"), coding=SMALL)
