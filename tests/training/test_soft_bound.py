import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.errors import QueryError
from bnnverify.training import TrainingConfig, train
from bnnverify.training.rules import SoftBound
from tests.training.trajectories import Keys, NoProbe, follow, random_signs, uniform


class SoftBoundByLoops:
    """Takes the devices as the rule has drawn them, and moves them pulse by pulse."""

    def __init__(self, rule):
        self.rule = rule

    def __call__(self, cells, keys):
        self.cells, self.keys = cells, keys
        state = self.rule.for_steps(10_000).start([c.copy() for c in cells], random=keys).state()
        self.blocks = [{name: array.copy() for name, array in block.items()} for block in state["blocks"]]
        for cells, block in zip(self.cells, self.blocks, strict=True):
            np.testing.assert_array_equal(cells.ravel(), np.where(block["latent"] >= block["reference"], 1, -1))
        return self

    def step(self, gradients, q):
        rule = self.rule
        for cells, g, block in zip(self.cells, gradients, self.blocks, strict=True):
            g = g.ravel().astype(float)
            mean = sum(abs(x) for x in g) / g.size
            if mean == 0:
                continue
            key, noise_key = self.keys.key(), self.keys.key()
            for i in range(g.size):
                wanted = min(rule.learning_rate.at(q) * abs(g[i]) / mean / rule.dw_min, rule.most_pulses)
                pulses = math.floor(wanted) + (uniform(key, i) < wanted - math.floor(wanted))
                for t in range(pulses):
                    at = 2 * (i * rule.most_pulses + t)
                    radius = math.sqrt(-2 * math.log(1 - uniform(noise_key, at)))
                    xi = radius * math.cos(2 * math.pi * uniform(noise_key, at + 1))
                    v = block["latent"][i]
                    step, bound = (
                        (-block["a_down"][i], block["b_min"][i]) if g[i] > 0 else (block["a_up"][i], block["b_max"][i])
                    )
                    room = 1 - v / bound
                    if rule.noise == "additive":
                        room += rule.c2c_sigma * xi
                    else:
                        room *= 1 + rule.c2c_sigma * xi
                    block["latent"][i] = min(max(v + step * room, block["b_min"][i]), block["b_max"][i])
                row, column = divmod(i, cells.shape[1])
                cells[row, column] = 1 if block["latent"][i] >= block["reference"][i] else -1

    def deployed(self):
        return self.cells

    def numbers(self):
        return {}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("zero_shift", [True, False])
@pytest.mark.parametrize("noise", ["multiplicative", "additive"])
def test_the_synapses_follow_the_plain_loops(seed, zero_shift, noise):
    rule = SoftBound(
        learning_rate="0.3:0.05",
        dw_min=0.1,
        up_down=0.3,
        step_sigma=0.3,
        bound_sigma=0.2,
        c2c_sigma=0.5,
        noise=noise,
        zero_shift=zero_shift,
        most_pulses=5,
    )
    assert follow(rule, SoftBoundByLoops(rule), seed=seed) > 3


def run(rule, steps, n=4000, seed=0):
    """Random gradients of mean zero; the state after them."""
    state = rule.for_steps(10_000).start([random_signs((1, n), seed)], random=Keys(seed))
    for step in range(steps):
        state.step([np.random.RandomState(step).randn(1, n).astype(np.float32)], 0.0, NoProbe())
    return state


def test_imbalance_drives_the_weights_to_one_sign_and_zero_shifting_prevents_it():
    options = {"learning_rate": 0.1, "dw_min": 0.1, "step_sigma": 0.1}
    drifted = run(SoftBound(up_down=0.5, zero_shift=False, **options), 200).statistics()["fraction_plus"]
    other_way = run(SoftBound(up_down=-0.5, zero_shift=False, **options), 200).statistics()["fraction_plus"]
    shifted = run(SoftBound(up_down=0.5, zero_shift=True, **options), 200).statistics()["fraction_plus"]
    assert drifted > 0.95 and other_way < 0.05
    assert 0.4 < shifted < 0.6


def test_the_pulses_are_the_stochastic_rounding_of_the_move():
    # moves of 2.25 steps: two pulses surely, a third with probability 1/4
    n = 20000
    state = (
        SoftBound(learning_rate=0.0225, dw_min=0.01)
        .for_steps(10_000)
        .start([np.ones((1, n), dtype=np.int8)], random=Keys())
    )
    g = np.where(np.arange(n) % 2, -3.0, 3.0).astype(np.float32)[None]
    state.step([g], 0.0, NoProbe())
    statistics = state.statistics()
    assert statistics["pulses"] == statistics["pulses_up"] + statistics["pulses_down"]
    interval = clopper_pearson(statistics["pulses"] - 2 * n, n, confidence=1 - 1e-9)
    assert interval.lower <= 0.25 <= interval.upper
    assert abs(statistics["pulses_up"] - statistics["pulses_down"]) < 6 * math.sqrt(n * 0.25 * 0.75)


@given(
    seed=st.integers(0, 1000),
    up_down=st.floats(-0.9, 0.9),
    sigma=st.floats(0, 2),
    rate=st.floats(1e-6, 1e6),
    shift=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_states_stay_within_their_bounds_and_cells_are_their_signs(seed, up_down, sigma, rate, shift):
    rule = SoftBound(
        learning_rate=rate, dw_min=0.3, up_down=up_down, c2c_sigma=sigma, bound_sigma=0.5, zero_shift=shift
    )
    state = run(rule, 5, n=100, seed=seed)
    block = state.state()["blocks"][0]
    assert ((block["b_min"] <= block["latent"]) & (block["latent"] <= block["b_max"])).all()
    signs = np.where(block["latent"] >= block["reference"], 1, -1)
    np.testing.assert_array_equal(state.cells[0].ravel(), signs)


def test_a_gradient_of_zero_moves_nothing():
    state = SoftBound().for_steps(10_000).start([random_signs((3, 4), 0)], random=Keys())
    before = state.state()["blocks"][0]["latent"].copy()
    state.step([np.zeros((3, 4), dtype=np.float32)], 0.0, NoProbe())
    np.testing.assert_array_equal(state.state()["blocks"][0]["latent"], before)
    assert state.statistics()["pulses"] == 0


def test_the_rule_learns(toy):
    options = {"learning_rate": "0.02:0.0002"}  # few steps are taken
    config = TrainingConfig.for_rule("soft-bound", options=options, hidden=(16,), epochs=15, batch_size=20, noise=0)
    trained = train(config, toy, progress=False)
    assert trained.validation_accuracy > 0.6  # guessing the largest class gives about 0.4
    assert trained.history[-1]["pulses"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0}, "learning_rate of the rule soft-bound is 0.0, expected above 0 at the start"),
        ({"dw_min": 0}, "dw_min of the rule soft-bound is 0, expected above 0"),
        ({"up_down": 1}, "up_down of the rule soft-bound is 1, expected above -1 and below 1"),
        ({"c2c_sigma": -1}, "c2c_sigma of the rule soft-bound is -1, expected at least 0"),
        ({"noise": "pink"}, "noise of the rule soft-bound is 'pink', expected multiplicative or additive"),
        ({"b_min": 0.1}, "b_min of the rule soft-bound is 0.1, expected below 0"),
        ({"b_max": 0}, "b_max of the rule soft-bound is 0, expected above 0"),
        ({"zero_shift": 1}, "zero_shift of the rule soft-bound is 1, expected True or False"),
        ({"init": 0}, "init of the rule soft-bound is 0, expected above 0 and at most 1"),
        ({"most_pulses": 0}, "most_pulses of the rule soft-bound is 0, expected a positive integer"),
    ],
)
def test_bad_options_give_one_clear_sentence(options, message):
    with pytest.raises(QueryError, match=message):
        SoftBound(**options)
