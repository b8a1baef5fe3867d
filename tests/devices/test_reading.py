"""Errors of reading and of time, enclosed; tables of cells from maps and writes."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.devices import PRESETS, RESET, RateMap, ReadNoise, Retention, StuckMap, ThermallyActivated, Write
from bnnverify.devices.reading import read_disturb
from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerCell, PerRead, cell_rates

CELL = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5, reset_factor=2.0, resistance=5e3)


def test_read_noise_is_the_gaussian_tail_beyond_the_reference():
    noise = ReadNoise(high_current=10e-6, low_current=2e-6, sigma=1e-6, reference=5e-6)
    p01, p10 = noise.bounds()
    assert float(p01[1]) == pytest.approx(math.erfc(3 / math.sqrt(2)) / 2)
    assert float(p10[1]) == pytest.approx(math.erfc(5 / math.sqrt(2)) / 2)
    assert 0 < p01[1] - p01[0] < Fraction(1, 10**25)
    assert noise.faults() == PerRead(AsymmetricFlip(p01=p01[1], p10=p10[1]))
    middle = ReadNoise(10e-6, 2e-6, 1e-6).faults().rates(0)
    assert float(middle.plus) == pytest.approx(float(middle.minus))


def test_reads_disturb_the_sign_that_their_polarity_switches():
    hazard = float(CELL.hazard(0.3, 1e-8))
    faults = read_disturb(CELL, 0.3, 1e-8, reads=1000)
    assert float(faults.p01) == pytest.approx(1 - math.exp(-1000 * hazard))
    assert faults.p10 == 0
    down = read_disturb(CELL, 0.3, 1e-8, reads=1000, direction=RESET)
    assert (down.p01, float(down.p10)) == (0, pytest.approx(1 - math.exp(-500 * hazard)))
    assert read_disturb(CELL, 0.3, 1e-8, reads=0) == AsymmetricFlip(0, 0)
    spread = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5, d2d_sigma=0.5)
    assert read_disturb(spread, 0.3, 1e-8, reads=0) == AsymmetricFlip(0, 0)
    assert 0 < read_disturb(spread, 0.3, 1e-8, reads=1000).p01 < 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ReadNoise(1e-6, 2e-6, 1e-7), "expected the first to be below the second"),
        (lambda: ReadNoise(2e-6, 1e-6, 0.0), "sigma is"),
        (lambda: ReadNoise(2e-6, 1e-6, 1e-7, reference=-1.0), "reference is"),
        (lambda: read_disturb(PRESETS["mtj"], 0.1, 1e-8, reads=-1), "reads is -1"),
    ],
)
def test_reads_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(QueryError, match=message):
        wrong()


@given(st.floats(1e-3, 1e12), st.floats(0, 1e12))
def test_retention_is_enclosed_and_rounded_to_the_nearest(lifetime, time):
    for bounds, error in zip(
        Retention(lifetime, 2 * lifetime).bounds(time), Retention(lifetime, 2 * lifetime).errors(time), strict=True
    ):
        assert 0 <= bounds[0] <= bounds[1] <= 1
        assert bounds[1] - bounds[0] <= bounds[1] / 10**30 + Fraction(1, 10**40)
        assert abs(Fraction(error) - bounds[0]) <= abs(Fraction(math.nextafter(error, 2)) - bounds[0])
        assert abs(Fraction(error) - bounds[1]) <= abs(Fraction(math.nextafter(error, -1)) - bounds[1])


def test_maps_become_rates_of_cells():
    stuck = StuckMap(np.array([[0, -1], [1, 0]])).table
    measured = RateMap((("0.1", "0.2"), ("0", "1/3"))).table
    stored = np.array([[1, 1], [-1, -1]], dtype=np.int8)
    faults = PerCell((stuck, measured))
    found = [cell_rates(faults, b, stored) for b in range(2)]
    rates = [[[table[0][i] for i in row] for row in table[1].tolist()] for table in found]
    assert rates[0] == [[0, 1], [1, 0]]
    assert rates[1] == [[Fraction(1, 10), Fraction(1, 5)], [0, Fraction(1, 3)]]


def test_only_cells_that_change_can_be_written_wrong():
    write = Write(CELL, 0.5, 5e-9)
    previous, weights = np.array([[1, -1, 1, -1]]), np.array([[1, 1, -1, -1]])
    table = write.cell_table(previous, weights)
    rates, index = cell_rates(PerCell((table, BitFlip(0))), 0, weights.astype(np.int8))
    exact = [rates[i] for i in index[0].tolist()]
    assert exact == [0, write.error(+1), write.error(-1), 0]
    assert [float(p) for p in exact] == write.cell_rates(previous, weights)[0].tolist()
