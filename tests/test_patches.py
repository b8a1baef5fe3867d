"""Patch bounds: never below what an input reaches, never a wrong proof, and evidence that stands and falls rightly."""

import copy
import json
import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bnnverify.certificates import certify
from bnnverify.checking.bounds import block_bounds
from bnnverify.checking.certificate import check_certificate
from bnnverify.checking.patches import _possible, check_patches
from bnnverify.convolution import ConvBlock
from bnnverify.deciding.intervals import excesses, interval_bounds
from bnnverify.deciding.jointly import JointSigns
from bnnverify.deciding.patches import UNIT, patch_bounds
from bnnverify.deciding.receptive import patches_of
from bnnverify.deciding.splitting import Cluster, Splitting
from bnnverify.engines.base import Limits, Monitor
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import PixelBox, RealBox
from tests import oracle
from tests.strategies import conv_networks, networks, pixel_queries, queries

questions = st.one_of(
    queries(networks, max_inputs=6),
    queries(conv_networks, max_inputs=8),
    pixel_queries(networks, max_inputs=5),
    pixel_queries(conv_networks, max_inputs=8),
)


def two_convolutions(seed=0, filters=3, side=7, classes=3, bias=0, pool=1):
    """Pixels, two convolutions and scores, at random."""
    random = np.random.default_rng(seed)
    first = ConvBlock.create(random.choice([-1, 1], (filters, 1, 3, 3)), [0] * filters, input_shape=(1, side, side))
    shape = first.output_shape
    second = ConvBlock.create(
        random.choice([-1, 1], (4, filters, 2, 2)), random.integers(-2, 3, 4), input_shape=shape, pool=pool
    )
    output = OutputBlock.create(random.choice([-1, 1], (classes, second.n_outputs)), bias=[bias] + [0] * (classes - 1))
    network = BinaryNetwork(InputDomain.integers([0] * side**2, [255] * side**2), (first, second), output)
    return network, random.integers(0, 256, side**2)


def difference(query, x, i, j):
    """score i - score j in units of the integer form."""
    scales, biases = query.network.output.integer_form()
    h = (oracle.hidden_layers(query.network, x) or [list(x)])[-1]
    sums = [sum(w * v for w, v in zip(query.network.output.weights[k].tolist(), h, strict=True)) for k in (i, j)]
    return scales[i] * sums[0] + biases[i] - scales[j] * sums[1] - biases[j]


@given(questions, st.integers(1, 6), st.integers(1, 4), st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_input_reaches_beyond_a_patch_bound(query, most_bits, order, every):
    found = patch_bounds(query, most_bits=most_bits, order=order, every=every)
    points = list(query.region.points())
    for (i, j, _), most in zip(query.score_conditions()[0], found.excess, strict=True):
        assert max(difference(query, x, i, j) for x in points) <= most
    plain = excesses(query, interval_bounds(query.network, query.region))
    assert all(a <= b for a, b in zip(found.excess, plain, strict=True))
    if found.is_robust:
        assert not any(oracle.is_adversarial(query, x) for x in points)


@given(questions, st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_evidence_of_a_proof_passes_the_check(query, most_bits, order):
    found = patch_bounds(query, most_bits=most_bits, order=order)
    assume(found.is_robust and len(query.network.blocks) > 1)
    evidence = json.loads(json.dumps(found.evidence()))
    assert check_patches(query, evidence) == ""
    assert evidence["unit"] == UNIT


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_enough_bits_give_the_exact_maximum_over_independent_bits(seed, pool):
    """With all bits in one patch nothing is lost but which signs of the first block occur together."""
    network, center = two_convolutions(seed, filters=2, side=5, pool=pool)
    for radius in range(5, 100, 5):
        query = Query(network, PixelBox.linf(center, radius, network.domain), Untargeted(0))
        bounds = interval_bounds(network, query.region)
        bits = np.flatnonzero(bounds.blocks[0].signs == 0)
        if len(bits) >= 4:
            break
    assert 4 <= len(bits) <= 12
    most = patch_bounds(query, most_bits=len(bits), order=1, every=True).excess
    best = {}
    for values in product((-1, 1), repeat=len(bits)):
        signs = bounds.blocks[0].signs.astype(np.int64)
        signs[bits] = values
        sums = network.output.popcounts(network.blocks[1].outputs(signs))
        scales, biases = network.output.integer_form()
        scores = [a * int(s) + b for a, s, b in zip(scales, sums, biases, strict=True)]
        for i, j, _ in query.score_conditions()[0]:
            best[i, j] = max(best.get((i, j), -(10**9)), scores[i] - scores[j])
    for (i, j, strict), bound in zip(query.score_conditions()[0], most, strict=True):
        assert bound == best[i, j] or bound < strict  # joining stops once the comparison is excluded


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_splitting_keeps_the_sum_and_only_lowers_the_bound(data):
    clusters, raw = [], []
    for f in range(data.draw(st.integers(1, 4))):
        bits = np.array(sorted(data.draw(st.sets(st.integers(0, 5), max_size=3))), dtype=np.int64)
        entries = st.lists(st.integers(-50, 50), min_size=1 << len(bits), max_size=1 << len(bits))
        table = np.array(data.draw(entries), dtype=np.int64)
        raw.append((bits, table.copy()))
        clusters.append(Cluster(np.array([f]), bits, table, np.zeros(len(bits), dtype=np.int64)))
    splitting = Splitting(clusters)

    def value(parts, x):
        return sum(int(t[sum(x[b] << i for i, b in enumerate(bits.tolist()))]) for bits, t in parts)

    cube = list(product((0, 1), repeat=6))
    exact, bound = max(value(raw, x) for x in cube), splitting.bound
    for step in data.draw(st.lists(st.sampled_from(["sweep", "join"]), max_size=5)):
        gain = splitting.join(5) if step == "join" else splitting.sweep() or 0
        assert exact <= splitting.bound <= bound - gain
        bound = splitting.bound
        now = [(c.bits, c.table) for c in splitting.clusters]
        assert all(value(now, x) == value(raw, x) for x in cube)
        assert sorted(o for c in splitting.clusters for o in c.outputs.tolist()) == list(range(len(raw)))
        shares = {}
        for c in splitting.clusters:
            for b, m in zip(c.bits.tolist(), c.multipliers.tolist(), strict=True):
                shares[b] = shares.get(b, 0) + m
        assert not any(shares.values())


@given(queries(conv_networks, max_inputs=10), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_every_unstable_output_is_in_one_patch_of_few_bits(query, most):
    assume(len(query.network.blocks) > 1)
    bounds = interval_bounds(query.network, query.region)
    patches = patches_of(query.network.blocks[-1], bounds.blocks[-1], bounds.blocks[-2].signs, most)
    outputs = sorted(o for p in patches for o in p.outputs.tolist())
    assert outputs == np.flatnonzero(bounds.blocks[-1].signs == 0).tolist()
    assert all(len(p.bits) <= most and (bounds.blocks[-2].signs[p.bits] == 0).all() for p in patches)


@given(questions, st.integers(2, 4), st.data())
@settings(max_examples=100, deadline=None)
def test_no_input_has_signs_that_are_excluded(query, order, data):
    network = query.network
    assume(len(network.blocks) > 1)
    bounds = interval_bounds(network, query.region)
    bits = np.flatnonzero(bounds.blocks[-2].signs == 0)
    bits = np.array(data.draw(st.lists(st.sampled_from(bits.tolist()), max_size=6, unique=True)) if len(bits) else [])
    bits = np.sort(bits).astype(np.int64)
    excluded = JointSigns(bounds, order).excluded(bits)
    for x in query.region.points():
        signs = np.array(oracle.hidden_layers(network, x)[-2])[bits]
        assert not excluded[int(((signs > 0) << np.arange(len(bits))).sum())]
    possible = _possible(query, block_bounds(query), bits.tolist(), order, assignments(len(bits)))
    assert (possible == ~excluded).all()  # the checker comes to the same


def assignments(bits):
    return 2 * (np.arange(1 << bits)[:, None] >> np.arange(bits) & 1) - 1


def two_filters(limits, region):
    """A query whose two first-block outputs are ``x + y >= limits[0]`` and ``x - y >= limits[1]``."""
    first = ConvBlock.create([[[[1, 1]]], [[[1, -1]]]], limits, input_shape=(1, 1, 2))
    second = ConvBlock.create([[[[1]], [[1]]]], [0], input_shape=(2, 1, 1))
    network = BinaryNetwork(InputDomain.integers([0, 0], [9, 9]), (first, second), OutputBlock.create([[1], [-1]]))
    return Query(network, region, Untargeted(0))


@pytest.mark.parametrize(
    ("limits", "region", "excluded"),
    [
        # together 2 x >= 10, but x is at most 4
        ([6, 4], PixelBox((0, 0), (4, 4)), [False, False, False, True]),
        ([5, 3], PixelBox((0, 0), (4, 4)), [False, False, False, False]),
        # x + y < 3 and x - y < -1 leave 2 x < 1
        ([3, -1], PixelBox((1, 0), (4, 4)), [True, False, False, False]),
        # over reals +1 says more than T - 1 only: 2 x > 8 cannot be, 2 x > 7 can
        ([6, 4], RealBox((0, 0), (4, 4)), [False, False, False, True]),
        ([6, 3], RealBox((0, 0), (4, 4)), [False, False, False, False]),
        ([6, 3], PixelBox((0, 0), (4, 4)), [False, False, False, True]),
        # ends between integers are left alone
        ([6, 4], RealBox((0, 0), ("4.5", 4)), [False, False, False, False]),
    ],
)
def test_inequalities_are_added_up(limits, region, excluded):
    query = two_filters(limits, region)
    bounds, bits = interval_bounds(query.network, query.region), np.array([0, 1])
    assert JointSigns(bounds, 2).excluded(bits).tolist() == excluded
    assert JointSigns(bounds, 1).excluded(bits).tolist() == [False] * 4
    possible = _possible(query, block_bounds(query), [0, 1], 2, assignments(2))
    assert possible.tolist() == [not e for e in excluded]


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_padding_counts_in_the_inequalities(pad_value):
    random, found = np.random.default_rng(0), 0
    for _ in range(30):
        first = ConvBlock.create(
            random.choice([-1, 1], (3, 1, 1, 3)),
            random.integers(-1, 3, 3),
            input_shape=(1, 1, 3),
            padding=(0, 2),
            pad_value=pad_value,
        )
        second = ConvBlock.create(np.ones((1, 3, 1, 1)), [0], input_shape=first.output_shape)
        output = OutputBlock.create(random.choice([-1, 1], (2, 5)))
        network = BinaryNetwork(InputDomain.integers([0] * 3, [2] * 3), (first, second), output)
        query = Query(network, PixelBox((0, 0, 0), (2, 1, 2)), Untargeted(0))
        bounds = interval_bounds(network, query.region)
        bits = np.flatnonzero(bounds.blocks[0].signs == 0)[:8]
        excluded = JointSigns(bounds, 3).excluded(bits)
        possible = _possible(query, block_bounds(query), bits.tolist(), 3, assignments(len(bits)))
        assert (possible == ~excluded).all()
        for x in query.region.points():
            signs = np.array(oracle.hidden_layers(network, x)[0])[bits]
            assert not excluded[int(((signs > 0) << np.arange(len(bits))).sum())]
        found += excluded.any()
    assert found > 10


def proved():
    """A query that is proved robust by multipliers and by signs that cannot occur together only, and its evidence."""
    for seed in range(100):
        network, center = two_convolutions(seed, bias=14)
        query = Query(network, PixelBox.linf(center, 12, network.domain), Untargeted(0), Ties.COUNTEREXAMPLE)
        found = patch_bounds(query)
        is_split = any(p.multipliers is not None and p.maxima.size > 2 for p in found.proofs.values())
        if found.is_robust and is_split and not patch_bounds(query, order=1).is_robust:
            return query, json.loads(json.dumps(found.evidence()))
    raise AssertionError("no seed gives such a query")


@pytest.fixture(scope="module")
def example():
    return proved()


def test_the_example_passes(example):
    assert check_patches(*example) == ""


def split_claim(evidence):
    return next(claim for claim in evidence["comparisons"] if claim["multipliers"])


def lowered_maximum(evidence):
    claim = split_claim(evidence)
    claim["maxima"][0] -= 1


def unbalanced(evidence):
    claim = split_claim(evidence)
    at = next(i for i, m in enumerate(claim["multipliers"]) if m)
    claim["multipliers"][at][0] -= 1


def raised_maximum(evidence):
    split_claim(evidence)["maxima"][0] += 10**6


def missing_claim(evidence):
    evidence["comparisons"].pop()


def missing_patches(evidence):
    """Their outputs then count as free."""
    claim = split_claim(evidence)
    evidence["partitions"][claim["partition"]].clear()
    claim["maxima"], claim["multipliers"] = [], []


def repeated_patch(evidence):
    claim = split_claim(evidence)
    patches = evidence["partitions"][claim["partition"]]
    patches.append(patches[0])


def settled_bit(evidence):
    evidence["partitions"][split_claim(evidence)["partition"]][0]["bits"][0] = -1


def float_maximum(evidence):
    split_claim(evidence)["maxima"][0] += 0.0


def no_unit(evidence):
    del evidence["unit"]


def other_unit(evidence):
    evidence["unit"] = 0


def other_order(evidence):
    evidence["order"] = 9


def no_joint_signs(evidence):
    evidence["order"] = 1


def other_region(evidence):
    evidence["query"]["region"]["upper"][0] += 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lowered_maximum, "more than"),
        (unbalanced, "do not add up to 0|more than"),
        (raised_maximum, "which does not exclude it"),
        (missing_claim, "nothing is claimed about score"),
        (missing_patches, "which does not exclude it"),
        (repeated_patch, "an output lies in two patches"),
        (settled_bit, "settled or does not exist"),
        (float_maximum, "not all integers"),
        (no_unit, "the evidence is malformed"),
        (other_unit, "expected a positive integer"),
        (other_order, "expected an integer from 1 to 5"),
        (no_joint_signs, "more than"),
        (other_region, "about another query"),
    ],
)
def test_changed_evidence_does_not_pass(example, change, reason):
    query, evidence = example
    changed = copy.deepcopy(evidence)
    change(changed)
    assert re.search(reason, check_patches(query, changed))


def test_a_real_box_is_proved_with_the_bounds_of_its_grid():
    query, _ = proved()
    real = Query(query.network, RealBox(query.region.lower, query.region.upper), query.property, query.ties)
    found = patch_bounds(real)
    assert found.is_robust and check_patches(real, found.evidence()) == ""


def test_a_proof_by_patches_becomes_a_certificate(example, tmp_path):
    answer = certify(example[0], tmp_path / "proof")
    assert answer.run.statistics["certificate"] == "patches"
    assert check_certificate(tmp_path / "proof", example[0].network).holds


def test_a_limit_leaves_bounds_that_hold_and_says_so():
    network, center = two_convolutions(3, filters=4, side=9)
    query = Query(network, PixelBox.linf(center, 60, network.domain), Targeted(1))
    stopped = patch_bounds(query, monitor=Monitor(stop=True))
    assert not stopped.is_robust and stopped.run.reason == "interrupted"
    assert stopped.excess == tuple(int(e) for e in excesses(query, interval_bounds(network, query.region)))
    with pytest.raises(QueryError, match="there is no evidence"):
        stopped.evidence()
    assert patch_bounds(query, limits=Limits(seconds=1e-9)).run.reason.startswith("time limit")


@pytest.mark.parametrize("wrong", [{"most_bits": 0}, {"most_bits": 21}, {"order": 0}, {"order": 2.0}])
def test_numbers_out_of_range_are_refused(example, wrong):
    with pytest.raises(QueryError, match="expected an integer from 1 to"):
        patch_bounds(example[0], **wrong)


@pytest.mark.parametrize("count", [0, 1])
def test_networks_without_patches_are_certified_by_bounds(tmp_path, count):
    blocks = (DenseBlock.create([[1, 1], [1, -1]], [-9, -9]),)[:count]
    net = BinaryNetwork(InputDomain.integers([1, 1], [3, 3]), blocks, OutputBlock.create([[1, 1], [-1, -1]]))
    query = Query(net, PixelBox((1, 1), (3, 3)), Untargeted(0))
    found = patch_bounds(query)
    assert found.is_robust
    with pytest.raises(QueryError, match=r"fewer than two hidden blocks.*write_certificate\(query, folder\)"):
        found.evidence()
    assert certify(query, tmp_path / "c").run.statistics["certificate"] == "bounds"
    assert check_certificate(tmp_path / "c", net)


@pytest.mark.parametrize("ties", list(Ties))
def test_scores_of_real_inputs_are_not_rounded_down_to_a_proof(ties):
    # the difference of scores is x0, up to 1/2: no integer point is adversarial, and 1/2 is
    net = BinaryNetwork(InputDomain.integers([-1], [1]), (), OutputBlock.create([[1], [1]], scale=[1, 0]))
    query = Query(net, RealBox((Fraction(-1),), (Fraction(1, 2),)), Untargeted(1), ties)
    found = patch_bounds(query)
    assert not found.is_robust and found.excess == (1,)
