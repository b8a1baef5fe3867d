"""What a question would cost each engine, in seconds: a guess from its shape, made before any work.

The model is coarse on purpose: a wrong guess costs time, never an answer, because `portfolio.py` changes engines when
one takes much longer than it should. Its constants are `RATES`; ``case_studies/benchmarks/portfolio.py`` measures
them again and prints guess and truth side by side.

Three numbers carry it. Enumeration pays for every input. Propagation and decision diagrams pay for what is still
different after the first i inputs: at most the number of ways to set these, and at most the number of values that
the unsettled margins of the first block can have by then. SAT counts one adversarial input at a time.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bnnverify.engines.base import UNLIMITED, Limits
from bnnverify.engines.plan import MOST_FLIPS, is_plannable
from bnnverify.kernels import disagreement_limits
from bnnverify.query import Query
from bnnverify.regions import HammingBall
from bnnverify.summary import summarize

NEVER = 1e300
"""Seconds that stand for "hopeless": larger guesses are cut to this, so that they stay numbers in JSON."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Constants of the model, measured on one core of a 2.5 GHz server.

    Attributes:
        enumeration_setup: s.
        enumeration_free: s per input that varies (tables of the loops).
        enumeration_input: s per input of the region, bit-sliced loops.
        enumeration_neuron: s per input and unsettled neuron of the first block, bit-sliced loops.
        enumeration_later: s per input and multiply-accumulate between hidden blocks, bit-sliced loops.
        enumeration_one: s per input where they are taken one by one.
        enumeration_mac: s per input and multiply-accumulate where there are convolutions.
        propagation_setup: s.
        propagation_state: s per state that is expanded.
        bdd_setup: s.
        bdd_gate: s per neuron that the region does not settle.
        bdd_node: s per state of the frontier and hidden block where the first block is wide.
        bdd_node_narrow: The same where few hidden words are possible, and nearly all states are equal.
        bdd_wide: Unsettled neurons from which on a block is wide; each one less makes a state four times cheaper.
        sat_setup: s.
        sat_mac: s per weight of the network (writing the clauses).
        sat_input: s per input that is found and excluded.
        sat_decision: s for a verdict, without set-up.
    """

    enumeration_setup: float = 7e-4
    enumeration_free: float = 3e-6
    enumeration_input: float = 3e-10
    enumeration_neuron: float = 1.2e-11
    enumeration_later: float = 1.5e-12
    enumeration_one: float = 2.8e-7
    enumeration_mac: float = 6e-10
    propagation_setup: float = 5e-3
    propagation_state: float = 3e-8
    bdd_setup: float = 5e-3
    bdd_gate: float = 2e-3
    bdd_node: float = 4e-5
    bdd_node_narrow: float = 2e-8
    bdd_wide: int = 13
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
        network, region = query.network, query.region
        first = network.widths[1] if network.blocks else network.n_classes
        unsettled = first if network.has_convolutions else _unsettled(query)
        flips = region.radius if isinstance(region, HammingBall) else len(region.free)
        return cls(
            inputs=region.size(),
            free=len(region.free),
            radius=region.radius if isinstance(region, HammingBall) else None,
            unsettled=unsettled,
            gates=unsettled + sum(network.widths[2:-1]),
            blocks=len(network.blocks),
            macs=max(summarize(network).macs, 1),
            later=sum(a * b for a, b in pairwise(network.widths[1:-1])),
            is_sliced=flips <= MOST_FLIPS and is_plannable(network),
            has_convolutions=network.has_convolutions,
        )

    @property
    def frontier(self) -> float:
        """States that a pass over the inputs meets, all positions together; at most `NEVER`.

        A state that has no flip left is finished, hence the last flip does not count.
        """
        # The Gaussian estimate is no bound; it only has to be right within a factor of ten or so.
        flips = self.free if self.radius is None else max(self.radius - 1, 0)
        chance = 0.5 if self.radius is None else min(0.5, flips / max(self.free, 1))
        distances = 1 if self.radius is None else flips + 1
        total, ways = 0.0, 1
        for i in range(self.free + 1):
            spread = i * chance * (1 - chance)
            values = math.sqrt(2 * math.pi * math.e * (spread + 1 / 12))
            window = min(self.free - i, 2 * flips) + 2
            margins = self.unsettled * math.log2(max(min(values, window), 1.0)) + math.log2(distances)
            total += math.exp2(min(margins, _log2(ways), 990.0))
            ways = 2 * ways if self.radius is None else 2 * ways - (math.comb(i, flips) if i >= flips else 0)
        return min(total, NEVER)


def seconds_to_count(query: Query, *, limits: Limits = UNLIMITED, rates: Rates | None = None) -> dict[str, float]:
    """Guessed seconds of each engine for counting, cheapest first. Engines that cannot serve the query are absent.

    Args:
        query: The question.
        limits: For the number of threads.
        rates: Constants; default `RATES`.
    """
    shape, rates = Shape.of(query), rates or RATES
    return _sorted({name: _count(name, shape, limits, rates) for name in _served(shape)})


def seconds_to_decide(query: Query, *, limits: Limits = UNLIMITED, rates: Rates | None = None) -> dict[str, float]:
    """Guessed seconds of each engine for a verdict, cheapest first: what a proof of robustness would take.

    Args:
        query: The question.
        limits: For the number of threads.
        rates: Constants; default `RATES`.
    """
    shape, rates = Shape.of(query), rates or RATES
    guesses = {name: _count(name, shape, limits, rates) for name in _served(shape) if name != "propagation"}
    guesses["sat"] = rates.sat_setup + rates.sat_mac * shape.macs + rates.sat_decision
    return _sorted(guesses)


def _served(shape: Shape) -> list[str]:
    from bnnverify.engines import NAMES

    return [name for name in NAMES if not (name == "propagation" and shape.has_convolutions)]


def _sorted(guesses: dict[str, float]) -> dict[str, float]:
    return {name: min(guesses[name], NEVER) for name in sorted(guesses, key=lambda name: guesses[name])}


def _count(name: str, shape: Shape, limits: Limits, rates: Rates) -> float:
    inputs = math.exp2(min(_log2(shape.inputs), 990.0))
    if name == "enumeration":
        setup = rates.enumeration_setup + rates.enumeration_free * shape.free
        return setup + inputs * _each_input(shape, limits, rates)
    if name == "propagation":
        return rates.propagation_setup + rates.propagation_state * shape.frontier
    if name == "bdd":
        nodes = min(shape.frontier * max(shape.blocks, 1), NEVER)
        each = rates.bdd_node * math.exp2(2 * min(shape.unsettled - rates.bdd_wide, 0))
        return rates.bdd_setup + rates.bdd_gate * shape.gates + max(each, rates.bdd_node_narrow) * nodes
    if name == "sat":
        return rates.sat_setup + rates.sat_mac * shape.macs + rates.sat_input * inputs
    return NEVER  # an engine that nobody has measured goes last


def _each_input(shape: Shape, limits: Limits, rates: Rates) -> float:
    """Seconds that enumeration needs for one input."""
    if shape.has_convolutions:
        return rates.enumeration_mac * shape.macs
    if not shape.is_sliced:
        return rates.enumeration_one
    first = rates.enumeration_input + rates.enumeration_neuron * shape.unsettled
    return (first + rates.enumeration_later * shape.later) / _threads(limits)


def _threads(limits: Limits) -> int:
    return limits.threads or os.cpu_count() or 1


def _log2(count: int) -> float:
    """Logarithm of an integer of any size."""
    return math.log2(count)  # takes what float() would refuse


def _unsettled(query: Query) -> int:
    """Neurons of the first block whose sign differs within the region; without hidden blocks, all scores."""
    network, region = query.network, query.region
    if not network.blocks:
        return network.n_classes
    (block, *_) = network.dense_blocks("")
    free = np.array(region.free, dtype=np.int64)
    products = block.weights.astype(np.int32) * np.array(region.center, dtype=np.int32)
    disagreeing = np.count_nonzero(products < 0, axis=1)
    most = region.radius if isinstance(region, HammingBall) else free.size
    down = np.minimum(np.count_nonzero(products[:, free] < 0, axis=1), most)
    up = np.minimum(np.count_nonzero(products[:, free] > 0, axis=1), most)
    limits = disagreement_limits(block)
    return int(np.count_nonzero((disagreeing - down <= limits) & (disagreeing + up > limits)))
