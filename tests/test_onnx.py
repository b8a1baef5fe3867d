"""ONNX models in every dialect: the exact network equals what onnxruntime computes."""

import gzip
import math
from fractions import Fraction

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import TensorProto

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats import import_model, load_network
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.onnx import load
from tests import oracle
from tests.onnxmodels import Model, models, run

SMALL = InputCoding.integers(-2, 3)


def inputs_of(shape, count, seed=0, low=-2, high=3):
    return np.random.default_rng(seed).integers(low, high + 1, (count, *shape))


@given(models())
@settings(max_examples=30, deadline=None)
def test_any_model_gives_the_scores_that_onnxruntime_computes(pair):
    proto, shape = pair
    imported = _loaded(proto)
    x = inputs_of(shape, 12)
    found = run(proto, x)
    points = imported.read(x)
    assert np.array_equal(imported.fed(points).reshape(x.shape), x)
    for point, row in zip(points, found, strict=True):
        assert [float(v) for v in imported.network.scores(point)] == row.tolist()
    assert oracle.scores(imported.network, points[0].tolist()) == list(imported.network.scores(points[0]))


def _loaded(proto, **options):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        return load(path, **{"coding": SMALL, **options})


def dense(n=4, classes=3, seed=0, **options):
    weights = np.random.default_rng(seed).choice([-1.0, 1.0], (n, classes))
    return Model([None, n], **options), weights


def test_a_gzipped_file_is_read(tmp_path):
    model, weights = dense()
    path = tmp_path / "m.onnx.gz"
    path.write_bytes(gzip.compress(model.add("MatMul", weights).proto().SerializeToString()))
    imported = import_model(path, coding=SMALL)
    assert imported.network.output.weights.tolist() == weights.T.tolist()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match=r"m\.onnx\.gz: cannot be unpacked"):
        load(path, coding=SMALL)


def test_a_final_softmax_is_dropped_and_said_so(tmp_path):
    model, weights = dense()
    imported = load(model.add("MatMul", weights).add("Softmax", axis=-1).save(tmp_path / "m.onnx"), coding=SMALL)
    assert imported.notes == ("node 'n1' (Softmax) at the end was dropped: it keeps the order of the scores",)
    later = Model([None, 4]).add("MatMul", weights).add("Softmax").add("Add", 1.0)
    with pytest.raises(UnsupportedError, match=r"node 'n2' \(Add\) follows node 'n1' \(Softmax\)"):
        load(later.save(tmp_path / "m.onnx"), coding=SMALL)


def test_pixels_that_are_scaled_outside_are_folded_exactly(tmp_path):
    # (x / 255 - 1/2) / 0.25 in the model, fed x / 255: thresholds move, nothing is rounded
    model, weights = dense(2, 2)
    model.add("Sub", 0.5).add("Div", 0.25).add("MatMul", weights).add("Sign").add("Add", 0.1).add("Sign")
    model.add("MatMul", [[1.0, -1.0], [1.0, 1.0]])
    coding = InputCoding.integers(0, 255, scale=Fraction(1, 255))
    imported = load(model.save(tmp_path / "m.onnx"), coding=coding)
    for x in ([0, 255], [255, 0], [127, 128], [128, 128], [255, 255], [3, 200]):
        value = [4 * (coding.scale * v - Fraction(1, 2)) for v in x]
        h = [1 if sum(int(w) * v for w, v in zip(column, value, strict=True)) >= 0 else -1 for column in weights.T]
        assert imported.network.scores(x) == (h[0] + h[1], -h[0] + h[1])


def test_a_sign_of_the_input_becomes_one_threshold(tmp_path):
    weights = np.random.default_rng(1).choice([-1.0, 1.0], (12, 2))
    model = Model([None, 2, 3, 2]).add("Sub", 1.5).add("Sign").add("Flatten").add("MatMul", weights)
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    assert imported.network.blocks[0].n_cells == 1 and imported.layers[0].kind == "input"
    x = inputs_of((2, 3, 2), 20)
    assert imported.network.evaluate_batch(imported.read(x)).tolist() == run(model.proto(), x).argmax(axis=1).tolist()


def test_a_sign_of_binary_inputs_is_no_block(tmp_path):
    model, weights = dense()
    model.add("Mul", -2.0).add("Sign").add("MatMul", weights)
    imported = load(model.save(tmp_path / "m.onnx"), coding=InputCoding.signs())
    assert imported.network.blocks == () and imported.network.output.weights.tolist() == (-weights.T).tolist()


def test_inputs_of_bits_become_signs(tmp_path):
    model, weights = dense()
    model.add("MatMul", weights).add("Add", [0.5, 0.0, 0.0])
    imported = load(model.save(tmp_path / "m.onnx"), coding=InputCoding.bits())
    for bits in ([0, 0, 0, 0], [1, 0, 1, 1], [0, 1, 1, 0]):
        x = imported.read(np.array(bits))
        assert x.tolist() == [2 * b - 1 for b in bits]
        expected = run(model.proto(), np.array([bits]))[0]
        assert [float(v) for v in imported.network.scores(x)] == expected.tolist()


def test_channels_last_inputs_keep_their_places(tmp_path):
    # one pixel and channel decides; its place in the file is 1 * (3 * 2) + 2 * 2 + 1
    kernel = np.zeros((1, 2, 1, 1), dtype=np.float32)
    kernel[0, 1] = 1
    pick = np.zeros((6, 2), dtype=np.float32)
    pick[5] = 1, -1
    model = Model([None, 2, 3, 2]).add("Transpose", perm=[0, 3, 1, 2]).add("Conv", kernel).add("Add", 0.5).add("Sign")
    model.add("Transpose", perm=[0, 2, 3, 1]).add("Reshape", model.constant([-1, 6], np.int64)).add("MatMul", pick)
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    place = 1 * 6 + 2 * 2 + 1
    x = np.full(12, -1)
    x[place] = 2
    assert imported.network.evaluate(imported.read(x)) == 0
    assert imported.order[imported.network.n_inputs - 1] == place
    assert imported.network.domain.shape == (2, 2, 3)


def test_a_plain_sign_that_can_be_zero_is_refused_unless_its_meaning_is_given(tmp_path):
    model, weights = dense(4, 3)
    path = model.add("MatMul", weights).add("Sign").add("MatMul", np.ones((3, 2))).save(tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=r"n0.*sum of unit 0 can be 0, its threshold, and the sign .* gives 0"):
        load(path, coding=SMALL)
    with pytest.raises(UnsupportedError, match="zero_sign=1"):
        load(path, coding=InputCoding.signs())  # four signs can add up to 0
    plus, minus = load(path, coding=SMALL, zero_sign=1), load(path, coding=SMALL, zero_sign=-1)
    assert plus.network.blocks[0].outputs([0, 0, 0, 0]).tolist() == [1, 1, 1]
    assert minus.network.blocks[0].outputs([0, 0, 0, 0]).tolist() == [-1, -1, -1]
    assert "a plain Sign of 0 was taken as -1" in minus.notes[-1]


def test_an_odd_number_of_signs_never_adds_up_to_zero(tmp_path):
    model, weights = dense(5, 3)
    path = model.add("MatMul", weights).add("Sign").add("MatMul", np.ones((3, 2))).save(tmp_path / "m.onnx")
    imported = load(path, coding=InputCoding.signs())
    assert imported.layers[0].ties == 0 and imported.layers[0].closest == 1


@pytest.mark.parametrize("gamma", [3.0, -3.0, 0.0])
def test_a_tie_of_a_batch_norm_is_decided_exactly(tmp_path, gamma):
    # sum 3, mean 3: y = beta = 0 exactly, and larq's sign(0) is +1
    model = Model([None, 1]).add("MatMul", [[1.0]])
    model.add("BatchNormalization", [gamma], [0.0], [3.0], [0.7], epsilon=1e-3)
    model.add("Sign").add("Add", 0.1).add("Sign").add("MatMul", [[1.0, -1.0]])
    network = load(model.save(tmp_path / "m.onnx"), coding=SMALL).network
    assert network.evaluate([3]) == 0
    assert network.evaluate([2]) == (1 if gamma > 0 else 0)


def test_a_square_root_is_compared_exactly(tmp_path):
    # (s - 0) / sqrt(2) >= 1.5 iff s * s >= 4.5: s = 3 fires, s = 2 does not, whatever float32 says of sqrt(2)
    model = Model([None, 1]).add("MatMul", [[1.0]])
    model.add("BatchNormalization", [1.0], [-1.5], [0.0], [2.0], epsilon=0.0)
    model.add("Sign").add("Add", 0.1).add("Sign").add("MatMul", [[1.0, -1.0]])
    network = load(model.save(tmp_path / "m.onnx"), coding=SMALL).network
    assert [network.evaluate([v]) for v in (2, 3)] == [1, 0]


def test_epsilon_is_added_to_the_variance(tmp_path):
    # s / sqrt(0.5 + 3.5) >= 1.25 iff s >= 2.5
    model = Model([None, 1]).add("MatMul", [[1.0]])
    model.add("BatchNormalization", [1.0], [-1.25], [0.0], [0.5], epsilon=3.5)
    model.add("Sign").add("MatMul", [[1.0, -1.0]])
    network = load(model.save(tmp_path / "m.onnx"), coding=SMALL).network
    assert [network.evaluate([v]) for v in (1, 2, 3)] == [1, 1, 0]


def test_scores_with_a_square_root_are_rounded_once_and_said_so(tmp_path):
    model, weights = dense(3, 2)
    model.add("MatMul", weights).add("BatchNormalization", [1.0, 2.0], [0.5, 0.0], [0.0, 1.0], [2.0, 3.0], epsilon=0.0)
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    exact = [Fraction(math.isqrt(10**80 * 4 // 3), 10**40), Fraction(math.isqrt(10**80 // 2), 10**40)]
    assert imported.network.output.scale == (float(exact[1]), float(exact[0]))
    assert "the scales of 2 classes hold a square root and were rounded to float64" in imported.notes


def test_bipolar_quantisation_of_qonnx_is_a_sign_with_plus_at_zero(tmp_path):
    domain = "qonnx.custom_op.general"
    model = Model([None, 3])
    scale = model.constant(np.array(1.0))
    latent = model.constant([[0.3, -2.0], [0.0, 0.1], [-0.7, 5.0]])
    model.nodes.append(onnx.helper.make_node("BipolarQuant", [latent, model.constant(0.5)], ["w"], "wq", domain=domain))
    model.add("BipolarQuant", scale, domain=domain).add("MatMul", "w").add("BipolarQuant", scale, domain=domain)
    model.add("MatMul", [[1.0, -1.0], [1.0, 1.0]])
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    block = imported.network.blocks[1]
    assert block.weights.tolist() == [[1, 1, -1], [-1, 1, 1]]
    for x in ([0, 0, 0], [-1, 1, 1], [3, -2, 0]):
        signs = [1 if v >= 0 else -1 for v in x]
        h = [1 if sum(w * s for w, s in zip(row, signs, strict=True)) >= 0 else -1 for row in block.weights.tolist()]
        assert imported.network.scores(x) == (h[0] + h[1], -h[0] + h[1])


def test_weights_that_the_graph_binarizes_are_folded(tmp_path):
    model = Model([None, 2])
    model.nodes.append(onnx.helper.make_node("Sign", [model.constant([[0.2, -3.0], [0.0, 0.1]])], ["w"], "sign"))
    imported = load(model.add("MatMul", "w").save(tmp_path / "m.onnx"), coding=SMALL)
    assert imported.network.output.weights.tolist() == [[1, 0], [-1, 1]]


def test_grouped_and_dilated_filters_are_masked_ones(tmp_path):
    rng = np.random.default_rng(2)
    model = Model([None, 2, 5, 5])
    model.add("Conv", rng.choice([-1.0, 1.0], (4, 1, 2, 2)), group=2, dilations=[2, 1], strides=[1, 2])
    model.add("Add", 0.5).add("Sign").add("Flatten").add("MatMul", rng.choice([-1.0, 1.0], (24, 3)))
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    assert imported.network.blocks[0].weights.shape == (4, 2, 3, 2)
    x = inputs_of((2, 5, 5), 20)
    scores = run(model.proto(), x)
    assert [[float(v) for v in imported.network.scores(p)] for p in imported.read(x)] == scores.tolist()


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_is_that_of_onnxruntime(tmp_path, mode):
    rng = np.random.default_rng(4)
    model = Model([None, 1, 5, 4]).add("Conv", rng.choice([-1.0, 1.0], (2, 1, 2, 3)), auto_pad=mode, strides=[2, 1])
    model.add("Add", 0.5).add("Sign").add("Flatten")
    n = 2 * (3 * 4 if mode != "VALID" else 2 * 2)
    model.add("MatMul", rng.choice([-1.0, 1.0], (n, 3)))
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    x = inputs_of((1, 5, 4), 20)
    scores = run(model.proto(), x)
    assert [[float(v) for v in imported.network.scores(p)] for p in imported.read(x)] == scores.tolist()


def refused(tmp_path, model, match, error=UnsupportedError, **options):
    with pytest.raises(error, match=match) as caught:
        load(model.save(tmp_path / "m.onnx"), **{"coding": SMALL, **options})
    assert str(caught.value).startswith(f"{tmp_path / 'm.onnx'}: ") and "\n" not in str(caught.value)


def test_what_is_no_binarized_network_is_refused_by_name(tmp_path):
    w = np.ones((4, 3))
    refused(tmp_path, Model([None, 4]).add("MatMul", w * [[1], [2], [1], [1]]),
            r"node 'n0' \(MatMul\) has weights of different magnitude in row 0: 1 and 2")  # fmt: skip
    refused(tmp_path, Model([None, 4]).add("MatMul", w).add("MatMul", np.ones((3, 2))),
            r"node 'n1' \(MatMul\) takes the sums of node 'n0' \(MatMul\) without a sign")  # fmt: skip
    refused(tmp_path, Model([None, 4]).add("MatMul", w).add("Relu"), r"node 'n1' \(Relu\) cuts off sums at 0")
    refused(tmp_path, Model([None, 4]).add("MatMul", w).add("Erf"), r"node 'n1' \(Erf\) is no operation of a binarized")
    joined = Model([None, 4]).add("MatMul", np.ones((4, 4)))
    refused(tmp_path, joined.add("Add", "x"), r"node 'n1' \(Add\) joins two branches")
    refused(tmp_path, Model([None, 4]).add("MatMul", w).add("Clip", -1.0, 1.0).add("Add", 1.0),
            r"node 'n2' \(Add\) follows a clip of sums, expected a sign")  # fmt: skip
    refused(tmp_path, Model([None, 4]).add("MatMul", w).add("Sign").add("Add", 0.1).add("Sign"),
            r"output 'n3' is not the output of a linear layer")  # fmt: skip
    refused(
        tmp_path,
        Model([None, 4]).add("Add", 0.5).add("Cast", to=TensorProto.INT64),
        r"node 'n1' \(Cast\) rounds numbers",
    )


def test_what_would_round_signs_is_refused(tmp_path):
    model = Model([None, 2]).add("MatMul", [[1.0, 1.0], [1.0, -1.0]]).add("Add", 0.5).add("Sign")
    model.add("BatchNormalization", [1.0, 1.0], [0.0, 0.0], [0.3, 0.3], [2.0, 2.0], epsilon=0.0)
    refused(tmp_path, model.add("MatMul", [[1.0], [1.0]]), r"node 'n3' \(BatchNormalization\) divides signs by an irr")
    model = Model([None, 2]).add("MatMul", [[1.0, 1.0], [1.0, -1.0]]).add("Cast", to=TensorProto.FLOAT16)
    refused(tmp_path, model, r"node 'n1' \(Cast\) rounds numbers to another type")


def test_a_batch_norm_of_signs_is_exact(tmp_path):
    # (h - 1/2) / 2 * 3 + 1 of signs, then a sum with ties
    model = Model([None, 2]).add("MatMul", [[1.0, 1.0], [1.0, -1.0]]).add("Add", 0.5).add("Sign")
    model.add("BatchNormalization", [3.0, 3.0], [1.0, 1.0], [0.5, 0.5], [4.0, 4.0], epsilon=0.0)
    model.add("Gemm", [[2.0, -2.0], [2.0, 2.0]], [1.0, -1.0], transB=1, alpha=0.5, beta=0.25)
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    x = inputs_of((2,), 20)
    scores = run(model.proto(), x)
    assert [[float(v) for v in imported.network.scores(p)] for p in imported.read(x)] == scores.tolist()


def test_padding_that_no_sign_stands_for_is_refused(tmp_path):
    model = Model([None, 1, 3, 3]).add("Add", 0.5).add("Conv", np.ones((1, 1, 2, 2)), pads=[1, 1, 0, 0])
    refused(tmp_path, model, r"node 'n1' \(Conv\) pads with 0, but its inputs are 1/2 \+ 1 \* x: no -1, 0 or \+1")


def test_shapes_that_do_not_fit_are_malformed(tmp_path):
    model = Model([None, 4]).add("MatMul", np.ones((5, 3)))
    refused(tmp_path, model, r"node 'n0' \(MatMul\) has weights of shape \(3, 5\) for 4 inputs", FormatError)
    model = Model([None, 4]).add("Reshape", Model([None, 4]).constant([3, 3], np.int64))
    model.constants.append(onnx.numpy_helper.from_array(np.array([3, 3]), "c0"))
    refused(tmp_path, model, r"node 'n0' \(Reshape\) makes \[3, 3\] of a tensor of shape \(1, 4\)", FormatError)


def test_open_sizes_need_a_shape(tmp_path):
    model = Model([None, None]).add("MatMul", np.ones((4, 3)))
    refused(tmp_path, model, r"the input 'x' has the shape \(\?, \?\), expected sizes")
    assert load(tmp_path / "m.onnx", coding=SMALL, input_shape=(1, 4)).network.n_inputs == 4


def test_inputs_must_be_said_to_be_something(tmp_path):
    path = Model([None, 4]).add("MatMul", np.ones((4, 3))).save(tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=r"an ONNX file does not say which numbers are inputs.*--input-range"):
        load_network(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x08\x07\x12\x04test", b"\xff" * 40])
def test_what_is_no_model_is_refused(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(FormatError, match=r"m\.onnx: .*expected an ONNX model"):
        load(tmp_path / "m.onnx", coding=SMALL)


def test_a_truncated_model_is_refused_wherever_it_ends(tmp_path):
    model, weights = dense()
    whole = model.add("MatMul", weights).proto().SerializeToString()
    for end in range(len(whole)):
        (tmp_path / "m.onnx").write_bytes(whole[:end])
        with pytest.raises((FormatError, UnsupportedError), match=r"m\.onnx: "):
            load(tmp_path / "m.onnx", coding=SMALL)


def test_two_inputs_or_missing_tensors_are_refused(tmp_path):
    proto = Model([None, 4]).add("MatMul", np.ones((4, 3))).proto()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=r"has 2 inputs \(x, z\), expected one"):
        load(tmp_path / "m.onnx", coding=SMALL)
    onnx.save(Model([None, 4]).add("MatMul", "nowhere").proto(), tmp_path / "m.onnx")
    with pytest.raises(FormatError, match=r"node 'n0' \(MatMul\) takes 'nowhere', which nothing before it makes"):
        load(tmp_path / "m.onnx", coding=SMALL)


def test_bipolar_quantisation_of_turned_signs_is_turned(tmp_path):
    domain = "qonnx.custom_op.general"
    model = Model([None, 1])
    scale = model.constant(np.array(2.0))
    model.add("MatMul", [[1.0]]).add("Add", 0.5).add("Sign").add("Neg").add("BipolarQuant", scale, domain=domain)
    imported = load(model.add("MatMul", [[1.0, -1.0]]).save(tmp_path / "m.onnx"), coding=SMALL)
    assert [imported.network.scores([v])[0] for v in (-1, 0, 1)] == [2, -2, -2]


def test_integers_that_wrap_around_or_lose_their_fraction_are_refused(tmp_path):
    w = np.ones((4, 3))
    bits = Model([None, 4]).add("MatMul", w).add("Greater", 0.0).add("Cast", to=TensorProto.UINT8)
    refused(tmp_path, bits.add("Sub", bits.constant(1, np.uint8)), r"node 'n3' \(Sub\) calculates in uint8")
    signs = Model([None, 4]).add("MatMul", w).add("Add", 0.5).add("Sign").add("Cast", to=TensorProto.INT32)
    refused(tmp_path, signs.add("Div", signs.constant(2, np.int32)), r"node 'n4' \(Div\) divides integers")
    real = Model([None, 4]).add("Cast", to=TensorProto.INT32)
    refused(tmp_path, real.add("Cast", to=TensorProto.FLOAT), r"node 'n0' \(Cast\) rounds numbers")
    sums = Model([None, 4]).add("MatMul", w).add("Cast", to=TensorProto.INT32)
    refused(tmp_path, sums.add("Cast", to=TensorProto.FLOAT), r"node 'n1' \(Cast\) rounds numbers")


def test_windows_that_overlap_and_are_rounded_up_are_refused(tmp_path):
    # 6 rows: windows of 3 at every second row fit twice, and ceil_mode makes it three
    model = Model([None, 1, 6, 6]).add("Conv", np.ones((1, 1, 1, 1))).add("Add", 0.5).add("Sign")
    model.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    refused(tmp_path, model, r"node 'n3' \(MaxPool\) rounds the number of windows up")
    rng = np.random.default_rng(5)
    model = Model([None, 1, 5, 5]).add("Conv", rng.choice([-1.0, 1.0], (2, 1, 1, 1))).add("Add", 0.5).add("Sign")
    model.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1).add("Flatten")  # these fit
    model.add("MatMul", rng.choice([-1.0, 1.0], (8, 3)))
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    x = inputs_of((1, 5, 5), 20)
    assert [[float(v) for v in imported.network.scores(p)] for p in imported.read(x)] == run(model.proto(), x).tolist()


def test_a_clip_is_remembered_where_channels_move(tmp_path):
    kernels = np.array([1.0, 1.0, -1.0, 1.0]).reshape(4, 1, 1, 1)
    model = Model([None, 1, 2, 2]).add("Conv", kernels).add("Clip", -1.0, 1.0)
    model.add("Reshape", model.constant([-1, 2, 2, 2, 2], np.int64)).add("Transpose", perm=[0, 2, 1, 3, 4])
    model.add("Reshape", model.constant([-1, 4, 2, 2], np.int64)).add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    refused(tmp_path, model.add("Sub", 1.5), r"node 'n6' \(Sub\) follows a clip of sums")


def test_what_picks_other_classes_than_the_first_greatest_is_refused(tmp_path):
    def scores():
        return Model([None, 4]).add("MatMul", np.ones((4, 3)))

    one, two = (np.array([k], dtype=np.int64) for k in (1, 2))
    model = scores()
    refused(tmp_path, model.add("TopK", model.constant(one, np.int64), largest=0), r"\(TopK\) picks 1 scores")
    model = scores()
    refused(tmp_path, model.add("TopK", model.constant(two, np.int64)), r"\(TopK\) picks 2 scores")
    refused(tmp_path, scores().add("ArgMax", axis=1, select_last_index=1), r"\(ArgMax\) takes the last of equal")
    model = scores()
    refused(tmp_path, model.add("TopK", model.constant(one, np.int64)), r"output 'n1' is the greatest score of .*TopK")
    model.nodes[-1].output[:] = ["greatest", "n1"]
    imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
    assert imported.network.n_classes == 3 and imported.gives == "class"


@pytest.mark.parametrize("kind", ["MatMul", "Conv", "padded"])
def test_a_batch_norm_of_the_input_divides_by_its_root(tmp_path, kind):
    # sqrt(4 + 1e-3) is irrational; an oracle in plain loops, since floats decide no tie here
    rng = np.random.default_rng(3)
    for gamma, beta, variance in ((1.0, 0.25, 4.0), (-2.0, 0.3 if kind != "padded" else 0.0, 0.5), (0.0, -1.0, 2.0)):
        mean = 0.3 if kind != "padded" else 0.0
        pads = [0, 1, 0, 1] if kind == "padded" and beta == 0 else [0] * 4
        model = Model([None, 2, 1, 3])
        model.add("BatchNormalization", *([v] * 2 for v in (gamma, beta, mean, variance)), epsilon=1e-3)
        if kind == "MatMul":
            model.add("Flatten").add("MatMul", rng.choice([-1.0, 1.0], (6, 3)))
        else:
            model.add("Conv", rng.choice([-1.0, 1.0], (3, 2, 1, 2)), [0.1, -0.7, 0.4], pads=pads)
        model.add("GreaterOrEqual", 0.55).add("Where", 2.0, 0.5).add("Flatten")
        model.add("MatMul", rng.choice([-1.0, 1.0], ((3 if kind == "MatMul" else 12 if any(pads) else 6), 2)))
        imported = load(model.save(tmp_path / "m.onnx"), coding=SMALL)
        x = inputs_of((2, 1, 3), 40)
        for point, row in zip(imported.read(x), run(model.proto(), x), strict=True):
            assert [float(v) for v in imported.network.scores(point)] == row.tolist()


def test_a_cast_that_a_small_type_does_not_hold_is_refused(tmp_path):
    def model(to, low):
        steps = Model([None, 4], opset=24).add("MatMul", np.ones((4, 2))).add("Greater", 0.5).add("Where", 1.0, low)
        return steps.add("Cast", to=to).add("Cast", to=TensorProto.FLOAT).add("MatMul", np.ones((2, 2)))

    small = (TensorProto.UINT4, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT4E2M1, TensorProto.STRING)
    for to in (*small, TensorProto.BOOL, TensorProto.UINT8):
        refused(tmp_path, model(to, -1.0), r"node 'n3' \(Cast\) rounds numbers to another type")
    for to, low in ((TensorProto.UINT4, 0.0), (TensorProto.INT4, -1.0), (TensorProto.BOOL, 0.0)):
        assert load(model(to, low).save(tmp_path / "m.onnx"), coding=SMALL).network.n_classes == 2


def test_a_sign_of_bits_that_is_zero_needs_its_meaning_and_says_so(tmp_path):
    model = Model([None, 3]).add("Sign").add("MatMul", np.ones((3, 2)))
    path = model.save(tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="zero_sign=1"):
        load(path, coding=InputCoding.bits())
    assert load(path, coding=InputCoding.bits(), zero_sign=-1).notes == (
        "a plain Sign of 0 was taken as -1; ONNX gives 0",
    )


def test_a_clip_at_a_least_value_that_is_huge_is_not_left_out(tmp_path):
    most = float(np.finfo(np.float32).max)
    model = Model([None, 4]).add("MatMul", np.ones((4, 2))).add("Clip", most).add("Sub", 0.5).add("Sign")
    refused(tmp_path, model.add("MatMul", np.ones((2, 2))), r"node 'n1' \(Clip\) clips sums to")
