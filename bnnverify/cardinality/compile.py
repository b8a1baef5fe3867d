"""Networks to instances with inputs as variables: robustness and counting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bnnverify.cardinality.builder import Builder, ball_constraint, comparison_label, within_ball
from bnnverify.cardinality.constraints import (
    CardinalityConstraint,
    Constraint,
    Signal,
    Truth,
    linear_constraint,
    sign_constraint,
)
from bnnverify.cardinality.instance import Formula, Instance, Variable, pruned
from bnnverify.cardinality.rows import FIXED_TRUE, OPEN, gathered, pooled, ranges, settled_by, thresholds_of, windows_of
from bnnverify.convolution import HiddenBlock
from bnnverify.domain import IntArray
from bnnverify.errors import UnsupportedError
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query
from bnnverify.regions import AnyRegion, HammingBall, PixelBox, RealBox, Region

Comparison = tuple[int, int, bool]
"""``(i, j, strict)``: score i >= score j, or > if strict."""

Settled = Sequence[NDArray[np.int8]]
"""For each hidden block its outputs as far as they are known: -1, +1, or 0 where open."""


def compile_query(
    query: Query, settled: Settled | None = None, *, check: Callable[[], None] = lambda: None
) -> Instance:
    """The question with inputs as variables; its models are exactly the adversarial inputs of the region.

    Fixed inputs are substituted; a neuron whose pre-activation cannot cross its threshold within the region is
    substituted as a constant in the next block; what the property does not depend on is dropped. All exact.

    Args:
        query: Network, region, property and tie rule.
        settled: What is known of each block beyond its own bounds, see `compile_network`.
        check: Called for every neuron; raises to stop.

    Returns:
        An instance with one variable per input that varies within the region; over a box of integers with one per
        value of each such input above its least.

    Raises:
        UnsupportedError: The region is a real box.
    """
    comparisons, conjunctive = query.score_conditions()
    instance = compile_network(query.network, query.region, settled, check=check)
    if isinstance(query.region, PixelBox) and not query.network.blocks:
        formula = _pixel_formula(query.network, query.region, instance, comparisons, conjunctive)
    else:
        formula = score_formula(query.network, instance, comparisons, conjunctive)
    return pruned(replace(instance, formula=formula))


def compile_network(
    network: BinaryNetwork,
    region: AnyRegion,
    settled: Settled | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> Instance:
    """All blocks over a region without a property (the formula is true): its models are the region's inputs.

    An input x of a box of integers is its least value plus one variable per further value v, which is true iff
    x >= v; constraints of the region say that they are ordered. So a neuron over integers is a cardinality constraint
    too. A neuron with a window to itself that is not pooled, or the only open one of its window, is its output.

    Args:
        network: Any network that takes the region's inputs.
        region: Where the inputs lie; not a real box.
        settled: For each hidden block its outputs as far as they are known throughout the region: int8, -1 or +1, and
            0 where open. It is trusted, so it must be proved.
        check: Called for every neuron; raises to stop.

    Returns:
        An instance whose `outputs` are the signals of the last hidden block.

    Raises:
        UnsupportedError: The region is a real box.
    """
    if isinstance(region, RealBox):
        raise UnsupportedError("the region is a real box, but instances are over integers. Compile its grid().")
    builder = Builder(check=check)
    feed, ordering = _inputs_of(region, builder)
    n_inputs = len(builder.variables)
    center: tuple[bool, ...] = (False,) * n_inputs
    radius = None
    if not isinstance(region, PixelBox):
        center = tuple(region.center[i] == 1 for i in region.free)
        if isinstance(region, HammingBall) and region.radius < n_inputs:
            radius = region.radius
    for b, block in enumerate(network.blocks):
        middle = np.array(region.center) if b == 0 and not isinstance(region, PixelBox) and radius is not None else None
        feed = _block(builder, b, block, feed, middle, radius, None if settled is None else settled[b])
    return Instance(
        variables=tuple(builder.variables),
        n_inputs=n_inputs,
        gates=tuple(builder.gates),
        region=(*ball_constraint(center, radius), *ordering),
        formula=Formula((), True),
        center=center,
        radius=radius,
        outputs=_signals(feed),
    )


@dataclass(slots=True)
class _Feed:
    """What arrives at a block: a number of literals for each flat entry, and the range of its value.

    An entry is ``low + step * (how many of its literals are true)``; its literals are the consecutive numbers from
    `first` on, or the single literal `first`.
    """

    low: IntArray
    high: IntArray
    first: IntArray
    step: int


def _inputs_of(region: Region | PixelBox, builder: Builder) -> tuple[_Feed, tuple[Constraint, ...]]:
    """Variables of the inputs, and the constraints that order those of an integer."""
    if not isinstance(region, PixelBox):
        values = np.array(region.center, dtype=np.int64)
        low, high, first = values.copy(), values.copy(), np.zeros(values.size, dtype=np.int64)
        for i in region.free:
            first[i] = builder.variable(Variable("input", 0, i))
        free = list(region.free)
        low[free], high[free] = -1, 1
        return _Feed(low, high, first, 2), ()
    first = np.zeros(region.n, dtype=np.int64)
    ordering: list[Constraint] = []
    for i, (least, most) in enumerate(zip(region.lower, region.upper, strict=True)):
        for value in range(least + 1, most + 1):
            literal = builder.variable(Variable("pixel", 0, i, stored=value))
            if value == least + 1:
                first[i] = literal
            else:
                ordering.append(CardinalityConstraint((literal - 1, -literal), 1))
    lower, upper = np.array(region.lower, dtype=np.int64), np.array(region.upper, dtype=np.int64)
    return _Feed(lower, upper, first, 1), tuple(ordering)


def _block(
    builder: Builder,
    b: int,
    block: HiddenBlock,
    feed: _Feed,
    center: IntArray | None,
    radius: int | None,
    known: NDArray[np.int8] | None,
) -> _Feed:
    """The block's outputs as signals, with gates for those that the region leaves open."""
    thresholds = thresholds_of(block)
    low, high = ranges(block, feed.low, feed.high)
    tight_low, tight_high = low, high
    if center is not None and radius is not None:
        middle, _ = ranges(block, center, center)  # a flip moves a sum by 2
        tight_low, tight_high = np.maximum(low, middle - 2 * radius), np.minimum(high, middle + 2 * radius)
    neurons = settled_by(thresholds, tight_low, tight_high)
    windows = windows_of(block)
    signs = neurons if windows is None else pooled(neurons, *windows)
    if known is not None:
        signs = np.where(signs == OPEN, known, signs).astype(np.int8)
    outputs = np.flatnonzero(signs == OPEN)
    if windows is None:
        which, kind = outputs, "neuron"
    else:
        inside = windows[0][outputs]
        which, kind = np.sort(inside[neurons[inside] == OPEN]), "position"
    found = _reified(builder, b, block, feed, which, thresholds - low, kind)
    if windows is not None:
        number: list[Signal] = [Truth.TRUE if sign == FIXED_TRUE else Truth.FALSE for sign in neurons.tolist()]
        for neuron, signal in zip(which.tolist(), found, strict=True):
            number[neuron] = signal
        found = []
        for output in outputs.tolist():
            parts = [(1, number[neuron]) for neuron in windows[0][output].tolist()]
            # of k signs, all are +1 iff their sum is k, and some is iff it is at least 2 - k
            least = len(parts) if windows[1][output] else 2 - len(parts)
            found.append(builder.reify(sign_constraint(parts, least), Variable("neuron", b, output)))
    first = np.zeros(signs.size, dtype=np.int64)
    for output, signal in zip(outputs.tolist(), found, strict=True):
        if isinstance(signal, Truth):  # what it reads cancels out
            signs[output] = signal.value
        else:
            first[output] = signal
    fixed = signs.astype(np.int64)
    return _Feed(np.where(signs == OPEN, -1, fixed), np.where(signs == OPEN, 1, fixed), first, 2)


def _signals(feed: _Feed) -> tuple[Signal, ...]:
    """Each entry as a literal or a settled value; the inputs of a box have no such form."""
    if feed.step == 1:
        return ()
    pairs = zip(feed.low.tolist(), feed.first.tolist(), strict=True)
    return tuple(first if first else Truth(low) for low, first in pairs)


def _reified(
    builder: Builder, b: int, block: HiddenBlock, feed: _Feed, which: IntArray, needed: IntArray, kind: str
) -> list[Signal]:
    """Signals of the neurons `which`; `needed` is how far the threshold lies above the least pre-activation."""
    rows = gathered(block, which)
    counts = (feed.high - feed.low)[rows.entry] // feed.step
    ends = np.cumsum(counts)
    within = np.arange(int(ends[-1]) if ends.size else 0) - np.repeat(ends - counts, counts)
    literals = np.repeat(feed.first[rows.entry], counts) + within
    signed = (literals * np.repeat(rows.weight, counts)).tolist()
    stops = np.cumsum(np.bincount(rows.row, weights=counts, minlength=which.size)).astype(np.int64).tolist()
    bounds = (-(-needed[which] // feed.step)).tolist()
    owners = np.repeat(rows.row, counts)
    disorder = (np.diff(np.abs(literals)) <= 0) & (np.diff(owners) == 0)
    is_mixed = np.bincount(owners[1:][disorder], minlength=which.size).astype(bool).tolist()
    found: list[Signal] = []
    start = 0
    for index, stop, bound, mixed in zip(which.tolist(), stops, bounds, is_mixed, strict=True):
        part = signed[start:stop]
        start = stop
        constraint: Constraint | Truth
        if mixed and len({abs(v) for v in part}) < len(part):
            constraint = linear_constraint([(1, v) for v in part], bound)
        else:
            constraint = CardinalityConstraint(tuple(sorted(part, key=abs) if mixed else part), bound)
        found.append(builder.reify(constraint, Variable(kind, b, index)))
    return found


def grid_region(query: Query) -> Region | PixelBox:
    """The query's region, for what serves finite ones.

    Raises:
        UnsupportedError: It is a real box.
    """
    if isinstance(query.region, RealBox):
        raise UnsupportedError("the region is a real box, but this engine is over integers. Ask about its grid().")
    return query.region


def region_input(region: Region | PixelBox, values: Sequence[bool]) -> tuple[int, ...]:
    """The input that assigns `values` to the input variables of an instance over the region."""
    if isinstance(region, PixelBox):
        start, x = 0, []
        for least, most in zip(region.lower, region.upper, strict=True):
            x.append(least + sum(values[start : start + most - least]))
            start += most - least
        return tuple(x)
    x = list(region.center)
    for i, value in zip(region.free, values, strict=True):
        x[i] = 1 if value else -1
    return tuple(x)


def score_formula(
    network: BinaryNetwork, instance: Instance, comparisons: Iterable[Comparison], conjunctive: bool
) -> Formula:
    """Comparisons of exact scores as constraints over the last block's literals.

    Args:
        network: The network that `instance` was compiled from.
        instance: As `compile_network` gives it, with `outputs`.
        comparisons: `(i, j, strict)`: score i >= score j, or > if strict.
        conjunctive: True if all must hold, False if one suffices.
    """
    scales, biases = network.output.integer_form()
    weights = network.output.weights.tolist()
    settled = [(at, signal.value) for at, signal in enumerate(instance.outputs) if isinstance(signal, Truth)]
    open_ = [(at, signal) for at, signal in enumerate(instance.outputs) if not isinstance(signal, Truth)]
    parts: list[tuple[Constraint | Truth, str]] = []
    for i, j, strict in comparisons:
        sums = [scales[i] * p - scales[j] * q for p, q in zip(weights[i], weights[j], strict=True)]
        least = biases[j] - biases[i] + strict - sum(sums[at] * sign for at, sign in settled)
        constraint = sign_constraint([(sums[at], literal) for at, literal in open_], least)
        if not network.blocks:
            constraint = within_ball(constraint, instance.center, instance.radius)
        parts.append((constraint, comparison_label(i, j, strict)))
    return Formula.of(parts, conjunctive)


def _pixel_formula(
    network: BinaryNetwork, box: PixelBox, instance: Instance, comparisons: Iterable[Comparison], conjunctive: bool
) -> Formula:
    """As `score_formula` for a network without hidden blocks over a box."""
    scales, biases = network.output.integer_form()
    weights = network.output.weights.tolist()
    parts: list[tuple[Constraint | Truth, str]] = []
    for i, j, strict in comparisons:
        sums = [scales[i] * p - scales[j] * q for p, q in zip(weights[i], weights[j], strict=True)]
        least = sum(c * low for c, low in zip(sums, box.lower, strict=True))
        terms = [(sums[v.index], number) for number, v in instance]
        parts.append((linear_constraint(terms, biases[j] - biases[i] + strict - least), comparison_label(i, j, strict)))
    return Formula.of(parts, conjunctive)
