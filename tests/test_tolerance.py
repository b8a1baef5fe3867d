"""Targets: reached or not, and the rates up to which they are kept, against exact accuracies on grids of rates."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.engines.base import Monitor
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import exact_error_probability, fault_enumerator, tolerance_bracket
from bnnverify.reliability.boxes import RateBox
from bnnverify.reliability.everyrate import CertifiedRange, certified_range, mean_enumerator
from bnnverify.reliability.reach import TargetAccuracy, accuracy_reaches
from bnnverify.results import Run
from tests import strategies


def random_network(widths, seed):
    rng = np.random.default_rng(seed)
    n, m, k = widths
    block = DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-2, 3, m))
    output = OutputBlock.create(rng.choice([-1, 1], (k, m)), scale=1, bias=rng.normal(size=k))
    return BinaryNetwork(InputDomain.binary(n), (block,), output)


def random_images(network, count, seed, wrong=0):
    images = np.random.default_rng(seed).choice([-1, 1], (count, network.n_inputs))
    labels = network.evaluate_batch(images)
    labels[:wrong] = (labels[:wrong] + 1) % network.n_classes
    return images, labels.tolist()


def exact_accuracy(network, images, labels, faults):
    errors = [exact_error_probability(network, x, y, faults) for x, y in zip(images, labels, strict=True)]
    return 1 - sum(errors, Fraction(0)) / len(errors)


@settings(max_examples=30)
@given(
    st.integers(0, 10**6),
    st.sampled_from([BitFlip("0.01"), BitFlip("0.2"), AsymmetricFlip("0.1", 0), BitFlip(0)]),
    st.sampled_from(["0", "1/3", "0.7", "0.9", "1"]),
)
def test_a_target_is_reached_if_and_only_if_the_exact_accuracy_reaches_it(seed, faults, target):
    network = random_network((6, 4, 3), seed)
    images, labels = random_images(network, 7, seed, wrong=seed % 4)
    exact = exact_accuracy(network, images, labels, faults)
    found = accuracy_reaches(network, images, labels, target, faults)
    assert found.accuracy.lower <= exact <= found.accuracy.upper
    if found.reached is None:
        assert abs(exact - Fraction(target)) < Fraction(1, 10**5)
    else:
        assert found.reached == (exact >= Fraction(target))


def test_a_clear_answer_looks_at_few_images_and_remembers_the_worst():
    network = random_network((8, 5, 3), 1)
    images, labels = random_images(network, 400, 2, wrong=150)
    question = TargetAccuracy(network, images[::-1].copy(), labels[::-1], "0.9")  # the wrong ones come last
    first = question.reached(BitFlip("0.01"))
    again = question.reached(BitFlip("0.02"))
    assert first.reached is False and again.reached is False
    assert again.images < first.images <= 400
    assert again.accuracy.upper < Fraction(9, 10)


def test_a_stopped_search_answers_with_what_it_has():
    network = random_network((8, 5, 3), 1)
    images, labels = random_images(network, 5, 2)
    found = accuracy_reaches(network, images, labels, "0.9", BitFlip("0.01"), monitor=Monitor(stop=True))
    assert (found.reached, found.images, found.run.reason) == (None, 0, "interrupted")
    assert (found.accuracy.lower, found.accuracy.upper) == (0, 1)
    late = accuracy_reaches(network, images, labels, "0.9", BitFlip("0.01"), seconds=1e-9)
    assert late.reached is None and late.run.reason.startswith("time limit")
    bracket = tolerance_bracket(network, images, labels, "0.9", monitor=Monitor(stop=True))
    assert bracket.p_ok is None and bracket.p_fail is None
    assert bracket.run.reason == "interrupted"
    ranged = certified_range(network, images, labels, "0.9", monitor=Monitor(stop=True))
    assert ranged.p_ok is None and ranged.run.reason == "interrupted"


def test_progress_counts_every_bounded_image():
    network = random_network((8, 5, 3), 1)
    images, labels = random_images(network, 30, 2)
    seen = []
    assert accuracy_reaches(network, images, labels, "0.97", BitFlip("1e-6"), progress=seen.append).reached
    assert set(seen) == {1}
    assert sum(seen) == 30
    certified_range(network, images, labels, "0.9", progress=seen.append)
    assert sum(seen) == 60


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["0.6", "0.8", "0.9", "1"]))
def test_every_rate_of_the_range_of_a_small_network_keeps_the_target(seed, target):
    network = random_network((4, 3, 3), seed)
    images, labels = random_images(network, 4, seed, wrong=seed % 2)
    found = certified_range(network, images, labels, target, method="polynomial", ratio=1.01)
    goal = Fraction(target)
    if found.p_ok is None:
        assert exact_accuracy(network, images, labels, BitFlip(0)) < goal
        return
    for i in range(12):
        assert exact_accuracy(network, images, labels, BitFlip(found.p_ok * i / 11)) >= goal
    assert found.pieces == () or (found.pieces[0][0], found.pieces[-1][1]) == (0, found.p_ok)
    assert all(a[1] == b[0] for a, b in pairwise(found.pieces))
    if found.p_fail is not None:
        assert exact_accuracy(network, images, labels, BitFlip(found.p_fail)) < goal
        assert found.p_fail <= max(found.p_ok * Fraction("1.02"), found.p_ok + Fraction(2, 10**12))


@settings(max_examples=60)
@given(st.data())
def test_bounds_over_a_box_of_rates_hold_at_every_rate_inside(data):
    network = data.draw(strategies.networks(max_inputs=5, max_width=4, max_blocks=1, max_classes=3, common_scale=True))
    x = np.array([data.draw(strategies.inputs(network.n_inputs))])
    label = data.draw(st.integers(0, network.n_classes - 1))
    ends = data.draw(st.lists(st.sampled_from(["0", "1e-6", "0.01", "0.1", "0.3", "1/2"]), min_size=2, max_size=2))
    low, high = sorted(map(Fraction, ends))
    bound = RateBox(network, x, np.array([label])).error_bounds(low, high, np.array([0]))[0]
    errors = [exact_error_probability(network, x[0], label, BitFlip(low + (high - low) * i / 4)) for i in range(5)]
    assert max(errors) <= bound
    if low == high and network.n_classes == 2:  # a single rival and no box: the bound is the truth
        assert bound - errors[0] < Fraction(1, 10**10)


def test_a_range_by_boxes_lies_inside_the_range_by_the_polynomial():
    network = random_network((6, 5, 3), 3)
    images, labels = random_images(network, 10, 3)
    exact = certified_range(network, images, labels, "0.8", method="polynomial", ratio=1.01)
    boxes = certified_range(network, images, labels, "0.8", method="boxes", ratio=1.01)
    assert exact.run.engine == "polynomial" and boxes.run.engine == "boxes"
    assert exact.p_ok / 4 < boxes.p_ok <= exact.p_fail
    assert "first-order bounds" in boxes.run.reason
    bracket = tolerance_bracket(network, images, labels, "0.8", ratio=1.02)
    assert bracket.p_fail > exact.p_ok


def test_the_mean_enumerator_gives_the_mean_error_in_the_bernstein_basis():
    network = random_network((3, 2, 2), 5)
    images, labels = random_images(network, 3, 5)
    enumerators = [fault_enumerator(network, x, y) for x, y in zip(images, labels, strict=True)]
    shape = mean_enumerator(enumerators)
    assert shape[0] == 0
    assert all(0 <= b <= 1 for b in shape)
    assert shape[-1] == sum(e.counts[-1] for e in enumerators) / Fraction(3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"highest": "0.6"}, QueryError, "expected 0 < highest <= 1/2"),
        ({"ratio": 1.0}, QueryError, "expected 0 < highest <= 1/2 and 1 < ratio"),
        ({"method": "magic"}, QueryError, "method is 'magic', expected auto, polynomial or boxes"),
        ({"labels": [0]}, QueryError, "2 images came with 1 labels"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(options, error, message):
    network = random_network((4, 3, 2), 0)
    options = {"labels": [0, 0], **options}
    with pytest.raises(error, match=message):
        certified_range(network, np.ones((2, 4), dtype=int), target="0.9", **options)


def test_boxes_refuse_what_they_do_not_serve():
    deep = BinaryNetwork(
        InputDomain.binary(2),
        (DenseBlock.create([[1, 1]] * 2, [0, 0]), DenseBlock.create([[1, 1]] * 2, [0, 0])),
        OutputBlock.create([[1, 1], [1, -1]]),
    )
    with pytest.raises(UnsupportedError, match="at most one hidden block"):
        certified_range(deep, [[1, 1]], [0], "0.9", method="boxes")
    scales = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [1, -1]], scale=[1, 2]))
    with pytest.raises(UnsupportedError, match="one positive scale"):
        certified_range(scales, [[1, 1]], [0], "0.9", method="boxes")


def test_a_target_missed_without_faults_has_no_range():
    network = random_network((4, 3, 2), 0)
    images, labels = random_images(network, 2, 0, wrong=2)
    for method in ("polynomial", "boxes"):
        found = certified_range(network, images, labels, "0.5", method=method)
        assert found.p_ok is None and "even without faults" in found.run.reason
        assert "not proved even without faults" in str(found)


def test_targets_are_asked_of_models_by_block_too():
    network = random_network((6, 4, 3), 9)
    images, labels = random_images(network, 5, 9)
    faults = PerBlock.only(BitFlip("0.4"), 1, of=2)
    exact = exact_accuracy(network, images, labels, faults)
    found = accuracy_reaches(network, images, labels, exact - Fraction(1, 1000), faults)
    assert found.reached is True
    assert found.to_json()["faults"]["kind"] == "per-block"


def test_words_claim_no_more_than_is_proved():
    def words(target, p_ok):
        return str(CertifiedRange(Fraction(target), Fraction(p_ok), None, (), Run("boxes")))

    assert words("0.9999999", "0.09765625") == "accuracy at least 0.9999999 at every rate from 0 to 0.09765 (proved)"
    assert words("1/3", "2/3").startswith("accuracy at least 0.333333333333 at every rate from 0 to 0.6666 ")
    assert words("1", "0") == "accuracy at least 1 at every rate from 0 to 0 (proved)"
