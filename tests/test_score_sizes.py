"""Exact scores of any size: scales and biases from 1e-300 to 1e300 in one output get the oracle's answer everywhere."""

import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cardinality import compile_query
from bnnverify.cli import main
from bnnverify.deciding.attack import attack
from bnnverify.deciding.stages import decide
from bnnverify.encodings.dumping import write_cp
from bnnverify.engines import DECIDING, NAMES, engine_named
from bnnverify.errors import UnsupportedError
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import HammingBall
from bnnverify.results import Verdict
from tests import oracle
from tests.strategies import conv_networks, queries

EXPONENTS = st.integers(-300, 300)
SIZES = st.builds(lambda digits, exponent: digits * Fraction(10) ** exponent, st.integers(1, 9), EXPONENTS)
BIASES = st.one_of(st.just(Fraction(0)), SIZES, SIZES.map(lambda size: -size))


@st.composite
def wide_queries(draw, **options):
    """A question of `queries`, with scales and biases of any size."""
    query = draw(queries(**options))
    output = query.network.output
    scale = tuple(draw(SIZES) for _ in output.scale)
    bias = tuple(draw(BIASES) for _ in output.bias)
    wide = replace(output, scale=scale, bias=bias)
    network = BinaryNetwork(query.network.domain, query.network.blocks, wide)
    return Query(network, query.region, query.property, query.ties)


@settings(max_examples=25, deadline=None)
@given(wide_queries())
def test_the_attack_takes_scores_of_any_size(query):
    points = oracle.adversarial_points(query)
    found = attack(query, rounds=4)
    assert (found.counterexample is None) or (found.counterexample in points)


@pytest.mark.parametrize("name", [*NAMES, *DECIDING])
@settings(max_examples=8, deadline=None)
@given(st.one_of(wide_queries(), wide_queries(kind=conv_networks)))
def test_every_engine_answers_scores_of_any_size_or_refuses_them(name, query):
    engine = engine_named(name)
    points = oracle.adversarial_points(query)
    try:
        decision = engine.decide(query)
    except UnsupportedError:
        return
    assert decision.verdict is (Verdict.NOT_ROBUST if points else Verdict.ROBUST)
    assert (decision.counterexample in points) if points else decision.counterexample is None
    if name in NAMES:
        assert engine.count(query).adversarial == len(points)


@settings(max_examples=8, deadline=None)
@given(st.one_of(wide_queries(), wide_queries(kind=conv_networks)))
def test_the_stages_answer_scores_of_any_size(query):
    points = oracle.adversarial_points(query)
    decision = decide(query)
    assert decision.verdict is (Verdict.NOT_ROBUST if points else Verdict.ROBUST)


def far_apart():
    """One output scale of 1e200 beside one of 1e-200."""
    output = OutputBlock.create([[1, 1], [1, -1]], scale=[Fraction(10) ** 200, Fraction(10) ** -200])
    hidden = DenseBlock.create([[1, 1], [1, -1]], [0, 0])
    network = BinaryNetwork(InputDomain.binary(2), (hidden,), output)
    return Query(network, HammingBall((1, 1), 2), Untargeted(network.evaluate([1, 1])))


def test_the_attack_and_the_stages_once_ended_in_an_overflow():
    query = far_apart()
    points = oracle.adversarial_points(query)
    assert decide(query).verdict is (Verdict.NOT_ROBUST if points else Verdict.ROBUST)
    assert attack(query, rounds=4).counterexample in [*points, None]


def test_cp_sat_and_its_dump_refuse_sums_that_do_not_fit():
    with pytest.raises(UnsupportedError, match="scales of the scores differ too much"):
        engine_named("cpsat").decide(far_apart())
    with pytest.raises(UnsupportedError, match="scales of the scores differ too much"):
        write_cp(compile_query(far_apart()), io.StringIO())


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "--radius", "2", "--certificate", "proof"),
        ("count", "--radius", "3", "--by-radius"),
        ("count", "--whole-cube", "--noise", "0.01"),
        ("count", "--radius", "3", "--samples", "2"),
        ("distance",),
        ("explain", "--radius", "1"),
        ("certify", "--keep", "predicted", "--radius", "1"),
        ("reliability", "--ber", "1e-2"),
        ("reliability", "--worst-case", "--critical", "2", "--coefficients", "2", "--ber", "1e-4"),
    ],
)
def test_every_verb_answers_about_scores_far_apart(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    hidden = DenseBlock.create([[1, -1, 1, 1], [1, 1, -1, 1], [-1, 1, 1, 1]], [0, 2, 0])
    scale, bias = [Fraction(10) ** 200, Fraction(10) ** -200, 1], [0, Fraction(10) ** 199, -3]
    output = OutputBlock.create([[1, 1, -1], [1, -1, 1], [-1, 1, 1]], scale=scale, bias=bias)
    network = BinaryNetwork(InputDomain.binary(4), (hidden,), output)
    save(network, "far.npz")
    Path("x.txt").write_text("1 0 1 1")
    assert main([words[0], "far.npz", "--input", "x.txt", *words[1:], "-q"]) == 0
    x = (1, -1, 1, 1)
    query = Query(network, HammingBall(x, 4), Untargeted(network.evaluate(x)))
    assert main(["count", "far.npz", "--input", "x.txt", "--radius", "4", "--json", "-q"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert int(line["answer"]["lower"]) == len(oracle.adversarial_points(query))
