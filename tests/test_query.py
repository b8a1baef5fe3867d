"""Query: the meaning of each property and tie rule, and its identity."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import HammingBall, whole_cube
from tests import oracle
from tests.strategies import queries


def network(weights=((1, 1), (1, -1), (-1, -1))):
    return BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create(weights))


@given(queries(max_inputs=6))
@settings(max_examples=300, deadline=None)
def test_adversarial_means_what_the_definition_says(query):
    for x in product((-1, 1), repeat=query.network.n_inputs):
        expected = query.region.contains(x) and oracle.is_adversarial(query, x)
        assert query.is_adversarial(x) == expected


@pytest.mark.parametrize(
    ("ties", "prop", "expected"),
    [
        (Ties.LOWEST_INDEX, Untargeted(0), False),
        (Ties.LOWEST_INDEX, Untargeted(1), True),
        (Ties.COUNTEREXAMPLE, Untargeted(0), True),
        (Ties.COUNTEREXAMPLE, Untargeted(1), True),
        (Ties.ROBUST, Untargeted(0), False),
        (Ties.ROBUST, Untargeted(1), False),
        (Ties.LOWEST_INDEX, Targeted(0), True),
        (Ties.LOWEST_INDEX, Targeted(1), False),
        (Ties.COUNTEREXAMPLE, Targeted(1), True),
        (Ties.ROBUST, Targeted(0), False),
    ],
)
def test_a_tie_between_0_and_1_counts_as_its_rule_says(ties, prop, expected):
    tied = network([[1, 1], [1, 1]])
    query = Query(tied, HammingBall((1, 1), 0), prop, ties)
    assert query.is_adversarial((1, 1)) is expected


@given(queries(max_inputs=5))
def test_the_rules_are_ordered_from_robust_to_counterexample(query):
    def points(ties):
        return set(oracle.adversarial_points(Query(query.network, query.region, query.property, ties)))

    assert points(Ties.ROBUST) <= points(Ties.LOWEST_INDEX) <= points(Ties.COUNTEREXAMPLE)


def test_the_identity_depends_on_everything_that_affects_the_answer():
    base = (network(), HammingBall((1, 1), 1), Untargeted(0), Ties.LOWEST_INDEX)
    same = Query(*base)
    others = [
        Query(network([[1, 1], [1, -1], [-1, 1]]), *base[1:]),
        Query(base[0], HammingBall((1, 1), 2), *base[2:]),
        Query(base[0], HammingBall((1, -1), 1), *base[2:]),
        Query(base[0], base[1], Untargeted(1)),
        Query(base[0], base[1], Targeted(0)),
        Query(*base[:3], Ties.ROBUST),
    ]
    assert Query(*base).identity == same.identity and Query(*base) == same and hash(Query(*base)) == hash(same)
    assert len({same.identity, *(q.identity for q in others)}) == 7


@pytest.mark.parametrize(
    ("region", "prop", "message"),
    [
        (whole_cube(3), Untargeted(0), "the region has 3 inputs, but the network takes 2"),
        (whole_cube(2), Untargeted(3), "class 3 does not exist, expected 0 to 2"),
        (whole_cube(2), Targeted(-1), "class -1 does not exist, expected 0 to 2"),
    ],
)
def test_questions_that_do_not_fit_the_network_are_refused(region, prop, message):
    with pytest.raises(QueryError, match=message):
        Query(network(), region, prop)


def test_integer_inputs_are_refused_with_the_reason():
    integers = BinaryNetwork(InputDomain.integers([0, 0], [255, 255]), (), network().output)
    with pytest.raises(UnsupportedError, match="the network takes integer inputs"):
        Query(integers, whole_cube(2), Untargeted(0))


def test_properties_read_as_sentences():
    assert str(Untargeted(3)) == "class is not 3"
    assert str(Targeted(3)) == "class is 3"


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64])
@pytest.mark.parametrize("prop", [Untargeted, Targeted])
def test_labels_of_numpy_become_plain_integers(prop, kind):
    number = prop(kind(1))
    assert number == prop(1) and all(type(getattr(number, name)) is int for name in number.__dataclass_fields__)
    for wrong in (True, np.bool_(True), 1.0, np.float64(1), "1", None):
        with pytest.raises(QueryError, match=r"class is .*, expected an integer"):
            prop(wrong)
