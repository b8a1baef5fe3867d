"""Instances as files for other solvers: DIMACS CNF, OPB, and the text of a CP-SAT model.

In each, comments say what the variables stand for: `x3` is an input (+1 iff true), `x3>=17` is true iff input 3 is at
least 17, `h0.5` is output 5 of the first block, `s0.5` its neuron 5 before pooling. The file has a solution iff the
question has an adversarial input.
"""

from __future__ import annotations

from typing import TextIO

from bnnverify.cardinality import Constraint, Instance, Xnor, linear_constraint, negation
from bnnverify.cardinality.constraints import Truth
from bnnverify.encodings.cnf import to_cnf, write_dimacs
from bnnverify.encodings.linear import require_moderate, to_linear
from bnnverify.errors import QueryError

KINDS = ("cnf", "opb", "cp")


def write_instance(instance: Instance, kind: str, stream: TextIO) -> None:
    """Writes the instance in the format of one of `KINDS`, the same text for equal instances.

    Raises:
        QueryError: There is no such kind.
    """
    if kind == "cnf":
        write_dimacs(to_cnf(instance), stream)
    elif kind == "opb":
        write_opb(instance, stream)
    elif kind == "cp":
        write_cp(instance, stream)
    else:
        raise QueryError(f"the format is {kind!r}, expected one of {', '.join(KINDS)}.")


def write_opb(instance: Instance, stream: TextIO) -> None:
    """Writes linear inequalities over 0/1 variables in OPB format: variable v of the instance is ``xv``.

    A gate is two inequalities, each relaxed by a multiple of its output that makes up for all it may lack. Negated
    literals are written as ``1 - x``: with a negative coefficient and another bound, so any reader takes them.

    References:
        Roussel & Manquinho, "Input/output format and solver requirements for the competitions of pseudo-Boolean
        solvers", 2012, Sec. 2 (linear constraints).
    """
    rows: list[tuple[str, str]] = []
    names = {number: variable.name for number, variable in instance}
    for constraint in instance.region:
        rows.append(("region", _opb_row(constraint, None)))
    for gate in instance.gates:
        name = names[gate.output]
        if isinstance(gate, Xnor):
            for a, b, c in ((-1, -1, 1), (-1, 1, -1), (1, 1, 1), (1, -1, -1)):
                clause = linear_constraint([(1, a * gate.output), (1, b * gate.left), (1, c * gate.right)], 1)
                if not isinstance(clause, Truth):
                    rows.append((f"{name} is an equality", _opb_row(clause, None)))
        else:
            rows.append((f"if {name}", _opb_row(gate.constraint, gate.output)))
            rows.append((f"if not {name}", _opb_row(negation(gate.constraint), -gate.output)))
    formula, count = instance.formula, len(instance.variables)
    labels = formula.labels or ("",) * len(formula.constraints)
    if formula.conjunctive or len(formula.constraints) == 1:
        rows += [(label, _opb_row(part, None)) for part, label in zip(formula.constraints, labels, strict=True)]
    else:
        goals = range(count + 1, count + 1 + len(formula.constraints))
        for goal, part, label in zip(goals, formula.constraints, labels, strict=True):
            names[goal] = f"goal: {label}"
            rows.append((f"if goal {goal}: {label}", _opb_row(part, goal)))
        count += len(formula.constraints)
        # with no goal at all: 0 >= 1, of a variable that has to be 1 and 0
        if goals:
            rows.append(("some goal", "".join(f"+1 x{goal} " for goal in goals) + ">= 1 ;"))
        else:
            count += 1
            rows += [("nothing is adversarial", f"+1 x{count} >= 1 ;"), ("", f"-1 x{count} >= 0 ;")]
    stream.write(f"* #variable= {count} #constraint= {len(rows)}\n* written by bnnverify\n")
    stream.write("".join(f"* var x{number} {name}\n" for number, name in names.items()))
    for comment, row in rows:
        stream.write((f"* {comment}\n" if comment else "") + row + "\n")


def _opb_row(constraint: Constraint, guard: int | None) -> str:
    """The constraint where the guard holds: its bound times the negated guard is added."""
    terms = list(zip(constraint.coefficients, constraint.literals, strict=True))
    if guard is not None:
        terms.append((constraint.bound, -guard))
    bound = constraint.bound - sum(c for c, v in terms if v < 0)
    words = [f"{c:+d} x{v}" if v > 0 else f"{-c:+d} x{-v}" for c, v in terms]
    return f"{' '.join(words)} >= {bound} ;"


def write_cp(instance: Instance, stream: TextIO) -> None:
    """Writes the linear form (`encodings.linear`) as the text of a CP-SAT model: OR-Tools' `CpModelProto`.

    Pixels are integer variables with their bounds; a neuron is two inequalities that its literal enforces. A variable
    is named in the model itself.
    """
    form = to_linear(instance)
    require_moderate(form)
    stream.write("# written by bnnverify: a CpModelProto of OR-Tools as text\n")
    stream.write(f"# variables 0 to {form.n_inputs - 1} are inputs; then neurons; goals last\n")
    labels = instance.formula.labels
    for place, label in zip(form.goals, labels, strict=False):
        stream.write(f"# variable {place} goal: {label}\n")
    for number, variable in enumerate(form.variables):
        stream.write(f"# variable {number} {variable.name}: {variable.lower} to {variable.upper}\n")
    for variable in form.variables:
        stream.write(f'variables {{ name: "{variable.name}" domain: [{variable.lower}, {variable.upper}] }}\n')
    for row in form.inequalities:
        guard = ""
        if row.guard is not None:
            place = abs(row.guard) - 1
            guard = f"enforcement_literal: {place if row.guard > 0 else -place - 1} "
        terms = f"vars: [{', '.join(map(str, row.variables))}] coeffs: [{', '.join(map(str, row.coefficients))}]"
        stream.write(f"constraints {{ {guard}linear {{ {terms} domain: [{row.bound}, {_MOST}] }} }}\n")


_MOST = 2**63 - 1  # CP-SAT's sign for no upper bound
