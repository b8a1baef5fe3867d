"""The soft-bound synapse: pulses against plain loops, the symmetry point, zero shifting, weights."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.devices.synapse import SoftBoundSynapse, SynapseCells, weights
from bnnverify.errors import QueryError

synapses = st.builds(
    SoftBoundSynapse,
    a_up=st.floats(0.001, 0.2),
    a_down=st.floats(0.001, 0.2),
    b_min=st.floats(-2, -0.5),
    b_max=st.floats(0.5, 2),
    step_sigma=st.floats(0, 0.5),
    bound_sigma=st.floats(0, 0.3),
)


def plain_pulse(v, direction, a_up, a_down, b_min, b_max, noise, kind):
    if direction == 0:
        return v
    step, bound = (a_up, b_max) if direction > 0 else (-a_down, b_min)
    room = 1 - v / bound
    room = room + noise if kind == "additive" else room * (1 + noise)
    return min(max(v + step * room, b_min), b_max)


@given(
    synapses,
    st.integers(0, 2**32),
    st.sampled_from(["multiplicative", "additive"]),
    st.sampled_from([0.0, 0.5]),
    st.lists(st.tuples(st.floats(-0.4, 0.4), st.sampled_from([-1, 0, 1])), min_size=1, max_size=8),
)
def test_pulses_are_those_of_the_definition(synapse, seed, kind, sigma, cells):
    synapse = SoftBoundSynapse(**(synapse.to_json() | {"c2c_sigma": sigma, "noise": kind}))
    array = synapse.sample_cells(len(cells), generator=np.random.default_rng(seed))
    states, directions = np.array([v for v, _ in cells]), np.array([d for _, d in cells], dtype=np.int8)
    found = synapse.pulse(states, directions, cells=array, generator=np.random.default_rng(seed))
    draws = np.random.default_rng(seed).standard_normal(len(cells)) * sigma
    expected = [
        plain_pulse(v, d, *row, noise, kind)
        for v, d, row, noise in zip(
            states,
            directions,
            zip(array.a_up, array.a_down, array.b_min, array.b_max, strict=True),
            draws,
            strict=True,
        )
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@given(synapses, st.integers(0, 2**32))
def test_at_the_symmetry_point_up_and_down_steps_are_equal(synapse, seed):
    cells = synapse.sample_cells(4, generator=np.random.default_rng(seed))
    point = cells.symmetry_point
    assert ((cells.b_min < point) & (point < cells.b_max)).all()
    up = synapse.pulse(point, np.ones(4), cells=cells) - point
    down = point - synapse.pulse(point, -np.ones(4), cells=cells)
    np.testing.assert_allclose(up, down, rtol=1e-9)


def test_alternating_pulses_end_at_the_symmetry_point():
    synapse = SoftBoundSynapse(a_up=0.02, a_down=0.01)
    cells = synapse.sample_cells(3, generator=np.random.default_rng(0))
    assert synapse.zero_shift(cells) == pytest.approx([1 / 3] * 3)
    hardware = synapse.zero_shift(cells, pairs=1000, start=[-1.0, 0.0, 1.0])
    assert hardware == pytest.approx([0.329] * 3, abs=1e-3)  # within one step, whatever the start


@given(synapses, st.integers(0, 2**32), st.floats(-0.4, 0.4), st.integers(1, 30))
def test_each_pair_contracts_as_said(synapse, seed, start, pairs):
    cells = synapse.sample_cells(2, generator=np.random.default_rng(seed))
    one = synapse.zero_shift(cells, pairs=pairs, start=start)
    other = synapse.zero_shift(cells, pairs=pairs, start=0.0)
    factor = ((1 - cells.a_up / cells.b_max) * (1 + cells.a_down / cells.b_min)) ** pairs
    np.testing.assert_allclose(one - other, start * factor, rtol=1e-6, atol=1e-12)


def test_balanced_pulses_bias_the_weight_unless_the_reference_is_shifted():
    synapse = SoftBoundSynapse(a_up=0.02, a_down=0.01, step_sigma=0.2, c2c_sigma=0.3)
    generator = np.random.default_rng(5)
    cells = synapse.sample_cells(4000, generator=generator)
    v = np.zeros(4000)
    for _ in range(400):
        v = synapse.pulse(v, generator.choice([-1, 1], 4000), cells=cells, generator=generator)
    biased = (weights(v) > 0).mean()
    shifted = (weights(v, synapse.zero_shift(cells)) > 0).mean()
    assert biased > 0.97 and abs(shifted - 0.5) < 0.03


def test_noise_of_additive_kind_does_not_shrink_at_the_bound():
    cells = SynapseCells(*(np.full(1000, x) for x in (0.01, 0.01, -1.0, 1.0)))
    near = np.full(1000, 0.99)
    spread = {}
    for kind in ("additive", "multiplicative"):
        synapse = SoftBoundSynapse(a_up=0.01, a_down=0.01, c2c_sigma=0.5, noise=kind)
        spread[kind] = synapse.pulse(near, np.ones(1000), cells=cells, generator=np.random.default_rng(1)).std()
    assert spread["additive"] > 20 * spread["multiplicative"]


def test_samples_have_the_asked_shape_and_spread_and_repeat():
    synapse = SoftBoundSynapse(a_up=0.02, a_down=0.01, step_sigma=0.3, bound_sigma=0.1)
    cells = synapse.sample_cells((100, 200), generator=np.random.default_rng(2))
    assert cells.shape == (100, 200) == cells.b_min.shape
    assert np.log(cells.a_up / 0.02).std() == pytest.approx(0.3, rel=0.03)
    assert np.log(-cells.b_min).std() == pytest.approx(0.1, rel=0.03)
    assert abs(np.corrcoef(cells.a_up.ravel(), cells.a_down.ravel())[0, 1]) < 0.03
    again = synapse.sample_cells((100, 200), generator=np.random.default_rng(2))
    assert np.array_equal(cells.b_max, again.b_max)


def test_synapses_survive_json_and_steps_follow_the_imbalance():
    synapse = SoftBoundSynapse.from_step(0.01, up_down=0.5, c2c_sigma=0.1)
    assert (synapse.a_up, synapse.a_down) == pytest.approx((0.015, 0.005))
    assert SoftBoundSynapse.from_json(json.loads(json.dumps(synapse.to_json()))) == synapse


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftBoundSynapse(0.0, 0.1), r"a_up is 0\.0, expected a finite number above 0"),
        (lambda: SoftBoundSynapse(0.1, 0.1, b_min=0.0), r"b_min is 0\.0, expected a number below 0"),
        (lambda: SoftBoundSynapse(0.1, 0.1, noise="pink"), r"noise is 'pink', expected one of: multiplicative"),
        (lambda: SoftBoundSynapse.from_step(0.1, up_down=1.0), r"up_down is 1\.0, expected an imbalance"),
        (lambda: SoftBoundSynapse.from_json({"a": 1}), r"cannot be made: got an unexpected keyword argument 'a'"),
        (lambda: SynapseCells([0.1], [0.1], [1.0], [1.0]), r"b_min has an entry that is not below 0"),
        (lambda: SynapseCells([0.1], [0.1, 0.1], [-1.0], [1.0]), r"expected one shape"),
    ],
)
def test_what_is_no_synapse_is_refused(make, message):
    with pytest.raises(QueryError, match=message):
        make()


def test_pulses_that_do_not_fit_the_cells_are_refused():
    synapse = SoftBoundSynapse(0.1, 0.1, c2c_sigma=0.1)
    cells = synapse.sample_cells(2, generator=np.random.default_rng(0))
    with pytest.raises(QueryError, match=r"state \(3,\) and directions \(2,\), expected the shape of the cells"):
        synapse.pulse(np.zeros(3), [1, 1], cells=cells)
    with pytest.raises(QueryError, match=r"a direction is not one of -1, 0, \+1"):
        synapse.pulse(np.zeros(2), [1, 2], cells=cells)
    with pytest.raises(QueryError, match=r"c2c_sigma is 0\.1, but no generator was given"):
        synapse.pulse(np.zeros(2), [1, 1], cells=cells)
    with pytest.raises(QueryError, match=r"pairs is -1"):
        synapse.zero_shift(cells, pairs=-1)
