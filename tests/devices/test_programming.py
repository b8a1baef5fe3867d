"""Write errors, write-verify, retention and energy against plain sums, sampling and the reliability analysis."""

import math
from fractions import Fraction

import numpy as np
import pytest
from flint import acb, arb, ctx
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.devices import PRESETS, RESET, SET, FieldAccelerated, PulseMenu, SetReset, ThermallyActivated
from bnnverify.devices.programming import (
    Retention,
    Write,
    cheapest_write,
    switching_shares,
    write_error,
)
from bnnverify.devices.variation import mean_pulses, mean_survival
from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt, compose, in_series
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import error_probability, exact_error_probability

PLAIN = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5, reset_factor=2.0, resistance=5e3)
VARIED = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5, d2d_sigma=0.4, c2c_sigma=0.3)
rates = st.fractions(0, 1, max_denominator=40)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("hazard", [1e-6, 0.3, 5.0, 40.0])
@pytest.mark.parametrize("pulses", [1, 4])
def test_the_mean_over_cells_is_the_integral(sigma, hazard, pulses):
    """arb's rigorous quadrature of the same integral, over 15 standard deviations and more below the mode."""

    def integrand(z, _):
        return (-pulses * hazard * (acb(sigma) * z).exp() - z * z / 2).exp()

    with ctx.workprec(300):
        exact = acb.integral(integrand, -30, 15) / acb(2 * arb.pi()).sqrt()
    found = mean_survival(hazard, pulses, device_sigma=sigma)
    assert found == pytest.approx(float(exact.real.mid()), rel=1e-9, abs=0)


@given(st.floats(0, 20), st.integers(0, 5))
def test_equal_cells_need_no_integral(hazard, pulses):
    p = math.exp(-hazard)
    assert mean_survival(hazard, pulses) == pytest.approx(p**pulses)
    assert mean_survival(hazard, pulses, device_sigma=1e-9) == pytest.approx(p**pulses, rel=1e-6)
    assert mean_survival(hazard, pulses, cycle_sigma=1e-9) == pytest.approx(p**pulses, rel=1e-6)
    assert mean_pulses(hazard, pulses) == pytest.approx(sum(p**k for k in range(pulses)))


def test_survival_with_variation_lies_in_the_band_of_sampled_cells():
    hazard, sigma_d, sigma_c, trials = 1.2, 0.8, 0.6, 200_000
    rng = np.random.default_rng(11)
    cells = np.exp(sigma_d * rng.standard_normal(trials))
    alive = np.ones(trials, dtype=bool)
    for pulses in (1, 2, 3):
        factors = cells * np.exp(sigma_c * rng.standard_normal(trials))
        alive &= rng.random(trials) < np.exp(-hazard * factors)
        band = clopper_pearson(int(alive.sum()), trials, confidence=1 - 1e-9)
        mean = float(mean_survival(hazard, pulses, device_sigma=sigma_d, cycle_sigma=sigma_c))
        assert band.lower <= mean <= band.upper


def test_retries_of_one_slow_cell_are_not_independent():
    once = write_error(VARIED, 0.5, 5e-9)
    assert write_error(VARIED, 0.5, 5e-9, retries=2) > 3 * once**3
    steady = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5, c2c_sigma=0.5)
    fresh = write_error(steady, 0.5, 5e-9)
    assert float(write_error(steady, 0.5, 5e-9, retries=2)) == pytest.approx(float(fresh) ** 3)


def test_the_write_error_of_equal_cells_is_an_exact_power_of_a_float():
    p = write_error(PLAIN, 0.5, 3e-9)
    assert p == Fraction(math.exp(-float(PLAIN.hazard(0.5, 3e-9))))
    assert write_error(PLAIN, 0.5, 3e-9, retries=3) == p**4
    assert float(p) == pytest.approx(math.exp(-3))
    assert write_error(PLAIN, 0.5, 3e-9, direction=RESET) > p


@pytest.mark.parametrize(
    ("before", "plus", "minus"), [("reset", 1, 0), ("set", 0, 1), ("random", 0.5, 0.5), ("opposite", 1, 1)]
)
def test_only_cells_that_must_switch_can_fail(before, plus, minus):
    write = Write(PLAIN, 0.5, 3e-9, reset_voltage=0.51, before=before)
    down = write_error(PLAIN, 0.51, 3e-9, direction=RESET)
    assert write.faults() == AsymmetricFlip(p01=Fraction(minus) * down, p10=Fraction(plus) * write.error(SET))
    assert write.error(RESET) == down


def test_sampled_writes_fail_as_the_model_says():
    """Random cells, one verified rewrite, unequal cells: the wrong ones are counted cell by cell."""
    write, n = Write(VARIED, 0.5, 2e-9, retries=1, before="random"), 200_000
    rng = np.random.default_rng(4)
    factors, held = VARIED.hazard_factors(n, generator=rng), rng.random(n) < 0.5
    must = ~held  # all shall hold +1
    pulses = np.zeros(n)
    for _ in range(2):
        hazard = VARIED.hazard(0.5, 2e-9) * factors * np.exp(VARIED.cycle_sigma * rng.standard_normal(n))
        pulses += must
        must &= rng.random(n) < np.exp(-hazard)
    band = clopper_pearson(int(must.sum()), n, confidence=1 - 1e-9)
    assert band.lower <= write.faults().p10 <= band.upper
    assert write.pulses(SET) == pytest.approx(pulses[~held].mean(), rel=0.02)


def test_known_weights_leave_only_the_changed_cells_at_risk():
    previous, weights = np.array([[1, -1, -1], [1, 1, -1]]), np.array([[1, 1, -1], [-1, 1, 1]])
    shares = switching_shares(previous, weights)
    assert shares == (Fraction(2, 4), Fraction(1, 2))
    write = Write(PLAIN, 0.5, 3e-9, before=shares)
    p, r = float(write.error(SET)), float(write.error(RESET))
    assert write.cell_rates(previous, weights).tolist() == [[0, p, 0], [r, 0, p]]
    rates = write.cell_rates(previous, weights)
    assert rates[weights > 0].mean() == pytest.approx(float(write.faults().p10))
    assert rates[weights < 0].mean() == pytest.approx(float(write.faults().p01))
    assert switching_shares([1, 1], [1, 1]) == (0, 0)


def test_energy_adds_pulses_and_reads():
    write = Write(PLAIN, 0.5, 3e-9, retries=2, before="random", read_energy=1e-15, reset_width=8e-9)
    p, r = float(write_error(PLAIN, 0.5, 3e-9)), float(write_error(PLAIN, 0.5, 8e-9, direction=RESET))
    up, down = 0.25 * 3e-9 / 5e3, 0.25 * 8e-9 / 5e3
    expected = 1e-15
    for q, pulse, weight in ((p, up, 0.3), (r, down, 0.7)):
        expected += weight / 2 * ((1 - q**3) / (1 - q) * pulse + (1 + q) * 1e-15)
    assert write.energy(plus_share=0.3) == pytest.approx(expected, rel=1e-9, abs=0)
    assert Write(PLAIN, 0.5, 3e-9, before="set").energy(plus_share=1.0) == 0


def test_the_cheapest_write_is_that_of_a_search_by_hand():
    menu = PulseMenu((0.45, 0.48, 0.5, 0.5), (1e-8, 1e-8, 4e-9, 2e-8))
    candidates = [
        Write(PLAIN, v, t, u, s, retries, "opposite", 1e-16)
        for retries in range(4)
        for v, t in zip(menu.voltages, menu.widths, strict=True)
        for u, s in zip(menu.voltages, menu.widths, strict=True)
    ]
    found = [(max(w.faults().p01, w.faults().p10), w.energy()) for w in candidates]
    for target in sorted({p for p, _ in found})[::5]:  # met exactly
        best = cheapest_write(PLAIN, menu, target=target, most_retries=3, before="opposite", read_energy=1e-16)
        assert best.energy() == min(energy for p, energy in found if p <= target)
        assert max(best.faults().p01, best.faults().p10) <= target
    with pytest.raises(QueryError, match=r"no pulse of the menu reaches a rate of 1e-30 with up to 0 retries"):
        cheapest_write(PLAIN, menu, target="1e-30")


@given(st.floats(1, 1e9), st.floats(0, 1e9))
def test_retention_is_the_law_of_two_states(lifetime, time):
    both = Retention(lifetime, lifetime).errors(time)
    assert both == pytest.approx(((1 - math.exp(-2 * time / lifetime)) / 2,) * 2, abs=1e-12)
    assert Retention(lifetime).errors(time) == pytest.approx((0, 1 - math.exp(-time / lifetime)), abs=1e-12)
    assert Retention(math.inf, math.inf).errors(time) == (0, 0)


def test_retention_solves_its_differential_equation_and_composes_over_time():
    aging = Retention(3.0, 5.0)
    p01, p10, dt = 0.0, 0.0, 1e-4
    for _ in range(10_000):
        p01, p10 = p01 + dt * ((1 - p01) / 5 - p01 / 3), p10 + dt * ((1 - p10) / 3 - p10 / 5)
    assert aging.errors(1.0) == pytest.approx((p01, p10), rel=1e-3)
    twice = in_series(aging.faults(0.5), aging.faults(0.5))
    assert (float(twice.p01), float(twice.p10)) == pytest.approx(aging.errors(1.0))


def test_the_lifetime_of_a_cell_is_its_switching_time_at_0_volts():
    aging = Retention.of_cell(PLAIN)
    assert aging.minus_lifetime == pytest.approx(1e-9 * math.exp(40))
    assert aging.plus_lifetime == pytest.approx(2e-9 * math.exp(40))
    with pytest.raises(QueryError, match=r"not a Poisson process at 0 V; give the measured lifetimes"):
        Retention.of_cell(PRESETS["ftj"])


@given(st.lists(rates, min_size=1, max_size=4))
def test_symmetric_causes_compose_as_two_flips_cancel(values):
    expected = compose(values)
    assert in_series(*map(BitFlip, values)) == AsymmetricFlip(expected, expected)


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=3))
def test_causes_in_series_are_a_walk_over_signs(pairs):
    found = in_series(*(AsymmetricFlip(a, b) for a, b in pairs))
    for start, wrong in ((1, found.p10), (-1, found.p01)):
        holds = {start: Fraction(1), -start: Fraction(0)}
        for p01, p10 in pairs:
            plus = holds[1] * (1 - p10) + holds[-1] * p01
            holds = {1: plus, -1: 1 - plus}
        assert holds[-start] == wrong


def test_a_stuck_cell_hides_what_came_before():
    found = in_series(BitFlip("1/10"), StuckAt("1/5", "3/10"))
    assert found.p10 == Fraction(3, 10) + Fraction(1, 2) * Fraction(1, 10)
    assert found.p01 == Fraction(1, 5) + Fraction(1, 2) * Fraction(1, 10)
    each = in_series(PerBlock((BitFlip("1/10"), BitFlip(0))), BitFlip("1/10"))
    assert each == PerBlock((AsymmetricFlip("9/50", "9/50"), AsymmetricFlip("1/10", "1/10")))
    with pytest.raises(QueryError, match=r"over \[1, 2\] blocks, expected at least 1, equally long"):
        in_series(PerBlock((BitFlip(0),)), PerBlock((BitFlip(0), BitFlip(0))))


def test_the_reliability_analysis_takes_the_models_of_devices_directly():
    network = BinaryNetwork(
        InputDomain.binary(3),
        (DenseBlock.create([[1, -1, 1], [1, 1, -1], [-1, -1, 1]], [1, 1, 1]),),
        OutputBlock.create([[1, 1, -1], [-1, 1, 1]]),
    )
    x = np.array([1, 1, -1])
    write = Write(VARIED, 0.5, 2e-9, before="random")
    faults = in_series(write.faults(), Retention(1e8).faults(1e7), StuckAt("1/100", "1/200"))
    label = network.evaluate(x)
    bounds = error_probability(network, x, label, faults)
    assert 0 < bounds.lower <= exact_error_probability(network, x, label, faults) <= bounds.upper < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Write(PLAIN, 0.5, 1e-9, before="yes"), r"before is 'yes', expected reset, set, random, opposite or"),
        (lambda: Write(PLAIN, 0.5, 1e-9, before=(2, 0)), r"share of \+1 is 2, expected a probability"),
        (lambda: Write(PLAIN, 0.5, 1e-9, retries=-1), r"retries is -1, expected at least 0"),
        (lambda: Write(PLAIN, 0.5, 1e-9, retries=2.5), r"retries is 2\.5, expected an integer"),
        (lambda: Write(PLAIN, 0.5, 1e-9, before=3), r"before is 3, expected reset, set"),
        (lambda: Write("mtj", 0.5, 1e-9), r"the cell of a write is 'mtj', expected one such as"),
        (lambda: Write(PLAIN, math.nan, 1e-9), r"voltage is nan V, expected a finite number"),
        (lambda: Write(PLAIN, 0.5, [1e-9]), r"width is \[1e-09\], expected one number \[s\]"),
        (lambda: Write(PLAIN, 0.5, 1e-9, reset_width=-1.0), r"reset_width is -1 s, expected a finite number"),
        (lambda: Retention("long"), r"plus_lifetime is 'long' s, expected a time above 0"),
        (lambda: ThermallyActivated(10**400, 40.0, 0.5), r"tau0 is 10+, expected a finite number above 0"),
        (lambda: Write(PLAIN, 0.5, 1e-9, read_energy=-1.0), r"read_energy is -1 J"),
        (lambda: write_error(PLAIN, 0.5, 1e-9, retries=1.5), r"retries is 1\.5, expected an integer"),
        (lambda: Write(PLAIN, 0.5, 1e-9).energy(plus_share=2), r"plus_share is 2, expected a share"),
        (lambda: switching_shares([1, 0], [1, 1]), r"previous has an entry that is neither -1 nor \+1"),
        (lambda: switching_shares([1], [1, 1]), r"shape \(1,\) and weights \(2,\), expected equal"),
        (lambda: Retention(0.0), r"plus_lifetime is 0\.0 s, expected a time above 0"),
        (lambda: Retention(1.0).errors(-1.0), r"time is -1 s"),
        (lambda: in_series(), r"0 fault models over \[\] blocks"),
        (lambda: mean_survival(-1.0, 1), r"expected numbers at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(QueryError, match=message):
        make()


def test_set_and_reset_laws_of_their_own_give_their_own_errors():
    fast, slow = FieldAccelerated(tau0=1.0, voltage_scale=0.05), FieldAccelerated(tau0=2.0, voltage_scale=0.05)
    write = Write(SetReset(fast, slow), 1.0, 5e-9, before="opposite")
    assert write.faults() == AsymmetricFlip(p01=write_error(slow, 1.0, 5e-9), p10=write_error(fast, 1.0, 5e-9))
