"""Answers of the counting analyses: all radii, safe distances, noise, samples. To and from one JSON line.

As in `results.py` nothing here computes more than a quotient, and every answer says what it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

from bnnverify.errors import QueryError
from bnnverify.fields import Fields
from bnnverify.results import Kind, Probability, Run, fraction_of, fraction_text


@dataclass(frozen=True, slots=True)
class RadiusCounts:
    """Adversarial inputs around a centre, radius by radius. All numbers are Python integers.

    Attributes:
        n: Inputs that may flip; the size of every shell and ball follows from it.
        max_radius: The largest radius that was asked for.
        shells: Adversarial inputs at each exact distance 0, 1, ...: proved, and shorter than ``max_radius + 1`` if the
            search was cut short.
        run: How they were obtained.
        per_class: For each of these distances, the inputs there by predicted class; None if not asked for.
        beyond: If cut short, proved bounds `(lower, upper)` on the adversarial inputs of the next larger ball.
    """

    n: int
    max_radius: int
    shells: tuple[int, ...]
    run: Run
    per_class: tuple[tuple[int, ...], ...] | None = None
    beyond: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_radius <= self.n or len(self.shells) > self.max_radius + 1:
            raise QueryError(f"{len(self.shells)} shells do not fit in radius {self.max_radius} of {self.n} inputs.")

    @property
    def kind(self) -> Kind:
        """EXACT if every radius was counted. The shells are exact in either case."""
        return Kind.EXACT if len(self.shells) == self.max_radius + 1 else Kind.INTERVAL

    @property
    def balls(self) -> tuple[int, ...]:
        """Adversarial inputs within each of the counted distances."""
        return tuple(accumulate(self.shells))

    def shell_size(self, radius: int) -> int:
        """Inputs at exactly this distance."""
        return math.comb(self.n, radius)

    def ball_size(self, radius: int) -> int:
        """Inputs within this distance."""
        return sum(math.comb(self.n, r) for r in range(radius + 1))

    def density(self, radius: int) -> Fraction:
        """Exact share of adversarial inputs in the ball."""
        return Fraction(sum(self._counted(radius)), self.ball_size(radius))

    def shell_density(self, radius: int) -> Fraction:
        """Exact share of adversarial inputs at exactly this distance."""
        return Fraction(self._counted(radius)[-1], self.shell_size(radius))

    def _counted(self, radius: int) -> tuple[int, ...]:
        if not 0 <= radius < len(self.shells):
            raise QueryError(f"radius {radius} is not counted, expected 0 to {len(self.shells) - 1}. {self.run.reason}")
        return self.shells[: radius + 1]

    def to_json(self) -> dict[str, Any]:
        """Plain values; densities as text ``numerator/denominator``."""
        radii = range(len(self.shells))
        return {
            "type": "radius-counts",
            "kind": self.kind.value,
            "n": self.n,
            "max_radius": self.max_radius,
            "shells": list(self.shells),
            "balls": list(self.balls),
            "densities": [fraction_text(self.density(r)) for r in radii],
            "shell_densities": [fraction_text(self.shell_density(r)) for r in radii],
            "per_class": None if self.per_class is None else [list(row) for row in self.per_class],
            "beyond": None if self.beyond is None else list(self.beyond),
            "run": self.run.to_json(),
        }


@dataclass(frozen=True, slots=True)
class SafeDistance:
    """The largest r such that every radius up to r has a density of adversarial inputs of at most a tolerance.

    Attributes:
        tolerance: The density that is accepted.
        lower: Every radius up to this one is proved to be within the tolerance; -1 if the centre itself is not.
        upper: The radius after this one is proved to be above it, or there is no further radius; None if unknown.
        run: How it was obtained.
        violation: Density at radius ``upper + 1``, or a proved lower bound above the tolerance; None if there is none.
    """

    tolerance: Fraction
    lower: int
    upper: int | None
    run: Run
    violation: Fraction | None = None

    @property
    def kind(self) -> Kind:
        """EXACT if the bounds meet, else INTERVAL."""
        return Kind.EXACT if self.lower == self.upper else Kind.INTERVAL

    def to_json(self) -> dict[str, Any]:
        """Plain values; fractions as text ``numerator/denominator``."""
        return {
            "type": "safe-distance",
            "kind": self.kind.value,
            "tolerance": str(self.tolerance),
            "lower": self.lower,
            "upper": self.upper,
            "violation": None if self.violation is None else str(self.violation),
            "run": self.run.to_json(),
        }


@dataclass(frozen=True, slots=True)
class NoiseError:
    """Probability that noise on the inputs changes the class.

    Attributes:
        probability: EXACT or INTERVAL, in Fractions.
        label: The class that should be kept.
        radius: Flips up to which every pattern of noise was accounted for, -1 if none was; None if they were not taken
            by flips.
        unseen: Exact probability of what was not accounted for.
        run: How it was obtained.
    """

    probability: Probability
    label: int
    radius: int | None
    unseen: Fraction
    run: Run

    @property
    def kind(self) -> Kind:
        """EXACT or INTERVAL."""
        return self.probability.kind

    def to_json(self) -> dict[str, Any]:
        """Plain values; fractions as text ``numerator/denominator``."""
        return {
            "type": "noise",
            **self.probability.to_json(),
            "label": self.label,
            "radius": self.radius,
            "unseen": fraction_text(self.unseen),
            "run": self.run.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Samples:
    """Adversarial inputs of a region drawn uniformly by their exact rank, each replayed through the network.

    Attributes:
        inputs: The inputs (-1/+1) in the order they were drawn; none if the count was cut short.
        predicted: Their classes.
        adversarial: How many adversarial inputs the region has, all equally likely; None if the count was cut short.
        region_size: Inputs in the region.
        seed: Of the generator, or None if the caller brought one.
        replacement: True if an input may be drawn more than once.
        run: How they were obtained.
    """

    inputs: tuple[tuple[int, ...], ...]
    predicted: tuple[int, ...]
    adversarial: int | None
    region_size: int
    seed: int | None
    replacement: bool
    run: Run

    @property
    def kind(self) -> Kind:
        """EXACT: the distribution is exactly uniform. INTERVAL, with nothing drawn, if the count was cut short."""
        return Kind.INTERVAL if self.adversarial is None else Kind.EXACT

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "samples",
            "kind": self.kind.value,
            "inputs": [list(x) for x in self.inputs],
            "predicted": list(self.predicted),
            "adversarial": self.adversarial,
            "region_size": self.region_size,
            "seed": self.seed,
            "replacement": self.replacement,
            "run": self.run.to_json(),
        }


Quantity = RadiusCounts | SafeDistance | NoiseError | Samples

TYPES = ("radius-counts", "safe-distance", "noise", "samples")


def quantity_from_json(data: Fields, run: Run) -> Quantity:
    """The answer that `to_json` wrote; `run` is already read."""
    kind = data.text("type")
    if kind == "radius-counts":
        per_class = None if data.value("per_class") is None else data.rows("per_class")
        beyond = data.maybe_wholes("beyond")
        if beyond is not None and (len(beyond) != 2 or beyond[0] > beyond[1]):
            raise QueryError(f"beyond is {beyond!s:.60}, expected a lower and an upper bound.")
        ends = None if beyond is None else (beyond[0], beyond[1])
        return RadiusCounts(data.whole("n"), data.whole("max_radius"), data.wholes("shells"), run, per_class, ends)
    if kind == "safe-distance":
        violation = None if data.value("violation") is None else fraction_of(data.text("violation"))
        lower, upper = data.whole("lower", -1), data.maybe_whole("upper", -1)
        return SafeDistance(fraction_of(data.text("tolerance")), lower, upper, run, violation)
    if kind == "noise":
        label, radius, unseen = (
            data.whole("label"),
            data.maybe_whole("radius", least=-1),
            fraction_of(data.text("unseen")),
        )
        return NoiseError(Probability.from_json(data), label, radius, unseen, run)
    if kind == "samples":
        adversarial, size, seed = data.maybe_whole("adversarial"), data.whole("region_size"), data.maybe_whole("seed")
        inputs, predicted = data.rows("inputs", None), data.wholes("predicted")
        if len(inputs) != len(predicted) or not 0 <= (adversarial or 0) <= size:
            raise QueryError(f"{len(inputs)} samples with {len(predicted)} classes do not fit together.")
        return Samples(inputs, predicted, adversarial, size, seed, data.flag("replacement"), run)
    raise QueryError(f"result type is {kind!r:.40}, expected one of {', '.join(TYPES)}.")
