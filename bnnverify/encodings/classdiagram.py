"""ClassDiagram: the class of every input of a region as one decision diagram, a product to keep and to ask again."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnnverify.encodings.diagram import Diagram
from bnnverify.encodings.layered import Check, reduced, walk
from bnnverify.encodings.layers import machine
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query, Untargeted
from bnnverify.regions import HammingBall, Region, sign_vector
from bnnverify.scalars import integer, integers, seeded


@dataclass(frozen=True, slots=True, eq=False)
class ClassDiagram:
    """The class (argmax, lowest index) of every input of a region, without the network.

    Attributes:
        network: Identity of the network, sha256 as hex.
        n_classes: Number of classes.
        region: Where the inputs lie.
        order: Index of the input that each level tests; true means +1. Fixed inputs have no level.
        diagram: Leaves 0 to ``n_classes - 1`` are the classes, leaf `n_classes` is "outside the region". Canonical:
            equal functions over the same order have equal arrays.

    References:
        Zhang et al., TOSEM 2023, keep one diagram per class; with a leaf per class all of them share their nodes.
    """

    network: str
    n_classes: int
    region: Region
    order: tuple[int, ...]
    diagram: Diagram

    @property
    def identity(self) -> str:
        """sha256 of everything above, as hex."""
        head = [self.network, self.n_classes, self.region.to_json(), list(self.order), self.diagram.root]
        digest = hashlib.sha256(json.dumps(head, sort_keys=True, separators=(",", ":")).encode())
        for array in (self.diagram.levels, self.diagram.low, self.diagram.high):
            digest.update(np.ascontiguousarray(array, dtype="<i4").tobytes())
        return digest.hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """Name of the variable of each level: x and the index of the input."""
        return tuple(f"x{i}" for i in self.order)

    @property
    def origin(self) -> tuple[bool, ...]:
        """By level the value at the region's centre."""
        return tuple(self.region.center[i] == 1 for i in self.order)

    def class_of(self, x: Sequence[int]) -> int | None:
        """Class of an input; None if it lies outside the region.

        Args:
            x: Shape `(n,)`, -1/+1.

        Raises:
            QueryError: x is no such vector.
        """
        values = self._require(x)
        free = set(self.order)
        if any(v != c and i not in free for i, (v, c) in enumerate(zip(values, self.region.center, strict=True))):
            return None
        leaf = self.diagram.leaf([values[i] == 1 for i in self.order])
        return None if leaf == self.n_classes else leaf

    def count(self, fixed: Mapping[int, int] | None = None) -> tuple[int, ...]:
        """Inputs of the region by class, exact.

        Args:
            fixed: Index -> -1 or +1: only inputs with these values count. Default: all.

        Raises:
            QueryError: An index or a value does not exist.
        """
        if isinstance(self.region, HammingBall):  # its radius keeps the numbers small
            return tuple(sum(row) for row in self.count_by_distance(fixed))
        values = self._levels(fixed or {})
        found = self.diagram.count(values=values) if values is not None else ((0,),) * self.n_classes
        return tuple(count for (count,) in found[: self.n_classes])

    def count_by_distance(self, fixed: Mapping[int, int] | None = None) -> tuple[tuple[int, ...], ...]:
        """Inputs of the region by class and Hamming distance from its centre, exact.

        Args:
            fixed: As in `count`.

        Returns:
            For each class the counts at distance 0 to the radius (fixed-index regions: the number of free inputs).
        """
        last = self.region.radius if isinstance(self.region, HammingBall) else len(self.order)
        values = self._levels(fixed or {})
        if values is None:
            return ((0,) * (last + 1),) * self.n_classes
        return self.diagram.count(steps=last, origin=self.origin, values=values)[: self.n_classes]

    def nearest(self, classes: Collection[int]) -> tuple[int, ...] | None:
        """An input with one of these classes, as near to the centre as any; None if the region has none.

        Raises:
            QueryError: A class does not exist.
        """
        found = self.diagram.nearest(self._classes(classes), self.origin)
        return None if found is None else self._input(found)

    def sample(self, classes: Collection[int], n: int = 1, *, seed: int | random.Random = 0) -> list[tuple[int, ...]]:
        """Inputs of the region with one of these classes, each exactly equally likely, drawn independently.

        Args:
            classes: Which inputs to draw from.
            n: How many to draw.
            seed: Of Python's generator, or a generator. Integers of any size are drawn, no floats.

        Raises:
            QueryError: A class does not exist, or no input has one of them.
        """
        n, (generator, _) = integer(n, "n", least=0), seeded(seed)
        diagram, wanted = self.diagram, self._classes(classes)
        weights, depths = diagram.weights(wanted), diagram.depths
        if not weights[diagram.root]:
            raise QueryError(f"no input of the region has a class of {sorted(wanted)}. Draw from other classes.")
        drawn = []
        for _ in range(n):
            values = [bool(generator.getrandbits(1)) for _ in self.order]  # what no node on the way tests stays free
            here = diagram.root
            while here >= diagram.n_leaves:
                row = here - diagram.n_leaves
                level = int(diagram.levels[row])
                low, high = int(diagram.low[row]), int(diagram.high[row])
                if_low = weights[low] << int(depths[low]) - level - 1
                values[level] = generator.randrange(weights[here]) >= if_low
                here = high if values[level] else low
            drawn.append(self._input(values))
        return drawn

    def _classes(self, classes: Collection[int]) -> frozenset[int]:
        wanted = integers(classes, "classes")
        for k in wanted:
            if not 0 <= k < self.n_classes:
                raise QueryError(f"class {k} does not exist, expected 0 to {self.n_classes - 1}.")
        return frozenset(wanted)

    def _require(self, x: Sequence[int]) -> tuple[int, ...]:
        values = sign_vector(x, "input")
        if len(values) != self.region.n:
            raise QueryError(f"the input has {len(values)} entries, expected {self.region.n}.")
        return values

    def _levels(self, fixed: Mapping[int, int]) -> list[bool | None] | None:
        """Values by level, or None if an input fixed by the region would have to change."""
        wanted: dict[int, int] = {}
        for key, given in fixed.items():
            i = integer(key, "an index of fixed")
            if not 0 <= i < self.region.n:
                raise QueryError(f"input {i} does not exist, expected 0 to {self.region.n - 1}.")
            wanted[i] = integer(given, f"the value of input {i}")
            if wanted[i] not in (-1, 1):
                raise QueryError(f"the value of input {i} is {wanted[i]}, expected -1 or +1.")
        free = set(self.order)
        if any(value != self.region.center[i] for i, value in wanted.items() if i not in free):
            return None
        return [wanted[i] == 1 if i in wanted else None for i in self.order]

    def _input(self, values: Sequence[bool]) -> tuple[int, ...]:
        x = list(self.region.center)
        for i, value in zip(self.order, values, strict=True):
            x[i] = 1 if value else -1
        return tuple(x)

    def __str__(self) -> str:
        return f"class diagram of {len(self.diagram):,} nodes over a {self.region}, {self.n_classes} classes"


def compile_diagram(
    network: BinaryNetwork,
    region: Region,
    *,
    order: Sequence[int] | None = None,
    check: Check = lambda nodes, size: None,
) -> ClassDiagram:
    """The class diagram of a network over a region.

    Args:
        network: Any network with -1/+1 inputs.
        region: Where the inputs lie.
        order: The region's free inputs from the top of the diagram to the bottom. Default: by influence.
        check: Called now and then with the nodes so far and the bytes in use; raises ResourceLimitError to stop.

    Raises:
        QueryError: The region does not fit the network, or the order does not list its free inputs.
        ResourceLimitError: `check` stopped the work, or memory did.
        UnsupportedError: Integer inputs, or scales of scores too far apart.
    """
    Query(network, region, Untargeted(0))  # refuses what does not fit
    order = None if order is None else integers(order, "order")
    if order is not None and sorted(order) != sorted(region.free):
        raise QueryError(f"order has {len(order)} entries, expected each of the region's free inputs once.")
    reader = machine(network, region, order=order)
    finished = walk(reader, check)
    if finished.reason:
        raise ResourceLimitError(f"{finished.reason}, and the diagram is not complete. Take a smaller region.")
    found = reduced(finished)
    unknown = reader.n_classes + 1  # its leaf leaves: nothing leads there
    low, high = (side - (side > unknown) for side in (found.low, found.high))
    plain = Diagram(found.n_levels, unknown, found.levels, low, high, found.root - (found.root > unknown))
    swapped = [region.center[i] == 1 for i in reader.order]  # "flipped" becomes "+1"
    return ClassDiagram(network.identity, reader.n_classes, region, reader.order, plain.canonical(swapped=swapped))
