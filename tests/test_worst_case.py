"""Bit-flip distance against the enumeration of all flip sets, and at sizes that no enumeration reaches."""

import math
from fractions import Fraction
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cli.cells import worst_case_report
from bnnverify.engines.base import Clock, Limits, Monitor
from bnnverify.errors import ModelError, QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import flipplan
from bnnverify.reliability.coefficients import CoefficientCounter, _Expansion
from bnnverify.reliability.margins import class_with_flips
from bnnverify.reliability.worstcase import bit_flip_distance, flip_distances, robust_to_flips, worst_case_accuracy
from bnnverify.results import Kind, Verdict
from tests import oracle, strategies


def least_flips(network, x, reference):
    """Size of the smallest set of flips after which the class is not `reference`; None if there is none."""
    cells = oracle.cells(network)
    for size in range(len(cells) + 1):
        for flips in combinations(cells, size):
            if oracle.predicted(network, x, oracle.flipped_weights(network, flips)) != reference:
                return size
    return None


@st.composite
def cases(draw, max_cells, kind=strategies.networks, **features):
    network = draw(kind(**features).filter(lambda net: net.n_cells <= max_cells))
    x = draw(strategies.inputs(network.n_inputs))
    label = draw(st.none() | st.integers(0, network.n_classes - 1))
    return network, x, label


def random_network(widths, seed, spread=3, scale=1, bias=0):
    rng = np.random.default_rng(seed)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-spread, spread + 1, m))
        for n, m in pairwise(widths[:-1])
    )
    output = OutputBlock.create(rng.choice([-1, 1], (widths[-1], widths[-2])), scale=scale, bias=bias)
    return BinaryNetwork(InputDomain.binary(widths[0]), blocks, output)


def least_by_signs(network, x, reference):
    """The least flips over all sign vectors of all hidden blocks, block by block, in plain loops.

    A vector of signs costs, neuron by neuron, the flips of its row that the definition of a neuron asks for.
    """

    def row_cost(row, inputs, threshold, sign):
        total = sum(w * v for w, v in zip(row, inputs, strict=True))
        for flips in range(len(row) + 1):
            agreeing = sum(w * v == 1 for w, v in zip(row, inputs, strict=True))
            disagreeing = sum(w * v == -1 for w, v in zip(row, inputs, strict=True))
            for down in range(min(flips, agreeing) + 1):
                if flips - down <= disagreeing:
                    after = total - 2 * down + 2 * (flips - down)
                    if (1 if after >= threshold else -1) == sign:
                        return flips
        return math.inf

    def output_cost(h):
        best = math.inf
        rows, scale, bias = network.output.weights.tolist(), network.output.scale, network.output.bias
        agree = [sum(w * v == 1 for w, v in zip(row, h, strict=True)) for row in rows]
        disagree = [sum(w * v == -1 for w, v in zip(row, h, strict=True)) for row in rows]
        for k in range(len(rows)):
            if k == reference:
                continue
            for own, other in product(range(len(h) + 1), repeat=2):
                # all flips of a row in the direction that helps
                c = -own if scale[reference] > 0 else own
                r = other if scale[k] > 0 else -other
                if own > (agree if c < 0 else disagree)[reference] or other > (agree if r < 0 else disagree)[k]:
                    continue
                mine = scale[reference] * (agree[reference] - disagree[reference] + 2 * c) + bias[reference]
                theirs = scale[k] * (agree[k] - disagree[k] + 2 * r) + bias[k]
                if theirs > mine or (theirs == mine and k < reference):
                    best = min(best, own + other)
        return best

    costs = {tuple(x): 0}
    for block in network.blocks:
        following = {}
        for h, spent in costs.items():
            rows = list(zip(block.weights.tolist(), block.thresholds.tolist(), strict=True))
            pairs = [{s: row_cost(row, h, t, s) for s in (-1, 1)} for row, t in rows]
            for signs in product((-1, 1), repeat=len(pairs)):
                cost = spent + sum(pair[sign] for pair, sign in zip(pairs, signs, strict=True))
                following[signs] = min(following.get(signs, math.inf), cost)
        costs = following
    return min(spent + output_cost(h) for h, spent in costs.items() if spent < math.inf)


def assert_is_the_least(network, x, label):
    answer = bit_flip_distance(network, x, label)
    reference = oracle.predicted(network, x) if label is None else label
    least = least_flips(network, x, reference)
    assert answer.kind is Kind.EXACT and answer.reference == reference and answer.upper == least
    if least is None:
        assert answer.lower == network.n_cells + 1 and answer.witness is None
        return
    assert answer.lower == least == len(answer.witness) == len(set(answer.witness))
    flips = [(*cell, 0) for cell in answer.witness]
    assert answer.predicted == oracle.predicted(network, x, oracle.flipped_weights(network, flips)) != reference


@settings(max_examples=80, deadline=None)
@given(cases(max_cells=11, max_inputs=3, max_width=3, max_blocks=1, max_classes=3))
def test_the_formula_gives_the_size_of_the_smallest_flip_set(case):
    assert_is_the_least(*case)


@settings(max_examples=80, deadline=None)
@given(cases(max_cells=13, max_inputs=2, max_width=2, max_blocks=4, max_classes=3))
def test_the_search_gives_the_size_of_the_smallest_flip_set(case):
    assert_is_the_least(*case)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scale", [1, [Fraction(1), Fraction(-5, 2)]])
def test_the_search_is_right_where_many_neurons_may_be_switched(seed, scale):
    network = random_network((3, 3, 2, 2), seed, spread=1, scale=scale)
    for x in ((1, 1, 1), (1, -1, 1)):
        assert_is_the_least(network, x, None)


@pytest.mark.parametrize("seed", range(24))
def test_the_search_is_right_where_many_flips_are_needed(seed):
    rng = np.random.default_rng(seed)
    widths = (15, *rng.integers(4, 6, 1 + seed % 2), 7, 3)
    scale = [1, Fraction(3, 2), Fraction(-1, 2)] if seed % 4 == 0 else 1
    network = random_network(widths, seed, spread=9, scale=scale, bias=[int(rng.integers(3, 9)), 0, -1])
    images = rng.choice([-1, 1], (3, 15))
    for x, answer in zip(images, flip_distances(network, images).per_image, strict=True):
        least = least_by_signs(network, x.tolist(), answer.reference)
        assert answer.upper == (None if least == math.inf else least) and answer.kind is Kind.EXACT


@pytest.mark.parametrize("seed", range(20))
def test_the_distance_is_the_size_of_the_smallest_sets_that_are_counted(seed):
    """The count of flip sets leaves nothing out, so it checks the bounds by which the search does."""
    rng = np.random.default_rng(seed)
    widths = (25, 9, 9, 14, 3) if seed % 2 else (25, 9, 16, 3)
    network = random_network(widths, seed, spread=1, bias=[int(rng.integers(6, 20)), 0, 0])
    counter = CoefficientCounter(network, 5)
    for x in rng.choice([-1, 1], (4, 25)):
        answer = bit_flip_distance(network, x)
        counts = _Expansion(counter, answer.reference, 5, Clock(None)).counts(x)
        smallest = next((k for k, count in enumerate(counts) if count), None)
        assert smallest == (answer.upper if answer.upper <= 5 else None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_integer_inputs_flip_the_largest_first(data):
    n, m = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    domain = InputDomain.integers([-3] * n, [5] * n)
    blocks = [data.draw(strategies.dense_blocks(n, m, masked=True))]
    blocks[0] = DenseBlock.create(
        blocks[0].weights,
        data.draw(st.lists(st.integers(-9, 9), min_size=m, max_size=m)),
        mask=blocks[0].weights != 0,
    )
    if data.draw(st.booleans()):
        blocks.append(data.draw(strategies.dense_blocks(m, 2)))
        m = 2
    network = BinaryNetwork(domain, tuple(blocks), data.draw(strategies.output_blocks(m, 2)))
    x = data.draw(st.lists(st.integers(-3, 5), min_size=n, max_size=n))
    assert_is_the_least(network, x, None)


@settings(max_examples=25, deadline=None)
@given(cases(max_cells=11, kind=strategies.conv_networks, max_inputs=6, max_outputs=12))
def test_convolutions_get_a_bracket_around_the_smallest_flip_set(case):
    network, x, label = case
    answer = bit_flip_distance(network, x, label)
    least = least_flips(network, x, answer.reference)
    assert answer.lower <= (network.n_cells + 1 if least is None else least)
    if answer.upper is not None:
        assert least <= answer.upper == len(answer.witness)
        assert class_with_flips(network, x, answer.witness) == answer.predicted != answer.reference
    if answer.kind is Kind.EXACT:
        assert least == answer.upper
    else:
        assert answer.lower == 2 and "convolutions" in answer.run.reason


def test_a_search_through_several_hidden_blocks_agrees_with_permuted_neurons():
    network = random_network((20, 12, 12, 12, 4), seed=3)
    rng = np.random.default_rng(0)
    order = [rng.permutation(12) for _ in range(3)]
    first, second, third = network.blocks
    shuffled = BinaryNetwork(
        network.domain,
        (
            DenseBlock.create(first.weights[order[0]], first.thresholds[order[0]]),
            DenseBlock.create(second.weights[order[1]][:, order[0]], second.thresholds[order[1]]),
            DenseBlock.create(third.weights[order[2]][:, order[1]], third.thresholds[order[2]]),
        ),
        OutputBlock.create(network.output.weights[:, order[2]]),
    )
    images = rng.choice([-1, 1], (12, 20))
    here, there = flip_distances(network, images), flip_distances(shuffled, images)
    assert [d.upper for d in here.per_image] == [d.upper for d in there.per_image]
    assert all(d.kind is Kind.EXACT for d in here.per_image) and here.run.engine == "flip-search"


def test_a_repeated_block_that_copies_signs_only_lets_flips_be_cheaper():
    flat = random_network((9, 7, 3), seed=5)
    copy = DenseBlock.create(np.ones((7, 7)), np.zeros(7, dtype=int), mask=np.eye(7, dtype=bool))
    deep = BinaryNetwork(flat.domain, (*flat.blocks, copy), flat.output)
    images = np.random.default_rng(1).choice([-1, 1], (20, 9))
    pairs = zip(flip_distances(deep, images).per_image, flip_distances(flat, images).per_image, strict=True)
    assert all(d.upper <= f.upper for d, f in pairs)


def test_verdicts_and_shares_follow_the_distances():
    network = random_network((16, 12, 4), seed=1)
    rng = np.random.default_rng(2)
    images, labels = rng.choice([-1, 1], (40, 16)), rng.integers(0, 4, 40).tolist()
    answers = flip_distances(network, images, labels, jobs=2)
    distances = [d.upper for d in answers.per_image]
    assert [d == 0 for d in distances] == [network.evaluate(x) != y for x, y in zip(images, labels, strict=True)]
    assert answers.minimum == (0, 0) and sum(answers.histogram.values()) == 40
    for k in range(4):
        share = worst_case_accuracy(network, images, labels, k)
        assert share.kind is Kind.EXACT and share.lower == Fraction(sum(d > k for d in distances), 40)
    changed = flip_distances(network, images)
    assert all(d.lower >= 1 for d in changed.per_image)  # without labels: change, not error
    for x, distance in zip(images[:6], changed.per_image, strict=False):
        for k in range(4):
            answer = robust_to_flips(network, x, k)
            assert answer.verdict is (Verdict.ROBUST if distance.upper > k else Verdict.NOT_ROBUST)
            assert answer.to_json()["evidence"]["lower"] >= 1


def far_image():
    """A network with three hidden blocks, an image whose class takes several flips to change, and the distance."""
    network = random_network((40, 24, 24, 24, 3), seed=2, bias=[24, 0, 0])
    images = np.random.default_rng(0).choice([-1, 1], (20, 40))
    distances = [d.upper for d in flip_distances(network, images, jobs=2).per_image]
    return network, images[int(np.argmax(distances))], max(distances)


def test_a_search_that_is_stopped_gives_a_bracket_with_a_witness(monkeypatch):
    network, x, distance = far_image()
    monkeypatch.setattr(flipplan, "_VISITS", 1)
    cut = bit_flip_distance(network, x, monitor=Monitor(stop=True))
    assert distance >= 3 and cut.kind is Kind.INTERVAL and cut.run.reason == "interrupted"
    assert 1 <= cut.lower <= distance <= cut.upper == len(cut.witness)
    timed = bit_flip_distance(network, x, limits=Limits(seconds=1e-9))
    assert timed.kind is Kind.INTERVAL and "time limit" in timed.run.reason
    for k, verdict in ((0, Verdict.ROBUST), (distance - 1, Verdict.UNKNOWN), (50, Verdict.NOT_ROBUST)):
        assert robust_to_flips(network, x, k, limits=Limits(seconds=1e-9)).verdict is verdict
    share = flip_distances(network, [x, x], limits=Limits(seconds=1e-9)).withstand(distance - 1)
    assert share.kind is Kind.INTERVAL and (share.lower, share.upper) == (0, 1)


def test_the_search_ends_once_enough_flips_are_withstood():
    network, x, distance = far_image()
    early = bit_flip_distance(network, x, max_flips=distance - 2)
    assert early.lower == distance - 1 and early.withstands(distance - 2) is Verdict.ROBUST
    assert "as asked" in early.run.reason


def test_a_class_that_no_flips_change_is_known_as_such():
    output = OutputBlock.create([[1], [1]], bias=[5, 0])
    answer = bit_flip_distance(BinaryNetwork(InputDomain.binary(1), (), output), [1])
    assert answer.kind is Kind.EXACT and (answer.lower, answer.upper, answer.witness) == (3, None, None)
    assert answer.withstands(2) is Verdict.ROBUST


def test_wrong_questions_are_refused():
    network = random_network((3, 2, 2), seed=0)
    with pytest.raises(QueryError, match="class 2 does not exist"):
        bit_flip_distance(network, [1, 1, 1], 2)
    with pytest.raises(QueryError, match="expected at least 0"):
        robust_to_flips(network, [1, 1, 1], -1)
    with pytest.raises(QueryError, match="1 images came with 2 labels"):
        flip_distances(network, [[1, 1, 1]], [0, 1])
    with pytest.raises(ModelError, match="expected -1 or \\+1"):
        bit_flip_distance(network, [1, 0, 1])
    integers = BinaryNetwork(InputDomain.integers([0], [9]), (), OutputBlock.create([[1], [-1]]))
    with pytest.raises(UnsupportedError, match="no hidden block"):
        bit_flip_distance(integers, [3])


@pytest.mark.parametrize("cell", [(3, 0, 0), (0, 5, 0), (0, 0, 9), (0, 0, 1), (-1, 0, 0)])
def test_cells_that_do_not_exist_are_not_flipped(cell):
    block = DenseBlock.create([[1, 1], [1, 1]], [0, 0], mask=np.array([[True, False], [True, True]]))
    network = BinaryNetwork(InputDomain.binary(2), (block,), OutputBlock.create([[1, 1], [-1, 1]]))
    with pytest.raises(QueryError, match="masked out, does not exist"):
        class_with_flips(network, [1, 1], [cell])
    with pytest.raises(QueryError, match="named twice"):
        class_with_flips(network, [1, 1], [(0, 0, 0), (0, 0, 0)])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_class_with_flips_is_that_of_the_definition(data):
    kind = data.draw(st.sampled_from([strategies.networks, strategies.conv_networks]))
    network = data.draw(kind())
    x = data.draw(strategies.inputs(network.n_inputs))
    cells = oracle.cells(network)
    flips = data.draw(st.lists(st.sampled_from(cells), unique=True, max_size=5)) if cells else []
    expected = oracle.predicted(network, x, oracle.flipped_weights(network, flips))
    assert class_with_flips(network, x, [cell[:3] for cell in flips]) == expected


def test_shared_cells_of_a_convolution_flip_everywhere():
    block = ConvBlock.create([[[[1]]]], [1], input_shape=(1, 1, 3))
    network = BinaryNetwork(InputDomain.binary(3), (block,), OutputBlock.create([[1, 1, 1], [-1, -1, -1]]))
    answer = bit_flip_distance(network, [1, 1, 1])
    assert (answer.lower, answer.upper, answer.witness) == (1, 1, ((0, 0, 0),))


def test_the_report_says_what_the_distances_are():
    network = random_network((16, 12, 4), seed=1)
    rng = np.random.default_rng(2)
    images, labels = rng.choice([-1, 1], (30, 16)), rng.integers(0, 4, 30).tolist()
    found = flip_distances(network, images, labels)
    report = worst_case_report(network, images, labels, indices=range(100, 130))
    assert not report.is_partial and report.answer["upper"] == [d.upper for d in found.per_image]
    assert report.answer["withstand"]["1"]["lower"] == str(found.withstand(1).lower)
    weakest = report.answer["weakest"]
    assert weakest["upper"] == min(d.upper for d in found.per_image if d.upper) and weakest["index"] >= 100
    assert f"weakest right image: {weakest['index']}, {weakest['upper']} flip" in "\n".join(report.text)
    only = worst_case_report(network, images, labels, flips=2)
    assert list(only.answer["withstand"]) == ["2"] and not only.is_partial


def test_the_report_says_what_a_limit_left_open():
    network, x, distance = far_image()
    report = worst_case_report(network, [x], [network.evaluate(x)], flips=distance - 1, seconds=1e-9)
    assert report.is_partial and "time limit" in report.text[-1] and "(interval)" in "".join(report.text)
