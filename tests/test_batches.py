"""Small regions without compiled loops: the answers of the definition, and the same counterexamples as the loops."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings

from bnnverify.engines import batches
from bnnverify.engines.base import Limits
from bnnverify.engines.enumeration import EnumerationEngine
from bnnverify.formats import load_network
from bnnverify.query import Query, Untargeted
from bnnverify.regions import HammingBall, whole_cube
from bnnverify.results import Kind, Verdict
from tests.oracle import adversarial_points, per_class
from tests.strategies import conv_networks, queries

ENGINE = EnumerationEngine()
MODEL = Path(__file__).parent.parent / "models" / "digits-64-32-10.npz"


def in_batches(ask, *arguments, **options):
    """The answer of the engine where the question counts as small."""
    before, batches._spent = batches._spent, 0.0
    try:
        return ask(*arguments, **options)
    finally:
        batches._spent = before


def agree(query):
    adversarial, size = set(adversarial_points(query)), query.region.size()
    count = in_batches(ENGINE.count, query)
    assert (count.kind, count.lower, count.upper, count.region_size) == (
        Kind.EXACT,
        len(adversarial),
        len(adversarial),
        size,
    )
    assert list(count.per_class) == list(per_class(query))
    loops = ENGINE.count(query)
    assert (count.per_class, count.per_radius) == (loops.per_class, loops.per_radius)
    decision = in_batches(ENGINE.decide, query)
    assert (decision.verdict is Verdict.NOT_ROBUST) == bool(adversarial)
    assert decision.counterexample == ENGINE.decide(query).counterexample


@settings(max_examples=60)
@given(queries())
def test_batches_say_what_the_definition_and_the_loops_say(query):
    agree(query)


@settings(max_examples=20)
@given(queries(conv_networks))
def test_batches_of_convolutions_do_so_too(query):
    agree(query)


SMALL = """
import sys
from bnnverify.cli import main
code = main(["verify", "{model}", "--data", "digits", "--index", "0:5", "--radius", "2"])
print(code, sorted({{"numba", "sklearn", "scipy", "pandas"}} & set(sys.modules)))
"""


def test_a_small_question_neither_compiles_nor_imports_what_is_heavy():
    done = subprocess.run([sys.executable, "-c", SMALL.format(model=MODEL)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []" and "2 robust, 3 not-robust" in done.stdout


def test_many_questions_go_through_the_loops():
    query = Query(load_network(MODEL), HammingBall((1,) * 64, 2), Untargeted(0))
    assert in_batches(batches.is_small, [query], Limits())
    assert not in_batches(batches.is_small, [query] * 10_000, Limits())
    assert not in_batches(batches.is_small, [query], Limits(nodes=5))
    assert not in_batches(batches.is_small, [replace(query, region=whole_cube(64))], Limits())


def test_a_limit_on_time_ends_batches():
    query = Query(load_network(MODEL), HammingBall((1,) * 64, 3), Untargeted(0))
    answer = in_batches(ENGINE.count, query, limits=Limits(seconds=1e-6))
    assert (answer.kind, answer.lower, answer.upper) == (Kind.INTERVAL, 0, answer.region_size)
    assert "time limit" in answer.run.reason and answer.run.statistics["radius_proved"] == -1
