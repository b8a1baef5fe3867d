"""Critical cells against the flip of every single cell, and against the first order of the fault enumerator."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cli.cells import critical_report
from bnnverify.engines.base import Limits, Monitor
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.faults import AsymmetricFlip
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import exact_error_probability
from bnnverify.reliability.critical import classes_after_one_flip, critical_cells
from bnnverify.report.cellmap import cell_map_figure
from bnnverify.results import Kind
from tests import oracle, strategies


def classes_by_cell(network, x):
    """{cell: class after its flip} in plain loops."""
    return {
        cell[:3]: oracle.predicted(network, x, oracle.flipped_weights(network, [cell]))
        for cell in oracle.cells(network)
    }


@st.composite
def integer_networks(draw):
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    drawn = draw(strategies.dense_blocks(n, m, masked=draw(st.booleans())))
    thresholds = draw(st.lists(st.integers(-12, 12), min_size=m, max_size=m))
    block = DenseBlock.create(drawn.weights, thresholds, mask=drawn.weights != 0)
    domain = InputDomain.integers([-3] * n, [6] * n)
    return BinaryNetwork(domain, (block,), draw(strategies.output_blocks(m, 3)))


@st.composite
def cases(draw):
    kind = draw(st.sampled_from([strategies.networks, strategies.conv_networks, integer_networks]))
    network = draw(kind())
    values = strategies.signs if network.domain.is_binary else st.integers(-3, 6)
    point = st.lists(values, min_size=network.n_inputs, max_size=network.n_inputs)
    images = draw(st.lists(point, min_size=1, max_size=4))
    labels = draw(st.lists(st.integers(0, network.n_classes - 1), min_size=len(images), max_size=len(images)))
    return network, images, labels


@settings(max_examples=100, deadline=None)
@given(cases())
def test_counts_are_those_of_flipping_every_single_cell(case):
    network, images, labels = case
    answer = critical_cells(network, images, labels)
    changes, breaks, repairs = ([np.zeros_like(m) for m in answer.changes] for _ in range(3))
    for i, (x, label) in enumerate(zip(images, labels, strict=True)):
        clean, found = oracle.predicted(network, x), [0, 0, 0]
        for (b, row, column), after in classes_by_cell(network, x).items():
            events = after != clean, clean == label != after, clean != label == after
            for event, (matrices, hit) in enumerate(zip((changes, breaks, repairs), events, strict=True)):
                matrices[b][row, column] += hit
                found[event] += hit
        assert answer.per_image[i].tolist() == found
    for mine, expected in ((answer.changes, changes), (answer.breaks, breaks), (answer.repairs, repairs)):
        assert all((a == e).all() for a, e in zip(mine, expected, strict=True))
    assert answer.kind is Kind.EXACT and answer.n_images == len(images)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_classes_after_one_flip_are_those_of_the_definition(case):
    network, images, _ = case
    classes = classes_after_one_flip(network, images[0])
    by_cell = classes_by_cell(network, images[0])
    clean = oracle.predicted(network, images[0])
    for b, matrix in enumerate(classes):
        for (row, column), found in np.ndenumerate(matrix):
            assert found == by_cell.get((b, row, column), clean)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_slopes_are_the_first_order_of_the_exact_probability(data):
    network = data.draw(strategies.networks(max_inputs=3, max_width=3, max_blocks=2, max_classes=3))
    images = [data.draw(strategies.inputs(network.n_inputs)) for _ in range(3)]
    labels = [data.draw(st.integers(0, network.n_classes - 1)) for _ in images]
    answer = critical_cells(network, images, labels)
    plus, minus = (sum(pair[s] for pair in answer.accuracy_slopes) for s in (0, 1))
    assert answer.accuracy_slope == plus + minus
    small = Fraction(1, 10**9)
    for model, slope in ((AsymmetricFlip(p10=small, p01=0), plus), (AsymmetricFlip(p10=0, p01=small), minus)):
        errors = [exact_error_probability(network, x, y, model) for x, y in zip(images, labels, strict=True)]
        accuracy = 1 - sum(errors) / 3
        assert abs((accuracy - Fraction(answer.clean_correct, 3)) / small - slope) < Fraction(1, 10**5)


def trained_like(seed=0):
    rng = np.random.default_rng(seed)
    block = DenseBlock.create(rng.choice([-1, 1], (12, 30)), rng.integers(-2, 3, 12))
    return BinaryNetwork(InputDomain.binary(30), (block,), OutputBlock.create(rng.choice([-1, 1], (4, 12))))


def test_ranking_names_the_cells_that_break_most():
    network, rng = trained_like(), np.random.default_rng(1)
    images, labels = rng.choice([-1, 1], (50, 30)), rng.integers(0, 4, 50).tolist()
    answer = critical_cells(network, images, labels)
    ranked = answer.ranking(5)
    counts = sorted((int(v) for matrix in answer.breaks for v in matrix.ravel()), reverse=True)
    assert [n for _, n in ranked] == counts[:5]
    assert all(answer.breaks[b][j, i] == n for (b, j, i), n in ranked)
    assert answer.block_totals() == tuple(int(m.sum()) for m in answer.breaks)
    assert sum(answer.block_totals("changes")) == answer.per_image[:, 0].sum()
    assert answer.block_shares()[0] == Fraction(answer.block_totals()[0], 360 * 50)
    with pytest.raises(QueryError, match="expected one of changes, breaks, repairs"):
        answer.of("error")


def test_without_labels_breaks_are_changes():
    images = np.random.default_rng(2).choice([-1, 1], (9, 30))
    answer = critical_cells(trained_like(), images)
    assert answer.clean_correct == 9
    assert all((a == b).all() for a, b in zip(answer.changes, answer.breaks, strict=True))
    assert not any(matrix.any() for matrix in answer.repairs)


def test_what_was_counted_before_the_limit_is_kept(monkeypatch):
    monkeypatch.setattr("bnnverify.reliability.critical._CHUNK", 4)
    images = np.random.default_rng(2).choice([-1, 1], (9, 30))
    seen = []
    answer = critical_cells(trained_like(), images, limits=Limits(seconds=1e-9), progress=seen.append)
    assert answer.n_images == 4 and "4 of 9 images" in answer.run.reason and seen == [4]
    assert critical_cells(trained_like(), images, monitor=Monitor(stop=True)).run.reason.startswith("interrupted")
    whole = critical_cells(trained_like(), images)
    assert whole.n_images == 9 and (whole.per_image[:4] == answer.per_image).all()
    assert whole.to_json()["blocks"][0]["cells"] == 360


def test_wrong_questions_are_refused():
    with pytest.raises(QueryError, match="expected equally many"):
        critical_cells(trained_like(), np.ones((2, 30), dtype=int), [0])
    integers = BinaryNetwork(InputDomain.integers([0], [9]), (), OutputBlock.create([[1], [-1]]))
    with pytest.raises(UnsupportedError, match="no hidden block"):
        critical_cells(integers, [[3]])


def report_case():
    network, rng = trained_like(), np.random.default_rng(1)
    return network, rng.choice([-1, 1], (20, 30)), rng.integers(0, 4, 20).tolist()


def test_the_report_ranks_cells_and_draws_the_same_map_twice(tmp_path):
    network, images, labels = report_case()
    found = critical_cells(network, images, labels)
    for name, block in (("map.svg", 0), ("map.png", -1)):
        path = tmp_path / name
        report = critical_report(network, images, labels, count=3, cell_map=path, map_block=block)
        first = path.read_bytes()
        critical_report(network, images, labels, count=3, cell_map=path, map_block=block)
        assert path.read_bytes() == first and report.figure == path and not report.is_partial
    ranked = found.ranking(3)
    assert report.answer["ranking"] == [{"cell": list(cell), "images": n} for cell, n in ranked]
    assert f"output, row {ranked[0][0][1]}" in "\n".join(report.text) or ranked[0][0][0] == 0
    assert report.answer["accuracy_slope"] == str(found.accuracy_slope)
    with pytest.raises(QueryError, match=r"ends in \.png or \.svg"):
        critical_report(network, images, labels, cell_map=tmp_path / "map.pdf")
    with pytest.raises(QueryError, match="block 2 does not exist"):
        critical_report(network, images, labels, map_block=2)
    with pytest.raises(QueryError, match="event is 'errors'"):
        critical_report(network, images, labels, event="errors")


def test_maps_lay_the_cells_of_a_row_over_the_image():
    counts = np.arange(24).reshape(2, 12)
    present = np.ones((2, 12), dtype=bool)
    present[:, 0] = False
    figure = cell_map_figure(counts, present=present, image_shape=(3, 4), title="t")
    summed = figure.axes[0].images[0].get_array()
    assert summed.shape == (3, 4) and summed.mask[0, 0] and summed[2, 3] == 11 + 23
    mosaic = figure.axes[1].images[0].get_array()
    assert mosaic.shape == (3, 9) and mosaic[1, 2] == 6 and mosaic[1, 7] == 18 and mosaic.mask[1, 4]
    matrix = cell_map_figure(counts, present=present).axes[0].images[0].get_array()
    assert matrix.shape == (2, 12) and matrix[1, 1] == 13 and matrix.mask[1, 0]
