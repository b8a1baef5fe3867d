"""Query: a network, a region, a property and a tie rule: everything that an answer depends on.

A query is phrased from the attacker's side: an input of the region is *adversarial* iff it has the property
`Untargeted(label)` (the class is not `label`) or `Targeted(target)` (the class is `target`). The network is
robust on the query iff no input of the region is adversarial.
"""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork
from bnnverify.regions import AnyRegion, PixelBox, RealBox, Region
from bnnverify.scalars import integer


class Ties(Enum):
    """What equal scores mean.

    LOWEST_INDEX: the class with the lowest index wins (argmax). The default.
    COUNTEREXAMPLE: a tie with the attacker's class is adversarial (VNN-LIB's ``Y_j >= Y_label``).
    ROBUST: a tie is not adversarial (the attacker's class must win strictly, as in eevbnn).
    """

    LOWEST_INDEX = "lowest-index"
    COUNTEREXAMPLE = "counterexample"
    ROBUST = "robust"


@dataclass(frozen=True, slots=True)
class Untargeted:
    """Adversarial: some class other than `label` wins against `label`."""

    label: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", integer(self.label, "class"))

    def __str__(self) -> str:
        return f"class is not {self.label}"


@dataclass(frozen=True, slots=True)
class Targeted:
    """Adversarial: `target` wins against every other class."""

    target: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", integer(self.target, "class"))

    def __str__(self) -> str:
        return f"class is {self.target}"


Property = Untargeted | Targeted


def needs_strict(winner: int, loser: int, ties: Ties, attacker: int) -> bool:
    """True if `winner` must be strictly above `loser` to count as winning, given who the attacker is."""
    if ties is Ties.LOWEST_INDEX:
        return winner > loser
    favours_attacker = ties is Ties.COUNTEREXAMPLE
    return (winner == attacker) != favours_attacker


@dataclass(frozen=True, slots=True)
class Query:
    """One question, complete. Hash and equality are by value; `identity` is the strong id for files.

    Attributes:
        network: The network.
        region: Over -1/+1 inputs a `HammingBall` or `FixedIndexRegion`; over integers a `PixelBox` or `RealBox`,
            which must lie within the bounds of the inputs.
        property: What makes an input adversarial.
        ties: What equal scores mean.

    Raises:
        QueryError: The region or the label does not fit the network.
        UnsupportedError: The region is over inputs of another kind than the network takes.
    """

    network: BinaryNetwork
    region: AnyRegion
    property: Property
    ties: Ties = Ties.LOWEST_INDEX

    def __post_init__(self) -> None:
        is_box = isinstance(self.region, (PixelBox, RealBox))
        if not is_box and not self.network.domain.is_binary:
            raise UnsupportedError(
                "the network takes integer inputs, but Hamming and fixed-index regions are over -1/+1 inputs. "
                "Use a PixelBox or RealBox, or a network with a binary input domain."
            )
        if is_box and self.network.domain.is_binary:
            raise UnsupportedError(
                "the network takes -1/+1 inputs, but boxes are over integers or reals. "
                "Use a HammingBall or FixedIndexRegion."
            )
        if self.region.n != self.network.n_inputs:
            raise QueryError(f"the region has {self.region.n} inputs, but the network takes {self.network.n_inputs}.")
        if isinstance(self.region, (PixelBox, RealBox)):
            _require_within(self.region, self.network)
        if not isinstance(self.ties, Ties):
            raise QueryError(f"ties is {self.ties!r}, expected a member of Ties such as Ties.LOWEST_INDEX.")
        label = self.property.label if isinstance(self.property, Untargeted) else self.property.target
        self.network.require_class(label)

    @builtins.property
    def sign_region(self) -> Region:
        """The region, for an engine that serves -1/+1 inputs only.

        Raises:
            UnsupportedError: It is a box.
        """
        if isinstance(self.region, (PixelBox, RealBox)):
            raise UnsupportedError(
                f"the region is a {self.region}, but this engine or analysis serves -1/+1 inputs only. "
                "Ask for a decision on the box instead."
            )
        return self.region

    @builtins.property
    def adversarial_classes(self) -> tuple[int, ...]:
        """The classes an input of which is adversarial, where ties are left aside."""
        if isinstance(self.property, Targeted):
            return (self.property.target,)
        return tuple(k for k in range(self.network.n_classes) if k != self.property.label)

    def score_conditions(self) -> tuple[tuple[tuple[int, int, bool], ...], bool]:
        """The property as comparisons of scores.

        Returns:
            `(comparisons, conjunctive)`: each comparison `(i, j, strict)` says score i >= score j, or > if
            strict. An input is adversarial iff all of them hold (conjunctive) or any of them does.
        """
        n, prop = self.network.n_classes, self.property
        if isinstance(prop, Untargeted):
            rivals = (k for k in range(n) if k != prop.label)
            return tuple((k, prop.label, needs_strict(k, prop.label, self.ties, k)) for k in rivals), False
        others = (k for k in range(n) if k != prop.target)
        return tuple((prop.target, k, needs_strict(prop.target, k, self.ties, prop.target)) for k in others), True

    def scores_adversarial(self, scores: Sequence[Fraction]) -> bool:
        """True iff these exact scores have the property: the definition that every engine must meet."""
        comparisons, conjunctive = self.score_conditions()
        held = (scores[i] > scores[j] if strict else scores[i] >= scores[j] for i, j, strict in comparisons)
        return all(held) if conjunctive else any(held)

    def is_adversarial(self, x: Sequence[int]) -> bool:
        """True iff x lies in the region and has the property, by exact evaluation of the network."""
        return self.region.contains(x) and self.scores_adversarial(self.network.scores(x))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line; the network by its identity."""
        prop: dict[str, Any]
        if isinstance(self.property, Untargeted):
            prop = {"kind": "untargeted", "label": self.property.label}
        else:
            prop = {"kind": "targeted", "target": self.property.target}
        return {
            "network": self.network.identity,
            "region": self.region.to_json(),
            "property": prop,
            "ties": self.ties.value,
        }

    @builtins.property
    def identity(self) -> str:
        """sha256 of everything that affects the answer, as hex."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _require_within(box: PixelBox | RealBox, network: BinaryNetwork) -> None:
    """QueryError unless the box lies within the bounds of the network's inputs."""
    domain = network.domain
    for i, (low, high) in enumerate(zip(domain.lower.tolist(), domain.upper.tolist(), strict=True)):
        if box.lower[i] < low or box.upper[i] > high:
            raise QueryError(
                f"input {i} of the box goes from {box.lower[i]} to {box.upper[i]}, but the network takes {low} to "
                f"{high}. Clip the box (PixelBox.linf with the domain does)."
            )
