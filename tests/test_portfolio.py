"""The portfolio: who runs, for how long, who takes over, and that nothing proved gets lost."""

import json
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings

from bnnverify.engines import batches, costs, portfolio, warmup
from bnnverify.engines.base import Clock, Limits, Monitor
from bnnverify.engines.costs import Shape, seconds_to_count, seconds_to_decide
from bnnverify.engines.portfolio import PortfolioEngine
from bnnverify.errors import EngineError, UnsupportedError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
from bnnverify.results import Count, Decision, Kind, Run, Verdict
from tests import oracle, strategies

MAJORITY = BinaryNetwork(InputDomain.binary(5), (), OutputBlock.create([[1] * 5, [-1] * 5]))
QUERY = Query(MAJORITY, whole_cube(5), Untargeted(0))  # 32 inputs, 16 adversarial


@dataclass
class Fake:
    """An engine that works for some seconds, tells bounds on the way, and then answers or gives up."""

    name: str
    seconds: float = 0.0
    lower: int = 0
    upper: int = 32
    gives_up: str = ""
    steady: bool = False  # tells how far it is
    error: Exception | None = None
    calls: int = 0

    def count(self, query, *, limits, monitor):
        self.calls += 1
        if self.error:
            raise self.error
        clock = Clock(limits.seconds, monitor)
        while clock.elapsed < self.seconds and not clock.is_over:
            time.sleep(0.002)
            if self.steady:
                done = int(32 * min(clock.elapsed / self.seconds, 1))
                monitor.report(0, 32 - done, 32)
        run = Run(self.name, clock.elapsed, clock.reason if clock.is_over else self.gives_up, {"of": self.name})
        if clock.is_over or self.gives_up:
            return Count(Kind.INTERVAL, self.lower, self.upper, 32, run)
        return Count(Kind.EXACT, 16, 16, 32, run, (16, 16))

    def decide(self, query, *, limits):
        self.calls += 1
        if limits.seconds is not None and limits.seconds < self.seconds:
            time.sleep(limits.seconds)
            run = Run(self.name, limits.seconds, "time", {"radius_proved": self.lower})
            return Decision(Verdict.UNKNOWN, run)
        time.sleep(self.seconds)
        verdict = Verdict.UNKNOWN if self.gives_up else Verdict.ROBUST
        return Decision(verdict, Run(self.name, self.seconds, self.gives_up))


@pytest.fixture
def race(monkeypatch):
    """Lets engines run with these guesses, in seconds; gives the answer."""
    monkeypatch.setattr(portfolio, "SHORTEST_TURN", 0.01)
    monkeypatch.setattr(portfolio, "PATIENCE", 2.0)

    def call(*engines, verb="count", **options):
        guesses = {engine.name: guess for engine, guess in engines}
        by_name = {engine.name: engine for engine, _ in engines}
        monkeypatch.setattr(portfolio, "seconds_to_count", lambda query, limits: guesses)
        monkeypatch.setattr(portfolio, "seconds_to_decide", lambda query, limits: guesses)
        monkeypatch.setattr(portfolio, "engine_named", by_name.__getitem__)
        return getattr(PortfolioEngine(), verb)(QUERY, **options)

    return call


def test_the_cheapest_engine_runs_and_the_choice_is_told(race):
    quick, slow = Fake("quick"), Fake("slow")
    count = race((quick, 0.02), (slow, 70.0))
    assert (count.adversarial, count.per_class, count.run.engine) == (16, (16, 16), "quick")
    assert (quick.calls, slow.calls) == (1, 0)
    statistics = count.run.statistics
    assert statistics["choice"] == "quick, which should take 20 ms (the next best, slow: 1.2 minutes)"
    assert statistics["predicted_seconds"] == {"quick": 0.02, "slow": 70.0} and statistics["of"] == "quick"
    json.dumps(count.to_json(), allow_nan=False)


def test_another_engine_takes_over_when_the_guess_was_wrong_and_bounds_are_kept(race):
    wrong, right = Fake("wrong", seconds=30.0, lower=9), Fake("right", seconds=0.02)
    count = race((wrong, 0.01), (right, 0.03))
    assert count.adversarial == 16 and count.run.engine == "wrong+right" and count.run.reason == ""
    assert "it took much longer or gave up, so then right" in count.run.statistics["choice"]
    assert [name for name, _ in count.run.statistics["turns"]] == ["wrong", "right"]
    cut = race((Fake("wrong", 30.0, lower=9), 0.01), (Fake("bad", 30.0, upper=20), 0.03), limits=Limits(seconds=0.5))
    assert (cut.lower, cut.upper, cut.kind) == (9, 20, Kind.INTERVAL)
    assert cut.run.reason == "time limit of 0.5 s reached"


def test_an_engine_that_is_nearly_done_is_not_stopped(race):
    steady, rival = Fake("steady", seconds=0.2, steady=True), Fake("rival")
    assert race((steady, 0.01), (rival, 0.5)).run.engine == "steady" and rival.calls == 0


def test_an_engine_comes_back_with_more_time(race):
    first, second = Fake("first", seconds=0.15), Fake("second", seconds=30.0)
    count = race((first, 0.01), (second, 0.011))
    assert count.adversarial == 16 and first.calls >= 2 and second.calls >= 1
    lengths = [seconds for name, seconds in count.run.statistics["turns"] if name == "second"]
    assert lengths == sorted(lengths)


def test_an_engine_that_gives_up_or_refuses_is_not_asked_again(race):
    refuses = Fake("refuses", error=UnsupportedError("no convolutions"))
    gives_up = Fake("gives-up", gives_up="node limit of 3 reached", upper=31)
    assert race((refuses, 0.01), (gives_up, 0.02), (Fake("last"), 0.03)).adversarial == 16
    count = race((refuses, 0.01), (gives_up, 0.02))
    assert (count.lower, count.upper) == (0, 31)
    assert count.run.reason == "refuses: no convolutions; gives-up: node limit of 3 reached"


def test_bounds_that_meet_are_an_exact_answer(race):
    low, high = Fake("low", gives_up="memory", lower=16), Fake("high", gives_up="memory", upper=16)
    count = race((low, 0.01), (high, 0.02))
    assert (count.kind, count.adversarial, count.run.reason) == (Kind.EXACT, 16, "")


def test_engines_that_contradict_each_other_are_a_bug(race):
    with pytest.raises(EngineError, match="engine b counts 16, but 17 to 32 were proved before"):
        race((Fake("a", gives_up="memory", lower=17), 0.01), (Fake("b"), 0.02))


def test_the_monitor_stops_the_race_and_sees_the_best_bounds(race):
    seen = []
    monitor = Monitor(show=lambda *bounds: seen.append(bounds))
    keeps = Fake("keeps", gives_up="memory", lower=5, upper=30)
    assert race((keeps, 0.01), (Fake("steady", 0.05, steady=True), 0.02), monitor=monitor).adversarial == 16
    assert seen and all(lower >= 5 and upper <= 30 and size == 32 for lower, upper, size in seen)
    monitor = Monitor(show=lambda *bounds: setattr(monitor, "stop", True))
    rival = Fake("rival")
    count = race((Fake("steady", 9.0, lower=3, steady=True), 5.0), (rival, 6.0), monitor=monitor)
    assert (count.lower, count.run.reason, rival.calls) == (3, "interrupted", 0)


def test_verdicts_are_raced_by_time_slices(race):
    slow, right = Fake("slow", seconds=30.0, lower=3), Fake("right", seconds=0.02)
    decision = race((slow, 0.01), (right, 0.03), verb="decide")
    assert decision.verdict is Verdict.ROBUST and decision.run.engine == "slow+right"
    cut = race((slow, 0.01), (Fake("too", 30.0), 0.03), verb="decide", limits=Limits(seconds=0.3))
    assert cut.verdict is Verdict.UNKNOWN and cut.run.reason == "time limit of 0.3 s reached"
    assert cut.run.statistics["radius_proved"] == 3
    out = race((Fake("a", gives_up="memory"), 0.01), (Fake("b", gives_up="nodes"), 0.02), verb="decide")
    assert (out.verdict, out.run.reason) == (Verdict.UNKNOWN, "a: memory; b: nodes")


@settings(max_examples=60)
@given(strategies.queries(max_inputs=6))
def test_the_portfolio_gives_the_oracles_answer(query):
    count, decision = PortfolioEngine().count(query), PortfolioEngine().decide(query)
    assert count.adversarial == len(oracle.adversarial_points(query))
    assert decision.verdict is (Verdict.NOT_ROBUST if count.adversarial else Verdict.ROBUST)


# The cost model.


@settings(max_examples=60)
@given(strategies.queries(max_inputs=7, min_inputs=2))
def test_unsettled_neurons_are_those_that_differ_somewhere_in_the_region(query):
    shape = Shape.of(query)
    assert shape.inputs == query.region.size() and shape.free == len(query.region.free)
    if query.network.blocks:
        columns = zip(*(oracle.hidden_layers(query.network, x)[0] for x in query.region.points()), strict=True)
        assert shape.unsettled == sum(len(set(column)) > 1 for column in columns)


def test_guesses_are_finite_and_sorted_at_every_size():
    generator = np.random.default_rng(0)
    block = DenseBlock.create(generator.choice([-1, 1], (30, 2000)), np.zeros(30))
    network = BinaryNetwork(InputDomain.binary(2000), (block,), OutputBlock.create(np.ones((3, 30))))
    x = (1,) * 2000
    for region in (whole_cube(2000), HammingBall(x, 0), HammingBall(x, 1000), FixedIndexRegion(x, ())):
        for guess in (seconds_to_count, seconds_to_decide):
            values = list(guess(Query(network, region, Untargeted(0))).values())
            assert values == sorted(values) and all(0 < value <= costs.NEVER for value in values)


def test_only_engines_that_prove_their_answers_are_picked(monkeypatch):
    monkeypatch.setattr("bnnverify.engines.NAMES", ("enumeration", "approximate", "sat"))
    assert set(seconds_to_count(QUERY)) == {"enumeration"}  # a small region is enumerated without a look at the others
    monkeypatch.setattr(costs, "AT_ONCE", 0)
    assert set(seconds_to_count(QUERY)) == set(seconds_to_decide(QUERY)) == {"enumeration", "sat"}


def test_more_inputs_cost_more():
    x = (1,) * 5
    guesses = [seconds_to_count(Query(MAJORITY, HammingBall(x, r), Untargeted(0)))["enumeration"] for r in range(6)]
    assert guesses == sorted(guesses)


def test_an_engine_whose_loops_would_be_compiled_first_waits_for_one_that_is_ready(race, monkeypatch):
    compiled, ready = Fake("compiled"), Fake("ready", seconds=0.1)
    monkeypatch.setattr(portfolio, "seconds_to_start", lambda name, query, limits: 24.0 * (name == "compiled"))
    assert race((compiled, 0.01), (ready, 0.02)).run.engine == "ready"  # it takes longer than guessed, but not so much
    assert race((compiled, 0.01), (ready, 70.0)).run.engine == "compiled"
    assert race((compiled, 0.01), (ready, 0.02), verb="decide").run.engine == "ready"


def test_what_starting_costs_depends_on_the_machine_code_that_is_there(monkeypatch):
    monkeypatch.setattr(warmup, "COMPILING", {"enumeration": 24.0, "bdd": 15.0})
    query = Query(MAJORITY, HammingBall((1,) * 5, 2), Untargeted(0))
    monkeypatch.setattr(warmup, "has_code", lambda loop: False)
    assert warmup.seconds_to_start("bdd", query, Limits()) == 15.0
    assert warmup.seconds_to_start("enumeration", query, Limits()) == 24.0
    assert warmup.seconds_to_start("sat", query, Limits()) == 0.0
    monkeypatch.setattr(batches, "_spent", 0.0)  # a small region needs no loops
    assert warmup.seconds_to_start("enumeration", query, Limits()) < 0.1
    monkeypatch.setattr(warmup, "has_code", lambda loop: True)
    assert warmup.seconds_to_start("bdd", query, Limits()) == 0.0
