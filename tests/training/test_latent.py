import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.errors import QueryError
from bnnverify.training import TrainingConfig, train
from bnnverify.training.rules import SteSign
from tests.training.trajectories import SHAPES, Keys, NoProbe, each, follow, random_signs, uniform, zeros


class LatentByLoops:
    """Adam or SGD on latent weights; `rate` is a function of the progress."""

    def __init__(self, rate, *, optimizer="adam", momentum=0.0, glorot=False, stochastic=False, init=1.0, average=0.99):
        self.rate, self.optimizer, self.momentum, self.glorot = rate, optimizer, momentum, glorot
        self.stochastic, self.init, self.average = stochastic, init, average

    def __call__(self, cells, keys):
        self.keys, self.m, self.u, self.t = keys, zeros(), zeros(), 0
        self.v = [np.zeros(shape) for shape in SHAPES]
        drawn = [keys.key() for _ in cells]
        for b, r, c, i in each(cells):
            self.v[b][r, c] = cells[b][r, c] * self.init * (1 - uniform(drawn[b], i))
        self.cells, self.majority = cells, [c.astype(float) for c in cells]
        if self.stochastic:
            self.throw()
        return self

    def throw(self):
        drawn = [self.keys.key() for _ in self.v]
        for b, r, c, i in each(self.v):
            self.cells[b][r, c] = 1 if uniform(drawn[b], i) < (self.v[b][r, c] + 1) / 2 else -1

    def step(self, g, q):
        self.t += 1
        for b, r, c, _ in each(g):
            value = float(g[b][r, c])
            neurons, inputs = SHAPES[b]
            rate = self.rate(q) * (math.sqrt((inputs + neurons) / 1.5) if self.glorot else 1)
            if self.optimizer == "adam":
                m = self.m[b][r, c] = 0.9 * self.m[b][r, c] + 0.1 * value
                u = self.u[b][r, c] = 0.999 * self.u[b][r, c] + 0.001 * value**2
                move = (m / (1 - 0.9**self.t)) / (math.sqrt(u / (1 - 0.999**self.t)) + 1e-8)
            else:
                move = self.m[b][r, c] = self.momentum * self.m[b][r, c] + value
            v = self.v[b][r, c] = min(max(self.v[b][r, c] - rate * move, -1.0), 1.0)
            w = 1 if v >= 0 else -1
            self.cells[b][r, c] = w
            self.majority[b][r, c] = self.average * self.majority[b][r, c] + (1 - self.average) * w
        if self.stochastic:
            self.throw()

    def deployed(self):
        return [np.where(a >= 0, 1, -1) for a in (self.majority if self.average else self.v)]

    def numbers(self):
        return {"latent": self.v, "average": self.majority, "first": self.m}


def always(value):
    return lambda q: value


@pytest.mark.parametrize("seed", range(3))
def test_adam_on_latent_weights_follows_the_plain_loops(seed):
    assert follow(SteSign(learning_rate=0.1, average=0.9), LatentByLoops(always(0.1), average=0.9), seed=seed) > 10


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_gradient_descent_with_momentum_follows_the_plain_loops(momentum):
    rule = SteSign(learning_rate=0.3, optimizer="sgd", momentum=momentum, init=0.5)
    loops = LatentByLoops(always(0.3), optimizer="sgd", momentum=momentum, init=0.5)
    assert follow(rule, loops, seed=3) > 5


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_glorot_scale_is_that_of_each_block(optimizer):
    rule = SteSign(learning_rate=0.02, optimizer=optimizer, momentum=0.5, glorot=True)
    loops = LatentByLoops(always(0.02), optimizer=optimizer, momentum=0.5, glorot=True)
    follow(rule, loops)
    plain = SteSign(learning_rate=0.02, optimizer=optimizer, momentum=0.5)
    with pytest.raises(AssertionError, match="latent after 1 steps"):
        follow(plain, loops)


def test_the_glorot_scale_of_filters_counts_their_positions_on_both_sides():
    state = (
        SteSign(learning_rate=0.001, optimizer="sgd", momentum=0.0, glorot=True)
        .for_steps(10_000)
        .start([np.ones((6, 2, 3, 3), dtype=np.int8)], random=Keys())
    )
    before = state.state()["latent"][0].copy()
    state.step([np.ones((6, 2, 3, 3), dtype=np.float32)], 0.0, NoProbe())
    moved = before - state.state()["latent"][0]
    np.testing.assert_allclose(moved, 0.001 * math.sqrt((9 * 2 + 9 * 6) / 1.5), rtol=1e-3)


def test_the_learning_rate_is_scheduled():
    follow(SteSign(learning_rate="0.2:0.01:cosine"), LatentByLoops(lambda q: 0.105 + 0.095 * math.cos(math.pi * q)))


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_stochastic_weights_follow_the_plain_loops_and_deploy_signs(average):
    rule = SteSign(learning_rate=0.05, binarization="stochastic", average=average)
    assert follow(rule, LatentByLoops(always(0.05), stochastic=True, average=average)) > 50


def test_stochastic_weights_are_plus_one_with_probability_half_of_one_plus_the_latent_weight():
    state = SteSign(binarization="stochastic").for_steps(10_000).start([np.ones((1, 6), dtype=np.int8)], random=Keys())
    latent = np.array([[-1.0, -0.9, -0.3, 0.0, 0.6, 1.0]], dtype=np.float32)
    state.restore({**state.state(), "latent": [latent]})
    trials, hits = 4000, np.zeros(6)
    for _ in range(trials):
        state.step([np.zeros((1, 6), dtype=np.float32)], 0.0, NoProbe())
        hits += state.cells[0][0] > 0
    assert hits[0] == 0 and hits[-1] == trials
    for count, v in zip(hits, latent[0], strict=True):
        interval = clopper_pearson(int(count), trials, confidence=1 - 1e-6)
        assert float(interval.lower) <= (v + 1) / 2 <= float(interval.upper)


@given(
    gradient=st.lists(
        st.floats(width=32, allow_nan=False, min_value=-(2.0**40), max_value=2.0**40), min_size=1, max_size=8
    ),
    rate=st.floats(1e-3, 100),
    optimizer=st.sampled_from(["adam", "sgd"]),
)
@settings(max_examples=60, deadline=None)
def test_latent_weights_are_really_clipped(gradient, rate, optimizer):
    g = np.array([gradient], dtype=np.float32)
    rule = SteSign(learning_rate=rate, optimizer=optimizer, momentum=0.5)
    state = rule.for_steps(10_000).start([np.ones(g.shape, dtype=np.int8)], random=Keys())
    for _ in range(4):
        state.step([g], 0.0, NoProbe())
        assert (np.abs(state.state()["latent"][0]) <= 1).all()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_way_back_from_the_clip_is_short(optimizer):
    rule = SteSign(learning_rate=0.25, optimizer=optimizer, momentum=0.0)
    state = rule.for_steps(10_000).start([np.ones((1, 1), dtype=np.int8)], random=Keys())
    for gradient, cell in ((-1.0, 1), (1.0, -1)):
        for _ in range(30 if gradient < 0 else 20):  # unclipped, 30 steps one way take 30 back
            state.step([np.array([[gradient]], dtype=np.float32)], 0.0, NoProbe())
        assert state.cells[0].item() == cell


def test_a_latent_weight_of_zero_is_plus_one_and_never_a_third_value():
    state = SteSign(average=0.0).for_steps(10_000).start([-np.ones((1, 3), dtype=np.int8)], random=Keys())
    state.restore({**state.state(), "latent": [np.array([[0.0, -0.0, -1e-30]], dtype=np.float32)]})
    state.step([np.zeros((1, 3), dtype=np.float32)], 0.0, NoProbe())
    assert state.cells[0].tolist() == state.deployed()[0].tolist() == [[1, 1, -1]]


def test_latent_weights_start_behind_their_signs_and_uniform():
    start = random_signs((40, 50), 3)
    latent = SteSign(init=0.25).for_steps(10_000).start([start.copy()], random=Keys()).state()["latent"][0]
    np.testing.assert_array_equal(np.where(latent >= 0, 1, -1), start)
    assert (np.abs(latent) > 0).all() and (np.abs(latent) <= 0.25).all()
    for quarter in range(4):
        inside = int(((np.abs(latent) > quarter / 16) & (np.abs(latent) <= (quarter + 1) / 16)).sum())
        interval = clopper_pearson(inside, 2000, confidence=1 - 1e-6)
        assert interval.lower <= 0.25 <= interval.upper


def test_an_evaluation_reads_the_majority_and_training_the_latest_signs():
    state = (
        SteSign(learning_rate=1.0, average=0.9).for_steps(10_000).start([np.ones((1, 1), dtype=np.int8)], random=Keys())
    )
    for gradient in [-1.0] * 30 + [100.0] * 3:
        state.step([np.array([[gradient]], dtype=np.float32)], 0.0, NoProbe())
    assert state.cells[0].item() == -1
    assert state.deployed()[0].item() == 1


@dataclass(frozen=True)
class Spy:
    """A rule that changes nothing and notes the progress it is told."""

    seen: list[float] = field(default_factory=list)

    name: ClassVar[str] = "spy"
    recipe: ClassVar[dict[str, Any]] = {}

    def start(self, cells, *, random):
        return SpyState(self, list(cells))

    def for_steps(self, steps, inputs):
        return self


class SpyState:
    def __init__(self, rule, cells):
        self.rule, self.cells = rule, cells

    def step(self, gradients, progress, probe):
        self.rule.seen.append(progress)

    def deployed(self):
        return self.cells

    def statistics(self):
        return {}

    def state(self):
        return {"cells": self.cells}


@pytest.mark.parametrize("batch_size", [10, 40])
def test_a_schedule_sees_the_fraction_of_the_training_whatever_the_batches(toy, batch_size, monkeypatch):
    rates = []
    adam_step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), adam_step(self))[1]
    )
    spy = Spy()
    train(TrainingConfig(hidden=(4,), rule=spy, epochs=5, batch_size=batch_size), toy, progress=False)
    steps = 5 * 120 // batch_size
    assert spy.seen == [i / steps for i in range(steps)]
    expected = [0.01 * (0.01 + 0.99 * (1 + math.cos(math.pi * i / steps)) / 2) for i in range(steps)]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_training_does_not_write_into_the_images(toy):
    before = [(split.images.copy(), split.pixels.copy(), split.labels.copy()) for split in toy.splits.values()]
    train(TrainingConfig(hidden=(4,), epochs=2, batch_size=20, noise=0.3), toy, progress=False)
    for split, (images, pixels, labels) in zip(toy.splits.values(), before, strict=True):
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.pixels, pixels)
        np.testing.assert_array_equal(split.labels, labels)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.5}, {"binarization": "stochastic"}, {"glorot": True}],
)
def test_the_rule_learns_the_digits(digits, options):
    config = TrainingConfig.for_rule("ste", options=options, epochs=10)
    assert train(config, digits, progress=False).validation_accuracy > 0.3  # guessing gives 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SteSign(learning_rate=0), "learning_rate of the rule ste is 0.0, expected above 0 at the start"),
        (lambda: SteSign(learning_rate=float("nan")), "a schedule runs from nan to nan, expected finite numbers"),
        (lambda: SteSign(learning_rate="x"), "learning_rate of the rule ste is 'x', expected a number, or START:END"),
        (lambda: SteSign(optimizer="lion"), "optimizer of the rule ste is 'lion', expected adam or sgd"),
        (lambda: SteSign(momentum=1), "momentum of the rule ste is 1, expected at least 0 and below 1"),
        (lambda: SteSign(binarization="b"), "binarization of the rule ste is 'b', expected deterministic or stochas"),
        (lambda: SteSign(init=0), "init of the rule ste is 0, expected above 0 and at most 1"),
        (lambda: SteSign(init=1.5), "init of the rule ste is 1.5, expected above 0 and at most 1"),
        (lambda: SteSign(average=1), "average of the rule ste is 1, expected at least 0 and below 1"),
    ],
)
def test_bad_hyper_parameters_give_one_clear_sentence(call, message):
    with pytest.raises(QueryError, match=message):
        call()
