"""Loaded tables: maps, endurance and lifetimes, and the place of every mistake."""

from fractions import Fraction

import numpy as np
import pytest

from bnnverify.confidence import clopper_pearson
from bnnverify.devices.endurance import Endurance, Lifetimes
from bnnverify.devices.maps import RateMap, StuckMap
from bnnverify.errors import FormatError, QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, StuckAt


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_stuck_map_is_read_whatever_the_order_of_its_columns(table):
    path = table("# chip 7\nvalue, col,row\n-1,0,1\n\n+1,2,0\n0,1,1\n")
    assert StuckMap.load(path, shape=(2, 3)).cells.tolist() == [[0, 0, 1], [-1, 0, 0]]


def test_stuck_cells_keep_their_sign_and_the_others_what_is_written():
    stuck = StuckMap(np.array([[0, 1], [-1, 0]]))
    for weights in ([[1, 1], [1, 1]], [[-1, -1], [-1, -1]], [[1, -1], [1, -1]]):
        read = stuck.apply(weights)
        for place in np.ndindex(2, 2):
            assert read[place] == (stuck.cells[place] or weights[place[0]][place[1]])
    assert stuck.model == StuckAt("1/4", "1/4")
    with pytest.raises(ValueError, match="read-only"):
        stuck.cells[0, 0] = 1


def test_sampled_stuck_cells_lie_in_the_band_of_their_rates_and_repeat():
    model = StuckAt("0.02", "0.09")
    stuck = StuckMap.sample((300, 400), model, generator=np.random.default_rng(9))
    for sign, p in ((1, model.p_plus), (-1, model.p_minus)):
        band = clopper_pearson(int((stuck.cells == sign).sum()), stuck.cells.size, confidence=1 - 1e-9)
        assert band.lower <= p <= band.upper
    again = StuckMap.sample((300, 400), model, generator=np.random.default_rng(9))
    assert np.array_equal(stuck.cells, again.cells)
    all_stuck = StuckMap.sample((5, 5), StuckAt("1/2", "1/2"), generator=np.random.default_rng(1))
    assert all_stuck.cells.all()
    assert StuckMap.sample((2, 3, 3), StuckAt(0, 0), generator=np.random.default_rng(1)).model == StuckAt(0, 0)


def test_a_rate_map_is_exact_and_sampled_cell_by_cell(table):
    rates = RateMap.load(table("row,col,value\n0,0,0.1\n1,1,1/3\n"), shape=(2, 2), default="1e-3")
    assert rates.rates == ((Fraction(1, 10), Fraction(1, 1000)), (Fraction(1, 1000), Fraction(1, 3)))
    assert rates.mean_model == BitFlip((Fraction(1, 10) + Fraction(2, 1000) + Fraction(1, 3)) / 4)
    generator = np.random.default_rng(2)
    hits = sum(rates.sample(generator=generator).astype(int) for _ in range(2000))
    for place in np.ndindex(2, 2):
        band = clopper_pearson(int(hits[place]), 2000, confidence=1 - 1e-9)
        assert band.lower <= rates.rates[place[0]][place[1]] <= band.upper


def test_endurance_is_joined_by_straight_lines_and_ends_where_the_data_end(table):
    aging = Endurance.load(table("cycles,p01,p10\n0,0,0.01\n1e3,0.1,0.02\n5000,0.5,0.02\n"))
    assert aging.cycles == (0, 1000, 5000)
    assert aging.faults(0) == AsymmetricFlip(0, "0.01")
    assert aging.faults(250) == AsymmetricFlip("0.025", "0.0125")
    assert aging.faults(1000) == AsymmetricFlip("0.1", "0.02")
    assert aging.faults(3000) == AsymmetricFlip("0.3", "0.02")
    assert aging.faults(5000) == AsymmetricFlip("0.5", "0.02")
    for cycles in (-1, 5001):
        with pytest.raises(QueryError, match=rf"{cycles} cycles, but measured are 0 to 5000\. .*not extrapolated"):
            aging.faults(cycles)
    both = Endurance.load(table("cycles,error_rate\n10,1e-4\n"))
    assert both.faults(10) == AsymmetricFlip("1e-4", "1e-4")


def test_lifetimes_give_shares_with_bands(table):
    cells = Lifetimes.load(table("cell,cycles\na,300\nb,100\nc,200\nd,200\n"))
    assert cells.cycles == (100, 200, 200, 300)
    assert cells.faults(200, stuck_at_plus="1/3") == StuckAt("1/4", "1/2")
    assert cells.faults(99) == StuckAt(0, 0)
    assert cells.failed(200) == clopper_pearson(3, 4)
    with pytest.raises(QueryError, match=r"301 cycles, but measured are 0 to 300"):
        cells.faults(301)


@pytest.mark.parametrize(
    ("load", "text", "message"),
    [
        ("stuck", "row,col\n0,0\n", r"csv:1: the header is 'row,col', expected row,col,value\."),
        ("stuck", "row,col,value,value\n", r"csv:1: the header is"),
        ("stuck", "row,col,value\n", r"csv: has no data, expected a header and at least one line"),
        ("stuck", "", r"csv: has no data"),
        ("stuck", "row,col,value\n0,0\n", r"csv:2: has 2 fields, expected 3: row,col,value"),
        ("stuck", "row,col,value\n0,0,2\n", r"csv:2: value is '2', expected -1, 0 or \+1"),
        ("stuck", "row,col,value\nx,0,1\n", r"csv:2: row is 'x', expected a number from 0"),
        ("stuck", "# c\n\nrow,col,value\n0,5,1\n", r"csv:4: cell \(0, 5\) lies outside the array of 2 x 2"),
        ("stuck", "row,col,value\n0,0,1\n0,0,1\n", r"csv:3: cell \(0, 0\) is given again, first at .*csv:2"),
        ("stuck", b"row,col,value\n\xff,0,1\n", r"csv: is no text in UTF-8"),
        ("rate", "row,col,value\n0,0,1.5\n", r"csv:2: value is '1\.5', expected a probability"),
        ("endurance", "cycles,rate\n1,2\n", r"expected cycles,error_rate or cycles,p01,p10"),
        ("endurance", "cycles,error_rate\n5,0\n5,0\n", r"csv:3: cycles is 5 after 5, expected rising"),
        ("endurance", "cycles,error_rate\n1.5,0\n", r"csv:2: cycles is '1\.5', expected a whole number"),
        ("endurance", "cycles,error_rate\ninf,0\n", r"csv:2: cycles is 'inf'"),
        ("lifetimes", "cell,cycles\na,1\na,2\n", r"csv:3: cell 'a' is given again"),
    ],
)
def test_mistakes_in_files_are_named_with_their_line(table, load, text, message):
    loaders = {
        "stuck": lambda path: StuckMap.load(path, shape=(2, 2)),
        "rate": lambda path: RateMap.load(path, shape=(2, 2)),
        "endurance": Endurance.load,
        "lifetimes": Lifetimes.load,
    }
    with pytest.raises(FormatError, match=message):
        loaders[load](table(text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"none\.csv: cannot be read \(no such file or directory\), expected a CSV"):
        Endurance.load(tmp_path / "none.csv")


@pytest.mark.parametrize("shape", [4, (0, 3), (2, 2, 2), ("a", 2)])
@pytest.mark.parametrize("kind", [StuckMap, RateMap])
def test_a_map_takes_the_rows_and_columns_of_its_array(table, kind, shape):
    with pytest.raises(QueryError, match=r"shape.* is .*, expected"):
        kind.load(table("row,col,value\n0,0,1\n"), shape=shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StuckMap(np.array([2])), r"entry that is not -1, 0 or \+1"),
        (lambda: StuckMap(np.zeros((1, 2))).apply([1]), r"shape \(1,\), expected that of the map, \(1, 2\)"),
        (lambda: RateMap(()), r"no cells or rows of unequal length"),
        (lambda: RateMap(((0, 1), (0,))), r"rows of unequal length"),
        (lambda: Endurance((1, 1), (0, 0), (0, 0)), r"cycles are .*rising"),
        (lambda: Endurance((1, 2), (0,), (0, 0)), r"2 cycles with 1 and 2 rates"),
        (lambda: Lifetimes((1.5,)), r"lifetimes\[0\] is 1\.5, expected an integer"),
        (lambda: Lifetimes(()), r"there are no lifetimes"),
    ],
)
def test_what_is_no_table_is_refused(make, message):
    with pytest.raises(QueryError, match=message):
        make()
