"""First coefficients of the fault enumerator of networks of any size: sets of 1, 2, 3, ... flips with the event.

No cells are enumerated. With the input of a block fixed, a neuron that needs f flips to change its sign does so in
sets of k flips that a few binomials count: u cells that help and v that hinder, ``u - v >= f``. Only neurons with f up
to the order can change at all, so few vectors of signs occur, each with a polynomial that counts its flip sets, modulo
``z^(K+1)``. Behind the last hidden block only the disagreements of the label and of the rivals within reach matter:
vectors that agree in these are one. There the rows of the output block are independent again.

References:
    Ours. Truncated generating functions: Wilf, generatingfunctionology, 1994, Ch. 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import comb

import numpy as np
from flint import fmpz_poly
from numpy.typing import ArrayLike

from bnnverify.domain import IntArray
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.network import BinaryNetwork, DenseBlock
from bnnverify.packing import score_ranks
from bnnverify.reliability.critical import critical_cells
from bnnverify.reliability.enumerators import PartialEnumerator
from bnnverify.reliability.flipplan import FlipPlan
from bnnverify.reliability.flipsearch import rival_cost
from bnnverify.reliability.margins import NEVER, flips_needed
from bnnverify.reliability.memory import require_memory
from bnnverify.results import Run
from bnnverify.scalars import integer

_METHOD = "fault-coefficients"
_KEPT = 1 << 16  # polynomials of each kind


@about_cells
def fault_coefficients(
    network: BinaryNetwork,
    x: ArrayLike,
    label: int | None = None,
    *,
    order: int = 3,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> PartialEnumerator:
    """How many sets of 0, 1, ..., `order` flips change the class of x, exact.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        x: An input of the domain.
        label: Sets after which the class is not the label (error); default: not the fault-free class (change).
        order: Greatest number of flips K.
        limits: Wall time; reached, fewer coefficients come, with the reason.
        monitor: Who may stop it.

    Returns:
        A_0..A_K as integers, with the interval that they prove at any bit error rate. With convolutions A_0 and A_1.

    Raises:
        QueryError: The label does not exist, or the order is negative.
        UnsupportedError: Integer inputs without a hidden block.
        ResourceLimitError: Integer inputs so large that the table of their sums does not fit into memory.

    >>> from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(3), (), OutputBlock.create([[1, 1, 1], [1, -1, 1]]))
    >>> fault_coefficients(net, [1, 1, 1], order=2).counts  # class 0 leads by 2, and wins ties
    (0, 0, 6)
    """
    counter = CoefficientCounter(network, order)
    return counter.count(x, label, Clock(limits.seconds, monitor))


class _TimeIsOverError(Exception):
    """The clock ran out within one order."""


class CoefficientCounter:
    """Coefficients of many images of one network, sharing its tables.

    Attributes:
        order: Coefficients go up to here: what was asked, at most the number of cells, 1 with convolutions.
        reason: Why that is less than what was asked, or empty.
    """

    def __init__(self, network: BinaryNetwork, order: int) -> None:
        order = integer(order, "the order", least=0)
        self.network = network
        self.order, self.reason = min(order, network.n_cells), ""
        if network.has_convolutions and order > 1:
            self.order = min(1, network.n_cells)
            self.reason = "sets of two and more cells of convolutions are not counted"
        self._plan = FlipPlan(network)
        self._blocks = self._plan.dense
        self._ranks = score_ranks(network.output).tolist()
        self._present = [np.count_nonzero(block.weights, axis=1) for block in self._blocks]
        self._output_cells = [int(n) for n in np.count_nonzero(network.output.weights, axis=1)]

    def count(self, x: ArrayLike, label: int | None = None, clock: Clock | None = None) -> PartialEnumerator:
        """As `fault_coefficients`."""
        network, clock = self.network, clock or Clock(None)
        point = network.domain.require(x)
        part = self._plan.lay_out(point[None])
        reference = int(part.clean[0]) if label is None else network.require_class(label)
        if network.has_convolutions:
            single = critical_cells(network, point[None], [reference]).per_image[0]
            wrong = int(part.clean[0] != reference)
            counts = (wrong, int(network.n_cells - single[2] if wrong else single[1]))[: self.order + 1]
            return PartialEnumerator(counts, network.n_cells, Run(_METHOD, clock.elapsed, self.reason))
        if part.clean[0] == reference:
            least = self._plan.search(part, 0, reference, self.order, lambda: clock.is_over).lower
            if least > self.order:
                return PartialEnumerator(
                    (0,) * (self.order + 1), network.n_cells, Run(_METHOD, clock.elapsed, self.reason)
                )
        # with a limit, order by order: what was finished stays
        reason = self.reason
        known: tuple[int, ...] = (int(part.clean[0] != reference),)
        orders = range(1, self.order + 1) if clock.limit is not None or clock.monitor is not None else [self.order]
        try:
            for order in orders if self.order else []:
                known = _Expansion(self, reference, order, clock).counts(point)
        except _TimeIsOverError:
            reason = f"{clock.reason}; {len(known) - 1} of {self.order} orders"
        return PartialEnumerator(known, network.n_cells, Run(_METHOD, clock.elapsed, reason))


class _Expansion:
    """The coefficients up to one order, of one image."""

    def __init__(self, counter: CoefficientCounter, reference: int, order: int, clock: Clock) -> None:
        self.counter, self.reference, self.order, self.clock = counter, reference, order, clock
        self.network, self.blocks = counter.network, counter._blocks

    def counts(self, x: IntArray) -> tuple[int, ...]:
        error = self._after(0, x, self.order)
        found = [int(a) for a in error.coeffs()]
        return tuple(found + [0] * (self.order + 1 - len(found)))

    def _after(self, level: int, h: IntArray, left: int) -> fmpz_poly:
        """Sets of at most `left` flips in block `level` and behind it with the event, if the block's input is h."""
        if self.clock.is_over:
            raise _TimeIsOverError
        if level == len(self.blocks):
            return self._behind(h, [], fmpz_poly([1]), left)
        block, signs_in = self.blocks[level], level > 0 or self.network.domain.is_binary
        rows = flips_needed(block, h[None], is_signs=signs_in)
        signs, needed = rows[0][0], rows[1][0]
        present = self.counter._present[level]
        uncertain = np.flatnonzero(needed <= left)
        base = powers(int(present.sum() - present[uncertain].sum()), left)
        choices: list[tuple[int, int, fmpz_poly]] = []
        for j in uncertain.tolist():
            switched = self._switched(block, h, j, bool(signs[j] > 0), int(needed[j]), left, signs_in)
            kept = powers(int(present[j]), left) - switched
            base = base.mul_low(kept, left + 1)
            choices.append((j, int(needed[j]), _ratio(switched, kept, left)))
        if level + 1 == len(self.blocks):
            return self._behind(signs, choices, base, left, needed)
        total = fmpz_poly([0])
        for chosen, spent, weight in _subsets(choices, left):
            moved = signs.copy()
            moved[list(chosen)] *= -1
            behind = self._after(level + 1, moved, left - spent)
            if behind:
                total += weight.mul_low(behind, left + 1)
        return base.mul_low(total, left + 1)

    def _switched(
        self, block: DenseBlock, h: IntArray, j: int, fires: bool, needed: int, left: int, signs_in: bool
    ) -> fmpz_poly:
        """Sets of at most `left` flips of the cells of neuron j after which it has the other sign."""
        products = block.weights[j] * h
        if signs_in:
            agreeing = int(np.count_nonzero(products > 0))
            hinder = int(np.count_nonzero(products < 0))
            pair = (agreeing, hinder) if fires else (hinder, agreeing)
            return switching_sets(*pair, needed, left)
        toward = (products if fires else -products)[block.weights[j] != 0]
        total, threshold = int(products.sum()), int(block.thresholds[j])
        missing = total - threshold + 1 if fires else threshold - total
        return _integer_sets(toward.tolist(), -(-missing // 2), left)

    def _behind(
        self,
        signs: IntArray,
        choices: list[tuple[int, int, fmpz_poly]],
        base: fmpz_poly,
        left: int,
        needed: IntArray | None = None,
    ) -> fmpz_poly:
        """Error sets of the last hidden block and the output block: states are the disagreements that matter."""
        output, reference = self.network.output, self.reference
        rivals = self._rivals(signs, needed, left)
        if not rivals:
            return fmpz_poly([0])
        tracked = [reference, *rivals]
        agreement = output.weights[tracked] * signs
        start = tuple(int(d) for d in np.count_nonzero(agreement < 0, axis=1))
        states: dict[tuple[int, ...], tuple[int, fmpz_poly]] = {start: (0, fmpz_poly([1]))}
        for j, cost, ratio in choices:
            moves = agreement[:, j].tolist()  # a switch makes agreeing cells disagree
            following = dict(states)
            for state, (spent, weight) in states.items():
                if spent + cost > left:
                    continue
                if self.clock.is_over:
                    raise _TimeIsOverError
                there = tuple(d + m for d, m in zip(state, moves, strict=True))
                least, sets = spent + cost, weight.mul_low(ratio, left + 1)
                if there in following:
                    least, sets = min(least, following[there][0]), sets + following[there][1]
                following[there] = least, sets
            states = following
        total = fmpz_poly([0])
        for state, (spent, weight) in states.items():
            wrong = self._wrong(tracked, state, left - spent)
            if wrong:
                total += weight.mul_low(wrong, left + 1)
        others = sum(n for k, n in enumerate(self.counter._output_cells) if k not in tracked)
        return base.mul_low(total, left + 1).mul_low(powers(others, left), left + 1)

    def _rivals(self, signs: IntArray, needed: IntArray | None, left: int) -> list[int]:
        """Classes that at most `left` flips bring ahead of the reference."""
        flips = np.full(signs.shape, NEVER, dtype=np.int64) if needed is None else needed
        counts = np.zeros(3, dtype=np.int64)
        arguments = (signs, flips, *self.counter._plan._output, self.reference)
        return [
            k
            for k in range(self.network.n_classes)
            if k != self.reference and rival_cost(*arguments, k, left, counts) <= left
        ]

    def _wrong(self, tracked: list[int], disagreements: tuple[int, ...], left: int) -> fmpz_poly:
        """Sets of at most `left` flips of the tracked rows after which some rival is ahead."""
        ranks, cells = self.counter._ranks, self.counter._output_cells
        reference, *rivals = tracked
        own, *others = disagreements
        size = left + 1
        tables = [cumulative_shifts(cells[k] - d, d, left) for k, d in zip(rivals, others, strict=True)]
        correct, reachable = fmpz_poly([0]), False
        mine = shifts(cells[reference] - own, own, left)
        for shift in range(-left, left + 1):
            law = mine[shift + left]
            if not law:
                continue
            score = ranks[reference][own + shift]
            product = law
            for k, d, table in zip(rivals, others, tables, strict=True):
                behind, is_all = _not_ahead(ranks[k], d, cells[k], table, score, k < reference, left)
                reachable |= not is_all
                product = product.mul_low(behind, size)
            correct += product
        if not reachable:
            return fmpz_poly([0])
        return powers(cells[reference] + sum(cells[k] for k in rivals), left) - correct


def _not_ahead(
    ranks: list[int], d: int, n: int, table: tuple[fmpz_poly, ...], score: int, wins_ties: bool, left: int
) -> tuple[fmpz_poly, bool]:
    """Flip sets of a rival's row after which it is not ahead of `score`, and whether that is all within reach."""
    low, high = max(-left, -d), min(left, n - d)  # shifts of the disagreements that cells allow

    def behind(shift: int) -> bool:
        rank = ranks[d + shift]
        return rank < score or (rank == score and not wins_ties)

    if behind(low) and behind(high):
        return table[-1], True
    if not behind(low) and not behind(high):
        return fmpz_poly([0]), False
    # ranks are monotone in the disagreements: one end is behind, the other is not
    ascending = behind(low)
    first, last = low, high  # the sides of the change
    while last - first > 1:
        middle = (first + last) // 2
        if behind(middle) == ascending:
            first = middle
        else:
            last = middle
    at_most_first = table[first + left]
    return (at_most_first if ascending else table[-1] - at_most_first), False


def _subsets(choices: list[tuple[int, int, fmpz_poly]], left: int) -> Iterator[tuple[tuple[int, ...], int, fmpz_poly]]:
    """Sets of neurons that at most `left` flips switch: the neurons, their flips, their flip sets relative to base."""
    stack: list[tuple[tuple[int, ...], int, fmpz_poly, int]] = [((), 0, fmpz_poly([1]), 0)]
    while stack:
        chosen, spent, weight, first = stack.pop()
        yield chosen, spent, weight
        for at in range(first, len(choices)):
            j, cost, ratio = choices[at]
            if spent + cost <= left:
                stack.append(((*chosen, j), spent + cost, weight.mul_low(ratio, left + 1), at + 1))


def _ratio(switched: fmpz_poly, kept: fmpz_poly, left: int) -> fmpz_poly:
    """``switched / kept`` modulo ``z^(left+1)``: integers, since the sets that keep a sign begin with the empty one."""
    top, bottom = ([int(c) for c in poly.coeffs()] + [0] * (left + 1) for poly in (switched, kept))
    found: list[int] = []
    for k in range(left + 1):
        found.append(top[k] - sum(bottom[i] * found[k - i] for i in range(1, k + 1)))
    return fmpz_poly(found)


@lru_cache(_KEPT)
def powers(n: int, left: int) -> fmpz_poly:
    """``(1 + z)^n`` up to ``z^left``: all sets of flips of n cells."""
    return fmpz_poly([comb(n, k) for k in range(left + 1)])


@lru_cache(_KEPT)
def switching_sets(helpful: int, hindering: int, needed: int, left: int) -> fmpz_poly:
    """Sets of at most `left` flips in which helpful ones lead by at least `needed`."""
    counts = [0] * (left + 1)
    for u in range(needed, min(helpful, left) + 1):
        for v in range(min(u - needed, hindering, left - u) + 1):
            counts[u + v] += comb(helpful, u) * comb(hindering, v)
    return fmpz_poly(counts)


@lru_cache(_KEPT)
def shifts(agreeing: int, disagreeing: int, left: int) -> tuple[fmpz_poly, ...]:
    """Sets of at most `left` flips of a row, by what they add to its disagreements: from ``-left`` to `left`."""
    found = [[0] * (left + 1) for _ in range(2 * left + 1)]
    for u in range(min(agreeing, left) + 1):
        for v in range(min(disagreeing, left - u) + 1):
            found[u - v + left][u + v] += comb(agreeing, u) * comb(disagreeing, v)
    return tuple(fmpz_poly(counts) for counts in found)


@lru_cache(_KEPT)
def cumulative_shifts(agreeing: int, disagreeing: int, left: int) -> tuple[fmpz_poly, ...]:
    """Running sums of `shifts`: sets that add at most so many disagreements."""
    total, sums = fmpz_poly([0]), []
    for law in shifts(agreeing, disagreeing, left):
        total += law
        sums.append(total)
    return tuple(sums)


def _integer_sets(toward: list[int], missing: int, left: int) -> fmpz_poly:
    """Sets of at most `left` cells whose values in `toward` add up to at least `missing`."""
    reach = max((abs(v) for v in toward), default=0) * left
    what = f"the table of sums of up to {left} of the integer inputs, which add up to as much as {reach},"
    require_memory((left + 1) * (2 * reach + 1), what, "Take inputs of fewer levels, or a lower order.")
    values, cells = np.unique(np.array(toward, dtype=np.int64), return_counts=True)
    most = max(comb(len(toward), k) for k in range(left + 1))
    kind = np.int64 if most < 2**62 else object
    sums = np.zeros((left + 1, 2 * reach + 1), dtype=kind)  # by flips and by their sum
    sums[0, reach] = 1
    for value, n in zip(values.tolist(), cells.tolist(), strict=True):
        following = sums.copy()
        for r in range(1, min(n, left) + 1):
            shift, ways = r * value, comb(n, r)
            for k in range(left - r + 1):
                # sums of k cells stay within k times the largest: nothing leaves the table
                following[k + r] += ways * np.roll(sums[k], shift)
        sums = following
    first = min(max(missing + reach, 0), 2 * reach + 1)
    return fmpz_poly([int(sums[k, first:].sum()) for k in range(left + 1)])
