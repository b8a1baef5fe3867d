import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.errors import QueryError
from bnnverify.training import TrainingConfig, train
from bnnverify.training.rules import PBop, Schedule
from tests.training.trajectories import Keys, NoProbe, each, follow, uniform, zeros


class PBopByLoops:
    def __init__(self, scaler, init):
        self.scaler, self.init = scaler, init

    def __call__(self, cells, keys):
        self.keys, self.m, self.u, self.t = keys, zeros(), zeros(), 0
        self.theta = [0.5 + self.init * c for c in cells]
        self.throw()
        return self

    def throw(self):
        keys = [self.keys.key() for _ in self.theta]
        self.cells = [np.ones(theta.shape) for theta in self.theta]
        for b, r, c, i in each(self.theta):
            self.cells[b][r, c] = 1 if uniform(keys[b], i) < self.theta[b][r, c] else -1

    def step(self, g, q):
        self.t += 1
        for b, r, c, _ in each(g):
            value = float(g[b][r, c])
            m = self.m[b][r, c] = 0.9 * self.m[b][r, c] + 0.1 * value
            u = self.u[b][r, c] = 0.999 * self.u[b][r, c] + 0.001 * value**2
            m, u = m / (1 - 0.9**self.t), u / (1 - 0.999**self.t)
            moved = self.theta[b][r, c] - self.scaler(q) * m / (math.sqrt(u) + 1e-8)
            self.theta[b][r, c] = min(max(moved, 0.0), 1.0)
        self.throw()

    def deployed(self):
        return [np.where(theta >= 0.5, 1, -1) for theta in self.theta]

    def numbers(self):
        return {"theta": self.theta, "first": self.m, "second": self.u}


@pytest.mark.parametrize("seed", range(4))
def test_the_probabilities_follow_the_plain_loops(seed):
    assert follow(PBop(scaler=0.03, init=0.1), PBopByLoops(lambda q: 0.03, 0.1), seed=seed) > 50


def test_the_scaler_is_scheduled():
    rule = PBop(scaler="0.2:0.01:polynomial", init=0.5)
    assert follow(rule, PBopByLoops(lambda q: 0.2 - 0.19 * q, 0.5)) > 20


def test_every_pass_throws_coins_of_the_probability_within_exact_limits():
    start = np.where(np.arange(5) < 3, 1, -1).astype(np.int8)[None]
    state = PBop(init=0.1).for_steps(10_000).start([start], random=Keys())
    theta = np.array([[0.0, 0.03, 0.5, 0.7, 1.0]], dtype=np.float32)
    state.restore({**state.state(), "theta": [theta]})
    trials, hits = 4000, np.zeros(5)
    for _ in range(trials):
        state.step([np.zeros((1, 5), dtype=np.float32)], 0.0, NoProbe())
        hits += state.cells[0][0] > 0
    assert hits[0] == 0 and hits[4] == trials
    for count, p in zip(hits, theta[0], strict=True):
        interval = clopper_pearson(int(count), trials, confidence=1 - 1e-6)
        assert float(interval.lower) <= p <= float(interval.upper)


def test_one_coin_says_nothing_about_the_next():
    state = PBop().for_steps(10_000).start([np.ones((1, 2000), dtype=np.int8)], random=Keys())
    state.restore({**state.state(), "theta": [np.full((1, 2000), 0.5, dtype=np.float32)]})
    throws = []
    for _ in range(3):
        state.step([np.zeros((1, 2000), dtype=np.float32)], 0.0, NoProbe())
        throws.append(state.cells[0][0] > 0)
    pairs = [throws[0] == throws[1], throws[1] == throws[2], throws[0][1:] == throws[0][:-1]]
    for equal in pairs:
        interval = clopper_pearson(int(equal.sum()), equal.size, confidence=1 - 1e-6)
        assert interval.lower <= 0.5 <= interval.upper


def test_the_likelier_sign_is_deployed_and_plus_one_at_one_half():
    state = PBop().for_steps(10_000).start([np.ones((1, 3), dtype=np.int8)], random=Keys())
    below = np.nextafter(np.float32(0.5), np.float32(0))
    state.restore({**state.state(), "theta": [np.array([[0.5, below, 0.9]], dtype=np.float32)]})
    assert state.deployed()[0].tolist() == [[1, -1, 1]]


@given(
    gradient=st.lists(
        st.floats(width=32, allow_nan=False, min_value=-(2.0**60), max_value=2.0**60), min_size=1, max_size=8
    ),
    scaler=st.floats(1e-4, 10),
    init=st.floats(1e-3, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_probabilities_stay_within_zero_and_one(gradient, scaler, init):
    g = np.array([gradient], dtype=np.float32)
    state = PBop(scaler=scaler, init=init).for_steps(10_000).start([np.ones(g.shape, dtype=np.int8)], random=Keys())
    for _ in range(4):
        state.step([g], 0.0, NoProbe())
        theta = state.state()["theta"][0]
        assert theta.dtype == np.float32
        assert ((theta >= 0) & (theta <= 1)).all()
        assert (np.abs(state.cells[0]) == 1).all()


def test_a_weight_driven_to_certainty_is_thrown_no_more_and_comes_back():
    state = PBop(scaler=0.25, init=0.1).for_steps(10_000).start([np.ones((1, 1), dtype=np.int8)], random=Keys())
    for _ in range(20):
        state.step([np.array([[-1.0]], dtype=np.float32)], 0.0, NoProbe())
    assert state.state()["theta"][0].item() == 1.0
    for _ in range(60):
        state.step([np.array([[3.0]], dtype=np.float32)], 0.0, NoProbe())
    assert state.state()["theta"][0].item() == 0.0
    assert state.cells[0].item() == state.deployed()[0].item() == -1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PBop(scaler=0), "scaler of the rule pbop is 0.0, expected above 0 at the start"),
        (lambda: PBop(scaler=-0.1), "a schedule runs from -0.1 to -0.1, expected finite numbers"),
        (lambda: PBop(scaler="x"), "scaler of the rule pbop is 'x', expected a number, or START:END"),
        (lambda: PBop(init=0), "init of the rule pbop is 0, expected above 0 and at most 1/2"),
        (lambda: PBop(init=0.6), "init of the rule pbop is 0.6, expected above 0 and at most 1/2"),
        (lambda: PBop(init=float("nan")), "init of the rule pbop is nan, expected above 0"),
    ],
)
def test_bad_hyper_parameters_give_one_clear_sentence(call, message):
    with pytest.raises(QueryError, match=message):
        call()


def test_the_rule_learns_the_digits(digits):
    config = TrainingConfig.for_rule("pbop", epochs=10)
    assert train(config, digits, progress=False).validation_accuracy > 0.3  # guessing gives 0.1


def test_a_scaler_in_words_is_the_schedule():
    assert PBop(scaler="0.1:0.01:cosine").scaler == Schedule(0.1, 0.01, "cosine")
