"""Training images changed against the network."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.datasets import load
from bnnverify.errors import QueryError
from bnnverify.training import TrainingConfig, adversarial, train
from bnnverify.training.adversarial import worsened
from bnnverify.training.loop import _Run

numbers = st.integers(-3, 3)


def test_the_examples_run():
    assert doctest.testmod(adversarial).failed == 0


@given(st.lists(st.tuples(st.sampled_from([-1, 1]), numbers), min_size=1, max_size=12), st.integers(1, 6))
def test_the_signs_that_flip_are_those_which_raise_a_linear_loss_most(pairs, amount):
    x, gradient = np.array(pairs).T
    images, slopes = (torch.tensor(v[None], dtype=torch.float32) for v in (x, gradient))
    changed = worsened(images, slopes, amount, binary=True)[0].numpy()
    assert np.count_nonzero(changed != x) <= amount
    gains = sorted((max(0, -2 * a * g) for a, g in pairs), reverse=True)
    assert gradient @ changed - gradient @ x == sum(gains[:amount])


@given(st.lists(st.tuples(st.integers(0, 16), numbers), min_size=1, max_size=12), st.integers(1, 16))
def test_pixels_move_up_the_gradient_and_stay_grey_values(pairs, amount):
    pixels, gradient = np.array(pairs).T
    images, slopes = (torch.tensor(v[None], dtype=torch.float32) for v in (2 * pixels - 16, gradient))
    changed = worsened(images, slopes, amount, binary=False, top=16)[0].numpy()
    np.testing.assert_array_equal((changed + 16) / 2, np.clip(pixels + amount * np.sign(gradient), 0, 16))


@pytest.mark.parametrize("changes", [{}, {"input": "pixels"}, {"hidden": "2c3p2,8", "batch_norm": True}])
def test_a_step_of_training_raises_the_loss_of_its_images_and_leaves_the_data(changes):
    config = TrainingConfig.for_rule("ste", **{"hidden": (16,), "noise": 0.0, "adversarial": 3, **changes})
    run = _Run(config, load("digits"), torch.device("cpu"))
    stored = run.images.copy()
    run._publish(run.rule.cells)
    images, labels = run._batch(torch.arange(64))
    before = images.clone()
    changed = run._against(images, labels)
    assert (images == before).all()
    assert not (changed == before).all()
    assert run.model.hidden[0].weight.grad is None
    assert changed.shape == before.shape
    assert not changed.requires_grad
    run.advance()
    np.testing.assert_array_equal(run.images, stored)


def test_training_against_the_network_gives_the_same_network_again_and_a_higher_loss():
    config = TrainingConfig.for_rule("ste", hidden=(8,), epochs=1, adversarial=2)
    first, second, without = (
        train(c, load("digits"), progress=False) for c in (config, config, replace(config, adversarial=0))
    )

    assert first.history == second.history
    for a, b in zip(first.model.binary_weights(), second.model.binary_weights(), strict=True):
        assert torch.equal(a, b)
    assert first.history[0]["loss"] > without.history[0]["loss"]


@pytest.mark.parametrize("amount", [-1, 256, 1.5, True])
def test_amounts_out_of_range_are_refused(amount):
    with pytest.raises(QueryError, match=r"adversarial is .*, expected a number of pixel steps or flips of 0 to 255"):
        TrainingConfig(adversarial=amount)
