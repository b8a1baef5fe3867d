"""Laws and states of small reliability questions without compiled loops: the same bits as the loops."""

import subprocess
import sys
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.compilation import seconds_to_start
from bnnverify.faults import AsymmetricFlip, BitFlip
from bnnverify.reliability import arrays, drawing, onehidden
from bnnverify.reliability.laws import _bernoulli_sum, bernoulli_sum
from bnnverify.reliability.onehidden import Effort
from tests.test_expansion import one_hidden_networks, problem

MODEL = Path(__file__).parent.parent / "models" / "digits-64-32-10.npz"
EITHER_WAY = [True, False]


@contextmanager
def in_numpy(chosen):
    """Work goes through numpy, all of it or none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_spent", -np.inf if chosen else np.inf)
        yield


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12)), max_size=4))
def test_laws_of_sums_are_the_same_to_the_last_bit(groups):
    hits, repeats = np.array([p for p, _ in groups]), np.array([n for _, n in groups], dtype=np.int64)
    laws = []
    for chosen in EITHER_WAY:
        law = np.full(int(repeats.sum()) + 1, np.nan)
        with in_numpy(chosen):
            bernoulli_sum(hits, 1 - hits, repeats, law)
        laws.append(law.tobytes())
    assert laws[0] == laws[1]


CHANCES = [Fraction(0), Fraction(1, 1000), Fraction(1, 20), Fraction(1, 2), Fraction(1)]


@settings(max_examples=150)
@given(
    one_hidden_networks(),
    st.tuples(st.sampled_from(CHANCES), st.sampled_from(CHANCES), st.booleans()),
    st.sampled_from([0.0, 1e-9, 1e-3, 0.2]),
    st.builds(Effort, st.sampled_from([1, 3, 50]), forced=st.booleans()),
)
def test_states_and_bounds_are_the_same_to_the_last_bit(instance, chances, tolerance, effort):
    network, x, label = instance
    plus, minus, is_symmetric = chances
    faults = BitFlip(plus) if is_symmetric else AsymmetricFlip(minus, plus)
    seen = []
    for chosen in EITHER_WAY:
        drawn = []

        def noting(*asked, drawn=drawn):
            drawn.append(drawing.draw_signs(*asked))
            return drawn[-1]

        with in_numpy(chosen), pytest.MonkeyPatch.context() as patch:
            patch.setattr(onehidden, "draw_signs", noting)
            asked = problem(network, x, label, faults, tolerance)
            bounds = (asked.bounds, asked.suffix.tobytes(), asked.refine(effort))
            seen.append((bounds, [(*d[:7], d[7].tobytes(), d[8].tobytes()) for d in drawn]))
    assert seen[0] == seen[1]


def test_states_of_several_words_merge_as_in_the_loop():
    rng = np.random.default_rng(5)
    keys = rng.integers(0, 2, (40, 2)).astype(np.uint64)
    masses = rng.random(40)
    merged, sums = arrays._merged(keys, masses)
    firsts = list(dict.fromkeys(map(tuple, keys.tolist())))
    assert merged.tolist() == [list(key) for key in firsts]
    assert sums.tolist() == [sum(m for m, k in zip(masses.tolist(), keys.tolist(), strict=True) if tuple(k) == key)
                             for key in firsts]  # fmt: skip


def test_much_work_goes_to_the_loops(monkeypatch):
    monkeypatch.setattr(arrays, "_spent", 0.0)
    monkeypatch.setattr(arrays, "seconds_to_start", lambda loop: 0.5)
    assert arrays.are_enough(None, 1000, 1e6)
    assert not arrays.are_enough(None, 1000, 1e9)
    assert sum(arrays.are_enough(None, 1000, 1e6) for _ in range(1000)) < 150


def test_a_loop_that_is_there_costs_nothing_to_start():
    law = np.zeros(3)
    bernoulli_sum(np.array([0.5]), np.array([0.5]), np.array([2], dtype=np.int64), law)
    assert law.tolist() == [0.25, 0.5, 0.25]
    assert seconds_to_start(_bernoulli_sum) == 0.0


SMALL = """
import sys
from bnnverify.cli import main
code = main(["reliability", "{model}", "--data", "digits", "--index", "0:5", "--ber", "1e-3"])
print(code, sorted({{"numba", "sklearn", "scipy", "pandas"}} & set(sys.modules)))
"""


def test_the_reliability_of_a_few_images_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", SMALL.format(model=MODEL)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []" and "0.82920607..0.82920639" in done.stdout
