"""P(error | image): the certified probability that a faulty chip misclassifies one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.engines.base import Clock
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork, DenseBlock
from bnnverify.reliability.deep import likely_patterns
from bnnverify.reliability.exact import SAMPLE_INSTEAD
from bnnverify.reliability.laws import FloatArray, RowLaws, firing, firing_on_integers
from bnnverify.reliability.onehidden import Bounds, error_bounds
from bnnverify.reliability.rounding import outward
from bnnverify.reliability.tables import OutputTables, output_tables
from bnnverify.results import Probability

DEFAULT_TOLERANCE = 1e-6
DEFAULT_MAX_STATES = 4096
MIN_STATES = 64  # for each sign vector of an earlier block


@dataclass(slots=True)
class FaultyNetwork:
    """A network under one fault model, with the tables that all its images share.

    Attributes:
        network: Any network of dense blocks; `UnsupportedError` if one is a convolution.
        faults: The fault model.
    """

    network: BinaryNetwork
    faults: FaultModel
    _blocks: tuple[DenseBlock, ...] = field(init=False)
    _laws: tuple[RowLaws, ...] = field(init=False)
    _tables: dict[int, OutputTables] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not hasattr(self.faults, "rates"):
            raise QueryError(f"faults is {self.faults!r}, expected a fault model such as BitFlip('1e-3').")
        if not self.network.blocks and not self.network.domain.is_binary:
            raise UnsupportedError("the network has integer inputs and no hidden block; expected at least one.")
        self._blocks = self.network.dense_blocks(SAMPLE_INSTEAD)
        self._laws = tuple(RowLaws(self.faults.rates(b)) for b in range(len(self._blocks) + 1))

    @property
    def _is_fault_free(self) -> bool:
        return all(laws.rates.plus == 0 == laws.rates.minus for laws in self._laws)

    def tables(self, label: int) -> OutputTables:
        """Tables of the output block against `label`, computed once."""
        self.network.require_class(label)
        if label not in self._tables:
            laws = self._laws[-1]
            self._tables[label] = output_tables(self.network.output, laws.rates, laws, label)
        return self._tables[label]

    def error_bounds(
        self, x: ArrayLike, label: int, *, tolerance: float, max_states: int, clock: Clock | None = None
    ) -> Bounds:
        """Computed bounds on P(class of x is not `label`); see `onehidden.error_bounds`.

        With several hidden blocks the clock is looked at between sign vectors; what is left out stays undecided.
        """
        point = self.network.domain.require(x)
        if not self.network.blocks:
            point = point.astype(np.float64)
            signs = np.maximum(point, 0.0), np.maximum(-point, 0.0), 0
            return self._over_signs(signs, 0, label, tolerance, max_states, clock)
        return self._over_signs(self._firing(0, point), 0, label, tolerance, max_states, clock)

    def _firing(self, index: int, x: NDArray[np.int64]) -> tuple[FloatArray, FloatArray, int]:
        """P(fires), P(does not), and their roundings, of a block whose input is fixed."""
        block = self._blocks[index]
        if index > 0 or self.network.domain.is_binary:
            return *firing(block, x, self._laws[index]), 4 * x.size
        fires, silent = firing_on_integers(block, x, self._laws[index].rates)
        return fires, silent, 3 * x.size + int(np.abs(x).sum()) + 1

    def _over_signs(
        self,
        signs: tuple[FloatArray, FloatArray, int],
        index: int,
        label: int,
        tolerance: float,
        max_states: int,
        clock: Clock | None,
    ) -> Bounds:
        """Bounds over the independent outputs of block `index`: the last hidden one, or one to condition on."""
        fires, silent, roundings = signs
        if index + 1 >= len(self.network.blocks):
            return error_bounds(
                self.network.output,
                fires,
                silent,
                self.tables(label),
                sign_roundings=roundings,
                tolerance=tolerance,
                max_states=max_states,
            )
        patterns = likely_patterns(
            fires,
            silent,
            sign_roundings=roundings,
            tolerance=tolerance / 2,
            max_patterns=max(max_states // 4, MIN_STATES),
        )
        lower, upper, inner, leaves, peak = 0.0, patterns.missing, 0, 0, patterns.masses.size
        states = max(max_states // patterns.masses.size, MIN_STATES)
        for h, mass in zip(patterns.signs, patterns.masses.tolist(), strict=True):
            if clock is not None and clock.is_over:
                upper += mass
                continue
            bounds = self._over_signs(self._firing(index + 1, h), index + 1, label, tolerance / 2, states, clock)
            lower += mass * bounds.lower
            upper += mass * bounds.upper
            inner, leaves, peak = max(inner, bounds.roundings), leaves + bounds.leaves, max(peak, bounds.peak_states)
        return Bounds(lower, upper, patterns.roundings + inner + patterns.masses.size + 2, leaves, peak)

    def error_probability(
        self,
        x: ArrayLike,
        label: int,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        max_states: int = DEFAULT_MAX_STATES,
        clock: Clock | None = None,
    ) -> Probability:
        """As the function `error_probability`, sharing tables between images."""
        label = self.network.require_class(label)
        if self._is_fault_free:
            return Probability.exact(Fraction(int(self.network.evaluate(x) != label)))
        bounds = self.error_bounds(x, label, tolerance=tolerance, max_states=max_states, clock=clock)
        return Probability.interval(*outward(bounds.lower, bounds.upper, bounds.roundings))


def error_probability(
    network: BinaryNetwork,
    x: ArrayLike,
    label: int,
    faults: FaultModel,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    max_states: int = DEFAULT_MAX_STATES,
) -> Probability:
    """Proved bounds on the probability that the class of x is not `label` on a faulty chip.

    One chip is one draw of all faults (permanent faults). With `label` the true label this is P(error); with the
    fault-free class it is P(change).

    Args:
        network: Any network. With several hidden blocks the intervals widen with depth and p.
        x: Shape `(n,)`, an input of the domain.
        label: The class that is right.
        faults: Rates of the cells.
        tolerance: Width to aim at, above 0.
        max_states: Work limit: states kept open at once (and sign vectors of an earlier block). Where it is too
            small for the tolerance, the interval is wider, and still proved.

    Returns:
        Kind INTERVAL: all truncation and all rounding included. Kind EXACT if no cell can fail.

    Raises:
        QueryError: The label does not exist or tolerance or max_states is not positive.
        UnsupportedError: A convolution, integer inputs without a hidden block, or rates below 2^-900.

    >>> import numpy as np
    >>> from bnnverify.faults import BitFlip
    >>> from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [-1]]))
    >>> str(error_probability(net, [1], 0, BitFlip("0.1")))  # both cells must flip: 1/100
    '[0.009999999, 0.01000001] (interval)'
    """
    require_positive(tolerance, max_states)
    faulty = FaultyNetwork(network, faults)
    return faulty.error_probability(x, label, tolerance=tolerance, max_states=max_states)


def require_positive(tolerance: float, max_states: int) -> None:
    """QueryError unless both can be worked with."""
    if not tolerance > 0:
        raise QueryError(f"tolerance is {tolerance}, expected a width above 0.")
    if max_states < 1:
        raise QueryError(f"max_states is {max_states}, expected at least 1.")
