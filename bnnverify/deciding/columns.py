"""Which inputs to flip so that some sums move far enough: bounds by multipliers, and an exact search (numba).

A system is a matrix B of -1, 0 and +1 with a row per sum and a column per input, and an integer demand per row: is
there a set Y of at most r columns with ``sum over Y of B[p] >= demand[p]`` for every row p?

For any multipliers m >= 0 a solution satisfies ``sum_p m[p] demand[p] <= the r greatest of the positive column values
c[i] = sum_p m[p] B[p, i]``. So one vector of integer multipliers that violates this proves that there is no solution.
All of it is int64; the floating-point steps that look for multipliers decide nothing.

References:
    Lagrangian and surrogate bounds: Fisher, Management Science 27, 1981.
"""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit

OPEN, NONE, FOUND = 0, -1, 1
SCALE = 1 << 20  # what multipliers add up to


@njit
def greatest(values, r, chosen):  # type: ignore[no-untyped-def]
    """Puts the places of the (at most r) greatest positive values into `chosen`; their number and their sum."""
    count = 0
    for i in range(values.shape[0]):
        v = values[i]
        if v <= 0 or (count == r and v <= values[chosen[count - 1]]):
            continue
        at = count if count < r else r - 1
        while at > 0 and values[chosen[at - 1]] < v:
            chosen[at] = chosen[at - 1]
            at -= 1
        chosen[at] = i
        if count < r:
            count += 1
    total = 0
    for k in range(count):
        total += values[chosen[k]]
    return count, total


@njit
def bound_jointly(rows, demand, r, multipliers, chosen, steps):  # type: ignore[no-untyped-def]
    """Looks for multipliers that prove that there is no solution, or stumbles over one.

    Args:
        rows: Shape `(p, n)`, int8.
        demand: Shape `(p,)`, int64.
        r: Most columns.
        multipliers: Shape `(p,)`, float64, at least 0; the best ones found are left there.
        chosen: Scratch of r places; holds a solution if one is found.
        steps: Most steps.

    Returns:
        `(NONE, 0)`, `(FOUND, size of the solution)` or `(OPEN, 0)`.
    """
    p, n = rows.shape
    whole = np.zeros(p, dtype=np.int64)
    values = np.zeros(n, dtype=np.int64)
    moved = np.zeros(p, dtype=np.int64)
    best = multipliers.copy()
    most = -np.inf
    for step in range(steps):
        total = 0.0
        for j in range(p):
            total += multipliers[j]
        if total <= 0:
            for j in range(p):
                multipliers[j] = 1.0 / p
            total = 1.0
        values[:] = 0
        asked = 0
        for j in range(p):
            whole[j] = np.int64(multipliers[j] / total * SCALE)
            asked += whole[j] * demand[j]
            if whole[j] > 0:
                m = whole[j]
                for i in range(n):
                    values[i] += m * rows[j, i]
        count, offered = greatest(values, r, chosen)
        if asked > offered:
            return NONE, 0
        moved[:] = 0
        norm, is_met = 0.0, True
        for j in range(p):
            for k in range(count):
                moved[j] += rows[j, chosen[k]]
            lack = demand[j] - moved[j]
            if lack > 0:
                is_met = False
            norm += float(lack * lack)
        if is_met:
            return FOUND, count
        lead = (asked - offered) / SCALE
        if lead > most:
            most = lead
            best[:] = multipliers / total
        # a step towards a bound a little above 0 (Polyak), shorter and shorter
        size = (0.05 - lead) / max(norm, 1.0) * (1.5 if step < 10 else 1.0)
        for j in range(p):
            multipliers[j] = max(0.0, multipliers[j] / total + size * float(demand[j] - moved[j]))
    multipliers[:] = best
    return OPEN, 0


@njit
def search_columns(rows, demand, r, multipliers, chosen, budget):  # type: ignore[no-untyped-def]
    """Decides whether there is a solution, by choosing columns in the order of their values.

    Args:
        rows: Shape `(p, n)`, int8, equal columns next to each other or not.
        demand: Shape `(p,)`, int64.
        r: Most columns.
        multipliers: Shape `(p,)`, float64, at least 0.
        chosen: Holds the solution, if there is one.
        budget: Most columns to look at.

    Returns:
        `(NONE, 0, looked at)`, `(FOUND, size of the solution, looked at)`, or `(OPEN, 0, looked at)` beyond the budget.
    """
    p, n = rows.shape
    total = multipliers.sum()
    whole = np.ones(p, dtype=np.int64)
    for j in range(p):
        whole[j] += np.int64(multipliers[j] / max(total, 1e-300) * SCALE)
    values = np.zeros(n, dtype=np.int64)
    keys = np.zeros(n, dtype=np.int64)
    for j in range(p):
        for i in range(n):
            values[i] += whole[j] * rows[j, i]
            keys[i] = keys[i] * 3 + rows[j, i]  # equal for equal columns; others may share one, which costs nothing
    order = np.argsort(keys, kind="mergesort")
    order = order[np.argsort(-values[order], kind="mergesort")]
    table = np.empty((n, p), dtype=np.int64)
    sums = np.zeros(n + 1, dtype=np.int64)  # of the positive values in order
    for k in range(n):
        for j in range(p):
            table[k, j] = rows[j, order[k]]
        sums[k + 1] = sums[k] + max(values[order[k]], 0)
    lack = demand.copy()
    path = np.empty(r + 1, dtype=np.int64)
    depth, at, looked = 0, 0, 0
    while True:
        is_met, worst, asked = True, np.int64(-(1 << 60)), np.int64(0)
        for j in range(p):
            if lack[j] > 0:
                is_met = False
            worst = max(worst, lack[j])
            asked += whole[j] * lack[j]
        if is_met:
            for k in range(depth):
                chosen[k] = order[path[k]]
            return FOUND, depth, looked
        left = r - depth
        is_open = worst <= left and left > 0
        if is_open:
            # the next column that every row with nothing to spare can use
            while at < n:
                looked += 1
                end = min(at + left, n)
                if asked > sums[end] - sums[at]:
                    at = n
                    break
                fits = True
                for j in range(p):
                    if lack[j] - table[at, j] > left - 1:
                        fits = False
                        break
                if fits:
                    break
                at += 1
            is_open = at < n
        if is_open:
            if looked > budget:
                return OPEN, 0, looked
            path[depth] = at
            for j in range(p):
                lack[j] -= table[at, j]
            depth += 1
            at += 1
            continue
        if depth == 0:
            return NONE, 0, looked
        depth -= 1
        at = path[depth]
        for j in range(p):
            lack[j] += table[at, j]
        # columns equal to the one just given up would fail likewise
        at += 1
        while at < n:
            is_equal = True
            for j in range(p):
                if table[at, j] != table[path[depth], j]:
                    is_equal = False
                    break
            if not is_equal:
                break
            at += 1
