"""A network laid out for the search of least flips: what its loops take, and cells from what they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.convolution import ConvBlock
from bnnverify.domain import IntArray
from bnnverify.errors import UnsupportedError
from bnnverify.network import BinaryNetwork, DenseBlock
from bnnverify.packing import score_ranks
from bnnverify.reliability import flipsearch
from bnnverify.reliability.margins import NEVER, Cell, exact_product, flips_needed, switching_cells

_DIVE_AT = 6  # budget before which a good set is looked for
_VISITS = 20_000  # sets of neurons between two looks at the clock: some hundredths of a second


@dataclass(frozen=True, slots=True)
class Layout:
    """Some images on the fault-free network.

    Attributes:
        points: Inputs, shape `(N, n)`.
        clean: Fault-free classes.
        front: What the dense blocks at the end take.
        signs: Outputs of the first of them, shape `(N, m)`; `front` itself if there is none.
        needed: Flips that each of these neurons needs to change, `NEVER` where there is none.
    """

    points: IntArray
    clean: IntArray
    front: IntArray
    signs: IntArray
    needed: IntArray


@dataclass(frozen=True, slots=True)
class Found:
    """Bounds on the least number of flips, and cells of the upper one."""

    lower: int
    upper: int | None
    cells: tuple[Cell, ...] | None
    reason: str = ""
    statistics: Mapping[str, Any] = field(default_factory=dict)


class FlipPlan:
    """The dense blocks at the end of a network, as arrays; what comes before them stays as it is."""

    def __init__(self, network: BinaryNetwork) -> None:
        if not network.blocks and not network.domain.is_binary:
            raise UnsupportedError("the network has integer inputs and no hidden block; expected at least one.")
        self.network = network
        places = [i for i, block in enumerate(network.blocks) if isinstance(block, ConvBlock)]
        self.first = places[-1] + 1 if places else 0
        self.dense = tuple(block for block in network.blocks[self.first :] if isinstance(block, DenseBlock))
        self.n_cells = sum(block.n_cells for block in network.all_blocks[self.first :])
        output = network.output
        scales = [abs(scale) for scale in output.scale]
        order = sorted(set(scales))
        self._output = (
            output.weights,
            score_ranks(output),
            np.array([(scale > 0) - (scale < 0) for scale in output.scale], dtype=np.int64),
            np.array([order.index(scale) for scale in scales], dtype=np.int64),
        )
        self.widths = np.array([block.n_outputs for block in self.dense], dtype=np.int64)
        if len(self.dense) > 1:
            self._lay_out_blocks()

    def _lay_out_blocks(self) -> None:
        levels, widest = len(self.dense), int(self.widths.max())
        self._columns = np.zeros((levels, widest, widest), dtype=np.int8)
        self._thresholds = np.zeros((levels, widest), dtype=np.int64)
        self._present = np.zeros((levels, widest), dtype=np.int64)
        for level, block in enumerate(self.dense):
            m = block.n_outputs
            self._thresholds[level, :m] = block.thresholds
            self._present[level, :m] = np.count_nonzero(block.weights, axis=1)
            if level:
                self._columns[level, : block.n_inputs, :m] = block.weights.T

    @property
    def method(self) -> str:
        """Name of what finds the distance."""
        return "flip-search" if len(self.dense) > 1 else "flip-formula"

    def lay_out(self, points: IntArray) -> Layout:
        """Images with the signs of the first dense block and the flips that these need."""
        h = points
        for block in self.network.blocks[: self.first]:
            h = block.outputs(h)
        if self.dense:
            is_signs = self.first > 0 or self.network.domain.is_binary
            signs, needed = flips_needed(self.dense[0], h, is_signs=is_signs)
        else:
            signs, needed = h, np.full_like(h, NEVER)
        last = signs
        for block in self.dense[1:]:
            last = np.where(exact_product(last, block.weights) >= block.thresholds, 1, -1)
        clean = self.network.classes_of_sums(exact_product(last, self.network.output.weights))
        return Layout(points, clean, h, signs, needed)

    def search(self, part: Layout, i: int, reference: int, max_flips: int | None, is_over: Callable[[], bool]) -> Found:
        """Bounds for image `i`, whose fault-free class is `reference`."""
        found = self._among_dense(part, i, reference, max_flips, is_over)
        return found if self.first == 0 else self._with_front(part, i, reference, found)

    def _with_front(self, part: Layout, i: int, reference: int, found: Found) -> Found:
        """Bounds over all cells, from those over the dense blocks at the end: single cells of the front are tried."""
        if found.upper == 1:
            return found
        from bnnverify.reliability.critical import first_critical_cell

        cell = first_critical_cell(self.network, part.points[i], reference, self.first)
        if cell is not None:
            return Found(1, 1, (cell,), statistics=found.statistics)
        lower = min(found.lower, 2)
        reason = "" if lower == found.upper else "two and more cells of convolutions are not searched"
        return Found(lower, found.upper, found.cells, reason, found.statistics)

    def _among_dense(
        self, part: Layout, i: int, reference: int, max_flips: int | None, is_over: Callable[[], bool]
    ) -> Found:
        if len(self.dense) > 1:
            return self._searched(part, i, reference, max_flips, is_over)
        counts = np.zeros(3, dtype=np.int64)
        cost, rival = flipsearch.nearest_rival(
            part.signs[i], part.needed[i], *self._output, reference, self.n_cells, counts
        )
        if rival < 0:
            return Found(self.network.n_cells + 1, None, None)
        return Found(cost, cost, self._cells(part.front[i], None, reference, rival))

    def _searched(
        self, part: Layout, i: int, reference: int, max_flips: int | None, is_over: Callable[[], bool]
    ) -> Found:
        """Growing budgets over two or more dense blocks."""
        search = _Search(self, part.signs[i], part.needed[i], reference)
        most = self.n_cells if max_flips is None else min(max_flips, self.n_cells)
        budget, stopped = 0, False
        while not stopped and search.best > budget + 1 and budget < most:
            budget += 1
            if budget == _DIVE_AT:
                search.dive()
                budget = min(budget, search.best - 1)
            search.begin(budget)
            while search.advance(NEVER - 1) == flipsearch.RUNNING and not stopped:
                stopped = is_over()
        lower = budget if stopped or search.best <= budget else budget + 1
        statistics = {"slices": search.slices, "budget": budget}
        if search.rival < 0:
            lower = self.network.n_cells + 1 if lower > self.n_cells else lower
            return Found(lower, None, None, statistics=statistics)
        cells = self._cells(part.front[i], search.best_signs, reference, search.rival)
        return Found(min(lower, search.best), search.best, cells, statistics=statistics)

    def _cells(self, front: IntArray, chosen: NDArray[np.int64] | None, reference: int, rival: int) -> tuple[Cell, ...]:
        """Cells that give the signs `chosen` to all dense blocks but the last, and then move a rival ahead."""
        cells: list[Cell] = []
        h = front
        for level, block in enumerate(self.dense[:-1]):
            assert chosen is not None
            wanted = chosen[level, : block.n_outputs]
            for j in np.flatnonzero(block.outputs(h) != wanted).tolist():
                cells += [(self.first + level, j, i) for i in switching_cells(block, h, j)]
            h = wanted
        place = len(self.network.blocks)
        signs, needed = h, np.full_like(h, NEVER)
        if self.dense:
            is_signs = len(self.dense) > 1 or self.first > 0 or self.network.domain.is_binary
            rows = flips_needed(self.dense[-1], h[None], is_signs=is_signs)
            signs, needed = rows[0][0], rows[1][0]
        counts = np.zeros(3, dtype=np.int64)
        flipsearch.rival_cost(signs, needed, *self._output, reference, rival, self.n_cells, counts)
        weights, _, steps, _ = self._output
        down = (signs * weights[reference] == steps[reference]) & (steps[reference] != 0)
        up = (signs * weights[rival] == -steps[rival]) & (steps[rival] != 0)
        twice = down & up & (needed == 1)
        for j in np.flatnonzero(twice)[: counts[0]].tolist():
            cells += [(place - 1, j, i) for i in switching_cells(self.dense[-1], h, j)]
        cells += [(place, reference, j) for j in np.flatnonzero(down & ~twice)[: counts[1]].tolist()]
        cells += [(place, rival, j) for j in np.flatnonzero(up & ~twice)[: counts[2]].tolist()]
        return tuple(cells)


class _Search:
    """The search over two or more dense blocks for one image: the arrays that the loops work on."""

    def __init__(self, plan: FlipPlan, signs: IntArray, needed: IntArray, reference: int) -> None:
        levels, widest = len(plan.dense), int(plan.widths.max())
        self._clean_signs, self._clean_sums, self._needed = (
            np.zeros((levels, widest), dtype=np.int64) for _ in range(3)
        )
        h = signs
        for level, block in enumerate(plan.dense):
            if level:
                sums = exact_product(h[None], block.weights)[0]
                self._clean_sums[level, : sums.size] = sums
                h = np.where(sums >= block.thresholds, 1, -1)
            self._clean_signs[level, : h.size] = h
        self._needed[0, : needed.size] = needed
        self.best_signs = self._clean_signs.copy()
        self._best = np.array([plan.n_cells + 1, -1], dtype=np.int64)
        self._fixed: tuple[Any, ...] = (plan.widths, plan._columns, plan._thresholds, plan._present, *plan._output)
        self._fixed += (plan.network.output.has_common_scale, reference)
        self.slices = 0
        self.begin(0)

    @property
    def best(self) -> int:
        """Flips of the best set so far; one more than there are cells if none is known."""
        return int(self._best[0])

    @property
    def rival(self) -> int:
        """Class that the best set brings ahead, or -1."""
        return int(self._best[1])

    def begin(self, budget: int) -> None:
        """Start over with this many flips."""
        self._budget = budget
        self._signs, self._sums = self._clean_signs.copy(), self._clean_sums.copy()
        self._frames = np.zeros((budget + len(self._signs) + 1, 6), dtype=np.int64)
        self._frames[0] = 0, 0, budget, 0, -1, 0
        self._top = np.zeros(1, dtype=np.int64)

    def advance(self, dearest: int) -> int:
        """One slice, with neurons that need at most `dearest` flips each."""
        self.slices += 1
        work = (self._clean_signs, self._clean_sums, self._signs, self._needed, self._sums, self._frames, self._top)
        state: int = flipsearch.advance(
            *self._fixed, self._budget, dearest, *work, self._best, self.best_signs, _VISITS
        )
        return state

    def dive(self) -> None:
        """Look for a better set among cheap neurons, a slice at a time; proves nothing."""
        for dearest in (1, 2):
            state = flipsearch.FOUND
            while state == flipsearch.FOUND and self.rival >= 0:
                self.begin(self.best - 1)
                state = self.advance(dearest)
