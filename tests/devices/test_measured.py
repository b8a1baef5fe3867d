"""Measured cells: fits recover the law, interpolation is monotone and stays inside, files are read with their lines."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.devices import RESET, SET, FieldAccelerated, NucleationLimited, PulseMenu, SwitchingCell, cell_from_json
from bnnverify.devices.interpolated import InterpolatedSwitching
from bnnverify.devices.isotonic import isotonic, isotonic_grid
from bnnverify.devices.measured import MeasuredSwitching, PulseCount
from bnnverify.errors import FormatError, QueryError

FIELD = FieldAccelerated(tau0=1e6, voltage_scale=0.04)
MERZ = NucleationLimited(tau_inf=1e-10, activation_voltage=9.0, beta=0.7)


def measure(cell, voltages, widths, *, trials=20_000, seed=0, directions=(SET,)):
    """Counts drawn from the law."""
    rng = np.random.default_rng(seed)
    return MeasuredSwitching(
        tuple(
            PulseCount(v, t, int(rng.binomial(trials, float(cell.probability(v, t, direction=d)))), trials, d)
            for d in directions
            for v in voltages
            for t in widths
        )
    )


def test_fits_recover_the_law_the_counts_came_from():
    field = measure(FIELD, [1.15, 1.2, 1.25], [1e-8, 1e-7]).fit("field-accelerated")
    assert field.cell.voltage_scale == pytest.approx(0.04, rel=0.02)
    assert math.log(field.cell.tau0) == pytest.approx(math.log(1e6), rel=0.02)
    assert field.fits and field.degrees_of_freedom == 4 and field.deviance < 20


def test_a_fit_finds_the_exponent_too_or_keeps_the_one_that_is_given():
    merz = measure(MERZ, [1.4, 1.6, 1.9], [1e-8, 1e-6]).fit("nucleation-limited")
    assert merz.cell.beta == pytest.approx(0.7, rel=0.03)
    assert merz.cell.activation_voltage == pytest.approx(9.0, rel=0.03)
    assert merz.fits and merz.degrees_of_freedom == 3
    fixed = measure(MERZ, [1.4, 1.6, 1.9], [1e-7]).fit("nucleation-limited", beta=0.7)
    assert fixed.cell.beta == 0.7 and fixed.cell.activation_voltage == pytest.approx(9.0, rel=0.05)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0.5, 2), st.floats(-20, -10), st.integers(1, 49)), min_size=3, max_size=6),
    st.sampled_from(["field-accelerated", "nucleation-limited"]),
)
def test_no_law_nearby_is_likelier_than_the_fit(rows, kind):
    measured = MeasuredSwitching(tuple(PulseCount(v, math.exp(t), hits, 50) for v, t, hits in rows))
    try:
        cell = measured.fit(kind, beta=0.8).cell
    except QueryError as error:
        assert "does not rise" in str(error) or "cannot tell" in str(error) or "a time of exp" in str(error)
        return

    def likelihood(law):
        total = 0.0
        for point in measured.points:
            h = float(law.hazard(point.voltage, point.width))
            total += point.switched * math.log(-math.expm1(-h)) - (point.trials - point.switched) * h
        return total

    best = likelihood(cell)
    values = cell.to_json()
    names = ("tau0", "voltage_scale") if kind == "field-accelerated" else ("tau_inf", "activation_voltage")
    for name in names:
        for factor in (0.99, 1.01):
            other = cell_from_json(values | {name: values[name] * factor})
            assert likelihood(other) <= best + 1e-7 * abs(best)


def test_the_two_exponential_fits_are_one_and_a_wrong_law_is_outside_its_bands():
    measured = measure(MERZ, [1.2, 1.6, 2.4], [1e-9, 1e-7, 1e-5], trials=50_000)
    field, thermal = measured.fit("field-accelerated"), measured.fit("thermally-activated", attempt_time=1e-10)
    assert thermal.deviance == pytest.approx(field.deviance, rel=1e-6)
    assert thermal.cell.tau0 == 1e-10
    assert thermal.cell.critical_voltage / thermal.cell.delta == pytest.approx(field.cell.voltage_scale, rel=1e-6)
    assert not field.fits and field.deviance > 1000
    assert measured.inside(MERZ) == (True,) * 9
    assert measured.fit("nucleation-limited").fits


def test_set_and_reset_are_fitted_each_on_their_own():
    cell = FieldAccelerated(tau0=1e6, voltage_scale=0.04, reset_factor=5.0)
    fit = measure(cell, [1.15, 1.2, 1.25], [1e-8, 1e-7], directions=(RESET, SET)).fit("field-accelerated")
    ratio = fit.cell.reset_cell.tau(1.2) / fit.cell.set_cell.tau(1.2)
    assert ratio == pytest.approx(5, rel=0.05) and fit.fits and fit.degrees_of_freedom == 8
    assert cell_from_json(json.loads(json.dumps(fit.cell.to_json()))) == fit.cell


def test_the_bands_hold_together():
    measured = measure(FIELD, [1.15, 1.2], [1e-8, 1e-7], trials=100)
    expected = [clopper_pearson(p.switched, p.trials, confidence=1 - 0.01 / 4) for p in measured.points]
    for band, one in zip(measured.bands(confidence=0.99), expected, strict=True):
        assert float(band.lower) == pytest.approx(float(one.lower)) and band.upper == pytest.approx(one.upper)


@pytest.mark.parametrize(
    ("points", "kind", "message"),
    [
        (
            [(1.0, 1e-8, 0), (1.1, 1e-8, 0), (1.2, 1e-8, 0)],
            "field-accelerated",
            r"no likeliest law: all pulses or none",
        ),
        ([(1.0, 1e-8, 0), (1.1, 1e-8, 50)], "field-accelerated", r"no likeliest law"),
        ([(1.0, 1e-8, 20), (1.0, 1e-7, 30)], "field-accelerated", r"2 pulses cannot tell the 2 unknowns"),
        ([(1.0, 1e-8, 20), (1.1, 1e-8, 30)], "nucleation-limited", r"2 pulses cannot tell the 3 unknowns"),
        ([(1.0, 1e-8, 30), (1.1, 1e-8, 20)], "field-accelerated", r"does not rise with voltage and width"),
        ([(0.0, 1e-8, 20), (1.1, 1e-8, 30)], "nucleation-limited", r"a pulse of 0 V was measured"),
        ([(1.0, 1e-8, 20), (1.1, 1e-8, 30)], "memristor", r"kind is 'memristor', expected one of: thermally"),
        ([(0.1, 1e-9, 20), (5.0, 1e-9, 30)], "thermally-activated", r"more than the attempt time"),
    ],
)
def test_data_that_fix_no_law_are_refused(points, kind, message):
    measured = MeasuredSwitching(tuple(PulseCount(v, t, hits, 50) for v, t, hits in points))
    with pytest.raises(QueryError, match=message):
        measured.fit(kind, attempt_time=1e-8 if kind == "thermally-activated" else 1e-9)


grids = st.integers(1, 4).flatmap(
    lambda m: st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=n, max_size=n), min_size=m, max_size=m
        )
    )
)


@settings(max_examples=50)
@given(grids)
def test_the_isotonic_table_is_the_nearest_rising_one(grid):
    values = np.array([[min(h, n) / n for h, n in row] for row in grid])
    weights = np.array([[float(n) for _, n in row] for row in grid])
    found = isotonic_grid(values, weights)
    assert (np.diff(found, axis=0) >= 0).all() and (np.diff(found, axis=1) >= 0).all()
    # Projection on a convex cone: the residual is orthogonal to the fit and has no positive part along the cone's
    # edges, which are the indicators of upper sets; all of them are tried.
    residual = weights * (values - found)
    assert abs((residual * found).sum()) < 1e-6
    m, n = values.shape
    starts = [()]
    for _ in range(m):
        starts = [(*s, k) for s in starts for k in range(n + 1) if not s or k <= s[-1]]
    for s in starts:
        upper = np.array([[j >= k for j in range(n)] for k in s])
        assert (residual * upper).sum() < 1e-6


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=8))
def test_pooling_gives_the_minmax_formula(rows):
    y, w = np.array([float(v) for v, _ in rows]), np.array([float(v) for _, v in rows])
    mean = lambda a, b: float((y[a : b + 1] * w[a : b + 1]).sum() / w[a : b + 1].sum())  # noqa: E731
    expected = [max(min(mean(a, b) for b in range(i, len(y))) for a in range(i + 1)) for i in range(len(y))]
    np.testing.assert_allclose(isotonic(y, w), expected, rtol=1e-12)


def test_frequencies_that_rise_stay_as_they_are_and_repeats_add():
    measured = MeasuredSwitching(
        (
            PulseCount(1.0, 1e-9, 1, 10),
            PulseCount(1.0, 1e-8, 5, 10),
            PulseCount(2.0, 1e-9, 4, 10),
            PulseCount(2.0, 1e-8, 9, 10),
            PulseCount(2.0, 1e-8, 10, 10),
        ),
        resistance=1e4,
    )
    cell = measured.interpolated()
    assert cell.set_grid == ((0.1, 0.5), (0.4, 0.95))
    assert isinstance(cell, SwitchingCell)
    assert cell.energy(2.0, 1e-8) == pytest.approx(4e-12, rel=1e-12, abs=0)
    assert cell_from_json(json.loads(json.dumps(cell.to_json()))) == cell
    assert cell.hazard_factors(3, generator=np.random.default_rng(0)).tolist() == [1, 1, 1]
    with pytest.raises(QueryError, match=r"no RESET pulses were measured; nothing is assumed"):
        cell.probability(1.0, 1e-9, direction=RESET)


@pytest.fixture(scope="module", params=["probability", "hazard"])
def table(request):
    return measure(MERZ, [1.2, 1.35, 1.5, 1.8], [1e-9, 1e-8, 1e-7], trials=2000).interpolated(scale=request.param)


def test_the_table_itself_is_met_at_its_points(table):
    found = table.probability(np.array(table.voltages)[:, None], np.array(table.widths))
    np.testing.assert_allclose(found, table.set_grid, rtol=1e-12)
    for i, v in enumerate(table.voltages):
        assert table.width_for(table.set_grid[i][1], v) == pytest.approx(1e-8, rel=1e-12, abs=0)
        assert table.voltage_for(table.set_grid[i][1], 1e-8) == pytest.approx(v)


@settings(max_examples=40)
@given(data=st.data())
def test_between_the_points_it_rises_and_its_inverses_give_it_back(table, data):
    volts = st.floats(table.voltages[0], table.voltages[-1])
    ln_width = st.floats(math.log(1.0001e-9), math.log(0.9999e-7))
    v, w = sorted(data.draw(st.tuples(volts, volts)))
    s, t = (math.exp(x) for x in sorted(data.draw(st.tuples(ln_width, ln_width))))
    p = table.probability([v, w], [s, t])
    assert 0 <= p[0] <= p[1] * (1 + 1e-12) <= 1
    corner = table.probability(v, t), table.probability(w, s)
    assert p[0] <= min(corner) * (1 + 1e-12) and max(corner) <= p[1] * (1 + 1e-12)
    assert table.probability(v, table.width_for(p[0], v)) == pytest.approx(p[0], rel=1e-9)
    assert table.probability(table.voltage_for(p[0], s), s) == pytest.approx(p[0], rel=1e-9)
    assert table.hazard(v, s) == pytest.approx(-math.log1p(-p[0]), rel=1e-9)


def test_interpolation_at_scale_hazard_is_straight_in_the_log_hazard():
    cell = InterpolatedSwitching((1.0, 2.0), (1e-9, 1e-7), ((0.001, 0.01), (0.01, 0.1)), scale="hazard")
    mean = (math.log(-math.log1p(-0.001)) + math.log(-math.log1p(-0.01))) / 2
    assert cell.probability(1.0, 1e-8) == pytest.approx(-math.expm1(-math.exp(mean)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.probability(1.1, 1e-8), r"voltage is 1\.1 V, but measured are 1\.2 to 1\.8 V, 1e-09 to 1e-07 s"),
        (lambda c: c.probability([1.5, 1.9], 1e-8), r"voltage is 1\.9 V, .*nothing is extrapolated"),
        (lambda c: c.hazard(1.5, 1.1e-7), r"width is 1\.1e-07 s, but measured are"),
        (lambda c: c.width_for(0.5, 3.0), r"voltage is 3 V, but measured are"),
        (lambda c: c.voltage_for(0.5, 1e-10), r"width is 1e-10 s, but measured are"),
        (lambda c: c.width_for(1e-9, 1.5), r"probability 1e-09 at 1\.5 V is not reached within what was measured"),
        (lambda c: c.voltage_for(0.999, 1e-8), r"probability 0\.999 at 1e-08 s is not reached"),
        (
            lambda c: c.energy(1.5, 1e-7),
            r"no resistance to compute the energy from\. Give .* MeasuredSwitching\.load\(path, resistance=1e4\)",
        ),
    ],
)
def test_nothing_is_extrapolated(table, call, message):
    with pytest.raises(QueryError, match=message):
        call(table)


def test_a_menu_can_be_made_from_measured_pulses(table):
    menu = PulseMenu.for_cell(table, levels=4, lowest=0.1, highest=0.3, voltage=1.4)
    np.testing.assert_allclose(menu.probabilities(table), np.geomspace(0.1, 0.3, 4), rtol=1e-9)


def test_a_flat_stretch_gives_the_least_pulse_that_reaches_it():
    cell = InterpolatedSwitching((1.0,), (1e-9, 1e-8, 1e-7), ((0.2, 0.5, 0.5),))
    assert cell.width_for(0.5, 1.0) == pytest.approx(1e-8, rel=1e-12, abs=0)
    assert cell.width_for(0.2, 1.0) == pytest.approx(1e-9, rel=1e-12, abs=0)
    assert cell.voltage_for(0.5, 1e-7) == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"voltages": (2.0, 1.0)}, r"voltages is .* expected rising numbers \[V\]"),
        ({"widths": (0.0, 1.0)}, r"widths is .* expected rising numbers \[s\]"),
        ({"set_grid": ((0.1, 0.2),)}, r"set_grid has shape \(1, 2\), expected \(2, 2\)"),
        ({"set_grid": ((0.1, 0.2), (0.3, 0.1))}, r"set_grid falls somewhere"),
        ({"set_grid": ((0.1, 0.2), (0.3, 1.1))}, r"set_grid is 1\.1"),
        ({"set_grid": ((0.0, 0.2), (0.3, 0.4)), "scale": "hazard"}, r"has a probability 0 or 1, expected \(0, 1\)"),
        ({"set_grid": None}, r"neither a SET nor a RESET grid"),
        ({"scale": "log"}, r"scale is 'log', expected one of: probability, hazard"),
        ({"resistance": -1.0}, r"resistance is -1\.0"),
    ],
)
def test_what_is_no_table_of_a_cell_is_refused(values, message):
    fine = {"voltages": (1.0, 2.0), "widths": (1e-9, 1e-8), "set_grid": ((0.1, 0.2), (0.3, 0.4))}
    with pytest.raises(QueryError, match=message):
        InterpolatedSwitching(**(fine | values))


@pytest.mark.parametrize(("switched", "trials"), [(1, 2.5), (0.5, 2), (3, 2), (0, 0), (1, math.inf)])
def test_counts_are_whole_numbers(switched, trials):
    with pytest.raises(QueryError, match=r"switched of .* trials, expected|is .*, expected an integer"):
        PulseCount(1.0, 1e-9, switched, trials)


def test_a_hole_in_the_grid_is_named():
    points = (PulseCount(1.0, 1e-9, 1, 2), PulseCount(2.0, 1e-8, 1, 2))
    with pytest.raises(QueryError, match=r"no SET pulse of 1 V and 1e-08 s was measured, expected a full grid"):
        MeasuredSwitching(points).interpolated()


def test_counts_are_read_with_directions(tmp_path):
    path = tmp_path / "cell.csv"
    path.write_text("voltage_V,width_s,switched,trials,direction\n1.0,1e-8,5,10,set\n1.1,2e-8,6,10,RESET\n1,1,1,1,-1\n")
    measured = MeasuredSwitching.load(path, resistance=5e3)
    assert measured.points[0] == PulseCount(1.0, 1e-8, 5, 10, SET)
    assert [p.direction for p in measured.points] == [SET, RESET, RESET]
    assert measured.directions == (SET, RESET) and measured.resistance == 5e3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "voltage_V,width_s,switched\n",
            r"csv:1: the header is .*expected voltage_V,width_s,switched,trials \(optional",
        ),
        ("voltage_V,width_s,switched,trials\n1,1e-8,11,10\n", r"csv:2: 11 switched of 10 trials, expected 0 <="),
        ("voltage_V,width_s,switched,trials\n1,0,1,10\n", r"csv:2: width is 0 s"),
        ("voltage_V,width_s,switched,trials\n-1,1,1,10\n", r"csv:2: voltage is -1 V"),
        ("voltage_V,width_s,switched,trials\n1,1,0.5,10\n", r"csv:2: switched is '0\.5', expected a whole number"),
        (
            "voltage_V,width_s,switched,trials,direction\n1,1,1,10,up\n",
            r"csv:2: direction is 'up', expected set or reset",
        ),
    ],
)
def test_mistakes_in_counts_are_named_with_their_line(tmp_path, text, message):
    path = tmp_path / "cell.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        MeasuredSwitching.load(path)
