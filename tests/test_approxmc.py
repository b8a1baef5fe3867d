"""ApproxMC as a cross-check: another tool's counts hold ours, and never pass for exact ones."""

import numpy as np
import pytest

from bnnverify.engines.approxmc import ApproxMcEngine
from bnnverify.engines.base import Limits
from bnnverify.engines.bdd import BddEngine
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Untargeted
from bnnverify.regions import HammingBall, whole_cube
from bnnverify.results import Kind


def network(n, hidden, classes, seed):
    generator = np.random.default_rng(seed)
    block = DenseBlock.create(generator.choice([-1, 1], (hidden, n)), generator.integers(-2, 3, hidden))
    return BinaryNetwork(
        InputDomain.binary(n), (block,), OutputBlock.create(generator.choice([-1, 1], (classes, hidden)))
    )


NET = network(10, 5, 3, 1)
QUERIES = [
    Query(NET, whole_cube(10), Untargeted(0)),
    Query(NET, HammingBall((1,) * 10, 4), Targeted(1)),
    Query(NET, HammingBall((1, -1) * 5, 0), Untargeted(0)),
    Query(NET, HammingBall((1, -1) * 5, 0), Untargeted(1)),
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: f"{q.region}, {q.property}")
def test_the_exact_count_lies_in_the_tolerance_and_the_kind_says_pac(query):
    pytest.importorskip("pyapproxmc")
    count = ApproxMcEngine(epsilon=0.5, delta=0.01).count(query)
    assert count.kind is Kind.PAC and count.per_class is None
    assert count.lower <= BddEngine().count(query).adversarial <= count.upper
    assert (count.run.statistics["epsilon"], count.run.statistics["delta"]) == (0.5, 0.01)
    with pytest.raises(QueryError, match="the count is pac"):
        _ = count.adversarial


def test_a_limit_gives_the_whole_region_and_the_reason():
    pytest.importorskip("pyapproxmc")
    count = ApproxMcEngine().count(QUERIES[0], limits=Limits(seconds=1e-6))
    assert (count.kind, count.lower, count.upper) == (Kind.INTERVAL, 0, 1024)
    assert count.run.reason == "time limit of 1e-06 s reached"


def test_it_proves_no_verdict_and_refuses_numbers_out_of_range():
    with pytest.raises(UnsupportedError, match="proves no verdict"):
        ApproxMcEngine().decide(QUERIES[0])
    for numbers in ({"epsilon": 0}, {"delta": 0}, {"delta": 1}, {"epsilon": float("nan")}):
        with pytest.raises(QueryError, match="expected above 0"):
            ApproxMcEngine(**numbers)
