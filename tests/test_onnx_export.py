"""Networks written as ONNX: onnxruntime and our own reader find what was written."""

import itertools
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats import load_network, onnxwriter
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.onnx import load
from bnnverify.formats.onnxmetadata import BLOCKS_KEY, DOMAIN_KEY, SCORES_KEY
from bnnverify.formats.scores import same_order, small_integers
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from tests import oracle, strategies

SESSION = onnxruntime.SessionOptions()
SESSION.intra_op_num_threads = 1


def runtime_scores(data, x):
    session = onnxruntime.InferenceSession(data, SESSION)
    entry = session.get_inputs()[0]
    shape = [len(x), *entry.shape[1:]]
    return session.run(None, {entry.name: np.asarray(x, dtype=np.float32).reshape(shape)})[0]


@st.composite
def with_integer_inputs(draw, kind):
    """A network over small integers instead of signs; conjunctions, masks and all."""
    network = draw(kind())
    n = network.n_inputs
    lower = draw(st.lists(st.integers(-3, 2), min_size=n, max_size=n))
    width = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    upper = [a + b for a, b in zip(lower, width, strict=True)]
    return BinaryNetwork(InputDomain.integers(lower, upper), network.blocks, network.output)


any_network = st.one_of(
    strategies.networks(),
    strategies.conv_networks(),
    with_integer_inputs(strategies.networks),
    with_integer_inputs(strategies.conv_networks),
)


def some_inputs(network, count=40):
    ranges = [range(a, b + 1) for a, b in zip(network.domain.lower, network.domain.upper, strict=True)]
    if network.domain.is_binary:
        ranges = [(-1, 1)] * network.n_inputs
    rng = np.random.default_rng(0)
    return np.array([[rng.choice(r) for r in ranges] for _ in range(count)])


@given(any_network)
@settings(max_examples=40, deadline=None)
def test_onnxruntime_orders_the_classes_as_the_exact_scores_do(network):
    data = _written(network)
    x = some_inputs(network, 8)
    for point, row in zip(x, runtime_scores(data, x), strict=True):
        exact = oracle.scores(network, point.tolist())
        assert [[u > v for v in row] for u in row] == [[u > v for v in exact] for u in exact]
        assert int(row.argmax()) == oracle.predicted(network, point.tolist())


@given(any_network)
@settings(max_examples=60, deadline=None)
def test_our_reader_gives_back_the_function_and_the_stored_signs(network):
    path = "memory.onnx"
    again = _read_back(network, path)
    x = some_inputs(network)
    assert again.domain.lower.tolist() == network.domain.lower.tolist()
    for point in x:
        assert again.scores(point) == network.scores(point)
    assert again.identity == network.identity
    assert again.cells_identity == network.cells_identity


def _read_back(network, name):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(_written(network))
        return load_network(path)


def _written(network):
    """The file; networks whose scores no type holds are skipped."""
    try:
        return onnxwriter.to_bytes(network)
    except UnsupportedError as error:
        assert "Round scales and biases to fewer digits" in str(error)
        assume(False)


def test_thresholds_beyond_all_sums_and_paddings_of_nothing_are_kept(tmp_path):
    block = ConvBlock.create(
        [[[[1, 0]]], [[[0, 0]]], [[[-1, 1]]]], [-(2**40), 7, 3],
        mask=np.array([[[[1, 0]]], [[[0, 0]]], [[[1, 1]]]]) != 0,
        input_shape=(1, 2, 2), pad_value=-1, conjunction=np.array([False, True, False]),
    )  # fmt: skip
    hidden = DenseBlock.create(np.ones((2, block.n_outputs)), [100, -100], negated=np.array([True, False]))
    output = OutputBlock.create([[1, 1], [1, -1]])
    network = BinaryNetwork(InputDomain.integers([0] * 4, [0, 0, 2, 3]), (block, hidden), output)
    onnxwriter.save(network, tmp_path / "net.onnx")
    again = load_network(tmp_path / "net.onnx")
    assert again == network and again.identity == network.identity
    wider = load(tmp_path / "net.onnx", coding=InputCoding.integers(0, 255)).network  # then the graph alone counts
    assert wider.blocks[0].thresholds[0] > -(2**40)


@pytest.mark.parametrize(
    "text",
    ["5", "[]", "[{}, {}]", '[{"thresholds": [[0, 1]]}]', '[{"thresholds": [[9, 99]]}]', '[{"thresholds": 5}]',
     '[{"thresholds": [[1, 99999999999999999999]]}]', "[[]]", "[" * 9000],
)  # fmt: skip
def test_metadata_of_blocks_that_do_not_fit_are_refused(tmp_path, text):
    network = BinaryNetwork(
        InputDomain.binary(2), (DenseBlock.create([[1, 1], [1, -1]], [2, 9]),), OutputBlock.create([[1, 1], [1, -1]])
    )
    onnxwriter.save(network, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert load(tmp_path / "net.onnx").network == network
    onnx.helper.set_model_props(model, {DOMAIN_KEY: '"signs"', BLOCKS_KEY: text})
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(FormatError, match=r"changed\.onnx: the metadata bnnverify\.blocks does not fit the graph"):
        load(tmp_path / "changed.onnx")


def test_every_input_of_a_pooling_network_with_conjunctions_agrees():
    rng = np.random.default_rng(3)
    block = ConvBlock.create(
        rng.choice([-1, 1], (3, 1, 2, 2)), [0, 2, -1], input_shape=(1, 3, 3), pool=2, padding=1, pad_value=1,
        negated=np.array([True, False, True]), conjunction=np.array([True, False, False]),
    )  # fmt: skip
    output = OutputBlock.create(rng.choice([-1, 1], (3, block.n_outputs)), bias=[0, 1, -1])
    network = BinaryNetwork(InputDomain.binary(9), (block,), output)
    cube = np.array(list(itertools.product((-1, 1), repeat=9)))
    scores = runtime_scores(onnxwriter.to_bytes(network), cube)
    assert scores.argmax(axis=1).tolist() == [oracle.predicted(network, x) for x in cube.tolist()]


def test_the_file_is_standard_onnx(tmp_path):
    network = BinaryNetwork(
        InputDomain.binary(4, (2, 2)),
        (DenseBlock.create([[1, -1, 1, 1], [1, 1, 1, -1]], [1, 0]),),
        OutputBlock.create([[1, 1], [-1, 1]], scale=0.1, bias=[1e-9, 0]),
    )
    onnxwriter.save(network, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert load(tmp_path / "net.onnx").network == network
    assert onnxwriter.to_bytes(network) == (tmp_path / "net.onnx").read_bytes()


def test_sums_beyond_float32_are_refused():
    network = BinaryNetwork(InputDomain.integers([0], [2**23]), (), OutputBlock.create([[1], [-1]]))
    with pytest.raises(UnsupportedError, match=r"the output has sums up to 8388608, expected below 4194304"):
        onnxwriter.to_bytes(network)


def test_scales_of_53_digits_become_small_numbers(tmp_path):
    rng = np.random.default_rng(5)
    weights = rng.choice([-1, 1], (4, 30))
    for scale in (0.1, [0.1, 0.7, 1 / 3, -0.2]):
        network = BinaryNetwork(
            InputDomain.binary(30), (), OutputBlock.create(weights, scale=scale, bias=rng.random(4))
        )
        onnxwriter.save(network, tmp_path / "net.onnx")
        assert onnx.load(tmp_path / "net.onnx").graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert load_network(tmp_path / "net.onnx") == network


rationals = st.builds(Fraction, st.integers(-9, 9), st.sampled_from([1, 2, 3, 7]))


@given(st.lists(rationals, min_size=2, max_size=4), st.lists(rationals, min_size=2, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_small_integers_order_the_classes_for_every_sum(scales, biases, common):
    classes = min(len(scales), len(biases))
    scale = [scales[0]] * classes if common else scales[:classes]
    output = OutputBlock.create([[1, 1]] * classes, scale=scale, bias=biases[:classes])
    a, b = small_integers(output, 2)
    for sums in itertools.product(range(-4, 5), repeat=2):
        for k, m in itertools.permutations(range(classes), 2):
            exact = scale[k] * sums[0] + biases[k] - scale[m] * sums[1] - biases[m]
            small = a[k] * sums[0] + b[k] - a[m] * sums[1] - b[m]
            assert (exact > 0) == (small > 0) and (exact == 0) == (small == 0)
    written = OutputBlock.create([[1, 1]] * classes, scale=list(a), bias=list(b))
    assert same_order(output, written, 2)


def test_metadata_that_does_not_fit_the_graph_is_refused(tmp_path):
    output = OutputBlock.create([[1, 1], [1, -1]], bias=[0, 1])
    onnxwriter.save(BinaryNetwork(InputDomain.binary(2), (), output), tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.helper.set_model_props(model, {SCORES_KEY: '[["1", "1"], ["2", "0"]]', DOMAIN_KEY: '"signs"'})
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(FormatError, match=r"changed\.onnx: the metadata bnnverify\.scores does not fit the graph"):
        load(tmp_path / "changed.onnx")


def test_scores_beyond_int64_are_refused():
    output = OutputBlock.create([[1], [-1]], scale=[1e-300, 1.0], bias=[0, 1])
    with pytest.raises(UnsupportedError, match=r"the scores are integers up to 2\^\d+ over a common denominator"):
        onnxwriter.to_bytes(BinaryNetwork(InputDomain.binary(1), (), output))
    with pytest.raises(UnsupportedError, match=r"expected below 2\^53"):  # sums of inputs need not be integers
        onnxwriter.to_bytes(BinaryNetwork(InputDomain.integers([0], [1]), (), output))


def test_scores_of_inputs_that_the_file_does_not_state_are_those_of_the_graph(tmp_path):
    output = OutputBlock.create([[1, -1], [1, 1]], scale=[Fraction(1, 3), Fraction(2, 7)], bias=[0, Fraction(1, 9)])
    network = BinaryNetwork(InputDomain.integers([0, 0], [3, 3]), (), output)
    onnxwriter.save(network, tmp_path / "m.onnx")
    assert load(tmp_path / "m.onnx").network.identity == network.identity
    read = load(tmp_path / "m.onnx", coding=InputCoding.integers(0, 255)).network
    points = [(a, b) for a in range(4) for b in range(4)]
    assert [read.evaluate(p) for p in points] == [network.evaluate(p) for p in points]
    assert all(v.denominator == 1 for v in (*read.output.scale, *read.output.bias))
