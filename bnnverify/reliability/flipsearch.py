"""The least number of flipped cells between the signs of the first block and another class (numba).

No weight is a variable. A set of flips is as good as the signs that it leaves in each block, and signs cost what
`margins.flips_needed` says, row by row. So the search chooses, block by block, which neurons to switch; in the last
hidden block and the output block the best choice is a formula:

- switching a neuron that one flip can switch moves the scores of the reference class and of a rival both at once;
- a flip in the output block moves one of the two by as much; neurons that need two flips or more never beat that.

All these moves cost one flip, so the best are taken first: columns where a switch helps twice, then single scores,
the one with the larger scale first. Scores are compared by rank (`packing.score_ranks`), so scales and biases of
every class, and ties, are exact.

Budgets grow one flip at a time. A subtree is left when even switching every neuron that the rest of the budget could
reach does not bring a rival far enough.

References:
    Iterative deepening: Korf, Artificial Intelligence 27(1), 1985. The formula and the bounds: ours.
"""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit

RUNNING, EXHAUSTED, FOUND = 0, 1, 2
LEVEL, NEXT, LEFT, DESCENDED, SWITCHED, CLOSED = range(6)  # of a frame
_NEVER = 2**62


@njit
def _beats(ranks, rival, at, reference, own):  # type: ignore[no-untyped-def]
    """True if `rival` with `at` disagreements wins against `reference` with `own`."""
    a, b = ranks[rival, at], ranks[reference, own]
    return a > b or (a == b and rival < reference)


@njit
def rival_cost(  # type: ignore[no-untyped-def]
    signs, needed, weights, ranks, steps, sizes, reference, rival, limit, counts
):
    """Least flips in the last hidden block and the output block after which `rival` beats `reference`.

    `steps[k]` is +1 if a score falls as disagreements grow, -1 if it rises, 0 if it is constant; `sizes[k]` orders the
    classes by the size of a step. `counts` receives the moves that were made: columns that one switch moves twice,
    single moves of the reference, and of the rival.

    Returns:
        The number, or ``limit + 1`` if it is larger than `limit`.
    """
    own = other = pairs = down = up = 0
    fall, rise = steps[reference], -steps[rival]
    for j in range(signs.shape[0]):
        u, v = signs[j] * weights[reference, j], signs[j] * weights[rival, j]
        own += u == -1
        other += v == -1
        first, second = u != 0 and u == fall, v != 0 and v == rise
        if first and second and needed[j] == 1:
            pairs += 1
        else:
            down += first
            up += second
    counts[0], counts[1], counts[2] = pairs, down, up
    cost = 0
    while not _beats(ranks, rival, other, reference, own):
        if cost >= limit:
            return limit + 1
        if counts[0] > 0:
            counts[0] -= 1
            own += fall
            other += rise
        elif counts[1] > 0 or counts[2] > 0:
            if counts[2] == 0 or (counts[1] > 0 and sizes[reference] >= sizes[rival]):
                counts[1] -= 1
                own += fall
            else:
                counts[2] -= 1
                other += rise
        else:
            return limit + 1
        cost += 1
    counts[0], counts[1], counts[2] = pairs - counts[0], down - counts[1], up - counts[2]
    return cost


@njit
def nearest_rival(  # type: ignore[no-untyped-def]
    signs, needed, weights, ranks, steps, sizes, reference, limit, counts
):
    """(least `rival_cost` over all rivals, the rival); ``limit + 1`` and -1 if none is within `limit`."""
    best, who = limit + 1, -1
    for rival in range(weights.shape[0]):
        if rival != reference and best > 0:
            cost = rival_cost(signs, needed, weights, ranks, steps, sizes, reference, rival, best - 1, counts)
            if cost < best:
                best, who = cost, rival
    return best, who


@njit
def _settle(level, width, sums, thresholds, present, signs, needed):  # type: ignore[no-untyped-def]
    """Signs of a block, and the flips that each neuron needs, from its pre-activations: `margins.needs_of_sums`."""
    for j in range(width):
        s, t = sums[level, j], thresholds[level, j]
        if s >= t:
            signs[level, j] = 1
            needed[level, j] = (s - t) // 2 + 1 if (s - t) // 2 + 1 <= (present[level, j] + s) // 2 else _NEVER
        else:
            signs[level, j] = -1
            needed[level, j] = (t - s + 1) // 2 if (t - s + 1) // 2 <= (present[level, j] - s) // 2 else _NEVER


@njit
def _spread(level, widths, columns, signs, clean_signs, sums, clean_sums):  # type: ignore[no-untyped-def]
    """Pre-activations of the next block, from those of the fault-free network and the signs that differ."""
    n = widths[level + 1]
    for i in range(n):
        sums[level + 1, i] = clean_sums[level + 1, i]
    for j in range(widths[level]):
        if signs[level, j] != clean_signs[level, j]:
            _add(level, j, n, 2 * signs[level, j], columns, sums)


@njit
def _add(level, j, n, change, columns, sums):  # type: ignore[no-untyped-def]
    """Add `change` times the weights on neuron j to the pre-activations of the next block."""
    column = columns[level + 1, j]
    for i in range(n):
        sums[level + 1, i] += change * column[i]


@njit
def _switchable(costs, first, width, left, dearest, free, switched):  # type: ignore[no-untyped-def]
    """``switched[i]``: how many neurons from `first` on i flips switch at most, each for its cost less `free`.

    Returns:
        False if there is no neuron that `left` flips switch.
    """
    for i in range(left + 1):
        switched[i] = 0
    for j in range(first, width):
        if costs[j] <= dearest and costs[j] - free <= left:
            switched[max(costs[j] - free, 0)] += 1  # for now: neurons of this cost
    count = switched[0]
    paid = 0  # flips of the cheapest `count` neurons
    cost, rest = 1, switched[1] if left > 0 else 0
    total = 0
    for i in range(left + 1):
        total += switched[i]
    if total == 0:
        return False
    kinds = switched[: left + 1].copy()
    for i in range(left + 1):
        while cost <= left:
            if rest == 0:
                cost += 1
                rest = kinds[cost] if cost <= left else 0
            elif paid + cost <= i:
                paid += cost
                rest -= 1
                count += 1
            else:
                break
        switched[i] = count
    return True


@njit
def _spread_reach(before, needed, width, left, work, after):  # type: ignore[no-untyped-def]
    """``after[i]``: neurons of a block that i flips in it and before switch at most; -1 if i is not enough.

    ``before[i]`` are the neurons of the block before that i flips switch: c of them move every pre-activation by at
    most 2c, so each neuron needs at most c flips less.
    """
    for i in range(left + 1):
        after[i] = -1
    for i in range(1, left + 1):
        if before[i] < 1 or before[i] == before[i - 1]:
            continue  # nothing that fewer flips do not do
        found = _switchable(needed, 0, width, left - i, _NEVER - 1, before[i], work)
        for more in range(left - i + 1):
            count = work[more] if found else 0
            if count > after[i + more]:
                after[i + more] = count


@njit
def _can_reach(  # type: ignore[no-untyped-def]
    signs, needed, weights, ranks, steps, reference, left, common, switched, reach
):
    """False only if no `left` flips, one or more of them before the last hidden block, bring a rival ahead.

    i flips there switch at most ``switched[i]`` neurons of the block before (below 0: none), which move every
    pre-activation of the last hidden block by at most twice that, so they switch at most the neurons that need so
    many flips; each of the other ``left - i`` flips moves both scores at most once.
    """
    n = signs.shape[0]
    fall = steps[reference]
    most = 0
    for i in range(left + 1):
        most = max(most, switched[i])
    for rival in range(weights.shape[0]):
        if rival == reference:
            continue
        rise = -steps[rival]
        own = other = below = above = 0
        for i in range(most + 1):
            reach[0, i] = reach[1, i] = 0
        for j in range(n):
            u, v = signs[j] * weights[reference, j], signs[j] * weights[rival, j]
            own += u == -1
            other += v == -1
            first, second = u != 0 and u == fall, v != 0 and v == rise
            below += first
            above += second
            # with one scale for all, a switch that moves both scores the same way moves nothing
            idle = common and u != 0 and v != 0 and first != second
            if needed[j] <= most and not idle:
                reach[0, needed[j]] += first
                reach[1, needed[j]] += second
        for i in range(1, most + 1):
            reach[0, i] += reach[0, i - 1]
            reach[1, i] += reach[1, i - 1]
        for i in range(1, left + 1):
            if switched[i] < 0:
                continue
            mine = own + fall * min(reach[0, switched[i]] + left - i, below)
            theirs = other + rise * min(reach[1, switched[i]] + left - i, above)
            if _beats(ranks, rival, theirs, reference, mine):
                return True
    return False


@njit(nogil=True)
def advance(  # type: ignore[no-untyped-def]
    widths,
    columns,
    thresholds,
    present,
    weights,
    ranks,
    steps,
    sizes,
    common,
    reference,
    budget,
    dearest,
    clean_signs,
    clean_sums,
    signs,
    needed,
    sums,
    frames,
    top,
    best,
    best_signs,
    visits,
):
    """Continue the search for at most `visits` sets of switched neurons.

    Invariants: level l of `signs` and `needed` belongs to the choices in the frames up to l; `best` is the number of
    flips of the best set found so far (or one more than there are cells), its rival, and its frames' signs.

    Args:
        widths: Neurons of each hidden block, of which there are at least two.
        columns: Weights of hidden blocks, `(block, input, neuron)`.
        thresholds: Of each block and neuron.
        present: Unmasked inputs of each block and neuron.
        weights: Of the output block; `ranks`, `steps`, `sizes` as in `rival_cost`.
        ranks: `score_ranks`.
        steps: Direction of each score.
        sizes: Order of the scales.
        common: True if all scales are equal.
        reference: The class to leave.
        budget: Most flips in total.
        dearest: Neurons that need more flips are never switched; no less than `budget` if EXHAUSTED is to be a proof.
        clean_signs: Signs of the fault-free network, `(block, neuron)`; likewise `clean_sums`.
        clean_sums: Pre-activations, from the second block on.
        signs: Work, as the next three; the first block's part is set before the first call.
        needed: Flips that each neuron needs.
        sums: Pre-activations.
        frames: Stack of choices.
        top: Index of the last frame, in an array of one.
        best: Flips and rival of the best set.
        best_signs: Its signs.
        visits: Sets of neurons to look at.

    Returns:
        FOUND if a set within the budget was found, EXHAUSTED if there is none, else RUNNING.
    """
    last = widths.shape[0] - 1
    counts = np.zeros(3, dtype=np.int64)
    reach = np.zeros((2, needed.shape[1] + 1), dtype=np.int64)
    switched = np.zeros((3, budget + 1), dtype=np.int64)
    while top[0] >= 0:
        if visits <= 0:
            return RUNNING
        frame = frames[top[0]]
        level, left = frame[LEVEL], frame[LEFT]
        if frame[DESCENDED] == 0:
            frame[DESCENDED] = 1
            _settle(level + 1, widths[level + 1], sums, thresholds, present, signs, needed)
            if level + 1 < last:
                _spread(level + 1, widths, columns, signs, clean_signs, sums, clean_sums)
                top[0] += 1
                frames[top[0], LEVEL], frames[top[0], NEXT], frames[top[0], LEFT] = level + 1, 0, left
                frames[top[0], DESCENDED], frames[top[0], SWITCHED], frames[top[0], CLOSED] = 0, -1, 0
                continue
            visits -= 1
            h, need = signs[last, : widths[last]], needed[last, : widths[last]]
            spent = budget - left
            cost, rival = nearest_rival(h, need, weights, ranks, steps, sizes, reference, best[0] - 1 - spent, counts)
            if rival >= 0:
                best[0], best[1] = spent + cost, rival
                best_signs[:] = signs
                if best[0] <= budget:
                    return FOUND
            # the frames that have only descended since: what they could still switch
            at = top[0]
            while True:
                here = frames[at, LEVEL]
                used = min(left, best[0] - 1 - spent)
                possible = used > 0 and _switchable(
                    needed[here], frames[at, NEXT], widths[here], used, min(used, dearest), 0, switched[0]
                )
                if possible:
                    for i in range(used + 1):
                        if switched[0, i] == 0:
                            switched[0, i] = -1
                    for level in range(here + 1, last):
                        _spread_reach(switched[0], needed[level], widths[level], used, switched[2], switched[1])
                        switched[0, : used + 1] = switched[1, : used + 1]
                    possible = _can_reach(h, need, weights, ranks, steps, reference, used, common, switched[0], reach)
                if not possible:
                    frames[at, CLOSED] = 1
                if here == 0 or frames[at - 1, LEVEL] == here:
                    break
                at -= 1
            continue
        if frame[CLOSED] == 1 and frame[SWITCHED] < 0:
            top[0] -= 1
            continue
        if frame[SWITCHED] >= 0:  # back from a choice: undo it
            j = frame[SWITCHED]
            frame[SWITCHED] = -1
            signs[level, j] = -signs[level, j]
            _add(level, j, widths[level + 1], 2 * signs[level, j], columns, sums)
        j = frame[NEXT]
        while j < widths[level] and needed[level, j] > min(left, dearest):
            j += 1
        if j == widths[level]:
            top[0] -= 1
            continue
        frame[NEXT], frame[SWITCHED] = j + 1, j
        signs[level, j] = -signs[level, j]
        _add(level, j, widths[level + 1], 2 * signs[level, j], columns, sums)
        top[0] += 1
        frames[top[0], LEVEL], frames[top[0], NEXT], frames[top[0], LEFT] = level, j + 1, left - needed[level, j]
        frames[top[0], DESCENDED], frames[top[0], SWITCHED], frames[top[0], CLOSED] = 0, -1, 0
    return EXHAUSTED
