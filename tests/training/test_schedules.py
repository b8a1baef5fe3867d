import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.errors import QueryError
from bnnverify.training.rules import Schedule
from bnnverify.training.rules.schedules import KINDS

values = st.floats(1e-300, 1e300)
fractions = st.floats(0, 1)
schedules = st.builds(
    Schedule,
    values,
    values,
    st.sampled_from(KINDS[1:]),
    power=st.just(1.0),
    steps=st.just(2),
) | values.map(lambda v: Schedule(v, v))


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.75, 0.999, 1.0])
def test_every_kind_is_its_formula(q):
    a, b = 0.8, 0.002
    assert Schedule(a, b, "exponential").at(q) == pytest.approx(a * (b / a) ** q, rel=1e-12)
    assert Schedule(a, b, "polynomial").at(q) == pytest.approx(a + (b - a) * q, rel=1e-12)
    assert Schedule(a, b, "polynomial", power=2.0).at(q) == pytest.approx(b + (a - b) * (1 - q) ** 2, rel=1e-12)
    assert Schedule(a, b, "cosine").at(q) == pytest.approx((a + b) / 2 + (a - b) / 2 * math.cos(math.pi * q), rel=1e-12)
    assert Schedule(a, a).at(q) == a


def test_a_step_schedule_has_equal_stretches_and_equal_ratios():
    # the staircase of 500 epochs: a tenth every 100
    schedule = Schedule.of("1e-4:1e-8:step:5")
    for epoch in range(500):
        assert schedule.at(epoch / 500) == pytest.approx(1e-4 * 0.1 ** (epoch // 100), rel=1e-12)
    assert Schedule(1.0, 0.5, "step").at(0.49) == 1.0
    assert Schedule(1.0, 0.5, "step").at(0.5) == 0.5


@given(schedules, fractions)
def test_values_lie_between_the_ends(schedule, q):
    assert schedule.smallest * (1 - 1e-12) <= schedule.at(q) <= schedule.largest * (1 + 1e-12)


@given(schedules, fractions, fractions)
def test_a_schedule_goes_one_way(schedule, q, r):
    direction = schedule.end - schedule.start if schedule.kind != "constant" else 0
    change = (schedule.at(max(q, r)) - schedule.at(min(q, r))) * math.copysign(1, direction)
    assert change >= -1e-12 * schedule.largest


@given(schedules)
def test_a_schedule_begins_at_its_start_and_ends_at_its_end(schedule):
    assert schedule.at(0) == pytest.approx(schedule.start, rel=1e-12)
    assert schedule.at(1) == pytest.approx(schedule.end, rel=1e-12)
    assert schedule.at(-0.5) == schedule.at(0)
    assert schedule.at(1.5) == schedule.at(1)


@given(values, values, st.sampled_from(KINDS[1:]), st.floats(0.1, 9), st.integers(2, 9))
def test_the_text_of_a_schedule_reads_back(start, end, kind, power, steps):
    extra = {"power": power} if kind == "polynomial" else {"steps": steps} if kind == "step" else {}
    schedule = Schedule(start, end, kind, **extra)
    assert Schedule.of(str(schedule)) == schedule


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        (0.01, Schedule(0.01, 0.01)),
        (1, Schedule(1.0, 1.0)),
        ("1e-3", Schedule(0.001, 0.001)),
        ("1e-3:1e-5", Schedule(0.001, 0.00001, "exponential")),
        ("1:0:polynomial", Schedule(1.0, 0.0, "polynomial")),
        ("1:0:polynomial:3", Schedule(1.0, 0.0, "polynomial", power=3.0)),
        (" 1 : 0 : cosine ", Schedule(1.0, 0.0, "cosine")),
        ("1:0.1:step:4", Schedule(1.0, 0.1, "step", steps=4)),
        ("0.5:0.5:constant", Schedule(0.5, 0.5)),
        (Schedule(2.0, 1.0, "cosine"), Schedule(2.0, 1.0, "cosine")),
    ],
)
def test_numbers_texts_and_schedules_are_read(text, schedule):
    assert Schedule.of(text) == schedule


@pytest.mark.parametrize(
    "value", ["", "fast", "1:", ":1", "1:2:cosine:3", "1:2:step:2.5", "1:2:step:2:2", None, True, [1, 2], {}]
)
def test_what_is_no_schedule_is_named_with_what_is(value):
    with pytest.raises(QueryError, match=r"^tau of the rule x is .*, expected a number, or START:END\[:KIND\] such as"):
        Schedule.of(value, "tau of the rule x")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Schedule.of("1:2:linear"), "the kind of a schedule is 'linear', expected one of: constant, exponent"),
        (lambda: Schedule.of("1:0"), "equal ratios runs from 1.0 to 0.0, expected both above 0. Use polynomial or co"),
        (lambda: Schedule.of("0:1:step"), "equal ratios runs from 0.0 to 1.0"),
        (lambda: Schedule.of(-1), "a schedule runs from -1.0 to -1.0, expected finite numbers of at least 0"),
        (lambda: Schedule.of("nan"), "a schedule runs from nan to nan"),
        (
            lambda: Schedule.of("nan", "rate of the rule ss-ema"),
            "rate of the rule ss-ema is 'nan': a schedule runs from",
        ),
        (lambda: Schedule.of("1:inf:cosine"), "a schedule runs from 1.0 to inf"),
        (lambda: Schedule.of("1:2:step:1"), "power 1.0 and 1 steps, expected above 0 and 2 or more"),
        (lambda: Schedule.of("1:2:polynomial:0"), "power 0.0 and 2 steps"),
        (lambda: Schedule(1.0, 2.0, "polynomial", power=math.nan), "power nan"),
    ],
)
def test_a_bad_schedule_gives_one_clear_sentence(call, message):
    with pytest.raises(QueryError, match=message):
        call()


def test_the_extremes_do_not_depend_on_the_direction():
    for schedule in (Schedule.of("0.1:3"), Schedule.of("3:0.1:cosine")):
        assert (schedule.smallest, schedule.largest) == (0.1, 3.0)
