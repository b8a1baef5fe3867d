"""The expansion around conditional independence: every effort against exact Fractions, and its parts in plain loops."""

from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bnnverify
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import onehidden
from bnnverify.reliability.exact import exact_error_probability
from bnnverify.reliability.expansion import MAX_RIVALS
from bnnverify.reliability.jointlaws import joint_law, windows
from bnnverify.reliability.onehidden import TRIPLES, Effort, OutputProblem
from bnnverify.reliability.probability import FaultyNetwork
from bnnverify.reliability.rounding import outward

MODEL = Path(__file__).parent.parent / "models" / "digits-64-32-10.npz"
RATES = ("1e-6", "1/1000", "1/100", "1/20", "1/5", "1/2", "9/10")
EFFORTS = (
    Effort(0),
    Effort(0, 1 << 16),
    Effort(3, 1 << 16),
    Effort(16, 1 << 14),
    Effort(16),
    Effort(3, forced=True),
    Effort(1000),
)


@st.composite
def one_hidden_networks(draw, full=False):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m, classes = draw(st.integers(3, 13)), draw(st.integers(2, 8)), draw(st.integers(2, 6))
    mask = np.ones((classes, m), dtype=bool)
    if not full and draw(st.booleans()):
        mask = rng.random((classes, m)) < 0.8
    scale = np.ones(classes) if full or draw(st.booleans()) else rng.choice([0.5, 1.0, 2.0, -1.0], classes)
    bias = rng.integers(-3, 4, classes) * draw(st.sampled_from([0.0, 0.5, 1.0]))
    hidden = DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-2, 3, m))
    output = OutputBlock.create(rng.choice([-1, 1], (classes, m)), mask=mask, scale=scale, bias=bias)
    network = BinaryNetwork(InputDomain.binary(n), (hidden,), output)
    return network, rng.choice([-1, 1], n), draw(st.integers(0, classes - 1))


def problem(network, x, label, faults, tolerance):
    faulty = FaultyNetwork(network, faults)
    fires, silent, roundings = faulty._signs(network.domain.require(x))
    tables = faulty.tables(label)
    return OutputProblem(network.output, fires, silent, tables, sign_roundings=roundings, tolerance=tolerance)


def assert_every_effort_contains(exact, network, x, label, faults):
    for tolerance in (1e-2, 1e-8):
        for effort in EFFORTS:
            one = problem(network, x, label, faults, tolerance)
            if one.can_expand or effort.forced:
                found = one.refine(effort)
                lower, upper = outward(found.lower, found.upper, found.roundings)
                assert lower <= exact <= upper, (effort, tolerance)


@settings(max_examples=60, deadline=None)
@given(one_hidden_networks(), st.sampled_from(RATES), st.booleans())
def test_every_effort_contains_the_exact_probability(case, rate, per_block):
    network, x, label = case
    faults = PerBlock((BitFlip("0.2"), BitFlip(Fraction(rate)))) if per_block else BitFlip(Fraction(rate))
    assert_every_effort_contains(exact_error_probability(network, x, label, faults), network, x, label, faults)


@settings(max_examples=60, deadline=None)
@given(one_hidden_networks(full=True), st.sampled_from(RATES), st.sampled_from(["0", "1e-3", "0.05", "0.3"]))
def test_every_effort_contains_the_exact_probability_under_asymmetric_rates(case, p01, p10):
    network, x, label = case
    faults = AsymmetricFlip(Fraction(p01), p10)
    assert problem(network, x, label, faults, 1e-3).can_expand
    assert_every_effort_contains(exact_error_probability(network, x, label, faults), network, x, label, faults)


@pytest.mark.parametrize("faults", [BitFlip("0.02"), AsymmetricFlip("0.01", "0.04")])
def test_each_order_is_far_narrower_than_the_one_before(faults):
    network, test = bnnverify.load(MODEL), bnnverify.load_dataset("digits").test
    widths = []
    for x, label in zip(test.images[:6], test.labels[:6].tolist(), strict=True):
        one = problem(network, x, label, faults, 1e-6)
        widths.append([one.width])
        for effort in (Effort(0), Effort(0, TRIPLES)):
            one.refine(effort)
            widths[-1].append(one.width)
    first, second, third = np.mean(widths, axis=0)
    assert first > 4 * second > 0
    assert second > 4 * third > 0


def test_with_too_many_rivals_or_too_large_laws_the_bounds_stay_valid(monkeypatch):
    rng = np.random.default_rng(2)
    classes = MAX_RIVALS + 3
    hidden = DenseBlock.create(rng.choice([-1, 1], (5, 8)), rng.integers(-2, 3, 5))
    output = OutputBlock.create(rng.choice([-1, 1], (classes, 5)))
    network = BinaryNetwork(InputDomain.binary(8), (hidden,), output)
    x, faults = np.ones(8, dtype=int), BitFlip("0.1")
    exact = exact_error_probability(network, x, 0, faults)
    assert not problem(network, x, 0, faults, 1e-9).can_expand
    answer = bnnverify.error_probability(network, x, 0, faults, tolerance=1e-9)
    assert answer.lower <= exact <= answer.upper < answer.lower + Fraction(1, 10**8)
    monkeypatch.setattr(onehidden, "_LARGEST_LAWS", 1)
    small = BinaryNetwork(InputDomain.binary(8), (hidden,), OutputBlock.create(output.weights[:5]))
    exact = exact_error_probability(small, x, 0, faults)
    assert_every_effort_contains(exact, small, x, 0, faults)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def testjoint_laws_are_those_of_all_deviation_patterns(seed):
    rng = np.random.default_rng(seed)
    signs, walks = int(rng.integers(1, 7)), 3
    deviates = rng.random(signs) / 2
    steps = rng.integers(-1, 2, (signs, walks))
    low, high = -(steps < 0).sum(axis=0), (steps > 0).sum(axis=0)
    classes, size = np.array([2, 0]), int(np.prod((high - low + 1)[[2, 0]]))
    walk = (deviates, 1 - deviates, steps, low, high)
    law = joint_law(classes, walk, 1.0, np.empty(size), np.empty(size)).reshape((high - low + 1)[classes])
    expected = np.zeros_like(law)
    for pattern in product((0, 1), repeat=signs):
        end = np.array(pattern) @ steps
        expected[tuple((end - low)[classes])] += np.prod(np.where(pattern, deviates, 1 - deviates))
    assert np.allclose(law, expected, atol=1e-15)


@pytest.mark.parametrize("exit_mass", [1e-3, 1e-9])
def test_a_walk_leaves_its_window_no_more_often_than_said(exit_mass):
    rng = np.random.default_rng(5)
    deviates, steps = rng.random(12) / 8, rng.choice([-1, 1], (12, 1))
    low, high, exits = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.zeros(1)
    windows(deviates, steps, exit_mass, low, high, exits)
    leaves = Fraction(0)
    for pattern in product((0, 1), repeat=12):
        path = np.cumsum(np.array(pattern) * steps[:, 0])
        if path.min() < low[0] or path.max() > high[0]:
            chances = (
                Fraction(float(e)) if d else 1 - Fraction(float(e)) for d, e in zip(pattern, deviates, strict=True)
            )
            mass = Fraction(1)
            for chance in chances:
                mass *= chance
            leaves += mass
    assert leaves <= Fraction(float(exits[0])) <= Fraction(exit_mass)
