"""From images to chips: yield, streams of images, and which block needs protection, against all flip patterns."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, PerRead
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import exact_error_probability, yield_bounds
from bnnverify.reliability.sensitivity import block_sensitivity
from bnnverify.reliability.stream import errors_in_stream, stream_errors
from bnnverify.reliability.yields import chip_yield, yield_estimate
from bnnverify.results import Kind, Probability
from tests import oracle

probabilities = st.sampled_from(
    ["0", "1e-300", "1e-18", "1e-3", "0.1", "1/3", "0.9", str(1 - Fraction(1, 10**18)), "1"]
)
CRUMB = Fraction(1, 2**90)  # bounds of images are rounded outward to multiples of 2^-100
SAMPLED = Probability(Kind.SAMPLED, Fraction(0), Fraction(1), 0.9, 1, 0)


def small_network(seed):
    rng = np.random.default_rng(seed)
    block = DenseBlock.create(rng.choice([-1, 1], (2, 3)), rng.integers(-1, 2, 2))
    return BinaryNetwork(InputDomain.binary(3), (block,), OutputBlock.create(rng.choice([-1, 1], (3, 2))))


def small_images(network, seed, count=6):
    images = np.random.default_rng(seed).choice([-1, 1], (count, network.n_inputs))
    labels = network.evaluate_batch(images)
    labels[0] = (labels[0] + 1) % network.n_classes
    return images, labels.tolist()


def chip_law(network, images, labels, p):
    """P(k images right) on a chip, over all flip patterns."""
    cells = oracle.cells(network)
    law = [Fraction(0)] * (len(images) + 1)
    for pattern in product((False, True), repeat=len(cells)):
        flips = [cell for cell, flipped in zip(cells, pattern, strict=True) if flipped]
        weights = oracle.flipped_weights(network, flips)
        right = sum(oracle.predicted(network, x, weights) == y for x, y in zip(images.tolist(), labels, strict=True))
        law[right] += p ** len(flips) * (1 - p) ** (len(cells) - len(flips))
    return law


def stream_law(chances):
    """P(k errors) of independent images, in Fractions."""
    law = [Fraction(1)]
    for p in chances:
        law = [a * (1 - p) + b * p for a, b in zip([*law, Fraction(0)], [Fraction(0), *law], strict=True)]
    return law


@settings(max_examples=4)
@given(st.integers(0, 1000), st.sampled_from(["1/100", "1/10", "1/2"]))
def test_the_exact_yield_lies_within_its_bounds(seed, p):
    network = small_network(seed)
    images, labels = small_images(network, seed, count=4)
    law = chip_law(network, images, labels, Fraction(p))
    errors = [
        Probability.exact(exact_error_probability(network, x, y, BitFlip(p)))
        for x, y in zip(images, labels, strict=True)
    ]
    mean = Probability.exact(1 - sum(e.lower for e in errors) / len(errors))
    for threshold in (Fraction(k, 8) for k in range(9)):
        good = sum(law[math.ceil(threshold * len(images)) :])
        by_image, by_mean = chip_yield(errors, threshold), yield_bounds(mean, threshold)
        assert by_image.lower <= good <= by_image.upper
        assert by_mean.lower <= good <= by_mean.upper
        assert by_image.lower >= by_mean.lower - CRUMB and by_image.upper <= by_mean.upper + CRUMB


def test_images_that_are_always_wrong_do_not_weaken_the_yield():
    wrong, sure = Probability.exact(Fraction(1)), Probability.interval(Fraction(0), Fraction(1, 1000))
    errors = [wrong] * 50 + [sure] * 950
    sharp = chip_yield(errors, "0.94")  # 61 errors, 11 more than the certain ones, where 0.95 are expected
    assert 0 <= 1 - Fraction(95, 100 * 11) - sharp.lower < CRUMB
    assert yield_bounds(Probability.exact(Fraction(94905, 100000)), "0.94").lower < Fraction(2, 10)
    assert chip_yield(errors, 1).upper == 0  # the certain errors forbid a perfect chip
    assert chip_yield(errors, 0).lower == 1


def test_the_yield_takes_the_safe_ends_of_the_intervals():
    errors = [Probability.interval(Fraction(1, 10), Fraction(2, 10))] * 10
    bounds = chip_yield(errors, "0.6")  # at least 5 of 10 wrong, at least 6 of 10 right
    assert 0 <= 1 - Fraction(2, 5) - bounds.lower < CRUMB
    assert bounds.upper == 1
    assert 0 <= chip_yield(errors, 1).upper - Fraction(9, 10) < CRUMB
    with pytest.raises(QueryError, match="expected proved bounds"):
        chip_yield([SAMPLED], "0.5")
    with pytest.raises(QueryError, match="no images are given"):
        chip_yield([], "0.5")


def test_proved_and_sampled_yield_come_together_and_agree():
    network = small_network(3)
    images, labels = small_images(network, 3)
    found = yield_estimate(network, images, labels, BitFlip("0.02"), "0.8", chips=400, seed=1)
    assert found.proved.kind is Kind.INTERVAL and found.sampled.kind is Kind.SAMPLED
    assert found.proved.lower <= found.sampled.upper and found.sampled.lower <= found.proved.upper
    good = sum(chip_law(network, images, labels, Fraction(1, 50))[math.ceil(Fraction(8, 10) * 6) :])
    assert found.proved.lower <= good <= found.proved.upper
    assert found.sampled.lower <= good <= found.sampled.upper
    assert "interval" in str(found) and "sampled" in str(found)
    assert found.to_json()["proved"]["kind"] == "interval"


@settings(max_examples=60)
@given(st.lists(probabilities, min_size=1, max_size=7), st.booleans())
def test_the_law_of_a_stream_is_that_of_independent_images(texts, exact):
    chances = [Fraction(t) for t in texts]
    law = stream_law(chances)
    if exact:
        errors = [Probability.exact(p) for p in chances]
    else:
        errors = [Probability.interval(p * Fraction(99, 100), p * Fraction(101, 100)) for p in chances]
    found = errors_in_stream(errors)
    assert found.expected[0] <= sum(chances) <= found.expected[1]
    for k in range(-1, len(chances) + 2):
        few, many = found.at_most(k), found.more_than(k)
        assert few.lower <= sum(law[: max(k + 1, 0)], Fraction(0)) <= few.upper
        assert many.lower <= sum(law[max(k + 1, 0) :], Fraction(0)) <= many.upper
        if exact:
            assert few.width < Fraction(1, 10**12) and many.width <= many.upper / 10**12 + Fraction(1, 10**270)


def test_quantiles_of_a_stream_are_proved():
    found = errors_in_stream([Probability.exact(Fraction(1, 10))] * 20)
    k = found.quantile("0.99")
    law = stream_law([Fraction(1, 10)] * 20)
    assert sum(law[: k + 1]) >= Fraction(99, 100) > sum(law[:k])
    assert found.to_json()["quantiles"]["0.99"] == k
    assert errors_in_stream([Probability.interval(Fraction(0), Fraction(1))] * 3).quantile("0.5") == 3


def test_probabilities_beyond_float64_are_bounded_in_a_stream():
    tiny = Fraction(1, 2**1000)
    found = errors_in_stream([Probability.exact(tiny), Probability.exact(1 - tiny)])
    assert found.at_most(0).lower <= (1 - tiny) * tiny <= found.at_most(0).upper
    assert found.more_than(1).lower <= tiny * (1 - tiny) <= found.more_than(1).upper
    assert found.more_than(1).upper < Fraction(1, 2**800)


def test_a_stream_asks_for_faults_of_reading_only():
    network = small_network(0)
    images, labels = small_images(network, 0)
    found = stream_errors(network, images, labels, PerRead(BitFlip("0.05")))
    chances = [exact_error_probability(network, x, y, BitFlip("0.05")) for x, y in zip(images, labels, strict=True)]
    assert found.expected[0] <= sum(chances) <= found.expected[1]
    law = stream_law(chances)
    assert found.at_most(1).lower <= law[0] + law[1] <= found.at_most(1).upper
    for faults in (BitFlip("0.05"), PerRead(BitFlip("0.05"), BitFlip("0.1"))):
        with pytest.raises(QueryError, match="expected PerRead without permanent ones"):
            stream_errors(network, images, labels, faults)
    with pytest.raises(QueryError, match="sampled or approximate"):
        errors_in_stream([SAMPLED])
    with pytest.raises(QueryError, match="no images"):
        errors_in_stream([])


@pytest.mark.parametrize("model", [BitFlip("0.03"), AsymmetricFlip("0.1", "0.01")])
def test_each_block_alone_costs_what_its_flip_patterns_cost(model):
    network = small_network(7)
    images, labels = small_images(network, 7)
    found = block_sensitivity(network, images, labels, model)

    def exact(faults):
        errors = [exact_error_probability(network, x, y, faults) for x, y in zip(images, labels, strict=True)]
        return 1 - sum(errors) / len(errors)

    for effect in found.blocks:
        assert effect.accuracy.lower <= exact(PerBlock.only(model, effect.block, of=2)) <= effect.accuracy.upper
        assert effect.cells == network.all_blocks[effect.block].n_cells
    assert found.together.lower <= exact(model) <= found.together.upper
    assert found.clean == exact(BitFlip(0))
    worst = min(range(2), key=lambda b: exact(PerBlock.only(model, b, of=2)))
    assert found.most_sensitive is None or found.most_sensitive.block == worst
    assert found.to_json()["blocks"][1]["block"] == 1


def test_blocks_that_the_bounds_do_not_separate_are_not_ranked():
    network = BinaryNetwork(
        InputDomain.binary(1), (DenseBlock.create([[1]], [0]),), OutputBlock.create([[1], [1]], bias=[1, 0])
    )
    found = block_sensitivity(network, [[1]], [0], BitFlip(0))
    assert found.most_sensitive is None
    assert "do not tell which block costs most" in str(found)
    with pytest.raises(QueryError, match="expected one for all blocks"):
        block_sensitivity(network, [[1]], [0], PerBlock((BitFlip(0), BitFlip(0))))
