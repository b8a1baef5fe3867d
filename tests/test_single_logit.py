"""Models with a single score, read as two classes: class 1 exactly where the score is at least 0."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from bnnverify.formats import assembly, elementwise, layers, tensors
from bnnverify.formats.coding import InputCoding

CUBE = np.array(list(itertools.product((-1, 1), repeat=5)))
WEIGHTS = np.array([[1.0, -1.0, 0.0, 1.0, -1.0]])


def single(bias, norm=None, magnitude=1.0):
    tensor = layers.dense(tensors.start((1, 5), InputCoding.signs()), WEIGHTS * magnitude, np.array([bias]), "last")
    if norm is not None:
        columns = [np.array([v]) for v in norm]
        tensor = elementwise.normed(tensor, *columns, 0.0, axis=1, where="norm")
    return assembly.finished(tensor, {}, allow_single=True)


@pytest.mark.parametrize("magnitude", [1.0, 0.25])
@pytest.mark.parametrize("bias", [0.0, 2.0, -2.0, 0.5, -4.0, 9.0, -9.0])
def test_class_1_is_where_the_single_score_is_at_least_0(bias, magnitude):
    network = single(bias, magnitude=magnitude).network
    expected = (CUBE @ WEIGHTS[0] * magnitude + bias >= 0).astype(int)
    assert network.evaluate_batch(CUBE).tolist() == expected.tolist()
    assert [network.scores(x)[1] for x in CUBE] == [Fraction(v) for v in CUBE @ WEIGHTS[0] * magnitude + bias]
    assert all(a != b for a, b in (network.scores(x) for x in CUBE))
    assert network.n_cells == 4


@pytest.mark.parametrize("gamma", [-2.0, 0.0, 1.5])
@pytest.mark.parametrize("beta", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("variance", [1.0, 2.0, 3.0])
def test_a_batch_norm_of_a_single_score_is_compared_with_0_without_rounding(gamma, beta, variance):
    done = single(0.5, (gamma, beta, 0.5, variance))

    def fires(s):  # gamma * s / sqrt(variance) + beta >= 0, by squares
        a, b = Fraction(gamma) * Fraction(s), Fraction(beta)
        square = (a * a / Fraction(variance)) >= b * b
        return (b >= 0 if a == 0 else square or b >= 0) if a >= 0 else (b >= 0 and a * a / Fraction(variance) <= b * b)

    expected = [int(fires(float(s))) for s in CUBE @ WEIGHTS[0]]
    assert done.network.evaluate_batch(CUBE).tolist() == expected
    assert done.network.provenance.assumptions == (assembly.SINGLE_LOGIT,)


def test_a_rounded_score_of_exactly_0_is_still_class_1():
    # (s - 2) / sqrt(3) * 3 is 0 at s = 2 whatever is rounded; offsets near the crossing decide by the exact score
    done = single(0.0, (3.0, 0.0, 2.0, 3.0))
    assert done.rounded == 1
    expected = (CUBE @ WEIGHTS[0] >= 2).astype(int)
    assert done.network.evaluate_batch(CUBE).tolist() == expected.tolist()
    assert set(expected.tolist()) == {0, 1}
