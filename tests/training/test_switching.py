import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.errors import QueryError
from bnnverify.training import TrainingConfig
from bnnverify.training.rules import (
    Average,
    BatchSum,
    Counter,
    Memoryless,
    Memristors,
    StochasticSwitching,
    Undo,
    rule_named,
    rule_options,
)
from bnnverify.training.rules.accumulators import LAWS, Drive, probability_of
from tests.training.trajectories import SHAPES, Keys, NoProbe, each, follow, random_signs, uniform

ACCUMULATORS = (
    Memoryless(),
    BatchSum(batches=2),
    Average(gamma=0.5),
    Counter(bits=2),
    Memristors(count=3, threshold=1),
)


def law_by_formula(law, x):
    return {"tanh": math.tanh(x), "poisson": 1 - math.exp(-x)}.get(law, min(1.0, x))


class SwitchingByLoops:
    """A rule with ideal cells in plain loops; subclasses say which pulses are wanted."""

    def __init__(self, rate, power=1.0, law="relative"):
        self.rate, self.power, self.law = rate, power, law

    def __call__(self, cells, keys):
        self.cells, self.keys = cells, keys
        self.memory = [np.zeros(shape) for shape in SHAPES]
        self.pulses, self.time = 0, 0
        self.begin()
        return self

    def begin(self):
        pass

    def step(self, g, q):
        self.time += 1
        for b in range(len(self.cells)):
            wanted = self.wanted(b, g[b].astype(float), q)
            if not wanted:
                continue
            key = self.keys.key()
            for r, c, p in wanted:
                self.pulses += 1
                if uniform(key, r * SHAPES[b][1] + c) < p:
                    self.cells[b][r, c] = -self.cells[b][r, c]
                    self.switched(b, r, c)

    def switched(self, b, r, c):
        pass

    def probability(self, b, a, r, c, q):
        """Of the law, for one of the values `a`."""
        x = abs(a[r, c]) ** self.power
        if self.law == "relative":
            mean = sum(abs(a[i, j]) ** self.power for _, i, j, _ in each([a])) / a.size
            return 0.0 if mean == 0 else min(1.0, self.rate(q) * x / mean)
        return law_by_formula(self.law, self.rate(q) * x)

    def drive(self, b, a, q):
        return [
            (r, c, self.probability(b, a, r, c, q)) for _, r, c, _ in each([a]) if self.cells[b][r, c] * a[r, c] > 0
        ]

    def deployed(self):
        return self.cells

    def numbers(self):
        return {}


class NoneByLoops(SwitchingByLoops):
    def wanted(self, b, g, q):
        return self.drive(b, g, q)


class BatchByLoops(SwitchingByLoops):
    def wanted(self, b, g, q):
        self.memory[b] += g
        if self.time % 3:
            return []
        a, self.memory[b] = self.memory[b], np.zeros(SHAPES[b])
        return self.drive(b, a, q)


class AverageByLoops(SwitchingByLoops):
    gamma, reset = 0.25, False

    def wanted(self, b, g, q):
        for _, r, c, _ in each([g]):
            self.memory[b][r, c] = (1 - self.gamma) * self.memory[b][r, c] + self.gamma * g[r, c]
        return self.drive(b, self.memory[b], q)

    def switched(self, b, r, c):
        if self.reset:
            self.memory[b][r, c] = 0


class ResetByLoops(AverageByLoops):
    reset = True


class CountByLoops(SwitchingByLoops):
    limit, pulse_probability = 3, 0.7

    def wanted(self, b, g, q):
        key = self.keys.key()
        for _, r, c, i in each([g]):
            if uniform(key, i) < self.probability(b, g, r, c, q):
                moved = self.memory[b][r, c] + np.sign(g[r, c])
                self.memory[b][r, c] = min(max(moved, -self.limit), self.limit)
        return [
            (r, c, self.pulse_probability)
            for _, r, c, _ in each([g])
            if self.memory[b][r, c] * self.cells[b][r, c] == self.limit
        ]

    def switched(self, b, r, c):
        self.memory[b][r, c] = 0


class MemristorsByLoops(SwitchingByLoops):
    devices, threshold, write_probability = 5, 3, 0.8

    def begin(self):
        self.states = [np.repeat(c[:, :, None], self.devices, axis=2) for c in self.cells]

    def wanted(self, b, g, q):
        first, further = self.keys.key(), self.keys.key()
        result = []
        for _, r, c, i in each([g]):
            states, target = self.states[b][r, c], -np.sign(g[r, c])
            opposed = [j for j in range(self.devices) if target and states[j] != target]
            p = self.probability(b, g, r, c, q)
            # the gap to the next device that switches is geometric
            u, at, draws = uniform(first, i), -1, 0
            while p > 0:
                at += 1 + (0 if p >= 1 else math.floor(math.log1p(-u) / math.log1p(-p)))
                if at >= len(opposed):
                    break
                states[opposed[at]] = target
                u = uniform(further, i * self.devices + draws)
                draws += 1
            if -self.cells[b][r, c] * states.sum() >= self.threshold:
                result.append((r, c, self.write_probability))
        return result


FALLING = "0.9:0.2"


def falling(q):
    return 0.9 * (0.2 / 0.9) ** q


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("accumulator", "loops", "options"),
    [
        (Memoryless(rate=FALLING, power=1.5), NoneByLoops, {"power": 1.5}),
        (BatchSum(batches=3, rate=FALLING), BatchByLoops, {}),
        (Average(gamma=0.25, rate=FALLING, power=2), AverageByLoops, {"power": 2}),
        (Average(gamma=0.25, rate=FALLING, power=3, reset=True), ResetByLoops, {"power": 3}),
        (Counter(bits=3, increment=FALLING, pulse_probability=0.7), CountByLoops, {}),
        (Memristors(count=5, threshold=3, rate=FALLING, write_probability=0.8), MemristorsByLoops, {}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_accumulator_follows_the_plain_loops(accumulator, loops, options, law, seed):
    absolute = {"linear": 30.0, "tanh": 30.0, "poisson": 30.0}.get(law, 1.0)
    for name in ("rate", "increment"):
        if hasattr(accumulator, name):
            options = {**options, "rate": lambda q: absolute * falling(q)}
            schedule = f"{0.9 * absolute}:{0.2 * absolute}"
            accumulator = replace(accumulator, **{name: schedule})
    oracle = loops(law=law, **options)
    assert follow(StochasticSwitching(accumulator, law=law), oracle, seed=seed) > 2
    assert oracle.pulses > 2


def test_the_pulses_are_counted_as_the_plain_loops_do():
    rule = StochasticSwitching(Average(gamma=0.25, rate=0.3))
    oracle = AverageByLoops(lambda q: 0.3, power=2)([c.copy() for c in blocks()], Keys())
    state = rule.for_steps(10_000).start(blocks(), random=Keys())
    for step in range(30):
        g = [np.random.RandomState(step).randn(*shape).astype(np.float32) for shape in SHAPES]
        state.step(g, 0.0, NoProbe())
        oracle.step(g, 0.0)
    assert state.statistics()["pulses"] == oracle.pulses > 100


def blocks(shapes=SHAPES):
    return [random_signs(shape, i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("power", [1.0, 2.0, 2.5])
def test_cells_switch_as_often_as_the_law_says_and_ineligible_ones_never(law, power):
    cells, values = random_signs((12,), 3), np.random.RandomState(5).randn(12).astype(np.float32)
    values[0] = 0
    mean = float((np.abs(values.astype(float)) ** power).mean())
    drive = Drive(values, 0.4 / mean, power, law)
    trials, switched = 4000, np.zeros(12, dtype=int)
    for key in range(trials):
        pulses, indices = drive.switched(cells, np.uint64(key * 7919))
        assert pulses == (cells * values > 0).sum()
        switched[indices] += 1
    for i in range(12):
        x = 0.4 / mean * abs(float(values[i])) ** power
        p = law_by_formula(law, x) if cells[i] * values[i] > 0 else 0.0
        interval = clopper_pearson(int(switched[i]), trials, confidence=1 - 1e-9)
        assert float(interval.lower) - 1e-12 <= p <= float(interval.upper), (i, p, switched[i] / trials)
        assert p > 0 or switched[i] == 0


def test_each_auxiliary_memristor_switches_on_its_own():
    # five devices at +1 pulsed down with probability 0.3: all 32 patterns as often as independent devices show them
    n, p = 20000, 0.3
    state = (
        StochasticSwitching(Memristors(count=5, threshold=5, rate=p), law="linear")
        .for_steps(10_000)
        .start([np.ones((1, n), dtype=np.int8)], random=Keys(3))
    )
    state.step([np.ones((1, n), dtype=np.float32)], 0.0, NoProbe())
    patterns = np.bincount(state.state()["memories"][0]["bits"], minlength=32)
    for pattern, hits in enumerate(patterns):
        down = 5 - bin(pattern).count("1")
        interval = clopper_pearson(int(hits), n, confidence=1 - 1e-9)
        assert interval.lower <= p**down * (1 - p) ** (5 - down) <= interval.upper, pattern
    assert state.statistics()["auxiliary_pulses"] == 5 * n
    assert state.statistics()["auxiliary_switches"] == sum(
        h * (5 - bin(i).count("1")) for i, h in enumerate(patterns.tolist())
    )


def test_the_memristors_start_saturated_towards_their_weights_so_that_one_step_turns_none():
    cells = random_signs((4, 50), 1)
    state = (
        StochasticSwitching(Memristors(count=7, threshold=1, rate=1e-3))
        .for_steps(10_000)
        .start([cells.copy()], random=Keys())
    )
    bits = state.state()["memories"][0]["bits"].reshape(4, 50)
    np.testing.assert_array_equal(bits, np.where(cells > 0, 127, 0))
    state.step([cells.astype(np.float32)], 0.0, NoProbe())
    np.testing.assert_array_equal(state.cells[0], cells)


@pytest.mark.parametrize("accumulator", ACCUMULATORS, ids=lambda a: a.name)
@pytest.mark.parametrize("scale", [2.0**-120, 2.0**-60, 2.0**60])
def test_under_the_relative_law_the_scale_of_the_loss_does_not_matter(accumulator, scale):
    def final(factor):
        state = StochasticSwitching(accumulator).for_steps(10_000).start(blocks(), random=Keys())
        for step in range(60):
            g = [np.random.RandomState(step).randn(*shape).astype(np.float32) for shape in SHAPES]
            state.step([a * np.float32(factor) for a in g], 0.0, NoProbe())
        return [c.tolist() for c in state.cells], state.statistics()["pulses"]

    assert final(scale) == final(1.0)


@pytest.mark.parametrize("accumulator", ACCUMULATORS, ids=lambda a: a.name)
@pytest.mark.parametrize("law", LAWS)
def test_without_a_gradient_no_cell_gets_a_pulse(accumulator, law):
    state = StochasticSwitching(accumulator, law=law).for_steps(10_000).start(blocks(), random=Keys())
    for _ in range(5):
        state.step([np.zeros(shape, dtype=np.float32) for shape in SHAPES], 0.0, NoProbe())
    np.testing.assert_equal(state.cells, blocks())
    assert state.statistics()["pulses"] == state.statistics()["events"] == 0


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=200),
    rate=st.floats(0, 1e6),
    power=st.floats(0.1, 6.0),
    law=st.sampled_from(LAWS),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_probabilities_lie_in_the_unit_interval_and_both_paths_agree(values, rate, power, law, seed):
    cells = random_signs((len(values),), seed)
    a = np.array(values, dtype=np.float32)
    drive = Drive(a, rate, power, law)
    indices, probabilities = drive.pulses(cells)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_array_equal(indices, np.flatnonzero(cells * a.astype(float) > 0))
    pulses, switched = drive.switched(cells, np.uint64(seed))
    assert pulses == len(indices)
    expected = [i for i, p in zip(indices, probabilities, strict=True) if uniform(seed, int(i)) < p]
    assert switched.tolist() == expected


@given(x=st.floats(0, 1e300), law=st.integers(0, 3))
def test_no_law_gives_more_than_the_linear_one(x, law):
    assert 0 <= probability_of.py_func(law, x) <= min(1.0, x)


@given(
    bits=st.integers(2, 8),
    n=st.integers(1, 150),
    steps=st.integers(1, 300),
    seed=st.integers(0, 1000),
    law=st.sampled_from(["relative", "poisson"]),
)
@settings(max_examples=40, deadline=None)
def test_counters_stay_within_their_bits(bits, n, steps, seed, law):
    cells = random_signs((1, n), seed)
    rule = StochasticSwitching(Counter(bits=bits, increment=1e9, pulse_probability=1e-9), law=law)
    state = rule.for_steps(10_000).start([cells], random=Keys(seed))
    g = np.random.RandomState(seed).randn(1, n).astype(np.float32)
    for _ in range(steps):
        state.step([g], 0.0, NoProbe())
    limit = min(steps, 2 ** (bits - 1) - 1)
    np.testing.assert_array_equal(state.state()["memories"][0]["counts"], limit * np.sign(g[0]))


def test_a_counter_keeps_asking_until_its_cell_has_switched_and_starts_anew_at_zero():
    state = (
        StochasticSwitching(Counter(bits=2, increment=1.0, pulse_probability=0.5), law="linear")
        .for_steps(10_000)
        .start([np.ones((1, 1), dtype=np.int8)], random=Keys(5))
    )
    pulses = 0
    while state.cells[0].item() == 1:
        state.step([np.ones((1, 1), dtype=np.float32)], 0.0, NoProbe())
        pulses += 1
        assert state.statistics()["pulses"] == pulses
    assert pulses > 1  # of this seed: the first pulse failed
    assert state.state()["memories"][0]["counts"].tolist() == [0]
    state.step([np.zeros((1, 1), dtype=np.float32)], 0.0, NoProbe())
    assert state.statistics()["pulses"] == pulses


def test_the_endurance_counts_the_switches_of_every_cell():
    state = (
        StochasticSwitching(Memoryless(rate=1e9))
        .for_steps(10_000)
        .start([np.array([[1, 1, -1]], dtype=np.int8)], random=Keys())
    )
    for gradient in ([1, -1, 0], [-1, 1, 0], [1, 1, 0]):  # the second cell is at -1 in the third step
        state.step([np.array([gradient], dtype=np.float32)], 0.0, NoProbe())
    assert state.cells[0].tolist() == [[-1, -1, -1]]
    assert state.switches_per_cell().tolist() == [1, 1, 0, 1]
    statistics = state.statistics()
    assert statistics["switches"] == 4 and statistics["pulses"] == 4
    assert statistics["switches_per_cell_max"] == 3
    assert statistics["switches_per_cell_mean"] == pytest.approx(4 / 3)
    assert statistics["energy_joule"] is None


def test_options_reach_the_parts_of_the_rule_flat_nested_or_whole():
    rule = rule_named("ss-ema", gamma=0.1, power=1, rate="3e-4:1e-5", law="poisson", undo_size=7)
    assert rule == StochasticSwitching(Average(0.1, "3e-4:1e-5", 1), law="poisson", undo=Undo(size=7))
    assert rule_named("ss-count", undo={"size": 7}, undo_tolerance=0.5).undo == Undo(size=7, tolerance=0.5)
    assert rule_named("ss-count", undo=True).undo == Undo()
    assert rule_named("ss-count", undo=False).undo is None
    assert rule_named("ss-mem", count=3, threshold=1).accumulator == Memristors(count=3, threshold=1)
    assert rule_named("ss-none").name == "ss-none" and rule_named("ss-batch").accumulator == BatchSum()


@pytest.mark.parametrize("accumulator", ACCUMULATORS, ids=lambda a: a.name)
def test_a_config_with_undo_and_hardware_survives_json(accumulator):
    hardware = {"cell": "mtj", "menu": {"levels": 3}, "stuck_cells": [[0, 1, -1]]}
    rule = StochasticSwitching(accumulator, undo={"writes": "stochastic"}, hardware=hardware)
    assert rule_named(rule.name, **json.loads(json.dumps(rule_options(rule)))) == rule
    config = TrainingConfig(rule=rule)
    assert TrainingConfig.from_json(json.loads(json.dumps(config.as_json()))) == config


def test_a_config_prints_the_parts_of_the_rule_that_differ():
    config = TrainingConfig(rule=rule_named("ss-count", bits=4, undo_size=7))
    assert repr(config) == ("TrainingConfig(rule=StochasticSwitching(accumulator=Counter(bits=4), undo=Undo(size=7)))")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Memoryless(rate=0), "rate of the rule ss-none is 0.0, expected above 0 at the start"),
        (lambda: Memoryless(power=0), "power of the rule ss-none is 0, expected above 0 and at most 6"),
        (lambda: Average(power=7), "power of the rule ss-ema is 7, expected above 0 and at most 6"),
        (lambda: Average(gamma=0), "gamma of the rule ss-ema is 0, expected above 0 and at most 1"),
        (lambda: Average(reset=1), "reset of the rule ss-ema is 1, expected True or False"),
        (lambda: Average(rate="fast"), "rate of the rule ss-ema is 'fast', expected a number, or START:END"),
        (lambda: BatchSum(batches=0), "batches of the rule ss-batch is 0, expected a positive integer"),
        (lambda: BatchSum(batches=2.5), "batches of the rule ss-batch is 2.5, expected a positive integer"),
        (lambda: Counter(bits=1), "bits of the rule ss-count is 1, expected an integer from 2 to 8"),
        (lambda: Counter(bits=9), "bits of the rule ss-count is 9, expected an integer from 2 to 8"),
        (lambda: Counter(increment=0), "increment of the rule ss-count is 0.0, expected above 0"),
        (lambda: Counter(pulse_probability=0), "pulse_probability of the rule ss-count is 0, expected above 0"),
        (lambda: Memristors(count=4), "count of the rule ss-mem is 4, expected an odd integer from 1 to 31"),
        (lambda: Memristors(threshold=2), "threshold of the rule ss-mem is 2, expected an odd integer from 1 to 15"),
        (lambda: Memristors(count=3, threshold=5), "threshold of the rule ss-mem is 5, expected an odd integer"),
        (lambda: Memristors(write_probability=2), "write_probability of the rule ss-mem is 2, expected above 0"),
        (lambda: StochasticSwitching(law="exp"), "law of the rule ss-ema is 'exp', expected one of: relative, linear"),
        (lambda: StochasticSwitching(0.5), r"the accumulator is 0.5, expected one such as Average\(gamma=0.01\)"),
        (lambda: rule_named("ss-ema", bits=3), "the rule ss-ema has no option 'bits', expected one of: gamma, rate"),
        (lambda: rule_named("ss-ema", undo_speed=3), "the rule ss-ema has no option 'undo_speed', expected one of"),
    ],
)
def test_bad_hyper_parameters_give_one_clear_sentence(call, message):
    with pytest.raises(QueryError, match=message):
        call()
