"""Fault models cell by cell, at every read, in series, and back from JSON; the exact answer serves all of them."""

import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.engines.chipsampling import sample_chips
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.errors import QueryError, ResourceLimitError, UnsupportedError
from bnnverify.faults import (
    AsymmetricFlip,
    BitFlip,
    CellRates,
    CellTable,
    PerBlock,
    PerCell,
    PerRead,
    StuckAt,
    cell_rates,
    fault_model_from_json,
    in_series,
    is_per_cell,
    mapped,
    write_verified,
)
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import error_probability, exact_error_probability
from tests import oracle, strategies

some_rates = st.sampled_from(["0", "1e-18", "1e-3", "0.1", "1/3", "1/2", "0.9", "1"])


@st.composite
def sign_models(draw):
    a, b = draw(some_rates), draw(some_rates)
    return draw(st.sampled_from([BitFlip(a), AsymmetricFlip(a, b), StuckAt(Fraction(a) / 2, Fraction(b) / 2)]))


@st.composite
def tables(draw, rows, columns):
    def matrix():
        return [[draw(some_rates) for _ in range(columns)] for _ in range(rows)]

    return CellTable.create(matrix(), matrix() if draw(st.booleans()) else None)


@st.composite
def permanent_models(draw, network):
    shapes = [block.stored.reshape(len(block.stored), -1).shape for block in network.all_blocks]
    kind = draw(st.sampled_from(["sign", "block", "cell"]))
    if kind == "sign":
        return draw(sign_models())
    if kind == "block":
        return PerBlock(tuple(draw(sign_models()) for _ in shapes))
    return PerCell(tuple(draw(st.one_of(sign_models(), tables(*shape))) for shape in shapes))


@st.composite
def fault_models(draw, network):
    model = draw(permanent_models(network))
    if draw(st.integers(0, 3)):
        return model
    return PerRead(model, draw(permanent_models(network)) if draw(st.booleans()) else None)


@st.composite
def cases(draw, max_cells=10):
    features = {"max_inputs": 3, "max_width": 2, "max_blocks": 2, "max_classes": 3}
    network = draw(strategies.networks(**features).filter(lambda net: net.n_cells <= max_cells))
    x = draw(strategies.inputs(network.n_inputs))
    return network, x, draw(st.integers(0, network.n_classes - 1)), draw(fault_models(network))


def chance(model, block, row, column, stored):
    """Probability that a cell reads wrong, by the definition of each model."""
    if isinstance(model, PerRead):
        once = chance(model.model, block, row, column, stored)
        if model.permanent is None:
            return once
        before = chance(model.permanent, block, row, column, stored)
        other = chance(model.model, block, row, column, -stored)
        return before * (1 - other) + (1 - before) * once
    if isinstance(model, PerBlock):
        model = model.models[block]
    if isinstance(model, PerCell):
        model = model.blocks[block]
    both = model.rates[model.index[row, column]] if isinstance(model, CellTable) else model.rates(block)
    return both.plus if stored == 1 else both.minus


def by_enumeration(network, x, label, faults):
    """P(class != label) over all flip patterns, cell by cell."""
    cells = oracle.cells(network)
    total = Fraction(0)
    for pattern in product((False, True), repeat=len(cells)):
        weight = Fraction(1)
        for flipped, cell in zip(pattern, cells, strict=True):
            p = chance(faults, *cell)
            weight *= p if flipped else 1 - p
        if weight:
            flips = [cell for cell, flipped in zip(cells, pattern, strict=True) if flipped]
            if oracle.predicted(network, x, oracle.flipped_weights(network, flips)) != label:
                total += weight
    return total


@settings(max_examples=120)
@given(cases())
def test_the_exact_probability_serves_every_fault_model(case):
    network, x, label, faults = case
    assert exact_error_probability(network, x, label, faults) == by_enumeration(network, x, label, faults)


@settings(max_examples=50)
@given(cases(max_cells=40))
def test_the_certified_interval_serves_every_fault_model(case):
    network, x, label, faults = case
    answer = error_probability(network, x, label, faults)
    assert answer.lower <= exact_error_probability(network, x, label, faults) <= answer.upper


@settings(max_examples=200)
@given(st.data())
def test_the_rate_of_every_cell_is_that_of_its_definition(data):
    network = data.draw(strategies.networks(max_inputs=4, max_width=3))
    faults = data.draw(fault_models(network))
    for b, block in enumerate(network.all_blocks):
        rates, index = cell_rates(faults, b, block.stored)
        for row, column in np.ndindex(*block.stored.shape):
            stored = int(block.stored[row, column])
            expected = chance(faults, b, row, column, stored) if stored else 0
            assert rates[index[row, column]] == expected


@settings(max_examples=200)
@given(st.data())
def test_every_model_comes_back_from_json(data):
    network = data.draw(strategies.networks(max_inputs=4, max_width=3))
    faults = data.draw(fault_models(network))
    again = fault_model_from_json(json.loads(json.dumps(faults.to_json())))
    assert again == faults
    assert hash(again) == hash(faults)


@pytest.mark.parametrize(
    "values",
    [
        None,
        "bit-flip",
        {},
        {"kind": "other"},
        {"kind": "bit-flip"},
        {"kind": "per-block", "models": [{"kind": "per-block", "models": []}]},
        {"kind": "per-read", "model": {"kind": "per-read", "model": BitFlip(0).to_json(), "permanent": None}},
        {"kind": "cells", "rates": [], "shape": [1, 1], "runs": [[0, 1]]},
        CellTable.create([[0]]).to_json(),
        {"kind": "per-cell", "blocks": [{"kind": "cells", "rates": [], "shape": [1, 1], "runs": [[0, 2]]}]},
    ],
)
def test_json_that_no_model_wrote_is_refused(values):
    with pytest.raises(QueryError, match="expected"):
        fault_model_from_json(values)


@settings(max_examples=100)
@given(st.data())
def test_causes_in_series_are_walks_over_the_signs_of_every_cell(data):
    network = data.draw(strategies.networks(max_inputs=3, max_width=2, max_blocks=1))
    models = data.draw(st.lists(permanent_models(network), min_size=1, max_size=3))
    found = in_series(*models)
    for b, block in enumerate(network.all_blocks):
        for place in np.ndindex(*block.stored.shape):
            for stored in (1, -1):
                law, stuck = {stored: Fraction(1), -stored: Fraction(0)}, {1: Fraction(0), -1: Fraction(0)}
                for model in models:
                    part = model.models[b] if isinstance(model, PerBlock) else model
                    part = part.blocks[b] if isinstance(part, PerCell) else part
                    if isinstance(part, StuckAt):  # of those that are free so far
                        stuck[1] += part.p_plus * sum(law.values())
                        stuck[-1] += part.p_minus * sum(law.values())
                        law = {s: law[s] * (1 - part.p_plus - part.p_minus) for s in (1, -1)}
                    else:
                        wrong = {s: chance(model, b, *place, s) for s in (1, -1)}
                        law = {s: law[s] * (1 - wrong[s]) + law[-s] * wrong[-s] for s in (1, -1)}
                assert chance(found, b, *place, stored) == law[-stored] + stuck[-stored]


def test_stuck_cells_stay_stuck_whatever_comes_after():
    stuck, aged, read = StuckAt(p_plus="0.2", p_minus="0.3"), BitFlip("0.1"), PerRead(BitFlip("0.1"))
    assert in_series(stuck, aged) == in_series(aged, stuck) == AsymmetricFlip(p01="1/4", p10="7/20")
    assert in_series(StuckAt(1, 0), StuckAt(0, 1)) == AsymmetricFlip(p01=1, p10=0)  # the first one decides
    blocks = in_series(PerBlock((stuck, aged)), aged)
    assert blocks == PerBlock((AsymmetricFlip(p01="1/4", p10="7/20"), AsymmetricFlip("9/50", "9/50")))
    for series in ((stuck, read), (PerBlock((stuck, aged)), read)):
        with pytest.raises(QueryError, match=r"a stuck cell reads the same every time.*PerRead\(fresh, permanent="):
            in_series(*series)
    chosen = in_series(aged, PerRead(BitFlip("0.1"), permanent=stuck))  # said so: the reader errs there too
    assert chosen.permanent == AsymmetricFlip(p01="1/4", p10="7/20")
    assert chosen.rates(0).plus == Fraction(7, 20) * Fraction(9, 10) + Fraction(13, 20) * Fraction(1, 10)


def test_reading_comes_last_in_a_series_and_stays_apart():
    write, read = BitFlip("1/10"), PerRead(BitFlip("1/5"))
    chain = in_series(write, read)
    assert isinstance(chain, PerRead)
    assert chain.permanent == AsymmetricFlip("1/10", "1/10")
    assert chain.rates(0) == in_series(write, BitFlip("1/5")).rates(0)
    assert in_series(chain, read).rates(0) == in_series(write, BitFlip("1/5"), BitFlip("1/5")).rates(0)
    with pytest.raises(QueryError, match="errors of reading to be the last"):
        in_series(read, write)
    with pytest.raises(QueryError, match="errors of reading to be the last"):
        in_series(read, PerRead(write, write))


def test_errors_in_some_blocks_only_leave_the_others_alone():
    faults = PerBlock.only(AsymmetricFlip("0.1", "0.2"), (0, 2), of=3)
    assert [faults.rates(b).plus for b in range(3)] == [Fraction(1, 5), 0, Fraction(1, 5)]
    with pytest.raises(QueryError, match=r"blocks names \[3\], expected some of the blocks 0 to 2"):
        PerBlock.only(BitFlip("0.1"), 3, of=3)


def test_write_verify_acts_on_both_signs_and_never_on_stuck_cells():
    blocks = PerBlock((BitFlip("0.1"), AsymmetricFlip("0.2", 0)))
    assert write_verified(blocks, 1).rates(1) == CellRates(Fraction(0), Fraction(1, 25))
    table = PerCell((CellTable.create([[0.1, 0.5]]), BitFlip("0.1")))
    assert write_verified(table, 2).blocks[0].rates[1].plus == Fraction(1, 8)
    assert write_verified(PerRead(BitFlip("0.1")), 1) == PerRead(AsymmetricFlip("0.01", "0.01"))
    with pytest.raises(QueryError, match="a stuck cell stays stuck"):
        write_verified(StuckAt("0.1", 0), 1)
    for hidden in (PerBlock((BitFlip("0.1"), StuckAt("0.1", 0))), PerCell((StuckAt("0.1", 0), BitFlip("0.1")))):
        with pytest.raises(QueryError, match="a stuck cell stays stuck"):
            write_verified(PerRead(hidden), 1)
    with pytest.raises(UnsupportedError, match="partly permanent"):
        mapped(PerRead(BitFlip("0.1"), BitFlip("0.1")), lambda r: r)


def test_a_table_takes_floats_text_and_fractions_alike():
    texts = CellTable.create([["0.1", "1e-3"], ["0.1", "0"]])
    floats = CellTable.create(np.array([[0.1, 1e-3], [0.1, 0.0]]))
    for place in np.ndindex(2, 2):
        assert texts.rates[texts.index[place]] == floats.rates[floats.index[place]]
    assert len(floats.rates) == 3
    mixed = CellTable.create([[0, "1/3", 0.5]], [[1, 1, 1]])
    assert mixed.rates[mixed.index[0, 1]] == CellRates(plus=Fraction(1), minus=Fraction(1, 3))


def test_cells_of_their_own_say_so_where_only_blocks_are_understood():
    faults = PerCell((CellTable.create([["0.1", "0.2"]]), CellTable.create([["0.3"], ["0.3"]])))
    assert is_per_cell(faults) and is_per_cell(PerRead(faults)) and not is_per_cell(BitFlip("0.1"))
    assert faults.rates(1) == BitFlip("0.3").rates(1)
    with pytest.raises(UnsupportedError, match="cells of block 0 have 2 different rates"):
        faults.rates(0)
    with pytest.raises(QueryError, match="has 2 blocks, but block 2 was asked for"):
        faults.rates(2)
    with pytest.raises(QueryError, match=r"shape \(1, 2\), expected that of its cells, \(2, 2\)"):
        cell_rates(faults, 0, np.ones((2, 2), dtype=np.int8))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: CellTable.create([0.1]), r"p01 has shape \(1,\), expected a matrix"),
        (lambda: CellTable.create([[0.1]], [[0.1, 0.2]]), r"p01 has shape \(1, 1\) and p10 \(1, 2\)"),
        (lambda: CellTable.create([[2]]), r"p01 is 2, expected a probability within"),
        (lambda: CellTable((BitFlip(0).rates(0),), np.array([[1]])), r"Use CellTable\.create"),
        (lambda: PerCell((0.1,)), r"blocks\[0\] is 0\.1, expected a CellTable"),
        (lambda: PerBlock((PerRead(BitFlip(0)),)), r"models\[0\] is PerRead"),
        (lambda: PerRead(PerRead(BitFlip(0))), r"model is PerRead"),
        (lambda: PerRead(BitFlip(0), 0.1), r"permanent is 0\.1"),
        (
            lambda: in_series(PerCell((CellTable.create([[0]]),)), PerCell((CellTable.create([[0, 0]]),))),
            r"rates of block 0 have shapes",
        ),
    ],
)
def test_models_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(QueryError, match=message):
        wrong()


@pytest.mark.parametrize("model", [PerBlock((BitFlip("0.1"),) * 3), PerCell((BitFlip("0.1"),))])
def test_a_model_of_another_number_of_blocks_is_refused(model):
    block, output = DenseBlock.create([[1, 1]], [0]), OutputBlock.create([[1], [-1]])
    network = BinaryNetwork(InputDomain.binary(2), (block,), output)
    for faults in (model, PerRead(model), PerRead(BitFlip(0), permanent=model)):
        for ask in (error_probability, exact_error_probability):
            with pytest.raises(QueryError, match=r"has [13] blocks, but the network has 2"):
                ask(network, [1, 1], 0, faults)
        for sample in (sample_errors, sample_chips):
            with pytest.raises(QueryError, match=r"has [13] blocks, but the network has 2"):
                sample(network, [[1, 1]], [0], faults)


@pytest.mark.parametrize("table", [BitFlip("0.1"), CellTable.create([["0.1", "0.2"]])])
def test_laws_of_very_large_integers_are_refused_with_what_to_do(table):
    blocks = (DenseBlock.create([[1, 1]], [0]),)
    network = BinaryNetwork(InputDomain.integers([0, 0], [2**40] * 2), blocks, OutputBlock.create([[1], [-1]]))
    faults = PerCell((table, BitFlip("0.1")))
    assert error_probability(network, [2**10, 2**9], 0, faults).upper < 1
    said = (
        r"integer inputs add up to 1649267441664 needs 12288.0 GiB, expected at most 1 GiB. Take inputs of fewer levels"
    )
    with pytest.raises(ResourceLimitError, match=said):
        error_probability(network, [2**40, 2**39], 0, faults)


@pytest.mark.parametrize("pool", [(1, 1), (1, 2)])
@pytest.mark.parametrize("negated", [False, True])
def test_every_position_of_a_convolution_reads_its_cells_anew(pool, negated):
    block = ConvBlock.create([[[[1, -1]]]], [1], input_shape=(1, 1, 3), pool=pool, negated=np.array([negated]))
    hidden = block.n_outputs
    network = BinaryNetwork(InputDomain.binary(3), (block,), OutputBlock.create([[1] * hidden, [-1] * hidden]))
    x, p01, p10 = (1, -1, 1), Fraction(1, 10), Fraction(1, 3)
    total = Fraction(0)
    for pattern in product((1, -1), repeat=4 + 2 * hidden):  # two positions of two cells, then two classes
        weight = Fraction(1)
        stored = [(w if not negated else -w) for w in (1, -1, 1, -1)] + [1] * hidden + [-1] * hidden
        for sign, flip in zip(stored, pattern, strict=True):
            wrong = p10 if sign == 1 else p01
            weight *= wrong if flip < 0 else 1 - wrong
        fires = [pattern[2 * i] * x[i] - pattern[2 * i + 1] * x[i + 1] >= 1 for i in range(2)]
        signs = [1 if any(fires) else -1] if pool == (1, 2) else [1 if f else -1 for f in fires]
        scores = [s * sum(pattern[4 + k * hidden + j] * h for j, h in enumerate(signs)) for k, s in ((0, 1), (1, -1))]
        total += weight * (scores[1] > scores[0])
    faults = PerRead(AsymmetricFlip(p01, p10))
    assert exact_error_probability(network, x, 0, faults) == total
    answer = error_probability(network, x, 0, faults)
    assert answer.lower <= total <= answer.upper
