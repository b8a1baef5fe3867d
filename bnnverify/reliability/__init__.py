"""Exact reliability under bit errors.

- `exact`: Fractions and fault enumerators of small networks;
- `probability`: certified P(error | image) at any size, from `laws`, `tables`, `onehidden`, `deep`, `rounding`;
- `accuracy`: expected accuracy of the chips over a data set, and its curve;
- `reach`, `tolerance`: is a target reached, and up to which bit error rate; `everyrate` (with `boxes`): at every rate
  up to one;
- `yields`: the share of good chips; `stream`: errors in a stream of images under faults of reading;
- `sensitivity`: which block needs error correction; `energy`: the lowest write energy for a target;
- `worstcase`: bit-flip distance; `critical`: cells whose single flip matters; `coefficients` (of data sets `means`):
  how many sets of flips change the class, and what that proves (`enumerators`).
"""

from bnnverify.reliability.accuracy import (
    AccuracyPoint,
    accuracy_curve,
    expected_accuracy,
    image_errors,
)
from bnnverify.reliability.coefficients import fault_coefficients
from bnnverify.reliability.critical import CriticalCells, critical_cells
from bnnverify.reliability.energy import LowestEnergy, lowest_write_energy
from bnnverify.reliability.enumerators import PartialEnumerator
from bnnverify.reliability.everyrate import CertifiedRange, certified_range
from bnnverify.reliability.exact import FaultEnumerator, exact_error_probability, fault_enumerator
from bnnverify.reliability.means import mean_coefficients
from bnnverify.reliability.probability import error_probability
from bnnverify.reliability.reach import Reach, accuracy_reaches
from bnnverify.reliability.sensitivity import BlockSensitivity, block_sensitivity
from bnnverify.reliability.stream import StreamErrors, errors_in_stream, stream_errors
from bnnverify.reliability.tolerance import ToleranceBracket, tolerance_bracket
from bnnverify.reliability.worstcase import (
    FlipDistance,
    bit_flip_distance,
    flip_distances,
    robust_to_flips,
    worst_case_accuracy,
)
from bnnverify.reliability.yields import Yield, chip_yield, yield_bounds, yield_estimate

__all__ = [
    "AccuracyPoint",
    "BlockSensitivity",
    "CertifiedRange",
    "CriticalCells",
    "FaultEnumerator",
    "FlipDistance",
    "LowestEnergy",
    "PartialEnumerator",
    "Reach",
    "StreamErrors",
    "ToleranceBracket",
    "Yield",
    "accuracy_curve",
    "accuracy_reaches",
    "bit_flip_distance",
    "block_sensitivity",
    "certified_range",
    "chip_yield",
    "critical_cells",
    "error_probability",
    "errors_in_stream",
    "exact_error_probability",
    "expected_accuracy",
    "fault_coefficients",
    "fault_enumerator",
    "flip_distances",
    "image_errors",
    "lowest_write_energy",
    "mean_coefficients",
    "robust_to_flips",
    "stream_errors",
    "tolerance_bracket",
    "worst_case_accuracy",
    "yield_bounds",
    "yield_estimate",
]
