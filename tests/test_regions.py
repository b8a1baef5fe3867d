"""Regions: sizes are exact, points are the members, and nothing else gets in."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given

from bnnverify.errors import QueryError
from bnnverify.regions import FixedIndexRegion, HammingBall, region_from_json, whole_cube
from tests.strategies import regions


@given(regions(6))
def test_size_points_and_membership_agree(region):
    points = list(region.points())
    assert len(points) == len(set(points)) == region.size()
    assert set(points) == {x for x in product((-1, 1), repeat=6) if region.contains(x)}


@given(regions(6))
def test_a_region_survives_json(region):
    again = region_from_json(json.loads(json.dumps(region.to_json())))
    assert again == region and hash(again) == hash(region)


@given(regions(5))
def test_only_free_inputs_vary(region):
    varying = {i for x in region.points() for i in range(5) if x[i] != region.center[i]}
    assert varying == set(region.free)


def test_a_ball_lists_the_nearest_first():
    ball = HammingBall((1, 1, 1, 1), 4)
    distances = [sum(v == -1 for v in x) for x in ball.points()]
    assert distances == sorted(distances)


def test_a_ball_over_some_inputs_lists_the_nearest_first():
    ball = HammingBall((1, -1, 1, 1), 2, (3, 1, 0))
    distances = [sum(a != b for a, b in zip(x, ball.center, strict=True)) for x in ball.points()]
    assert distances == [0, 1, 1, 1, 2, 2, 2] and all(x[2] == 1 for x in ball.points())
    assert str(ball) == "Hamming ball of radius 2 in 3 of 4 inputs"


def test_equal_balls_are_equal_however_they_are_written():
    ball = HammingBall((1, -1, 1), 2)
    assert ball == HammingBall((1, -1, 1), 2, None) == HammingBall([1, -1, 1], 2, [2, 0, 1])
    assert HammingBall((1, -1, 1), 2, (0, 1)) not in (ball, HammingBall((1, -1, 1), 2, (0, 2)))
    assert HammingBall((1, -1), 0) == HammingBall((1, -1), 0, (1,)) == HammingBall((1, -1), 0, ())
    assert replace(ball, radius=1) == HammingBall((1, -1, 1), 1)


def test_the_json_of_a_ball_over_all_inputs_does_not_name_them():
    assert HammingBall((1, -1), 1).to_json() == {"kind": "hamming", "radius": 1, "center": [1, -1]}
    assert "free" not in HammingBall((1, -1), 0).to_json()
    assert HammingBall((1, -1), 1, (1,)).to_json()["free"] == [1]


def test_sizes_are_python_integers_without_limit():
    assert HammingBall((1,) * 300, 300).size() == 2**300
    assert whole_cube(200).size() == 2**200


def test_the_whole_cube_contains_everything_of_its_length():
    cube = whole_cube(3)
    assert all(cube.contains(x) for x in product((-1, 1), repeat=3))
    assert not cube.contains((1, 1)) and not HammingBall((1, 1, 1), 3).contains((1, 1))


def test_numpy_centres_are_taken():
    assert HammingBall(np.array([1, -1], dtype=np.int8), np.int64(1)) == HammingBall((1, -1), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HammingBall((1, 0), 1), r"center\[1\] is 0, expected -1 or \+1\. Binarize the image first"),
        (lambda: HammingBall((), 0), "expected a vector of -1/\\+1"),
        (lambda: HammingBall((1, 1), 2, (1,)), "radius is 2, expected 0 to 1, the number of free inputs"),
        (lambda: HammingBall((1, 1), 1, (2,)), "free contains 2, expected indices 0 to 1"),
        (lambda: HammingBall((1, 1), 1, (0, 0)), "free lists an index twice"),
        (lambda: HammingBall((1, 1), 3), "radius is 3, expected 0 to 2, the number of inputs"),
        (lambda: HammingBall((1, 1), -1), "radius is -1, expected 0 to 2"),
        (lambda: HammingBall((1, 1), 0.5), r"radius is 0\.5, expected an integer"),
        (lambda: HammingBall((1, 1), True), "radius is True, expected an integer"),
        (lambda: FixedIndexRegion((1, 1), (2,)), "free contains 2, expected indices 0 to 1"),
        (lambda: FixedIndexRegion((1, 1), (0, 0)), "free lists an index twice"),
        (lambda: whole_cube(0), "the cube has 0 inputs, expected at least 1"),
        (lambda: region_from_json({"kind": "ball"}), "region kind is 'ball', expected 'hamming' or 'fixed-index'"),
    ],
)
def test_regions_that_make_no_sense_are_refused(make, message):
    with pytest.raises(QueryError, match=message):
        make()
