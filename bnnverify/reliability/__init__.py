"""Exact reliability under bit errors.

- `exact`: Fractions and fault enumerators of small networks;
- `probability`: certified P(error | image) at any size, from `laws`, `tables`, `onehidden`, `deep`, `rounding`;
- `accuracy`: expected accuracy of the chips over a data set, curves, tolerable bit error rates.
"""

from bnnverify.reliability.accuracy import (
    AccuracyPoint,
    ToleranceBracket,
    accuracy_curve,
    expected_accuracy,
    tolerance_bracket,
    yield_bounds,
)
from bnnverify.reliability.exact import FaultEnumerator, exact_error_probability, fault_enumerator
from bnnverify.reliability.probability import error_probability

__all__ = [
    "AccuracyPoint",
    "FaultEnumerator",
    "ToleranceBracket",
    "accuracy_curve",
    "error_probability",
    "exact_error_probability",
    "expected_accuracy",
    "fault_enumerator",
    "tolerance_bracket",
    "yield_bounds",
]
