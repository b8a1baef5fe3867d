"""What the certified engine knows of the output block before it sees an image: tables for one class and one rate.

With the hidden signs h fixed, the scores of the classes are independent, because they use different cells. The law
of a score depends only on the *disagreements* of its row with h: one number per class if the flips are symmetric,
else two (stored +1, stored -1). From these numbers:

- `beats[k]`, `loses[k]`: P(rival k beats class c | S_c) for every value of the score of c;
- `pair`: P(rival k beats class c), both scores random.

References:
    Ours; the independence of classes given h is elementary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.faults import CellRates
from bnnverify.network import OutputBlock
from bnnverify.packing import score_ranks
from bnnverify.reliability import arrays
from bnnverify.reliability.laws import FloatArray, RowLaw, RowLaws
from bnnverify.reliability.rounding import rounded_rate


@dataclass(frozen=True, slots=True)
class OutputTables:
    """Tables of the output block against one class.

    Attributes:
        label: The class c.
        rivals: The other classes.
        components: Disagreement counters per class: 1 (symmetric rates) or 2.
        strides: Per class: leaf index = ``counter0 * stride + counter1``.
        own: `(leaf indices, n + 1)`: law of the disagreements of c after the faults.
        beats: `(rivals, leaf indices, n + 1)`: P(rival beats c | disagreements of c after the faults); a rival with
            fewer leaf indices has zeros behind.
        loses: The complements, summed directly.
        pair: `(rivals, size)`: P(rival beats c) by pair index; empty if there is no small pair index.
        pair_index: (factor of c, factor of rival, offset): pair index = their sum over total disagreements.
        roundings: At most so many in any entry.
    """

    label: int
    rivals: tuple[int, ...]
    components: int
    strides: tuple[int, ...]
    own: FloatArray
    beats: FloatArray
    loses: FloatArray
    pair: FloatArray
    pair_index: tuple[int, int, int]
    roundings: int


def output_tables(output: OutputBlock, rates: CellRates, laws: RowLaws, label: int) -> OutputTables:
    """Tables for the class `label`, all rivals."""
    n = output.n_inputs
    rivals = tuple(k for k in range(output.n_classes) if k != label)
    components = 1 if rates.is_symmetric else 2
    class_laws = [_class_laws(row, components, laws) for row in output.weights]
    strides = tuple(1 if components == 1 else int(np.count_nonzero(row == -1)) + 1 for row in output.weights)
    own = np.zeros((len(class_laws[label]), n + 1))
    for i, law in enumerate(class_laws[label]):
        own[i, : law.mass.size] = law.mass
    ranks = score_ranks(output)
    beats, loses = [], []
    for k in rivals:
        win, lose = _against(output, ranks, class_laws[k], k, label)
        beats.append(win)
        loses.append(lose)
    pair, index = _pair_tables(output, rates, label, rivals, own, beats)
    return OutputTables(
        label,
        rivals,
        components,
        strides,
        own,
        _stacked(beats, n),
        _stacked(loses, n),
        pair,
        index,
        roundings=14 * (n + 2),
    )


def _stacked(tables: list[FloatArray], n: int) -> FloatArray:
    """Tables of `n + 1` columns above each other, filled up with zeros."""
    stacked = np.zeros((len(tables), max((len(t) for t in tables), default=0), n + 1))
    for whole, part in zip(stacked, tables, strict=True):
        whole[: len(part)] = part
    return stacked


def _class_laws(row: NDArray[np.int8], components: int, laws: RowLaws) -> list[RowLaw]:
    """Laws of one class in the order of its leaf index."""
    plus, minus = int(np.count_nonzero(row == 1)), int(np.count_nonzero(row == -1))
    if components == 1:
        n = plus + minus
        return [laws.law(n - d, 0, d, 0) for d in range(n + 1)]
    return [laws.law(plus - a, minus - b, a, b) for a in range(plus + 1) for b in range(minus + 1)]


def _against(
    output: OutputBlock, ranks: NDArray[np.int32], laws: list[RowLaw], k: int, label: int
) -> tuple[FloatArray, FloatArray]:
    """P(k beats / does not beat the label), by (leaf index of k, disagreements of the label after the faults)."""
    present = laws[0].mass.size - 1
    mine, theirs = ranks[label][None, :], ranks[k, : present + 1, None]
    winning = np.count_nonzero((theirs >= mine) if k < label else (theirs > mine), axis=0)
    below = np.zeros((len(laws), present + 2))  # below[i, t] = P(D' < t), above_or[i, t] = P(D' >= t)
    above_or = np.zeros((len(laws), present + 2))
    for i, law in enumerate(laws):
        below[i, 1:] = law.at_most
        above_or[i, 0] = law.at_most[-1]
        above_or[i, 1:] = law.above
    if output.scale[k] >= 0:  # few disagreements, high score; with scale 0 all win or none
        return below[:, winning], above_or[:, winning]
    return above_or[:, present + 1 - winning], below[:, present + 1 - winning]


def _pair_tables(
    output: OutputBlock,
    rates: CellRates,
    label: int,
    rivals: tuple[int, ...],
    own: FloatArray,
    beats: list[FloatArray],
) -> tuple[FloatArray, tuple[int, int, int]]:
    n = output.n_inputs
    if output.has_common_scale and output.scale[0] > 0 and (output.weights != 0).all():
        table = np.stack([_difference_table(output, rates, label, k) for k in rivals])
        return table, (-1, 1, n)  # by the difference of the disagreements
    if not rates.is_symmetric:
        return np.zeros((len(rivals), 0)), (0, 0, 0)
    table = np.zeros((len(rivals), (n + 1) * (n + 1)))
    for i, win in enumerate(beats):
        both = _sums_of_products(own, win)
        table[i].reshape(n + 1, n + 1)[: both.shape[0], : both.shape[1]] = both
    return table, (n + 1, 1, 0)


@njit
def _sums_of_products(own, win):  # type: ignore[no-untyped-def]
    """``own @ win.T`` with the roundings of a plain loop (a BLAS product promises less)."""
    result = np.zeros((own.shape[0], win.shape[0]))
    for a in range(own.shape[0]):
        for b in range(win.shape[0]):
            total = 0.0
            for s in range(own.shape[1]):
                total += own[a, s] * win[b, s]
            result[a, b] = total
    return result


def _difference_table(output: OutputBlock, rates: CellRates, label: int, k: int) -> FloatArray:
    """P(k beats the label) by the difference of their disagreements (of k minus of the label) plus n.

    All rows are full and share one positive scale s. With g flips among the two cells of a position: where the
    rows differ, the difference moves from +1 to 1 - g or from -1 to g - 1; where they agree it moves from 0 by
    the difference of two equal flips. So its law depends on the sum of the differences alone, not on where.
    """
    n = output.n_inputs
    mine, theirs = output.weights[label], output.weights[k]
    bound = (output.bias[k] - output.bias[label]) / (2 * output.scale[0])  # wins iff D' <= bound (< if k > label)
    limit = int(bound // 1)
    if k > label and bound == limit:
        limit -= 1
    limit = max(-n - 1, min(limit, n))  # beyond: never or always
    (plus, not_plus), (minus, not_minus) = rounded_rate(rates.plus), rounded_rate(rates.minus)
    same_plus = int(np.count_nonzero((mine == theirs) & (mine == 1)))
    same_minus = int(np.count_nonzero((mine == theirs) & (mine == -1)))
    table = np.zeros(2 * n + 1)
    counts = np.array([same_plus, same_minus, n - same_plus - same_minus], dtype=np.int64)
    calls, elements = 3 * n + 9 * counts[2], 10 * n * (n + 2 * counts[2])
    tails = arrays.difference_tails if arrays.are_enough(_difference_tails, calls, elements) else _difference_tails
    tails(plus, not_plus, minus, not_minus, counts, limit, table)
    return table


@njit
def _add_step(law, down, stay, up):  # type: ignore[no-untyped-def]
    """Law of the sum plus an independent step of -1, 0 or +1."""
    before = 0.0
    for k in range(law.shape[0]):
        here, after = law[k], law[k + 1] if k + 1 < law.shape[0] else 0.0
        law[k] = here * stay + before * up + after * down
        before = here


@njit
def _difference_tails(plus, not_plus, minus, not_minus, counts, limit, table):  # type: ignore[no-untyped-def]
    """Fill ``table[n + D]`` = P(D' <= limit | D) for every D that `counts` = (same +1, same -1, different) allows.

    Of m positions where the rows differ, the rival disagrees in a. With P_a the law of the sum of the equal positions
    and of a such steps, and W_b(v) = P(v + b steps of the other kind <= limit), the entry is the sum over v of
    P_a(v) W_(m-a)(v). P and W each grow by one step at a time, so all entries take O(m n).
    """
    n = counts.sum()
    law = np.zeros(2 * n + 1)  # entry n + v: P(sum = v)
    law[n] = 1.0
    for group in range(2):
        flip, keep = (plus, not_plus) if group == 0 else (minus, not_minus)
        for _ in range(counts[group]):
            _add_step(law, flip * keep, flip * flip + keep * keep, flip * keep)
    none, both = not_plus * not_minus, plus * minus
    one = plus * not_minus + not_plus * minus
    different = counts[2]
    reaches = np.zeros((different + 1, 2 * n + 1))  # W
    reaches[0, : max(min(limit + n, 2 * n) + 1, 0)] = 1.0
    for b in range(1, different + 1):
        reaches[b] = reaches[b - 1]
        _add_step(reaches[b], both, one, none)
    for ahead in range(different + 1):
        total = 0.0
        for i in range(2 * n + 1):
            total += law[i] * reaches[different - ahead, i]
        table[n + 2 * ahead - different] = total
        _add_step(law, both, one, none)
