"""Cross-checks of certified probabilities by other roads: polynomials, diagrams over the cells, sampling, sums to one.

Rounding is inside the interval, so an exact value below 1e-12 must be inside too, and a wrong digit at 1e-18 fails.
`case_studies/benchmarks/cross_checks.py` does the same at full size.
"""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.encodings.cells import fault_enumerator_bdd
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, PerRead, StuckAt
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import error_probability, exact_error_probability, fault_enumerator
from bnnverify.reliability.coefficients import fault_coefficients
from bnnverify.reliability.probability import FaultyNetwork
from tests import oracle, strategies

TINY = Fraction(1, 10**12)


def sure_network(widths, seed, classes=3):
    """A network that is sure of the class of all ones: its errors take many flips."""
    rng = np.random.default_rng(seed)
    blocks = []
    for n, m in pairwise(widths):
        weights = np.where(rng.random((m, n)) < 0.1, -1, 1)
        blocks.append(DenseBlock.create(weights, [0] * m, negated=rng.random(m) < 0.3))
    weights = np.vstack([np.ones(widths[-1], dtype=int), -np.ones((classes - 1, widths[-1]), dtype=int)])
    weights[1:] *= np.where(rng.random((classes - 1, widths[-1])) < 0.15, -1, 1)
    return BinaryNetwork(InputDomain.binary(widths[0]), tuple(blocks), OutputBlock.create(weights))


def random_network(widths, seed):
    rng = np.random.default_rng(seed)
    blocks = [
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-2, 3, m), negated=rng.random(m) < 0.3)
        for n, m in pairwise(widths[:-1])
    ]
    output = OutputBlock.create(rng.choice([-1, 1], (widths[-1], widths[-2])), bias=rng.integers(-1, 2, widths[-1]))
    return BinaryNetwork(InputDomain.binary(widths[0]), tuple(blocks), output)


@pytest.mark.parametrize("widths", [(9,), (15, 7), (9, 5, 5)])
@pytest.mark.parametrize("p", ["1e-3", "1e-5", "1e-9", "1e-20"])
def test_probabilities_far_below_one_in_a_trillion_keep_their_digits(widths, p):
    network = sure_network(widths, seed=len(widths))
    x = [1] * widths[0]
    assert network.evaluate(x) == 0
    exact = fault_enumerator(network, x, 0).probability(p)
    assert exact == exact_error_probability(network, x, 0, BitFlip(p))
    answer = error_probability(network, x, 0, BitFlip(p), tolerance=1e-300)
    assert 0 < answer.lower <= exact <= answer.upper
    assert p == "1e-3" or exact < TINY
    assert answer.width < exact / 10**6


@pytest.mark.parametrize("faults", [AsymmetricFlip("1e-6", "3e-5"), StuckAt("1e-7", "1e-5")])
def test_tiny_probabilities_of_unequal_signs_keep_their_digits(faults):
    for widths in ((15, 7), (9, 5, 5)):
        network = sure_network(widths, seed=len(widths))
        exact = exact_error_probability(network, [1] * widths[0], 0, faults)
        answer = error_probability(network, [1] * widths[0], 0, faults, tolerance=1e-300)
        assert 0 < answer.lower <= exact <= answer.upper and exact < TINY
        assert answer.width < exact / 10**6


@settings(max_examples=15)
@given(strategies.networks(max_inputs=6, max_width=5, max_blocks=2, max_classes=4), st.data())
def test_the_polynomial_lies_in_the_interval_at_every_rate(network, data):
    x, label = data.draw(strategies.inputs(network.n_inputs)), data.draw(st.integers(0, network.n_classes - 1))
    polynomial = fault_enumerator(network, x, label)
    for p in ("1e-15", "1e-12", "1e-7", "1e-3", "0.05", "1/3", "1/2", "0.8", str(1 - TINY)):
        for tolerance, states in ((1e-300, 4096), (1e-3, 1)):
            answer = error_probability(network, x, label, BitFlip(p), tolerance=tolerance, max_states=states)
            assert answer.lower <= polynomial.probability(p) <= answer.upper


def test_a_diagram_over_the_cells_of_two_hidden_blocks_gives_the_polynomial_that_the_interval_contains():
    network = random_network((12, 4, 4, 3), seed=8)
    assert network.n_cells == 76
    x = np.random.default_rng(0).choice([-1, 1], 12)
    label = network.evaluate(x)
    polynomial = fault_enumerator(network, x, label)
    assert fault_enumerator_bdd(network, x, label) == list(polynomial.counts)
    for p in ("1e-6", "1e-2", "0.2", "0.9"):
        answer = error_probability(network, x, label, BitFlip(p), tolerance=1e-9)
        assert answer.lower <= polynomial.probability(p) <= answer.upper


@settings(max_examples=15)
@given(st.data())
def test_without_flips_and_with_all_of_them_deep_networks_are_deterministic(data):
    nets = st.one_of(strategies.networks(max_blocks=4), strategies.conv_networks(max_inputs=9, max_outputs=12))
    network = data.draw(nets)
    x, label = data.draw(strategies.inputs(network.n_inputs)), data.draw(st.integers(0, network.n_classes - 1))
    flipped = oracle.flipped_weights(network, oracle.cells(network))
    for p, predicted in (("0", oracle.predicted(network, x)), ("1", oracle.predicted(network, x, flipped))):
        answer = error_probability(network, x, label, BitFlip(p))
        assert answer.lower <= int(predicted != label) <= answer.upper


def small_convolution(seed):
    rng = np.random.default_rng(seed)
    block = ConvBlock.create(
        rng.choice([-1, 1], (3, 1, 2, 2)), rng.integers(-1, 2, 3), input_shape=(1, 4, 4), pool=(1, 3)
    )
    output = OutputBlock.create(rng.choice([-1, 1], (4, block.n_outputs)))
    return BinaryNetwork(InputDomain.binary(16), (block,), output)


def random_case(seed):
    """Network, image, label and faults of any kind that the certified engine serves."""
    rng = np.random.default_rng(seed)
    widths = [int(rng.integers(4, 12)) for _ in range(int(rng.integers(1, 4)))]
    network = small_convolution(seed) if seed % 5 == 0 else random_network((*widths, 4), seed)
    a, b, c = (Fraction(int(v), 1000) for v in rng.integers(1, 120, 3))
    blocks = len(network.blocks) + 1
    models = [
        BitFlip(a),
        AsymmetricFlip(a, b),
        StuckAt(a, b),
        PerBlock(tuple(BitFlip(v) for v in rng.choice([a, b, c], blocks))),
        PerRead(BitFlip(a)),
    ]
    return network, rng.choice([-1, 1], network.n_inputs), int(rng.integers(4)), models[seed % 4 if seed % 5 else 0]


def meets_sampling(seed, samples):
    network, x, label, faults = random_case(seed)
    certified = error_probability(network, x, label, faults, tolerance=1e-3, max_states=64)
    sampled = sample_errors(network, [x], [label], faults, samples=samples, seed=seed, confidence=0.999).image(0)
    return certified.lower <= sampled.upper and sampled.lower <= certified.upper


def test_at_least_ninety_nine_of_a_hundred_cases_of_every_kind_meet_monte_carlo():
    assert sum(meets_sampling(seed, samples=400) for seed in range(100)) >= 99


@pytest.mark.parametrize("widths", [(784, 100, 10), (200, 32, 32, 10)])
@pytest.mark.parametrize("faults", [BitFlip("1e-3"), AsymmetricFlip("2e-3", "1e-4")])
def test_the_classes_of_a_large_network_share_a_probability_of_one(widths, faults):
    network = random_network(widths, seed=1)
    faulty, x = FaultyNetwork(network, faults), np.random.default_rng(2).choice([-1, 1], widths[0])
    answers = [faulty.error_probability(x, label, tolerance=1e-3, max_states=256) for label in range(10)]
    assert sum(1 - p.upper for p in answers) <= 1 <= sum(1 - p.lower for p in answers)
    assert sum(p.width for p in answers) < Fraction(1, 5)


@pytest.mark.parametrize("p", ["1e-7", "1e-5"])
def test_first_coefficients_and_the_interval_of_a_large_network_prove_the_same_truth(p):
    network = random_network((784, 100, 10), seed=1)
    for x in np.random.default_rng(2).choice([-1, 1], (3, 784)):
        label = network.evaluate(x)
        counted = fault_coefficients(network, x, label, order=3).probability(p)
        answer = error_probability(network, x, label, BitFlip(p), tolerance=1e-9)
        assert counted.lower <= answer.upper and answer.lower <= counted.upper
