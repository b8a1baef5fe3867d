"""Constraints, instances and graphs, by brute force over all assignments."""

import json
from itertools import product

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cardinality import (
    CardinalityConstraint,
    LinearConstraint,
    Truth,
    cells_of,
    compile_cells,
    compile_network,
    compile_query,
    holds,
    linear_constraint,
    negation,
    neuron_constraint,
    region_input,
    sign_constraint,
    within_ball,
)
from bnnverify.cardinality.graph import cone_of_influence, draw, export_text, to_graph
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall, whole_cube
from tests import oracle
from tests.strategies import inputs, networks, queries

SIGNALS = st.one_of(st.integers(1, 5), st.integers(-5, -1), st.sampled_from(list(Truth)))


def truth_of(constraint, values):
    return bool(constraint) if isinstance(constraint, Truth) else holds(constraint, values)


def assignments(n):
    for bits in product((False, True), repeat=n):
        yield dict(enumerate(bits, start=1))


def sign(signal, values):
    if isinstance(signal, Truth):
        return signal.value
    return 1 if values[abs(signal)] == (signal > 0) else -1


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(-7, 7), SIGNALS), max_size=8), st.integers(-20, 20))
def test_a_sum_of_signs_reaches_the_threshold_iff_its_constraint_holds(terms, threshold):
    constraint = sign_constraint(terms, threshold)
    for values in assignments(5):
        total = sum(w * sign(s, values) for w, s in terms)
        assert truth_of(constraint, values) == (total >= threshold)
    if isinstance(constraint, LinearConstraint):
        assert len(set(constraint.coefficients)) > 1 and max(constraint.coefficients) <= constraint.bound


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(-7, 7), st.integers(1, 5)), max_size=8), st.integers(-20, 20))
def test_a_negation_holds_exactly_when_the_constraint_does_not(terms, bound):
    constraint = linear_constraint(terms, bound)
    for values in assignments(5):
        assert truth_of(constraint, values) == (sum(w * values[v] for w, v in terms) >= bound)
        if not isinstance(constraint, Truth):
            assert holds(negation(constraint), values) != holds(constraint, values)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(1, 6)), max_size=8),
    st.integers(-10, 10),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.integers(0, 6),
)
def test_what_a_ball_settles_is_settled_and_a_cardinality_constraint_left_open_takes_both_values(
    terms, bound, center, radius
):
    constraint = linear_constraint(terms, bound)
    restricted = within_ball(constraint, center, radius)
    ball = [v for v in assignments(6) if sum(v[i + 1] != c for i, c in enumerate(center)) <= radius]
    assert all(truth_of(constraint, v) == truth_of(restricted, v) for v in ball)
    if isinstance(restricted, CardinalityConstraint):
        assert {holds(restricted, v) for v in ball} == {False, True}


@settings(max_examples=300)
@given(queries(max_inputs=6))
def test_the_models_of_a_compiled_query_are_its_adversarial_inputs(query):
    instance = compile_query(query)
    models = [
        region_input(query.region, values)
        for values in product((False, True), repeat=instance.n_inputs)
        if instance.is_model(values)
    ]
    assert sorted(models) == sorted(oracle.adversarial_points(query))
    graph = to_graph(instance)
    assert nx.is_directed_acyclic_graph(graph)
    assert set(cone_of_influence(graph)) == set(graph) - {"region"} - {
        v.name for _, v in instance if v.kind == "input" and not nx.has_path(graph, v.name, "property")
    }


@settings(max_examples=60)
@given(networks(max_inputs=3, max_width=2, max_blocks=2, max_classes=3), st.data())
def test_the_models_over_cells_are_the_flips_that_change_the_class(network, data):
    if network.n_cells > 10:
        return
    x, label = data.draw(inputs(network.n_inputs)), data.draw(st.integers(0, network.n_classes - 1))
    most = data.draw(st.one_of(st.none(), st.integers(0, network.n_cells)))
    instance = compile_cells(network, x, label, max_flips=most)
    cells = oracle.cells(network)
    assert cells_of(instance) == cells
    for flips in product((False, True), repeat=len(cells)):
        weights = oracle.flipped_weights(network, [c for c, f in zip(cells, flips, strict=True) if f])
        wrong = oracle.predicted(network, x, weights) != label
        assert instance.is_model(flips) == (wrong and (most is None or sum(flips) <= most))


@pytest.mark.parametrize("ties", list(Ties))
def test_integer_inputs_weigh_the_cells_that_multiply_them(ties):
    network = BinaryNetwork(
        InputDomain.integers([0] * 3, [9] * 3),
        (DenseBlock.create([[1, -1, 1], [1, 1, -1]], [3, 0]),),
        OutputBlock.create([[1, 1], [-1, 1]]),
    )
    x, label = (5, 0, 2), 0
    instance = compile_cells(network, x, label, ties=ties)
    cells = oracle.cells(network)
    for flips in product((False, True), repeat=len(cells)):
        weights = oracle.flipped_weights(network, [c for c, f in zip(cells, flips, strict=True) if f])
        mine, other = oracle.scores(network, x, weights)
        assert instance.is_model(flips) == (other >= mine if ties is Ties.COUNTEREXAMPLE else other > mine)


def small_query():
    blocks = (
        DenseBlock.create([[1, 1, 1], [1, -1, 1], [-1, -1, -1]], [1, -1, 5]),
        DenseBlock.create([[1, 1, 1], [1, -1, 1]], [1, 0]),
    )
    network = BinaryNetwork(InputDomain.binary(3), blocks, OutputBlock.create([[1, 1], [-1, 1]]))
    return Query(network, HammingBall((1, 1, 1), 2), Untargeted(0))


def test_constants_are_substituted_and_what_cannot_matter_is_dropped():
    whole = compile_network(small_query().network, small_query().region)
    assert [v.name for _, v in whole] == ["x0", "x1", "x2", "h0.0", "h0.1", "h1.0", "h1.1"]  # h0.2 never fires
    instance = compile_query(small_query())
    assert "h1.1" not in {v.name for _, v in instance}  # both classes read it alike
    assert next(instance.text(g.constraint) for g in instance.gates) == "at least 2 of x0, x1, x2"


def test_a_graph_names_kinds_and_can_be_exported():
    graph = to_graph(compile_query(small_query()))
    assert graph.nodes["h0.0"]["kind"] == "neuron"
    assert graph.nodes["h0.0"]["constraint"] == "at least 2 of x0, x1, x2"
    assert graph.nodes["comparison 0"]["constraint"].startswith("score 1 > score 0: ")
    assert graph.edges["x1", "h0.1"]["sign"] == -1
    assert set(cone_of_influence(graph, "h0.0")) == {"x0", "x1", "x2", "h0.0"}
    assert '"x1" -> "h0.1" [style=dashed];' in export_text(graph, "dot")
    assert set(nx.node_link_graph(json.loads(export_text(graph, "json")), edges="edges")) == set(graph)
    assert set(nx.parse_graphml(export_text(graph, "graphml"))) == set(graph)
    assert export_text(graph, "dot") == export_text(to_graph(compile_query(small_query())), "dot")


def test_a_graph_can_be_drawn():
    axes = draw(to_graph(compile_query(small_query())))
    assert len(axes.texts) == len(to_graph(compile_query(small_query())))


def test_cells_and_products_are_in_the_graph():
    graph = to_graph(compile_cells(small_query().network, (1, 1, 1), 0))
    kinds = set(nx.get_node_attributes(graph, "kind").values())
    assert {"cell", "product", "neuron", "comparison", "property"} <= kinds


def test_settled_properties_are_said_to_be_settled():
    network = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [1, 1]], bias=[1, 0]))
    graph = to_graph(compile_query(Query(network, whole_cube(2), Untargeted(0))))
    assert graph.nodes["property"]["constraint"] == "false"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CardinalityConstraint((1, 2), 3), "bound 3 is settled, expected 1 to 2"),
        (lambda: CardinalityConstraint((1, -1), 1), "not nonzero numbers of distinct variables"),
        (lambda: LinearConstraint((0, 2), (1, 2), 1), "coefficient 0 is below 1"),
        (lambda: LinearConstraint((1,), (1, 2), 1), "1 coefficients do not fit 2 literals"),
        (lambda: compile_cells(small_query().network, (1, 1, 1), 2), "class 2 does not exist, expected 0 to 1"),
        (lambda: compile_cells(small_query().network, (1, 1, 1), 0, max_flips=-1), "max_flips is -1"),
        (lambda: cone_of_influence(to_graph(compile_query(small_query())), "h9.9"), "no node 'h9.9'"),
        (lambda: export_text(to_graph(compile_query(small_query())), "png"), "graph format is 'png'"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(QueryError, match=message):
        make()


def test_a_neuron_reads_as_a_cardinality_constraint():
    assert neuron_constraint([1, 0, -1], 0) == CardinalityConstraint((1, -3), 1)
    assert neuron_constraint([1, 1], 3) is Truth.FALSE
    assert neuron_constraint([1, 1], -2) is Truth.TRUE
    assert neuron_constraint([1, 1, 1], 1, [Truth.TRUE, -7, 9]) == CardinalityConstraint((-7, 9), 1)
    assert str(LinearConstraint((2, 1), (1, -2), 2)) == "2 v1 + 1 not v2 >= 2"
