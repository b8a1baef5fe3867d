"""Bounds on P(class is not c) by an expansion around conditional independence.

Let S_c = s be the score of class c after its flips, B_k the probability that rival k beats s given the hidden signs
h. Given h the rivals are independent, so P(correct) = sum_s E[1(S_c = s) prod_k (1 - B_k)]. With *constants* b_k(s)
near the mean of B_k given s, g_k = 1 - b_k and d_k = b_k - B_k,

    prod_k (g_k + d_k) = prod g + sum_{k<l} d_k d_l prod g + sum_{k<l<m} d_k d_l d_m prod g + ...   (first order: 0)

The terms of second and third order are expectations over the exact joint law of the disagreements of c, k, l (, m),
a convolution over the uncertain signs. What is left out after order 2 is in absolute value at most

    sum_{k<l<m} E[1(S_c = s) |d_k d_l d_m|] prod_{i>k, i not l, m} g_i

(apply P_n = g_n P_{n-1} + d_n P_{n-1} from the last factor to the first and bound the probability that remains by 1),
likewise after order 3. The rivals are nearly independent given S_c, so the signed terms are tiny, and the absolute
ones are far smaller than the overlaps that Bonferroni's inequalities of the same order leave out.

If the two stored signs fail at different rates, the law of a score depends on its disagreements on cells stored -1 and
on those stored +1. The classes' numbers of the former and the number of positive hidden signs, which all classes share,
tell both: one more coordinate of every joint law, not one a class.

Float64 with an absolute slack for roundings, truncated walks and skipped masses, which is part of the bounds; the
triple terms, which are small, in float32.

References:
    Ours.
"""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit
from bnnverify.reliability.expansionterms import means, own_scores, pair_terms, triple_terms
from bnnverify.reliability.jointlaws import joint_law, pair_laws

UNIT = 2.0**-53
_UNIT_32 = 2.0**-24
_START_32 = 2.0**60  # of a float32 law: keeps small masses above the subnormal numbers
MAX_RIVALS = 16  # pairs, triples and quadruples of more would cost too much


def slack_weight(rivals: int, triples: bool) -> int:
    """How often the exits of one walk enter the slack of a state with so many rivals, at most."""
    pairs = rivals * (rivals - 1) // 2
    return 4 + 6 * rivals + 10 * pairs + (4 * pairs * (rivals - 2) if triples else 0)


@njit(nogil=True)
def _triple_bound(a, b, e, absolute, square, second, largest, s):  # type: ignore[no-untyped-def]
    """A cheap bound on E[1(s) |d_a d_b d_e|], by the largest value or by Cauchy and Schwarz."""
    bound = min(absolute[a, b, s] * largest[e, s], absolute[a, e, s] * largest[b, s])
    bound = min(bound, absolute[b, e, s] * largest[a, s])
    by_squares = min(square[a, b, s] * second[e, s], square[a, e, s] * second[b, s])
    return min(bound, np.sqrt(min(by_squares, square[b, e, s] * second[a, s])))


@njit(nogil=True)
def _others(good, count, a, b, e, f, after, s):  # type: ignore[no-untyped-def]
    """Product of g_i over the rivals beyond `after` without a, b, e, f."""
    product = 1.0
    for i in range(after + 1, count):
        if i != a and i != b and i != e and i != f:
            product *= good[i, s]
    return product


@njit(nogil=True)
def _relevant(chances, shares):  # type: ignore[no-untyped-def]
    """Per state the rivals that matter, weakest first, padded by -1, and the summed chances of the others."""
    states, rivals = chances.shape
    members, dropped = np.full((states, rivals), -1, dtype=np.int64), np.zeros(states)
    for i in range(states):
        count = 0
        for k in np.argsort(chances[i]):
            if count == 0 and dropped[i] + chances[i, k] <= shares[i] / 8.0:
                dropped[i] += chances[i, k]
            else:
                members[i, count] = k
                count += 1
    return members, dropped


@njit(nogil=True)
def _second_order(mine, good, signed):  # type: ignore[no-untyped-def]
    """P(no rival beats c), up to second order."""
    count = good.shape[0]
    center = 0.0
    for s in range(mine.shape[0]):
        center += mine[s] * _others(good, count, -1, -1, -1, -1, -1, s)
        for a in range(count):
            for b in range(a + 1, count):
                center += signed[a, b, s] * _others(good, count, a, b, -1, -1, -1, s)
    return center


@njit(nogil=True)
def _cheap_triples(good, pairs, singles, names, absolute_3, gains):  # type: ignore[no-untyped-def]
    """Cheap bounds on the absolute triple terms, and what each adds to the remainder of order 2."""
    _, absolute, square = pairs
    largest, second = singles
    for t in range(names.shape[0]):
        a, b, e = names[t]
        gains[t] = 0.0
        for s in range(good.shape[1]):
            value = _triple_bound(a, b, e, absolute, square, second, largest, s)
            absolute_3[t, s] = value
            gains[t] += value * _others(good, good.shape[0], a, b, e, -1, a, s)


@njit(nogil=True)
def _third_order(good, names, place, is_exact, signed_3, absolute_3, square, largest):  # type: ignore[no-untyped-def]
    """(remainder of order 2, signed terms of order 3, remainder of order 3)."""
    count = good.shape[0]
    radius, third, radius_3 = 0.0, 0.0, 0.0
    for t in range(names.shape[0]):
        a, b, e = names[t]
        for s in range(good.shape[1]):
            value = absolute_3[t, s]
            radius += value * _others(good, count, a, b, e, -1, a, s)
            product = _others(good, count, a, b, e, -1, -1, s)
            if is_exact[t]:
                third += signed_3[t, s] * product
            else:
                radius_3 += value * product
            for f in range(e + 1, count):
                bound = min(value * largest[f, s], absolute_3[place[a, b, f], s] * largest[e, s])
                bound = min(bound, absolute_3[place[a, e, f], s] * largest[b, s])
                bound = min(bound, absolute_3[place[b, e, f], s] * largest[a, s])
                squares = min(square[a, b, s] * square[e, f, s], square[a, e, s] * square[b, f, s])
                bound = min(bound, np.sqrt(min(squares, square[a, f, s] * square[b, e, s])))
                radius_3 += bound * _others(good, count, a, b, e, f, a, s)
    return radius, third, radius_3


@njit(nogil=True)
def _triple_names(count):  # type: ignore[no-untyped-def]
    """All a < b < e below `count`, and the row of each."""
    number = count * (count - 1) * (count - 2) // 6
    names, place, t = np.empty((number, 3), dtype=np.int64), np.zeros((count, count, count), dtype=np.int64), 0
    for a in range(count):
        for b in range(a + 1, count):
            for e in range(b + 1, count):
                names[t, 0], names[t, 1], names[t, 2] = a, b, e
                place[a, b, e] = t
                t += 1
    return names, place


@njit(nogil=True)
def expand(  # type: ignore[no-untyped-def]
    deviates,
    steps,
    low,
    high,
    exits,
    bases,
    masses,
    chances,
    plus,
    strides,
    own,
    beats,
    kept,
    allowed,
    exit_mass,
    loose,
    roundings,
    triples,
):
    """(lower, upper, open states) of sum over states of mass * P(some rival beats c | state).

    Args:
        deviates: `(R,)`, P(sign j is not its likelier value).
        steps: `(R, 2 + r)`, what that adds to the disagreements of c and of the rivals (those that `_table_row` asks
            for), and to the number of positive signs (0 if it asks for none): -1, 0 or +1.
        low: First value of each window of the walks.
        high: Last value.
        exits: Mass that leaves the windows.
        bases: `(S, 2 + r)`, disagreements and positive signs of each state without any deviation.
        masses: `(S,)`, probability of each state.
        chances: `(S, r)`, P(rival beats c | state).
        plus: `(1 + r,)`, cells stored +1 of each class.
        strides: `(1 + r,)`, of the rows of a table with two counters; 0 with one.
        own: Table `(disagreements, s)`: law of the score of c.
        beats: Table `(rivals, disagreements, s)`: P(rival beats s).
        kept: `(r,)`, its rows of the rivals that matter.
        allowed: Width to aim at, all states together; most of it goes to states of much mass.
        exit_mass: What may be left out of each sum; part of the slack.
        loose: Slack of each state for what the caller left out.
        roundings: In the tables.
        triples: float32 numbers that the laws of triples may take; 0: no third order.
    """
    states, rivals, scores = bases.shape[0], bases.shape[1] - 2, own.shape[1]
    sizes = high - low + 1
    stays = 1.0 - deviates
    walk = (deviates, stays, steps, low, high)
    walk_32 = (deviates.astype(np.float32), stays.astype(np.float32), steps, low, high)
    shares = allowed / 2.0 + allowed / (2.0 * states * np.maximum(masses, 1e-300))  # mass * share adds up to allowed
    members, dropped = _relevant(chances, shares)
    needed, most_members = np.zeros(rivals, dtype=np.bool_), 0
    for i in range(states):
        for a in range(rivals):
            if members[i, a] >= 0:
                needed[members[i, a]] = True
                most_members = max(most_members, a + 1)
    widest, common, ends = sizes[1:-1].max(), sizes[-1], np.array([0, rivals + 1])
    largest_law = widest * widest * common * sizes[0]
    buffer, spare = np.empty(largest_law), np.empty(largest_law)
    laws, begins = pair_laws(needed, walk, largest_law)
    own_law = joint_law(ends[::-1].copy(), walk, 1.0, buffer, spare).copy()
    rows, both = np.empty((common, sizes[0], scores)), np.empty((common, scores))
    mine, weight = np.empty(scores), np.empty(scores)
    loss, bad = np.empty((most_members, common, widest, scores)), np.empty((most_members, scores))
    largest, second = np.empty((most_members, scores)), np.empty((most_members, scores))
    signed = np.empty((most_members, most_members, scores))
    absolute, square = np.empty_like(signed), np.empty_like(signed)
    most_triples = max(most_members * (most_members - 1) * (most_members - 2) // 6, 1)
    signed_3, absolute_3 = np.empty((most_triples, scores)), np.empty((most_triples, scores))
    store, filled = np.empty(triples, dtype=np.float32), 0
    stored = np.full((rivals, rivals, rivals), -1, dtype=np.int64)
    lower, upper, wide = 0.0, 0.0, 0
    for i in range(states):
        count = 0
        while count < rivals and members[i, count] >= 0:
            count += 1
        most, added = chances[i].max(), min(chances[i].sum(), 1.0)
        share = shares[i]
        if added - most <= share or count < 2:
            lower += masses[i] * most
            upper += masses[i] * added
            continue
        first, last, cut = own_scores(
            bases[i][ends], low[ends], plus[0], strides[0], own, own_law, exit_mass, rows, mine
        )
        span = last - first
        near = rows[:, :, first:last].copy()
        outer = exits[0] + exits[-1]
        slack, terms = 2.0 * outer + cut + loose, 1
        for a in range(count):
            k = members[i, a]
            law = joint_law(np.array([k + 1, rivals + 1, 0]), walk, 1.0, buffer, spare)
            places = np.array([k + 1, rivals + 1])
            means(
                law,
                bases[i][places],
                low[places],
                plus[k + 1],
                strides[k + 1],
                beats[kept[k], :, first:last],
                near,
                mine[first:last],
                weight[:span],
                loss[a, :, : sizes[k + 1], :span],
                bad[a, :span],
                largest[a, :span],
                second[a, :span],
            )
            slack += 2.0 * (outer + exits[k + 1])
            terms += 1
        good = 1.0 - bad[:count, :span]
        for a in range(count):
            for b in range(a + 1, count):
                one, other = (a, b) if members[i, a] < members[i, b] else (b, a)
                k, m = members[i, one], members[i, other]
                at, size = begins[k, m], sizes[k + 1] * sizes[m + 1] * common * sizes[0]
                pair_terms(
                    laws[at : at + size],
                    exit_mass / size,
                    (sizes[k + 1], sizes[m + 1], common, sizes[0]),
                    near,
                    loss[one, :, :, :span],
                    loss[other, :, :, :span],
                    weight[:span],
                    signed[a, b, :span],
                    absolute[a, b, :span],
                    square[a, b, :span],
                )
                slack += 2.0 * (outer + exits[k + 1] + exits[m + 1] + exit_mass)
                terms += 1
        names, place = _triple_names(count)
        gains, is_exact = np.zeros(names.shape[0]), np.zeros(names.shape[0], dtype=np.bool_)
        center = _second_order(mine[first:last], good, signed)
        _cheap_triples(good, (signed, absolute, square), (largest, second), names, absolute_3, gains)
        radius = gains.sum()
        center_3, radius_3 = center, radius
        if 2.0 * (radius + slack) > share and triples > 0:
            rest, narrow = radius, 0.0
            for t in np.argsort(-gains):
                if rest <= share / 8.0:
                    break
                order = np.argsort(members[i, names[t]])
                a, b, e = names[t][order]
                k, m, o = members[i, a], members[i, b], members[i, e]
                size = sizes[k + 1] * sizes[m + 1] * sizes[o + 1] * common * sizes[0]
                at = stored[k, m, o]
                if at < 0:
                    if states == 1:
                        filled = 0  # each law is needed once only
                    if filled + 2 * size > triples:
                        continue
                    at, filled = filled, filled + size
                    stored[k, m, o] = at
                    law_32 = joint_law(
                        np.array([k + 1, m + 1, o + 1, rivals + 1, 0]),
                        walk_32,
                        np.float32(_START_32),
                        store[at : at + size],
                        store[at + size : at + 2 * size],
                    )
                    store[at : at + size] = law_32
                triple_terms(
                    store[at : at + size],
                    np.float32(_START_32 * exit_mass / size),
                    (sizes[k + 1], sizes[m + 1], sizes[o + 1], common, sizes[0]),
                    near,
                    loss[a, :, :, :span],
                    loss[b, :, :, :span],
                    loss[e, :, :, :span],
                    weight[:span],
                    both[:, :span],
                    signed_3[t, :span],
                    absolute_3[t, :span],
                )
                inexact = (5.0 * deviates.shape[0] + 8.0) * _UNIT_32
                for s in range(span):
                    signed_3[t, s] /= _START_32
                    absolute_3[t, s] *= (1.0 + inexact) / _START_32
                    narrow += inexact * absolute_3[t, s]
                is_exact[t] = True
                rest -= gains[t]
                slack += 2.0 * (outer + exits[k + 1] + exits[m + 1] + exits[o + 1] + exit_mass)
                terms += 1
            radius, third, radius_3 = _third_order(good, names, place, is_exact, signed_3, absolute_3, square, largest)
            center_3, radius_3 = center + third, radius_3 + narrow
        slack += 1e-13 + (roundings + 6.0 * deviates.shape[0] + 200.0) * UNIT * (2.0 + 4.0 * terms)
        below = max(1.0 - min(center + radius, center_3 + radius_3) - slack, most)
        above = min(1.0 - max(center - radius, center_3 - radius_3) + slack + dropped[i], added)
        lower += masses[i] * below
        upper += masses[i] * max(above, below)
        wide += above - below > share
    return lower, upper, wide
