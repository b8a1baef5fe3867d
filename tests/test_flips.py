"""The search over first-block neurons against the definition, and its two kernels against enumeration."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.deciding.columns import FOUND, NONE, bound_jointly, search_columns
from bnnverify.deciding.flips import search_flips
from bnnverify.engines.base import Limits, Monitor
from bnnverify.engines.enumeration import EnumerationEngine
from bnnverify.errors import UnsupportedError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import HammingBall, PixelBox
from bnnverify.results import Verdict
from tests.oracle import adversarial_points, is_adversarial
from tests.strategies import conv_networks, queries


def agrees_with_the_definition(query):
    answer = search_flips(query)
    expected = adversarial_points(query)
    assert answer.verdict is (Verdict.NOT_ROBUST if expected else Verdict.ROBUST)
    if expected:
        assert query.region.contains(answer.counterexample) and is_adversarial(query, answer.counterexample)


@settings(max_examples=60)
@given(queries(max_inputs=8, max_blocks=1, max_width=7).filter(lambda q: q.network.blocks))
def test_one_hidden_block_gives_the_verdict_of_the_definition(query):
    agrees_with_the_definition(query)


@settings(max_examples=30)
@given(queries(max_inputs=6, max_blocks=3).filter(lambda q: q.network.blocks))
def test_deep_networks_give_the_verdict_of_the_definition(query):
    agrees_with_the_definition(query)


@settings(max_examples=40)
@given(queries(kind=conv_networks, max_inputs=7))
def test_convolutions_give_the_verdict_of_the_definition(query):
    agrees_with_the_definition(query)


@st.composite
def systems(draw):
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    entries = st.lists(st.sampled_from([-1, 0, 1]), min_size=columns, max_size=columns)
    matrix = draw(st.lists(entries, min_size=rows, max_size=rows))
    demand = draw(st.lists(st.integers(-2, 3), min_size=rows, max_size=rows))
    return np.array(matrix, dtype=np.int8), np.array(demand, dtype=np.int64), draw(st.integers(1, columns))


def has_solution(matrix, demand, r):
    for size in range(r + 1):
        for some in combinations(range(matrix.shape[1]), size):
            if (matrix[:, list(some)].sum(axis=1) >= demand).all():
                return True
    return False


@given(systems(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_columns_are_found_exactly_where_some_set_meets_the_demand(system, weights):
    matrix, demand, r = system
    chosen = np.zeros(r, dtype=np.int64)
    multipliers = np.array(weights[: len(demand)])
    status, size, _ = search_columns(matrix, demand, r, multipliers, chosen, 10**6)
    assert status == (FOUND if has_solution(matrix, demand, r) else NONE)
    if status == FOUND:
        assert len(set(chosen[:size].tolist())) == size
        assert (matrix[:, chosen[:size]].sum(axis=1) >= demand).all()


@given(systems())
def test_multipliers_never_exclude_a_solution(system):
    matrix, demand, r = system
    chosen = np.zeros(r, dtype=np.int64)
    status, size = bound_jointly(matrix, demand, r, np.zeros(len(demand)), chosen, 30)
    assert not (status == NONE and has_solution(matrix, demand, r))
    if status == FOUND:
        assert (matrix[:, chosen[:size]].sum(axis=1) >= demand).all()


def test_a_budget_of_columns_leaves_the_system_open():
    rng = np.random.default_rng(3)
    matrix = rng.choice(np.array([-1, 1], dtype=np.int8), (6, 60))
    demand = np.full(6, 4, dtype=np.int64)
    status, _, looked = search_columns(matrix, demand, 5, np.ones(6), np.zeros(5, dtype=np.int64), 1)
    assert status == 0 and looked >= 1


def crowded(seed):
    """Many neurons one or two steps from their thresholds, some of which help and some of which harm."""
    rng = np.random.default_rng(seed)
    n, m = 9, int(rng.integers(4, 9))
    x = rng.choice([-1, 1], n)
    weights = rng.choice([-1, 1], (m, n))
    thresholds = weights @ x + rng.integers(-4, 6, m)
    output = OutputBlock.create(rng.choice([-1, 1], (3, m)), bias=rng.integers(-2, 3, 3).tolist())
    network = BinaryNetwork(InputDomain.binary(n), (DenseBlock.create(weights, thresholds),), output)
    return network, tuple(x.tolist())


def test_where_neurons_help_and_harm_at_once_the_verdict_is_that_of_enumeration():
    exact, columns, open_ = EnumerationEngine(), 0, 0
    for seed in range(150):
        network, x = crowded(seed)
        for radius in (1, 2, 3):
            kept = Untargeted(network.evaluate(x)) if seed % 3 else Targeted(seed % 2)
            query = Query(network, HammingBall(x, radius), kept, list(Ties)[seed % 3])
            answer = search_flips(query)
            assert answer.verdict is exact.decide(query).verdict, (seed, radius)
            columns += answer.run.statistics["columns"] > 0
            open_ += answer.run.statistics["nodes"] > 3
    assert columns > 10 and open_ > 40  # the searches were not all settled at their root


def wide(seed=0, n=120, m=40, classes=4):
    rng = np.random.default_rng(seed)
    block = DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-3, 4, m))
    output = OutputBlock.create(rng.choice([-1, 1], (classes, m)))
    return BinaryNetwork(InputDomain.binary(n), (block,), output), tuple(rng.choice([-1, 1], n).tolist())


@pytest.mark.parametrize("ties", Ties)
def test_verdicts_are_monotone_in_the_radius_beyond_what_can_be_enumerated(ties):
    network, x = wide()
    prop = Untargeted(network.evaluate(x))
    verdicts = [search_flips(Query(network, HammingBall(x, r), prop, ties)).verdict for r in range(6)]
    first = verdicts.index(Verdict.NOT_ROBUST)
    assert verdicts == [Verdict.ROBUST] * first + [Verdict.NOT_ROBUST] * (6 - first)


def test_a_target_is_reached_no_earlier_than_some_other_class():
    network, x = wide(seed=4)
    own = network.evaluate(x)

    def distance(prop):
        return next(r for r in range(30) if search_flips(Query(network, HammingBall(x, r), prop)).counterexample)

    assert distance(Untargeted(own)) == min(distance(Targeted(k)) for k in range(4) if k != own)


def test_a_stopped_search_says_so_and_proves_nothing():
    network, x = wide()
    query = Query(network, HammingBall(x, 40), Untargeted(network.evaluate(x)))
    answer = search_flips(query, monitor=Monitor(stop=True))
    assert answer.verdict is Verdict.UNKNOWN and answer.run.reason == "interrupted"
    answer = search_flips(query, limits=Limits(seconds=1e-9))
    assert answer.verdict is Verdict.UNKNOWN and "time limit" in answer.run.reason


def test_scores_too_large_for_int64_are_served_all_the_same():
    rng = np.random.default_rng(1)
    block = DenseBlock.create(rng.choice([-1, 1], (5, 6)), [0] * 5)
    output = OutputBlock.create(rng.choice([-1, 1], (3, 5)), scale=[1e-25, 3.7, 2**60], bias=[0.1, 0.2, 1e-30])
    network = BinaryNetwork(InputDomain.binary(6), (block,), output)
    for label in range(3):
        agrees_with_the_definition(Query(network, HammingBall((1,) * 6, 2), Untargeted(label)))


def test_boxes_and_networks_without_a_hidden_block_are_refused():
    output = OutputBlock.create([[1, 1], [1, -1]])
    bare = BinaryNetwork(InputDomain.binary(2), (), output)
    with pytest.raises(UnsupportedError, match=r"expected -1/\+1 inputs and a hidden block"):
        search_flips(Query(bare, HammingBall((1, 1), 1), Untargeted(0)))
    block = DenseBlock.create([[1, 1], [1, -1]], [0, 0])
    pixels = BinaryNetwork(InputDomain.integers([0, 0], [9, 9]), (block,), output)
    with pytest.raises(UnsupportedError, match="box of integers"):
        search_flips(Query(pixels, PixelBox((0, 0), (3, 3)), Untargeted(0)))
