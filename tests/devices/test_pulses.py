"""Pulse menus: the asked probabilities, the generator's grid, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.devices import PRESETS, RESET, PulseMenu
from bnnverify.errors import QueryError


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("how", [{}, {"voltage": 0.5}, {"width": 1e-7}])
def test_a_menu_has_geometric_set_probabilities(name, how):
    cell = PRESETS[name]
    menu = PulseMenu.for_cell(cell, levels=8, lowest=1e-3, highest=0.4, **how)
    p = menu.probabilities(cell)
    np.testing.assert_allclose(p, np.geomspace(1e-3, 0.4, 8), rtol=1e-9)
    assert len(menu) == 8 and len(set(menu.voltages if "voltage" in how else menu.widths)) == 1
    np.testing.assert_allclose(menu.hazards(cell), -np.log1p(-p), rtol=1e-9)
    expected = [v * v * t / cell.resistance for v, t in zip(menu.voltages, menu.widths, strict=True)]
    np.testing.assert_allclose(menu.energies(cell), expected, rtol=1e-12)
    assert (menu.probabilities(cell, direction=RESET) < p).all()  # the presets reset more slowly


def test_the_default_menu_has_pulses_of_100_ns():
    menu = PulseMenu.for_cell(PRESETS["ftj"])
    assert len(menu) == 16 and set(menu.widths) == {1e-7}
    assert menu.probabilities(PRESETS["ftj"])[[0, -1]] == pytest.approx([1e-4, 0.5])
    assert len(PulseMenu.for_cell(PRESETS["ftj"], levels=1)) == 1


@given(
    st.lists(st.tuples(st.floats(0.01, 3), st.floats(1e-11, 1e-6)), min_size=1, max_size=8),
    st.sampled_from([1e-10, 1e-9, 5e-9]),
    st.sampled_from([0.01, 0.05]),
)
def test_a_quantised_menu_lies_on_the_grid_within_half_a_step(pulses, width_step, voltage_step):
    menu = PulseMenu(tuple(v for v, _ in pulses), tuple(t for _, t in pulses))
    grid = menu.quantised(width_step=width_step, voltage_step=voltage_step)
    assert len(set(zip(grid.voltages, grid.widths, strict=True))) == len(grid) <= len(menu)
    for values, step, originals in (
        (grid.widths, width_step, menu.widths),
        (grid.voltages, voltage_step, menu.voltages),
    ):
        for value in values:
            steps = value / step
            assert steps == pytest.approx(round(steps), rel=1e-12) and round(steps) >= 1
            assert any(abs(value - o) <= step / 2 * (1 + 1e-9) or value == step for o in originals)
    assert menu.quantised() == PulseMenu(*zip(*dict.fromkeys(pulses), strict=True))


def test_the_nearest_pulse_is_found_for_every_probability():
    cell = PRESETS["rram"]
    menu = PulseMenu.for_cell(cell, levels=5, lowest=0.01, highest=0.5)
    offered = menu.probabilities(cell)
    wanted = np.array([[0.0, 0.011, 0.2], [0.3, 0.9, 1.0]])
    found = menu.nearest(wanted, cell)
    for where in np.ndindex(wanted.shape):
        assert abs(offered[found[where]] - wanted[where]) == min(abs(offered - wanted[where]))


def test_menus_survive_json():
    menu = PulseMenu((1.0, 1.5), (1e-9, 2.5e-9))
    assert PulseMenu.from_json(json.loads(json.dumps(menu.to_json()))) == menu


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PulseMenu((), ()), r"voltages is \(\), expected one number above 0 \[V\] for each pulse"),
        (lambda: PulseMenu((1.0,), (0.0,)), r"widths is .* expected one number above 0 \[s\]"),
        (lambda: PulseMenu((1.0,), (1e-9, 2e-9)), r"1 voltages and 2 widths, expected equal"),
        (lambda: PulseMenu("1", (1e-9,)), r"voltages is '1', expected one number"),
        (lambda: PulseMenu((-1.0,), (1e-9,)), r"voltages is -1 V, expected a finite number at least 0"),
        (lambda: PulseMenu.from_json({"voltages": [1]}), r"expected an object with 'voltages' and 'widths'"),
        (
            lambda: PulseMenu((1.0,), (1e-9,)).quantised(width_step=0.0),
            r"width_step is 0\.0 s, expected a number above",
        ),
        (lambda: PulseMenu.for_cell(PRESETS["mtj"], voltage=1.0, width=1.0), r"expected one of them"),
        (lambda: PulseMenu.for_cell(PRESETS["mtj"], levels=0), r"levels is 0, expected at least 1"),
        (lambda: PulseMenu.for_cell(PRESETS["mtj"], lowest="few"), r"lowest is 'few', expected a number"),
        (lambda: PulseMenu.for_cell(PRESETS["mtj"], voltage=[1.0]), r"voltage is \[1\.0\], expected a single number"),
        (lambda: PulseMenu.for_cell(PRESETS["mtj"], lowest=0.6), r"expected 0 < lowest <= highest < 1"),
    ],
)
def test_what_is_no_menu_is_refused(make, message):
    with pytest.raises(QueryError, match=message):
        make()
