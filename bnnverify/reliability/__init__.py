"""Exact reliability under bit errors.

- `exact`: Fractions and fault enumerators of small networks;
- `probability`: certified P(error | image) at any size, from `laws`, `tables`, `onehidden`, `deep`, `rounding`;
- `accuracy`: expected accuracy of the chips over a data set, and its curve;
- `tolerance`: the bit error rate at which the accuracy crosses a target; `yields`: the share of good chips.
"""

from bnnverify.reliability.accuracy import (
    AccuracyPoint,
    accuracy_curve,
    expected_accuracy,
    image_errors,
)
from bnnverify.reliability.exact import FaultEnumerator, exact_error_probability, fault_enumerator
from bnnverify.reliability.probability import error_probability
from bnnverify.reliability.tolerance import ToleranceBracket, tolerance_bracket
from bnnverify.reliability.yields import yield_bounds

__all__ = [
    "AccuracyPoint",
    "FaultEnumerator",
    "ToleranceBracket",
    "accuracy_curve",
    "error_probability",
    "exact_error_probability",
    "expected_accuracy",
    "fault_enumerator",
    "image_errors",
    "tolerance_bracket",
    "yield_bounds",
]
