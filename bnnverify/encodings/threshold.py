"""The reduced decision diagram of one linear constraint: the common source of the BDD and the CNF encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FALSE, TRUE = 0, 1


@dataclass(frozen=True, slots=True)
class ThresholdDiagram:
    """A reduced ordered decision diagram over the literals of a constraint, in a given order.

    Attributes:
        nodes: Triples `(position, high, low)`: the literal tested, and where to go if it is true or false. Node i has
            the number ``i + 2``; 0 and 1 are false and true. Children come before parents.
        root: Number of the node that decides the constraint.
    """

    nodes: tuple[tuple[int, int, int], ...]
    root: int


def threshold_diagram(
    coefficients: Sequence[int], bound: int, *, center: Sequence[bool] | None = None, radius: int | None = None
) -> ThresholdDiagram:
    """The diagram of "the coefficients of the true literals add up to at least `bound`".

    With `center` and `radius` it is right wherever at most `radius` literals differ from `center`, and has no more
    than ``n * (2 * radius + 1)`` nodes for a cardinality constraint: partial sums that no such input reaches are left
    out, and a node with one reachable child is that child. Elsewhere its value means nothing.

    Args:
        coefficients: Positive integers, one per literal, in the order of the tests.
        bound: Least sum.
        center: Value of each literal at the centre.
        radius: Most literals that differ from it.

    References:
        Een & Sorensson, JSAT 2006, Sec. 5 (diagrams of pseudo-Boolean constraints). Leaving out what lies outside
        the ball: ours.
    """
    n = len(coefficients)
    if center is None or radius is None:
        center, radius = (False,) * n, n
    rests = _Rests(coefficients, center)
    # states[i]: what is still needed of literals i.. -> fewest flips so far; settled states are not kept
    states: list[dict[int, int]] = [{} for _ in range(n + 1)]
    if rests.settled(0, bound, radius) is None:
        states[0][bound] = 0
    for i in range(n):
        for needed, flips in states[i].items():
            for taken in (True, False):
                after, used = needed - coefficients[i] * taken, flips + (center[i] != taken)
                if used <= radius and rests.settled(i + 1, after, radius - used) is None:
                    states[i + 1][after] = min(used, states[i + 1].get(after, used))
    nodes: list[tuple[int, int, int]] = []
    unique: dict[tuple[int, int, int], int] = {}
    below: dict[int, int] = {}
    for i in reversed(range(n)):
        level: dict[int, int] = {}
        for needed, flips in states[i].items():
            children: list[int | None] = []
            for taken in (True, False):
                after, used = needed - coefficients[i] * taken, flips + (center[i] != taken)
                if used > radius:
                    children.append(None)
                    continue
                truth = rests.settled(i + 1, after, radius - used)
                # a state settled for this parent may be open for another one that spent fewer flips
                children.append(below[after] if truth is None else int(truth))
            high, low = children
            high = low if high is None else high
            low = high if low is None else low
            assert high is not None and low is not None
            if high != low and (i, high, low) not in unique:
                nodes.append((i, high, low))
                unique[i, high, low] = len(nodes) + 1
            level[needed] = high if high == low else unique[i, high, low]
        below = level
    truth = rests.settled(0, bound, radius)
    return ThresholdDiagram(tuple(nodes), below[bound] if truth is None else int(truth))


class _Rests:
    """Bounds on what the literals from a position on can add."""

    def __init__(self, coefficients: Sequence[int], center: Sequence[bool]) -> None:
        self.met, self.unmet, self.largest = [0], [0], [0]
        for c, value in zip(reversed(coefficients), reversed(center), strict=True):
            self.met.append(self.met[-1] + c * value)
            self.unmet.append(self.unmet[-1] + c * (not value))
            self.largest.append(max(self.largest[-1], c))
        for sums in (self.met, self.unmet, self.largest):
            sums.reverse()

    def settled(self, i: int, needed: int, flips: int) -> bool | None:
        """Whether literals i.. add up to `needed` with at most `flips` flips; None if that depends."""
        reach = flips * self.largest[i]
        if self.met[i] - min(self.met[i], reach) >= needed:
            return True
        if self.met[i] + min(self.unmet[i], reach) < needed:
            return False
        return None
