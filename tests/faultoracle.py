"""P(class != label) under faults by definition: every permanent state, then every state of the reads, in plain loops.

A cell goes through causes: permanent ones when the chip is made, those of reading at every read. What is read at
different places of a convolution shares the permanent state and nothing else. Fractions only; of the package it takes
the dataclasses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from bnnverify.faults import AsymmetricFlip, BitFlip, CellTable, PerBlock, PerCell, StuckAt
from bnnverify.network import ConvBlock
from tests.oracle import rows_of


@dataclass(frozen=True)
class Causes:
    """What happens to a cell, one after the other.

    Attributes:
        permanent: Before the first read; a cell that is stuck stays so.
        reading: At every read, also of stuck cells.
    """

    permanent: Sequence[object]
    reading: Sequence[object] = ()


def chances(model, cell, sign):
    """(p that the cell turns to the other sign, the rest, p that it is stuck at +1, at -1) while it holds `sign`."""
    block, row, column = cell
    if isinstance(model, PerBlock):
        model = model.models[block]
    if isinstance(model, PerCell):
        model = model.blocks[block]
    if isinstance(model, BitFlip):
        return model.p, Fraction(0), Fraction(0)
    if isinstance(model, AsymmetricFlip):
        return (model.p10 if sign == 1 else model.p01), Fraction(0), Fraction(0)
    if isinstance(model, StuckAt):
        return Fraction(0), model.p_plus, model.p_minus
    assert isinstance(model, CellTable)
    rates = model.rates[model.index[row][column]]
    return (rates.plus if sign == 1 else rates.minus), Fraction(0), Fraction(0)


def held(causes: Causes, cell, sign):
    """Law of the sign that a cell holds after the permanent causes."""
    law = {(sign, False): Fraction(1)}
    for model in causes.permanent:
        following: dict[tuple[int, bool], Fraction] = {}
        for (s, stuck), weight in law.items():
            turn, plus, minus = (0, 0, 0) if stuck else chances(model, cell, s)
            for state, p in (
                ((-s, stuck), turn),
                ((s, stuck), 1 - turn - plus - minus),
                ((1, True), plus),
                ((-1, True), minus),
            ):
                following[state] = following.get(state, 0) + weight * p
        law = following
    return _nonzero({s: law.get((s, False), 0) + law.get((s, True), 0) for s in (1, -1)})


def read(causes: Causes, cell, sign):
    """Law of what one read gives of a cell that holds `sign`."""
    law = {sign: Fraction(1)}
    for model in causes.reading:
        following: dict[int, Fraction] = {}
        for s, weight in law.items():
            turn, plus, minus = chances(model, cell, s)
            other = turn + (minus if s == 1 else plus)
            following[-s] = following.get(-s, 0) + weight * other
            following[s] = following.get(s, 0) + weight * (1 - other)
        law = following
    return _nonzero(law)


def _nonzero(law):
    return {key: p for key, p in law.items() if p}


def _joint(laws):
    """All values of independent parts, with their probabilities."""
    for values in product(*(law.items() for law in laws)):
        weight = Fraction(1)
        for _, p in values:
            weight *= p
        yield [value for value, _ in values], weight


def places_of(block, x):
    """The entries under a filter, position by position, in lists of windows; a dense block has one position."""
    if not isinstance(block, ConvBlock):
        return [[list(x)]]
    (channels, height, width), (rows, columns) = block.input_shape, block.kernel
    _, out_rows, out_columns = block.output_shape
    windows = []
    for i, j in product(range(out_rows), range(out_columns)):
        window = []
        for k, m in product(range(block.pool[0]), range(block.pool[1])):
            top = (i * block.pool[0] + k) * block.stride[0] - block.padding[0]
            left = (j * block.pool[1] + m) * block.stride[1] - block.padding[1]
            entries = []
            for c, r, s in product(range(channels), range(top, top + rows), range(left, left + columns)):
                inside = 0 <= r < height and 0 <= s < width
                entries.append(x[(c * height + r) * width + s] if inside else block.pad_value)
            window.append(entries)
        windows.append(window)
    return windows


def _sum_law(entries, signs, cells, weights, negated, causes):
    """Law of one sum, over all states of its reads."""
    law: dict[int, Fraction] = {}
    present = [i for i, w in enumerate(weights) if w]
    for seen, weight in _joint([read(causes, cells[i], signs[i]) for i in present]):
        total = sum((-s if negated else s) * entries[i] for s, i in zip(seen, present, strict=True))
        law[total] = law.get(total, 0) + weight
    return law


def row_laws(block, index, x, causes: Causes, outcome):
    """For each row: the law of what `outcome` makes of the laws of its sums (a list of windows) in a held state."""
    windows = places_of(block, x)
    found = []
    for j, weights in enumerate(rows_of(block)):
        negated = bool(getattr(block, "negated", [False] * len(block.weights))[j])
        cells = [(index, j, i) for i in range(len(weights))]
        programmed = [-w if negated else w for w in weights]
        law: dict[object, Fraction] = {}
        states = [held(causes, c, s) if s else {0: Fraction(1)} for c, s in zip(cells, programmed, strict=True)]
        for signs, weight in _joint(states):
            sums = [
                [_sum_law(entries, signs, cells, weights, negated, causes) for entries in window] for window in windows
            ]
            for value, p in outcome(j, sums).items():
                law[value] = law.get(value, 0) + weight * p
        found.append(law)
    return found


def _map_law(block, j, windows):
    """Law of the signs that one row gives, all windows in order."""
    every = isinstance(block, ConvBlock) and bool(block.conjunction[j])
    chances_of_window = []
    for window in windows:
        silent, fires = Fraction(1), Fraction(1)  # everywhere in the window
        for sums in window:
            p = sum((weight for total, weight in sums.items() if total >= int(block.thresholds[j])), Fraction(0))
            silent, fires = silent * (1 - p), fires * p
        p = fires if every else 1 - silent
        chances_of_window.append(_nonzero({1: p, -1: 1 - p}))
    return {tuple(signs): weight for signs, weight in _joint(chances_of_window)}


def error_probability(network, x, label, causes: Causes):
    """P(class != label), exact."""
    law = {tuple(int(v) for v in x): Fraction(1)}
    for b, block in enumerate(network.blocks):
        following: dict[tuple[int, ...], Fraction] = {}
        for h, weight in law.items():
            maps = row_laws(block, b, h, causes, lambda j, sums, block=block: _map_law(block, j, sums))
            for parts, p in _joint(maps):
                signs = tuple(s for part in parts for s in part)
                following[signs] = following.get(signs, 0) + weight * p
        law = following
    output, error = network.output, Fraction(0)
    for h, weight in law.items():
        rows = row_laws(output, len(network.blocks), h, causes, lambda j, sums: sums[0][0])
        for sums, p in _joint(rows):
            scores = [Fraction(a) * s + Fraction(b) for a, s, b in zip(output.scale, sums, output.bias, strict=True)]
            error += weight * p * (scores.index(max(scores)) != label)
    return error
