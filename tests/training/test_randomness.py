import numpy as np
import pytest

from bnnverify.confidence import clopper_pearson
from bnnverify.training.randomness import Randomness, flip_signs, uniforms
from tests.training.trajectories import uniform


def test_numbers_are_those_of_splitmix64():
    # the first outputs of the generator with seed 0, as its reference implementation prints them
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    numbers = uniforms(np.uint64(0), 3)
    assert numbers.tolist() == [(x >> 11) / 2**53 for x in expected] == [uniform(0, i) for i in range(3)]


@pytest.mark.parametrize("key", [1, 2**62 - 1, 2**64 - 1])
def test_numbers_are_those_of_python_integers(key):
    assert uniforms(np.uint64(key), 50).tolist() == [uniform(key, i) for i in range(50)]


def test_numbers_are_uniform_within_exact_limits():
    numbers = uniforms(Randomness(0).key(), 20_000)
    assert (numbers >= 0).all() and (numbers < 1).all()
    for p in (0.001, 0.1, 0.5, 0.9):
        interval = clopper_pearson(int((numbers < p).sum()), numbers.size, confidence=1 - 1e-6)
        assert float(interval.lower) <= p <= float(interval.upper)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 5000)])
def test_events_of_probability_zero_and_one_are_certain(probability, expected):
    signs = np.ones(5000, dtype=np.int8)
    flip_signs(signs, probability, Randomness(0).key())
    assert int((signs == -1).sum()) == expected


def test_signs_flip_as_often_as_asked():
    start = Randomness(1).signs((5000,))
    signs = start.copy()
    flip_signs(signs, 0.02, Randomness(0).key())
    assert (np.abs(signs) == 1).all()
    interval = clopper_pearson(int((signs != start).sum()), 5000, confidence=1 - 1e-6)
    assert float(interval.lower) <= 0.02 <= float(interval.upper)


def test_a_seed_determines_everything_and_every_key_is_new():
    one, two, other = Randomness(3), Randomness(3), Randomness(4)
    keys = [one.key() for _ in range(100)]
    assert keys == [two.key() for _ in range(100)]
    assert len(set(keys)) == 100
    assert not set(keys) & {other.key() for _ in range(100)}
    np.testing.assert_array_equal(one.signs((3, 5)), two.signs((3, 5)))
