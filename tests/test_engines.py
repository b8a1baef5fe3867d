"""One conformance text for every engine: the oracle's answer, on every network, region, property and tie rule."""

import math
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.engines import visits
from bnnverify.engines.base import Clock, Limits, Monitor
from bnnverify.engines.bdd import BddEngine
from bnnverify.engines.enumeration import EnumerationEngine
from bnnverify.engines.propagation import PropagationEngine, is_served
from bnnverify.engines.sat import SatEngine
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
from bnnverify.results import Kind, Verdict
from tests import oracle
from tests.strategies import conv_networks, queries

ENGINES = [BddEngine(), SatEngine(), EnumerationEngine(), PropagationEngine()]
VARIANTS = [
    BddEngine(package="dd.autoref"),
    SatEngine(solver="maplechrono", encoding="totalizer"),
    SatEngine(solver="minisat22", encoding="kmtotalizer"),
    SatEngine(encoding="seqcounter"),
    SatEngine(encoding="cardnetwork"),
    SatEngine(encoding="sortnetwork"),
]


def agrees_with_the_oracle(engine, query):
    if engine.name == "propagation" and not is_served(query):
        with pytest.raises(UnsupportedError, match="Take another engine"):
            engine.count(query)
        return
    points = oracle.adversarial_points(query)
    decision = engine.decide(query)
    assert decision.verdict is (Verdict.NOT_ROBUST if points else Verdict.ROBUST)
    assert decision.run.engine == engine.name and decision.run.reason == ""
    if points:
        assert decision.counterexample in points
        assert decision.predicted == oracle.predicted(query.network, decision.counterexample)
    else:
        assert decision.counterexample is None and decision.predicted is None
    count = engine.count(query)
    assert count.adversarial == len(points) and count.kind is Kind.EXACT
    assert count.region_size == sum(1 for _ in query.region.points())
    if count.per_class is not None:
        assert list(count.per_class) == oracle.per_class(query)
    if count.per_radius is not None:
        expected = [0] * (query.region.radius + 1)
        for x in points:
            expected[sum(a != b for a, b in zip(x, query.region.center, strict=True))] += 1
        assert list(count.per_radius) == expected


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_an_engine_gives_the_oracles_answer(engine):
    @settings(max_examples=1000)
    @given(queries(max_inputs=6, max_width=5))
    def check(query):
        agrees_with_the_oracle(engine, query)

    check()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_an_engine_gives_the_oracles_answer_on_up_to_10_inputs(engine):
    @settings(max_examples=40)
    @given(queries(min_inputs=8, max_inputs=10, max_width=6))
    def check(query):
        agrees_with_the_oracle(engine, query)

    check()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_an_engine_gives_the_oracles_answer_on_convolutions(engine):
    @settings(max_examples=50)
    @given(queries(conv_networks, max_inputs=8, max_outputs=24))
    def check(query):
        agrees_with_the_oracle(engine, query)

    check()


def test_enumeration_in_small_pieces_gives_the_oracles_answer(monkeypatch):
    monkeypatch.setattr(visits, "_CHUNK", 3)  # each piece goes on where the last one stopped

    @settings(max_examples=60)
    @given(st.one_of(queries(max_inputs=5), queries(conv_networks, max_inputs=5, max_outputs=12)))
    def check(query):
        agrees_with_the_oracle(EnumerationEngine(), query)

    check()


def test_enumeration_looks_at_the_clock_more_often_where_inputs_cost_more():
    def walk(network):
        return visits.Visits(ball_query(network, 0, 2), Clock(None), None, False)

    filters = ConvBlock.create(np.ones((64, 3, 5, 5)), [0] * 64, input_shape=(3, 32, 32), padding=2)
    output = OutputBlock.create(np.ones((2, filters.n_outputs)))
    large = BinaryNetwork(InputDomain.binary(filters.n_inputs), (filters,), output)
    assert walk(random_network(0, 8, 4, 3)).steps() == 2**20
    assert walk(large).steps() == 2**31 // (64 * 75 * 1024 + 2 * 65_536)


@pytest.mark.parametrize("engine", VARIANTS, ids=repr)
def test_every_package_solver_and_encoding_gives_the_oracles_answer(engine):
    @settings(max_examples=60)
    @given(queries(max_inputs=6, max_width=6))
    def check(query):
        agrees_with_the_oracle(engine, query)

    check()


def random_network(seed, *widths):
    generator = np.random.default_rng(seed)
    blocks = [
        DenseBlock.create(generator.choice([-1, 1], (m, n)), generator.integers(-3, 4, m))
        for n, m in pairwise(widths[:-1])
    ]
    output = OutputBlock.create(generator.choice([-1, 1], (widths[-1], widths[-2])))
    return BinaryNetwork(InputDomain.binary(widths[0]), tuple(blocks), output)


def ball_query(network, seed, radius, ties=Ties.LOWEST_INDEX):
    x = tuple(np.random.default_rng(seed).choice([-1, 1], network.n_inputs).tolist())
    return Query(network, HammingBall(x, radius), Untargeted(network.evaluate(x)), ties)


def plain_majority(n):
    """n inputs, class 0 iff at least half of them are +1."""
    return BinaryNetwork(InputDomain.binary(n), (), OutputBlock.create([[1] * n, [-1] * n]))


# Rows: past failures and corners that hypothesis reaches rarely.
ROWS = {
    "no input varies": Query(plain_majority(3), FixedIndexRegion((1, 1, -1), ()), Untargeted(0)),
    "only the centre": Query(plain_majority(3), HammingBall((1, 1, -1), 0), Targeted(0)),
    "a ball that is the cube": Query(
        plain_majority(4), HammingBall((1, 1, 1, 1), 4), Untargeted(0), Ties.COUNTEREXAMPLE
    ),
    "one short of the cube": Query(plain_majority(4), HammingBall((1, 1, 1, 1), 3), Untargeted(0), Ties.ROBUST),
    "all scores always equal": Query(
        BinaryNetwork(InputDomain.binary(3), (), OutputBlock.create([[1, 1, 1]] * 3)), whole_cube(3), Untargeted(1)
    ),
    "scale zero": Query(
        BinaryNetwork(InputDomain.binary(3), (), OutputBlock.create([[1, 1, 1]] * 3, scale=[0, 1, -1], bias=[0, 1, 1])),
        whole_cube(3),
        Targeted(0),
        Ties.COUNTEREXAMPLE,
    ),
    "everything masked out": Query(
        BinaryNetwork(
            InputDomain.binary(2),
            (DenseBlock.create([[1, 1]], [0], mask=np.zeros((1, 2), dtype=bool)),),
            OutputBlock.create([[1], [-1]]),
        ),
        HammingBall((1, -1), 1),
        Untargeted(0),
    ),
    "two equal and two opposite neurons": Query(
        BinaryNetwork(
            InputDomain.binary(3),
            (DenseBlock.create([[1, 1, 1], [1, 1, 1], [-1, -1, -1]], [1, 1, 1]),),
            OutputBlock.create([[1, 1, 1], [-1, 1, -1]], bias=[0, 1]),
        ),
        HammingBall((1, 1, -1), 2),
        Untargeted(0),
    ),
}


@pytest.mark.parametrize("engine", [*ENGINES, *VARIANTS], ids=repr)
@pytest.mark.parametrize("row", ROWS)
def test_past_failures_and_corners(engine, row):
    agrees_with_the_oracle(engine, ROWS[row])


def test_counts_beyond_2_to_the_53_are_exact():
    n = 70
    count = BddEngine().count(Query(plain_majority(n), whole_cube(n), Untargeted(0)))
    assert count.adversarial == sum(math.comb(n, k) for k in range(n // 2))
    assert sum(count.per_class) == 2**n
    ball = BddEngine().count(Query(plain_majority(n), HammingBall((1,) * n, 60), Untargeted(0)))
    assert list(ball.per_radius) == [math.comb(n, r) if r > n // 2 else 0 for r in range(61)]


@pytest.mark.parametrize("n", [1, 5, 40, 100])
def test_one_input_less_than_the_cube_is_counted_as_such(n):
    # fails with dd.cudd's own count, a float that says 2^100
    block = DenseBlock.create([[1] * n], [-n + 1])
    network = BinaryNetwork(InputDomain.binary(n), (block,), OutputBlock.create([[1], [-1]]))
    assert BddEngine().count(Query(network, whole_cube(n), Targeted(0))).adversarial == 2**n - 1


@pytest.mark.parametrize("widths", [(25, 12, 3), (25, 10, 8, 3)])
def test_engines_agree_where_no_oracle_reaches(widths):
    network = random_network(5, *widths)
    for ties in Ties:
        query = ball_query(network, 7, 2, ties)
        first, *others = (engine.count(query) for engine in ENGINES)
        for other in others:
            assert other.adversarial == first.adversarial and other.per_radius == first.per_radius


def test_shells_do_not_depend_on_the_radius_and_classes_fill_the_ball():
    network = random_network(1, 64, 10, 10)
    counts = [BddEngine().count(ball_query(network, 2, radius)) for radius in range(5)]
    for small, large in pairwise(counts):
        assert large.per_radius[:-1] == small.per_radius
    assert sum(counts[-1].per_radius) == counts[-1].adversarial
    assert sum(counts[-1].per_class) == counts[-1].region_size


def test_permuting_the_neurons_changes_nothing():
    network = random_network(3, 30, 12, 4)
    shuffle = np.random.default_rng(0).permutation(12)
    (block,) = network.blocks
    moved = BinaryNetwork(
        network.domain,
        (DenseBlock.create(block.weights[shuffle], block.thresholds[shuffle]),),
        OutputBlock.create(network.output.weights[:, shuffle]),
    )
    first, second = (BddEngine().count(ball_query(n, 4, 3)) for n in (network, moved))
    assert first.per_class == second.per_class and first.per_radius == second.per_radius


@pytest.fixture
def hard():
    return ball_query(random_network(1, 100, 60, 40, 10), 2, 12)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(nodes=2000), "node limit of 2000 reached"),
        (Limits(seconds=0.3), "time limit of 0.3 s reached"),
        (Limits(memory_bytes=2**24), "memory limit reached"),
    ],
    ids=str,
)
def test_bdd_by_neurons_stops_at_a_limit_and_says_which(hard, limits, reason):
    start, engine = time.perf_counter(), BddEngine(package="dd.cudd")
    decision = engine.decide(hard, limits=limits)
    assert decision.verdict is Verdict.UNKNOWN and decision.run.reason.startswith(reason)
    count = engine.count(hard, limits=limits)
    assert count.kind is Kind.INTERVAL and (count.lower, count.upper) == (0, hard.region.size())
    assert count.run.reason.startswith(reason)
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(nodes=300_000), "node limit of 300000 reached"),
        (Limits(seconds=0.3), "time limit of 0.3 s reached"),
        (Limits(memory_bytes=2**22), "memory limit of 4194304 bytes reached"),
    ],
    ids=str,
)
def test_bdd_stops_at_a_limit_with_the_bounds_that_its_finished_levels_prove(hard, limits, reason):
    count = BddEngine().count(hard, limits=limits)
    assert count.kind is Kind.INTERVAL and count.run.reason.startswith(reason)
    assert 0 < count.lower < count.upper < hard.region.size()
    decision = BddEngine().decide(replace(hard, region=replace(hard.region, radius=2)), limits=Limits(nodes=5))
    assert decision.verdict is Verdict.UNKNOWN and decision.run.reason == "node limit of 5 reached"


def test_the_bounds_of_bdd_at_a_limit_close_in_on_the_count(hard):
    query = replace(hard, region=replace(hard.region, radius=3))
    truth = BddEngine().count(query)
    bounds = [BddEngine().count(query, limits=Limits(nodes=nodes)) for nodes in (1, 500, 5000, 20_000, 10**6)]
    assert all(c.lower <= truth.adversarial <= c.upper for c in bounds)
    assert all(a.lower <= b.lower and a.upper >= b.upper for a, b in pairwise(bounds))
    assert (bounds[0].lower, bounds[0].upper) == (0, query.region.size()) and bounds[-1].kind is Kind.EXACT
    assert bounds[3].lower > 0 and bounds[3].kind is Kind.INTERVAL


@pytest.mark.parametrize("engine", [BddEngine(), BddEngine(package="dd.cudd")], ids=repr)
def test_bdd_tells_its_monitor_what_is_proved_and_stops_when_asked(engine, monkeypatch):
    monkeypatch.setattr("bnnverify.engines.layered._FIRST_REPORT", 0)
    monkeypatch.setattr("bnnverify.engines.layered._REPORT_SHARE", 0)
    query, told = ball_query(random_network(1, 12, 6, 4), 2, 4), []
    count = engine.count(query, monitor=Monitor(show=lambda *bounds: told.append(bounds)))
    assert len(told) > 2 and told[-1] == (count.adversarial, count.adversarial, count.region_size)
    assert all(lower <= count.adversarial <= upper for lower, upper, _ in told)
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in pairwise(told))
    stopped = engine.count(query, monitor=Monitor(stop=True, reason="enough"))
    assert (stopped.kind, stopped.lower, stopped.upper) == (Kind.INTERVAL, 0, count.region_size)
    assert stopped.run.reason == "enough"


def test_sat_stops_at_the_time_limit_with_what_it_found(hard):
    start = time.perf_counter()
    count = SatEngine().count(hard, limits=Limits(seconds=1))
    assert count.kind is Kind.INTERVAL and count.run.reason == "time limit of 1 s reached"
    assert count.upper == hard.region.size()
    assert time.perf_counter() - start < 6
    decision = SatEngine().decide(hard, limits=Limits(seconds=1e-4))
    assert decision.verdict is Verdict.UNKNOWN and decision.run.reason == "time limit of 0.0001 s reached"


def test_sat_visits_no_more_inputs_than_the_limit_allows():
    query = Query(plain_majority(10), whole_cube(10), Untargeted(0))
    count = SatEngine().count(query, limits=Limits(nodes=5))
    assert (count.lower, count.upper, count.run.reason) == (5, 1024, "limit of 5 inputs reached")


def test_a_solver_that_cannot_be_stopped_is_refused():
    with pytest.raises(QueryError, match="solver is 'cadical153', expected one of glucose4"):
        SatEngine(solver="cadical153")
    with pytest.raises(QueryError, match="encoding is 'magic', expected one of diagram, totalizer"):
        SatEngine(encoding="magic").decide(ROWS["scale zero"])


def test_statistics_name_the_package():
    assert BddEngine(package="dd.autoref").count(ROWS["scale zero"]).run.statistics["package"] == "dd.autoref"


def test_the_interrupt_key_is_not_swallowed(monkeypatch, hard):
    def pressed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("bnnverify.encodings.bdd.threshold_diagram", pressed)
    monkeypatch.setattr("bnnverify.encodings.cnf.threshold_diagram", pressed)
    monkeypatch.setattr("bnnverify.encodings.layered.expand", pressed)
    for engine in (BddEngine(), BddEngine(package="dd.cudd"), SatEngine()):
        with pytest.raises(KeyboardInterrupt):
            engine.decide(hard)
