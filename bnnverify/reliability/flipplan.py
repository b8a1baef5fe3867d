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
        levels, widest = len(self.dense), int(self.widths.max())
        signs, needed, sums = (np.zeros((levels, widest), dtype=np.int64) for _ in range(3))
        h = part.signs[i]
        for level, block in enumerate(self.dense):
            if level:
                sums[level, : block.n_outputs] = exact_product(h[None], block.weights)[0]
                h = np.where(sums[level, : block.n_outputs] >= block.thresholds, 1, -1)
            signs[level, : block.n_outputs] = h
        needed[0, : self.widths[0]] = part.needed[i]
        clean_signs, clean_sums, best_signs = signs.copy(), sums.copy(), signs.copy()
        best, top = np.array([self.n_cells + 1, -1], dtype=np.int64), np.zeros(1, dtype=np.int64)
        most = self.n_cells if max_flips is None else min(max_flips, self.n_cells)
        fixed: tuple[Any, ...] = (self.widths, self._columns, self._thresholds, self._present, *self._output)
        fixed += (self.network.output.has_common_scale, reference)
        sets, budget, stopped = 0, 0, False
        while not stopped and best[0] > budget + 1 and budget < most:
            budget += 1
            top[0] = 0
            frames = np.zeros((budget + levels + 1, 5), dtype=np.int64)
            frames[0] = 0, 0, budget, 0, -1
            state = flipsearch.RUNNING
            while state == flipsearch.RUNNING:
                work = (budget, clean_signs, clean_sums, signs, needed, sums, frames, top, best, best_signs)
                state = flipsearch.advance(*fixed, *work, _VISITS)  # type: ignore[call-arg]
                sets += 1
                if state == flipsearch.RUNNING and is_over():
                    stopped = True
                    break
        rival = int(best[1])
        lower = budget if stopped or best[0] <= budget else budget + 1
        statistics = {"slices": sets, "budget": budget}
        if rival < 0:
            lower = self.network.n_cells + 1 if lower > self.n_cells else lower
            return Found(lower, None, None, statistics=statistics)
        cells = self._cells(part.front[i], best_signs, reference, rival)
        return Found(min(lower, int(best[0])), int(best[0]), cells, statistics=statistics)

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
