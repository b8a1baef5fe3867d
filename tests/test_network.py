"""BinaryNetwork: exact semantics, checks at the door, identity."""

import hashlib
import pickle
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.blocks import as_fraction
from bnnverify.errors import ModelError
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock, Provenance
from tests import oracle
from tests.strategies import inputs, networks


def linear(weights=((1, 1), (-1, -1)), **options):
    output = OutputBlock.create(weights, **options)
    return BinaryNetwork(InputDomain.binary(output.n_inputs), (), output)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_scores_and_classes_are_those_of_the_definition(data):
    network = data.draw(networks())
    batch = data.draw(st.lists(inputs(network.n_inputs), min_size=1, max_size=8))
    for x in batch:
        assert network.scores(x) == tuple(oracle.scores(network, x))
        assert network.evaluate(x) == oracle.predicted(network, x)
    assert network.evaluate_batch(batch).tolist() == [oracle.predicted(network, x) for x in batch]


def test_a_neuron_on_its_threshold_fires():
    block = DenseBlock.create([[1, 1]], [0])
    assert block.outputs(np.array([1, -1])).tolist() == [1]
    assert DenseBlock.create([[1, 1]], [1]).outputs(np.array([1, -1])).tolist() == [-1]


def test_a_tie_goes_to_the_lowest_index():
    assert linear([[1, 1], [1, 1], [-1, -1]]).evaluate([1, 1]) == 0
    assert linear([[-1, -1], [1, 1], [1, 1]]).evaluate([1, 1]) == 1


def test_scores_that_differ_by_less_than_a_float_can_say_are_told_apart():
    tiny = Fraction(1, 2**200)
    network = linear([[1], [1]], bias=[Fraction(1, 3), Fraction(1, 3) + tiny])
    assert network.evaluate([1]) == 1
    assert network.evaluate_batch([[1], [-1]]).tolist() == [1, 1]


def test_numbers_beyond_64_bits_stay_exact():
    network = linear([[1], [-1]], scale=[2**90, 2**90 - 1], bias=[0, 1])
    assert network.scores([1]) == (2**90, 2 - 2**90)
    assert network.evaluate_batch([[1], [-1]]).tolist() == [0, 1]


def test_negative_and_zero_scales_are_allowed():
    assert linear([[1], [1]], scale=[-1, 0]).evaluate([1]) == 1
    assert linear([[1], [1]], scale=[-1, 0]).evaluate([-1]) == 0


@given(networks(max_blocks=1))
def test_the_integer_form_orders_classes_as_the_scores_do(network):
    a, b = network.output.integer_form()
    for sums in ([0] * network.n_classes, list(range(-1, network.n_classes - 1))):
        scores = [s * t + c for s, t, c in zip(network.output.scale, sums, network.output.bias, strict=True)]
        integers = [s * t + c for s, t, c in zip(a, sums, b, strict=True)]
        for i in range(len(scores)):
            for j in range(len(scores)):
                assert (scores[i] > scores[j]) == (integers[i] > integers[j])


def test_integer_inputs_are_evaluated_exactly_and_kept_within_bounds():
    hidden = DenseBlock.create([[1, -1]], [100])
    output = OutputBlock.create([[1], [-1]])
    network = BinaryNetwork(InputDomain.integers([0, 0], [255, 255]), (hidden,), output)
    assert network.evaluate([200, 100]) == 0
    assert network.evaluate([199, 100]) == 1
    with pytest.raises(ModelError, match=r"input\[1\] is 256, expected 0 to 255\."):
        network.evaluate([0, 256])
    with pytest.raises(ModelError, match=r"row 1: input\[0\] is -1, expected 0 to 255\."):
        network.evaluate_batch([[0, 0], [-1, 0]])


# Checks at the door.


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1, 0.3]], r"weights\[0, 1\] is 0\.3, expected -1 or \+1\. Export the binarized weights\."),
        ([[1, 0]], r"weights\[0, 1\] is 0, expected -1 or \+1\. Pass a mask to leave inputs out\."),
        ([[1, float("nan")]], r"weights\[0, 1\] is nan, expected -1 or \+1"),
        ([[1, 2]], r"weights\[0, 1\] is 2, expected -1 or \+1"),
        ([1, 1], r"has shape \(2,\), expected a matrix"),
        ([[]], r"has shape \(1, 0\), expected at least one neuron and one input"),
    ],
)
def test_weights_that_are_not_signs_are_refused(weights, message):
    with pytest.raises(ModelError, match=message):
        DenseBlock.create(weights, [0])


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([0.5], r"thresholds\[0\] is 0\.5, expected an integer"),
        ([float("nan")], r"thresholds\[0\] is nan, expected an integer"),
        ([float("inf")], r"thresholds\[0\] is inf, expected an integer"),
        ([0, 0], r"thresholds has 2 entries, expected 1, one per neuron"),
        ([True], "is boolean, expected integers"),
        ([2**63], r"exceeds \+-2\^62"),
        ([1e300], r"exceeds 2\^53 as floating point"),
        (["one"], "expected integers"),
        (3, r"has shape \(\), expected 1 dimension"),
    ],
)
def test_thresholds_that_are_not_integers_are_refused(thresholds, message):
    with pytest.raises(ModelError, match=message):
        DenseBlock.create([[1, 1]], thresholds)


def test_masks_and_flags_of_the_wrong_kind_are_refused():
    with pytest.raises(ModelError, match=r"mask of block\.weights has dtype int64, expected bool"):
        DenseBlock.create([[1, 1]], [0], mask=np.array([[1, 0]]))
    with pytest.raises(ModelError, match=r"mask of block\.weights has shape \(2,\), expected \(1, 2\)"):
        DenseBlock.create([[1, 1]], [0], mask=np.array([True, False]))
    with pytest.raises(ModelError, match=r"negated has dtype int64 and shape \(1,\), expected bool and \(1,\)"):
        DenseBlock.create([[1, 1]], [0], negated=np.array([1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": float("nan")}, r"output\.scale\[0\] is nan, expected a finite number"),
        ({"bias": [0, float("inf")]}, r"output\.bias\[1\] is inf, expected a finite number"),
        ({"scale": [1]}, r"output\.scale has 1 entries, expected 2, one per class"),
        ({"scale": "1"}, r"output\.scale\[0\] is '1', expected an integer, a Fraction or a finite float"),
        ({"bias": True}, r"output\.bias\[0\] is True, expected a number"),
    ],
)
def test_scales_and_biases_that_are_not_numbers_are_refused(options, message):
    with pytest.raises(ModelError, match=message):
        linear(**options)


def test_one_class_is_not_a_classifier():
    with pytest.raises(ModelError, match="has 1 row"):
        OutputBlock.create([[1, 1]])


def test_blocks_that_do_not_fit_together_are_refused():
    hidden, output = DenseBlock.create([[1, 1, 1]], [0]), OutputBlock.create([[1], [1]])
    with pytest.raises(ModelError, match=r"blocks\[0\] takes 3 inputs, but the input gives 2"):
        BinaryNetwork(InputDomain.binary(2), (hidden,), output)
    with pytest.raises(ModelError, match=r"the output block takes 1 inputs, but the input gives 3"):
        BinaryNetwork(InputDomain.binary(3), (), output)
    with pytest.raises(ModelError, match=r"blocks\[0\] is a OutputBlock, expected a DenseBlock"):
        BinaryNetwork(InputDomain.binary(1), (output,), output)
    with pytest.raises(ModelError, match="output is a DenseBlock, expected an OutputBlock"):
        BinaryNetwork(InputDomain.binary(3), (), hidden)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1, 0], r"input\[1\] is 0, expected -1 or \+1\. Binarize the image first"),
        ([1], "input has 1 entries, expected 2"),
        ([[1, 1]], r"input has shape \(1, 2\), expected 1 dimension"),
        ([1, 0.5], r"input\[1\] is 0\.5, expected an integer"),
        ([True, True], "input is boolean"),
    ],
)
def test_inputs_outside_the_domain_are_refused(x, message):
    with pytest.raises(ModelError, match=message):
        linear().evaluate(x)


def test_domains_that_make_no_sense_are_refused():
    with pytest.raises(ModelError, match="the number of inputs is 0, expected at least 1"):
        InputDomain.binary(0)
    with pytest.raises(ModelError, match=r"shape \(2, 2\) has 4 entries, but the input has 3"):
        InputDomain.binary(3, (2, 2))
    with pytest.raises(ModelError, match=r"lower\[1\] = 5 exceeds upper\[1\] = 4"):
        InputDomain.integers([0, 5], [1, 4])
    with pytest.raises(ModelError, match=r"expected the same, not empty"):
        InputDomain.integers([0], [1, 4])
    with pytest.raises(ModelError, match=r"more than 2\^60"):
        InputDomain.integers([0, 0], [2**62, 2**62])


def test_floats_stand_for_the_dyadic_numbers_they_are():
    assert as_fraction(0.1, "x") == Fraction(3602879701896397, 36028797018963968)
    assert as_fraction(np.float32(0.1), "x") == Fraction(float(np.float32(0.1)))


# Immutability, cells, identity.


def test_nothing_of_a_network_can_be_changed():
    weights = np.array([[1, -1]])
    block = DenseBlock.create(weights, [0])
    weights[0, 0] = -1
    assert block.weights.tolist() == [[1, -1]]
    with pytest.raises(ValueError, match="read-only"):
        block.weights[0, 0] = -1
    with pytest.raises(ValueError, match="read-only"):
        InputDomain.binary(2).lower[0] = 5
    with pytest.raises(AttributeError):
        linear().blocks = ()


def test_cells_are_the_unmasked_weights_as_they_are_stored():
    mask = np.array([[True, False], [True, True]])
    block = DenseBlock.create([[1, 1], [-1, 1]], [0, 0], mask=mask, negated=np.array([True, False]))
    assert block.n_cells == 3
    assert block.stored.tolist() == [[-1, 0], [-1, 1]]
    network = BinaryNetwork(InputDomain.binary(2), (block,), OutputBlock.create([[1, 1], [1, -1]]))
    assert network.n_cells == 7
    assert network.architecture == "2-2-2"
    assert len(oracle.cells(network)) == 7


def test_the_identity_is_the_sha256_of_the_bytes_that_the_docs_describe():
    mask = np.array([[True, False]])
    hidden = DenseBlock.create([[-1, 1]], [-3], mask=mask)
    output = OutputBlock.create([[1], [-1]], scale=[0.5, -2], bias=[0, Fraction(1, 3)])
    network = BinaryNetwork(InputDomain.binary(2), (hidden,), output)
    text = b"bnnverify network 1\ndomain binary 2\n"
    text += b"dense 1 2\n" + b"\xff\x00" + struct.pack("<q", -3)
    text += b"output 2 1\n" + b"\x01\xff" + b"1/2\n-2/1\n" + b"0/1\n1/3\n"
    assert network.identity == hashlib.sha256(text).hexdigest()
    integers = BinaryNetwork(InputDomain.integers([0, -1], [255, 7]), (hidden,), output)
    bounds = b"domain integers 2\n" + struct.pack("<4q", 0, -1, 255, 7)
    assert integers.identity == hashlib.sha256(text.replace(b"domain binary 2\n", bounds)).hexdigest()


def convolution(**changes):
    fields = {"thresholds": [-3, 2], "input_shape": (1, 3, 4), "stride": (1, 2), "padding": (0, 1), "pad_value": -1}
    fields |= {"pool": (2, 1), "conjunction": np.array([True, False]), **changes}
    mask = np.array([[[[True, False]]], [[[True, True]]]])
    block = ConvBlock.create([[[[-1, 0]]], [[[1, 1]]]], fields.pop("thresholds"), mask=mask, **fields)
    output = OutputBlock.create([[1] * block.n_outputs, [-1] * block.n_outputs])
    return BinaryNetwork(InputDomain.binary(12), (block,), output)


def test_the_identity_of_a_convolution_is_the_sha256_of_the_bytes_that_the_docs_describe():
    text = b"bnnverify network 1\ndomain binary 12\n"
    text += b"conv 2 1 1 2\ninput 1 3 4 stride 1 2 padding 0 1 value -1 pool 2 1\n"
    text += b"\xff\x00\x01\x01" + struct.pack("<2q", -3, 2) + b"\x01\x00"
    text += b"output 2 6\n" + b"\x01" * 6 + b"\xff" * 6 + b"1/1\n" * 2 + b"0/1\n" * 2
    network = convolution()
    assert network.identity == hashlib.sha256(text).hexdigest()
    cells = hashlib.sha256(bytes.fromhex(network.identity) + b"\x40").hexdigest()
    assert convolution(negated=np.array([False, True])).cells_identity == cells


def test_the_identity_of_a_convolution_depends_on_every_part_of_its_function():
    variants = [
        convolution(),
        convolution(thresholds=[-3, 1]),
        convolution(pad_value=0),
        convolution(pad_value=1),
        convolution(conjunction=np.array([True, True])),
        convolution(pool=(1, 1)),
        convolution(stride=(1, 1)),
        convolution(padding=(1, 1)),
        convolution(input_shape=(1, 4, 3)),
        convolution(input_shape=(1, 2, 6)),
    ]
    assert len({network.identity for network in variants}) == len(variants)
    assert convolution() == convolution(negated=np.array([True, False]))


def test_the_example_of_the_docs_holds():
    assert linear().identity == "a355148a49c49ea6f3f1d86d47232e23dca2e710e5ff2de44010c7c4bb928f7b"


def test_the_identity_forgets_provenance_shape_and_negation_but_nothing_of_the_function():
    def network(threshold=0, negated=False, shape=None, provenance=None, bias=0):
        hidden = DenseBlock.create([[1, 1]], [threshold], negated=np.array([negated]))
        output = OutputBlock.create([[1], [-1]], bias=bias)
        return BinaryNetwork(InputDomain.binary(2, shape), (hidden,), output, Provenance(provenance or {}))

    plain = network()
    assert plain == network(negated=True) == network(shape=(2, 1)) == network(provenance={"seed": 1})
    assert hash(plain) == hash(network(negated=True))
    assert plain.cells_identity != network(negated=True).cells_identity
    assert plain.cells_identity == network(provenance={"seed": 1}).cells_identity
    assert plain != network(threshold=1)
    assert plain != network(bias=[0, 1])
    assert plain != "a network"


def test_networks_whose_pieces_run_together_differ():
    one = linear([[1, 1], [1, 1]])
    four = linear([[1], [1], [1], [1]])
    assert one != four


@given(networks(max_inputs=5), networks(max_inputs=5))
def test_equal_identities_mean_equal_functions(first, second):
    assert (first == second) == (b"".join(first.canonical_bytes()) == b"".join(second.canonical_bytes()))


def test_the_repr_says_what_it_is():
    assert repr(linear()) == f"BinaryNetwork(2-2, binary inputs, 4 cells, sha256 {linear().identity[:12]})"


def test_constructors_check_what_create_would_have_made():
    good = DenseBlock.create([[1, -1]], [0])
    with pytest.raises(ModelError, match=r"needs an int8 matrix of -1, 0 \(masked\) and \+1. Use DenseBlock.create"):
        DenseBlock(np.array([[0.3, 1]]), good.thresholds, good.negated)
    with pytest.raises(ModelError, match="needs int64 thresholds and bool flags, one per neuron"):
        DenseBlock(good.weights, np.array([0.5]), good.negated)
    with pytest.raises(ModelError, match="needs Fractions, one scale and bias per class"):
        OutputBlock(np.ones((2, 2), dtype=np.int8), (Fraction(1),), (Fraction(0),))
    with pytest.raises(ModelError, match="InputDomain needs int64 bounds, -1/\\+1 if binary"):
        InputDomain(np.array([0]), np.array([5]), True, (1,))


def test_copies_through_pickle_are_equal_and_as_immutable():
    network = BinaryNetwork(
        InputDomain.binary(2), (DenseBlock.create([[1, -1]], [0]),), OutputBlock.create([[1], [-1]])
    )
    copy = pickle.loads(pickle.dumps(network))
    assert copy == network
    for array in (copy.domain.lower, copy.blocks[0].weights, copy.blocks[0].thresholds, copy.output.weights):
        assert not array.flags.writeable
