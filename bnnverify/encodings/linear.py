"""Instances as linear inequalities over integers that hold under a literal: for CP-SAT, and as OPB and CP text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bnnverify.cardinality import Constraint, Instance, Truth, Xnor, linear_constraint, negation
from bnnverify.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class IntegerVariable:
    """An integer variable; a literal is one from 0 to 1."""

    name: str
    lower: int
    upper: int


@dataclass(frozen=True, slots=True)
class Inequality:
    """``sum(coefficients * variables) >= bound``, at least where the literal `guard` is true.

    Attributes:
        coefficients: Integers, not 0.
        variables: Places of distinct variables.
        bound: An integer.
        guard: Literal (place of a variable, from 1, negative if negated) or None: it holds always.
    """

    coefficients: tuple[int, ...]
    variables: tuple[int, ...]
    bound: int
    guard: int | None = None


_LARGEST = 2**50  # coefficients times ranges; CP-SAT needs sums that fit int64 with room


@dataclass(slots=True)
class LinearForm:
    """Inequalities whose solutions are the models of an instance; a pixel is one variable.

    Attributes:
        variables: In order: inputs, then gates, then one goal per constraint of a formula that is an "or".
        inequalities: In a fixed order.
        n_inputs: Number of inputs that vary: the first variables.
        goals: Places of the goals.
    """

    variables: list[IntegerVariable] = field(default_factory=list)
    inequalities: list[Inequality] = field(default_factory=list)
    n_inputs: int = 0
    goals: tuple[int, ...] = ()


def require_moderate(form: LinearForm) -> None:
    """UnsupportedError if the terms of a sum reach so far that CP-SAT, which adds in int64, could not hold it."""
    for row in form.inequalities:
        reach = sum(
            abs(c) * max(abs(form.variables[v].lower), abs(form.variables[v].upper), 1)
            for c, v in zip(row.coefficients, row.variables, strict=True)
        )
        if reach + abs(row.bound) > _LARGEST:
            raise UnsupportedError("the scales of the scores differ too much for CP-SAT. Use engine minicard or sat.")


def to_linear(instance: Instance, *, check: Callable[[], None] = lambda: None) -> LinearForm:
    """The instance as linear inequalities.

    The literals of a pixel become one integer variable: a constraint over all of them weighs the pixel, and the
    constraints that order them are gone. A gate is two inequalities, one under its output and one under its negation.

    Args:
        instance: What to write.
        check: Called between constraints; raises to stop.
    """
    form = LinearForm()
    terms = _terms(instance, form)
    writer = _Writer(form, terms)
    for constraint in instance.region:
        if not _is_ordering(instance, constraint):
            writer.add(constraint, None)
    for gate in instance.gates:
        check()
        place = len(form.variables)
        form.variables.append(IntegerVariable(instance.variables[gate.output - 1].name, 0, 1))
        terms[gate.output] = (place, 0)
        if isinstance(gate, Xnor):
            writer.equal(gate)
        else:
            writer.add(gate.constraint, place + 1)
            writer.add(negation(gate.constraint), -place - 1)
    formula = instance.formula
    if formula.conjunctive or len(formula.constraints) == 1:
        for constraint in formula.constraints:
            writer.add(constraint, None)
    else:
        start = len(form.variables)
        for number, constraint in enumerate(formula.constraints):
            form.variables.append(IntegerVariable(f"goal{number}", 0, 1))
            writer.add(constraint, start + number + 1)
        form.goals = tuple(range(start, len(form.variables)))
        form.inequalities.append(Inequality((1,) * len(form.goals), form.goals, 1))
    return form


def _terms(instance: Instance, form: LinearForm) -> dict[int, tuple[int, int]]:
    """Inputs as variables of the form; for each variable of the instance its place and, of a pixel, its value."""
    terms: dict[int, tuple[int, int]] = {}
    pixels: dict[int, list[tuple[int, int]]] = {}
    for number in instance.inputs:
        variable = instance.variables[number - 1]
        if variable.kind == "pixel":
            pixels.setdefault(variable.index, []).append((variable.stored, number))
        else:
            terms[number] = (len(form.variables), 0)
            form.variables.append(IntegerVariable(variable.name, 0, 1))
    for index, values in pixels.items():
        place, least = len(form.variables), values[0][0] - 1
        form.variables.append(IntegerVariable(f"x{index}", least, values[-1][0]))
        for value, number in values:
            terms[number] = (place, value - least)
    form.n_inputs = len(form.variables)
    return terms


def _is_ordering(instance: Instance, constraint: Constraint) -> bool:
    first = instance.variables[abs(constraint.literals[0]) - 1]
    return first.kind == "pixel"


@dataclass(slots=True)
class _Writer:
    """Writes constraints as inequalities."""

    form: LinearForm
    terms: dict[int, tuple[int, int]]
    reached: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, constraint: Constraint, guard: int | None) -> None:
        """The constraint, where the guard holds."""
        weights: dict[int, int] = {}
        steps: dict[int, dict[int, int]] = {}
        bound = constraint.bound
        for coefficient, literal in zip(constraint.coefficients, constraint.literals, strict=True):
            place, step = self.terms[abs(literal)]
            weight = coefficient if literal > 0 else -coefficient
            bound -= coefficient if literal < 0 else 0
            if step:
                steps.setdefault(place, {})[step] = weight
            else:
                weights[place] = weights.get(place, 0) + weight
        for place, by_step in steps.items():
            low = self.form.variables[place].lower
            width = self.form.variables[place].upper - low
            if len(by_step) == width and len(set(by_step.values())) == 1:
                weight = by_step[1]
                weights[place] = weight
                bound += weight * low
            else:
                for step, weight in by_step.items():
                    weights[self._reached(place, step)] = weight
        kept = [(p, w) for p, w in weights.items() if w]
        self.form.inequalities.append(Inequality(tuple(w for _, w in kept), tuple(p for p, _ in kept), bound, guard))

    def _reached(self, place: int, step: int) -> int:
        """Place of a variable that is 1 iff the pixel has made `step` steps."""
        if (place, step) in self.reached:
            return self.reached[place, step]
        pixel, found = self.form.variables[place], len(self.form.variables)
        value = pixel.lower + step
        self.reached[place, step] = found
        self.form.variables.append(IntegerVariable(f"{pixel.name}>={value}", 0, 1))
        self.form.inequalities.append(Inequality((1,), (place,), value, found + 1))
        self.form.inequalities.append(Inequality((-1,), (place,), 1 - value, -found - 1))
        return found

    def equal(self, gate: Xnor) -> None:
        """``output = (left = right)`` as four clauses."""
        for a, b, c in ((-1, -1, 1), (-1, 1, -1), (1, 1, 1), (1, -1, -1)):
            clause = linear_constraint([(1, a * gate.output), (1, b * gate.left), (1, c * gate.right)], 1)
            if not isinstance(clause, Truth):
                self.add(clause, None)


def values_of(form: LinearForm, values: Sequence[int]) -> tuple[bool, ...]:
    """Values of the instance's input variables, given those of the form's inputs."""
    found: list[bool] = []
    for variable, value in zip(form.variables[: form.n_inputs], values, strict=True):
        found += [variable.lower + step <= value for step in range(1, variable.upper - variable.lower + 1)]
    return tuple(found)
