"""The loops of the walk over a machine's states: settle, forget, merge.

A state is one row of integers: the margins of the first block's neurons, the sums they add to, the flips left.
What is settled takes one fixed value, so that equal rows are equal questions about the inputs that are left.
"""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit


@njit
def final_class(values, shapes, weights, limits, scores, bounds, scratch):  # type: ignore[no-untyped-def]
    """Class that the signs `values` (0: not known) force, or -1.

    ``scratch`` has two rows, each as long as the widest block.
    """
    width = values.shape[0]
    here = 0
    for k in range(width):
        scratch[0, k] = values[k]
    place, limit = 0, 0
    for layer in range(shapes.shape[0]):
        neurons = shapes[layer, 0]
        for j in range(neurons):
            total, open_ = 0, 0
            for i in range(width):
                w = weights[place]
                place += 1
                v = scratch[here, i]
                total += w * v
                if v == 0:
                    open_ += abs(w)
            t = limits[limit]
            limit += 1
            scratch[1 - here, j] = 1 if total - open_ >= t else (-1 if total + open_ < t else 0)
        here = 1 - here
        width = neurons
    best, best_score = 0, 0
    for k in range(bounds.shape[0]):
        score = 0
        for i in range(width):
            score += scores[k, i] * scratch[here, i]
        if k == 0 or best_score - score < bounds[best, k]:
            best, best_score = k, score
    for k in range(bounds.shape[0]):
        if k == best:
            continue
        lead = 0
        for i in range(width):
            d = scores[best, i] - scores[k, i]
            v = scratch[here, i]
            lead += d * v if v != 0 else -abs(d)
        if lead < bounds[best, k]:
            return -1
    return best


@njit
def settle(key, level, force, rests, down, up, widest, consumers, thresholds, deep, final, scratch):  # type: ignore[no-untyped-def]
    """Class that is certain whatever comes, or -1; `key` is then in its one form.

    Rests: ``down[level, j]`` and ``up[level, j]`` are how far the inputs from `level` on can lower and raise margin j,
    ``widest[level]`` how far one of them can move any.
    """
    shapes, weights, limits, scores, bounds = final
    open_, reach, values, rows, settled, high, low = scratch
    h, c = consumers.shape
    bounded, left = rests
    flips = key[h + c]
    if bounded and flips > left:
        flips = left
        key[h + c] = flips
    budget = flips * widest[level]
    changed = force
    n_open = 0
    for j in range(h):
        m = key[j]
        if m == settled:
            continue
        lower, upper = down[level, j], up[level, j]
        if bounded:
            lower, upper = min(lower, budget), min(upper, budget)
        if m >= lower:
            v = 1
        elif m + upper < 0:
            v = -1
        else:
            open_[n_open] = j
            n_open += 1
            continue
        key[j] = settled
        changed = True
        for k in range(c):
            s = key[h + k]
            if low < s < high:
                key[h + k] = s + v * consumers[j, k]
    if not changed:
        return -1
    if deep:
        news = force
        reach[:c] = 0
        for position in range(n_open):
            j = open_[position]
            for k in range(c):
                reach[k] += abs(consumers[j, k])
        for k in range(c):
            s = key[h + k]
            if low < s < high:
                if s - reach[k] >= thresholds[k]:
                    s = high
                    news = True
                elif s + reach[k] < thresholds[k]:
                    s = low
                    news = True
                key[h + k] = s
            values[k] = 1 if s == high else (-1 if s == low else 0)
        if not news:
            return -1  # the class and what it needs depend on the second block alone
        for position in range(n_open):
            j = open_[position]
            needed = False
            for k in range(c):
                if values[k] == 0 and consumers[j, k] != 0:
                    needed = True
                    break
            if not needed:
                key[j] = settled
        return final_class(values[:c], shapes, weights, limits, scores, bounds, rows)
    # the sums are the scores: classes that cannot win any more leave the race
    best = -1
    for k in range(c):
        s = key[h + k]
        if s != low and (best < 0 or key[h + best] - s < bounds[best, k]):
            best = k
    alive, first = 1, best
    for k in range(c):
        s = key[h + k]
        if s == low or k == best:
            continue
        lead = np.int64(key[h + best] - s)
        for position in range(n_open):
            j = open_[position]
            lead -= abs(consumers[j, best] - consumers[j, k])
        if lead >= bounds[best, k]:
            key[h + k] = low
        else:
            alive += 1
            first = min(first, k)
    if alive == 1:
        return best
    base = key[h + first]
    for k in range(c):
        if key[h + k] != low:
            key[h + k] -= base
    for position in range(n_open):
        j = open_[position]
        same = True
        for k in range(c):
            if key[h + k] != low and consumers[j, k] != consumers[j, first]:
                same = False
                break
        if same:
            key[j] = settled
    return -1


@njit(inline="always")
def _hash(words):  # type: ignore[no-untyped-def]
    value = np.uint64(0x9E3779B97F4A7C15)
    for w in words:
        value = (value ^ np.uint64(w)) * np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(32)
    return value


@njit
def expand(  # type: ignore[no-untyped-def]
    keys, start, stop, level, bounded, left, deltas, tables, final, scratch, low, high, found, n_found, hashes, table
):
    """Read the input of one level in the states ``keys[start:stop]``.

    Fills `low` and `high` of these states with what follows if the input is as at the centre or flipped: a number of
    a state in `found`, or ``-1 - (class * (levels + 1) + flips left)``. `left` inputs come after this one.

    Returns:
        ``(n_found, table)``; the table grows.
    """
    down, up, widest, consumers, thresholds, deep = tables
    h, c = consumers.shape
    settled = scratch[4]
    width = keys.shape[1]
    stride = down.shape[0]
    tmp = np.empty(width, dtype=keys.dtype)
    words = tmp.view(np.int64)
    known = found.view(np.int64)
    mask = table.shape[0] - 1
    for s in range(start, stop):
        for flip in range(2):
            for i in range(width):
                tmp[i] = keys[s, i]
            if flip == 1:
                if bounded:
                    tmp[h + c] -= 1
                for j in range(h):
                    if tmp[j] != settled:
                        tmp[j] += deltas[level, j]
            klass = settle(
                tmp, level + 1, False, (bounded, left), down, up, widest, consumers, thresholds, deep, final, scratch
            )
            if klass >= 0:
                target = -1 - (klass * stride + tmp[h + c])
            else:
                value = _hash(words)
                slot = np.int64(value) & mask
                while True:
                    target = np.int64(table[slot])
                    if target < 0:
                        target = n_found
                        table[slot] = target
                        hashes[target] = value
                        known[target] = words
                        n_found += 1
                        break
                    if hashes[target] == value:
                        same = True
                        for i in range(words.shape[0]):
                            if known[target, i] != words[i]:
                                same = False
                                break
                        if same:
                            break
                    slot = (slot + 1) & mask
                if 2 * n_found > table.shape[0]:
                    table = np.full(2 * table.shape[0], -1, dtype=table.dtype)
                    mask = table.shape[0] - 1
                    for i in range(n_found):
                        slot = np.int64(hashes[i]) & mask
                        while table[slot] >= 0:
                            slot = (slot + 1) & mask
                        table[slot] = i
            if flip == 0:
                low[s] = target
            else:
                high[s] = target
    return n_found, table


@njit
def unite(low, high, first, ids, unique_low, unique_high):  # type: ignore[no-untyped-def]
    """Number the distinct pairs of one level from `first` on; a pair with equal halves is that half.

    Fills ``ids`` with the number of each pair; returns how many distinct ones there are.
    """
    size = 16
    while size < 2 * low.shape[0]:
        size *= 2
    table = np.full(size, -1, dtype=np.int32)
    mask = size - 1
    count = 0
    for i in range(low.shape[0]):
        a, b = low[i], high[i]
        if a == b:
            ids[i] = a
            continue
        value = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(b) * np.uint64(0xC2B2AE3D27D4EB4F)
        value ^= value >> np.uint64(29)
        slot = np.int64(value) & mask
        while True:
            found = table[slot]
            if found < 0:
                table[slot] = count
                unique_low[count], unique_high[count] = a, b
                ids[i] = first + count
                count += 1
                break
            if unique_low[found] == a and unique_high[found] == b:
                ids[i] = first + found
                break
            slot = (slot + 1) & mask
    return count
