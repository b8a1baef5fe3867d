"""Monotone least squares: the table nearest to measured frequencies that rises along rows and columns."""

from __future__ import annotations

import numpy as np

from bnnverify.devices.switching import FloatArray

_MOST_ROUNDS = 10_000
_STILL = 1e-12  # change of a round at which the table counts as found


def isotonic(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The rising sequence of least weighted squared distance, by pooling adjacent violators.

    References:
        Barlow, Bartholomew, Bremner & Brunk, Statistical Inference under Order Restrictions, 1972, Sec. 1.2.

    >>> isotonic(np.array([1.0, 3.0, 2.0]), np.ones(3)).tolist()
    [1.0, 2.5, 2.5]
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, length; means rise strictly
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, length = value, weight, 1
        while pools and pools[-1][0] >= mean:
            before, more, longer = pools.pop()
            mean = (before * more + mean * mass) / (more + mass)
            mass, length = mass + more, length + longer
        pools.append((mean, mass, length))
    return np.repeat([mean for mean, _, _ in pools], [length for _, _, length in pools])


def isotonic_grid(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The table of least weighted squared distance that rises along both axes; for frequencies the likeliest one.

    Rows and columns are fitted in turn, each time to the values plus what the last fit along the same axis took off
    (Dykstra's projections), until nothing changes; a running maximum then removes what rounding left.

    Args:
        values: Shape `(m, n)`.
        weights: Above 0, shape `(m, n)`; the numbers of trials where values are frequencies.

    References:
        Dykstra & Robertson, Annals of Statistics 10, 708, 1982; Robertson, Wright & Dykstra, Order Restricted
        Statistical Inference, 1988, Theorem 1.5.2 for the likelihood.
    """
    table = values.copy()
    off_rows, off_columns = np.zeros_like(table), np.zeros_like(table)
    for _ in range(_MOST_ROUNDS):
        before = table
        target = table + off_rows
        rows = np.stack([isotonic(v, w) for v, w in zip(target, weights, strict=True)])
        off_rows = target - rows
        target = rows + off_columns
        table = np.stack([isotonic(v, w) for v, w in zip(target.T, weights.T, strict=True)]).T
        off_columns = target - table
        if np.abs(table - before).max() < _STILL and np.abs(table - rows).max() < _STILL:
            break
    rising = np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1)
    return np.clip(rising, values.min(), values.max())
