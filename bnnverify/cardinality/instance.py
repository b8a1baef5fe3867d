"""Instance: a question as numbered variables, gates in topological order, a region and a formula."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bnnverify.cardinality.constraints import Constraint, Signal, Truth, holds, renamed


@dataclass(frozen=True, slots=True)
class Variable:
    """What a variable stands for.

    Attributes:
        kind: `input` (+1 iff true), `pixel` (an integer input is at least `stored` iff true), `cell` (flipped iff
            true), `neuron` (fires iff true), `position` (a neuron before pooling) or `product` (of a stored sign,
            flipped or not, and a neuron).
        block: Hidden block, the output block last; 0 for inputs.
        index: Input, or row of the block (of a convolution: flat neuron).
        column: Column of the block for cells and products, else -1.
        stored: Sign that a cell holds when right; value of a pixel; 0 for other kinds.
    """

    kind: str
    block: int
    index: int
    column: int = -1
    stored: int = 0

    @property
    def name(self) -> str:
        """Unique within an instance: `x3`, `x3>=17` (a pixel), `h0.5`, `s0.5` (a position), `f0.5.3` (a cell), ..."""
        if self.kind == "input":
            return f"x{self.index}"
        if self.kind == "pixel":
            return f"x{self.index}>={self.stored}"
        letter = {"neuron": "h", "position": "s", "cell": "f", "product": "p"}[self.kind]
        place = f"{self.block}.{self.index}"
        return f"{letter}{place}" if self.column < 0 else f"{letter}{place}.{self.column}"


@dataclass(frozen=True, slots=True)
class Reified:
    """Variable `output` is true iff `constraint` holds."""

    output: int
    constraint: Constraint

    @property
    def literals(self) -> tuple[int, ...]:
        """Literals that the output depends on."""
        return self.constraint.literals


@dataclass(frozen=True, slots=True)
class Xnor:
    """Variable `output` is true iff the literals `left` and `right` are equal."""

    output: int
    left: int
    right: int

    @property
    def literals(self) -> tuple[int, ...]:
        """Literals that the output depends on."""
        return self.left, self.right


Gate = Reified | Xnor


@dataclass(frozen=True, slots=True)
class Formula:
    """All of `constraints` (conjunctive) or at least one of them; true and false as the empty all and any.

    Attributes:
        labels: One readable name per constraint, such as ``score 2 > score 0``.
    """

    constraints: tuple[Constraint, ...]
    conjunctive: bool
    labels: tuple[str, ...] = ()

    @property
    def truth(self) -> Truth | None:
        """The value, where it is settled; else None."""
        if self.constraints:
            return None
        return Truth.TRUE if self.conjunctive else Truth.FALSE

    @classmethod
    def of(cls, parts: Sequence[tuple[Constraint | Truth, str]], conjunctive: bool) -> Formula:
        """The formula without what is settled and without repetitions."""
        absorbing = Truth.FALSE if conjunctive else Truth.TRUE
        if any(part is absorbing for part, _ in parts):
            return cls((), not conjunctive)
        kept: dict[Constraint, str] = {}
        for part, label in parts:
            if not isinstance(part, Truth):
                kept[part] = f"{kept[part]}; {label}" if part in kept else label
        return cls(tuple(kept), conjunctive, tuple(kept.values()))


@dataclass(frozen=True, slots=True)
class Instance:
    """A compiled question.

    A model is an assignment of all variables under which every gate, every constraint of `region` and `formula`
    hold. The gates determine all other variables from the inputs, so models and assignments of the inputs
    correspond one to one.

    Attributes:
        variables: What variable 1, 2, ... stands for; inputs (or cells) first, then gate outputs in order.
        n_inputs: Number of variables that are inputs (or cells).
        gates: In topological order; gate outputs are consecutive numbers after the inputs.
        region: Constraints over the inputs that hold throughout the region. Fixed inputs have no variable.
        outputs: Signals that the scores are made of, the last hidden block's or the inputs'; empty once pruned and
            in cell mode.
        formula: The property.
        center: For each input variable its value at the centre of the region (for cells: not flipped).
        radius: Most input variables that may differ from `center`; None if there is no such constraint.
    """

    variables: tuple[Variable, ...]
    n_inputs: int
    gates: tuple[Gate, ...]
    region: tuple[Constraint, ...]
    formula: Formula
    center: tuple[bool, ...]
    radius: int | None = None
    outputs: tuple[Signal, ...] = field(default=())

    @property
    def inputs(self) -> range:
        """Numbers of the input variables."""
        return range(1, self.n_inputs + 1)

    def literal_name(self, literal: int) -> str:
        """Name of a literal, negation written out."""
        name = self.variables[abs(literal) - 1].name
        return name if literal > 0 else f"not {name}"

    def text(self, constraint: Constraint) -> str:
        """A constraint with the names of its variables."""
        names = [self.literal_name(v) for v in constraint.literals]
        if set(constraint.coefficients) == {1}:
            return f"at least {constraint.bound} of {', '.join(names)}"
        terms = (f"{c} {name}" for c, name in zip(constraint.coefficients, names, strict=True))
        return f"{' + '.join(terms)} >= {constraint.bound}"

    def values(self, inputs: Sequence[bool]) -> dict[int, bool]:
        """Value of every variable, given those of the inputs in order: the meaning of the gates."""
        values = dict(zip(self.inputs, inputs, strict=True))
        for gate in self.gates:
            if isinstance(gate, Xnor):
                left, right = (values[abs(v)] == (v > 0) for v in gate.literals)
                values[gate.output] = left == right
            else:
                values[gate.output] = holds(gate.constraint, values)
        return values

    def is_model(self, inputs: Sequence[bool]) -> bool:
        """True iff these input values lie in the region and have the property."""
        values = self.values(inputs)
        if not all(holds(c, values) for c in self.region):
            return False
        met = (holds(c, values) for c in self.formula.constraints)
        return all(met) if self.formula.conjunctive else any(met)

    def __iter__(self) -> Iterator[tuple[int, Variable]]:
        return iter(enumerate(self.variables, start=1))


def pruned(instance: Instance) -> Instance:
    """The instance without the gates that the formula does not depend on; inputs all stay.

    Variables are renumbered in the same order.
    """
    needed = {abs(v) for c in instance.formula.constraints for v in c.literals}
    kept: list[Gate] = []
    for gate in reversed(instance.gates):
        if gate.output in needed:
            kept.append(gate)
            needed.update(abs(v) for v in gate.literals)
    kept.reverse()
    if len(kept) == len(instance.gates):
        return instance
    numbers: dict[int, int] = {v: v for v in instance.inputs}
    for gate in kept:
        numbers[gate.output] = len(numbers) + 1
    gates = tuple(_renamed_gate(gate, numbers) for gate in kept)
    formula = Formula(
        tuple(renamed(c, numbers) for c in instance.formula.constraints),
        instance.formula.conjunctive,
        instance.formula.labels,
    )
    variables = tuple(instance.variables[v - 1] for v in numbers)
    return Instance(variables, instance.n_inputs, gates, instance.region, formula, instance.center, instance.radius, ())


def _renamed_gate(gate: Gate, numbers: Mapping[int, int]) -> Gate:
    if isinstance(gate, Xnor):
        left, right = (numbers[v] if v > 0 else -numbers[-v] for v in gate.literals)
        return Xnor(numbers[gate.output], left, right)
    return Reified(numbers[gate.output], renamed(gate.constraint, numbers))
