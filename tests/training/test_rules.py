import math

import numpy as np
import pytest
import torch

from bnnverify.errors import QueryError
from bnnverify.training.rules import RULES, SteSign, StochasticSwitching, rule_named
from bnnverify.training.rules.stochastic_switching import switching_probability
from bnnverify.training.sign import sgn, ste_sign


def no_loss():
    raise AssertionError("this rule has no business evaluating the loss")


def signs(*shape, seed=0):
    return sgn(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def test_sign_of_zero_is_plus_one_and_nothing_is_zero():
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, -1e-30])
    assert sgn(x).tolist() == [-1, 1, 1, 1, -1]
    assert ste_sign(x.double()).dtype == torch.float64
    assert ste_sign(torch.zeros(3)).tolist() == [1, 1, 1]


def test_the_gradient_passes_exactly_where_the_input_is_within_one():
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.001], requires_grad=True)
    (ste_sign(x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 0]


def probability_by_loops(weight, average, rate, power):
    rows, columns = weight.shape
    strengths = [abs(float(average[i, j])) ** power for i in range(rows) for j in range(columns)]
    mean = sum(strengths) / len(strengths)
    p = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            if float(weight[i, j]) * float(average[i, j]) > 0:
                p[i, j] = min(1.0, rate * abs(float(average[i, j])) ** power / mean)
    return p


@pytest.mark.parametrize(("rate", "power"), [(0.01, 2.0), (0.5, 2.0), (1.0, 1.0), (0.3, 3.0)])
def test_the_switching_probability_is_that_of_plain_loops(rate, power):
    weight, average = signs(5, 7).double(), torch.randn(5, 7, generator=torch.Generator().manual_seed(3)).double()
    average[0, 0] = 0
    p = switching_probability(weight, average, rate=rate, power=power)
    np.testing.assert_allclose(p.numpy(), probability_by_loops(weight, average, rate, power), rtol=1e-12)


def test_tiny_gradients_switch_as_large_ones_do_and_none_never():
    weight, average = signs(4, 4), torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    p = switching_probability(weight, average, rate=0.1, power=2.0)
    tiny = switching_probability(weight, average * 2.0**-100, rate=0.1, power=2.0)
    torch.testing.assert_close(tiny, p)  # |m|^2 would underflow in float32
    assert not switching_probability(weight, torch.zeros(4, 4), rate=0.1, power=2.0).any()


def test_cells_switch_as_often_as_their_probability_says_and_ineligible_ones_never():
    generator = torch.Generator().manual_seed(11)
    rule = StochasticSwitching(rate=0.2, decay=1.0, gamma=1.0)
    start, gradient = signs(6, 5), torch.randn(6, 5, generator=generator)
    p = probability_by_loops(start, gradient, 0.2, 2.0)
    weight = start.clone().requires_grad_()
    state = rule.start([weight], generator=generator)
    trials, switched, total = 4000, np.zeros((6, 5)), 0
    for _ in range(trials):
        with torch.no_grad():
            weight.copy_(start)
        weight.grad = gradient.clone()
        state.step(0.0, no_loss)
        assert set(weight.detach().unique().tolist()) <= {-1.0, 1.0}
        switched += (weight.detach() != start).numpy()
        total += int((weight.detach() != start).sum())
    assert (switched[p == 0] == 0).all() and (p == 0).any()
    # five standard deviations; the seed is fixed
    assert (np.abs(switched / trials - p) <= 5 * np.sqrt(p * (1 - p) / trials) + 1e-12).all()
    assert state.statistics() == {"pulses": trials * int((p > 0).sum()), "switches": total}


def test_the_average_and_the_decay_of_the_rate_follow_the_formula():
    rule = StochasticSwitching(rate=1.0, decay=1e-12, gamma=0.25, power=1.0)
    weight = torch.tensor([[1.0, 1.0]], requires_grad=True)
    state = rule.start([weight], generator=torch.Generator().manual_seed(0))
    weight.grad = torch.tensor([[-4.0, -4.0]])  # m = -1: not eligible
    state.step(0.0, no_loss)
    weight.grad = torch.tensor([[3.0, 19.0]])  # m = -0.75 + 0.75 = 0 and -0.75 + 4.75 = 4: only the second
    state.step(1.0, no_loss)  # the rate is down to 1e-12: a pulse, no switch
    assert weight.tolist() == [[1.0, 1.0]]
    assert state.statistics() == {"pulses": 1, "switches": 0}
    weight.grad = torch.tensor([[0.0, 4.0]])
    state.step(0.0, no_loss)  # p = min(1, 4 / 2)
    assert weight.tolist() == [[1.0, -1.0]]


def test_latent_weights_move_by_adam_are_clipped_and_give_the_sign():
    rule = SteSign(learning_rate=0.3, decay=1.0, init=0.5, average=0.0)
    weight = torch.tensor([[1.0, -1.0, 1.0]], requires_grad=True)
    state = rule.start([weight], generator=torch.Generator().manual_seed(5))
    latent = (
        torch.tensor([[1.0, -1.0, 1.0]]) * 0.5 * torch.rand(1, 3, generator=torch.Generator().manual_seed(5))
    ).tolist()[0]
    gradient = [2.0, -0.5, -1.0]
    for step in range(1, 9):
        weight.grad = torch.tensor([gradient])
        state.step(0.0, no_loss)
        # of a constant gradient Adam takes the sign
        latent = [min(max(v - 0.3 * math.copysign(1, g), -1), 1) for v, g in zip(latent, gradient, strict=True)]
        assert weight.tolist() == [[1.0 if v >= 0 else -1.0 for v in latent]], step
    assert latent == [-1, 1, 1]
    weight.grad = -torch.tensor([gradient])
    for _ in range(40):  # clipped at 1, so the way back is short
        state.step(0.0, no_loss)
    assert weight.tolist() == [[1.0, -1.0, -1.0]]


def test_an_evaluation_reads_the_majority_and_training_the_latest_signs():
    weight = torch.tensor([[1.0]], requires_grad=True)
    state = SteSign(learning_rate=1.0, decay=1.0, average=0.9).start([weight], generator=torch.Generator())
    for _ in range(30):
        weight.grad = torch.tensor([[-1.0]])
        state.step(0.0, no_loss)
    weight.grad = torch.tensor([[100.0]])
    state.step(0.0, no_loss)
    state.step(0.0, no_loss)
    state.step(0.0, no_loss)
    state.prepare(training=True)
    assert weight.item() == -1
    state.prepare(training=False)
    assert weight.item() == 1
    state.prepare(training=True)
    assert weight.item() == -1


def test_the_registry_knows_every_rule_by_its_name():
    assert set(RULES) == {"ste", "ss-ema"}
    for name, rule in RULES.items():
        assert rule_named(name) == rule()
    assert rule_named("ss-ema", gamma=0.5) == StochasticSwitching(gamma=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rule_named("adam"), "no update rule 'adam', expected one of: ste, ss-ema"),
        (lambda: rule_named("ste", gamma=1), "ste has no option 'gamma', expected one of: learning_rate"),
        (lambda: SteSign(learning_rate=0), "learning_rate of the rule ste is 0, expected above 0"),
        (lambda: SteSign(learning_rate=float("nan")), "learning_rate of the rule ste is nan"),
        (lambda: SteSign(decay=2), "decay of the rule ste is 2"),
        (lambda: SteSign(init=0), "init of the rule ste is 0"),
        (lambda: SteSign(average=1), "average of the rule ste is 1, expected at least 0 and below 1"),
        (lambda: StochasticSwitching(rate=1.5), "rate of the rule ss-ema is 1.5, expected above 0 and at most 1"),
        (lambda: StochasticSwitching(gamma=0), "gamma of the rule ss-ema is 0"),
        (lambda: StochasticSwitching(power=-1), "power of the rule ss-ema is -1, expected above 0"),
    ],
)
def test_bad_hyper_parameters_give_one_clear_sentence(call, message):
    with pytest.raises(QueryError, match=message):
        call()
