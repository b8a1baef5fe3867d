"""Results: answers with their kind of exactness, to and from one JSON line.

Nothing here computes. A `Probability` or `Count` always says what it is: `exact`, a rigorous `interval`,
`pac` (within a factor with a confidence) or `sampled` (a confidence interval), and never passes for better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from bnnverify.errors import QueryError
from bnnverify.fields import Fields
from bnnverify.reading import parsed

if TYPE_CHECKING:
    from bnnverify.quantities import Quantity

_FRACTION = re.compile(r"(-?[0-9]+)(?:/([0-9]+))?", re.ASCII)


def fraction_text(value: Fraction) -> str:
    """As ``str``, for numbers of any length: Python's own conversion ends at 4,300 digits."""
    from flint import fmpz

    whole = str(fmpz(value.numerator))
    return whole if value.denominator == 1 else f"{whole}/{fmpz(value.denominator)}"


def fraction_of(text: str) -> Fraction:
    """The number that `fraction_text` wrote; ValueError if it wrote no such text.

    >>> fraction_of(fraction_text(Fraction(-3, 10**5000))) == Fraction(-3, 10**5000)
    True
    """
    from flint import fmpz

    match = _FRACTION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r:.40} is no fraction such as 3/8")
    numerator, denominator = int(fmpz(match[1])), int(fmpz(match[2] or "1"))
    if denominator == 0:
        raise ValueError(f"{text!r:.40} has the denominator 0")
    return Fraction(numerator, denominator)


class Kind(Enum):
    """How far an answer can be trusted, best first."""

    EXACT = "exact"
    INTERVAL = "interval"
    PAC = "pac"
    SAMPLED = "sampled"


class Verdict(Enum):
    """Whether a region holds no adversarial input. UNKNOWN always comes with a reason, and is never False."""

    ROBUST = "robust"
    NOT_ROBUST = "not-robust"
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        raise TypeError("a Verdict is not a truth value; compare with Verdict.ROBUST.")


@dataclass(frozen=True, slots=True)
class Run:
    """How an answer was obtained.

    Attributes:
        engine: Name of the engine.
        seconds: Wall time, s.
        reason: Why an answer is not complete; empty if it is.
        statistics: Numbers of the engine, such as BDD nodes or conflicts.
    """

    engine: str
    seconds: float = 0.0
    reason: str = ""
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "engine": self.engine,
            "seconds": round(self.seconds, 6),
            "reason": self.reason,
            "statistics": dict(self.statistics),
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """Is there an adversarial input in the region?

    Attributes:
        verdict: ROBUST and NOT_ROBUST are proved; UNKNOWN carries `run.reason`.
        counterexample: An adversarial input (-1/+1), replayed through `network.evaluate`; None unless NOT_ROBUST.
        predicted: Class of the counterexample, or None.
        run: How it was obtained.
    """

    verdict: Verdict
    run: Run
    counterexample: tuple[int, ...] | None = None
    predicted: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "decision",
            "verdict": self.verdict.value,
            "counterexample": None if self.counterexample is None else list(self.counterexample),
            "predicted": self.predicted,
            "run": self.run.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Count:
    """How many inputs of a region are adversarial. All numbers are Python integers.

    Attributes:
        kind: EXACT if lower == upper, INTERVAL if stopped early (both bounds proved).
        lower: Adversarial inputs, at least.
        upper: Adversarial inputs, at most.
        region_size: Inputs in the region.
        per_class: Inputs of the region by predicted class (argmax, lowest index); None if stopped early or
            not asked for.
        per_radius: Adversarial inputs at each exact distance 0..radius of a Hamming ball, or None.
        run: How it was obtained.
    """

    kind: Kind
    lower: int
    upper: int
    region_size: int
    run: Run
    per_class: tuple[int, ...] | None = None
    per_radius: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.lower <= self.upper <= self.region_size:
            raise QueryError(f"count bounds {self.lower}..{self.upper} do not fit in 0..{self.region_size}.")
        if self.kind is Kind.EXACT and self.lower != self.upper:
            raise QueryError(f"an exact count has bounds {self.lower} and {self.upper}, expected equal ones.")

    @property
    def adversarial(self) -> int:
        """The exact count; QueryError if it is not exact."""
        if self.kind is not Kind.EXACT:
            raise QueryError(f"the count is {self.kind.value} ({self.lower} to {self.upper}), not exact.")
        return self.lower

    @property
    def density(self) -> Fraction:
        """Exact share of adversarial inputs in the region."""
        return Fraction(self.adversarial, self.region_size)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line. Integers beyond 2^53 stay integers: read them with a JSON parser that can."""
        return {
            "type": "count",
            "kind": self.kind.value,
            "lower": self.lower,
            "upper": self.upper,
            "region_size": self.region_size,
            "per_class": None if self.per_class is None else list(self.per_class),
            "per_radius": None if self.per_radius is None else list(self.per_radius),
            "run": self.run.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Distance:
    """Distance from an input to the nearest adversarial one.

    Attributes:
        lower: Every adversarial input is at least this far (proved).
        upper: Distance of `witness`, or None if none was found up to the limit.
        witness: An adversarial input at distance `upper`, replayed; or None.
        predicted: Class of the witness, or None.
        run: How it was obtained.
        norm: ``hamming``: inputs that differ; or ``linf``: the greatest change of an input, in its own units.
    """

    lower: int
    upper: int | None
    run: Run
    witness: tuple[int, ...] | None = None
    predicted: int | None = None
    norm: str = "hamming"

    @property
    def kind(self) -> Kind:
        """EXACT if the bounds meet, else INTERVAL."""
        return Kind.EXACT if self.lower == self.upper else Kind.INTERVAL

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "distance",
            "kind": self.kind.value,
            "lower": self.lower,
            "upper": self.upper,
            "witness": None if self.witness is None else list(self.witness),
            "predicted": self.predicted,
            "run": self.run.to_json(),
        } | ({} if self.norm == "hamming" else {"norm": self.norm})


@dataclass(frozen=True, slots=True)
class Probability:
    """A probability with its kind.

    Attributes:
        kind: EXACT (lower == upper), INTERVAL (proved bounds, all rounding included) or SAMPLED.
        lower: Lower bound, a Fraction; for SAMPLED the end of the confidence interval.
        upper: Upper bound, a Fraction.
        confidence: For SAMPLED the level of the interval, such as 0.99; else None.
        samples: For SAMPLED the number of samples; else None.
        hits: For SAMPLED the number of samples with the event; else None.
    """

    kind: Kind
    lower: Fraction
    upper: Fraction
    confidence: float | None = None
    samples: int | None = None
    hits: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.lower <= self.upper <= 1:
            raise QueryError(f"probability bounds {float(self.lower)}..{float(self.upper)} do not fit in 0..1.")
        if self.kind is Kind.EXACT and self.lower != self.upper:
            raise QueryError("an exact probability has different bounds.")
        if (self.kind is Kind.SAMPLED) != (self.confidence is not None):
            raise QueryError("a confidence level belongs to sampled probabilities, and to these only.")

    @classmethod
    def exact(cls, value: Fraction) -> Probability:
        """The exact value."""
        return cls(Kind.EXACT, value, value)

    @classmethod
    def interval(cls, lower: Fraction, upper: Fraction) -> Probability:
        """Proved bounds, clipped to [0, 1]; EXACT only where an engine says so, never because they meet."""
        return cls(Kind.INTERVAL, max(lower, Fraction(0)), min(upper, Fraction(1)))

    @property
    def width(self) -> Fraction:
        """Upper minus lower bound."""
        return self.upper - self.lower

    @property
    def estimate(self) -> Fraction:
        """Share of hits for SAMPLED, else the middle of the bounds: for plots only."""
        if self.hits is not None and self.samples:
            return Fraction(self.hits, self.samples)
        return (self.lower + self.upper) / 2

    def complement(self) -> Probability:
        """Probability of the opposite event, of the same kind."""
        hits = None if self.hits is None or self.samples is None else self.samples - self.hits
        return Probability(self.kind, 1 - self.upper, 1 - self.lower, self.confidence, self.samples, hits)

    def to_json(self) -> dict[str, Any]:
        """Plain values; exact bounds as text ``numerator/denominator``, beside floats for reading and plotting."""
        line: dict[str, Any] = {
            "kind": self.kind.value,
            "lower": fraction_text(self.lower),
            "upper": fraction_text(self.upper),
            "approximately": [float(self.lower), float(self.upper)],
        }
        if self.kind is Kind.SAMPLED:
            line |= {"confidence": self.confidence, "samples": self.samples, "hits": self.hits}
        return line

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Probability:
        """The probability that `to_json` wrote."""
        fields = data if isinstance(data, Fields) else Fields(data, "the probability")
        kind, ends = Kind(fields.text("kind")), (fraction_of(fields.text("lower")), fraction_of(fields.text("upper")))
        if kind is not Kind.SAMPLED:
            return cls(kind, *ends)
        confidence, samples, hits = fields.real("confidence", 0, 1), fields.value("samples"), fields.value("hits")
        if samples is not None:
            hits = fields.whole("hits", 0, fields.whole("samples", 1))
        return cls(kind, *ends, confidence, samples, hits)

    def __str__(self) -> str:
        if self.kind is Kind.EXACT:
            return (
                f"{self.lower} (exact)"
                if self.lower.denominator < 10**6
                else f"{float(self.lower):.17g} (exact, rounded)"
            )
        label = "interval" if self.confidence is None else f"sampled, {self.confidence:.1%}"
        return f"[{_digits(self.lower, ROUND_FLOOR)}, {_digits(self.upper, ROUND_CEILING)}] ({label})"


def _digits(value: Fraction, rounding: str, digits: int = 7) -> str:
    """Decimal text of a bound, rounded outward to some significant digits."""
    context = Context(prec=digits, rounding=rounding)
    return f"{context.divide(Decimal(value.numerator), Decimal(value.denominator)).normalize(context):g}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Inputs that settle a question: with their central values, no input of the region is adversarial.

    EXACT: a prime implicant, of which no input can be dropped. INTERVAL: a limit was reached; `kept` is proved to
    suffice, and every part of it that suffices contains `needed`, but nobody knows about `undecided`.

    Attributes:
        kept: Indices, in order. Proved to suffice.
        values: The values there, -1/+1.
        undecided: Those of `kept` that were not proved to be needed; empty iff the explanation is prime.
        n_free: Inputs that vary in the region: what `kept` was chosen from.
        order: Which inputs were given up first: `influence`, `index`, `random` or `given`.
        run: How it was obtained.
    """

    kept: tuple[int, ...]
    values: tuple[int, ...]
    undecided: tuple[int, ...]
    n_free: int
    order: str
    run: Run

    def __post_init__(self) -> None:
        if len(self.values) != len(self.kept) or len(self.kept) > self.n_free:
            raise QueryError(f"{len(self.kept)} inputs with {len(self.values)} values do not fit in {self.n_free}.")
        if not set(self.undecided) <= set(self.kept):
            raise QueryError("undecided lists an input that is not kept, expected some of those that are.")

    @property
    def kind(self) -> Kind:
        """EXACT if nothing is undecided, else INTERVAL."""
        return Kind.INTERVAL if self.undecided else Kind.EXACT

    @property
    def is_prime(self) -> bool:
        """True iff it is proved that no input can be dropped."""
        return not self.undecided

    @property
    def needed(self) -> tuple[int, ...]:
        """Those of `kept` that cannot be dropped, proved."""
        undecided = set(self.undecided)
        return tuple(i for i in self.kept if i not in undecided)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "explanation",
            "kind": self.kind.value,
            "kept": list(self.kept),
            "values": list(self.values),
            "undecided": list(self.undecided),
            "n_free": self.n_free,
            "order": self.order,
            "run": self.run.to_json(),
        }


@dataclass(frozen=True, slots=True)
class EssentialFeatures:
    """Free inputs that have one value in all inputs of the region that are not adversarial.

    Attributes:
        essential: Indices, in order. Proved.
        values: The one value of each, -1/+1.
        undecided: Free inputs that a limit left open; empty iff the answer is complete.
        n_free: Inputs that vary in the region.
        witness: An input of the region that is not adversarial, replayed. None: there is no such input (then nothing
            is called essential), or, if inputs are undecided, none was found in time.
        run: How it was obtained.
    """

    essential: tuple[int, ...]
    values: tuple[int, ...]
    undecided: tuple[int, ...]
    n_free: int
    witness: tuple[int, ...] | None
    run: Run

    def __post_init__(self) -> None:
        if len(self.values) != len(self.essential) or len(self.essential) + len(self.undecided) > self.n_free:
            raise QueryError(f"{len(self.essential)} essential inputs do not fit in {self.n_free}.")

    @property
    def kind(self) -> Kind:
        """EXACT if nothing is undecided, else INTERVAL."""
        return Kind.INTERVAL if self.run.reason else Kind.EXACT

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "essential",
            "kind": self.kind.value,
            "essential": list(self.essential),
            "values": list(self.values),
            "undecided": list(self.undecided),
            "n_free": self.n_free,
            "witness": None if self.witness is None else list(self.witness),
            "run": self.run.to_json(),
        }


def _run(data: Fields) -> Run:
    return Run(data.text("engine"), data.real("seconds"), data.text("reason"), dict(data.inner("statistics").data))


def _decision(data: Fields, run: Run) -> Decision:
    verdict, x = Verdict(data.text("verdict")), data.maybe_wholes("counterexample", None)
    if (verdict is Verdict.NOT_ROBUST) != (x is not None):
        raise QueryError(
            f"the verdict is {verdict.value} {'without' if x is None else 'with'} a counterexample, expected one with "
            "not-robust and with no other."
        )
    return Decision(verdict, run, x, data.maybe_whole("predicted"))


def _count(data: Fields, run: Run) -> Count:
    kind, per_class, per_radius = (
        Kind(data.text("kind")),
        data.maybe_wholes("per_class"),
        data.maybe_wholes("per_radius"),
    )
    bounds = data.whole("lower"), data.whole("upper"), data.whole("region_size", 1)
    if per_class is not None and sum(per_class) != bounds[2]:
        raise QueryError(f"the counts by class add up to {sum(per_class)}, expected the region's {bounds[2]}.")
    if per_radius is not None and kind is Kind.EXACT and sum(per_radius) != bounds[0]:
        raise QueryError(f"the counts by distance add up to {sum(per_radius)}, expected {bounds[0]}.")
    return Count(kind, *bounds, run, per_class, per_radius)


def _distance(data: Fields, run: Run) -> Distance:
    lower, upper, witness = data.whole("lower"), data.maybe_whole("upper"), data.maybe_wholes("witness", None)
    if (upper is None) != (witness is None) or (upper is not None and upper < lower):
        raise QueryError(f"the distance is {lower} to {upper}, expected an upper bound iff there is a witness.")
    norm = data.text("norm") if "norm" in data.data else "hamming"
    if norm not in ("hamming", "linf"):
        raise QueryError(f"the norm is {norm!r:.40}, expected hamming or linf.")
    return Distance(lower, upper, run, witness, data.maybe_whole("predicted"), norm)


Answer = Decision | Count | Distance | Explanation | EssentialFeatures


def answer_from_json(text: str | Mapping[str, Any]) -> Answer | Quantity:
    """The answer that `to_json` wrote, from its JSON text or parsed values."""
    data = parsed(text) if isinstance(text, str) else text
    fields = Fields(data, "the answer")
    run, kind = _run(fields.inner("run")), fields.text("type")
    if kind == "decision":
        return _decision(fields, run)
    if kind == "count":
        return _count(fields, run)
    if kind == "distance":
        return _distance(fields, run)
    if kind == "explanation":
        kept, values, undecided = fields.wholes("kept"), fields.wholes("values", None), fields.wholes("undecided")
        return Explanation(kept, values, undecided, fields.whole("n_free"), fields.text("order"), run)
    if kind == "essential":
        kept, values, undecided = fields.wholes("essential"), fields.wholes("values", None), fields.wholes("undecided")
        witness = fields.maybe_wholes("witness", None)
        return EssentialFeatures(kept, values, undecided, fields.whole("n_free"), witness, run)
    from bnnverify.quantities import TYPES, quantity_from_json

    if kind in TYPES:
        return quantity_from_json(fields, run)
    expected = ", ".join(("decision", "count", "distance", "explanation", "essential", *TYPES))
    raise QueryError(f"result type is {kind!r:.40}, expected one of {expected}.")
