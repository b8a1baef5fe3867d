"""Distances by stages: the definition's distance, in flips and in pixel values, and brackets that hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.deciding import distance
from bnnverify.deciding.distance import hamming_distance, linf_distance
from bnnverify.engines.base import Limits, Monitor
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall, PixelBox
from bnnverify.results import Decision, Distance, Kind, Run, Verdict, answer_from_json
from bnnverify.robustness import minimum_adversarial_distance
from tests import oracle
from tests.strategies import conv_networks, inputs, networks, pixel_networks


@settings(max_examples=50)
@given(st.one_of(networks(max_inputs=6), conv_networks(max_inputs=6)), st.data())
def test_hamming_distances_are_those_of_the_definition(network, data):
    x = data.draw(inputs(network.n_inputs))
    ties = data.draw(st.sampled_from(list(Ties)))
    kept = oracle.predicted(network, x)
    expected = oracle.distance(lambda r: Query(network, HammingBall(x, r), Untargeted(kept), ties), network.n_inputs)
    for answer in (
        hamming_distance(network, x, ties=ties),
        minimum_adversarial_distance(network, x, ties=ties, engine="stages"),
    ):
        if expected is None:
            assert (answer.lower, answer.upper) == (network.n_inputs + 1, None)
            assert answer.run.reason == f"no adversarial input within distance {network.n_inputs}"
        else:
            assert (answer.lower, answer.upper, answer.kind) == (expected, expected, Kind.EXACT)
            assert sum(a != b for a, b in zip(answer.witness, x, strict=True)) == expected


@settings(max_examples=40)
@given(pixel_networks(kind=lambda: networks(max_inputs=4)), st.data())
def test_linf_distances_are_those_of_the_definition(network, data):
    domain = network.domain
    ends = zip(domain.lower.tolist(), domain.upper.tolist(), strict=True)
    x = tuple(data.draw(st.integers(low, high)) for low, high in ends)
    kept = oracle.predicted(network, x)
    reach = int(np.maximum(domain.upper - x, np.array(x) - domain.lower).max())
    expected = None
    for radius in range(reach + 1):
        query = Query(network, PixelBox.linf(x, radius, domain), Untargeted(kept), Ties.COUNTEREXAMPLE)
        if any(oracle.is_adversarial(query, p) for p in query.region.points()):
            expected = radius
            break
    answer = linf_distance(network, x, ties=Ties.COUNTEREXAMPLE)
    assert answer.norm == "linf" and answer_from_json(answer.to_json()).norm == "linf"
    if expected is None:
        assert (answer.lower, answer.upper) == (reach + 1, None)
    else:
        assert (answer.lower, answer.upper) == (expected, expected)
        assert max(abs(a - b) for a, b in zip(answer.witness, x, strict=True)) == expected


def majority(n=101):
    block = DenseBlock.create([[1] * n], [0])
    return BinaryNetwork(InputDomain.binary(n), (block,), OutputBlock.create([[1], [-1]]))


def test_a_majority_vote_of_a_hundred_inputs_is_half_of_them_away():
    answer = minimum_adversarial_distance(majority(), [1] * 101, engine="stages")
    assert (answer.lower, answer.upper, answer.predicted) == (51, 51, 1)
    assert answer.run.statistics["radii"] and answer.run.reason == ""


def test_beyond_the_largest_radius_the_distance_is_only_bounded_below():
    answer = hamming_distance(majority(), [1] * 101, max_radius=40)
    assert (answer.lower, answer.upper) == (41, None)
    assert answer.run.reason == "no adversarial input within distance 40"


def test_an_input_of_another_class_is_at_distance_nothing():
    answer = hamming_distance(majority(), [1] * 101, label=1)
    assert (answer.lower, answer.upper, answer.witness) == (0, 0, (1,) * 101)


def test_radii_that_stay_open_leave_a_bracket_that_holds(monkeypatch):
    def half_blind(query, **options):
        radius = query.region.radius
        verdict = Verdict.ROBUST if radius < 20 else Verdict.UNKNOWN
        return Decision(verdict, Run("fake", reason="too hard" if verdict is Verdict.UNKNOWN else ""))

    monkeypatch.setattr(distance, "decide", half_blind)
    answer = hamming_distance(majority(), [1] * 101)
    assert (answer.lower, answer.upper, answer.kind) == (20, 51, Kind.INTERVAL)
    assert answer.run.reason == "open at 20: too hard"
    assert answer.predicted == 1 and sum(v == -1 for v in answer.witness) == 51


def test_a_stopped_search_keeps_what_is_proved():
    monitor = Monitor(show=lambda lower, last, size: setattr(monitor, "stop", lower > 10))
    answer = hamming_distance(majority(), [1] * 101, monitor=monitor)
    assert 10 < answer.lower <= 51 and answer.run.reason == ("interrupted" if answer.lower < 51 else "")
    late = hamming_distance(majority(), [1] * 101, limits=Limits(seconds=1e-9))
    assert late.lower == 0 and late.run.reason == "time limit of 1e-09 s reached"


def test_an_interrupted_search_says_what_is_proved(monkeypatch):
    monitor, honest = Monitor(), distance.decide

    def pressed(query, **options):
        if query.region.radius > 45:
            return honest(query, **options)
        monitor.stop = True
        raise KeyboardInterrupt

    monkeypatch.setattr(distance, "decide", pressed)
    monkeypatch.setattr(distance._Bracket, "attacks", lambda self: None)
    answer = hamming_distance(majority(), [1] * 101, monitor=monitor)
    assert answer.run.reason == "interrupted"
    assert answer.lower <= 51 <= answer.upper and majority().evaluate(answer.witness) == answer.predicted == 1
    with pytest.raises(KeyboardInterrupt):
        hamming_distance(majority(), [1] * 101)


def test_distances_in_pixel_values_need_pixels():
    with pytest.raises(QueryError, match=r"takes -1/\+1 inputs, expected integers"):
        linf_distance(majority(), [1] * 101)


def test_a_distance_is_written_with_its_norm_only_where_it_is_not_flips():
    assert "norm" not in Distance(1, 2, Run("x")).to_json()
    assert Distance(1, 2, Run("x"), norm="linf").to_json()["norm"] == "linf"
