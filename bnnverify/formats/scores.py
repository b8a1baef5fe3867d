"""Scores as small integers that decide between classes exactly as the exact scores do.

Class k beats class l where ``scale[k] * s + bias[k] - bias[l]`` exceeds ``scale[l] * t``, with integers s and t, the
sums of the two. For each s that is a bound on t, of which only the floor counts, and whether it is an integer. Rounded
scales and biases with the same floors give the same classes and the same ties. With one scale for all classes only
the difference of the sums counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from bnnverify.network import OutputBlock

_MOST_BITS = 60
_MOST_DECISIONS = 2**21


def small_integers(output: OutputBlock, reach: int = 1) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Integers (a, b) such that ``a[k] * (weights[k] . h) + b[k]`` orders the classes as the scores do, ties included.

    They are `OutputBlock.integer_form`, or smaller where the classes share a scale.

    Args:
        output: The exact scores.
        reach: A bound on the absolute value of one input of the block.

    >>> small_integers(OutputBlock.create([[1, 1], [1, -1]], scale=0.1, bias=[0.35, 0]))
    ((2, 2), (7, 0))
    """
    a, b = output.integer_form()
    if output.has_common_scale and a[0] == 0:
        places = {value: k for k, value in enumerate(sorted(set(b)))}
        return a, tuple(places[value] for value in b)
    top = max(abs(v) for v in a)
    slopes, shifts = [Fraction(v, top) for v in a], [Fraction(v, top) for v in b]
    wanted = _decisions(output, slopes, shifts, reach)
    for bits in range(0 if output.has_common_scale else 4, _MOST_BITS, 1 if output.has_common_scale else 8):
        factors = [round(v * 2**bits) for v in slopes]
        rounded = [round(v * 2**bits) for v in shifts]
        if wanted is not None and _decisions(output, factors, rounded, reach) == wanted:
            least = min(rounded)
            small = tuple(factors), tuple(v - least for v in rounded)
            return min((small, (a, b)), key=lambda pair: max(abs(v) for part in pair for v in part))
    return a, b


def same_order(one: OutputBlock, other: OutputBlock, reach: int = 1) -> bool:
    """True if both give the same classes and ties for the same sums; False where that is not plain to see.

    Args:
        one: Scores.
        other: Scores of the same weights.
        reach: As above.
    """
    (a, b), (c, d) = one.integer_form(), other.integer_form()
    if a == c and len({u - v for u, v in zip(b, d, strict=True)}) == 1:
        return True
    first, second = _decisions(one, a, b, reach), _decisions(other, c, d, reach)
    return first is not None and first == second


def _decisions(output: OutputBlock, slopes: Sequence[Any], shifts: Sequence[Any], most: int) -> list[Any] | None:
    """All that the order of the classes depends on; None if it is too much.

    For every pair of classes: the sign of the second's scale, and for each sum of the first a bound on the second's, as
    its floor and whether it is an integer.
    """
    common = len(set(slopes)) == 1
    reach = most * int(np.abs(output.weights).sum(axis=1, dtype=np.int64).max())
    classes = len(slopes)
    if not common and classes * classes * (2 * reach + 1) > _MOST_DECISIONS:
        return None
    sums = np.array([0] if common else range(-reach, reach + 1), dtype=object)
    found: list[Any] = []
    for k, (slope, shift) in enumerate(zip(slopes, shifts, strict=True)):
        for m, (rival, other) in enumerate(zip(slopes, shifts, strict=True)):
            if k == m:
                continue
            gaps = slope * sums + (shift - other)
            if rival == 0:
                found.append((0, [(gap > 0) - (gap < 0) for gap in gaps]))
            else:
                found.append((1 if rival > 0 else -1, [(gap // abs(rival), gap % abs(rival) == 0) for gap in gaps]))
    return found
