"""Joint laws of walks: how the disagreements of several classes move as hidden signs deviate from their likelier value.

A deviation of sign j adds -1, 0 or +1 to each class. Every walk lives in a window that it leaves with a small, known
probability; the joint law is a flat array, and a deviation shifts it by one offset.

References:
    Ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit


@njit(nogil=True)
def _exits(deviates, steps, low, high):  # type: ignore[no-untyped-def]
    """Mass of a walk with these steps that first leaves [low, high] below, and above."""
    size = high - low + 1
    law, following = np.zeros(size + 2), np.zeros(size + 2)
    law[1 - low] = 1.0
    below, above = 0.0, 0.0
    for j in range(deviates.shape[0]):
        step, e = steps[j], deviates[j]
        if step == 0:
            continue
        for i in range(1, size + 1):
            following[i] = law[i] * (1.0 - e) + law[i - step] * e
        if step == 1:
            above += law[size] * e
        else:
            below += law[1] * e
        law, following = following, law
        law[0] = law[size + 1] = 0.0
    return below * 1.000001, above * 1.000001


@njit(nogil=True)
def windows(deviates, steps, exit_mass, low, high, exits):  # type: ignore[no-untyped-def]
    """A window [low, high] of each class's walk that it leaves at any time with probability at most `exit_mass`.

    `steps[j, i]`: what a deviation of sign j adds to the disagreements of class i: -1, 0 or +1.
    """
    for i in range(steps.shape[1]):
        mean, variance = 0.0, 0.0
        for j in range(deviates.shape[0]):
            mean += deviates[j] * steps[j, i]
            variance += deviates[j] * (1.0 - deviates[j]) * abs(steps[j, i])
        spread = 2.0 * np.sqrt(variance)
        low[i] = -max(int(np.ceil(spread - mean)), 0)
        high[i] = max(int(np.ceil(spread + mean)), 0)
        while True:
            below, above = _exits(deviates, steps[:, i], low[i], high[i])
            exits[i] = below + above
            if exits[i] <= exit_mass:
                break
            if below >= above / 2.0:
                low[i] -= 1
            if above >= below / 2.0:
                high[i] += 1


@njit(nogil=True)
def _mix(out, stayed, moved, stay, leave):  # type: ignore[no-untyped-def]
    """``stayed * stay + moved * leave``; a function of its own, for only so LLVM writes it as vectors."""
    for i in range(out.shape[0]):
        out[i] = stayed[i] * stay + moved[i] * leave


@njit(nogil=True)
def joint_law(classes, walk, start, law, spare):  # type: ignore[no-untyped-def]
    """Joint law of the walks of some classes, the last one fastest, in `law` or `spare`, flat and circular.

    Only a walk that leaves its window wraps around to a wrong place. `start` is the mass to begin with.
    """
    deviates, stays, steps, low, high = walk
    size, at = 1, 0
    for i in classes:
        width = high[i] - low[i] + 1
        at = at * width - low[i]
        size *= width
    law, spare = law[:size], spare[:size]
    law[:] = 0
    law[at] = start
    for j in range(deviates.shape[0]):
        offset = 0
        for i in classes:
            offset = offset * (high[i] - low[i] + 1) + steps[j, i]
        if offset == 0:
            continue
        offset %= size
        _mix(spare[:offset], law[:offset], law[size - offset :], stays[j], deviates[j])
        _mix(spare[offset:], law[offset:], law[: size - offset], stays[j], deviates[j])
        law, spare = spare, law
    return law


def pair_law_size(low: NDArray[np.int64], high: NDArray[np.int64]) -> int:
    """Numbers in the joint laws of all pairs of rivals, for windows of c, of the rivals, and of the positive signs."""
    sizes = (high - low + 1).astype(object)  # no overflow
    rivals = sizes[1:-1]
    return int((rivals.sum() ** 2 - (rivals**2).sum()) // 2 * sizes[0] * sizes[-1]) if rivals.size else 0


@njit(nogil=True)
def pair_laws(needed, walk, largest):  # type: ignore[no-untyped-def]
    """Joint laws of (k, l, common, c) of all needed pairs, one after the other, and where each begins."""
    sizes, rivals = walk[4] - walk[3] + 1, needed.shape[0]
    begins = np.full((rivals, rivals), -1, dtype=np.int64)
    total = 0
    for k in range(rivals):
        for m in range(k + 1, rivals):
            if needed[k] and needed[m]:
                begins[k, m] = total
                total += sizes[k + 1] * sizes[m + 1] * sizes[-1] * sizes[0]
    laws, buffer, spare = np.empty(total), np.empty(largest), np.empty(largest)
    for k in range(rivals):
        for m in range(k + 1, rivals):
            at = begins[k, m]
            if at >= 0:
                law = joint_law(np.array([k + 1, m + 1, rivals + 1, 0]), walk, 1.0, buffer, spare)
                laws[at : at + law.shape[0]] = law
    return laws, begins
