import math
from dataclasses import replace

import numpy as np
import pytest

from bnnverify.errors import BnnVerifyWarning, QueryError
from bnnverify.training import TrainingConfig, train
from bnnverify.training.rules import Bop, Bop2ndOrder, Schedule
from tests.training.trajectories import Keys, NoProbe, each, follow, zeros


class BopByLoops:
    """`gamma` and `tau` are functions of the progress."""

    def __init__(self, gamma, tau):
        self.gamma, self.tau = gamma, tau

    def __call__(self, cells, keys):
        self.cells, self.m = cells, zeros()
        return self

    def step(self, g, q):
        for b, r, c, _ in each(g):
            self.m[b][r, c] = (1 - self.gamma(q)) * self.m[b][r, c] + self.gamma(q) * float(g[b][r, c])
            if self.cells[b][r, c] * self.m[b][r, c] > self.tau(q):
                self.cells[b][r, c] = -self.cells[b][r, c]

    def deployed(self):
        return self.cells

    def numbers(self):
        return {"average": self.m}


class Bop2ndByLoops(BopByLoops):
    def __init__(self, gamma, sigma, tau, unbiased=False):
        super().__init__(gamma, tau)
        self.sigma, self.unbiased = sigma, unbiased

    def __call__(self, cells, keys):
        self.u, self.t = zeros(), 0
        return super().__call__(cells, keys)

    def step(self, g, q):
        self.t += 1
        gamma, sigma = self.gamma(q), self.sigma(q)
        for b, r, c, _ in each(g):
            value = float(g[b][r, c])
            m = self.m[b][r, c] = (1 - gamma) * self.m[b][r, c] + gamma * value
            u = self.u[b][r, c] = (1 - sigma) * self.u[b][r, c] + sigma * value**2
            if self.unbiased:  # only for constant gamma and sigma
                m, u = m / (1 - (1 - gamma) ** self.t), u / (1 - (1 - sigma) ** self.t)
            if self.cells[b][r, c] * m / (math.sqrt(u) + 1e-10) > self.tau(q):
                self.cells[b][r, c] = -self.cells[b][r, c]

    def numbers(self):
        return {"first": self.m, "second": self.u}


def always(value):
    return lambda q: value


@pytest.mark.parametrize("seed", range(4))
def test_bop_follows_the_plain_loops(seed):
    assert follow(Bop(tau=0.005, gamma=0.05), BopByLoops(always(0.05), always(0.005)), seed=seed) > 5


def test_the_schedules_of_bop_are_those_of_its_formula():
    rule = Bop(tau="0.01:0.001:polynomial", gamma="0.3:0.01")
    loops = BopByLoops(lambda q: 0.3 * (0.01 / 0.3) ** q, lambda q: 0.01 - 0.009 * q)
    assert follow(rule, loops) > 5


@pytest.mark.parametrize("seed", range(4))
def test_the_second_order_follows_the_plain_loops(seed):
    rule = Bop2ndOrder(tau=0.3, gamma=0.05, sigma=0.1)
    assert follow(rule, Bop2ndByLoops(always(0.05), always(0.1), always(0.3)), seed=seed) > 3


def test_the_unbiased_moments_follow_the_plain_loops():
    rule = Bop2ndOrder(tau="1.1:0.3:polynomial", gamma=0.05, sigma=0.1, unbiased=True)
    loops = Bop2ndByLoops(always(0.05), always(0.1), lambda q: 1.1 - 0.8 * q, unbiased=True)
    assert follow(rule, loops, seed=2) > 3


def test_unbiased_moments_of_a_constant_gradient_are_the_gradient_under_any_schedule():
    rule = Bop2ndOrder(tau=2.0, gamma="0.5:0.001", sigma="0.3:0.01:cosine", unbiased=True)
    cells = np.array([[1, -1]], dtype=np.int8)
    state = rule.for_steps(10_000).start([cells], random=Keys())
    for i in range(20):
        state.step([np.array([[0.25, 4.0]], dtype=np.float32)], i / 20, NoProbe())
        m, u = state.state()["first"][0], state.state()["second"][0]
        left = state.state()["unseen"]
        np.testing.assert_allclose(m / (1 - left[0]), [[0.25, 4.0]], rtol=1e-5)
        np.testing.assert_allclose(u / (1 - left[1]), [[0.0625, 16.0]], rtol=1e-5)


@pytest.mark.parametrize("w", [-1, 1])
@pytest.mark.parametrize(("gradient", "flips"), [(0.5, False), (0.5 + 2**-20, True), (0.0, False), (-0.75, False)])
def test_a_tie_never_flips_a_weight_of_bop_whatever_its_sign(w, gradient, flips):
    cells = np.array([[w]], dtype=np.int8)
    Bop(tau=0.125, gamma=0.25).for_steps(10_000).start([cells], random=Keys()).step(
        [np.array([[w * gradient]], dtype=np.float32)], 0.0, NoProbe()
    )
    assert cells.item() == (-w if flips else w)


@pytest.mark.parametrize("w", [-1, 1])
def test_a_tie_never_flips_a_weight_of_the_second_order(w):
    # m = g / 4 and sqrt(u) = |g| / 2, to which the epsilon adds nothing in float32
    for tau, flips in ((0.5, False), (0.5 - 2**-20, True)):
        cells = np.array([[w]], dtype=np.int8)
        with pytest.warns(BnnVerifyWarning):
            state = Bop2ndOrder(tau=tau, gamma=0.25, sigma=0.25).for_steps(10_000).start([cells], random=Keys())
        state.step([np.array([[w * 2.0]], dtype=np.float32)], 0.0, NoProbe())
        assert cells.item() == (-w if flips else w)


@pytest.mark.parametrize("w", [-1, 1])
@pytest.mark.parametrize("rule", [Bop(tau=0.0), Bop2ndOrder(tau="0.1:0:polynomial")])
def test_without_a_gradient_nothing_flips_even_at_threshold_zero(rule, w):
    cells = np.full((3, 3), w, dtype=np.int8)
    state = rule.for_steps(10_000).start([cells], random=Keys())
    for _ in range(5):
        state.step([np.zeros((3, 3), dtype=np.float32)], 0.999999, NoProbe())
    assert (cells == w).all()


def test_a_flipped_weight_rests_until_its_average_changes_sign():
    cells = np.array([[1]], dtype=np.int8)
    state = Bop(tau=0.0, gamma=0.5).for_steps(10_000).start([cells], random=Keys())
    signs = []
    for gradient in (1.0, 1.0, -1.0, -0.25, -1.0):  # averages 1/2, 3/4, -1/8, -3/16, -19/32
        state.step([np.array([[gradient]], dtype=np.float32)], 0.0, NoProbe())
        signs.append(cells.item())
    assert signs == [-1, -1, 1, 1, 1]


def test_only_bop_depends_on_the_scale_of_the_loss():
    def flips(rule, scale):
        cells = np.ones((20, 30), dtype=np.int8)
        state = rule.for_steps(10_000).start([cells], random=Keys())
        random = np.random.RandomState(0)
        for _ in range(50):
            state.step([np.float32(scale) * random.randn(20, 30).astype(np.float32)], 0.0, NoProbe())
        return cells

    second = Bop2ndOrder(tau=0.2, gamma=0.02, sigma=0.05)
    np.testing.assert_array_equal(flips(second, 1), flips(second, 2.0**-10))
    assert (flips(second, 1) != 1).any()
    first = Bop(tau=0.1, gamma=0.02)
    assert (flips(first, 1) != flips(first, 2.0**-10)).any()
    np.testing.assert_array_equal(flips(first, 1), flips(replace(first, tau=0.1 * 2.0**-10), 2.0**-10))


def test_the_published_values_warn_that_the_first_step_flips_half_of_the_network_and_it_does():
    rule = Bop2ndOrder(tau=1e-6, gamma=1e-7, sigma=1e-3)
    random = np.random.RandomState(0)
    cells = np.where(random.rand(40, 50) < 0.5, -1, 1).astype(np.int8)
    gradient = random.randn(40, 50).astype(np.float32)
    harmful = cells * gradient > 0
    before = cells.copy()
    sentence = (
        r"tau of the rule bop2nd is 1e-06 at the start, not above gamma/sqrt\(sigma\) = 3.16e-06: .* half of the net"
        r"work. Use a tau of at least 4\*max\(sqrt\(gamma/2\), gamma/sqrt\(sigma\)\) = 0.00089."
    )
    with pytest.warns(BnnVerifyWarning, match=sentence):
        state = rule.for_steps(10_000).start([cells], random=Keys())
    state.step([gradient], 0.0, NoProbe())
    np.testing.assert_array_equal(cells != before, harmful)


def test_unbiased_moments_warn_where_the_first_ratio_of_one_is_above_the_threshold():
    cells = np.array([[1, -1, 1]], dtype=np.int8)
    with pytest.warns(BnnVerifyWarning, match=r"tau .* is 0.1 at the start, not above 1: .* such as tau=2:0.089"):
        state = Bop2ndOrder(tau=0.1, gamma=1e-3, unbiased=True).for_steps(10_000).start([cells], random=Keys())
    state.step([np.array([[2.0, -3.0, -1.0]], dtype=np.float32)], 0.0, NoProbe())
    assert cells.tolist() == [[-1, 1, 1]]


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
def test_what_does_not_warn_flips_nothing_in_the_first_step(scale):
    for rule in (Bop2ndOrder(), Bop2ndOrder(tau="1.001:0.1", unbiased=True), Bop2ndOrder(tau=0.01001)):
        cells = np.ones((30, 30), dtype=np.int8)
        gradient = np.float32(scale) * np.random.RandomState(0).randn(30, 30).astype(np.float32)
        rule.for_steps(10_000).start([cells], random=Keys()).step([gradient], 0.0, NoProbe())
        assert (cells == 1).all(), rule


def test_the_defaults_obey_the_bound_on_the_threshold():
    for steps in (1, 10, 90, 10_000, 10**7):
        rule = Bop2ndOrder().for_steps(steps)
        gamma, sigma = rule.gamma.largest, rule.sigma.smallest
        assert rule.tau.smallest >= 2.99 * max(math.sqrt(gamma / 2), gamma / math.sqrt(sigma))


def test_the_threshold_of_bop_follows_the_noise_of_its_average():
    for steps, inputs in ((1000, 64), (4000, 64), (4000, 256)):
        rule = Bop().for_steps(steps, inputs)
        assert rule.gamma.start == pytest.approx(3 / steps, rel=0.01)
        assert rule.tau.start == pytest.approx(0.02 * math.sqrt(3 / steps / inputs), rel=0.01)
        assert rule.tau.end == pytest.approx(10 * rule.tau.start, rel=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bop(tau=-1), "a schedule runs from -1.0 to -1.0, expected finite numbers of at least 0"),
        (lambda: Bop(tau="low"), "tau of the rule bop is 'low', expected a number, or START:END"),
        (lambda: Bop(gamma=0), "gamma of the rule bop is 0.0, expected above 0 at the start and at most 1"),
        (lambda: Bop(gamma=1.5), "gamma of the rule bop is 1.5, expected above 0 at the start and at most 1"),
        (lambda: Bop(gamma="0.1:2"), "gamma of the rule bop is 0.1:2.0:exponential, expected above 0"),
        (lambda: Bop2ndOrder(gamma=2), "gamma of the rule bop2nd is 2.0, expected above 0"),
        (lambda: Bop2ndOrder(sigma=0), "sigma of the rule bop2nd is 0.0, expected above 0"),
        (lambda: Bop2ndOrder(sigma=1.01), "sigma of the rule bop2nd is 1.01, expected above 0 at the start"),
        (lambda: Bop2ndOrder(unbiased="no"), "unbiased of the rule bop2nd is 'no', expected True or False"),
    ],
)
def test_bad_hyper_parameters_give_one_clear_sentence(call, message):
    with pytest.raises(QueryError, match=message):
        call()


@pytest.mark.parametrize("name", ["bop", "bop2nd"])
def test_the_rules_learn_the_digits(digits, name):
    config = TrainingConfig.for_rule(name, epochs=10)
    assert train(config, digits, progress=False).validation_accuracy > 0.3  # guessing gives 0.1


def test_a_rule_is_equal_to_the_one_with_the_same_schedules_in_words():
    assert Bop(gamma="1e-4:1e-6:polynomial") == Bop(gamma=Schedule(1e-4, 1e-6, "polynomial"))
