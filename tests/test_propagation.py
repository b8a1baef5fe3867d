"""Propagation of merged states: every tail, split, residue and closing gives the same exact counts, beyond 2^64 too."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.engines import propagation
from bnnverify.engines.base import Clock, Limits
from bnnverify.engines.enumeration import EnumerationEngine
from bnnverify.engines.propagation import PropagationEngine, weighted
from bnnverify.engines.residues import Residues
from bnnverify.errors import EngineError, UnsupportedError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
from bnnverify.results import Kind, Verdict
from tests import oracle
from tests.strategies import signs
from tests.test_enumeration import (
    WIDE,
    agrees,
    bounds_hold,
    definition,
    permutations_change_nothing,
    served_queries,
    told_and_counted,
    visited,
    wide_network,
    wide_queries,
)

ENGINE = PropagationEngine()
SMALL_PRIMES = (2, 3, 5, 7, 251, 257)  # everything wraps around
TIGHT = Limits(memory_bytes=1, threads=1)


def force(patch, *, tail=None, closing=None, fewest=None, primes=None):
    """Send propagation a certain way: states finished when `tail` inputs are left, closed in every layer or never."""
    if tail is not None:
        patch.setattr(propagation._Propagation, "_should_finish", lambda self, layer, left, rate: left <= tail)
    if fewest is not None:
        patch.setattr(propagation, "_FEWEST", fewest)
    if primes is not None:
        patch.setattr(Residues, "up_to", lambda greatest: Residues(primes))
    close, advance = propagation._Propagation._close, propagation._Propagation._advance

    def advance_and_close(self, layer, chosen, free):
        layer = advance(self, layer, chosen, free)
        close(self, layer, free)
        return layer

    if closing is not None:
        patch.setattr(propagation._Propagation, "_close", lambda *_: None)
    if closing:
        patch.setattr(propagation._Propagation, "_advance", advance_and_close)


ways = st.fixed_dictionaries(
    {
        "tail": st.sampled_from([None, 0, 1, 2, 3, 5, 16]),
        "closing": st.sampled_from([None, False, True]),
        "fewest": st.sampled_from([None, 1, 4, 16]),
        "primes": st.sampled_from([None, SMALL_PRIMES, (2**31 - 1, 2**31 - 19)]),
    }
)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_served_query_gets_the_definitions_counts_on_every_way(threads):
    @settings(max_examples=80)
    @given(served_queries(), ways)
    def check(query, way):
        with pytest.MonkeyPatch.context() as patch:
            force(patch, **way)
            limits = Limits(memory_bytes=1 if way["fewest"] else None, threads=threads)
            agrees(ENGINE.count(query, limits=limits), query, definition(query))

    check()


@settings(max_examples=40)
@given(served_queries(), st.sampled_from([1, 4, 1 << 20]))
def test_decisions_are_the_definitions(query, small):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(propagation, "_SMALL", small)
        decision = ENGINE.decide(query, limits=Limits(threads=1))
    points = [x for x in query.region.points() if oracle.is_adversarial(query, x)]
    assert decision.verdict is (Verdict.NOT_ROBUST if points else Verdict.ROBUST)
    if points:
        assert decision.counterexample in points
        assert decision.predicted == oracle.predicted(query.network, decision.counterexample)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", WIDE)
def test_wide_networks_get_the_counts_of_a_visit_to_every_input(name, masked):
    for i, query in enumerate(wide_queries(name, masked)):
        expected = visited(query)
        with pytest.MonkeyPatch.context() as patch:
            # the longest tails, none, some with closing, and split layers of residues
            force(patch, **[{"tail": 16}, {"tail": 0}, {"tail": 3, "closing": True}, {"tail": 2, "fewest": 64}][i])
            if i == 3:
                force(patch, primes=(2**31 - 1, 2**31 - 19))
            agrees(ENGINE.count(query, limits=TIGHT if i == 3 else Limits(threads=2)), query, expected)


@pytest.mark.parametrize("way", [{"tail": 0}, {"tail": 4, "closing": True}, {"tail": 1, "fewest": 1000}], ids=str)
@pytest.mark.parametrize("is_ball", [False, True])
def test_layers_of_many_partitions_are_merged_exactly(way, is_ball):
    # 15 inputs and 40 neurons: hardly any states are equal, so layers grow to 16,383 states in several partitions
    network = wide_network(2, 15, 40, 3)
    region = HammingBall((1,) * 15, 12) if is_ball else whole_cube(15)
    query = Query(network, region, Untargeted(1))
    with pytest.MonkeyPatch.context() as patch:
        force(patch, **way)
        for threads in (1, 2):
            count = ENGINE.count(query, limits=Limits(memory_bytes=1 if "fewest" in way else None, threads=threads))
            agrees(count, query, visited(query))
            if way == {"tail": 0} and not is_ball:
                assert count.run.statistics["most_states"] > 3 * 4096
            assert count.run.statistics["in_parts"] == ("fewest" in way)


@pytest.mark.parametrize("end", [-1, 1])
def test_a_layer_whose_states_lie_at_one_end_is_split_too(end):
    # no cut falls between them: split itself again without end
    query = Query(wide_network(1, 30, 1, 2, span=0), HammingBall((1,) * 30, 30), Untargeted(0))
    work = propagation._Propagation(query, (0, 1), Limits(), Clock(None))
    work.most_states = 10
    rows = np.zeros((20, work.width), dtype=np.int8)
    rows[:, 0], rows[:2, 0], rows[:, -1] = end, 0, np.arange(20)
    factors = np.arange(20, dtype=np.uint64)[:, None]
    layer = propagation._Layer(rows.ravel(), factors, np.array([0]), np.array([20]))
    parts = list(work._split(layer, list(range(20, 30))))
    assert len(parts) > 1 and max(part.states for part in parts) < 20
    kept = np.concatenate([np.hstack([p.rows.reshape(-1, work.width), p.factors]) for p in parts])
    assert sorted(kept.tolist()) == sorted(np.hstack([rows, factors]).tolist())


def test_equal_states_merge():
    n = 20
    network = BinaryNetwork(InputDomain.binary(n), (DenseBlock.create([[1] * n] * 3, [-4, 0, 5]),), ladder(3))
    with pytest.MonkeyPatch.context() as patch:
        force(patch, tail=0, closing=False)
        count = ENGINE.count(Query(network, whole_cube(n), Untargeted(0)))
    assert count.run.statistics["most_states"] <= n + 1


def test_closing_happens_by_itself_and_is_counted(monkeypatch):
    force(monkeypatch, tail=2)
    query = Query(wide_network(1, 16, 8, 3), whole_cube(16), Untargeted(0))
    count = ENGINE.count(query)
    assert count.per_class == EnumerationEngine().count(query).per_class
    assert count.run.statistics["states_closed"] > 0 and sum(count.per_class) == 2**16


# At sizes without a definition


@pytest.mark.parametrize("widths", [(22, 14, 4), (22, 9, 7, 3)])
def test_propagation_and_enumeration_agree(widths):
    network = wide_network(11, *widths)
    center = tuple([1, -1] * 11)
    for region in (whole_cube(22), HammingBall(center, 7), HammingBall(center, 16, range(3, 21))):
        query = Query(network, region, Untargeted(network.evaluate(center)))
        one, two = ENGINE.count(query), EnumerationEngine().count(query)
        assert (one.adversarial, one.per_class, one.per_radius) == (two.adversarial, two.per_class, two.per_radius)


def test_the_shells_of_a_class_and_of_all_others_are_binomials():
    query = Query(wide_network(3, 26, 7, 5), HammingBall((1,) * 26, 16), Untargeted(0))
    others, mine = ENGINE.count(query), ENGINE.count(replace(query, property=Targeted(0)))
    shells = [a + b for a, b in zip(mine.per_radius, others.per_radius, strict=True)]
    assert shells == [math.comb(26, r) for r in range(17)]
    assert sum(others.per_class) == query.region.size() and others.adversarial == sum(others.per_class[1:])


def test_the_order_of_inputs_neurons_and_classes_changes_nothing():
    network = wide_network(3, 26, 8, 5)
    permutations_change_nothing(ENGINE, Query(network, HammingBall(tuple([1, -1] * 13), 13), Untargeted(0)))
    permutations_change_nothing(ENGINE, Query(network, whole_cube(26), Untargeted(3)))


def test_the_ball_of_all_flips_is_the_cube():
    network = wide_network(5, 30, 9, 6, 4)
    ball = ENGINE.count(Query(network, HammingBall((1,) * 30, 30), Untargeted(2)))
    cube = ENGINE.count(Query(network, whole_cube(30), Untargeted(2)))
    assert ball.per_class == cube.per_class and ball.adversarial == cube.adversarial


def ladder(m):
    """Output on neurons of which each implies those before it: class k iff exactly the first k fire."""
    steps = [[1 if j < k else -1 for j in range(m)] for k in range(m + 1)]
    return OutputBlock.create(steps)


def ladder_query(n, region, thresholds):
    block = DenseBlock.create([[1] * n] * len(thresholds), thresholds)
    return Query(BinaryNetwork(InputDomain.binary(n), (block,), ladder(len(thresholds))), region, Untargeted(0))


def level(n, flips, thresholds):
    """Class of a ladder on ones of which some are flipped."""
    return sum(n - 2 * flips >= t for t in thresholds)


@pytest.mark.parametrize("n", [63, 64, 65, 70, 100, 120])
def test_cubes_beyond_2_to_the_64_are_counted_exactly(n):
    thresholds = [-n + 7, -6, 0, 3, n - 9]
    classes = [0] * 6
    for flips in range(n + 1):
        classes[level(n, flips, thresholds)] += math.comb(n, flips)
    count = ENGINE.count(ladder_query(n, whole_cube(n), thresholds))
    assert list(count.per_class) == classes and count.adversarial == 2**n - classes[0]


@pytest.mark.parametrize(("n", "radius"), [(70, 40), (100, 40), (90, 90), (200, 50)])
def test_balls_beyond_2_to_the_64_are_counted_exactly_at_each_distance(n, radius):
    thresholds = [n - 2 * radius + 5, n - radius, n - 20]
    query = ladder_query(n, HammingBall((1,) * n, radius), thresholds)
    count = ENGINE.count(query)
    adversarial = [level(n, flips, thresholds) != 0 for flips in range(radius + 1)]
    assert list(count.per_radius) == [math.comb(n, r) * bad for r, bad in enumerate(adversarial)]
    assert sum(count.per_class) == query.region.size() > 2**64


def always_tied(n):
    """Two opposite neurons whose signs always cancel: two classes always tie, though bounds do not see it."""
    block = DenseBlock.create([[1] * n, [-1] * n], [0, 1])
    mask = np.array([[True, True], [False, False]])
    return BinaryNetwork(InputDomain.binary(n), (block,), OutputBlock.create([[1, 1], [1, 1]], mask=mask))


@pytest.mark.parametrize("ties", Ties)
@pytest.mark.parametrize("n", [63, 64, 65])
def test_a_class_may_get_exactly_2_to_the_64_inputs(n, ties):
    # all inputs of 64 at once are 0 modulo 2^64; under other tie rules the class was wrong
    count = ENGINE.count(Query(always_tied(n), whole_cube(n), Untargeted(0), ties))
    assert count.per_class == (2**n, 0)
    assert count.adversarial == (2**n if ties is Ties.COUNTEREXAMPLE else 0)
    target = ENGINE.count(Query(always_tied(n), whole_cube(n), Targeted(1), ties))
    assert target.adversarial == (2**n if ties is Ties.COUNTEREXAMPLE else 0)


def test_states_that_get_lost_are_an_error(monkeypatch):
    monkeypatch.setattr(propagation._Propagation, "_add_closed", lambda *_: None)
    monkeypatch.setattr(propagation._Propagation, "_finish", lambda *_: None)
    with pytest.raises(EngineError, match=r"settled 0 of 4096 inputs\. This is a bug in bnnverify"):
        ENGINE.count(Query(wide_network(1, 12, 6, 3), whole_cube(12), Untargeted(0)))


# Weights


def weight_definition(query, weights):
    """Weight of the inputs of each class, and of the adversarial ones, in plain loops."""
    classes, adversarial = [0] * query.network.n_classes, 0
    for x in query.region.points():
        weight = 1
        for i, (keep, flip) in zip(query.region.free, weights, strict=True):
            weight *= keep if x[i] == query.region.center[i] else flip
        classes[oracle.predicted(query.network, x)] += weight
        adversarial += weight if oracle.is_adversarial(query, x) else 0
    return classes, adversarial


@st.composite
def parts_of_the_cube(draw, n):
    center = tuple(draw(st.lists(signs, min_size=n, max_size=n)))
    return FixedIndexRegion(center, draw(st.sets(st.integers(0, n - 1))))


@st.composite
def rates(draw):
    """Probability of a flip as (q - p, p): 0 and 1 at times, denominators of one to thirty digits."""
    q = draw(st.sampled_from([1, 2, 1000, 2**31 - 1, 2**32, 10**30]))
    p = draw(st.sampled_from([0, q]) | st.integers(0, q))
    return q - p, p


@settings(max_examples=90)
@given(served_queries(kinds=parts_of_the_cube), ways, st.data())
def test_weights_are_the_definitions_under_every_tie_rule(query, way, data):
    weights = [data.draw(rates()) for _ in query.region.free]
    with pytest.MonkeyPatch.context() as patch:
        force(patch, **{**way, "primes": None})
        totals, run = weighted(query, weights, limits=Limits(memory_bytes=1 if way["fewest"] else None, threads=1))
    classes, adversarial = weight_definition(query, weights)
    assert run.reason == "" and sum(totals) == math.prod(sum(pair) for pair in weights) == sum(classes)
    prop = query.property
    mine = totals[prop.target] if isinstance(prop, Targeted) else sum(totals) - totals[prop.label]
    assert mine == adversarial
    if query.ties is Ties.LOWEST_INDEX:
        assert list(totals) == classes


def test_weights_are_exact_probabilities_of_many_bits():
    n, q = 40, 10**12 + 39
    weights = [(q - 7 - i, 7 + i) for i in range(n)]
    thresholds = [n - 6, n - 2]
    totals, _ = weighted(ladder_query(n, whole_cube(n), thresholds), weights)
    flips = [Fraction(1)]  # probability of each number of flips
    for _, p in weights:
        rate = Fraction(p, q)
        flips = [
            (a * (1 - rate) if i < len(flips) else 0) + b * rate
            for i, (a, b) in enumerate(zip([*flips, Fraction(0)], [Fraction(0), *flips], strict=True))
        ]
    expected = [Fraction(0)] * 3
    for k, share in enumerate(flips):
        expected[level(n, k, thresholds)] += share
    assert [Fraction(t, q**n) for t in totals] == expected


@pytest.mark.parametrize("weights", [(0, 2**32), (2**32, 0), (2**31, 2**31)])
@pytest.mark.parametrize("ties", Ties)
def test_weights_of_exactly_2_to_the_64_go_to_the_right_class(weights, ties):
    # the class was that of the centre, even where the centre weighs nothing
    network = BinaryNetwork(InputDomain.binary(2), (DenseBlock.create([[1, 1]], [1]),), OutputBlock.create([[-1], [1]]))
    query = Query(network, whole_cube(2), Targeted(1), ties)
    totals, _ = weighted(query, [weights, weights])
    assert list(totals) == weight_definition(query, [weights, weights])[0]
    tied = Query(always_tied(2), whole_cube(2), Targeted(1), ties)
    totals, _ = weighted(tied, [weights, weights])
    assert totals == ((0, 2**64) if ties is Ties.COUNTEREXAMPLE else (2**64, 0))


def test_a_total_that_is_the_product_of_the_moduli_goes_to_the_right_class():
    moduli = Residues.up_to(2**80).moduli
    totals, _ = weighted(Query(always_tied(3), whole_cube(3), Untargeted(0)), [(m - 5, 5) for m in moduli])
    assert len(moduli) == 3 and totals == (math.prod(moduli), 0)


def test_weights_over_a_ball_are_refused():
    query = Query(wide_network(0, 6, 3, 2), HammingBall((1,) * 6, 2), Untargeted(0))
    with pytest.raises(UnsupportedError, match="expected a fixed-index region or the whole cube"):
        weighted(query, [(1, 1)] * 6)


# Partial answers


@pytest.fixture
def slow(monkeypatch):
    """A question that is finished in many parts, and its answer."""
    force(monkeypatch, tail=3, fewest=200)
    query = Query(wide_network(4, 15, 20, 4), whole_cube(15), Untargeted(1))
    return query, ENGINE.count(query, limits=TIGHT)


@pytest.mark.parametrize("ties", Ties)
@pytest.mark.parametrize("is_ball", [False, True])
def test_reports_close_in_on_the_count_and_a_monitor_stops_it(slow, ties, is_ball):
    query = replace(slow[0], ties=ties, region=HammingBall((1,) * 15, 9) if is_ball else slow[0].region)
    truth = EnumerationEngine().count(query)
    told, count = told_and_counted(ENGINE, query, limits=TIGHT)
    bounds_hold(told, truth)
    assert count.adversarial == truth.adversarial and len(told) > 10
    assert told[-1] == (truth.adversarial, truth.adversarial, truth.region_size)
    told, count = told_and_counted(ENGINE, query, limits=TIGHT, stop_after=5)
    bounds_hold(told, truth)
    assert count.kind is Kind.INTERVAL and count.run.reason == "enough" and count.per_class is None
    assert (count.lower, count.upper) == told[-1][:2] and 0 < count.upper - count.lower < truth.region_size


def test_the_pieces_of_one_layer_can_be_stopped_too(monkeypatch):
    force(monkeypatch, tail=2)
    monkeypatch.setattr(propagation._Propagation, "_tail_seconds", lambda *_: 1.0)  # a piece for each partition
    query = Query(wide_network(2, 15, 40, 3), whole_cube(15), Untargeted(1))
    for threads in (1, 2):
        told, count = told_and_counted(ENGINE, query, limits=Limits(threads=threads))
        bounds_hold(told, count)
        assert count.kind is Kind.EXACT and len(told) > 2
        _, stopped = told_and_counted(ENGINE, query, limits=Limits(threads=threads), stop_after=len(told) - 1)
        assert stopped.lower <= count.adversarial <= stopped.upper


def test_limits_leave_bounds(slow):
    query, truth = slow
    for seconds in (1e-9, 1e-3):
        count = ENGINE.count(query, limits=replace(TIGHT, seconds=seconds))
        assert count.kind is Kind.INTERVAL and count.run.reason == f"time limit of {seconds:g} s reached"
        assert count.lower <= truth.adversarial <= count.upper and count.per_class is None
    decision = ENGINE.decide(query, limits=Limits(seconds=1e-9))
    assert decision.verdict in (Verdict.UNKNOWN, Verdict.NOT_ROBUST)
    totals, run = weighted(query, [(3, 1)] * 15, limits=Limits(seconds=1e-9))
    exact, _ = weighted(query, [(3, 1)] * 15)
    assert run.reason == "time limit of 1e-09 s reached"
    assert all(a <= b for a, b in zip(totals, exact, strict=True)) and sum(exact) == 4**15
