"""Averages over lognormal variation: what an array of unequal cells does, where each cell is drawn once.

A cell that must switch survives one pulse of hazard h with probability ``q(f) = E_c[exp(-h f c)]``, c drawn for each
pulse, f once for the cell; it survives n pulses with ``E_f[q(f)**n]``, which is more than ``E_f[q(f)]**n``: the slow
cells of the first pulse are slow at the second. The integrals over normal variables use the trapezoidal rule on the
whole line, whose error for such analytic integrands falls exponentially with the number of points (Trefethen &
Weideman, SIAM Review 56, 2014). Numerical, not rigorous: about 12 digits for sigmas up to 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.devices.switching import FloatArray
from bnnverify.errors import QueryError

_REACH = 38.0  # standard deviations: beyond, the density is below the smallest float64
_POINTS = 8  # for each standard deviation, and for each sigma above 1


def mean_survival(hazard: ArrayLike, pulses: int, *, device_sigma: float = 0.0, cycle_sigma: float = 0.0) -> FloatArray:
    """Probability that a cell drawn at random has not switched after `pulses` equal pulses.

    Args:
        hazard: Hazard of one pulse on the median cell, without unit; any shape.
        pulses: Number of pulses, 0 or more.
        device_sigma: Standard deviation of ln(hazard factor) from cell to cell, without unit.
        cycle_sigma: Standard deviation of ln(hazard factor) from pulse to pulse, without unit.

    >>> float(mean_survival(2.0, 3) / np.exp(-6.0))
    1.0
    >>> bool(mean_survival(2.0, 3, device_sigma=0.5) > np.exp(-6.0))
    True
    """
    h = np.asarray(hazard, dtype=np.float64)
    if pulses < 0 or (h < 0).any() or np.isnan(h).any() or device_sigma < 0 or cycle_sigma < 0:
        raise QueryError(f"hazard {hazard!r:.40} and {pulses} pulses, expected numbers at least 0.")
    if pulses == 0:
        return np.ones_like(h)[()]
    with np.errstate(divide="ignore", over="ignore"):
        ln_hazard = np.log(h)
        if device_sigma == 0 == cycle_sigma:
            return np.exp(-pulses * h)
        survival = np.empty(h.shape)
        for where in np.ndindex(h.shape):
            nodes, masses = _normal(device_sigma)
            at = ln_hazard[where] + device_sigma * nodes
            if cycle_sigma == 0:
                each = np.exp(-pulses * np.exp(at))
            else:
                cycle_nodes, cycle_masses = _normal(cycle_sigma)
                each = (np.exp(-np.exp(at[:, None] + cycle_sigma * cycle_nodes)) @ cycle_masses) ** pulses
            survival[where] = min(1.0, float(each @ masses))
    return survival[()]


def mean_pulses(hazard: ArrayLike, most: int, *, device_sigma: float = 0.0, cycle_sigma: float = 0.0) -> FloatArray:
    """Expected number of pulses until a cell has switched, or `most` have been applied.

    The sum of the probabilities that a first, second, ... pulse is needed; ``(1 - p**most) / (1 - p)`` for equal
    cells that each pulse leaves unswitched with probability p.
    """
    total = np.zeros_like(np.asarray(hazard, dtype=np.float64))
    for before in range(most):
        total = total + mean_survival(hazard, before, device_sigma=device_sigma, cycle_sigma=cycle_sigma)
    return total[()]


def _normal(sigma: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and masses of a standard normal variable; a single node where nothing varies."""
    if sigma == 0:
        return np.zeros(1), np.ones(1)
    points = int(_REACH * _POINTS * max(1.0, sigma))
    nodes = np.linspace(-_REACH, _REACH, 2 * points + 1)
    return nodes, np.exp(-(nodes**2) / 2) * (nodes[1] - nodes[0]) / np.sqrt(2 * np.pi)
