"""Tables of patches: what some outputs of a block add to a linear sum, for all values of the few bits they see."""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit


@njit
def fill_table(weights, low, high, limits, first, every, costs, table):  # type: ignore[no-untyped-def]
    """The greatest sum of the outputs' costs for every assignment of the bits.

    An output whose state the bits do not settle counts as whatever costs more. Assignments are visited in Gray code
    order, so that one bit changes at a time; entry u of the table has bit b at +1 iff ``u >> b & 1``.

    Args:
        weights: Shape `(bits, rows)`: a row is one position of one output.
        low: Least sum of each row over the inputs that are no bits of this table.
        high: The greatest.
        limits: Threshold of each row.
        first: First row of each output, and at the end the number of rows.
        every: By output: True if all its rows must fire, False if one suffices.
        costs: Shape `(outputs, sums)`, int64: what the output adds where it is +1; the negative where it is -1.
        table: Shape `(2^bits, sums)`, int64: the result.
    """
    bits, rows = weights.shape
    outputs, sums = costs.shape
    least, most = low.copy(), high.copy()
    for b in range(bits):
        for r in range(rows):
            least[r] -= weights[b, r]
            most[r] -= weights[b, r]
    code = 0
    for step in range(1 << bits):
        if step > 0:
            b = 0
            while (step >> b) & 1 == 0:
                b += 1
            code ^= 1 << b
            change = 2 if (code >> b) & 1 else -2
            for r in range(rows):
                least[r] += change * weights[b, r]
                most[r] += change * weights[b, r]
        for c in range(sums):
            table[code, c] = 0
        for o in range(outputs):
            surely, possibly = every[o], every[o]
            for r in range(first[o], first[o + 1]):
                if every[o]:
                    surely &= least[r] >= limits[r]
                    possibly &= most[r] >= limits[r]
                else:
                    surely |= least[r] >= limits[r]
                    possibly |= most[r] >= limits[r]
            if surely:
                for c in range(sums):
                    table[code, c] += costs[o, c]
            elif not possibly:
                for c in range(sums):
                    table[code, c] -= costs[o, c]
            else:
                for c in range(sums):
                    table[code, c] += abs(costs[o, c])


@njit
def max_marginals(table, bit):  # type: ignore[no-untyped-def]
    """Greatest entries where a bit is -1 and where it is +1."""
    step = 1 << bit
    without, within = table[0], table[step]
    for start in range(0, table.shape[0], 2 * step):
        for u in range(start, start + step):
            without = max(without, table[u])
            within = max(within, table[u + step])
    return without, within


@njit
def sweep(tables, start, bits, owners, places, first, order, multipliers):  # type: ignore[no-untyped-def]
    """One round of dual coordinate descent; the sum of the tables' maxima never rises.

    For one bit after another, its share of each table is moved until the gains of +1 over -1 are equal in all tables
    that have it (to one unit, and the changes add up to 0 exactly).

    Args:
        tables: All tables one after another, int64.
        start: First entry of each table, and at the end the length.
        bits: First multiplier of each table.
        owners: Tables by bit; those of bit v are ``owners[first[v]:first[v + 1]]``.
        places: Which bit of the owner's table it is.
        first: See `owners`.
        order: In which order bits are visited.
        multipliers: What was added to the entries with the bit at +1, by table and bit of the table.
    """
    gains = np.empty(owners.shape[0], dtype=np.int64)
    for v in order:
        count = first[v + 1] - first[v]
        if count < 2:
            continue
        total = 0
        for i in range(count):
            f, place = owners[first[v] + i], places[first[v] + i]
            without, within = max_marginals(tables[start[f] : start[f + 1]], place)
            gains[i] = within - without
            total += gains[i]
        share, rest = total // count, total % count
        for i in range(count):
            f, place = owners[first[v] + i], places[first[v] + i]
            change = share + (1 if i < rest else 0) - gains[i]
            if change == 0:
                continue
            multipliers[bits[f] + place] += change
            step = 1 << place
            for low in range(start[f] + step, start[f + 1], 2 * step):
                for u in range(low, low + step):
                    tables[u] += change


@njit
def maxima(tables, start, found):  # type: ignore[no-untyped-def]
    """Greatest entry of each table."""
    for f in range(found.shape[0]):
        best = tables[start[f]]
        for u in range(start[f], start[f + 1]):
            best = max(best, tables[u])
        found[f] = best


@njit
def join(left, left_places, right, right_places, out):  # type: ignore[no-untyped-def]
    """``out[u] = left[u restricted] + right[u restricted]``; returns the greatest entry.

    Args:
        left: A table.
        left_places: Where each of its bits lies in `out`.
        right: Another.
        right_places: Likewise.
        out: Shape `(2^bits,)`.
    """
    best = np.int64(-(2**62))
    for u in range(out.shape[0]):
        a = 0
        for i in range(left_places.shape[0]):
            a |= ((u >> left_places[i]) & 1) << i
        b = 0
        for i in range(right_places.shape[0]):
            b |= ((u >> right_places[i]) & 1) << i
        out[u] = left[a] + right[b]
        best = max(best, out[u])
    return best
