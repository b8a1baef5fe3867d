"""Cardinality constraints: the one intermediate form between networks and engines.

`constraints` holds what a neuron becomes, `instance` a compiled question, `compile` and `cells` the two ways there
(inputs as variables, or cells as variables), `rows` the sparse rows of blocks, and `graph` what depends on what.
"""

from bnnverify.cardinality.builder import within_ball
from bnnverify.cardinality.cells import cells_of, compile_cells
from bnnverify.cardinality.compile import compile_network, compile_query, grid_region, region_input, score_formula
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
    "grid_region",
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
