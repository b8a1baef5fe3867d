"""Cardinality constraints: the one intermediate form between networks and engines.

`constraints` holds what a neuron becomes, `instance` a compiled question, `compile` the two ways there (inputs as
variables, or cells as variables), and `graph` what depends on what.
"""

from bnnverify.cardinality.compile import (
    cells_of,
    compile_cells,
    compile_network,
    compile_query,
    region_input,
    score_formula,
    within_ball,
)
from bnnverify.cardinality.constraints import (
    CardinalityConstraint,
    Constraint,
    LinearConstraint,
    Signal,
    Truth,
    holds,
    linear_constraint,
    negation,
    neuron_constraint,
    sign_constraint,
)
from bnnverify.cardinality.instance import Formula, Gate, Instance, Reified, Variable, Xnor, pruned

__all__ = [
    "CardinalityConstraint",
    "Constraint",
    "Formula",
    "Gate",
    "Instance",
    "LinearConstraint",
    "Reified",
    "Signal",
    "Truth",
    "Variable",
    "Xnor",
    "cells_of",
    "compile_cells",
    "compile_network",
    "compile_query",
    "holds",
    "linear_constraint",
    "negation",
    "neuron_constraint",
    "pruned",
    "region_input",
    "score_formula",
    "sign_constraint",
    "within_ball",
]
