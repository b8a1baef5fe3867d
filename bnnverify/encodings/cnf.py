"""Instances to clauses, with equal numbers of models where an encoding says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from bnnverify.cardinality import (
    CardinalityConstraint,
    Constraint,
    Instance,
    LinearConstraint,
    Xnor,
    negation,
)
from bnnverify.encodings.threshold import FALSE, TRUE, threshold_diagram
from bnnverify.errors import QueryError

Clause = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoding:
    """A way to write cardinality constraints as clauses.

    Attributes:
        name: `diagram` (ours) or a name below.
        preserves_counts: True if models of the clauses and models of the instance correspond one to one. Otherwise
            count with a projection onto the inputs.
        source: Where it is from.
    """

    name: str
    preserves_counts: bool
    source: str


ENCODINGS = {
    encoding.name: encoding
    for encoding in (
        Encoding(
            "diagram", True, "Een & Sorensson, JSAT 2006, Sec. 5; defined in both directions and cut to the ball: ours"
        ),
        Encoding("totalizer", False, "Bailleux & Boufkhad, CP 2003 (python-sat)"),
        Encoding("kmtotalizer", False, "Morgado, Ignatiev & Marques-Silva, 2014 (python-sat)"),
        Encoding("seqcounter", False, "Sinz, CP 2005 (python-sat)"),
        Encoding("cardnetwork", False, "Asin et al., SAT 2009 (python-sat)"),
        Encoding("sortnetwork", False, "Batcher, 1968 (python-sat)"),
    )
}
_PYSAT_NAMES = {"cardnetwork": "cardnetwrk", "sortnetwork": "sortnetwrk"}


@dataclass(slots=True)
class Cnf:
    """Clauses whose models are those of an instance, variable by variable, and variables of the encoding after them.

    Attributes:
        instance: What is encoded; variable v of the instance is variable v here.
        preserves_counts: True if every model of the instance extends in exactly one way.
        clauses: In a fixed order.
        n_variables: Highest variable.
    """

    instance: Instance
    preserves_counts: bool
    n_variables: int
    clauses: list[Clause] = field(default_factory=list)

    def new_variable(self) -> int:
        """A fresh variable."""
        self.n_variables += 1
        return self.n_variables


def to_cnf(instance: Instance, encoding: str = "diagram", *, check: Callable[[], None] = lambda: None) -> Cnf:
    """Clauses that are satisfied exactly by the models of the instance.

    python-sat's encodings serve cardinality constraints; constraints with other coefficients always use `diagram`.

    Args:
        instance: What to encode.
        encoding: A name in `ENCODINGS`.
        check: Called between constraints; raises to stop.

    Raises:
        QueryError: There is no such encoding.
    """
    if encoding not in ENCODINGS:
        raise QueryError(f"encoding is {encoding!r}, expected one of {', '.join(ENCODINGS)}.")
    cnf = Cnf(instance, ENCODINGS[encoding].preserves_counts, len(instance.variables))
    writer = ClauseWriter(cnf, encoding)
    for constraint in instance.region:
        if constraint.bound == 1:
            writer.add(constraint.literals)  # any coefficient reaches a bound of 1
        else:
            writer.add((writer.literal(constraint, within_ball=False),))
    for gate in instance.gates:
        check()
        if isinstance(gate, Xnor):
            writer.equal(gate.output, gate.left, gate.right)
        else:
            writer.define(gate.output, gate.constraint)
    formula = instance.formula
    if formula.constraints:
        literals = []
        for constraint in formula.constraints:
            check()
            literals.append(writer.literal(constraint))
        for clause in [(v,) for v in literals] if formula.conjunctive else [tuple(literals)]:
            writer.add(clause)
    elif not formula.conjunctive:
        writer.add(())
    return cnf


@dataclass(slots=True)
class ClauseWriter:
    """Writes constraints into a Cnf.

    Attributes:
        cnf: Where to.
        encoding: A name in `ENCODINGS`.
        known: Literal of each constraint that was written.
    """

    cnf: Cnf
    encoding: str
    known: dict[Constraint, int] = field(default_factory=dict)

    def add(self, clause: Clause) -> None:
        """One clause."""
        self.cnf.clauses.append(clause)

    def equal(self, output: int, left: int, right: int) -> None:
        """`output` is true iff the literals are equal."""
        self.cnf.clauses += [
            (-output, -left, right),
            (-output, left, -right),
            (output, left, right),
            (output, -left, -right),
        ]

    def literal(self, constraint: Constraint, *, within_ball: bool = True) -> int:
        """A literal that is true iff the constraint holds, and throughout the region only if `within_ball`."""
        if len(constraint.literals) == 1:
            return constraint.literals[0]
        if constraint not in self.known:
            if self.encoding == "diagram" or isinstance(constraint, LinearConstraint):
                found = self._diagram(constraint, self.cnf.instance.radius if within_ball else None)
            else:
                found = self.cnf.new_variable()
                self._reify(found, constraint)
            self.known[constraint] = found
            self.known[negation(constraint)] = -found
        return self.known[constraint]

    def define(self, output: int, constraint: Constraint) -> None:
        """`output` is true iff the constraint holds (within the region)."""
        if self.encoding == "diagram" or isinstance(constraint, LinearConstraint):
            root = self.literal(constraint)
            self.cnf.clauses += [(-output, root), (output, -root)]
        else:
            self._reify(output, constraint)

    def imply(self, guard: int | None, constraint: Constraint) -> None:
        """The constraint holds throughout the region (not only the ball), or where `guard` does."""
        literal = self.literal(constraint, within_ball=False)
        self.add((literal,) if guard is None else (-guard, literal))

    def _diagram(self, constraint: Constraint, radius: int | None) -> int:
        """One variable per node of the threshold diagram, each equal to an if-then-else."""
        instance = self.cnf.instance
        pairs = sorted(zip(constraint.coefficients, constraint.literals, strict=True), key=lambda pair: -pair[0])
        center = None
        if radius is not None and all(abs(v) <= instance.n_inputs for v in constraint.literals):
            center = [instance.center[abs(v) - 1] == (v > 0) for _, v in pairs]
        else:
            radius = None
        diagram = threshold_diagram([c for c, _ in pairs], constraint.bound, center=center, radius=radius)
        numbers: dict[int, int] = {}
        for number, (position, high, low) in enumerate(diagram.nodes, start=2):
            tested = pairs[position][1]
            if (high, low) in ((TRUE, FALSE), (FALSE, TRUE)):
                numbers[number] = tested if high == TRUE else -tested
                continue
            numbers[number] = self.cnf.new_variable()
            self._if_then_else(numbers[number], tested, _leaf(high, numbers), _leaf(low, numbers))
        if diagram.root in (FALSE, TRUE):
            # only in a ball, for a constraint that the compiler left open because it spans more than inputs
            constant = self.cnf.new_variable()
            self.add((constant,))
            return constant if diagram.root == TRUE else -constant
        return numbers[diagram.root]

    def _if_then_else(self, output: int, test: int, high: int | bool, low: int | bool) -> None:
        for guard, branch in ((-test, high), (test, low)):
            if isinstance(branch, bool):
                self.add((guard, output if branch else -output))
            else:
                self.cnf.clauses += [(guard, -branch, output), (guard, branch, -output)]
        # implied, for propagation: equal branches fix the output
        if not isinstance(high, bool) and not isinstance(low, bool):
            self.cnf.clauses += [(-high, -low, output), (high, low, -output)]
        elif not isinstance(high, bool):
            self.add((-high, output) if low else (high, -output))
        elif not isinstance(low, bool):
            self.add((-low, output) if high else (low, -output))

    def _reify(self, output: int, constraint: CardinalityConstraint) -> None:
        """python-sat's clauses for the constraint if `output` holds, and for its negation if not."""
        opposite = negation(constraint)
        assert isinstance(opposite, CardinalityConstraint)
        for guard, part in ((-output, constraint), (output, opposite)):
            for clause in self._at_least(part):
                self.add((guard, *clause))

    def _at_least(self, constraint: CardinalityConstraint) -> list[Clause]:
        # bounds that some encodings get wrong or do not accept: none, all, or any of the literals
        if constraint.bound == len(constraint.literals):
            return [(v,) for v in constraint.literals]
        if constraint.bound == 1:
            return [constraint.literals]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from pysat.card import CardEnc, EncType

        kind = getattr(EncType, _PYSAT_NAMES.get(self.encoding, self.encoding))
        literals = list(constraint.literals)
        made = CardEnc.atleast(literals, constraint.bound, top_id=self.cnf.n_variables, encoding=kind)
        self.cnf.n_variables = max(self.cnf.n_variables, made.nv)
        return [tuple(clause) for clause in made.clauses]


def _leaf(child: int, numbers: dict[int, int]) -> int | bool:
    return child == TRUE if child in (FALSE, TRUE) else numbers[child]


def write_dimacs(cnf: Cnf, stream: TextIO) -> None:
    """Write the clauses in DIMACS format, the same text for equal clauses.

    Comment lines ``c var NUMBER NAME`` say what the instance's variables stand for, and ``c p show ... 0`` is the
    projection onto the inputs as model counters read it.
    """
    stream.write("c written by bnnverify\n")
    exact = "models correspond one to one" if cnf.preserves_counts else "count models projected onto the inputs"
    stream.write(f"c {exact}\n")
    for number, variable in cnf.instance:
        stream.write(f"c var {number} {variable.name}\n")
    stream.write("".join(["c p show ", *(f"{v} " for v in cnf.instance.inputs), "0\n"]))
    stream.write(f"p cnf {cnf.n_variables} {len(cnf.clauses)}\n")
    for clause in cnf.clauses:
        stream.write(" ".join(map(str, (*clause, 0))) + "\n")
