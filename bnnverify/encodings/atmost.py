"""Instances to clauses and native at-most constraints, for solvers that propagate these themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bnnverify.cardinality import Constraint, Instance, Xnor, negation
from bnnverify.encodings.cnf import Clause, ClauseWriter, Cnf

MOST_REPEATS = 4
"""A linear constraint is written with repeated literals while these are at most so many times its literals."""


@dataclass(frozen=True, slots=True)
class AtMost:
    """At most `bound` of `literals` are true; a literal that occurs several times counts as often."""

    literals: tuple[int, ...]
    bound: int


@dataclass(slots=True)
class NativeForm:
    """Clauses and at-most constraints with the models of an instance.

    Attributes:
        instance: What is written; variable v of the instance is variable v here.
        n_variables: Highest variable.
        clauses: In a fixed order.
        at_most: In a fixed order.
        goals: For a formula that is an "or" of several constraints one literal for each, which implies it. Some goal
            holds in every model.
    """

    instance: Instance
    n_variables: int
    clauses: list[Clause] = field(default_factory=list)
    at_most: list[AtMost] = field(default_factory=list)
    goals: tuple[int, ...] = ()


def to_native(instance: Instance, *, check: Callable[[], None] = lambda: None) -> NativeForm:
    """The instance for a solver with native at-most constraints.

    A gate is reified by repetition: ``y -> at least k of n literals x`` says that at most n of the negated x and k
    copies of y are true. Constraints with large coefficients are written as clauses of their decision diagram.

    Args:
        instance: What to write.
        check: Called between constraints; raises to stop.

    References:
        Jia & Rinard, NeurIPS 2020, Sec. 3.2 (reified cardinality constraints in a solver); the repeated literal is
        the usual way where a solver has none.
    """
    form = NativeForm(instance, len(instance.variables))
    for constraint in instance.region:
        _at_least(form, constraint, None)
    for gate in instance.gates:
        check()
        if isinstance(gate, Xnor):
            left, right, output = gate.left, gate.right, gate.output
            form.clauses += [(-output, -left, right), (-output, left, -right)]
            form.clauses += [(output, left, right), (output, -left, -right)]
        else:
            _at_least(form, gate.constraint, gate.output)
            _at_least(form, negation(gate.constraint), -gate.output)
    formula = instance.formula
    if formula.conjunctive or len(formula.constraints) == 1:
        for constraint in formula.constraints:
            _at_least(form, constraint, None)
    else:
        goals = []
        for constraint in formula.constraints:
            check()
            form.n_variables += 1
            goals.append(form.n_variables)
            _at_least(form, constraint, form.n_variables)
        form.goals = tuple(goals)
        form.clauses.append(form.goals)
    return form


def _at_least(form: NativeForm, constraint: Constraint, guard: int | None) -> None:
    """The constraint, where `guard` holds."""
    coefficients, literals, bound = constraint.coefficients, constraint.literals, constraint.bound
    total = sum(coefficients)
    if bound == 1:
        form.clauses.append(literals if guard is None else (-guard, *literals))
    elif bound == total:
        form.clauses += [(v,) if guard is None else (-guard, v) for v in literals]
    elif total > MOST_REPEATS * len(literals):
        cnf = Cnf(form.instance, True, form.n_variables)
        ClauseWriter(cnf, "diagram").imply(guard, constraint)
        form.clauses += cnf.clauses
        form.n_variables = cnf.n_variables
    else:
        repeated = [-v for c, v in zip(coefficients, literals, strict=True) for _ in range(c)]
        if guard is None:
            form.at_most.append(AtMost(tuple(repeated), total - bound))
        else:
            form.at_most.append(AtMost((*repeated, *[guard] * bound), total))
