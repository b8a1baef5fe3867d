"""What both ways to an instance share: numbered gates, and what a ball says about a constraint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bnnverify.cardinality.constraints import Constraint, Signal, Truth, linear_constraint, negation
from bnnverify.cardinality.instance import Gate, Reified, Variable, Xnor


@dataclass(slots=True)
class Builder:
    """Variables and gates so far; equal gates share a variable, complementary ones differ by a sign.

    `check` is called for every gate; it raises to stop.
    """

    variables: list[Variable] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    known: dict[object, int] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None

    def variable(self, what: Variable) -> int:
        """Number of a new variable."""
        self.variables.append(what)
        return len(self.variables)

    def reify(self, constraint: Constraint | Truth, what: Variable) -> Signal:
        """Signal that is true iff the constraint holds."""
        self.check()
        if isinstance(constraint, Truth):
            return constraint
        if len(constraint.literals) == 1:
            return constraint.literals[0]
        if constraint not in self.known:
            output = self.variable(what)
            self.gates.append(Reified(output, constraint))
            self.known[constraint] = output
            self.known[negation(constraint)] = -output
        return self.known[constraint]

    def xnor(self, left: Signal, right: int, what: Variable) -> int:
        """Literal that is true iff the two are equal."""
        if isinstance(left, Truth):
            return right if left else -right
        # equality of negated literals is equality, of one negated literal its negation
        sign = 1 if (left > 0) == (right > 0) else -1
        key = (abs(left), abs(right))
        if key not in self.known:
            output = self.variable(what)
            self.gates.append(Xnor(output, *key))
            self.known[key] = output
        return sign * self.known[key]


def ball_constraint(center: Sequence[bool], radius: int | None) -> tuple[Constraint, ...]:
    """At most `radius` inputs differ from `center`, as a list of no or one constraint."""
    if radius is None:
        return ()
    literals = [v if value else -v for v, value in enumerate(center, start=1)]
    ball = linear_constraint([(1, v) for v in literals], len(center) - radius)
    return () if isinstance(ball, Truth) else (ball,)


def within_ball(constraint: Constraint | Truth, center: Sequence[bool], radius: int | None) -> Constraint | Truth:
    """The constraint, or its value if that is the same wherever at most `radius` inputs differ from `center`.

    Args:
        constraint: Over input variables only.
        center: Value of each input variable.
        radius: Most flips; None for no limit.
    """
    if radius is None or isinstance(constraint, Truth):
        return constraint
    pairs = list(zip(constraint.coefficients, constraint.literals, strict=True))
    met = [c for c, v in pairs if center[abs(v) - 1] == (v > 0)]
    unmet = [c for c, v in pairs if center[abs(v) - 1] != (v > 0)]
    if sum(met) - sum(sorted(met, reverse=True)[:radius]) >= constraint.bound:
        return Truth.TRUE
    if sum(met) + sum(sorted(unmet, reverse=True)[:radius]) < constraint.bound:
        return Truth.FALSE
    return constraint


def comparison_label(i: int, j: int, strict: bool) -> str:
    """Readable name of a comparison of scores."""
    return f"score {i} {'>' if strict else '>='} score {j}"
