"""The question as clauses, written down once more: plain, in the order of the network, and shared with no engine.

A proof says that *these* clauses have no solution, so whoever checks one writes them again from the network and the
question and compares. Whoever wants a proof has a solver refute exactly these clauses.

The clauses in full: an integer input with values ``low .. high`` has one variable per value v above `low`, "at least
v", and a clause for each two neighbours. Signs that intervals settle are constants (`checking.bounds`). Every other
neuron that the property depends on has a variable, which equals "the sum reaches the threshold" through a totalizer:
a balanced tree over what the neuron reads, whose nodes have a variable "the sum below is at least s" for each s that
matters, defined in both directions. Over a real box the open neurons of the first block are free variables: this
admits more than the box holds, so a refutation still proves that nothing in it is adversarial.

References:
    Totalizer: Bailleux & Boufkhad, CP 2003; with weights: Joshi, Martins & Manquinho, CP 2015.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from bnnverify.blocks import DenseBlock
from bnnverify.checking.bounds import (
    block_bounds,
    comparison_terms,
    input_bounds,
    is_conjunction,
    reaches,
    windows,
)
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.errors import ResourceLimitError
from bnnverify.query import Query
from bnnverify.regions import HammingBall, PixelBox, RealBox

Clause = tuple[int, ...]

MOST_CLAUSES, MOST_SUMS = 50_000_000, 100_000

Term = tuple[int, int]
"""``(weight, flat entry)`` of what a neuron reads."""


@dataclass(slots=True)
class Clauses:
    """Clauses that some input of the region satisfies iff it is adversarial (over a real box: only if).

    Attributes:
        clauses: In order; an empty clause where the bounds alone exclude everything.
        names: Name of each variable that is an input or a neuron; the others belong to totalizers.
        n_variables: Highest variable.
    """

    clauses: list[Clause] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    n_variables: int = 0

    def variable(self, name: str = "") -> int:
        """A fresh variable."""
        self.n_variables += 1
        if name:
            self.names[self.n_variables] = name
        return self.n_variables


def clauses_of(query: Query, check: Callable[[], None] = lambda: None) -> Clauses:
    """The clauses of a question; equal questions give equal clauses.

    Args:
        query: Any query.
        check: Called now and then; raises to stop.

    Raises:
        ResourceLimitError: More than `MOST_CLAUSES`, as scores of very different scales need.
    """
    writer = _Writer(query, check)
    writer.write_region()
    writer.write_property()
    return writer.out


@dataclass(slots=True)
class _Node:
    """A totalizer's node: the sums that the literals below it can have.

    Attributes:
        values: Attainable sums above 0, ascending.
        literals: For each of them the literal of "the sum is at least this"; 0 where it has none yet.
        children: What is added up; None at a leaf.
    """

    values: Sequence[int]
    literals: list[int]
    children: tuple[_Node, _Node] | None = None

    def place(self, least: int) -> int:
        """Place of the smallest attainable sum of at least `least`: -1 if that is 0, the length if there is none."""
        return -1 if least <= 0 else bisect_left(self.values, least)


def _leaf(literals: list[int], weight: int = 1) -> _Node:
    """Literals of which each implies the one before: their number times the weight."""
    return _Node(range(weight, weight * len(literals) + 1, weight), literals)


def _tree(leaves: Sequence[_Node]) -> _Node:
    if len(leaves) == 1:
        return leaves[0]
    middle = len(leaves) // 2
    left, right = _tree(leaves[:middle]), _tree(leaves[middle:])
    values: Sequence[int]
    if all(child.values == range(1, len(child.values) + 1) for child in (left, right)):
        values = range(1, len(left.values) + len(right.values) + 1)
    else:
        values = sorted({a + b for a in (0, *left.values) for b in (0, *right.values)} - {0})
        if len(values) > MOST_SUMS:
            raise ResourceLimitError(
                f"a sum of scores takes more than {MOST_SUMS} values, because their scales differ. "
                "No certificate of clauses is written for such a network."
            )
    return _Node(values, [0] * len(values), (left, right))


class _Writer:
    """Writes the clauses of one query."""

    def __init__(self, query: Query, check: Callable[[], None]) -> None:
        self.query, self.check, self.out = query, check, Clauses()
        self.bounds = block_bounds(query)
        self.low, self.high = (values.tolist() for values in input_bounds(query))
        self.is_box = isinstance(query.region, (PixelBox, RealBox))
        self.is_real = isinstance(query.region, RealBox)
        self.inputs: dict[int, list[int]] = {}
        self.known: dict[tuple[int, int, bool], int] = {}
        self.windows = [windows(block) for block in query.network.blocks]
        self.cells = [_cells(block) for block in query.network.blocks]

    def add(self, *clause: int) -> None:
        """One clause."""
        self.out.clauses.append(clause)
        if len(self.out.clauses) > MOST_CLAUSES:
            raise ResourceLimitError(
                f"the question takes more than {MOST_CLAUSES} clauses. Ask about a smaller region or network."
            )

    def write_region(self) -> None:
        """Variables of the inputs that vary, and what the region says about them."""
        region = self.query.region
        if isinstance(region, RealBox):
            return
        for i, (least, most) in enumerate(zip(self.low, self.high, strict=True)):
            if isinstance(region, PixelBox):
                literals = [self.out.variable(f"x{i}>={value}") for value in range(least + 1, most + 1)]
                for below, above in pairwise(literals):
                    self.add(below, -above)
            else:
                literals = [self.out.variable(f"x{i}")] if least != most else []
            self.inputs[i] = literals
        if isinstance(region, HammingBall) and region.radius < len(region.free):
            flips = [-v if region.center[i] == 1 else v for i in region.free for v in self.inputs[i]]
            self.add(-self.at_least([_leaf([v]) for v in flips], region.radius + 1))

    def write_property(self) -> None:
        """Some comparison holds, or all do."""
        comparisons, conjunctive = self.query.score_conditions()
        goals: list[int | bool] = []
        if self.is_real and not self.query.network.blocks:
            goals = [not reach.is_excluded for reach in reaches(self.query, self.bounds)]
        else:
            for i, j, strict in comparisons:
                self.check()
                weights, bound = comparison_terms(self.query, i, j, strict)
                terms = [(w, entry) for entry, w in enumerate(weights) if w]
                goals.append(self.reaches(len(self.bounds), terms, bound))
        if conjunctive:
            for goal in goals:
                if goal is not True:
                    self.add(*([] if goal is False else [goal]))
        elif not any(goal is True for goal in goals):  # literal 1 equals True
            self.add(*(goal for goal in goals if goal is not False))

    def reaches(self, block: int, terms: Sequence[Term], bound: int) -> int | bool:
        """Literal of "the weighted sum of what arrives at `block` is at least `bound`", or its value."""
        leaves: list[tuple[list[int], int]] = []
        for weight, entry in terms:
            least, step, literals = self.entry(block, entry)
            if weight < 0:  # the entry is its greatest value minus a step for each literal that is false
                least, literals = least + step * len(literals), [-v for v in reversed(literals)]
            bound -= weight * least
            if literals:
                leaves.append((literals, abs(weight) * step))
        if bound <= 0:
            return True
        if bound > sum(len(literals) * weight for literals, weight in leaves):
            return False
        divisor = math.gcd(*(weight for _, weight in leaves))
        return self.at_least([_leaf(literals, weight // divisor) for literals, weight in leaves], -(-bound // divisor))

    def entry(self, block: int, entry: int) -> tuple[int, int, list[int]]:
        """A flat entry that arrives at a block, as its least value, a step, and literals that add a step each."""
        if block == 0:
            return self.low[entry], 1 if self.is_box else 2, self.inputs[entry]
        sign = int(self.bounds[block - 1].after[entry])
        return (sign, 2, []) if sign else (-1, 2, [self.output(block - 1, entry)])

    def output(self, b: int, output: int) -> int:
        """Literal of an output of a hidden block that the bounds leave open."""
        members = self.windows[b][output]
        literals = [self.neuron(b, j) for j in members if self.bounds[b].before[j] == 0]
        if len(literals) == 1:
            return literals[0]
        if (b, output, True) not in self.known:
            self.known[b, output, True] = found = self.out.variable(f"h{b}.{output}")
            # where the window is "and" the negations are "or"
            sign = -1 if is_conjunction(self.query.network.blocks[b], output) else 1
            for literal in literals:
                self.add(-sign * literal, sign * found)
            self.add(-sign * found, *(sign * literal for literal in literals))
        return self.known[b, output, True]

    def neuron(self, b: int, j: int) -> int:
        """Literal of a neuron before pooling that the bounds leave open."""
        if (b, j, False) not in self.known:
            self.check()
            block = self.query.network.blocks[b]
            if b == 0 and self.is_real:
                self.known[b, j, False] = self.out.variable(f"s0.{j}")
                return self.known[b, j, False]
            terms, constant = self.terms(b, j)
            threshold = int(block.thresholds[j // math.prod(block.positions) if isinstance(block, ConvBlock) else j])
            found = self.reaches(b, terms, threshold - constant)
            assert not isinstance(found, bool)  # the bounds are the same sums
            self.out.names.setdefault(abs(found), f"s{b}.{j}" if found > 0 else f"not s{b}.{j}")
            self.known[b, j, False] = found
        return self.known[b, j, False]

    def terms(self, b: int, j: int) -> tuple[list[Term], int]:
        """What a neuron reads, and what its padding adds."""
        block = self.query.network.blocks[b]
        if isinstance(block, DenseBlock):
            return [(w, i) for i, _, _, w in self.cells[b][j]], 0
        rows, columns = block.positions
        f, place = divmod(j, rows * columns)
        top = place // columns * block.stride[0] - block.padding[0]
        left = place % columns * block.stride[1] - block.padding[1]
        _, height, width = block.input_shape
        found, constant = [], 0
        for channel, r, c, weight in self.cells[b][f]:
            if 0 <= top + r < height and 0 <= left + c < width:
                found.append((weight, (channel * height + top + r) * width + left + c))
            else:
                constant += weight * block.pad_value
        return found, constant

    def at_least(self, leaves: Sequence[_Node], bound: int) -> int:
        """Literal of "the sum of the leaves is at least `bound`", which is open."""
        root = _tree(leaves)
        return self.literal(root, root.place(bound))

    def literal(self, node: _Node, place: int) -> int:
        """Literal of "the sum below the node is at least its value at this place", defined when first asked for."""
        if not node.literals[place]:
            assert node.children is not None
            left, right = node.children
            target, found = node.values[place], self.out.variable()
            node.literals[place] = found
            enough: dict[int, int] = {}  # by place on the right: the first on the left with which it reaches the target
            lacking: dict[int, int] = {}  # by place on the right: the last on the left with which less is too little
            for here in range(-1, len(left.values)):
                there = right.place(target - (left.values[here] if here >= 0 else 0))
                if there < len(right.values):
                    enough.setdefault(there, here)
                if there >= 0:
                    lacking[there] = here + 1
            for there, here in enough.items():
                guard = [-self.literal(node, at) for node, at in ((left, here), (right, there)) if at >= 0]
                self.add(*guard, found)
            for there, here in lacking.items():
                ends = ((left, here), (right, there))
                self.add(*(self.literal(node, at) for node, at in ends if at < len(node.values)), -found)
        return node.literals[place]


def _cells(block: HiddenBlock) -> list[list[tuple[int, int, int, int]]]:
    """For each neuron or filter its weights that are present: `(input or channel, row, column, weight)`."""
    found = []
    for row in block.weights.reshape(len(block.weights), *block.weights.shape[1:], *[1] * (4 - block.weights.ndim)):
        places = np.argwhere(row).tolist()
        found.append([(i, r, c, int(row[i, r, c])) for i, r, c in places])
    return found
