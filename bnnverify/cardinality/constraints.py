"""Cardinality and linear constraints over Boolean literals: what every neuron and every comparison becomes.

Variables are numbered from 1; the negative of a number is the negated literal; True stands for the sign +1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from bnnverify.errors import QueryError


class Truth(Enum):
    """A value that the region settles: no variable is spent on it. Its value is the sign it stands for."""

    FALSE = -1
    TRUE = 1

    def __bool__(self) -> bool:
        return self is Truth.TRUE

    def __str__(self) -> str:
        return self.name.lower()


Signal = int | Truth
"""Output of a neuron: a literal, or a value that the region settles."""


@dataclass(frozen=True, slots=True)
class CardinalityConstraint:
    """At least `bound` of `literals` are true.

    Literals are over distinct variables and ``1 <= bound <= len(literals)``, so neither value is settled.
    """

    literals: tuple[int, ...]
    bound: int

    def __post_init__(self) -> None:
        _check(self.literals, self.bound, len(self.literals))

    @property
    def coefficients(self) -> tuple[int, ...]:
        """All ones: the weight of each literal."""
        return (1,) * len(self.literals)

    def __str__(self) -> str:
        return f"at least {self.bound} of {', '.join(_name(v) for v in self.literals)}"


@dataclass(frozen=True, slots=True)
class LinearConstraint:
    """The `coefficients` of the true `literals` add up to at least `bound`.

    Coefficients are positive, literals over distinct variables, and ``1 <= bound <= sum(coefficients)``.
    """

    coefficients: tuple[int, ...]
    literals: tuple[int, ...]
    bound: int

    def __post_init__(self) -> None:
        if len(self.coefficients) != len(self.literals):
            raise QueryError(f"{len(self.coefficients)} coefficients do not fit {len(self.literals)} literals.")
        if any(c < 1 for c in self.coefficients):
            raise QueryError(f"coefficient {min(self.coefficients)} is below 1; negate the literal instead.")
        _check(self.literals, self.bound, sum(self.coefficients))

    def __str__(self) -> str:
        terms = " + ".join(f"{c} {_name(v)}" for c, v in zip(self.coefficients, self.literals, strict=True))
        return f"{terms} >= {self.bound}"


Constraint = CardinalityConstraint | LinearConstraint


def _check(literals: Sequence[int], bound: int, most: int) -> None:
    if 0 in literals or len({abs(v) for v in literals}) != len(literals):
        raise QueryError("literals are not nonzero numbers of distinct variables. Use linear_constraint to merge them.")
    if not 1 <= bound <= most:
        raise QueryError(f"bound {bound} is settled, expected 1 to {most}. Use linear_constraint, which says so.")


def _name(literal: int) -> str:
    return f"v{literal}" if literal > 0 else f"not v{-literal}"


def sign_constraint(terms: Iterable[tuple[int, Signal]], threshold: int) -> Constraint | Truth:
    """What holds exactly when a weighted sum of signs reaches a threshold, in normal form.

    The sum of ``weight * sign(signal)`` over `terms` is at least `threshold` iff the result holds. A signal may
    occur repeatedly and in both polarities. The normal form merges these, makes coefficients positive, divides by
    their greatest common divisor, caps them at the bound, and orders literals by variable.

    Args:
        terms: Integer weights with the signals they multiply. Weight 0 is an absent input.
        threshold: Least sum, an integer.

    Returns:
        A cardinality constraint if all coefficients turn out equal, else a linear one; a `Truth` if settled.

    >>> print(sign_constraint([(1, 1), (-1, 2), (1, 3)], 1))
    at least 2 of v1, not v2, v3
    >>> sign_constraint([(1, 1), (1, -1)], 1)
    <Truth.FALSE: -1>
    """
    weights: dict[int, int] = {}
    for weight, signal in terms:
        if isinstance(signal, Truth):
            threshold -= weight * signal.value
        else:
            variable = abs(signal)
            weights[variable] = weights.get(variable, 0) + (weight if signal > 0 else -weight)
    signed = {v: w for v, w in sorted(weights.items()) if w}
    # sign = 2 * truth - 1, so the sum of |w| * truth is (threshold + sum of |w|) / 2 or more, rounded up
    bound = -((-threshold - sum(abs(w) for w in signed.values())) // 2)
    return _normal([(abs(w), v if w > 0 else -v) for v, w in signed.items()], bound)


def linear_constraint(terms: Iterable[tuple[int, int]], bound: int) -> Constraint | Truth:
    """What holds exactly when the weights of the true literals add up to `bound` or more, in normal form.

    >>> print(linear_constraint([(3, 1), (5, -2)], 2))
    at least 1 of v1, not v2
    """
    pairs = list(terms)
    # weight * truth = weight * (sign + 1) / 2
    return sign_constraint(pairs, 2 * bound - sum(w for w, _ in pairs))


def _normal(terms: list[tuple[int, int]], bound: int) -> Constraint | Truth:
    """Normal form of distinct literals with positive coefficients."""
    if bound <= 0:
        return Truth.TRUE
    if bound > sum(c for c, _ in terms):
        return Truth.FALSE
    while True:
        divisor = math.gcd(*(c for c, _ in terms))
        bound = -(-bound // divisor)
        smaller = [(min(c // divisor, bound), v) for c, v in terms]
        if smaller == terms:
            break
        terms = smaller
    literals = tuple(v for _, v in terms)
    if all(c == 1 for c, _ in terms):
        return CardinalityConstraint(literals, bound)
    return LinearConstraint(tuple(c for c, _ in terms), literals, bound)


def neuron_constraint(
    weights: Sequence[int], threshold: int, signals: Sequence[Signal] | None = None
) -> Constraint | Truth:
    """Constraint that holds exactly when a neuron outputs +1.

    With n unmasked inputs, ``n + w.x`` is twice the number of agreeing inputs, so a neuron is "at least
    ``ceil((n + threshold) / 2)`` of the literals agree".

    Args:
        weights: Row of the weight matrix, shape `(n,)`, entries -1, 0 (masked) or +1.
        threshold: Integer in units of the pre-activation; the neuron fires iff ``w.x >= threshold``.
        signals: Literal or settled value of each input, shape `(n,)`. Default: variables 1..n.

    Returns:
        A constraint with an exact integer bound, or a `Truth` if the neuron is constant.

    References:
        Narodytska et al., AAAI 2018, Sec. 4.

    >>> print(neuron_constraint([1, -1, 1], 0))
    at least 2 of v1, not v2, v3
    """
    inputs = range(1, len(weights) + 1) if signals is None else signals
    return sign_constraint(zip(map(int, weights), inputs, strict=True), int(threshold))


def negation(constraint: Constraint) -> Constraint:
    """The constraint that holds exactly when this one does not, also in normal form.

    >>> print(negation(CardinalityConstraint((1, 2, 3), 2)))
    at least 2 of not v1, not v2, not v3
    """
    literals = tuple([-v for v in constraint.literals])
    if isinstance(constraint, CardinalityConstraint):
        return CardinalityConstraint(literals, len(literals) - constraint.bound + 1)
    bound = sum(constraint.coefficients) - constraint.bound + 1
    result = _normal(list(zip(constraint.coefficients, literals, strict=True)), bound)
    assert not isinstance(result, Truth)
    return result


def holds(constraint: Constraint, values: Mapping[int, bool] | Callable[[int], bool]) -> bool:
    """True iff the constraint holds when variable v has the value ``values[v]`` (or ``values(v)``)."""
    value = values if callable(values) else values.__getitem__
    met = (value(abs(v)) == (v > 0) for v in constraint.literals)
    return sum(c for c, true in zip(constraint.coefficients, met, strict=True) if true) >= constraint.bound


def renamed(constraint: Constraint, variables: Mapping[int, int]) -> Constraint:
    """The same constraint with variable v replaced by ``variables[v]``, in the same order."""
    literals = tuple(variables[v] if v > 0 else -variables[-v] for v in constraint.literals)
    if isinstance(constraint, CardinalityConstraint):
        return CardinalityConstraint(literals, constraint.bound)
    return LinearConstraint(constraint.coefficients, literals, constraint.bound)
