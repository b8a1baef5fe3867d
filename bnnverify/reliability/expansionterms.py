"""Terms of the expansion: what one, two and three rivals contribute at every score of the right class.

`law` is a joint law of disagreements (`jointlaws`), the disagreements of c fastest; `rows` the law of c's score by its
disagreements; `loss` (d) the difference between a rival's mean chance and its chance at its disagreements.
"""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit


@njit(nogil=True)
def _add_row(total, row, mass):  # type: ignore[no-untyped-def]
    for s in range(total.shape[0]):
        total[s] += mass * row[s]


@njit(nogil=True)
def _blend(total, law, rows, floor):  # type: ignore[no-untyped-def]
    """``total[s] = sum_x law[x] * rows[x, s]`` over the masses above `floor`; False if there is none."""
    found = False
    for x in range(law.shape[0]):
        if law[x] > floor:
            if not found:
                total[:] = 0.0
                found = True
            _add_row(total, rows[x], law[x])
    return found


@njit(nogil=True)
def _add_pair(weight, one, other, signed, absolute, square):  # type: ignore[no-untyped-def]
    for s in range(weight.shape[0]):
        both = one[s] * other[s]
        signed[s] += weight[s] * both
        absolute[s] += weight[s] * abs(both)
        square[s] += weight[s] * (both * both)


@njit(nogil=True)
def _add_triple(weight, both, third, signed, absolute):  # type: ignore[no-untyped-def]
    for s in range(weight.shape[0]):
        term = weight[s] * (both[s] * third[s])
        signed[s] += term
        absolute[s] += abs(term)


@njit(nogil=True)
def pair_terms(  # type: ignore[no-untyped-def]
    law, floor, widths, rows, one, other, weight, signed, absolute, square
):
    """E[1(s) d_k d_l], its absolute value's and its square's, from the joint law of (k, l, common, c)."""
    signed[:] = 0.0
    absolute[:] = 0.0
    square[:] = 0.0
    at, width = 0, widths[3]
    for x in range(widths[0]):
        for y in range(widths[1]):
            for z in range(widths[2]):
                if _blend(weight, law[at : at + width], rows[z], floor):
                    _add_pair(weight, one[z, x], other[z, y], signed, absolute, square)
                at += width


@njit(nogil=True)
def triple_terms(  # type: ignore[no-untyped-def]
    law, floor, widths, rows, one, other, third, weight, both, signed, absolute
):
    """E[1(s) d_k d_l d_m] and its absolute value's, from the joint law of (k, l, m, common, c)."""
    signed[:] = 0.0
    absolute[:] = 0.0
    at, width = 0, widths[4]
    for x in range(widths[0]):
        for y in range(widths[1]):
            for z in range(widths[3]):
                for s in range(both.shape[1]):
                    both[z, s] = one[z, x, s] * other[z, y, s]
            for v in range(widths[2]):
                for z in range(widths[3]):
                    if _blend(weight, law[at : at + width], rows[z], floor):
                        _add_triple(weight, both[z], third[z, v], signed, absolute)
                    at += width


@njit(nogil=True)
def _table_row(count, common, plus, stride, rows):  # type: ignore[no-untyped-def]
    """Row of a class's table for a count of its disagreements: of all of them if `stride` is 0.

    Else of those on cells stored -1; those on the `plus` cells stored +1 follow from the number `common` of positive
    signs.
    """
    if stride == 0:
        return min(max(count, 0), rows - 1)
    return min(max(plus + count - common, 0), plus) * stride + min(max(count, 0), stride - 1)


@njit(nogil=True)
def own_scores(base, low, plus, stride, own, own_law, exit_mass, rows, mine):  # type: ignore[no-untyped-def]
    """Law of the score of c into `mine`; (first, last) score that matters and the mass of the others.

    `base` and `low`: of c, then of the number of positive signs.
    """
    mine[:] = 0.0
    some = np.empty_like(mine)
    width = rows.shape[1]
    for z in range(rows.shape[0]):
        for x in range(width):
            rows[z, x] = own[_table_row(base[0] + low[0] + x, base[1] + low[1] + z, plus, stride, own.shape[0])]
        if _blend(some, own_law[z * width : (z + 1) * width], rows[z], 0.0):
            mine += some
    first, last, cut = 0, mine.shape[0], 0.0
    while first < last and cut + mine[first] <= exit_mass / 2.0:
        cut += mine[first]
        first += 1
    while last > first and cut + mine[last - 1] <= exit_mass:
        cut += mine[last - 1]
        last -= 1
    return first, last, cut


@njit(nogil=True)
def means(  # type: ignore[no-untyped-def]
    law, base, low, plus, stride, beats, rows, mine, weight, loss, bad, largest, second
):
    """The constants b(s) of one rival, d = b - B at every disagreement, its largest value and E[1(s) d^2].

    `base` and `low`: of the rival, then of the number of positive signs.
    """
    common, size, width = loss.shape[0], loss.shape[1], rows.shape[1]
    bad[:] = 0.0
    for x in range(size):
        for z in range(common):
            loss[z, x] = beats[_table_row(base[0] + low[0] + x, base[1] + low[1] + z, plus, stride, beats.shape[0])]
            at = (x * common + z) * width
            if _blend(weight, law[at : at + width], rows[z], 0.0):
                for s in range(bad.shape[0]):
                    bad[s] += weight[s] * loss[z, x, s]
    for s in range(bad.shape[0]):
        bad[s] = min(bad[s] / mine[s], 1.0) if mine[s] > 0.0 else 0.0
        largest[s] = 0.0
        second[s] = 0.0
    for x in range(size):
        for z in range(common):
            at = (x * common + z) * width
            some = _blend(weight, law[at : at + width], rows[z], 0.0)
            for s in range(bad.shape[0]):
                loss[z, x, s] = bad[s] - loss[z, x, s]
                largest[s] = max(largest[s], abs(loss[z, x, s]))
                if some:
                    second[s] += weight[s] * loss[z, x, s] * loss[z, x, s]
