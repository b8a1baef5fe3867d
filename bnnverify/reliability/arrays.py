"""The loops of small questions once more, in numpy: the same bits, and nothing to compile or to load.

Compiling these loops takes ten seconds, once, and importing numba half a second in every process. The laws and states
of a few images take milliseconds without. Each function does the float operations of its loop in the same order, so
results are equal to the last bit, the counted roundings hold for both, and it never matters which of them ran.
A process spends no more here than the loops would cost it first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import seconds_to_start

FloatArray = NDArray[np.float64]

_CALL, _ELEMENT = 2e-6, 2e-9  # s of a call of numpy, and per element
_MOST = 1 << 16  # numbers looked up for the states of one sign; the loop takes over beyond
_spent = 0.0


def are_enough(loop: Any, calls: float, elements: float) -> bool:
    """Whether to do so much work here rather than in the loop; if so, it counts as done.

    Args:
        loop: The compiled one.
        calls: Of numpy.
        elements: Of arrays, in all of them together.
    """
    global _spent
    seconds = calls * _CALL + elements * _ELEMENT
    if _spent + seconds > seconds_to_start(loop):
        return False
    _spent += seconds
    return True


def bernoulli_sum(hits: FloatArray, misses: FloatArray, repeats: NDArray[np.int64], law: FloatArray) -> None:
    """See `laws.bernoulli_sum`."""
    law[:] = 0.0
    law[0], size = 1.0, 0
    for hit, miss, times in zip(hits.tolist(), misses.tolist(), repeats.tolist(), strict=True):
        for _ in range(times):
            moved = law[: size + 1] * hit
            law[: size + 1] *= miss
            size += 1
            law[1 : size + 1] += moved


def difference_tails(
    plus: float,
    not_plus: float,
    minus: float,
    not_minus: float,
    counts: NDArray[np.int64],
    limit: int,
    table: FloatArray,
) -> None:
    """See `tables.difference_tails`: the laws of every number of positions where the rival disagrees, at once."""
    same_plus, same_minus, different = counts.tolist()
    n = same_plus + same_minus + different
    base = np.zeros(2 * n + 1)
    base[n] = 1.0
    for times, flip, keep in ((same_plus, plus, not_plus), (same_minus, minus, not_minus)):
        for _ in range(times):
            base = _after_step(base, flip * keep, flip * flip + keep * keep, flip * keep)
    none, both = not_plus * not_minus, plus * minus
    one = plus * not_minus + not_plus * minus
    reaches = np.zeros((different + 1, 2 * n + 1))
    reaches[0, : max(min(limit + n, 2 * n) + 1, 0)] = 1.0
    for b in range(1, different + 1):
        reaches[b] = _after_step(reaches[b - 1], both, one, none)
    terms = np.empty((different + 1, 2 * n + 1))
    for ahead in range(different + 1):
        terms[ahead] = base * reaches[different - ahead]
        base = _after_step(base, both, one, none)
    table[n - different : n + different + 1 : 2] = _row_sums(terms)


def _after_step(law: FloatArray, down: Any, stay: float, up: Any) -> FloatArray:
    """Law of the sum plus an independent step of -1, 0 or +1, along the last axis."""
    value = law * stay
    value[..., 1:] += law[..., :-1] * up
    value[..., :-1] += law[..., 1:] * down
    return value


def _row_sums(terms: FloatArray) -> FloatArray:
    """Sums from left to right, as a loop adds."""
    if terms.shape[1] == 0:
        return np.zeros(len(terms))
    return np.asarray(np.cumsum(terms, axis=1)[:, -1])


def suffix_tables(
    terminal: FloatArray,
    fires: FloatArray,
    silent: FloatArray,
    step_fires: NDArray[np.int64],
    step_silent: NDArray[np.int64],
    by_difference: bool,
    tables: FloatArray,
) -> None:
    """See `drawing.suffix_tables`."""
    m, rivals = fires.size, np.arange(len(terminal))[:, None]
    tables[m] = terminal
    for j in range(m - 1, -1, -1):
        rows, columns, start = (1, 2 * j + 1, m - j) if by_difference else (j + 1, j + 1, 0)
        at = (start + np.arange(rows)[:, None] * (m + 1) + np.arange(columns)).ravel()
        up, down = at + step_fires[j][:, None], at + step_silent[j][:, None]
        tables[j][:, at] = fires[j] * tables[j + 1][rivals, up] + silent[j] * tables[j + 1][rivals, down]


def draw_signs(
    fires: FloatArray,
    silent: FloatArray,
    add_fires: NDArray[np.uint64],
    add_silent: NDArray[np.uint64],
    tables: FloatArray,
    fields: tuple[NDArray[Any], ...],
    pair_index: NDArray[np.int64],
    leaf_tables: tuple[Any, ...],
    tolerance: float,
    max_states: int,
    hold: int,
) -> tuple[Any, ...] | None:
    """See `drawing.draw_signs`; None where so many states are open that this is work for the loop."""
    global _spent
    own, beats, loses, rivals = leaf_tables
    m, width = fires.size, add_fires.shape[1]
    keys, masses = np.zeros((1, width), dtype=np.uint64), np.ones(1)
    closed, leaves, peak = 0, 0, 1
    lower, upper, spent = 0.0, 0.0, 0.0
    for j in range(m + 1):
        if len(keys) * (rivals.size + 1) > _MOST:
            return None
        _spent += 40 * len(keys) * (rivals.size + 1) * _ELEMENT
        low, high = np.zeros(len(keys)), np.ones(len(keys))
        if tables.shape[2]:
            sums = _counters(keys, fields).sum(axis=2)
            index = pair_index[0] * sums[:, :1] + pair_index[1] * sums[:, 1:] + pair_index[2]
            values = tables[j][np.arange(rivals.size), index]
            low, high = values.max(axis=1, initial=0.0), np.minimum(_row_sums(values), 1.0)
        contribution = masses * np.maximum(high - low, 0.0)
        exponents = np.clip(np.frexp(contribution)[1].astype(np.int64) + 1089, 1, 1099)
        exponents[contribution <= 0.0] = 0
        allowance = max(tolerance * (j + 1) / (m + 1) - spent, 0.0)
        closing = exponents < _closing_bucket(exponents, contribution, allowance, max_states)
        spent = _added(spent, contribution[closing])
        closed += int(np.count_nonzero(closing))
        keys, kept = keys[~closing], masses[~closing]
        if j == m:
            leaves += len(keys)
            low[~closing] = high[~closing] = _leaves(keys, fields, (own, beats, loses, rivals))
            lower, upper = _added(lower, masses * low), _added(upper, masses * high)
            keys, masses = keys[:0], kept[:0]
            break
        lower, upper = (_added(total, (masses * v)[closing]) for total, v in ((lower, low), (upper, high)))
        masses = kept
        if len(keys) == 0 or len(keys) > hold:
            break
        steps = [(p, add[j]) for p, add in ((fires[j], add_fires), (silent[j], add_silent)) if p > 0.0]
        children = np.stack([keys + add for _, add in steps], axis=1).reshape(-1, width)
        keys, masses = _merged(children, np.stack([masses * p for p, _ in steps], axis=1).ravel())
        peak = max(peak, len(keys))
    return lower, upper, max(tolerance - spent, 0.0), closed, leaves, peak, j, keys, masses


def _counters(keys: NDArray[np.uint64], fields: tuple[NDArray[Any], ...]) -> NDArray[np.int64]:
    """Disagreements of packed states, `(states, classes, counters)`."""
    words, shifts, masks, _ = fields
    return np.asarray((keys[:, words] >> shifts & masks).astype(np.int64))


def _closing_bucket(exponents: NDArray[np.int64], contribution: FloatArray, allowance: float, most: int) -> int:
    """See `drawing._closing_bucket`."""
    sums = np.cumsum(np.bincount(exponents, contribution, minlength=1100))
    sizes = np.bincount(exponents, minlength=1100)
    goes_on = (sums <= allowance) | (len(exponents) - np.cumsum(sizes) + sizes > most)
    return 1100 if goes_on.all() else int(goes_on.argmin())


def _leaves(keys: NDArray[np.uint64], fields: tuple[NDArray[Any], ...], leaf_tables: tuple[Any, ...]) -> FloatArray:
    """See `drawing._leaf`, for many states."""
    own, beats, loses, rivals = leaf_tables
    counters, strides = _counters(keys, fields), fields[3]
    index = np.zeros(counters.shape[:2], dtype=np.int64)
    for f in range(counters.shape[2]):
        index = index * strides + counters[:, :, f]
    alive = own[index[:, 0]]
    total = np.zeros_like(alive)
    for r, rival in enumerate(rivals.tolist()):
        total += alive * beats[rival, index[:, r + 1]]
        alive = alive * loses[rival, index[:, r + 1]]
    return _row_sums(total)


def _merged(keys: NDArray[np.uint64], masses: FloatArray) -> tuple[NDArray[np.uint64], FloatArray]:
    """Equal states together, in the order in which they come first."""
    values = keys[:, 0] if keys.shape[1] == 1 else keys
    _, first, which = np.unique(values, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    sums = np.bincount(places[which.ravel()], masses, minlength=len(order))
    return keys[first[order]], sums.astype(np.float64, copy=False)


def _added(total: float, terms: FloatArray) -> float:
    """The terms added one after the other."""
    return float(np.cumsum(np.concatenate([[total], terms]))[-1])
