import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.errors import QueryError
from bnnverify.training import TrainingConfig, train
from bnnverify.training.rules import Average, BatchSum, Counter, Memoryless, Memristors, StochasticSwitching, Undo
from tests.training.trajectories import SHAPES, Keys, NoProbe, random_signs

ALL = Memoryless(rate=1e9)  # every eligible cell switches
ACCUMULATORS = (
    ALL,
    BatchSum(2, rate=0.5),
    Average(0.5, rate=0.5),
    Counter(2, 1.0),
    Memristors(3, rate=0.5, threshold=1),
)
HARDWARE = {"cell": "mtj"}


class Losses:
    """A probe that answers with the given losses, and notes what it was asked for."""

    def __init__(self, *losses):
        self.losses, self.asked, self.measured = list(losses), [], []

    def on_batch(self):
        return self._measurer("batch")

    def on_holdout(self, size):
        return self._measurer(size)

    def _measurer(self, what):
        self.asked.append(what)
        number = len(self.asked)

        def measure():
            self.measured.append(number)
            return self.losses.pop(0) if len(self.losses) > 1 else self.losses[0]

        return measure


class Bumps:
    """A loss of the cells: the fraction that differs from a target."""

    def __init__(self, target):
        self.target, self.state, self.seen = target, None, []

    def loss(self):
        wrong = sum(int((c != t).sum()) for c, t in zip(self.state.cells, self.target, strict=True))
        self.seen.append(wrong / sum(t.size for t in self.target))
        return self.seen[-1]

    def on_batch(self):
        return self.loss

    def on_holdout(self, size):
        return self.loss


def blocks(seed=0):
    return [random_signs(shape, seed + i) for i, shape in enumerate(SHAPES)]


def gradients(step=0):
    return [np.random.RandomState(step).randn(*shape).astype(np.float32) for shape in SHAPES]


@given(seed=st.integers(0, 500), which=st.integers(0, 4), scope=st.sampled_from(["network", "block"]))
@settings(max_examples=40, deadline=None)
def test_an_undo_restores_exactly_the_cells_of_before(seed, which, scope):
    rule = StochasticSwitching(ACCUMULATORS[which], undo=Undo(scope=scope))
    state = rule.for_steps(10_000).start(blocks(seed), random=Keys(seed))
    for step in range(12):
        before = [c.copy() for c in state.cells]
        probe = Losses(1.0, *([1.5] * (1 if scope == "network" else 2)))  # the loss always rises
        state.step(gradients(seed + step), step / 12, probe)
        np.testing.assert_equal(state.cells, before)
    statistics = state.statistics()
    assert statistics["undo_events"] == statistics["events"] > 0
    assert statistics["undone_fraction"] == 1.0
    assert statistics["switches"] == 2 * statistics["undone"] > 0


@pytest.mark.parametrize(("after", "kept"), [(0.5, True), (1.0, True), (1.25, True), (1.2501, False), (9.0, False)])
def test_the_rise_that_is_accepted_is_a_fraction_of_the_loss(after, kept):
    start = blocks()
    state = StochasticSwitching(ALL, undo=Undo(tolerance=0.25)).for_steps(10_000).start(blocks(), random=Keys())
    state.step(gradients(), 0.0, Losses(1.0, after))
    switched = sum(int((a != b).sum()) for a, b in zip(start, state.cells, strict=True))
    assert (switched > 0) == kept
    statistics = state.statistics()
    assert statistics["undo_events"] == (0 if kept else 1)
    assert (statistics["undone"] == 0) == kept


@pytest.mark.parametrize(("options", "asked"), [({"data": "batch"}, "batch"), ({"size": 37}, 37)])
def test_both_losses_of_an_event_are_of_the_same_images_and_those_are_fresh_in_every_step(options, asked):
    state = StochasticSwitching(ALL, undo=Undo(**options)).for_steps(10_000).start(blocks(), random=Keys())
    probe = Losses(1.0)
    for step in range(3):
        state.step(gradients(step), 0.0, probe)
    assert probe.asked == [asked] * 3
    assert probe.measured == [1, 1, 2, 2, 3, 3]


def test_nothing_is_measured_where_no_cell_gets_a_pulse():
    state = StochasticSwitching(BatchSum(3), undo=Undo()).for_steps(10_000).start(blocks(), random=Keys())
    state.step(gradients(), 0.0, NoProbe())
    state.step(gradients(), 0.0, NoProbe())


def test_pulses_that_switch_nothing_are_no_event():
    state = (
        StochasticSwitching(Memoryless(rate=1e-12), undo=Undo(highest=2.0))
        .for_steps(10_000)
        .start(blocks(), random=Keys())
    )
    state.step(gradients(), 0.0, Losses(1.0, 9.0))
    statistics = state.statistics()
    assert statistics["pulses"] > 0
    assert statistics["events"] == statistics["undo_events"] == 0
    assert statistics["rate_factor"] == 1.0


def test_the_rate_backs_off_after_an_undo_recovers_after_a_success_and_has_limits():
    undo = Undo(down=0.5, up=1.5, lowest=0.2, highest=2.0)
    state = StochasticSwitching(ALL, undo=undo).for_steps(10_000).start(blocks(), random=Keys())
    factors = []
    for step, rises in enumerate([1, 1, 1, 0, 0, 0, 0, 0, 0, 0]):
        state.step(gradients(step), 0.0, Losses(1.0, 2.0 if rises else 1.0))
        factors.append(state.statistics()["rate_factor"])
    np.testing.assert_allclose(factors, [0.5, 0.25, 0.2, 0.3, 0.45, 0.675, 1.0125, 1.51875, 2.0, 2.0])


def test_the_back_off_reaches_the_probabilities():
    def switches(undo, losses):
        cells = [np.ones((1, 20000), dtype=np.int8)]
        state = StochasticSwitching(Memoryless(rate=0.4), undo=undo).for_steps(10_000).start(cells, random=Keys())
        g = [np.ones((1, 20000), dtype=np.float32)]
        state.step(g, 0.0, Losses(1.0, losses))
        before = state.statistics()["switches"]
        state.step(g, 0.0, Losses(1.0, 1.0))
        return state.statistics()["switches"] - before

    kept_back = switches(Undo(down=0.25, up=1.0), 2.0)  # 20,000 cells at 0.1
    assert abs(kept_back - 2000) < 6 * (20000 * 0.1 * 0.9) ** 0.5


def test_by_block_each_block_is_judged_alone_against_the_loss_it_found():
    # block 0 lowers the loss to 0.5 and is kept; block 1 raises it to 0.8, less than at first, and is taken back
    start = blocks()
    state = StochasticSwitching(ALL, undo=Undo(scope="block")).for_steps(10_000).start(blocks(), random=Keys())
    probe = Losses(1.0, 0.5, 0.8)
    state.step(gradients(), 0.0, probe)
    assert (state.cells[0] != start[0]).any()
    np.testing.assert_array_equal(state.cells[1], start[1])
    assert probe.measured == [1, 1, 1]
    assert state.statistics()["events"] == 2 and state.statistics()["undo_events"] == 1

    state = StochasticSwitching(ALL, undo=Undo()).for_steps(10_000).start(blocks(), random=Keys())
    state.step(gradients(), 0.0, Losses(1.0, 0.8))
    assert (state.cells[0] != start[0]).any() and (state.cells[1] != start[1]).any()


@pytest.mark.parametrize("scope", ["network", "block"])
def test_with_tolerance_zero_the_loss_of_the_cells_never_rises(scope):
    probe = Bumps(blocks(seed=50))
    state = (
        StochasticSwitching(Memoryless(rate=0.1), undo=Undo(tolerance=0.0, scope=scope, down=1.0))
        .for_steps(10_000)
        .start(blocks(), random=Keys())
    )
    probe.state = state
    losses = []
    for step in range(150):
        state.step(gradients(step), 0.0, probe)
        losses.append(probe.loss())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    assert 0 < state.statistics()["undone_fraction"] < 1


def test_a_switch_that_is_undone_leaves_its_counter_at_zero():
    rule = StochasticSwitching(Counter(2, 1.0, 1.0), law="linear", undo=Undo())
    state = rule.for_steps(10_000).start([np.ones((1, 2), dtype=np.int8)], random=Keys())
    state.step([np.array([[1.0, -1.0]], dtype=np.float32)], 0.0, Losses(1.0, 2.0))
    assert state.cells[0].tolist() == [[1, 1]]
    assert state.state()["memories"][0]["counts"].tolist() == [0, -1]


def undo_by_pulses(tries, highest, n=4000, stuck=()):
    hardware = {**HARDWARE, "menu": {"levels": 1, "highest": highest}, "stuck_cells": stuck}
    undo = Undo(writes="stochastic", tries=tries)
    rule = StochasticSwitching(ALL, undo=undo, hardware=hardware)
    state = rule.for_steps(10_000).start([np.ones((1, n), dtype=np.int8)], random=Keys())
    state.step([np.ones((1, n), dtype=np.float32)], 0.0, Losses(1.0, 2.0))
    return state, state.statistics()


def test_a_stochastic_undo_pulses_until_the_cells_are_back_and_counts_what_is_left():
    state, statistics = undo_by_pulses(tries=1, highest=0.5)
    left = int((state.cells[0] == -1).sum())
    assert statistics["undo_failures"] == left > 0
    assert statistics["undone"] == statistics["switches"] - (statistics["undone"] + left) > 0
    # one pulse for every cell, then one for each that switched
    assert statistics["pulses"] == 4000 + statistics["undone"] + left
    reset, back = state.pulses_per_level()[1].sum(), state.pulses_per_level()[0].sum()
    assert (reset, back) == (4000, statistics["undone"] + left)

    state, statistics = undo_by_pulses(tries=200, highest=0.5)
    assert (state.cells[0] == 1).all()
    assert statistics["undo_failures"] == 0
    assert statistics["switches"] == 2 * statistics["undone"] > 0


def test_where_cells_are_left_the_loss_before_the_next_block_is_measured_anew():
    hardware = {**HARDWARE, "menu": {"levels": 1, "highest": 0.5}}
    rule = StochasticSwitching(ALL, undo=Undo(writes="stochastic", tries=1, scope="block"), hardware=hardware)
    state = rule.for_steps(10_000).start([np.ones((1, 500), dtype=np.int8)] * 2, random=Keys())
    probe = Losses(1.0, 2.0, 1.7, 1.7)  # block 1 changes nothing: compared with 1.7, it is kept
    state.step([np.ones((1, 500), dtype=np.float32)] * 2, 0.0, probe)
    assert probe.measured == [1, 1, 1, 1]
    assert state.statistics()["undo_events"] == 1


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("data", ["batch", "holdout"])
def test_a_training_with_undo_is_reproducible_and_takes_some_events_back(toy, batch_norm, data):
    config = TrainingConfig.for_rule(
        "ss-none",
        options={"rate": 0.05, "undo": {"data": data, "size": 60}},
        hidden=(8,),
        epochs=6,
        batch_size=20,
        batch_norm=batch_norm,
    )
    first, second = (train(config, toy, progress=False) for _ in range(2))
    assert first.history == second.history
    assert 0 < first.history[-1]["undone_fraction"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "test"}, "data of the undo is 'test', expected batch or holdout"),
        ({"size": 0}, "size of the undo is 0, expected a positive integer"),
        ({"tolerance": -0.1}, "tolerance of the undo is -0.1, expected at least 0"),
        ({"scope": "layer"}, "scope of the undo is 'layer', expected network or block"),
        ({"down": 0}, "down of the undo is 0, expected above 0 and at most 1"),
        ({"up": 0.9}, "up of the undo is 0.9, expected at least 1"),
        ({"lowest": 2}, "lowest of the undo is 2, expected above 0 and at most 1"),
        ({"highest": 0.5}, "highest of the undo is 0.5, expected at least 1"),
        ({"writes": "free"}, "writes of the undo is 'free', expected ideal or stochastic"),
        ({"tries": 0}, "tries of the undo is 0, expected a positive integer"),
        ({"tolerance": "some"}, "tolerance of the undo is 'some', expected a number"),
        ({"tolerance": float("inf")}, "tolerance of the undo is inf, expected at least 0"),
        ({"highest": float("inf")}, "highest of the undo is inf, expected at least 1"),
        ({"size": True}, "size of the undo is True, expected a positive integer"),
        ({"speed": 1}, "an undo has no option 'speed', expected one of: data, size"),
        (3, "undo is 3, expected true, false, or its options as an object"),
        ({"writes": "stochastic"}, "writes of the undo is 'stochastic' with ideal cells, expected 'ideal', or hardw"),
    ],
)
def test_bad_options_give_one_clear_sentence(options, message):
    with pytest.raises(QueryError, match=message):
        StochasticSwitching(undo=options)
