import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.devices import PRESETS, RESET, SET, NucleationLimited, PulseMenu, SetReset
from bnnverify.errors import QueryError
from bnnverify.training.rules import Average, Counter, Hardware, Memoryless, Memristors, StochasticSwitching, Undo
from bnnverify.training.rules.hardware import HardwareCells
from tests.training.trajectories import Keys, NoProbe, random_signs, uniform

EQUAL = NucleationLimited(tau_inf=1e-10, activation_voltage=10.0, reset_factor=2.0)  # RESET has half the hazard of SET
SPREAD = NucleationLimited(tau_inf=1e-10, activation_voltage=10.0, reset_factor=2.0, d2d_sigma=0.5, c2c_sigma=0.7)
UNSORTED = PulseMenu((1.5, 1.5, 1.5), tuple(EQUAL.width_for([0.2, 0.02, 0.6], 1.5).tolist()))


class Asked:
    """A request for the same probability at every eligible cell, that is, every cell."""

    def __init__(self, probability):
        self.probability = probability

    def pulses(self, cells):
        return np.arange(cells.size, dtype=np.int32), np.full(cells.size, self.probability)


def cells_of(hardware, signs, seed=0, block=0):
    return HardwareCells(signs, hardware, block, Keys(seed))


def level_by_loops(wanted, nominal):
    """Menu number of the strongest pulse at or below; the weakest from half of it on; None."""
    fitting = [(p, -i) for i, p in enumerate(nominal) if p <= wanted]
    if fitting:
        return -max(fitting)[1]
    weakest = min(range(len(nominal)), key=lambda i: (nominal[i], i))
    return weakest if 2 * wanted >= nominal[weakest] else None


@given(
    wanted=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    aware=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_the_controller_takes_the_strongest_pulse_at_or_below_what_is_asked(wanted, aware, seed):
    hardware = Hardware(EQUAL, UNSORTED, knows_asymmetry=aware)
    signs = random_signs((len(wanted),), seed)
    array = cells_of(hardware, signs)

    class Request:
        def pulses(self, cells):
            return np.arange(cells.size, dtype=np.int32), np.array(wanted)

    before = signs.copy()
    array.pulse(Request(), signs, Keys(seed))
    expected = np.zeros((2, 3), dtype=int)
    for sign, p in zip(before, wanted, strict=True):
        direction = SET if sign < 0 else RESET
        seen = direction if aware else SET
        level = level_by_loops(p, UNSORTED.probabilities(EQUAL, direction=seen).tolist())
        if level is not None:
            expected[0 if direction == SET else 1, level] += 1
    np.testing.assert_array_equal(array.level_pulses, expected)
    assert array.pulses == expected.sum()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("asked", "level"), [(0.02, 1), (0.25, 0), (0.99, 2)])
def test_cells_switch_as_often_as_the_chosen_pulse_switches_them_in_their_direction(sign, asked, level):
    n = 20000
    signs = np.full(n, sign, dtype=np.int8)
    array = cells_of(Hardware(EQUAL, UNSORTED, knows_asymmetry=False), signs)
    switched = array.pulse(Asked(asked), signs, Keys(7))
    p = EQUAL.probability(1.5, UNSORTED.widths[level], direction=-sign)
    interval = clopper_pearson(switched.size, n, confidence=1 - 1e-9)
    assert float(interval.lower) <= p <= float(interval.upper)
    np.testing.assert_array_equal(np.flatnonzero(signs == -sign), switched)
    side = 0 if sign < 0 else 1
    assert array.level_pulses[side, level] == array.level_pulses.sum() == n
    assert array.level_switches[side, level] == array.level_switches.sum() == switched.size
    assert array.worn.sum() == array.switches == switched.size


def test_a_controller_that_knows_the_asymmetry_resets_with_a_stronger_pulse():
    # asked for 0.2: SET by pulse 0 (0.2); the RESET of pulse 0 is 0.106, of pulse 2 it is 0.37
    signs = np.array([-1, 1], dtype=np.int8)
    menu = PulseMenu((1.5, 1.5), tuple(EQUAL.width_for([0.2, 0.36], 1.5).tolist()))  # RESET: 0.106 and 0.2
    aware, blind = (cells_of(Hardware(EQUAL, menu, knows_asymmetry=k), signs.copy()) for k in (True, False))
    for array in (aware, blind):
        array.pulse(Asked(0.2 + 1e-9), signs.copy(), Keys())
    assert aware.level_pulses.tolist() == [[1, 0], [0, 1]]
    assert blind.level_pulses.tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("asked", [0.005, 0.1, 0.5])
def test_random_rounding_pulses_with_the_neighbours_such_that_the_mean_is_what_is_asked(asked):
    n = 20000
    signs = np.full(n, -1, dtype=np.int8)
    array = cells_of(Hardware(EQUAL, UNSORTED, rounding="random"), signs)
    switched = array.pulse(Asked(asked), signs, Keys(3))
    interval = clopper_pearson(switched.size, n, confidence=1 - 1e-9)
    assert float(interval.lower) <= asked <= float(interval.upper)
    offered = sorted([0.0, 0.2, 0.02, 0.6])
    below = max(p for p in offered if p <= asked)
    above = min(p for p in offered if p > asked)
    share = (asked - below) / (above - below)
    upper = int(array.level_pulses[0, [0.2, 0.02, 0.6].index(above)])
    interval = clopper_pearson(upper, n, confidence=1 - 1e-9)
    assert float(interval.lower) <= share <= float(interval.upper)


def test_above_the_strongest_pulse_there_is_the_strongest():
    for rounding in ("down", "random"):
        signs = np.full(10, -1, dtype=np.int8)
        array = cells_of(Hardware(EQUAL, UNSORTED, rounding=rounding), signs)
        array.pulse(Asked(1.0), signs, Keys())
        assert array.level_pulses[0].tolist() == [0, 0, 10]


def test_every_cell_has_its_factor_and_every_pulse_its_own():
    n = 400
    hardware = Hardware(SPREAD, PulseMenu.for_cell(SPREAD, levels=1, highest=0.3, voltage=1.5))
    signs = np.full(n, -1, dtype=np.int8)
    array = cells_of(hardware, signs)
    np.testing.assert_array_equal(array.factors[0], array.factors[1])
    hazard = -math.log1p(-0.3)
    for step in range(10):
        keys = Keys(step)
        key, _, cycle = keys.key(), keys.key(), keys.key()
        signs[:] = -1
        switched = array.pulse(Asked(0.3), signs, Keys(step))
        expected = []
        for i in range(n):
            u, v = uniform(cycle, 2 * i), uniform(cycle, 2 * i + 1)
            normal = math.sqrt(-2 * math.log1p(-u)) * math.cos(2 * math.pi * v)
            h = hazard * float(array.factors[0, i]) * math.exp(SPREAD.cycle_sigma * normal)
            if uniform(key, i) < 1 - math.exp(-h):
                expected.append(i)
        assert switched.tolist() == expected


def test_the_factors_are_drawn_by_the_seed_and_spread_as_the_law_says():
    def factors(seed, **options):
        return cells_of(Hardware(SPREAD, **options), np.ones(20000, dtype=np.int8), seed).factors

    np.testing.assert_array_equal(factors(1), factors(1))
    assert (factors(1) != factors(2)).any()
    assert np.log(factors(1)[0]).std() == pytest.approx(SPREAD.device_sigma, rel=0.03)
    one, two = np.log(factors(1, independent_directions=True).astype(float))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05
    assert two.std() == pytest.approx(SPREAD.device_sigma, rel=0.03)


def test_stuck_cells_hold_their_sign_and_their_pulses_cost_energy():
    n = 10000
    signs = random_signs((n,), 2)
    hardware = Hardware(EQUAL, UNSORTED, stuck_plus=0.05, stuck_minus=0.1, stuck_cells=((0, 7, -1), (1, 8, 1)))
    before = signs.copy()
    array = cells_of(hardware, signs)
    stuck = array.factors[0] == 0
    for hits, p in ((np.count_nonzero(stuck & (signs > 0)), 0.05), (np.count_nonzero(stuck & (signs < 0)), 0.1)):
        interval = clopper_pearson(int(hits), n, confidence=1 - 1e-9)
        assert interval.lower <= p <= interval.upper
    assert signs[7] == -1 and stuck[7]
    np.testing.assert_array_equal(signs[~stuck], before[~stuck])
    held = signs[stuck].copy()
    for seed in range(20):
        array.pulse(Asked(0.6), signs, Keys(seed))
        np.testing.assert_array_equal(signs[stuck], held)
    assert array.pulses == 20 * n
    assert (array.worn[stuck] == 0).all() and array.worn[~stuck].any()


def test_the_energy_is_the_count_of_each_pulse_times_its_energy():
    cell = SetReset(PRESETS["mtj"], PRESETS["mtj"])
    hardware = Hardware(cell, PulseMenu.for_cell(PRESETS["mtj"], levels=5, lowest=1e-3))
    rule = StochasticSwitching(Memoryless(rate=0.1), hardware=hardware)
    state = rule.for_steps(10_000).start([random_signs((30, 40), 1)], random=Keys())
    for step in range(20):
        state.step([np.random.RandomState(step).randn(30, 40).astype(np.float32)], 0.0, NoProbe())
    counts = state.pulses_per_level()
    assert counts.dtype == np.int64 and (counts.sum(axis=1) > 0).all() and np.count_nonzero(counts[0]) > 2
    total = 0.0
    for row, direction in enumerate((SET, RESET)):
        for level in range(5):
            voltage, width = hardware.pulses.voltages[level], hardware.pulses.widths[level]
            total += int(counts[row, level]) * float(cell.energy(voltage, width, direction=direction))
    statistics = state.statistics()
    assert statistics["energy_joule"] == pytest.approx(total, rel=1e-12)
    assert statistics["pulses"] == counts.sum()
    assert statistics["switches"] == state.switches_per_level().sum()
    histogram = state.switches_per_cell()
    assert histogram.sum() == 1200
    assert sum(s * int(c) for s, c in enumerate(histogram)) == statistics["switches"]
    assert len(histogram) - 1 == statistics["switches_per_cell_max"]
    json.dumps(statistics)


@pytest.mark.parametrize("accumulator", [Average(0.5, rate=0.2), Counter(2, 1.0), Memristors(3, rate=0.5, threshold=1)])
def test_every_accumulator_drives_the_hardware_and_a_restored_run_goes_on_with_its_devices(accumulator):
    undo = Undo(writes="stochastic", tries=2)
    rule = StochasticSwitching(accumulator, hardware=Hardware(SPREAD, stuck_plus=0.1), undo=undo)
    losses = iter(np.random.RandomState(0).rand(10000))

    class Probe:
        def on_holdout(self, size):
            return lambda: next(losses)

    def walk(state, first, steps):
        for step in range(first, first + steps):
            state.step([np.random.RandomState(step).randn(9, 11).astype(np.float32)], 0.0, Probe())

    state = rule.for_steps(10_000).start([random_signs((9, 11), 1)], random=Keys(1))
    walk(state, 0, 30)
    assert state.statistics()["switches"] > 0
    other = rule.for_steps(10_000).start([random_signs((9, 11), 2)], random=Keys(2))
    saved = {
        name: [{k: np.copy(v) for k, v in part.items()} for part in value]
        if name in ("arrays", "memories")
        else [np.copy(v) for v in value]
        if isinstance(value, list)
        else value
        for name, value in state.state().items()
    }
    other.restore(saved)
    state._random.next = other._random.next = 5000
    losses = iter(np.random.RandomState(1).rand(10000))
    walk(state, 30, 20)
    losses = iter(np.random.RandomState(1).rand(10000))
    walk(other, 30, 20)
    np.testing.assert_array_equal(state.cells[0], other.cells[0])
    for name, value in state.statistics().items():
        if not name.startswith("auxiliary"):
            assert value == other.statistics()[name], name


def test_hardware_is_made_from_a_name_from_options_or_from_json():
    assert Hardware.of("mtj") == Hardware(PRESETS["mtj"])
    assert Hardware.of(None) is None and Hardware.of(False) is None
    options = {"cell": "rram", "menu": {"levels": 3, "lowest": 0.01}, "stuck_cells": [[0, 3, 1]]}
    hardware = Hardware.of(options)
    assert hardware.menu == PulseMenu.for_cell(PRESETS["rram"], levels=3, lowest=0.01)
    assert Hardware.of(json.loads(json.dumps(hardware.to_json()))) == hardware
    assert len(Hardware.of("ftj").pulses) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("diode", "the cell is 'diode', expected one of: mtj, rram, ftj"),
        (3, "hardware is 3, expected its options as an object, or: mtj, rram, ftj"),
        ({"speed": 3}, "hardware has no option 'speed', expected one of: cell, menu"),
        ({"menu": 3}, "the menu is 3, expected a PulseMenu or its options"),
        ({"menu": {"pulses": 3}}, "the menu cannot be made: .*'pulses'"),
        ({"menu": {"voltages": [1.0]}}, "expected an object with 'voltages' and 'widths'"),
        ({"menu": {"voltages": [1e-3], "widths": [1e-15]}}, "no pulse of the menu switches the cell in direction"),
        ({"rounding": "up"}, "rounding of the hardware is 'up', expected down or random"),
        ({"knows_asymmetry": 1}, "knows_asymmetry of the hardware is 1, expected True or False"),
        ({"stuck_plus": 1.0}, "stuck_plus of the hardware is 1.0, expected at least 0 and below 1"),
        ({"stuck_minus": -0.1}, "stuck_minus of the hardware is -0.1, expected at least 0"),
        ({"stuck_plus": 0.5, "stuck_minus": 0.5}, r"stuck_plus \+ stuck_minus of the hardware is 1.0, expected below"),
        ({"stuck_cells": [[0, 1, 0]]}, "stuck_cells of the hardware is .*, expected triples"),
        ({"stuck_cells": 3}, "stuck_cells of the hardware is 3, expected triples"),
        ({"stuck_cells": [[0, 1.5, 1]]}, "stuck_cells of the hardware is .*, expected triples"),
        ({"stuck_plus": "few"}, "stuck_plus of the hardware is 'few', expected a number"),
        ({"cell": 3}, "the cell is 3, expected one of: mtj, rram, ftj, or its parameters"),
    ],
)
def test_bad_options_give_one_clear_sentence(options, message):
    with pytest.raises(QueryError, match=message):
        StochasticSwitching(hardware=options)


def test_a_stuck_cell_that_does_not_exist_is_refused():
    hardware = Hardware(stuck_cells=((0, 6, 1),))
    with pytest.raises(QueryError, match="stuck_cells names cell 6 of block 0, which has 6 cells"):
        StochasticSwitching(hardware=hardware).for_steps(10_000).start([random_signs((2, 3), 0)], random=Keys())
