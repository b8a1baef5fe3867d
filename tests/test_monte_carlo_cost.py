"""The benchmark that says what sampling would cost."""

import doctest
import importlib
import math
import sys
from pathlib import Path

import pytest

from bnnverify.confidence import clopper_pearson

FOLDER = Path(__file__).resolve().parent.parent / "case_studies" / "benchmarks"
MODEL = FOLDER.parents[1] / "models" / "digits-64-32-10.npz"


@pytest.fixture(scope="module")
def cost():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("monte_carlo_cost")
        del sys.modules["monte_carlo_cost"]


@pytest.mark.parametrize(("p", "width"), [(0.0, 1e-4), (1e-6, 1e-3), (1e-3, 1e-3), (0.03, 1e-3), (0.5, 0.1), (1, 1e-3)])
def test_so_many_chips_give_about_that_width_and_fewer_do_not(cost, p, width):
    chips = math.floor(cost.chips_needed(p, p, width))
    fewer, twice = (clopper_pearson(round(p * n), n, confidence=cost.CONFIDENCE).width for n in (chips // 2, 2 * chips))
    assert twice <= width <= fewer


def test_the_better_end_of_an_interval_counts(cost):
    assert cost.chips_needed(0.1, 0.2, 1e-3) == cost.chips_needed(0.1, 0.1, 1e-3)
    assert cost.chips_needed(0.8, 0.9, 1e-3) == cost.chips_needed(0.9, 0.9, 1e-3)


def test_rare_images_are_those_proved_positive_and_below_the_limit(cost):
    bounds = [(0.0, 1e-14), (1e-20, 2e-20), (1e-30, 1e-30), (1e-14, 1e-11), (1e-16, 1e-15)]
    row = cost.rare("1e-5", bounds, 1e6)
    assert row.startswith("| 1e-5 | 3 | 1.00e-20 |") and "5.0e+19" in row
    assert cost.rare("1e-5", bounds[:1], 1e6).startswith("| 1e-5 | 0 |")


def test_the_benchmark_runs(cost, capsys):
    words = f"--model {MODEL} --dataset digits --images 3 --rates 1e-3 --sampling 0.01 --jobs 1"
    cost.main(words.split(" "))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 1e-3")]
    assert [row.count("|") for row in rows] == [9, 7]


def test_the_examples_of_the_benchmark_run(cost):
    tried = doctest.testmod(cost)
    assert tried.failed == 0 < tried.attempted
