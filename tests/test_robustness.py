"""Decisions, distances and counts through the portfolio, and the limits of enumeration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify import robustness
from bnnverify.counting import count_adversarial
from bnnverify.engines import NAMES, engine_named, portfolio
from bnnverify.engines.base import Limits, Monitor, replayed
from bnnverify.engines.enumeration import EnumerationEngine
from bnnverify.errors import EngineError, QueryError
from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall, whole_cube
from bnnverify.results import Kind, Verdict
from bnnverify.robustness import decide, minimum_adversarial_distance
from tests import oracle, strategies

MAJORITY = BinaryNetwork(InputDomain.binary(21), (), OutputBlock.create([[1] * 21, [-1] * 21]))  # class 0: more +1


@settings(max_examples=150)
@given(strategies.networks(max_inputs=6), st.data())
def test_distance_is_the_radius_of_the_first_ball_with_an_adversarial_input(network, data):
    x = data.draw(strategies.inputs(network.n_inputs))
    ties = data.draw(st.sampled_from(list(Ties)))
    label = data.draw(st.sampled_from([None, 0]))
    kept = oracle.predicted(network, x) if label is None else label
    expected = oracle.distance(lambda r: Query(network, HammingBall(x, r), Untargeted(kept), ties), network.n_inputs)
    for engine in ("auto", "enumeration", "sat"):
        answer = minimum_adversarial_distance(network, x, label=label, ties=ties, engine=engine)
        if expected is None:
            assert (answer.lower, answer.upper) == (network.n_inputs + 1, None)
            assert "in the whole cube" in answer.run.reason
        else:
            assert (answer.lower, answer.upper, answer.kind) == (expected, expected, Kind.EXACT)
            assert sum(a != b for a, b in zip(answer.witness, x, strict=True)) == expected


@pytest.mark.parametrize("engine", ["auto", *(name for name in NAMES if name != "propagation")])
def test_distance_of_a_majority_vote_is_half_the_inputs(engine):
    answer = minimum_adversarial_distance(MAJORITY, [1] * 21, engine=engine)
    assert (answer.kind, answer.upper, answer.predicted) == (Kind.EXACT, 11, 1)


def test_distance_search_changes_engine_when_balls_outgrow_enumeration(monkeypatch):
    def guesses(query, **options):
        return {"enumeration": 0.1, "sat": 1.0} if query.region.radius <= 3 else {"sat": 1.0, "enumeration": 9.0}

    monkeypatch.setattr(robustness, "seconds_to_decide", guesses)
    monkeypatch.setattr(portfolio, "seconds_to_decide", guesses)
    wide = BinaryNetwork(InputDomain.binary(101), (), OutputBlock.create([[1] * 101, [-1] * 101]))
    answer = minimum_adversarial_distance(wide, [1] * 101, max_radius=6)
    assert (answer.lower, answer.upper) == (7, None)
    assert answer.run.engine == "enumeration+sat"
    assert answer.run.reason == "no adversarial input within distance 6"


def test_a_limit_leaves_a_proved_lower_bound_of_the_distance():
    limits = Limits(nodes=1 + 21 + 210 + 5)  # two shells beyond the centre, and a bit
    answer = minimum_adversarial_distance(MAJORITY, [1] * 21, engine="enumeration", limits=limits)
    assert (answer.lower, answer.upper, answer.kind) == (3, None, Kind.INTERVAL)
    assert "limit of 237 inputs reached" in answer.run.reason


def test_a_distance_search_that_is_stopped_keeps_its_lower_bound(monkeypatch):
    monkeypatch.setattr(robustness._Outward, "_radii", lambda self: range(self.furthest + 1))
    monitor = Monitor(show=lambda lower, last, size: setattr(monitor, "stop", lower == 4))
    answer = minimum_adversarial_distance(MAJORITY, [1] * 21, monitor=monitor)
    assert (answer.lower, answer.upper, answer.run.reason) == (4, None, "interrupted")

    def pressed(query, **options):
        monitor.stop = query.region.radius == 6
        raise KeyboardInterrupt

    monitor = Monitor()
    monkeypatch.setattr(robustness._Outward, "_radii", lambda self: range(6, 7))
    monkeypatch.setattr(EnumerationEngine, "decide", lambda self, query, limits: pressed(query))
    answer = minimum_adversarial_distance(MAJORITY, [1] * 21, engine="enumeration", monitor=monitor)
    assert (answer.lower, answer.upper, answer.run.reason) == (0, None, "interrupted")
    with pytest.raises(KeyboardInterrupt):
        minimum_adversarial_distance(MAJORITY, [1] * 21, engine="enumeration")


def test_enumeration_stopped_early_returns_proved_bounds_on_the_count():
    query = Query(MAJORITY, whole_cube(21), Untargeted(0))
    exact = count_adversarial(query).adversarial
    assert exact == 2**20
    partial = EnumerationEngine().count(query, limits=Limits(nodes=1000))
    assert partial.kind is Kind.INTERVAL
    assert partial.lower <= exact <= partial.upper < 2**21
    decision = EnumerationEngine().decide(
        Query(MAJORITY, HammingBall((1,) * 21, 10), Untargeted(0)), limits=Limits(nodes=9)
    )
    assert decision.verdict is Verdict.UNKNOWN
    assert decision.run.reason == "limit of 9 inputs reached"


def test_a_time_limit_is_honoured_and_named():
    query = Query(MAJORITY, whole_cube(21), Untargeted(0))
    partial = EnumerationEngine().count(query, limits=Limits(seconds=1e-9))
    assert (partial.lower, partial.upper) == (0, 2**21)
    assert "time limit of 1e-09 s reached" in partial.run.reason


def test_shells_sum_to_the_ball_and_counts_grow_with_the_radius_on_a_real_size():
    rng = np.random.default_rng(7)
    network = BinaryNetwork(InputDomain.binary(64), (), OutputBlock.create(rng.choice([-1, 1], (10, 64))))
    x = tuple(int(v) for v in rng.choice([-1, 1], 64))
    counts = [count_adversarial(Query(network, HammingBall(x, r), Untargeted(network.evaluate(x)))) for r in range(4)]
    assert [c.adversarial for c in counts] == [sum(counts[-1].per_radius[: r + 1]) for r in range(4)]
    assert sum(counts[-1].per_class) == counts[-1].region_size == 43745


def test_scores_beyond_64_bits_are_compared_exactly():
    output = OutputBlock.create([[1, 1, 1], [1, 1, 1]], scale=[1, 1], bias=[0.0, 2.0**-1000])
    network = BinaryNetwork(InputDomain.binary(3), (), output)
    query = Query(network, whole_cube(3), Untargeted(0))
    assert [count_adversarial(query, engine=e).adversarial for e in ("auto", "enumeration", "bdd", "sat")] == [8] * 4


def test_unknown_engines_and_false_counterexamples_are_refused():
    query = Query(MAJORITY, HammingBall((1,) * 21, 3), Untargeted(0))
    with pytest.raises(QueryError, match="engine is 'z3', expected auto, enumeration, propagation, bdd, sat"):
        decide(query, engine="z3")
    with pytest.raises(EngineError, match="This is a bug in bnnverify"):
        replayed(query, [1] * 21, "test")
    with pytest.raises(QueryError, match="the limit on seconds is 0, expected a number above 0"):
        Limits(seconds=0)
    assert [engine_named(name).name for name in NAMES] == list(NAMES)
