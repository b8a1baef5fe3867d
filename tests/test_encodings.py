"""Encodings by brute force: diagrams, clauses, and the numbers that are read off them."""

import io
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cardinality import CardinalityConstraint, Formula, Instance, LinearConstraint, Variable, compile_query
from bnnverify.encodings.bdd import PACKAGES, BddEncoding
from bnnverify.encodings.cells import error_probability_bdd, fault_enumerator_bdd
from bnnverify.encodings.cnf import ENCODINGS, to_cnf, write_dimacs
from bnnverify.encodings.threshold import threshold_diagram
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from tests import oracle
from tests.strategies import inputs, networks, queries


def follow(diagram, values):
    node = diagram.root
    while node > 1:
        position, high, low = diagram.nodes[node - 2]
        node = high if values[position] else low
    return node == 1


@settings(max_examples=300)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=7),
    st.integers(-2, 30),
    st.lists(st.booleans(), min_size=7, max_size=7),
    st.integers(0, 7),
)
def test_a_threshold_diagram_is_right_in_its_ball_and_children_come_first(coefficients, bound, center, radius):
    n = len(coefficients)
    full = threshold_diagram(coefficients, bound)
    cut = threshold_diagram(coefficients, bound, center=center[:n], radius=radius)
    for values in product((False, True), repeat=n):
        expected = sum(c for c, v in zip(coefficients, values, strict=True) if v) >= bound
        assert follow(full, values) == expected
        if sum(a != b for a, b in zip(values, center, strict=False)) <= radius:
            assert follow(cut, values) == expected
    for number, (_, high, low) in enumerate(cut.nodes, start=2):
        assert high < number and low < number and high != low


@pytest.mark.parametrize("radius", [1, 3, 6])
def test_a_diagram_in_a_ball_stays_narrow(radius):
    diagram = threshold_diagram([1] * 784, 392, center=[i % 2 == 0 for i in range(784)], radius=radius)
    assert len(diagram.nodes) <= 784 * (2 * radius + 1)


def question(constraint, n, conjunctive=True, region=(), radius=None):
    """An instance whose property is one constraint over n inputs."""
    variables = tuple(Variable("input", 0, i) for i in range(n))
    return Instance(variables, n, (), tuple(region), Formula((constraint,), conjunctive), (False,) * n, radius)


def models(cnf, *, over=None, most=5000):
    """Models of the clauses, or of their projection on the first `over` variables, by plain search; at most `most`."""
    from pysat.solvers import Solver

    with Solver(name="minisat22", bootstrap_with=[list(c) for c in cnf.clauses]) as solver:
        for v in range(1, cnf.n_variables + 1):
            solver.add_clause([v, -v, v])  # so that every variable has a value
        found = []
        while solver.solve():
            model = solver.get_model()[: cnf.n_variables]
            model += range(len(model) + 1, cnf.n_variables + 1)
            found.append(tuple(model))
            solver.add_clause([-v for v in model[:over]])
            if len(found) == most:
                break
        return found


@settings(max_examples=150)
@given(queries(max_inputs=5, max_width=4, max_blocks=2))
def test_the_diagram_encoding_has_one_model_per_adversarial_input(query):
    instance = compile_query(query)
    cnf = to_cnf(instance)
    assert cnf.preserves_counts
    if () in cnf.clauses:
        assert not oracle.adversarial_points(query)
        return
    found = models(cnf)
    assert len(found) == len(oracle.adversarial_points(query))
    for model in found:
        values = instance.values([v > 0 for v in model[: instance.n_inputs]])
        assert all((model[v - 1] > 0) == value for v, value in values.items())


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_every_encoding_has_the_right_models_projected_on_the_inputs(encoding, n):
    for bound in range(1, n + 1):
        instance = question(CardinalityConstraint(tuple((-1) ** i * (i + 1) for i in range(n)), bound), n)
        cnf = to_cnf(instance, encoding)
        found = models(cnf, over=None if cnf.preserves_counts else n)
        projected = {m[:n] for m in found}
        expected = {
            tuple(v if value else -v for v, value in enumerate(values, start=1))
            for values in product((False, True), repeat=n)
            if instance.is_model(values)
        }
        assert projected == expected
        assert len(found) == len(expected)


def test_python_sats_encodings_do_not_preserve_counts_and_say_so():
    at_most_3_of_6 = question(CardinalityConstraint(tuple(range(-6, 0)), 3), 6)
    assert len(models(to_cnf(at_most_3_of_6))) == 42
    for name in ("totalizer", "cardnetwork"):
        cnf = to_cnf(at_most_3_of_6, name)
        assert not cnf.preserves_counts and len(models(cnf, most=50)) == 50


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_coefficients_are_exact_in_every_encoding(encoding):
    instance = question(LinearConstraint((5, 3, 3, 2), (1, -2, 3, 4), 7), 4)
    expected = {values for values in product((False, True), repeat=4) if instance.is_model(values)}
    assert {tuple(v > 0 for v in m[:4]) for m in models(to_cnf(instance, encoding), over=4)} == expected


def test_dimacs_is_the_same_text_each_time_and_names_the_inputs():
    def text():
        stream = io.StringIO()
        write_dimacs(to_cnf(question(CardinalityConstraint((1, -2, 3), 2), 3)), stream)
        return stream.getvalue()

    lines = text().splitlines()
    assert text() == text()
    assert "c var 2 x1" in lines and "c p show 1 2 3 0" in lines
    header = next(line for line in lines if line.startswith("p cnf"))
    clauses = [line for line in lines if not line.startswith(("c", "p"))]
    assert header.split()[3] == str(len(clauses)) and all(line.endswith(" 0") for line in clauses)


@pytest.mark.parametrize("package", PACKAGES)
@settings(max_examples=100)
@given(queries(max_inputs=6), st.data())
def test_counts_polynomials_and_probabilities_of_a_diagram_are_exact(package, query, data):
    instance = compile_query(query)
    n = instance.n_inputs
    order = data.draw(st.permutations(list(instance.inputs)))
    encoding = BddEncoding(instance, order=order, package=package)
    node = encoding.formula()
    members = [v for v in product((False, True), repeat=n) if instance.is_model(v)]
    assert encoding.count(node) == len(members)
    center = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    distances = [0] * (n + 1)
    for values in members:
        distances[sum(a != b for a, b in zip(values, center, strict=True))] += 1
    assert encoding.count_by_distance(node, center=center) == distances
    most = data.draw(st.integers(0, n))
    assert encoding.count_by_distance(node, center=center, most=most) == distances[: most + 1]
    rates = [Fraction(data.draw(st.integers(0, 5)), 5) for _ in range(n)]
    expected = sum(
        (math.prod(p if v else 1 - p for p, v in zip(rates, values, strict=True)) for values in members), Fraction(0)
    )
    assert encoding.probability(node, rates) == expected
    assert (encoding.pick(node) in members) if members else encoding.pick(node) is None


FAULTS = [
    BitFlip("1/10"),
    AsymmetricFlip("1/3", "1/50"),
    StuckAt("1/7", "0"),
    PerBlock((BitFlip("1/5"), AsymmetricFlip("1/4", "0"), BitFlip("0"))),
]


@settings(max_examples=80)
@given(networks(max_inputs=4, max_width=3, max_blocks=2, max_classes=3), st.data())
def test_fault_enumerators_and_error_probabilities_equal_all_flip_patterns(network, data):
    if network.n_cells > 11:
        return
    x, label = data.draw(inputs(network.n_inputs)), data.draw(st.integers(0, network.n_classes - 1))
    assert fault_enumerator_bdd(network, x, label) == oracle.fault_enumerator(network, x, label)
    faults = data.draw(st.sampled_from(FAULTS))
    assert error_probability_bdd(network, x, label, faults) == oracle.error_probability(network, x, label, faults)


def test_fault_enumerators_of_14_cells_equal_all_flip_patterns():
    blocks = (DenseBlock.create([[1, -1, 1], [1, 1, -1]], [1, -1], negated=np.array([True, False])),)
    network = BinaryNetwork(
        InputDomain.binary(3), blocks, OutputBlock.create([[1, -1], [-1, -1], [1, 1], [-1, 1]], bias=[0, 1, 0, 0])
    )
    assert network.n_cells == 14
    x = (1, -1, -1)
    label = network.evaluate(x)
    assert fault_enumerator_bdd(network, x, label) == oracle.fault_enumerator(network, x, label)


def test_the_enumerator_of_hundreds_of_cells_is_consistent():
    generator = np.random.default_rng(0)
    block = DenseBlock.create(generator.choice([-1, 1], (9, 16)), generator.integers(-3, 4, 9))
    network = BinaryNetwork(InputDomain.binary(16), (block,), OutputBlock.create(generator.choice([-1, 1], (2, 9))))
    x = generator.choice([-1, 1], 16)
    label = network.evaluate(x)
    polynomial = fault_enumerator_bdd(network, x, label)
    n = network.n_cells
    assert polynomial[0] == 0 and len(polynomial) == n + 1
    assert all(0 <= a <= math.comb(n, k) for k, a in enumerate(polynomial))
    p = Fraction(1, 100)
    expected = sum(a * p**k * (1 - p) ** (n - k) for k, a in enumerate(polynomial))
    assert error_probability_bdd(network, x, label, BitFlip(p)) == expected
