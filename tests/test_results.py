"""Results: every answer carries its kind, survives a JSON line, and never passes for a better kind."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.errors import QueryError
from bnnverify.results import Count, Decision, Distance, Kind, Probability, Run, Verdict, answer_from_json

runs = st.builds(
    Run,
    st.sampled_from(["bdd", "sat", "enumeration"]),
    st.integers(0, 10**9).map(lambda v: v / 10**6),
    st.sampled_from(["", "time limit of 5 s reached"]),
    st.dictionaries(st.sampled_from(["nodes", "conflicts"]), st.integers(0, 2**70)),
)
points = st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=5).map(tuple)
decisions = st.builds(Decision, st.sampled_from([Verdict.ROBUST, Verdict.UNKNOWN]), runs) | st.builds(
    Decision, st.just(Verdict.NOT_ROBUST), runs, points, st.none() | st.integers(0, 9)
)
tallies = st.lists(st.integers(0, 2**80), max_size=4).map(tuple)


@st.composite
def counts(draw):
    lower, upper, size = sorted(draw(st.tuples(*[st.integers(1, 2**200)] * 3)))
    if draw(st.booleans()):
        return Count(Kind.INTERVAL, lower, upper, size, draw(runs))
    shells = draw(tallies)
    lower = sum(shells)
    classes = (lower, *draw(tallies), 1)
    return Count(Kind.EXACT, lower, lower, sum(classes), draw(runs), classes, shells)


@st.composite
def distances(draw):
    lower = draw(st.integers(0, 60))
    if draw(st.booleans()):
        return Distance(lower, None, draw(runs))
    return Distance(lower, draw(st.integers(lower, 64)), draw(runs), draw(points), draw(st.none() | st.integers(0, 9)))


@given(st.one_of(decisions, counts(), distances()))
def test_every_answer_survives_one_json_line(answer):
    line = json.dumps(answer.to_json())
    assert "\n" not in line
    assert answer_from_json(line) == answer
    assert answer_from_json(json.loads(line)) == answer


RUN = Run("x").to_json()
CONTRADICTIONS = [
    {"type": "decision", "verdict": "not-robust", "counterexample": None, "predicted": 1},
    {"type": "decision", "verdict": "robust", "counterexample": [1], "predicted": 1},
    {"type": "decision", "verdict": "unknown", "counterexample": [1], "predicted": 1},
    {"type": "decision", "verdict": "not-robust", "counterexample": [True], "predicted": 1},
    {"type": "distance", "lower": 3, "upper": 2, "witness": [1], "predicted": 1},
    {"type": "distance", "lower": -1, "upper": None, "witness": None, "predicted": None},
    {"type": "distance", "lower": 1, "upper": 2, "witness": None, "predicted": None},
    {
        "type": "count",
        "kind": "exact",
        "lower": 1,
        "upper": 1,
        "region_size": 5,
        "per_class": [1, 1],
        "per_radius": None,
    },
    {"type": "count", "kind": "exact", "lower": 1, "upper": 1, "region_size": 5, "per_class": None, "per_radius": [2]},
    {"type": "count", "kind": "exact", "lower": 0, "upper": 1, "region_size": 5, "per_class": None, "per_radius": None},
    {
        "type": "count",
        "kind": "exact",
        "lower": "1",
        "upper": 1,
        "region_size": 5,
        "per_class": None,
        "per_radius": None,
    },
    {"type": "noise", "kind": "exact", "lower": "1e99999999", "upper": "1", "label": 1, "radius": 1, "unseen": "0"},
    {"type": "noise", "kind": "exact", "lower": "1/0", "upper": "1", "label": 1, "radius": 1, "unseen": "0"},
    {"type": 7},
]


@pytest.mark.parametrize("line", CONTRADICTIONS)
def test_an_answer_that_contradicts_itself_is_refused(line):
    with pytest.raises(ValueError, match=r"expected|is no fraction|denominator 0"):
        answer_from_json({**line, "run": RUN})


unit = st.fractions(0, 1)


@given(st.tuples(unit, unit).map(sorted), st.sampled_from(list(Kind)))
def test_every_probability_survives_json(bounds, kind):
    lower, upper = bounds
    if kind is Kind.EXACT:
        upper = lower
    extra = (0.99, 1000, 17) if kind is Kind.SAMPLED else ()
    probability = Probability(kind, lower, upper, *extra)
    assert Probability.from_json(json.loads(json.dumps(probability.to_json()))) == probability


@given(st.tuples(unit, unit).map(sorted))
def test_the_complement_mirrors_the_bounds_and_keeps_the_kind(bounds):
    interval = Probability.interval(*bounds)
    assert interval.complement() == Probability.interval(1 - bounds[1], 1 - bounds[0])
    assert interval.complement().complement() == interval
    sampled = Probability(Kind.SAMPLED, *bounds, 0.95, 100, 30)
    assert sampled.complement().hits == 70
    assert sampled.estimate == Fraction(3, 10)


def test_bounds_that_meet_do_not_make_an_interval_exact():
    assert Probability.interval(Fraction(1, 2), Fraction(1, 2)).kind is Kind.INTERVAL
    assert Probability.exact(Fraction(1, 2)).kind is Kind.EXACT


def test_bounds_outside_0_to_1_are_clipped_by_interval_and_refused_elsewhere():
    assert Probability.interval(Fraction(-1, 10), Fraction(11, 10)) == Probability(
        Kind.INTERVAL, Fraction(0), Fraction(1)
    )
    with pytest.raises(QueryError, match=r"do not fit in 0\.\.1"):
        Probability(Kind.INTERVAL, Fraction(-1), Fraction(1))


def test_an_exact_answer_has_one_value():
    with pytest.raises(QueryError, match="an exact probability has different bounds"):
        Probability(Kind.EXACT, Fraction(0), Fraction(1))
    with pytest.raises(QueryError, match="an exact count has bounds 1 and 2"):
        Count(Kind.EXACT, 1, 2, 4, Run("bdd"))


def test_a_confidence_belongs_to_samples_only():
    with pytest.raises(QueryError, match="a confidence level belongs to sampled probabilities"):
        Probability(Kind.SAMPLED, Fraction(0), Fraction(1))
    with pytest.raises(QueryError, match="a confidence level belongs to sampled probabilities"):
        Probability(Kind.INTERVAL, Fraction(0), Fraction(1), 0.99)


def test_counts_must_fit_their_region():
    with pytest.raises(QueryError, match=r"count bounds 3\.\.5 do not fit in 0\.\.4"):
        Count(Kind.INTERVAL, 3, 5, 4, Run("bdd"))


def test_a_count_that_is_not_exact_has_no_exact_value():
    count = Count(Kind.INTERVAL, 1, 3, 4, Run("bdd", reason="time limit of 1 s reached"))
    with pytest.raises(QueryError, match=r"the count is interval \(1 to 3\), not exact"):
        _ = count.adversarial
    assert Count(Kind.EXACT, 1, 1, 4, Run("bdd")).density == Fraction(1, 4)


def test_a_distance_is_exact_iff_its_bounds_meet():
    assert Distance(2, 2, Run("sat")).kind is Kind.EXACT
    assert Distance(2, 3, Run("sat")).kind is Kind.INTERVAL
    assert Distance(2, None, Run("sat")).kind is Kind.INTERVAL


def test_a_verdict_is_no_truth_value():
    with pytest.raises(TypeError, match="not a truth value"):
        bool(Verdict.UNKNOWN)


def test_an_unknown_type_of_line_is_refused():
    with pytest.raises(QueryError, match="result type is 'guess', expected"):
        answer_from_json({"type": "guess", "run": Run("x").to_json()})


def test_probabilities_print_with_their_kind():
    assert str(Probability.exact(Fraction(1, 4))) == "1/4 (exact)"
    assert str(Probability.interval(Fraction(1, 4), Fraction(1, 2))) == "[0.25, 0.5] (interval)"
    assert str(Probability(Kind.SAMPLED, Fraction(1, 4), Fraction(1, 2), 0.99, 10, 3)) == "[0.25, 0.5] (sampled, 99.0%)"
