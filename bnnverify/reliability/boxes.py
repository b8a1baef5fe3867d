"""Upper bounds on P(error) that hold for every bit error rate of a range at once; one hidden block.

For all rates r in [low, high], a subset of [0, 1/2]:

1. P(a hidden neuron fires) lies between two laws: an agreeing cell disagrees after the faults with probability r, a
   disagreeing one with 1 - r; the fewest disagreements come from `low` for the one and `high` for the other kind, the
   most from the reverse.
2. The score difference of a rival and the right class is a sum of independent steps -2..2, one for each hidden neuron.
   The law of a step depends on r and on the sign's probability; the greatest value of each tail P(step >= v) makes a
   law that dominates all of them, and sums of dominating laws dominate. So one convolution for each rival bounds
   P(rival beats the class) for all r, and the sum over the rivals bounds P(error).

References:
    Ours. Sums preserve the usual stochastic order: Shaked & Shanthikumar, "Stochastic orders", 2007, Thm. 1.A.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.errors import UnsupportedError
from bnnverify.network import BinaryNetwork, DenseBlock
from bnnverify.reliability.exact import SAMPLE_INSTEAD
from bnnverify.reliability.laws import FloatArray, bernoulli_sum
from bnnverify.reliability.rounding import UNIT, outward, rounded_rate

_HALF = Fraction(1, 2)


@njit(nogil=True)
def _errors(  # type: ignore[no-untyped-def]
    weights, needed, labels, fires, silent, rates, pad, unit, bounds
):
    """``bounds[i]`` >= P(image i gets another class), summed over the rivals.

    `fires` is (least, greatest) P(h = +1), `silent` likewise of -1, `rates` (low, 1 - low, high, 1 - high);
    ``needed[c, k]`` is the least sum of steps, in units of `unit`, with which k beats c.
    """
    images, m = fires.shape[1], weights.shape[1]
    half = m * (2 // unit)
    middle = half + 2  # where the sum is 0; two places more on either side are never reached
    law, following = np.zeros(2 * middle + 1), np.zeros(2 * middle + 1)
    flip, keep = (rates[0], rates[2]), (rates[1], rates[3])
    for i in range(images):
        c = labels[i]
        total = 0.0
        for k in range(weights.shape[0]):
            if k == c:
                continue
            if needed[c, k] > half:
                continue
            if needed[c, k] <= -half:
                total += 1.0
                continue
            law[:] = 0.0
            following[:] = 0.0
            law[middle] = 1.0
            reach = 0
            for j in range(m):
                mine, theirs = weights[c, j], weights[k, j]
                if mine == 0 and theirs == 0:
                    continue
                step = 2 // unit
                if mine == theirs:
                    up, down = flip[1] * keep[1], flip[0] * keep[0]
                else:
                    towards = theirs if theirs != 0 else -mine  # the sign of h that helps the rival
                    help_, hinder = fires[1, i, j], silent[0, i, j]
                    if towards < 0:
                        help_, hinder = silent[1, i, j], fires[0, i, j]
                    if mine == 0 or theirs == 0:
                        step = 1
                        up = max(help_ * keep[0] + hinder * flip[0], help_ * keep[1] + hinder * flip[1])
                        down = min(help_ * flip[0] + hinder * keep[0], help_ * flip[1] + hinder * keep[1])
                    else:
                        up = max(
                            help_ * keep[0] * keep[0] + hinder * flip[0] * flip[0],
                            help_ * keep[1] * keep[1] + hinder * flip[1] * flip[1],
                        )
                        down = min(
                            help_ * flip[0] * flip[1] + hinder * keep[0] * keep[1],
                            min(
                                help_ * flip[0] * flip[0] + hinder * keep[0] * keep[0],
                                help_ * flip[1] * flip[1] + hinder * keep[1] * keep[1],
                            ),
                        )
                stay = max((1.0 - up) - down, 0.0) + pad
                if step == 1 and unit == 1:  # such a step is never 0
                    stay = pad
                for s in range(middle - reach - step, middle + reach + step + 1):
                    following[s] = law[s] * stay + law[s - step] * up + law[s + step] * down
                law, following = following, law
                reach += step
            tail = 0.0
            for s in range(max(needed[c, k], -reach) + middle, middle + reach + 1):
                tail += law[s]
            total += tail
        bounds[i] = total


@dataclass(slots=True)
class RateBox:
    """Images of a network with at most one hidden block, to be bounded over ranges of bit error rates.

    Attributes:
        network: Binary inputs, dense, at most one hidden block, one positive scale for all classes.
        points: Shape `(N, n)`, signs.
        labels: Shape `(N,)`: the right classes.
    """

    network: BinaryNetwork
    points: NDArray[np.int64]
    labels: NDArray[np.int64]
    _needed: NDArray[np.int64] = field(init=False)
    _unit: int = field(init=False)
    _counts: tuple[Any, ...] = field(init=False)

    def __post_init__(self) -> None:
        output, blocks = self.network.output, self.network.dense_blocks(SAMPLE_INSTEAD)
        if len(blocks) > 1 or not self.network.domain.is_binary:
            raise UnsupportedError(
                "bounds for every rate of a range need binary inputs and at most one hidden block, unless the network "
                "is small enough for its fault enumerator."
            )
        if not output.has_common_scale or output.scale[0] <= 0:
            raise UnsupportedError("bounds for every rate of a range need one positive scale common to all classes.")
        self._unit = 2 if (output.weights != 0).all() else 1
        top = 4 * output.n_inputs + 1
        classes = range(output.n_classes)
        self._needed = np.zeros((output.n_classes, output.n_classes), dtype=np.int64)
        for c in classes:
            for k in classes:
                behind = (output.bias[c] - output.bias[k]) / output.scale[0]  # k wins where its sum is so far ahead
                least = -(-behind // 1)
                if k > c and least == behind:
                    least += 1
                self._needed[c, k] = max(-top, min(int(-(-least // self._unit)), top))
        self._counts = _agreements(blocks[0], self.points) if blocks else ()

    def error_bounds(self, low: Fraction, high: Fraction, images: NDArray[np.intp]) -> list[Fraction]:
        """For each of the images an upper bound on P(error), at every rate from `low` to `high`, at most 1/2."""
        if not 0 <= low <= high <= _HALF:
            raise UnsupportedError(f"the range {float(low):g} to {float(high):g} does not lie within [0, 1/2].")
        rates = np.array([*rounded_rate(low), *rounded_rate(high)])
        if self._counts:
            agree, present, limits = (part[images] if part.ndim == 2 else part for part in self._counts)
            fires, silent, roundings = _firing(agree, present, limits, rates)
        else:
            signs = self.points[images] > 0
            fires, silent, roundings = np.array([signs, signs], dtype=float), np.array([~signs, ~signs], dtype=float), 0
        bounds = np.zeros(len(images))
        pad = 4 * (roundings + 8) * float(UNIT)
        weights = self.network.output.weights.astype(np.int64)
        _errors(weights, self._needed, self.labels[images], fires, silent, rates, pad, self._unit, bounds)
        m = weights.shape[1]
        total = m * (roundings + 10) + 4 * m + weights.shape[0] + 2
        return [min(outward(0.0, float(b), total)[1], Fraction(1)) for b in bounds]


def _agreements(block: DenseBlock, points: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Agreeing cells `(N, m)`, cells of a row `(m,)`, and most disagreements with which it fires `(m,)`."""
    present = np.count_nonzero(block.weights, axis=1).astype(np.int64)
    agree = (block.preactivations(points) + present) // 2
    return agree, present, np.clip((present - block.thresholds) // 2, -1, present)


def _firing(
    agree: NDArray[np.int64], present: NDArray[np.int64], limits: NDArray[np.int64], rates: FloatArray
) -> tuple[FloatArray, FloatArray, int]:
    """(least, greatest) P(fires) and P(does not), `(2, N, m)` each, and the roundings in them."""
    flip_low, keep_low, flip_high, keep_high = rates.tolist()
    fires, silent = np.zeros((2, *agree.shape)), np.zeros((2, *agree.shape))
    few = np.array([flip_low, keep_high]), np.array([keep_low, flip_high])
    many = np.array([flip_high, keep_low]), np.array([keep_high, flip_low])
    for n in np.unique(present):
        columns = np.flatnonzero(present == n)
        known, where = np.unique(agree[:, columns], return_inverse=True)
        at_most, above = np.zeros((2, known.size, n + 2)), np.zeros((2, known.size, n + 2))  # by limit + 1
        law = np.zeros(n + 1)
        for a, count in enumerate(known.tolist()):
            for side, (hits, misses) in enumerate((many, few)):
                bernoulli_sum(hits, misses, np.array([count, n - count], dtype=np.int64), law)
                at_most[side, a, 1:] = np.cumsum(law)
                above[side, a, :-1] = np.cumsum(law[::-1])[::-1]
        where = where.reshape(agree[:, columns].shape)
        at = limits[columns] + 1
        for side in range(2):
            fires[side][:, columns] = at_most[side][where, at[None, :]]
            silent[1 - side][:, columns] = above[side][where, at[None, :]]
    return fires, silent, 4 * int(present.max(initial=0)) + 2
