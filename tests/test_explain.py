"""Explanations: sufficient, minimal and essential by the definition, proved or labelled as not."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bnnverify import datasets
from bnnverify.engines.base import Clock, Limits, Monitor
from bnnverify.engines.bounds import IntervalBounds
from bnnverify.engines.probing import Probe
from bnnverify.engines.sat import FixingSearch, Refutation
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.explain import check_explanation, essential, essential_features, implicants, parts, prime_implicant
from bnnverify.explain.parts import negated, within
from bnnverify.formats import native
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
from bnnverify.results import Kind, Verdict, answer_from_json
from bnnverify.robustness import decide
from tests import oracle
from tests.strategies import conv_networks, queries

MODELS = Path(__file__).resolve().parent.parent / "models"


def flips_of_adversarial(query):
    """Where each adversarial input of the region differs from the centre: the definition, in sets."""
    center = query.region.center
    return [{i for i, v in enumerate(x) if v != center[i]} for x in oracle.adversarial_points(query)]


def is_prime(query, kept):
    flips = flips_of_adversarial(query)
    kept = set(kept)
    suffices = all(kept & changed for changed in flips)
    minimal = all(any(not (kept - {i}) & changed for changed in flips) for i in kept)
    return suffices and minimal


def random_network(seed, *widths):
    generator = np.random.default_rng(seed)
    blocks = [
        DenseBlock.create(generator.choice([-1, 1], (m, n)), generator.integers(-3, 4, m))
        for n, m in pairwise(widths[:-1])
    ]
    output = OutputBlock.create(generator.choice([-1, 1], (widths[-1], widths[-2])))
    return BinaryNetwork(InputDomain.binary(widths[0]), tuple(blocks), output)


@st.composite
def lively_queries(draw):
    """About networks whose class depends on many inputs; the centre has the class that is asked about."""
    widths = draw(st.lists(st.integers(3, 6), min_size=1, max_size=2))
    network = random_network(draw(st.integers(0, 10**6)), draw(st.integers(4, 7)), *widths, draw(st.integers(2, 4)))
    n = network.n_inputs
    center = tuple(np.random.default_rng(draw(st.integers(0, 10**6))).choice([-1, 1], n).tolist())
    free = sorted(draw(st.sets(st.integers(0, n - 1), min_size=n - 1)))
    ball = HammingBall(center, draw(st.integers(1, len(free))), free)
    region = draw(st.sampled_from([FixedIndexRegion(center, tuple(free)), ball]))
    return Query(network, region, Untargeted(network.evaluate(center)), draw(st.sampled_from(list(Ties))))


def small_queries():
    """Half of them lively, the others with every feature of a network, mostly of a constant class."""
    odd = st.one_of(queries(max_inputs=6, max_width=5), queries(conv_networks, max_inputs=6, max_outputs=12))
    return st.one_of(lively_queries(), odd)


def explained(query, **options):
    """The explanation, checked against the definition; None where nothing can force the class."""
    if oracle.is_adversarial(query, query.region.center):
        with pytest.raises(QueryError, match="the centre of the region is adversarial itself"):
            prime_implicant(query, **options)
        return None
    answer = prime_implicant(query, **options)
    assert answer.kind is Kind.EXACT and answer.is_prime and answer.needed == answer.kept and not answer.run.reason
    assert set(answer.kept) <= set(query.region.free) and answer.n_free == len(query.region.free)
    assert answer.values == tuple(query.region.center[i] for i in answer.kept)
    assert list(answer.kept) == sorted(answer.kept)
    assert is_prime(query, answer.kept)
    assert answer_from_json(json.dumps(answer.to_json())).kept == answer.kept
    return answer


@settings(max_examples=200)
@given(small_queries(), st.sampled_from(implicants.ORDERS), st.integers(0, 3))
def test_an_explanation_is_prime_by_the_definition(query, order, seed):
    explained(query, order=order, seed=seed)


@settings(max_examples=100)
@given(small_queries(), st.sampled_from(implicants.ORDERS))
def test_local_search_changes_nothing(query, order):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "enumeration_seconds", lambda query: 10.0)  # long, but not too long to enumerate
        explained(query, order=order)


@pytest.fixture
def by_sat(monkeypatch):
    """Nothing is enumerated, and local search finds nothing: the solver does all the work."""
    monkeypatch.setattr(parts, "enumeration_seconds", lambda query: 1e9)
    monkeypatch.setattr("bnnverify.engines.probing._POOL", 0)


@pytest.mark.parametrize("nodes", [0, 10, 10**6])
@pytest.mark.parametrize("proves", [True, False], ids=["bounds", "no bounds"])
def test_sat_explains_by_the_definition_however_large_its_formulas(by_sat, monkeypatch, nodes, proves):
    monkeypatch.setattr(implicants, "_ENCODE_UP_TO", nodes)
    if not proves:
        monkeypatch.setattr(IntervalBounds, "prove", lambda self, free: False)

    @settings(max_examples=80)
    @given(small_queries(), st.sampled_from(implicants.ORDERS))
    def check(query, order):
        explained(query, order=order)

    check()


@pytest.mark.parametrize("engine", ["enumeration", "bdd", "sat"])
def test_every_engine_explains_by_the_definition(engine):
    @settings(max_examples=25)
    @given(small_queries())
    def check(query):
        explained(query, engine=engine)

    check()


@settings(max_examples=100)
@given(lively_queries(), st.randoms(use_true_random=False))
def test_the_given_order_decides_what_is_kept(query, random):
    assume(not oracle.is_adversarial(query, query.region.center))
    order = list(query.region.free)
    random.shuffle(order)
    flips, kept = flips_of_adversarial(query), set(order)
    for index in order:  # deletion, in plain loops
        if all((kept - {index}) & changed for changed in flips):
            kept.remove(index)
    answer = prime_implicant(query, order=order)
    assert set(answer.kept) == kept and answer.order == "given"


@settings(max_examples=100)
@given(small_queries(), st.data())
def test_the_check_agrees_with_the_definition(query, data):
    kept = data.draw(st.sets(st.sampled_from(query.region.free))) if query.region.free else set()
    found = check_explanation(query, sorted(kept))
    flips = flips_of_adversarial(query)
    assert found.is_prime == is_prime(query, kept)
    assert (found.sufficient is Verdict.ROBUST) == all(kept & changed for changed in flips)
    redundant = {i for i in kept if all((kept - {i}) & changed for changed in flips)}
    assert set(found.redundant) == redundant and found.undecided == ()
    if found.counterexample is not None:
        assert all(found.counterexample[i] == query.region.center[i] for i in kept)
        assert oracle.is_adversarial(query, found.counterexample)


def essentials(query):
    """(index, value) by the definition, and whether some input has the class at all."""
    points = [x for x in query.region.points() if not oracle.is_adversarial(query, x)]
    same = {i: {x[i] for x in points} for i in query.region.free}
    return {i: v.pop() for i, v in same.items() if len(v) == 1}, bool(points)


@pytest.mark.parametrize("enumerated", [True, False], ids=["enumeration", "sat"])
def test_essential_features_are_those_of_the_definition(monkeypatch, enumerated):
    if not enumerated:
        monkeypatch.setattr(essential, "is_enumerable", lambda query, seconds: False)
        monkeypatch.setattr(essential, "_SAMPLES", 0)

    @settings(max_examples=100)
    @given(small_queries())
    def check(query):
        answer = essential_features(query)
        expected, exist = essentials(query)
        assert answer.kind is Kind.EXACT and answer.undecided == ()
        assert (answer.witness is not None) == exist
        if exist:
            assert dict(zip(answer.essential, answer.values, strict=True)) == expected
            assert not oracle.is_adversarial(query, answer.witness) and query.region.contains(answer.witness)
        else:
            assert answer.essential == ()
        assert answer_from_json(answer.to_json()).essential == answer.essential

    check()


@settings(max_examples=200)
@given(small_queries())
def test_the_negated_query_asks_for_all_other_inputs(query):
    other = negated(query)
    assert negated(other) == query
    for x in query.region.points():
        assert oracle.is_adversarial(query, x) != oracle.is_adversarial(other, x)


@settings(max_examples=200)
@given(small_queries(), st.data())
def test_bounds_prove_nothing_that_is_false(query, data):
    free = sorted(data.draw(st.sets(st.sampled_from(query.region.free)))) if query.region.free else []
    part = Query(query.network, within(query.region, free), query.property, query.ties)
    if IntervalBounds(query).prove(np.array(free, dtype=int)):
        assert oracle.adversarial_points(part) == []


@settings(max_examples=60)
@given(queries(max_inputs=6, max_blocks=1, max_width=1, max_classes=2))
def test_bounds_decide_a_network_of_one_neuron(query):
    assume(len(query.network.blocks) == 1 and isinstance(query.property, Untargeted))
    proved = IntervalBounds(query).prove(np.array(query.region.free, dtype=int))
    assert proved == (oracle.adversarial_points(query) == [])


@settings(max_examples=100)
@given(small_queries(), st.data())
def test_a_probe_finds_only_what_is_adversarial_and_where_it_was_asked_to(query, data):
    assume(query.region.free)
    free = sorted(data.draw(st.sets(st.sampled_from(query.region.free))))
    more = [i for i in query.region.free if i not in free]
    probe = Probe(query)
    center = query.region.center
    for index, x in probe.breakers(free, more).items():
        assert oracle.is_adversarial(query, x) and query.region.contains(x)
        assert {i for i in range(len(x)) if x[i] != center[i]} <= {*free, index}
    if free and (x := probe.search(free)) is not None:
        assert oracle.is_adversarial(query, x) and query.region.contains(x)
        small = probe.shrunk(x, query.region.free)
        assert oracle.is_adversarial(query, small)
        assert {i for i in range(len(x)) if small[i] != center[i]} <= {i for i in range(len(x)) if x[i] != center[i]}


@settings(max_examples=100)
@given(small_queries(), st.data())
def test_a_solver_under_assumptions_answers_by_the_definition(query, data):
    points = oracle.adversarial_points(query)
    with FixingSearch(query, Clock(None)) as search:
        for _ in range(4):
            chosen = data.draw(st.sets(st.sampled_from(query.region.free))) if query.region.free else set()
            fixed = {i: data.draw(st.sampled_from([-1, 1])) for i in chosen}
            answer = search.search(fixed, Clock(None))
            if isinstance(answer, Refutation):
                assert set(answer.core) <= chosen
                assert not any(all(x[i] == fixed[i] for i in answer.core) for x in points)
            else:
                assert answer in points and all(answer[i] == v for i, v in fixed.items())


def majority(n):
    """Class 0 iff at least half of the n inputs are +1."""
    return BinaryNetwork(InputDomain.binary(n), (), OutputBlock.create([[1] * n, [-1] * n]))


def test_half_of_the_inputs_explain_a_majority():
    query = Query(majority(20), FixedIndexRegion((1,) * 20, tuple(range(20))), Untargeted(0))
    answer = prime_implicant(query)
    assert len(answer.kept) == 10 and answer.values == (1,) * 10
    assert prime_implicant(query, order="index").kept == tuple(range(10, 20))
    ball = Query(majority(20), HammingBall((1,) * 20, 11), Untargeted(0))
    assert len(prime_implicant(ball).kept) == 10
    assert prime_implicant(Query(majority(20), HammingBall((1,) * 20, 10), Untargeted(0))).kept == ()


def test_essential_features_of_a_class_that_leaves_no_choice():
    # class 1 needs more than half to be -1; with radius 3 around four +1 and one -1 all flips are used up
    query = Query(majority(5), HammingBall((1, 1, 1, 1, -1), 2), Untargeted(1))
    answer = essential_features(query)
    assert (answer.essential, answer.values) == ((4,), (-1,))
    none = essential_features(Query(majority(5), HammingBall((1, 1, 1, 1, 1), 2), Untargeted(1)))
    assert none.witness is None and none.essential == () and none.kind is Kind.EXACT


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("best", "order is 'best', expected influence, index, random or a list of indices"),
        ((0, 1), "order lists 2 indices, expected each of the 3 free inputs once"),
        ((0, 1, 1), "order lists 3 indices, expected each of the 3 free inputs once"),
    ],
)
def test_orders_that_make_no_sense_are_refused(order, message):
    with pytest.raises(QueryError, match=message):
        prime_implicant(Query(majority(3), whole_cube(3), Untargeted(0)), order=order)


@pytest.fixture
def hard():
    network = random_network(1, 60, 50, 30, 5)
    x = tuple(np.random.default_rng(2).choice([-1, 1], 60).tolist())
    return Query(network, FixedIndexRegion(x, tuple(range(60))), Untargeted(network.evaluate(x)))


def test_a_limit_leaves_a_set_that_suffices_and_says_that_it_may_not_be_minimal(hard):
    answer = prime_implicant(hard, limits=Limits(seconds=0.05))
    assert answer.kind is Kind.INTERVAL and answer.run.reason == "time limit of 0.05 s reached"
    assert answer.undecided and set(answer.undecided) | set(answer.needed) == set(answer.kept)
    free = [i for i in range(60) if i not in answer.kept]
    assert decide(Query(hard.network, within(hard.region, free), hard.property)).verdict is Verdict.ROBUST


@settings(max_examples=200)
@given(lively_queries(), st.integers(0, 4))
def test_whoever_stops_the_work_gets_a_set_that_suffices(query, looks):
    assume(not oracle.is_adversarial(query, query.region.center))
    monitor = Monitor()
    seen = []

    def show(needed, kept, free):
        seen.append((needed, kept, free))
        monitor.stop = len(seen) > looks

    monitor.show = show
    answer = prime_implicant(query, monitor=monitor)
    flips = flips_of_adversarial(query)
    assert all(set(answer.kept) & changed for changed in flips)
    # every part of it that suffices holds what is needed
    assert all(any(not (set(answer.kept) - {i}) & changed for changed in flips) for i in answer.needed)
    assert answer.is_prime == (answer.run.reason != "interrupted") == (answer.kind is Kind.EXACT)
    assert seen == sorted(seen, key=lambda one: (one[0], -one[1]))


def test_an_engine_that_gives_up_leaves_inputs_undecided(hard):
    answer = prime_implicant(hard, engine="bdd", limits=Limits(nodes=2))
    assert answer.kind is Kind.INTERVAL and answer.run.reason == "node limit of 2 reached" and answer.undecided


def test_essential_features_that_a_limit_leaves_open_are_listed(hard, monkeypatch):
    monkeypatch.setattr(essential, "_SAMPLES", 0)
    region = HammingBall(hard.region.center, 30)
    answer = essential_features(Query(hard.network, region, hard.property), limits=Limits(seconds=1e-3))
    assert answer.kind is Kind.INTERVAL and answer.run.reason.startswith("time limit")
    assert set(answer.undecided).isdisjoint(answer.essential) and answer.witness == region.center
    other = Targeted(hard.property.label)  # the inputs without it: the centre is none of them
    unknown = essential_features(Query(hard.network, region, other), limits=Limits(seconds=1e-9))
    assert unknown.witness is None and len(unknown.undecided) == 60 and unknown.kind is Kind.INTERVAL


def test_a_check_that_runs_out_of_time_says_so(hard):
    found = check_explanation(hard, range(0, 60, 2), limits=Limits(seconds=1e-9))
    assert found.sufficient is Verdict.UNKNOWN and not found.is_prime and found.undecided
    assert found.reason.startswith("time limit") and found.to_json()["prime"] is False
    assert check_explanation(Query(majority(3), HammingBall((1, 1, -1), 0), Untargeted(0)), [1]).redundant == (1,)


def test_a_search_stops_when_its_clock_has_run_out(hard):
    with FixingSearch(hard, Clock(None)) as search, pytest.raises(ResourceLimitError, match="time limit of 1e-09 s"):
        search.search({}, Clock(1e-9))


@pytest.mark.parametrize("radius", [2, 3])
def test_a_real_image_is_explained_and_checked(radius):
    network = native.load(MODELS / "digits-64-32-10.npz")
    images = datasets.inputs_for(network, datasets.load("digits").splits["test"])
    for index in range(3):
        x = tuple(images[index].tolist())
        query = Query(network, HammingBall(x, radius), Untargeted(network.evaluate(x)))
        answer = prime_implicant(query)
        assert answer.is_prime and check_explanation(query, answer.kept).is_prime
        for i in answer.kept[:2]:  # the check notices what is missing, and what is too much
            assert check_explanation(query, [j for j in answer.kept if j != i]).sufficient is Verdict.NOT_ROBUST
        more = next(i for i in range(64) if i not in answer.kept)
        assert check_explanation(query, [*answer.kept, more]).redundant


def test_ties_are_part_of_the_question():
    network = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [-1, -1]]))
    region = FixedIndexRegion((1, 1), (0, 1))
    kept = {t: prime_implicant(Query(network, region, Untargeted(0), t)).kept for t in Ties}
    assert len(kept[Ties.COUNTEREXAMPLE]) == 2 and len(kept[Ties.ROBUST]) == len(kept[Ties.LOWEST_INDEX]) == 1
