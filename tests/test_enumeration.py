"""Enumeration by bit-sliced tails: every way through it gives the counts of the definition."""

import math
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.engines import enumeration, visits
from bnnverify.engines.base import Clock, Limits, Monitor
from bnnverify.engines.enumeration import EnumerationEngine
from bnnverify.engines.plan import is_plannable
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
from bnnverify.results import Kind, Verdict
from tests import oracle
from tests.strategies import dense_blocks, regions, sign_matrices, signs

WAYS = [EnumerationEngine(), EnumerationEngine(prune=False)]


@st.composite
def served_queries(draw, max_inputs=7, max_width=6, kinds=regions):
    """Dense networks whose classes share a scale up to its sign, with biases that tie often."""
    width = n = draw(st.integers(1, max_inputs))
    masked, blocks = draw(st.booleans()), []
    for _ in range(draw(st.integers(1, 3))):
        m = draw(st.integers(1, max_width))
        block = draw(dense_blocks(width, m, masked))
        if draw(st.booleans()):  # thresholds in the middle: few neurons are settled
            block = DenseBlock.create(block.weights, block.thresholds // 3, mask=block.weights != 0)
        blocks.append(block)
        width = m
    classes = draw(st.integers(2, 5))
    weights, mask = draw(sign_matrices(classes, width, masked))
    unit = draw(st.sampled_from([1, 3, 0.1]))
    scale = [unit * draw(signs) for _ in range(classes)]
    steps = draw(st.sampled_from([[0], [0, 2], [-1, 0, 1], [-1.5, 0, 0.5, 7]]))
    bias = [unit * draw(st.sampled_from(steps)) for _ in range(classes)]
    output = OutputBlock.create(weights, scale=scale, bias=bias, mask=mask)
    network = BinaryNetwork(InputDomain.binary(n), tuple(blocks), output)
    klass = draw(st.integers(0, classes - 1))
    prop = draw(st.sampled_from([Untargeted(klass), Targeted(klass)]))
    return Query(network, draw(kinds(n)), prop, draw(st.sampled_from(list(Ties))))


def differing(x, y):
    return sum(a != b for a, b in zip(x, y, strict=True))


def definition(query):
    """Inputs of the region by class, adversarial inputs by distance from the centre, in plain loops."""
    classes, shells = [0] * query.network.n_classes, [0] * (query.network.n_inputs + 1)
    for x in query.region.points():
        classes[oracle.predicted(query.network, x)] += 1
        shells[differing(x, query.region.center)] += oracle.is_adversarial(query, x)
    return classes, shells


def visited(query):
    """The same, input by input on the integer network: for sizes at which the definition is slow."""
    walk = visits.visit(query, Limits(), Clock(None), stop_at_first=False)
    return walk.per_class.tolist(), walk.per_radius or [walk.adversarial]


def agrees(count, query, expected):
    classes, shells = expected
    assert count.kind is Kind.EXACT and count.run.reason == ""
    assert count.adversarial == sum(shells) and list(count.per_class) == classes
    if isinstance(query.region, HammingBall):
        assert list(count.per_radius) == shells[: query.region.radius + 1]
        assert not any(shells[query.region.radius + 1 :])
    else:
        assert count.per_radius is None


def wide_network(seed, *widths, masked=False, bias=None, span=3):
    """Random weights, thresholds near the middle, scales of either sign."""
    generator = np.random.default_rng(seed)

    def mask(*shape):
        return generator.random(shape) < (0.7 if masked else 2)

    blocks = [
        DenseBlock.create(generator.choice([-1, 1], (m, n)), generator.integers(-span, span + 1, m), mask=mask(m, n))
        for n, m in pairwise(widths[:-1])
    ]
    output = OutputBlock.create(
        generator.choice([-1, 1], (widths[-1], widths[-2])),
        scale=[float(s) for s in generator.choice([-1, 1], widths[-1])],
        bias=generator.integers(-4, 5, widths[-1]).tolist() if bias is None else bias,
        mask=mask(widths[-1], widths[-2]),
    )
    return BinaryNetwork(InputDomain.binary(widths[0]), tuple(blocks), output)


WIDE = {
    "one block of three words": (11, 140, 6),
    "one block, two classes": (12, 130, 2),
    "65 neurons": (10, 65, 3),
    "deep": (10, 70, 66, 4),
    "general counters in a later block": (9, 140, 20, 3),
    "four blocks": (10, 40, 68, 12, 67, 5),
    "many classes": (9, 66, 23),
    "wider at the end": (9, 12, 138, 4),
}


def wide_queries(name, masked):
    """A cube, a part of it and a ball, with another tie rule and property each time."""
    widths = WIDE[name]
    seed, n = len(name) + 100 * masked, widths[0]
    network = wide_network(seed, *widths, masked=masked)
    center = tuple(np.random.default_rng(seed).choice([-1, 1], n).tolist())
    label = network.evaluate(center)
    yield Query(network, whole_cube(n), Untargeted(label))
    yield Query(network, HammingBall(center, n - 2), Targeted((label + 1) % network.n_classes), Ties.COUNTEREXAMPLE)
    yield Query(network, HammingBall(center, 3, range(1, n)), Untargeted(label), Ties.ROBUST)
    yield Query(network, FixedIndexRegion(center, range(2, n)), Targeted(label), Ties.ROBUST)


@pytest.mark.parametrize("engine", WAYS, ids=repr)
def test_every_served_query_gets_the_definitions_counts(engine):
    @settings(max_examples=100)
    @given(served_queries())
    def check(query):
        assert is_plannable(query.network)
        agrees(engine.count(query, limits=Limits(threads=1)), query, definition(query))

    check()


@pytest.mark.parametrize("threads", [1, 2])
def test_small_pieces_and_tails_of_every_length_change_nothing(threads, monkeypatch):
    monkeypatch.setattr(enumeration, "_LEAF", 1.0)  # so that threads are worth it

    @settings(max_examples=60 if threads == 1 else 12)
    @given(served_queries(), st.integers(0, 5), st.sampled_from([1, 2, 5, 20]), st.booleans())
    def check(query, tail, largest, prune):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(enumeration._Enumeration, "_largest", lambda *_: largest)
            is_ball = isinstance(query.region, HammingBall)
            patch.setattr(
                enumeration._Walker, "best_tail", lambda _, flips: min(flips, max(tail, 1) if is_ball else tail)
            )
            engine, limits, expected = EnumerationEngine(prune=prune), Limits(threads=threads), definition(query)
            agrees(engine.count(query, limits=limits), query, expected)
            decision = engine.decide(query, limits=limits)
            shells = expected[1]
            assert decision.verdict is (Verdict.NOT_ROBUST if any(shells) else Verdict.ROBUST)
            if any(shells):
                assert oracle.is_adversarial(query, decision.counterexample)
                assert decision.predicted == oracle.predicted(query.network, decision.counterexample)
                distance = differing(decision.counterexample, query.region.center)
                assert not is_ball or distance == next(r for r, count in enumerate(shells) if count)

    check()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", WIDE)
def test_wide_networks_get_the_counts_of_a_visit_to_every_input(name, masked, monkeypatch):
    monkeypatch.setattr(enumeration, "_PIECE", 1e-9)  # several pieces, and threads
    monkeypatch.setattr(enumeration, "_LEAF", 1e-3)
    for query in wide_queries(name, masked):
        expected = visited(query)
        for engine in WAYS:
            agrees(engine.count(query, limits=Limits(threads=2)), query, expected)


@pytest.mark.parametrize("spread", [1, 40, 600, 5000])
def test_classes_far_behind_are_counted_even_where_nothing_is_pruned(spread):
    # wrote past the end of the work space: one neuron is open, but the score of the others is far away
    generator = np.random.default_rng(0)
    block = DenseBlock.create(generator.choice([-1, 1], (140, 9)), [0] + [10] * 139)
    output = OutputBlock.create(generator.choice([-1, 1], (5, 140)), bias=[0, -spread, -spread, -spread + 1, -spread])
    query = Query(BinaryNetwork(InputDomain.binary(9), (block,), output), whole_cube(9), Untargeted(0))
    for engine in WAYS:
        agrees(engine.count(query), query, visited(query))


# At sizes without a definition


@pytest.fixture(scope="module")
def large():
    network = wide_network(3, 30, 20, 5)
    return Query(network, HammingBall(tuple([1, -1, 1] * 10), 5), Untargeted(0))


def test_the_shells_of_a_class_and_of_all_others_are_binomials(large):
    others = EnumerationEngine().count(large)
    mine = EnumerationEngine().count(replace(large, property=Targeted(0)))
    shells = [a + b for a, b in zip(mine.per_radius, others.per_radius, strict=True)]
    assert shells == [math.comb(30, r) for r in range(6)]
    assert sum(others.per_class) == large.region.size() and others.adversarial == sum(others.per_class[1:])
    smaller = EnumerationEngine().count(replace(large, region=replace_radius(large.region, 3)))
    assert smaller.per_radius == others.per_radius[:4]


def replace_radius(ball, radius):
    return HammingBall(ball.center, radius, ball.free)


def permuted(query, inputs=None, neurons=None, classes=None):
    """The same question with inputs, neurons of the first block and classes in another order."""
    network, (block, *rest) = query.network, query.network.blocks
    n, m, k = network.widths[0], network.widths[1], network.n_classes
    inputs, neurons, classes = (
        np.arange(size) if order is None else order for order, size in ((inputs, n), (neurons, m), (classes, k))
    )
    mask = block.weights != 0
    first = DenseBlock.create(
        block.weights[neurons][:, inputs], block.thresholds[neurons], mask=mask[neurons][:, inputs]
    )
    assert not rest
    output = network.output
    last = OutputBlock.create(
        output.weights[classes][:, neurons],
        scale=[output.scale[c] for c in classes],
        bias=[output.bias[c] for c in classes],
        mask=output.weights[classes][:, neurons] != 0,
    )
    center = tuple(query.region.center[i] for i in inputs)
    assert len(query.region.free) == n
    region = (
        HammingBall(center, query.region.radius)
        if isinstance(query.region, HammingBall)
        else FixedIndexRegion(center, range(n))
    )
    label = list(classes).index(query.property.label)
    return Query(BinaryNetwork(network.domain, (first,), last), region, Untargeted(label), query.ties)


def permutations_change_nothing(engine, query):
    generator = np.random.default_rng(8)
    n, m, k = (generator.permutation(size) for size in query.network.widths)
    count = engine.count(query)
    for other in (permuted(query, inputs=n), permuted(query, neurons=m)):
        again = engine.count(other)
        assert (again.per_class, again.per_radius) == (count.per_class, count.per_radius)
    for ties in (Ties.COUNTEREXAMPLE, Ties.ROBUST):
        here = replace(query, ties=ties)
        one, two = engine.count(here), engine.count(permuted(here, classes=k))
        assert (one.adversarial, one.per_radius) == (two.adversarial, two.per_radius)


def test_the_order_of_inputs_neurons_and_classes_changes_nothing(large):
    permutations_change_nothing(EnumerationEngine(), replace(large, region=replace_radius(large.region, 4)))


def test_the_ball_of_all_flips_is_the_cube():
    network = wide_network(5, 16, 30, 14, 4)
    ball = EnumerationEngine().count(Query(network, HammingBall((1,) * 16, 16), Untargeted(2)))
    cube = EnumerationEngine().count(Query(network, whole_cube(16), Untargeted(2)))
    assert ball.per_class == cube.per_class and ball.adversarial == cube.adversarial


def test_subtrees_beyond_2_to_the_64_are_closed_with_exact_binomials():
    # a neuron that fires unless 39 or 40 of the last 41 inputs are flipped, and no others
    n, falling, radius = 100, 41, 40
    block = DenseBlock.create([[-1] * (n - falling) + [1] * falling], [2 * falling - n - 2 * 38])
    network = BinaryNetwork(InputDomain.binary(n), (block,), OutputBlock.create([[1], [-1]]))
    query = Query(network, HammingBall((1,) * n, radius), Targeted(0))
    count = EnumerationEngine().count(query)
    few = {39: math.comb(falling, 39), 40: math.comb(falling, 40)}
    assert list(count.per_radius) == [math.comb(n, r) - few.get(r, 0) for r in range(radius + 1)]
    assert count.per_class[1] == sum(few.values()) and count.adversarial > 2**64


@pytest.mark.parametrize("threads", [1, 2])
def test_shells_of_many_inputs_are_counted_exactly(threads):
    n = 60
    block = DenseBlock.create([[1] * n] * 2, [n - 4, n - 8])  # fire up to 2 and up to 4 flips
    network = BinaryNetwork(InputDomain.binary(n), (block,), OutputBlock.create([[1, 1], [-1, 1]], bias=[0, 1]))
    count = EnumerationEngine().count(
        Query(network, HammingBall((1,) * n, 5), Untargeted(0)), limits=Limits(threads=threads)
    )
    assert list(count.per_radius) == [0] * 3 + [math.comb(n, r) for r in range(3, 6)]


# Partial answers


def told_and_counted(engine, query, **options):
    """What a monitor hears, with the count; the work stops after the given report."""
    stop_after, told = options.pop("stop_after", None), []
    monitor = Monitor(reason="enough")

    def show(lower, upper, size):
        told.append((lower, upper, size))
        monitor.stop = stop_after is not None and len(told) >= stop_after

    monitor.show = show
    return told, engine.count(query, monitor=monitor, **options)


def bounds_hold(told, truth):
    assert all(lower <= truth.adversarial <= upper for lower, upper, _ in told)
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in pairwise(told))
    assert all(size == truth.region_size for _, _, size in told)


@pytest.fixture
def slow(monkeypatch):
    """A question in many small pieces, and its answer."""
    monkeypatch.setattr(enumeration, "_PIECE", 1e-9)
    query = Query(wide_network(4, 16, 30, 4), whole_cube(16), Untargeted(1))
    return query, EnumerationEngine(prune=False).count(query)


@pytest.mark.parametrize("ties", Ties)
@pytest.mark.parametrize("threads", [1, 2])
def test_reports_close_in_on_the_count_and_a_monitor_stops_it(slow, threads, ties, monkeypatch):
    monkeypatch.setattr(enumeration, "_LEAF", 1.0 if threads == 2 else enumeration._LEAF)
    query, engine, limits = replace(slow[0], ties=ties), EnumerationEngine(), Limits(threads=threads)
    truth = engine.count(query)
    told, count = told_and_counted(engine, query, limits=limits)
    bounds_hold(told, truth)
    assert count.adversarial == truth.adversarial and len(told) > 20
    assert told[-1] == (truth.adversarial, truth.adversarial, truth.region_size)
    told, count = told_and_counted(engine, query, limits=limits, stop_after=3)
    bounds_hold(told, truth)
    assert count.kind is Kind.INTERVAL and count.run.reason == "enough" and count.per_class is None
    assert (count.lower, count.upper) == told[-1][:2] and 0 < count.upper - count.lower < truth.region_size


@pytest.mark.parametrize("threads", [1, 2])
def test_a_limit_on_inputs_is_kept_to_within_a_piece(slow, threads):
    query, truth = slow
    for nodes in (1, 1000, 20_000):
        count = EnumerationEngine().count(query, limits=Limits(nodes=nodes, threads=threads))
        assert count.kind is Kind.INTERVAL and count.run.reason == f"limit of {nodes} inputs reached"
        assert count.lower <= truth.adversarial <= count.upper
        settled = count.region_size - (count.upper - count.lower)
        assert nodes <= settled <= 2 * nodes + 512 and count.run.statistics["inputs_visited"] == settled
    ball = replace(query, region=HammingBall((1,) * 16, 8))
    count = EnumerationEngine().count(ball, limits=Limits(nodes=1, threads=threads))
    assert count.run.statistics["radius_proved"] in (-1, 0)


def test_the_time_limit_leaves_bounds(slow):
    query, truth = slow
    count = EnumerationEngine().count(query, limits=Limits(seconds=1e-9))
    assert count.kind is Kind.INTERVAL and count.run.reason == "time limit of 1e-09 s reached"
    assert count.lower <= truth.adversarial <= count.upper
    decision = EnumerationEngine(prune=False).decide(query, limits=Limits(seconds=1e-9))
    assert decision.verdict is Verdict.UNKNOWN and decision.run.reason == "time limit of 1e-09 s reached"


def test_counterexamples_are_nearest_ones(large):
    for seed in range(12):
        network = wide_network(seed, 18, 12, 3)
        center = tuple(np.random.default_rng(seed).choice([-1, 1], 18).tolist())
        query = Query(network, HammingBall(center, 6), Untargeted(network.evaluate(center)))
        shells = EnumerationEngine().count(query).per_radius
        decision = EnumerationEngine().decide(query)
        if any(shells):
            nearest = next(r for r, count in enumerate(shells) if count)
            assert differing(decision.counterexample, center) == nearest
        else:
            assert decision.verdict is Verdict.ROBUST


def test_the_last_subset_of_a_shell_can_be_the_only_counterexample():
    n = 12
    for flips in (1, 2, 3, 4):
        for chosen in (tuple(range(flips)), tuple(range(n - flips, n)), *list(combinations(range(n), flips))[5::37]):
            weights = [[-1 if i in chosen else 1 for i in range(n)]]
            network = BinaryNetwork(
                InputDomain.binary(n), (DenseBlock.create(weights, [n]),), OutputBlock.create([[-1], [1]])
            )
            query = Query(network, HammingBall((1,) * n, flips), Untargeted(0))
            assert EnumerationEngine().count(query).per_radius == (0,) * flips + (1,)
            found = EnumerationEngine().decide(query).counterexample
            assert found == tuple(weights[0])


def first_inputs_decide(n, k):
    """Class 0 iff the sum of the first k of n inputs is at least 1, over the whole cube around (1, ..., 1)."""
    block = DenseBlock.create([[1] * n], [1], mask=[[i < k for i in range(n)]])
    network = BinaryNetwork(InputDomain.binary(n), (block,), OutputBlock.create([[1], [-1]]))
    return Query(network, FixedIndexRegion((1,) * n, range(n)), Untargeted(0))


def test_an_adversarial_part_that_bounds_settle_before_any_piece_is_found():
    query = first_inputs_decide(60, 7)
    expected = sum(math.comb(7, flips) for flips in range(4, 8)) << 53
    assert EnumerationEngine().count(query).adversarial == expected
    for threads in (1, 2):
        assert EnumerationEngine().decide(query, limits=Limits(threads=threads)).verdict is Verdict.NOT_ROBUST


def test_a_wish_to_stop_is_heard_while_bounds_settle_everything():
    count = EnumerationEngine().count(first_inputs_decide(60, 14), monitor=Monitor(stop=True, reason="enough"))
    assert count.kind is Kind.INTERVAL and count.run.reason == "enough"
