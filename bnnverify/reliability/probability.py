"""P(error | image): the certified probability that a faulty chip misclassifies one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.convolution import ConvBlock
from bnnverify.domain import IntArray
from bnnverify.engines.base import Clock
from bnnverify.engines.coding import about_cells
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.faults import FaultModel, cell_rates, is_per_cell, require_blocks
from bnnverify.network import BinaryNetwork, DenseBlock
from bnnverify.reliability.deep import DeepBounds, DeepNetwork
from bnnverify.reliability.laws import FloatArray, RowLaws, firing, firing_on_integers
from bnnverify.reliability.onehidden import Bounds, error_bounds
from bnnverify.reliability.rounding import outward
from bnnverify.reliability.tables import OutputTables, output_tables
from bnnverify.results import Probability, Run
from bnnverify.scalars import integer, real

DEFAULT_TOLERANCE = 1e-6
DEFAULT_MAX_STATES = 4096


@dataclass(slots=True)
class FaultyNetwork:
    """A network under one fault model, with the tables that all its images share.

    Attributes:
        network: Any network.
        faults: The fault model.
    """

    network: BinaryNetwork
    faults: FaultModel
    _deep: DeepNetwork | None = field(init=False, default=None)
    _laws: tuple[RowLaws, ...] = field(init=False, default=())
    _output_laws: RowLaws | None = field(init=False, default=None)
    _tables: dict[int, OutputTables] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not hasattr(self.faults, "rates"):
            raise QueryError(f"faults is {self.faults!r}, expected a fault model such as BitFlip('1e-3').")
        if self.network.input_coding:
            raise QueryError("the first block codes the inputs and has no cells. Ask about network.behind_coding(x).")
        blocks = self.network.blocks
        require_blocks(self.faults, len(blocks) + 1)
        if not blocks and not self.network.domain.is_binary:
            raise UnsupportedError("the network has integer inputs and no hidden block; expected at least one.")
        by_cell = is_per_cell(self.faults)
        if not by_cell:
            self._output_laws = RowLaws(self.faults.rates(len(blocks)))
        if by_cell or len(blocks) > 1 or any(isinstance(block, ConvBlock) for block in blocks):
            self._deep = DeepNetwork(self.network, self.faults, output_by_cell=by_cell)
        else:
            self._laws = tuple(RowLaws(self.faults.rates(b)) for b in range(len(blocks)))

    @property
    def _is_fault_free(self) -> bool:
        if not is_per_cell(self.faults):
            rates = [self.faults.rates(b) for b in range(len(self.network.blocks) + 1)]
            return all(r.plus == 0 == r.minus for r in rates)
        used = (cell_rates(self.faults, b, block.stored) for b, block in enumerate(self.network.all_blocks))
        return all(rates[i] == 0 for rates, index in used for i in np.unique(index).tolist())

    def tables(self, label: int) -> OutputTables | None:
        """Tables of the output block against `label`, computed once; None if its cells have rates of their own."""
        self.network.require_class(label)
        if self._output_laws is None:
            return None
        if label not in self._tables:
            laws = self._output_laws
            self._tables[label] = output_tables(self.network.output, laws.rates, laws, label)
        return self._tables[label]

    def error_bounds(
        self,
        x: ArrayLike,
        label: int,
        *,
        tolerance: float,
        max_states: int,
        clock: Clock | None = None,
        seconds: float | None = None,
    ) -> Bounds:
        """Computed bounds on P(class of x is not `label`); see `onehidden.error_bounds` and `deep`.

        Beyond one dense hidden block they are anytime: `clock` and `seconds` end the refinement.
        """
        point = self.network.domain.require(x)
        if self._deep is not None:
            return self._deep_bounds(point, label, tolerance, max_states, clock, seconds).bounds
        fires, silent, roundings = self._signs(point)
        tables = self.tables(label)
        assert tables is not None
        return error_bounds(
            self.network.output,
            fires,
            silent,
            tables,
            sign_roundings=roundings,
            tolerance=tolerance,
            max_states=max_states,
        )

    def _deep_bounds(
        self,
        x: IntArray,
        label: int,
        tolerance: float,
        max_states: int,
        clock: Clock | None,
        seconds: float | None,
    ) -> DeepBounds:
        assert self._deep is not None
        clocks = [c for c in (clock, None if seconds is None else Clock(seconds)) if c is not None]
        return self._deep.error_bounds(
            x, label, self.tables(label), tolerance=tolerance, max_states=max_states, clocks=clocks
        )

    def _signs(self, x: IntArray) -> tuple[FloatArray, FloatArray, int]:
        """P(+1), P(-1), and their roundings, of what the output block takes: one hidden block, or the input."""
        if not self.network.blocks:
            point = x.astype(np.float64)
            return np.maximum(point, 0.0), np.maximum(-point, 0.0), 0
        block = self.network.blocks[0]
        assert isinstance(block, DenseBlock)
        if self.network.domain.is_binary:
            return *firing(block, x, self._laws[0]), 4 * x.size
        fires, silent = firing_on_integers(block, x, self._laws[0].rates)
        return fires, silent, 3 * x.size + int(np.abs(x).sum()) + 1

    def error_probability(
        self,
        x: ArrayLike,
        label: int,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        max_states: int = DEFAULT_MAX_STATES,
        clock: Clock | None = None,
        seconds: float | None = None,
    ) -> Probability:
        """As the function `error_probability`, sharing tables between images."""
        return self.answer(x, label, tolerance=tolerance, max_states=max_states, clock=clock, seconds=seconds)[0]

    def answer(
        self,
        x: ArrayLike,
        label: int,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        max_states: int = DEFAULT_MAX_STATES,
        clock: Clock | None = None,
        seconds: float | None = None,
    ) -> tuple[Probability, Run]:
        """P(class of x is not `label`) and how it was obtained.

        The run says why an interval stayed wider than the tolerance, and its statistics where: the sign vectors kept
        and the probability left out behind each block.
        """
        watch = Clock(None)
        label = self.network.require_class(label)
        if self._is_fault_free:
            answer = Probability.exact(Fraction(int(self.network.evaluate(x) != label)))
            return answer, Run("evaluation", watch.elapsed)
        if self._deep is None:
            bounds = self.error_bounds(x, label, tolerance=tolerance, max_states=max_states, clock=clock)
            run = Run("convolution", watch.elapsed)
        else:
            point = self.network.domain.require(x)
            deep = self._deep_bounds(point, label, tolerance, max_states, clock, seconds)
            bounds = deep.bounds
            statistics = {
                "rounds": deep.rounds,
                "vectors": list(deep.vectors),
                "left_out": list(deep.open_masses),
                "leaves": bounds.leaves,
            }
            run = Run("sign-vectors", watch.elapsed, deep.reason, statistics)
        return Probability.interval(*outward(bounds.lower, bounds.upper, bounds.roundings)), run


@about_cells
def error_probability(
    network: BinaryNetwork,
    x: ArrayLike,
    label: int,
    faults: FaultModel,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    max_states: int = DEFAULT_MAX_STATES,
    seconds: float | None = None,
) -> Probability:
    """Proved bounds on the probability that the class of x is not `label` on a faulty chip.

    One chip is one draw of all faults (permanent faults), or one read of the chip (`PerRead`). With `label` the true
    label this is P(error); with the fault-free class it is P(change).

    Args:
        network: Any network. With several hidden blocks the intervals widen with depth, width and p. With convolutions
            they are useful as long as few flips are expected in all filters together; otherwise they may be [0, 1].
        x: Shape `(n,)`, an input of the domain.
        label: The class that is right.
        faults: Rates of the cells.
        tolerance: Width to aim at, above 0.
        max_states: Work limit: states kept open at once; beyond one dense hidden block, 16 times as many sign vectors
            behind each block. Where it is too small for the tolerance, the interval is wider, and still proved.
        seconds: Beyond one dense hidden block: time after which the interval found so far is the answer, s.

    Returns:
        Kind INTERVAL: all truncation and all rounding included. Kind EXACT if no cell can fail.

    Raises:
        QueryError: The label does not exist or tolerance or max_states is not positive.
        UnsupportedError: Integer inputs without a hidden block, rates below 2^-900, or a convolution with permanent
            faults and those of reading besides.
        ResourceLimitError: A row of so many cells at a rate so high, or integer inputs so large, that the laws do not
            fit into memory.

    >>> import numpy as np
    >>> from bnnverify.faults import BitFlip
    >>> from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [-1]]))
    >>> str(error_probability(net, [1], 0, BitFlip("0.1")))  # both cells must flip: 1/100
    '[0.009999999, 0.01000001] (interval)'
    """
    tolerance, max_states = require_positive(tolerance, max_states)
    seconds = None if seconds is None else real(seconds, "seconds")
    faulty = FaultyNetwork(network, faults)
    return faulty.error_probability(x, label, tolerance=tolerance, max_states=max_states, seconds=seconds)


def require_positive(tolerance: float, max_states: int) -> tuple[float, int]:
    """Both as plain numbers; QueryError unless they can be worked with."""
    width = real(tolerance, "tolerance")
    if not width > 0:
        raise QueryError(f"tolerance is {tolerance}, expected a width above 0.")
    return width, integer(max_states, "max_states", least=1)
