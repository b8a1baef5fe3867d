"""Boxes of integers and of reals: members, sizes, exact rounding, and which queries take them."""

import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.engines.portfolio import engine_for
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import (
    FixedIndexRegion,
    HammingBall,
    PixelBox,
    RealBox,
    any_region_from_json,
    quantized_box,
    region_from_json,
    whole_cube,
)
from tests.strategies import regions

fractions = st.builds(Fraction, st.integers(-12, 12), st.integers(1, 6))


integers = st.integers(-4, 4)


@st.composite
def boxes(draw, numbers=integers):
    ends = draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
    return tuple(min(e) for e in ends), tuple(max(e) for e in ends)


@given(boxes())
def test_size_points_and_membership_agree(ends):
    box = PixelBox(*ends)
    points = list(box.points())
    assert points == sorted(set(points)) and len(points) == box.size()
    around = product(range(-5, 6), repeat=min(box.n, 3))
    for x in around:
        x = x + box.lower[3:]
        assert (x in points) == box.contains(x)
    varying = {i for i in range(box.n) if len({x[i] for x in points}) > 1}
    assert varying == set(box.free)


@given(boxes(fractions))
def test_the_grid_of_a_real_box_are_its_integer_points(ends):
    box = RealBox(*ends)
    grid, within = box.grid(), list(product(range(-13, 14), repeat=min(box.n, 2)))
    for x in within:
        x = x + tuple(Fraction(v) for v in box.lower[2:])
        whole = box.contains(x) and all(v.denominator == 1 for v in box.lower[2:])
        assert whole == (grid is not None and grid.contains(x))
    assert box.contains(box.lower) and box.contains(box.upper)


@given(st.one_of(regions(4), boxes().map(lambda e: PixelBox(*e)), boxes(fractions).map(lambda e: RealBox(*e))))
def test_every_region_survives_json(region):
    again = any_region_from_json(json.loads(json.dumps(region.to_json())))
    assert again == region and hash(again) == hash(region)


def test_a_box_is_no_region_over_signs():
    with pytest.raises(QueryError, match="region kind is 'pixel-box'"):
        region_from_json(PixelBox((0,), (1,)).to_json())


@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.integers(0, 4))
def test_an_l_infinity_ball_holds_the_inputs_of_the_domain_at_most_the_radius_away(center, radius):
    domain = InputDomain.integers([0] * len(center), [9] * len(center))
    box = PixelBox.linf(center, radius, domain)
    for x in product(range(-1, 11), repeat=len(center)):
        near = all(abs(a - b) <= radius and 0 <= a <= 9 for a, b in zip(x, center, strict=True))
        assert box.contains(x) == near
    assert PixelBox.linf(center, radius) == PixelBox([c - radius for c in center], [c + radius for c in center])


@given(
    st.lists(st.integers(0, 255).map(lambda k: Fraction(k, 255)), min_size=1, max_size=4),
    st.sampled_from(["0", "0.1", "0.3", "1"]),
    st.sampled_from(["0.61", "0.5", "1/3", "1/255"]),
)
def test_quantized_pixels_range_over_the_rounded_values_of_the_interval(pixels, eps, step):
    box = quantized_box(pixels, eps, step)
    reach, size = Fraction(eps), Fraction(step)
    for p, low, high in zip(pixels, box.lower, box.upper, strict=True):
        ends = max(p - reach, Fraction(0)), min(p + reach, Fraction(1))
        for end, got in zip(ends, (low, high), strict=True):
            quotient = end / size
            assert abs(got - quotient) <= Fraction(1, 2)
            if abs(got - quotient) == Fraction(1, 2):
                assert got % 2 == 0


def test_halves_are_rounded_to_the_even_integer_as_numpy_does():
    halves = [Fraction(k, 2) for k in range(9)]
    box = quantized_box(halves, 0, 1, high=4)
    assert box.lower == box.upper == tuple(np.round(np.arange(9) / 2).astype(int).tolist())


def test_the_text_of_a_number_is_what_counts_and_not_its_nearest_float():
    assert quantized_box([0], "0.3", "0.1") == quantized_box([0], 0.3, 0.1) == PixelBox((0,), (3,))
    # 0.15 / 0.1 is exactly 1.5: to even. In floating point it is below
    assert quantized_box([0], "0.15", "0.1").upper == (2,) and round(float("0.15") / float("0.1")) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PixelBox((0, 2), (1, 1)), r"lower\[1\] = 2 exceeds upper\[1\] = 1: the box is empty"),
        (lambda: PixelBox((0,), (1, 1)), "lower has 1 entries and upper 2"),
        (lambda: PixelBox((), ()), "expected a vector of at least one number"),
        (lambda: PixelBox((0.5,), (1,)), r"lower\[0\] is 0.5, expected an integer"),
        (lambda: PixelBox(3, 4), "lower is 3, expected a vector of numbers"),
        (lambda: PixelBox.linf([1], -1), "radius is -1, expected at least 0"),
        (lambda: PixelBox.linf([1], 1, InputDomain.integers([0, 0], [1, 1])), "center has 1 entries, but the domain"),
        (lambda: PixelBox.linf([9], 1, InputDomain.integers([0], [1])), "the box is empty"),
        (lambda: RealBox((float("nan"),), (1,)), r"lower\[0\] is nan, expected a finite number"),
        (lambda: RealBox((True,), (1,)), r"lower\[0\] is True, expected a finite number"),
        (lambda: quantized_box([2], 0.1, 0.1), r"pixels\[0\] is 2, expected 0 to 1. Scale the image first"),
        (lambda: quantized_box([0], -1, 0.1), "eps is -1, expected at least 0"),
        (lambda: quantized_box([0], 0, 0), "step is 0, expected a number above 0"),
        (lambda: quantized_box(["x"], 0, 1), r"pixels\[0\] is 'x', expected a finite number"),
    ],
)
def test_what_is_no_box_is_refused_in_one_sentence(make, message):
    with pytest.raises(QueryError, match=message):
        make()


def network(binary=False):
    domain = InputDomain.binary(2) if binary else InputDomain.integers([0, 0], [9, 9])
    return BinaryNetwork(domain, (), OutputBlock.create([[1, 1], [1, -1]]))


def test_a_query_over_a_box_means_what_exact_evaluation_says():
    query = Query(network(), PixelBox((0, 0), (3, 3)), Untargeted(0), Ties.COUNTEREXAMPLE)
    adversarial = [x for x in query.region.points() if query.is_adversarial(x)]
    assert adversarial == [(x, 0) for x in range(4)]
    assert not query.is_adversarial((4, 0))
    real = Query(network(), RealBox((0, 0), ("7/2", 3)), Untargeted(0), Ties.COUNTEREXAMPLE)
    assert real.is_adversarial((3, 0)) and not real.is_adversarial((4, 0))
    assert len({query.identity, real.identity}) == 2


def test_boxes_and_balls_stay_with_their_inputs():
    with pytest.raises(UnsupportedError, match="the network takes -1/\\+1 inputs, but boxes are over integers"):
        Query(network(binary=True), PixelBox((0, 0), (1, 1)), Untargeted(0))
    with pytest.raises(UnsupportedError, match="the network takes integer inputs"):
        Query(network(), HammingBall((1, 1), 1), Untargeted(0))
    with pytest.raises(QueryError, match="input 1 of the box goes from 5 to 10, but the network takes 0 to 9"):
        Query(network(), PixelBox((0, 5), (1, 10)), Untargeted(0))
    with pytest.raises(QueryError, match="the region has 1 inputs, but the network takes 2"):
        Query(network(), RealBox((0,), (1,)), Untargeted(0))


@pytest.mark.parametrize("name", ["enumeration", "propagation"])
def test_engines_over_signs_refuse_boxes_in_one_sentence(name):
    query = Query(network(), PixelBox((0, 0), (1, 1)), Untargeted(0))
    for ask in (engine_for(name).decide, engine_for(name).count):
        with pytest.raises(UnsupportedError, match="box of integers with 2 of 2 inputs free, at most 2 values each"):
            ask(query)


def test_the_sign_region_of_a_query_is_its_region():
    for region in (whole_cube(2), HammingBall((1, 1), 1), FixedIndexRegion((1, 1), (0,))):
        assert Query(network(binary=True), region, Untargeted(0)).sign_region is region
