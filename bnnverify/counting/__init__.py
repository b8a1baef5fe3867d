"""Analyses on top of exact counts.

`counts` counts one region, `radii` all radii around an input, `safety` finds how far an input is safe, `noise` weighs
the inputs by how likely noisy sensors are to produce them, and `sampling` draws adversarial inputs uniformly.
"""

from bnnverify.counting.counts import count_adversarial
from bnnverify.counting.noise import misclassification_probability
from bnnverify.counting.radii import counts_by_radius
from bnnverify.counting.safety import maximal_safe_distance
from bnnverify.counting.sampling import adversarial_inputs, sample_adversarial

__all__ = [
    "adversarial_inputs",
    "count_adversarial",
    "counts_by_radius",
    "maximal_safe_distance",
    "misclassification_probability",
    "sample_adversarial",
]
