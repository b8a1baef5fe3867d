"""Questions over boxes of integers, by brute force over all points of the box."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cardinality import Truth, compile_network, compile_query, region_input
from bnnverify.cardinality.graph import export_text, to_graph
from bnnverify.cardinality.rows import FIXED_FALSE, FIXED_TRUE, gathered, ranges, settled_by, thresholds_of
from bnnverify.engines.sat import SatEngine
from bnnverify.errors import UnsupportedError
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import PixelBox, RealBox
from bnnverify.results import Verdict
from tests import oracle
from tests.strategies import conv_networks, networks, queries


@st.composite
def box_queries(draw, kind=None, most_points=60):
    """A network over integers and a box of a few points within its domain."""
    network = draw(st.one_of(networks(max_inputs=5), conv_networks(max_inputs=8)) if kind is None else kind)
    n = network.n_inputs
    lower = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    spread = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    upper = [a + b for a, b in zip(lower, spread, strict=True)]
    network = BinaryNetwork(InputDomain.integers(lower, upper), network.blocks, network.output)
    low, high, size = list(lower), list(lower), 1
    for i in draw(st.permutations(range(n))):
        low[i] = draw(st.integers(lower[i], upper[i]))
        high[i] = draw(st.integers(low[i], upper[i]))
        if size * (high[i] - low[i] + 1) > most_points:
            high[i] = low[i]
        size *= high[i] - low[i] + 1
    klass = draw(st.integers(0, network.n_classes - 1))
    prop = draw(st.sampled_from([Untargeted(klass), Targeted(klass)]))
    return Query(network, PixelBox(low, high), prop, draw(st.sampled_from(list(Ties))))


def adversarial(query):
    return [x for x in query.region.points() if oracle.is_adversarial(query, x)]


def models(query, instance):
    found = []
    for values in product((False, True), repeat=instance.n_inputs):
        if instance.is_model(values):
            found.append(region_input(query.region, values))
    return sorted(found)


@settings(max_examples=120)
@given(box_queries(most_points=40))
def test_the_models_of_a_compiled_box_are_its_adversarial_points_once_each(query):
    instance = compile_query(query)
    assert models(query, instance) == adversarial(query)


@settings(max_examples=60)
@given(box_queries())
def test_the_clauses_of_a_box_give_the_oracles_answer_and_count(query):
    points = adversarial(query)
    decision = SatEngine().decide(query)
    assert decision.verdict is (Verdict.NOT_ROBUST if points else Verdict.ROBUST)
    assert decision.counterexample is None or decision.counterexample in points
    assert SatEngine().count(query).adversarial == len(points)


@settings(max_examples=60)
@given(box_queries())
def test_every_neuron_reads_what_the_block_reads(query):
    rng = np.random.default_rng(0)
    for block in query.network.blocks:
        x = rng.integers(-2, 3, block.n_inputs)
        low, high = ranges(block, x, x)
        assert (low == high).all() and (low == np.asarray(block.preactivations(x)).ravel()).all()
        which = np.arange(0, low.size, 2)
        rows = gathered(block, which)
        sums = np.bincount(rows.row, weights=rows.weight * x[rows.entry], minlength=which.size)
        blank = np.asarray(block.preactivations(np.zeros(block.n_inputs, dtype=np.int64))).ravel()
        assert (sums + blank[which] == low[which]).all()


@settings(max_examples=60)
@given(box_queries())
def test_ranges_are_reached_in_the_first_block(query):
    if not query.network.blocks:
        return
    block = query.network.blocks[0]
    low, high = ranges(block, np.array(query.region.lower), np.array(query.region.upper))
    seen = np.array([np.asarray(block.preactivations(np.array(x))).ravel() for x in query.region.points()])
    assert (seen.min(axis=0) == low).all() and (seen.max(axis=0) == high).all()
    signs = settled_by(thresholds_of(block), low, high)
    fires = seen >= thresholds_of(block)
    assert (fires.all(axis=0) == (signs == FIXED_TRUE)).all()
    assert ((~fires).all(axis=0) == (signs == FIXED_FALSE)).all()


@settings(max_examples=60)
@given(box_queries(most_points=30))
def test_what_is_known_beyond_the_bounds_replaces_neurons_and_changes_no_answer(query):
    known = []
    layers = [[] for _ in query.network.blocks]
    for x in query.region.points():
        for b, layer in enumerate(oracle.hidden_layers(query.network, x)):
            layers[b].append(layer)
    for layer in layers:
        outputs = np.array(layer)
        known.append(np.where((outputs == outputs[0]).all(axis=0), outputs[0], 0).astype(np.int8))
    instance = compile_query(query, known)
    assert models(query, instance) == adversarial(query)
    whole = compile_network(query.network, query.region, known)
    if known:
        settled = [isinstance(signal, Truth) for signal in whole.outputs]
        assert all(s or not k for s, k in zip(settled, known[-1].tolist(), strict=True))


@settings(max_examples=40)
@given(queries(conv_networks, max_inputs=8, max_outputs=24))
def test_convolutions_of_signs_are_compiled_without_unrolling(query):
    instance = compile_query(query)
    assert models(query, instance) == sorted(oracle.adversarial_points(query))


def test_names_say_which_value_a_pixel_reaches():
    block = ConvBlock.create([[[[1, 1]]]], [3], input_shape=(1, 1, 3), pool=(1, 2))
    network = BinaryNetwork(InputDomain.integers([0] * 3, [9] * 3), (block,), OutputBlock.create([[1], [-1]]))
    query = Query(network, PixelBox((0, 1, 0), (2, 2, 2)), Untargeted(1))
    instance = compile_query(query)
    names = [variable.name for _, variable in instance]
    assert names == ["x0>=1", "x0>=2", "x1>=2", "x2>=1", "x2>=2", "s0.0", "s0.1", "h0.0"]
    assert len(instance.region) == 2  # what is at least 2 is at least 1
    graph = to_graph(instance)
    assert graph.nodes["region"]["constraint"].count("at least 1 of") == 2
    assert set(graph.predecessors("region")) == {"x0>=1", "x0>=2", "x2>=1", "x2>=2"}
    assert '"x0>=1" [shape=circle' in export_text(graph, "dot")


def test_a_real_box_is_not_compiled():
    network = BinaryNetwork(
        InputDomain.integers([0], [9]), (DenseBlock.create([[1]], [3]),), OutputBlock.create([[1], [-1]])
    )
    query = Query(network, RealBox(("1/2",), ("7/2",)), Untargeted(0))
    with pytest.raises(UnsupportedError, match=r"the region is a real box.*Compile its grid\(\)"):
        compile_query(query)
