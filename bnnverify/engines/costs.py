"""What a question would cost each engine, in seconds: a guess from its shape, made before any work.

The model is coarse on purpose: a wrong guess costs time, never an answer, because `portfolio.py` changes engines when
one takes much longer than it should. Its constants are `RATES`; ``case_studies/benchmarks/portfolio.py`` measures
them again and prints guess and truth side by side.

Three numbers carry it. Enumeration pays for every input. Propagation and decision diagrams pay for the states that
differ after some of the inputs (`Shape.states`). SAT counts one adversarial input at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bnnverify.engines.base import UNLIMITED, Limits, cores
from bnnverify.engines.plan import MOST_FLIPS, is_plannable
from bnnverify.kernels import disagreement_limits
from bnnverify.query import Query
from bnnverify.regions import HammingBall
from bnnverify.summary import summarize

MODELLED = ("enumeration", "propagation", "bdd", "sat")
"""Engines whose answers are proved and whose cost is modelled here; no other engine is picked by itself."""

AT_ONCE = 20_000
"""Inputs that are enumerated without a look at the other engines."""

NEVER = 1e300
"""Seconds that stand for "hopeless": larger guesses are cut to this, so that they stay numbers in JSON."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Constants of the model, measured on one core of a 2.5 GHz server.

    Attributes:
        enumeration_setup: s.
        enumeration_free: s per input that varies (tables of the loops).
        enumeration_tail: s per tail of inputs that are evaluated together, bit-sliced loops.
        enumeration_input: s per input of the region, bit-sliced loops.
        enumeration_neuron: s per input and unsettled neuron of the first block, bit-sliced loops.
        enumeration_later: s per input and multiply-accumulate between hidden blocks, bit-sliced loops.
        enumeration_one: s per input where they are taken one by one.
        enumeration_mac: s per input and multiply-accumulate where there are convolutions.
        propagation_setup: s.
        propagation_free: s per pair of inputs that vary (the next input is chosen among all).
        propagation_state: s per state of the largest layer.
        bdd_setup: s.
        bdd_gate: s per neuron that the region does not settle.
        bdd_state: s per state of the largest layer and hidden block.
        sat_setup: s.
        sat_mac: s per weight of the network (writing the clauses).
        sat_input: s per input that is found and excluded.
        sat_decision: s for a verdict, without set-up.
    """

    enumeration_setup: float = 7e-4
    enumeration_free: float = 3e-6
    enumeration_tail: float = 1e-6
    enumeration_input: float = 4e-10
    enumeration_neuron: float = 1.2e-11
    enumeration_later: float = 1.5e-12
    enumeration_one: float = 2.8e-7
    enumeration_mac: float = 6e-10
    propagation_setup: float = 5e-3
    propagation_free: float = 2.5e-6
    propagation_state: float = 5e-6
    bdd_setup: float = 2e-2
    bdd_gate: float = 2e-4
    bdd_state: float = 2.5e-5
    sat_setup: float = 1e-2
    sat_mac: float = 1e-5
    sat_input: float = 3e-4
    sat_decision: float = 0.2


RATES = Rates()


@dataclass(frozen=True, slots=True)
class Shape:
    """What the model looks at.

    Attributes:
        inputs: Size of the region.
        free: Inputs that vary.
        radius: Of a Hamming ball; None where every setting of the free inputs is in the region.
        unsettled: Neurons of the first block that are not the same in the whole region.
        gates: Those, and all neurons of the later hidden blocks.
        blocks: Hidden blocks.
        macs: Multiply-accumulates for one input.
        later: Those of the hidden blocks after the first.
        is_sliced: True if enumeration takes many inputs at a time.
        has_convolutions: True if some block is a convolution.
    """

    inputs: int
    free: int
    radius: int | None
    unsettled: int
    gates: int
    blocks: int
    macs: int
    later: int
    is_sliced: bool
    has_convolutions: bool

    @classmethod
    def of(cls, query: Query) -> Shape:
        """The shape of a question."""
        network, region = query.network, query.sign_region
        first = network.widths[1] if network.blocks else network.n_classes
        unsettled = first if network.has_convolutions else _unsettled(query)
        return cls(
            inputs=region.size(),
            free=len(region.free),
            radius=region.radius if isinstance(region, HammingBall) else None,
            unsettled=unsettled,
            gates=unsettled + sum(network.widths[2:-1]),
            blocks=len(network.blocks),
            macs=max(summarize(network).macs, 1),
            later=sum(a * b for a, b in pairwise(network.widths[1:-1])),
            is_sliced=region.most_flips <= MOST_FLIPS and is_plannable(network),
            has_convolutions=network.has_convolutions,
        )

    @property
    def states(self) -> float:
        """Most states that differ after some of the inputs: a guess; at most `NEVER`.

        A share of the region's inputs in powers, which grows with the unsettled neurons (fitted), and no more than the
        unsettled margins have values half-way: about ``sqrt(2 pi e n / 8)`` each over a cube, in a ball as many as
        flips can make.
        """
        merged = min(0.24 + 0.026 * self.unsettled, 0.75) * _log2(self.inputs)
        values = math.sqrt(2 * math.pi * math.e * max(self.free, 1) / 8)
        if self.radius is not None:
            values = min(values, 2 * self.radius + 1)
        margins = self.unsettled * math.log2(max(values, 2.0))
        if self.radius is not None:
            margins += math.log2(self.radius + 1)
        return math.exp2(min(merged, margins, 990.0))


def seconds_to_count(query: Query, *, limits: Limits = UNLIMITED, rates: Rates | None = None) -> dict[str, float]:
    """Guessed seconds of each engine for counting, cheapest first. Engines that cannot serve the query are absent.

    Regions of at most `AT_ONCE` inputs are enumerated sooner than anything is guessed, so enumeration is alone there.

    Args:
        query: The question.
        limits: For the number of threads.
        rates: Constants; default `RATES`.
    """
    rates = rates or RATES
    if query.sign_region.size() <= AT_ONCE and not query.network.has_convolutions:
        return {"enumeration": rates.enumeration_setup}
    shape = Shape.of(query)
    return _sorted({name: _count(name, shape, limits, rates) for name in _names(query)})


def seconds_to_decide(query: Query, *, limits: Limits = UNLIMITED, rates: Rates | None = None) -> dict[str, float]:
    """Guessed seconds of each engine for a verdict, cheapest first: what a proof of robustness would take.

    Args:
        query: The question.
        limits: For the number of threads.
        rates: Constants; default `RATES`.
    """
    shape, rates = Shape.of(query), rates or RATES
    guesses = {name: _count(name, shape, limits, rates) for name in _names(query)}
    guesses["sat"] = rates.sat_setup + rates.sat_mac * shape.macs + rates.sat_decision
    return _sorted(guesses)


def _names(query: Query) -> list[str]:
    """Engines that serve the query, with proof and with a model of their cost."""
    from bnnverify.engines import NAMES
    from bnnverify.engines.propagation import is_served

    return [name for name in NAMES if name in MODELLED and (name != "propagation" or is_served(query))]


def _sorted(guesses: dict[str, float]) -> dict[str, float]:
    return {name: min(guesses[name], NEVER) for name in sorted(guesses, key=lambda name: guesses[name])}


def _count(name: str, shape: Shape, limits: Limits, rates: Rates) -> float:
    inputs = math.exp2(min(_log2(shape.inputs), 990.0))
    if name == "enumeration":
        setup = rates.enumeration_setup + rates.enumeration_free * shape.free
        return setup + _enumeration(shape, inputs, limits, rates)
    if name == "propagation":
        setup = rates.propagation_setup + rates.propagation_free * shape.free**2
        # where few states merge, every input is evaluated, in tails that are never short
        every = inputs * (_sliced_input(shape, rates) + rates.enumeration_tail / 2**16) / _threads(limits)
        merged = rates.propagation_state * shape.states * (1 + shape.unsettled / 10)
        is_cube = shape.radius is None or 2 * shape.radius >= shape.free
        return setup + (min(merged, every) if is_cube else merged)
    if name == "bdd":
        return rates.bdd_setup + rates.bdd_gate * shape.gates + rates.bdd_state * shape.states * max(shape.blocks, 1)
    return rates.sat_setup + rates.sat_mac * shape.macs + rates.sat_input * inputs


def _enumeration(shape: Shape, inputs: float, limits: Limits, rates: Rates) -> float:
    """Seconds that enumeration needs for all inputs, without its set-up."""
    if shape.has_convolutions:
        return inputs * rates.enumeration_mac * shape.macs
    if not shape.is_sliced:
        return inputs * rates.enumeration_one
    if shape.radius is None:
        tails = inputs / 2 ** min(shape.free, 9 if shape.free <= 20 else 12)
    else:  # the last flips of a shell, five at most, make a tail
        tails = 0.0
        for flips in range(min(shape.radius, shape.free) + 1):
            tail = min(flips, _longest(shape))
            tails += math.exp2(min(_log2(math.comb(shape.free, flips - tail)), 990.0))
    return (tails * rates.enumeration_tail + inputs * _sliced_input(shape, rates)) / _threads(limits)


def _longest(shape: Shape) -> int:
    """Flips of a tail: as many as a table of some 30 MB has room for."""
    flips = 1
    while flips < 5 and shape.unsettled * (flips + 1) * math.comb(shape.free, flips + 1) < 8 << 25:
        flips += 1
    return flips


def _sliced_input(shape: Shape, rates: Rates) -> float:
    """Seconds for one input in the bit-sliced loops, on one core."""
    first = rates.enumeration_input + rates.enumeration_neuron * shape.unsettled
    return first + rates.enumeration_later * shape.later


def _threads(limits: Limits) -> int:
    return limits.threads or cores()


def _log2(count: int) -> float:
    """Logarithm of an integer of any size."""
    return math.log2(count)  # takes what float() would refuse


def _unsettled(query: Query) -> int:
    """Neurons of the first block whose sign differs within the region; without hidden blocks, all scores."""
    network, region = query.network, query.sign_region
    if not network.blocks:
        return network.n_classes
    (block, *_) = network.dense_blocks("")
    free = np.array(region.free, dtype=np.int64)
    products = block.weights.astype(np.int32) * np.array(region.center, dtype=np.int32)
    disagreeing = np.count_nonzero(products < 0, axis=1)
    most = region.most_flips
    down = np.minimum(np.count_nonzero(products[:, free] < 0, axis=1), most)
    up = np.minimum(np.count_nonzero(products[:, free] > 0, axis=1), most)
    limits = disagreement_limits(block)
    return int(np.count_nonzero((disagreeing - down <= limits) & (disagreeing + up > limits)))
