"""When units fire: steps of two values as integer thresholds, and what happens at ties."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.domain import IntArray
from bnnverify.errors import UnsupportedError
from bnnverify.folding import RealThreshold
from bnnverify.formats.units import Affine, Column, Steps, column


@dataclass(frozen=True, slots=True)
class Layer:
    """What was understood of one block of a model file.

    Attributes:
        kind: `conv`, `dense`, `input` (a sign of each input) or `output`.
        name: The linear layer as the file names it.
        text: Sizes.
        magnitude: Magnitude of the weights (with the activations'), or least and greatest over the rows.
        negated: Rows that fire when the sum is small, and were negated.
        constant: Units that fire always or never.
        ties: Units whose sum can lie exactly on the threshold.
        closest: How near another attainable sum comes to the threshold of any unit, in units of the sum; None where
            there is no threshold. Where it is tiny, floating point may decide otherwise than the exact network.
        crossings: The real threshold of each unit of the block, of which its integer threshold is the ceiling, as
            float64 to be shown only; NaN for a constant unit. Empty for the output.
        third_value: True if a unit has a value of its own exactly at its threshold, as a plain Sign does. No integer
            sum meets it there (or `zero_sign` said what it means), but a sum of real inputs can.
    """

    kind: str
    name: str
    text: str
    magnitude: str
    negated: int
    constant: int
    ties: int
    closest: float | None
    crossings: tuple[float, ...] = ()
    third_value: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the crossings."""
        names = ("kind", "name", "text", "magnitude", "negated", "constant", "ties", "closest")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What is known of the integer sums of units.

    Attributes:
        reach: A bound on the absolute value of one input.
        cells: Inputs of each unit.
        parity: Whether the sums of a unit are odd (1) or even (0); None where they can be both.
        is_sign: True if the sum is a single -1/+1.
    """

    reach: int
    cells: IntArray
    parity: IntArray | None
    is_sign: bool

    def attains(self, j: int, value: int) -> bool:
        """False only if the sum of unit j is never `value`."""
        if self.is_sign:
            return abs(value) == 1
        if abs(value) > self.reach * int(self.cells[j]):
            return False
        return self.parity is None or value % 2 == int(self.parity[j])


@dataclass(frozen=True, slots=True, eq=False)
class Firing:
    """How units fire: h = +1 iff the sum is at least (rising) or at most (falling) the threshold.

    Attributes:
        thresholds: One Python integer per unit.
        rising: One flag per unit.
        mean: The value of a unit is ``mean + step * h``.
        step: See mean; negative where the value falls when the unit fires.
        constant: Units whose h never changes.
        ties: Units whose sum can lie exactly on the threshold.
        closest: As in `Layer`.
    """

    thresholds: list[int]
    rising: NDArray[np.bool_]
    mean: Column
    step: Column
    constant: int
    ties: int
    closest: float | None
    crossings: tuple[float, ...]
    third_value: bool


def fire(affine: Affine, steps: Steps, sums: Sums, *, zero_sign: int | None, where: str) -> Firing:
    """The firing rule of units with these steps.

    Args:
        affine: What each unit makes of its sum.
        steps: The values below, at and above zero.
        sums: What is known of the sums.
        zero_sign: The side, +1 or -1, to which a tie belongs where the steps give it a third value; None to refuse.
        where: What messages call the layer.

    Raises:
        UnsupportedError: A unit has three values, and all can occur.
    """
    thresholds, rising, up, down, crossings = [], [], [], [], []
    ties, constant, closest, third = 0, 0, math.inf, False
    for j in range(affine.size):
        low, zero, high = steps.low[j], steps.zero[j], steps.high[j]
        reach = sums.reach * int(sums.cells[j])
        at = affine.zero(j)
        above = 0 if at is None else at.ceil()
        whole = at is not None and _is_integer(at, above)
        tied = affine.sign_of_constant(j) == 0 if at is None else whole and sums.attains(j, above)
        ties += tied
        third = third or zero not in (low, high)
        if zero not in (low, high) and not tied:
            zero = high
        if zero not in (low, high):
            if zero_sign is None:
                place = "is always 0" if at is None else f"can be {above}, its threshold"
                raise UnsupportedError(
                    f"{where}: the sum of unit {j} {place}, and the sign that follows gives {zero} there, expected -1 "
                    "or +1. If the model means sign(0) = +1, import it with zero_sign=1 (--zero-sign plus)."
                )
            zero = high if zero_sign > 0 else low
        inclusive = zero == high
        if at is None:
            side = affine.sign_of_constant(j)
            fires = side > 0 or (side == 0 and inclusive)
            limit, rises = (-reach if fires else reach + 1), True
        elif affine.slope[j] > 0:
            limit, rises = (above if inclusive or not whole else above + 1), True
        else:
            limit, rises = (above if inclusive and whole else above - 1), False
        limit = min(max(limit, -reach), reach + 1) if rises else max(min(limit, reach), -reach - 1)
        constant += (limit > reach or limit <= -reach) if rises else (limit < -reach or limit >= reach)
        crossings.append(math.nan if at is None else -_gap(at, 0) * (1 if rises else -1))
        if at is not None:
            closest = min(closest, _distance(at, above, sums, j))
        thresholds.append(limit)
        rising.append(rises)
        up.append(high)
        down.append(low)
    top, bottom = column(up), column(down)
    half = Fraction(1, 2)
    nearest = None if closest == math.inf else closest
    return Firing(
        thresholds,
        np.array(rising),
        (top + bottom) * half,
        (top - bottom) * half,
        constant,
        ties,
        nearest,
        tuple(crossings),
        third,
    )


def _is_integer(at: RealThreshold, above: int) -> bool:
    """True if the threshold is `above`, its ceiling."""
    return RealThreshold(-at.offset, -at.factor, at.radicand).is_at_most(-above)


def _distance(at: RealThreshold, above: int, sums: Sums, j: int) -> float:
    """Distance from the threshold to the nearest other sum that can occur; to be shown only."""
    near = [v for v in range(above - 3, above + 4) if sums.attains(j, v)]
    gaps = [abs(_gap(at, v)) for v in near]
    return min((gap for gap in gaps if gap > 0), default=math.inf)


def _gap(at: RealThreshold, value: int) -> float:
    rest = Fraction(value) - at.offset
    square = at.factor * at.factor * at.radicand
    root = Fraction(math.isqrt((square.numerator << 400) // square.denominator), 1 << 200)
    return float(rest - root if at.factor > 0 else rest + root)
