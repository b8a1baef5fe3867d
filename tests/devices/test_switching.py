"""Switching cells: laws against plain loops, inverses, limits, and sampled switching against exact binomial bands."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.devices import (
    PRESETS,
    RESET,
    SET,
    FieldAccelerated,
    NucleationLimited,
    SetReset,
    SwitchingCell,
    ThermallyActivated,
    cell_from_json,
)
from bnnverify.errors import QueryError


def numbers(low, high):
    return st.floats(low, high, allow_nan=False)


shared = {
    "reset_factor": numbers(0.1, 10),
    "resistance": numbers(1e2, 1e7),
    "reset_resistance": st.none() | numbers(1e2, 1e7),
    "d2d_sigma": numbers(0, 2),
    "c2c_sigma": numbers(0, 2),
}
thermal = st.builds(
    ThermallyActivated, tau0=numbers(1e-10, 1e-8), delta=numbers(20, 80), critical_voltage=numbers(0.2, 1), **shared
)
field = st.builds(FieldAccelerated, tau0=numbers(1, 1e9), voltage_scale=numbers(0.02, 0.1), **shared)
nucleation = st.builds(
    NucleationLimited, tau_inf=numbers(1e-12, 1e-8), activation_voltage=numbers(1, 30), beta=numbers(0.3, 1), **shared
)
cells = thermal | field | nucleation
directions = st.sampled_from([SET, RESET])
volts = numbers(0.2, 2)
seconds = numbers(1e-10, 1e-3)


def plain_hazard(cell, voltage, width, direction):
    """The definition, in the numbers of one pulse."""
    if isinstance(cell, ThermallyActivated):
        tau, beta = cell.tau0 * math.exp(cell.delta * (1 - voltage / cell.critical_voltage)), 1
    elif isinstance(cell, FieldAccelerated):
        tau, beta = cell.tau0 * math.exp(-voltage / cell.voltage_scale), 1
    else:
        tau, beta = cell.tau_inf * math.exp(cell.activation_voltage / voltage), cell.beta
    if direction == RESET:
        tau *= cell.reset_factor
    return (width / tau) ** beta


@given(cells, volts, seconds, directions)
def test_the_laws_are_those_of_the_definition(cell, voltage, width, direction):
    hazard = plain_hazard(cell, voltage, width, direction)
    assert cell.hazard(voltage, width, direction=direction) == pytest.approx(hazard, rel=1e-9, abs=1e-300)
    expected = -math.expm1(-hazard)
    assert cell.probability(voltage, width, direction=direction) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(cells, numbers(1e-9, 0.999), volts, directions)
def test_the_width_for_a_probability_gives_it_back(cell, p, voltage, direction):
    width = cell.width_for(p, voltage, direction=direction)
    assert cell.probability(voltage, width, direction=direction) == pytest.approx(p, rel=1e-9, abs=0)


@given(cells, volts, seconds, directions)
def test_the_voltage_for_a_probability_gives_it_back(cell, voltage, width, direction):
    p = float(cell.probability(voltage, width, direction=direction))
    if 1e-12 < p < 1 - 1e-6:
        back = cell.voltage_for(p, width, direction=direction)
        assert cell.probability(back, width, direction=direction) == pytest.approx(p, rel=1e-7, abs=0)
        assert back == pytest.approx(voltage, rel=1e-6)


@given(cells, st.lists(volts, min_size=2, max_size=6), st.lists(seconds, min_size=2, max_size=6), directions)
def test_probability_rises_with_voltage_and_width(cell, voltages, widths, direction):
    p = cell.probability(np.sort(voltages)[:, None], np.sort(widths)[None, :], direction=direction)
    assert p.shape == (len(voltages), len(widths)) and p.dtype == np.float64
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p, axis=0) >= 0).all() and (np.diff(p, axis=1) >= 0).all()


@given(cells, volts, seconds)
def test_a_reset_takes_its_factor_longer(cell, voltage, width):
    one = cell.hazard(voltage, width * cell.reset_factor, direction=RESET)
    assert one == pytest.approx(float(cell.hazard(voltage, width)), rel=1e-9, abs=1e-300)
    assert cell.tau(voltage, direction=RESET) == pytest.approx(cell.reset_factor * cell.tau(voltage), rel=1e-9, abs=0)


@given(cells)
def test_cells_survive_json(cell):
    text = json.dumps(cell.to_json())
    assert cell_from_json(json.loads(text)) == cell
    assert type(cell).from_json(json.loads(text)) == cell
    assert isinstance(cell, SwitchingCell)


def test_small_probabilities_keep_their_digits():
    cell = ThermallyActivated(tau0=1e-9, delta=60.0, critical_voltage=0.5)
    hazard = Fraction(1e-9) / Fraction(float(cell.tau(0.0)))
    assert cell.probability(0.0, 1e-9) == pytest.approx(float(hazard), rel=1e-9, abs=0)
    assert 0 < cell.probability(0.0, 1e-9) < 1e-25


def test_no_width_never_switches_and_no_voltage_leaves_a_ferroelectric_alone():
    for cell in PRESETS.values():
        assert cell.probability(1.0, 0.0) == 0 and cell.hazard(1.0, 0.0) == 0
        assert cell.width_for(0.0, 1.0) == 0
    assert PRESETS["ftj"].probability(0.0, 1e9) == 0
    assert PRESETS["mtj"].probability(10.0, 1.0) == 1


def test_the_two_exponential_laws_are_one_family():
    mtj = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5)
    rram = FieldAccelerated(tau0=1e-9 * math.exp(40), voltage_scale=0.5 / 40)
    voltages = np.linspace(0, 0.6, 7)
    np.testing.assert_allclose(mtj.hazard(voltages, 1e-8), rram.hazard(voltages, 1e-8), rtol=1e-9)


def test_energy_is_that_of_a_resistor():
    cell = FieldAccelerated(tau0=1.0, voltage_scale=0.1, resistance=5e3)
    assert cell.energy(2.0, 1e-8) == pytest.approx(2.0**2 * 1e-8 / 5e3, rel=1e-12, abs=0)
    assert cell.energy(2.0, 1e-8, direction=RESET) == cell.energy(2.0, 1e-8)
    other = FieldAccelerated(tau0=1.0, voltage_scale=0.1, resistance=5e3, reset_resistance=1e4)
    assert other.energy([1.0, 2.0], 1e-8, direction=RESET) == pytest.approx([1e-12, 4e-12], rel=1e-12, abs=0)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("direction", [SET, RESET])
def test_sampled_switching_times_lie_in_the_exact_binomial_band(name, direction):
    """A cell switches when its own clock, Weibull with scale tau and shape beta, rings before the pulse ends."""
    cell, voltage, trials = PRESETS[name], {"mtj": 0.45, "rram": 1.02, "ftj": 1.5}[name], 200_000
    width = float(cell.tau(voltage)) * 0.3
    clocks = np.random.default_rng(7).weibull(cell.beta, trials) * float(cell.tau(voltage, direction=direction))
    band = clopper_pearson(int((clocks < width).sum()), trials, confidence=1 - 1e-9)
    assert band.lower <= Fraction(float(cell.probability(voltage, width, direction=direction))) <= band.upper


@pytest.mark.parametrize("name", ["rram", "ftj"])
def test_variation_of_the_time_acts_on_the_hazard(name):
    cell = PRESETS[name]
    factors = cell.hazard_factors(200_000, generator=np.random.default_rng(3))
    assert factors.dtype == np.float32 and factors.shape == (200_000,)
    logs = np.log(factors.astype(np.float64))
    assert logs.mean() == pytest.approx(0, abs=6 * cell.device_sigma / math.sqrt(200_000))
    assert logs.std() == pytest.approx(cell.beta * cell.d2d_sigma, rel=0.02)
    assert cell.cycle_sigma == cell.beta * cell.c2c_sigma
    again = cell.hazard_factors(200_000, generator=np.random.default_rng(3))
    assert np.array_equal(factors, again)


def test_equal_cells_draw_nothing():
    generator = np.random.default_rng(1)
    cell = FieldAccelerated(tau0=1.0, voltage_scale=0.1)
    assert cell.hazard_factors(5, generator=generator).tolist() == [1.0] * 5
    assert generator.random() == np.random.default_rng(1).random()


def test_a_cell_with_two_laws_asks_the_right_one():
    one, other = FieldAccelerated(tau0=1.0, voltage_scale=0.1), NucleationLimited(tau_inf=1e-9, activation_voltage=5.0)
    cell = SetReset(one, other)
    assert cell.probability(0.9, 1e-4) == one.probability(0.9, 1e-4)
    assert cell.probability(0.9, 1e-6, direction=RESET) == other.probability(0.9, 1e-6)
    assert cell.energy(0.9, 1e-6, direction=RESET) == other.energy(0.9, 1e-6)
    assert cell.width_for(0.5, 0.9, direction=RESET) == other.width_for(0.5, 0.9)
    assert cell.voltage_for(0.5, 1e-6) == one.voltage_for(0.5, 1e-6)
    assert cell.hazard_factors(3, generator=np.random.default_rng(0)).tolist() == [1.0] * 3
    assert cell_from_json(json.loads(json.dumps(cell.to_json()))) == cell
    with pytest.raises(QueryError, match=r"device_sigma is 0 for SET and 0\.5 for RESET, expected equal"):
        SetReset(one, FieldAccelerated(tau0=1.0, voltage_scale=0.1, d2d_sigma=0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.probability(-0.1, 1e-9), r"voltage is -0\.1 V, expected a finite number at least 0"),
        (lambda c: c.probability(0.1, math.nan), r"width is nan s, expected a finite number"),
        (lambda c: c.probability("high", 1.0), r"voltage is 'high', expected a number V"),
        (lambda c: c.probability(0.1, 1e-9, direction=0), r"direction is 0, expected \+1 \(SET"),
        (lambda c: c.width_for(1.0, 0.5), r"probability is 1, expected a number within \[0, 1\)"),
        (lambda c: c.voltage_for(0.0, 1e-9), r"probability or width is 0, expected both above 0"),
        (lambda c: c.voltage_for(1e-30, 1e-3), r"no amplitude from 0 V up gives probability 1e-30 in 0\.001 s"),
        (lambda c: c.hazard_factors(-1, generator=None), r"the number of cells is -1, expected at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(QueryError, match=message):
        call(FieldAccelerated(tau0=1.0, voltage_scale=0.1))


def test_a_ferroelectric_is_never_faster_than_its_fastest_time():
    cell = NucleationLimited(tau_inf=1e-9, activation_voltage=5.0)
    with pytest.raises(QueryError, match=r"no amplitude .* gives probability 0\.9 in 1e-10 s: .* from 1e-09 s up"):
        cell.voltage_for(0.9, 1e-10)
    with pytest.raises(QueryError, match=r"no width within float64 gives probability 0\.5 at 0 V"):
        cell.width_for(0.5, 0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau0": 0.0}, r"FieldAccelerated: tau0 is 0\.0, expected a finite number above 0"),
        ({"voltage_scale": math.inf}, r"voltage_scale is inf"),
        ({"d2d_sigma": -1.0}, r"d2d_sigma is -1\.0, expected a finite number at least 0"),
        ({"reset_factor": True}, r"reset_factor is True"),
        ({"resistance": "10k"}, r"resistance is '10k'"),
    ],
)
def test_attributes_that_are_no_physics_are_refused(values, message):
    with pytest.raises(QueryError, match=message):
        FieldAccelerated(**({"tau0": 1.0, "voltage_scale": 0.1} | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "memristor"}, r"a cell has kind 'memristor', expected one of: thermally-activated,"),
        (7, r"a cell has kind None"),
        ({"kind": "field-accelerated", "tau0": 1.0, "v0": 1}, r"has no attribute 'v0', expected .*voltage_scale"),
        ({"kind": "field-accelerated", "tau0": 1.0}, r"cannot be made: missing 1 required .*'voltage_scale'"),
        ({"kind": "set-reset", "set": {}}, r"expected kind 'set-reset' with 'set' and 'reset'"),
    ],
)
def test_json_of_no_cell_is_refused(values, message):
    with pytest.raises(QueryError, match=message):
        cell_from_json(values)
