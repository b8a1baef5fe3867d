"""Exact reliability under bit errors.

- `exact`: Fractions and fault enumerators of small networks;
- `probability`: certified P(error | image) at any size, from `laws`, `tables`, `onehidden`, `deep`, `rounding`;
- `accuracy`: expected accuracy of the chips over a data set, and its curve;
- `reach`, `tolerance`: is a target reached, and up to which bit error rate; `everyrate` (with `boxes`): at every rate
  up to one;
- `yields`: the share of good chips; `stream`: errors in a stream of images under faults of reading;
- `sensitivity`: which block needs error correction; `energy`: the lowest write energy for a target.
"""

from bnnverify.reliability.accuracy import (
    AccuracyPoint,
    accuracy_curve,
    expected_accuracy,
    image_errors,
)
from bnnverify.reliability.energy import LowestEnergy, lowest_write_energy
from bnnverify.reliability.everyrate import CertifiedRange, certified_range
from bnnverify.reliability.exact import FaultEnumerator, exact_error_probability, fault_enumerator
from bnnverify.reliability.probability import error_probability
from bnnverify.reliability.reach import Reach, accuracy_reaches
from bnnverify.reliability.sensitivity import BlockSensitivity, block_sensitivity
from bnnverify.reliability.stream import StreamErrors, errors_in_stream, stream_errors
from bnnverify.reliability.tolerance import ToleranceBracket, tolerance_bracket
from bnnverify.reliability.yields import Yield, chip_yield, yield_bounds, yield_estimate

__all__ = [
    "AccuracyPoint",
    "BlockSensitivity",
    "CertifiedRange",
    "FaultEnumerator",
    "LowestEnergy",
    "Reach",
    "StreamErrors",
    "ToleranceBracket",
    "Yield",
    "accuracy_curve",
    "accuracy_reaches",
    "block_sensitivity",
    "certified_range",
    "chip_yield",
    "error_probability",
    "errors_in_stream",
    "exact_error_probability",
    "expected_accuracy",
    "fault_enumerator",
    "image_errors",
    "lowest_write_energy",
    "stream_errors",
    "tolerance_bracket",
    "yield_bounds",
    "yield_estimate",
]
