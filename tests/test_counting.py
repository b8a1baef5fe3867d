"""Counts by radius, safe distances, noise and samples against the definition in plain loops."""

import json
import math
import random
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.counting import (
    adversarial_inputs,
    counts_by_radius,
    maximal_safe_distance,
    misclassification_probability,
    noise,
    radii,
    safety,
    sample_adversarial,
    sampling,
)
from bnnverify.engines import NAMES
from bnnverify.engines.base import Limits, Monitor
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
from bnnverify.results import Kind, answer_from_json
from tests import oracle, strategies

MAJORITY = BinaryNetwork(InputDomain.binary(21), (), OutputBlock.create([[1] * 21, [-1] * 21]))  # class 0: more +1


def random_network(seed, *widths):
    generator = np.random.default_rng(seed)
    blocks = [
        DenseBlock.create(generator.choice([-1, 1], (m, n)), generator.integers(-3, 4, m))
        for n, m in pairwise(widths[:-1])
    ]
    output = OutputBlock.create(generator.choice([-1, 1], (widths[-1], widths[-2])))
    return BinaryNetwork(InputDomain.binary(widths[0]), tuple(blocks), output)


def stopped(after=0):
    """A monitor that says stop after some reports; it is asked to stop at once if `after` is 0."""
    monitor = Monitor(stop=after == 0)
    seen = []

    def show(*bounds):
        seen.append(bounds)
        monitor.stop = len(seen) >= after

    monitor.show = show
    return monitor


def apart(x, y):
    return sum(a != b for a, b in zip(x, y, strict=True))


def shells_of(query, x, most):
    shells = [0] * (most + 1)
    for point in oracle.adversarial_points(query):
        shells[apart(point, x)] += 1
    return tuple(shells)


@st.composite
def places(draw, **features):
    network = draw(strategies.networks(**features))
    return network, draw(strategies.inputs(network.n_inputs))


# All radii.


@settings(max_examples=50)
@given(places(max_inputs=6), st.data())
def test_shells_are_those_of_the_definition(place, data):
    network, x = place
    free = tuple(sorted(data.draw(st.sets(st.integers(0, network.n_inputs - 1), min_size=1))))
    most = data.draw(st.integers(0, len(free)))
    ties = data.draw(st.sampled_from(list(Ties)))
    klass = data.draw(st.integers(0, network.n_classes - 1))
    choice, prop = data.draw(
        st.sampled_from(
            [
                ({}, Untargeted(oracle.predicted(network, x))),
                ({"label": klass}, Untargeted(klass)),
                ({"target": klass}, Targeted(klass)),
            ]
        )
    )
    engine = data.draw(st.sampled_from(["auto", "auto", "enumeration", "sat"]))
    found = counts_by_radius(network, x, most, ties=ties, free=free, engine=engine, by_class=True, **choice)
    query = Query(network, HammingBall(x, most, free), prop, ties)
    assert found.shells == shells_of(query, x, most) and found.kind is Kind.EXACT
    assert found.density(most) == Fraction(len(oracle.adversarial_points(query)), query.region.size())
    per_class = [[0] * network.n_classes for _ in range(most + 1)]
    for point in query.region.points():
        per_class[apart(point, x)][oracle.predicted(network, point)] += 1
    assert found.per_class == tuple(map(tuple, per_class))
    assert [sum(row) for row in found.per_class] == [found.shell_size(r) for r in range(most + 1)]


def test_one_radius_at_a_time_gives_the_same_table(monkeypatch):
    x, table = (1,) * 21, counts_by_radius(MAJORITY, (1,) * 21, 13)
    assert table.run.statistics["passes"] == 1
    assert table.shells == tuple(math.comb(21, r) if r > 10 else 0 for r in range(14))
    assert table.shell_density(12) == 1 and table.density(10) == 0
    monkeypatch.setattr(radii.Search, "next_radius", lambda self, radius: radius)
    stepwise = counts_by_radius(MAJORITY, x, 13)
    assert stepwise.run.statistics["passes"] == 14
    assert (stepwise.shells, stepwise.balls) == (table.shells, table.balls)


def test_steps_grow_as_long_as_they_cost_hardly_more(monkeypatch):
    monkeypatch.setattr(radii, "CHEAP", 1.0)
    monkeypatch.setattr(radii.Search, "seconds", lambda self, radius: 0.1 * 1.5**radius)
    monkeypatch.setattr(radii, "seconds_to_count", None)
    passes = counts_by_radius(MAJORITY, (1,) * 21, 12).run.statistics["passes"]
    assert passes == 5  # up to radius 5, then 7, 9, 11 and 12: 1.5 twice is more than 2


@pytest.mark.parametrize("stop", [{"limits": Limits(nodes=1 + 21 + 210 + 5)}, {"monitor": stopped(3)}])
def test_a_table_cut_short_keeps_the_radii_it_finished(monkeypatch, stop):
    monkeypatch.setattr(radii.Search, "next_radius", lambda self, radius: radius)
    table = counts_by_radius(MAJORITY, (-1,) * 21, 21, label=1, engine="enumeration", **stop)
    complete = tuple(math.comb(21, r) if r > 10 else 0 for r in range(22))
    assert table.kind is Kind.INTERVAL and table.run.reason in ("limit of 237 inputs reached", "interrupted")
    assert 1 <= len(table.shells) < 22 and table.shells == complete[: len(table.shells)]
    lower, upper = table.beyond
    assert lower <= sum(complete[: len(table.shells) + 1]) <= upper
    with pytest.raises(QueryError, match=r"radius 21 is not counted, expected 0 to"):
        table.density(21)


def test_a_pass_that_hits_a_limit_is_tried_again_radius_by_radius():
    table = counts_by_radius(MAJORITY, (1,) * 21, 4, engine="enumeration", limits=Limits(nodes=1000))
    assert len(table.shells) == 3 and table.beyond == (0, 1562 - 1000)


# The maximal safe distance.


def safe_distance(network, x, label, ties, tolerance, most):
    """The definition: radius by radius."""
    for radius in range(most + 1):
        query = Query(network, HammingBall(x, radius), Untargeted(label), ties)
        if Fraction(len(oracle.adversarial_points(query)), query.region.size()) > tolerance:
            return radius - 1, radius - 1
    return most, most if most == network.n_inputs else None


tolerances = st.sampled_from(
    [Fraction(0), Fraction(1, 10), Fraction(1, 3), Fraction(1, 2), Fraction(9, 10), Fraction(1)]
)


@settings(max_examples=100)
@given(places(max_inputs=6), tolerances, st.booleans(), st.data())
def test_the_safe_distance_is_that_of_the_definition(place, tolerance, stepwise, data):
    network, x = place
    ties = data.draw(st.sampled_from(list(Ties)))
    label = data.draw(st.sampled_from([None, 0]))
    most = data.draw(st.integers(0, network.n_inputs))
    kept = oracle.predicted(network, x) if label is None else label
    with pytest.MonkeyPatch.context() as patch:
        if stepwise:
            patch.setattr(radii.Search, "next_radius", lambda self, radius: radius)
            patch.setattr(safety, "CHEAP", 0)
        answer = maximal_safe_distance(network, x, tolerance=tolerance, label=label, ties=ties, max_radius=most)
    expected = safe_distance(network, x, kept, ties, tolerance, most)
    assert (answer.lower, answer.upper) == expected
    assert answer.kind is (Kind.INTERVAL if expected[1] is None else Kind.EXACT)
    if expected[1] is not None and expected[1] < most:
        assert answer.violation > tolerance


def test_a_share_that_sinks_again_does_not_hide_the_radius_where_it_was_too_high():
    # class 1 iff exactly input 0 is flipped or many are: the share is 0, 1/21 ..., and later high
    detector = DenseBlock.create([[-1, *[0] * 20]], [1], mask=np.eye(21, dtype=bool)[:1])
    network = BinaryNetwork(InputDomain.binary(21), (detector,), OutputBlock.create([[-1], [1]]))
    shares = counts_by_radius(network, (1,) * 21, 21)
    assert shares.density(1) == Fraction(1, 22) and shares.density(21) == Fraction(1, 2)
    assert maximal_safe_distance(network, (1,) * 21, tolerance="0.1").lower == max(
        r for r in range(22) if all(shares.density(k) <= Fraction(1, 10) for k in range(r + 1))
    )


def test_the_count_ends_once_the_side_of_the_tolerance_is_known(monkeypatch):
    monkeypatch.setattr(radii.Search, "next_radius", lambda self, radius: radius)
    answer = maximal_safe_distance(MAJORITY, (1,) * 21, tolerance=Fraction(1, 1000), engine="sat", max_radius=11)
    whole = counts_by_radius(MAJORITY, (1,) * 21, 11)
    assert (answer.lower, answer.upper) == (10, 10)
    assert Fraction(1, 1000) < answer.violation < whole.density(11)  # not all of them were found


def test_a_safe_distance_cut_short_keeps_what_is_proved(monkeypatch):
    monkeypatch.setattr(radii.Search, "next_radius", lambda self, radius: radius)
    limits = Limits(nodes=1 + 21 + 210 + 5)
    answer = maximal_safe_distance(MAJORITY, (1,) * 21, tolerance="1e-9", engine="enumeration", limits=limits)
    assert (answer.lower, answer.upper, answer.kind) == (2, None, Kind.INTERVAL)
    assert answer.run.reason == "limit of 237 inputs reached"
    for tolerance in (0, "0.2"):
        answer = maximal_safe_distance(MAJORITY, (1,) * 21, tolerance=tolerance, monitor=stopped())
        assert (answer.lower, answer.upper, answer.run.reason) == (-1, None, "interrupted")


# Noise.


def noise_by_definition(network, x, rates, label):
    total = Fraction(0)
    for point in product((-1, 1), repeat=len(x)):
        if oracle.predicted(network, point) != label:
            weight = Fraction(1)
            for a, b, p in zip(x, point, rates, strict=True):
                weight *= p if a != b else 1 - p
            total += weight
    return total


chances = st.sampled_from([Fraction(0), Fraction(1), Fraction(1, 2), Fraction(1, 1000), Fraction(2, 7)])


@settings(max_examples=100)
@given(places(max_inputs=6), st.data())
def test_the_probability_under_noise_is_that_of_the_definition(place, data):
    network, x = place
    rates = data.draw(st.lists(chances, min_size=len(x), max_size=len(x)) | chances.map(lambda p: [p] * len(x)))
    label = data.draw(st.sampled_from([None, 0]))
    kept = oracle.predicted(network, x) if label is None else label
    given_rates = rates[0] if len(set(rates)) == 1 and data.draw(st.booleans()) else rates
    expected = noise_by_definition(network, x, rates, kept)
    answer = misclassification_probability(network, x, given_rates, label=label, width=0)
    assert (answer.kind, answer.probability.lower, answer.label) == (Kind.EXACT, expected, kept)
    assert answer.unseen == 0 and answer.run.reason == ""
    most = data.draw(st.integers(0, len(x)))
    some = misclassification_probability(network, x, given_rates, label=label, max_flips=most)
    assert some.probability.lower <= expected <= some.probability.upper
    assert some.probability.width <= some.unseen


def test_few_flips_give_an_interval_of_the_wanted_width(monkeypatch):
    monkeypatch.setattr(noise, "CHEAP", 0)
    monkeypatch.setattr(noise, "_LISTED", 0)
    p = Fraction(1, 50)
    exact = sum(math.comb(21, r) * p**r * (1 - p) ** (21 - r) for r in range(11, 22))
    for rates in (p, [p] * 20 + [Fraction(0)], [p] * 20 + [Fraction(1, 51)]):
        answer = misclassification_probability(MAJORITY, (1,) * 21, rates, width="1e-5")
        assert answer.kind is Kind.INTERVAL and answer.radius < 8 and answer.run.reason == ""
        assert 0 < answer.probability.width == answer.unseen <= Fraction(1, 10**5)
    answer = misclassification_probability(MAJORITY, (1,) * 21, p, width="1e-5")
    assert answer.probability.lower <= exact <= answer.probability.upper


def test_rates_of_their_own_are_propagated_where_that_is_quicker(monkeypatch):
    monkeypatch.setattr(noise, "seconds_to_count", lambda query, limits: {"propagation": 0.0})
    network = random_network(1, 12, 6, 3)
    x, rates = (1,) * 12, [Fraction(k, 50) for k in range(12)]
    answer = misclassification_probability(network, x, rates, label=0, width=0)
    assert answer.run.engine == "propagation" and answer.radius == 11
    listed = misclassification_probability(network, x, rates, label=0, width=0, engine="enumeration")
    assert listed.run.engine == "listing" and listed.probability == answer.probability
    assert answer.probability.lower == noise_by_definition(network, x, rates, 0)
    late = misclassification_probability(network, x, rates, label=0, engine="propagation", limits=Limits(seconds=1e-9))
    assert late.run.engine == "propagation"
    monkeypatch.setattr(noise, "seconds_to_count", lambda query, limits: {"propagation": 1e3})
    assert misclassification_probability(network, x, rates, limits=Limits(seconds=60)).run.engine == "listing"
    cut = late
    assert cut.kind is Kind.INTERVAL and cut.radius is None and "time limit" in cut.run.reason
    assert cut.probability.lower <= answer.probability.lower <= cut.probability.upper


def test_noise_cut_short_says_what_is_not_seen():
    for rates in ("0.3", ["0.3"] * 20 + ["0.2"]):
        answer = misclassification_probability(MAJORITY, (1,) * 21, rates, max_flips=2)
        assert answer.radius == 2 and answer.run.reason == "inputs with more than 2 flips were not asked for"
        assert answer.probability.width == answer.unseen > Fraction(1, 2)
        answer = misclassification_probability(MAJORITY, (1,) * 21, rates, monitor=stopped())
        assert answer.radius == -1 and answer.run.reason == "interrupted"
        assert (answer.probability.lower, answer.probability.upper, answer.kind) == (0, 1, Kind.INTERVAL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": [0.1, 0.2]}, "rates has 2 entries, expected one, or one for each of 21 inputs"),
        ({"rates": [0.1] * 20 + [2]}, r"rates\[20\] is 2, expected a probability within"),
        ({"rates": 0.1, "label": 2}, "class 2 does not exist"),
        ({"rates": 0.1, "max_flips": -1}, "max_flips is -1, expected at least 0"),
        ({"rates": 0.1, "width": 3}, "width is 3, expected a probability"),
        ({"rates": [0.1] * 20 + [0.2], "engine": "z3"}, "engine is 'z3', expected auto"),
    ],
)
def test_noise_that_makes_no_sense_is_refused(options, message):
    rates = options.pop("rates")
    with pytest.raises(QueryError, match=message):
        misclassification_probability(MAJORITY, (1,) * 21, rates, **options)


# Samples.


@settings(max_examples=60)
@given(strategies.queries(max_inputs=6), st.sampled_from(["auto", "enumeration", "sat"]))
def test_ranks_are_a_bijection_onto_the_adversarial_inputs(query, engine):
    expected = oracle.adversarial_points(query)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_LISTED", 0)  # parts of one input are counted like any other
        patch.setattr(sampling._Tree, "_is_listed", lambda self, region: region.size() <= 3)
        found = adversarial_inputs(query, range(len(expected)), engine=engine)
        assert len(set(found)) == len(found) and set(found) == set(expected)
        with pytest.raises(QueryError, match=f"rank {len(expected)} does not exist"):
            adversarial_inputs(query, [len(expected)])
    if expected:
        drawn = sample_adversarial(query, 3, seed=1, engine=engine)
        assert set(drawn.inputs) <= set(expected) and drawn.adversarial == len(expected)
        assert drawn.predicted == tuple(oracle.predicted(query.network, x) for x in drawn.inputs)


def test_a_draw_takes_the_input_of_a_uniform_rank():
    network = random_network(1, 30, 8, 4)
    query = Query(network, HammingBall((1,) * 30, 4), Untargeted(network.evaluate((1,) * 30)))
    drawn = sample_adversarial(query, 5, seed=7)
    generator = random.Random(7)
    ranks = [generator.randrange(drawn.adversarial) for _ in range(5)]
    assert drawn.inputs == adversarial_inputs(query, ranks)
    assert drawn == sample_adversarial(query, 5, seed=random.Random(7)) or drawn.seed == 7
    assert drawn.inputs == sample_adversarial(query, 5, seed=7, engine="enumeration").inputs


def test_draws_without_replacement_are_distinct_and_can_take_all():
    query = Query(MAJORITY, FixedIndexRegion((1,) * 21, range(12)), Untargeted(0))
    total = sum(math.comb(12, k) for k in (11, 12))
    everything = sample_adversarial(query, total, replacement=False)
    assert len(set(everything.inputs)) == total
    assert len(set(sample_adversarial(query, 5, replacement=False).inputs)) == 5
    with pytest.raises(QueryError, match=f"only {total} inputs are adversarial"):
        sample_adversarial(query, total + 1, replacement=False)


def test_ranks_beyond_64_bits_are_drawn_and_found():
    n = 70
    majority = BinaryNetwork(InputDomain.binary(n), (), OutputBlock.create([[1] * n, [-1] * n]))
    query = Query(majority, whole_cube(n), Untargeted(0))
    drawn = sample_adversarial(query, 2, engine="bdd", replacement=False)
    assert drawn.adversarial == sum(math.comb(n, k) for k in range(n // 2)) > 2**64
    assert all(sum(x) < 0 for x in drawn.inputs)


def test_nothing_to_draw_is_refused_and_a_limit_is_told():
    robust = Query(MAJORITY, HammingBall((1,) * 21, 3), Untargeted(0))
    with pytest.raises(QueryError, match=r"no input of the Hamming ball .* there is nothing to draw"):
        sample_adversarial(robust)
    with pytest.raises(QueryError, match="the number of samples is 0, expected at least 1"):
        sample_adversarial(robust, 0)
    query = Query(MAJORITY, whole_cube(21), Untargeted(0))
    drawn = sample_adversarial(query, 3, engine="enumeration", limits=Limits(nodes=100))
    assert (drawn.inputs, drawn.adversarial, drawn.kind) == ((), None, Kind.INTERVAL)
    assert drawn.run.reason == "limit of 100 inputs reached"
    assert sample_adversarial(query, monitor=stopped()).run.reason == "interrupted"
    with pytest.raises(ResourceLimitError, match="interrupted"):
        adversarial_inputs(query, [0], monitor=stopped())


# All of them.


def test_every_answer_survives_one_json_line():
    x = (1,) * 21
    answers = [
        counts_by_radius(MAJORITY, x, 3, by_class=True),
        counts_by_radius(MAJORITY, x, 3, monitor=stopped()),
        maximal_safe_distance(MAJORITY, x, tolerance="0.1"),
        maximal_safe_distance(MAJORITY, x, max_radius=3),
        misclassification_probability(MAJORITY, x, 0.1),
        misclassification_probability(MAJORITY, x, 0.1, max_flips=2),
        sample_adversarial(Query(MAJORITY, whole_cube(21), Untargeted(0)), 2),
        sample_adversarial(Query(MAJORITY, whole_cube(21), Untargeted(0)), 2, monitor=stopped()),
    ]
    for answer in answers:
        line = json.dumps(answer.to_json(), allow_nan=False)
        again = answer_from_json(line)
        assert json.dumps(again.to_json(), allow_nan=False) == line
        assert (again.kind, type(again)) == (answer.kind, type(answer))


def test_questions_with_two_goals_are_refused():
    with pytest.raises(QueryError, match="label and target are both given"):
        counts_by_radius(MAJORITY, (1,) * 21, 3, label=0, target=1)
    with pytest.raises(QueryError, match="engine is 'z3', expected auto"):
        counts_by_radius(MAJORITY, (1,) * 21, 3, engine="z3")
    assert set(NAMES) >= {"enumeration", "bdd", "sat"}
