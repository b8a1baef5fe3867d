"""P(error | image) beyond one dense hidden block: certified intervals against Fractions over all flip patterns."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.errors import UnsupportedError
from bnnverify.faults import AsymmetricFlip, BitFlip, CellTable, PerBlock, PerCell, PerRead, StuckAt, cell_rates
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.packing import pack_signs
from bnnverify.reliability import error_probability, exact_error_probability
from bnnverify.reliability.convolutions import ConvStep
from bnnverify.reliability.patterns import Vectors, draw, new_stack
from bnnverify.reliability.probability import FaultyNetwork
from bnnverify.reliability.rounding import UNIT
from bnnverify.reliability.rows import fires_given, firing_roundings, flip_laws
from bnnverify.results import Kind
from tests import oracle, strategies

RATES = ["0", "1e-14", str(1 - Fraction(1, 10**14)), "1e-6", "1e-3", "0.1", "1/3", "1/2", "0.9", "1"]
rates = st.sampled_from(RATES)


@st.composite
def sign_models(draw):
    a, b = draw(rates), draw(rates)
    return draw(
        st.sampled_from([BitFlip(a), AsymmetricFlip(a, b), StuckAt(str(Fraction(a) / 2), str(Fraction(b) / 2))])
    )


@st.composite
def fault_models(draw, blocks):
    if draw(st.booleans()):
        return draw(sign_models())
    return PerBlock(tuple(draw(sign_models()) for _ in range(blocks)))


@st.composite
def cell_models(draw, network):
    tables = []
    for block in network.all_blocks:
        shape = block.stored.reshape(len(block.stored), -1).shape
        values = st.lists(rates, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
        p01, p10 = (np.array(draw(values), dtype=object).reshape(shape) for _ in range(2))
        tables.append(CellTable.create(p01, p10))
    return PerCell(tuple(tables))


@st.composite
def deep_cases(draw, **sizes):
    network = draw(strategies.networks(**sizes).filter(lambda net: len(net.blocks) > 1))
    x = draw(strategies.inputs(network.n_inputs))
    return network, x, draw(st.integers(0, network.n_classes - 1)), draw(fault_models(len(network.blocks) + 1))


@st.composite
def conv_cases(draw, max_cells):
    nets = strategies.conv_networks(max_inputs=6, max_outputs=10)
    network = draw(nets.filter(lambda net: net.has_convolutions and net.n_cells <= max_cells))
    x = draw(strategies.inputs(network.n_inputs))
    return network, x, draw(st.integers(0, network.n_classes - 1))


def over_all_patterns(network, x, label, faults):
    """P(class != label) over all 2^N flip patterns, each cell with its rate."""
    tables = [cell_rates(faults, b, block.stored) for b, block in enumerate(network.all_blocks)]
    cells = [
        (b, j, i, rates[index[j, i]]) for b, (rates, index) in enumerate(tables) for j, i in np.ndindex(index.shape)
    ]
    cells = [cell for cell in cells if cell[3] > 0]
    total = Fraction(0)
    for pattern in product((False, True), repeat=len(cells)):
        weight = Fraction(1)
        for flipped, (_, _, _, p) in zip(pattern, cells, strict=True):
            weight *= p if flipped else 1 - p
        if weight:
            flips = [cell for cell, flipped in zip(cells, pattern, strict=True) if flipped]
            if oracle.predicted(network, x, oracle.flipped_weights(network, flips)) != label:
                total += weight
    return total


def random_network(widths, seed):
    rng = np.random.default_rng(seed)
    blocks = [
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-2, 3, m), negated=rng.random(m) < 0.3)
        for n, m in pairwise(widths[:-1])
    ]
    output = OutputBlock.create(rng.choice([-1, 1], (widths[-1], widths[-2])), bias=rng.integers(-1, 2, widths[-1]))
    return BinaryNetwork(InputDomain.binary(widths[0]), tuple(blocks), output)


@settings(max_examples=150)
@given(
    deep_cases(max_inputs=6, max_width=5, max_blocks=4, max_classes=4),
    st.sampled_from([1e-15, 1e-6, 1e-2]),
    st.sampled_from([1, 2, 5, 4096]),
)
def test_several_hidden_blocks_have_an_interval_around_the_exact_probability(case, tolerance, max_states):
    network, x, label, faults = case
    answer = error_probability(network, x, label, faults, tolerance=tolerance, max_states=max_states)
    exact = exact_error_probability(network, x, label, faults)
    assert answer.lower <= exact <= answer.upper
    if max_states == 4096:
        assert float(answer.width) <= tolerance * 1.01 + 1e-11


@settings(max_examples=60)
@given(conv_cases(max_cells=10), st.data(), st.sampled_from([1, 4096]))
def test_convolutions_have_an_interval_around_the_sum_over_all_flip_patterns(case, data, max_states):
    network, x, label = case
    faults = data.draw(fault_models(len(network.blocks) + 1))
    answer = error_probability(network, x, label, faults, tolerance=1e-14, max_states=max_states)
    exact = oracle.error_probability(network, x, label, faults)
    assert answer.lower <= exact <= answer.upper
    if max_states == 4096:
        assert answer.width < 1e-11


@settings(max_examples=25)
@given(conv_cases(max_cells=8), st.data())
def test_cells_of_a_convolution_may_have_rates_of_their_own(case, data):
    network, x, label = case
    faults = data.draw(cell_models(network))
    answer = error_probability(network, x, label, faults, tolerance=1e-14)
    assert answer.lower <= over_all_patterns(network, x, label, faults) <= answer.upper
    assert answer.width < 1e-11


@settings(max_examples=60)
@given(st.data())
def test_cells_of_dense_blocks_may_have_rates_of_their_own(data):
    network = data.draw(strategies.networks(max_inputs=4, max_width=3, max_blocks=2, max_classes=3))
    x = data.draw(strategies.inputs(network.n_inputs))
    faults = data.draw(cell_models(network))
    answer = error_probability(network, x, 1, faults, tolerance=1e-14)
    assert answer.lower <= exact_error_probability(network, x, 1, faults) <= answer.upper
    assert answer.width < 1e-11


def one_read(block, x, rates):
    """P(+1) of every output of a convolution whose cells are read anew at every position; plain loops, Fractions."""
    (channels, height, width), (rows, columns) = block.input_shape, block.kernel
    _, out_rows, out_columns = block.output_shape
    down, across = block.pool
    chances = []
    for f, i, j in product(range(block.n_filters), range(out_rows), range(out_columns)):
        silent, fires = Fraction(1), Fraction(1)  # everywhere in the window
        for k, m in product(range(down), range(across)):
            top = (i * down + k) * block.stride[0] - block.padding[0]
            left = (j * across + m) * block.stride[1] - block.padding[1]
            law = {0: Fraction(1)}
            for c, r, s in product(range(channels), range(rows), range(columns)):
                y, z = top + r, left + s
                inside = 0 <= y < height and 0 <= z < width
                v = x[(c * height + y) * width + z] if inside else block.pad_value
                w, stored = int(block.weights[f, c, r, s]), int(block.stored[f, c, r, s])
                p = rates.plus if stored == 1 else rates.minus
                following = {}
                for total, weight in law.items():
                    for value, share in ((total + w * v, 1 - p), (total - w * v, p)):
                        following[value] = following.get(value, 0) + weight * share
                law = following
            here = sum((weight for total, weight in law.items() if total >= block.thresholds[f]), Fraction(0))
            silent, fires = silent * (1 - here), fires * here
        chances.append(fires if block.conjunction[f] else 1 - silent)
    return chances


@settings(max_examples=60)
@given(st.data(), st.booleans())
def test_positions_fail_independently_where_faults_are_fresh_at_every_read(data, integers):
    shape = data.draw(strategies.image_shapes(8))
    n = shape[0] * shape[1] * shape[2]
    block = data.draw(strategies.conv_blocks(shape, max_filters=2).filter(lambda b: b.n_outputs <= 6))
    output = data.draw(strategies.output_blocks(block.n_outputs, 3))
    domain = InputDomain.integers([-2] * n, [5] * n) if integers else InputDomain.binary(n)
    network = BinaryNetwork(domain, (block,), output)
    x = data.draw(st.lists(st.integers(-2, 5), min_size=n, max_size=n) if integers else strategies.inputs(n))
    faults = data.draw(sign_models())
    rest = BinaryNetwork(InputDomain.binary(block.n_outputs), (), output)
    exact, chances = Fraction(0), one_read(block, x, faults.rates(0))
    for signs in product((-1, 1), repeat=block.n_outputs):
        weight = Fraction(1)
        for h, chance in zip(signs, chances, strict=True):
            weight *= chance if h == 1 else 1 - chance
        if weight:
            exact += weight * exact_error_probability(rest, signs, 0, faults)
    answer = error_probability(network, x, 0, PerRead(faults), tolerance=1e-14)
    assert answer.lower <= exact <= answer.upper
    assert answer.width < 1e-11


def test_positions_share_what_is_permanent_also_under_faults_of_reading():
    block = ConvBlock.create([[[[1]]]], [0], input_shape=(1, 1, 2))
    # an error only where both positions turn: p where they share the cell, p^2 where each reads it anew
    network = BinaryNetwork(InputDomain.binary(2), (block,), OutputBlock.create([[1, 1], [-1, -1]], bias=[1, 0]))
    flips, none = PerBlock((BitFlip("0.1"), BitFlip(0))), BitFlip(0)

    def bounds(faults):
        answer = error_probability(network, [1, 1], 0, faults)
        return float(answer.lower), float(answer.upper)

    assert bounds(PerRead(none, permanent=flips)) == bounds(flips) == pytest.approx((0.1, 0.1))
    assert bounds(PerRead(flips, permanent=none)) == bounds(PerRead(flips)) == pytest.approx((0.01, 0.01))
    late = PerBlock((none, BitFlip("0.1")))  # a dense block reads each cell once
    assert bounds(PerRead(late, permanent=flips)) == bounds(BitFlip("0.1"))
    with pytest.raises(UnsupportedError, match=r"blocks\[0\] is a convolution with permanent faults and those of"):
        error_probability(network, [1, 1], 0, PerRead(BitFlip("0.1"), permanent=flips))


@pytest.mark.parametrize("x", [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [-1, 0, 1, 1]])
def test_an_input_of_zero_is_moved_by_no_flip(x):
    blocks = DenseBlock.create([[1, 1, 1, 1], [1, -1, 1, 1]], [1, 0]), DenseBlock.create([[1, -1]], [0])
    network = BinaryNetwork(InputDomain.integers([-1] * 4, [1] * 4), blocks, OutputBlock.create([[1], [-1]]))
    for faults in (BitFlip("0.1"), AsymmetricFlip("0.1", "0.2"), PerRead(BitFlip("0.3"))):
        answer = error_probability(network, x, 0, faults)
        assert answer.lower <= exact_error_probability(network, x, 0, faults) <= answer.upper


def test_large_integers_under_a_convolution_do_not_wrap_around():
    block = ConvBlock.create([[[[1]]]], [0], input_shape=(1, 1, 1))
    network = BinaryNetwork(InputDomain.integers([0], [2**40]), (block,), OutputBlock.create([[1], [-1]]))
    for value in (2**31 - 1, 2**31, 2**32, 2**40):
        answer = error_probability(network, [value], 0, PerBlock((BitFlip("0.1"), BitFlip(0))))
        assert answer.lower <= Fraction(1, 10) <= answer.upper


def test_a_convolution_deep_in_a_network_is_read_position_by_position():
    rng = np.random.default_rng(4)
    first = DenseBlock.create(rng.choice([-1, 1], (6, 3)), [0, 1, -1, 0, 1, 0])
    conv = ConvBlock.create(
        rng.choice([-1, 1], (1, 1, 2, 2)), [0], input_shape=(1, 2, 3), padding=1, pad_value=1, pool=(1, 2)
    )
    output = OutputBlock.create(rng.choice([-1, 1], (3, conv.n_outputs)))
    network, faults = BinaryNetwork(InputDomain.binary(3), (first, conv), output), AsymmetricFlip("0.1", "1e-3")
    exact, x = Fraction(0), (1, -1, 1)
    rest = BinaryNetwork(InputDomain.binary(conv.n_outputs), (), output)
    given_signs = {h: exact_error_probability(rest, h, 1, faults) for h in product((-1, 1), repeat=conv.n_outputs)}
    one = [_fires(row, t, x, faults) for row, t in zip(first.weights.tolist(), first.thresholds.tolist(), strict=True)]
    for before in product((-1, 1), repeat=6):
        weight = _product_law(one, before)
        chances = one_read(conv, before, faults.rates(0)) if weight else []
        exact += sum(weight * _product_law(chances, h) * error for h, error in given_signs.items()) if weight else 0
    answer = error_probability(network, x, 1, PerRead(faults), tolerance=1e-14)
    assert answer.lower <= exact <= answer.upper
    assert answer.width < 1e-10


def _fires(row, threshold, x, faults):
    total = Fraction(0)
    for flips in product((1, -1), repeat=len(row)):
        weight = Fraction(1)
        for w, e in zip(row, flips, strict=True):
            p = faults.p10 if w == 1 else faults.p01
            weight *= p if e == -1 else 1 - p
        total += weight if sum(w * e * v for w, e, v in zip(row, flips, x, strict=True)) >= threshold else 0
    return total


def _product_law(chances, signs):
    weight = Fraction(1)
    for chance, h in zip(chances, signs, strict=True):
        weight *= chance if h == 1 else 1 - chance
    return weight


@settings(max_examples=40)
@given(st.data())
def test_a_first_convolution_takes_integers(data):
    conv = data.draw(strategies.conv_blocks((1, 2, 3), max_filters=2).filter(lambda b: b.n_cells <= 6))
    output = data.draw(strategies.output_blocks(conv.n_outputs, 2).filter(lambda o: o.n_cells <= 8))
    network = BinaryNetwork(InputDomain.integers([-4] * 6, [9] * 6), (conv,), output)
    x = data.draw(st.lists(st.integers(-4, 9), min_size=6, max_size=6))
    faults = data.draw(sign_models())
    answer = error_probability(network, x, 1, faults, tolerance=1e-14)
    assert answer.lower <= over_all_patterns(network, x, 1, faults) <= answer.upper
    assert answer.width < 1e-11


@pytest.mark.parametrize("p", ["1e-14", "1e-4", "0.02", "0.3"])
def test_every_limit_gives_a_valid_interval_and_more_work_a_narrower_one(p):
    network = random_network((9, 7, 6, 6, 4), seed=3)
    x, label = (1, -1, 1) * 3, 2
    faulty, exact = FaultyNetwork(network, BitFlip(p)), exact_error_probability(network, x, label, BitFlip(p))
    widths = []
    for max_states in (1, 4, 16, 64, 1024):
        answer, run = faulty.answer(x, label, tolerance=1e-300, max_states=max_states)
        assert answer.lower <= exact <= answer.upper
        assert run.statistics["vectors"]
        widths.append(float(answer.width))
    assert widths[-1] <= min(widths) * 1.5 + 1e-14
    assert widths[-1] < 1e-9


@pytest.mark.parametrize("looks", range(0, 40, 3))
def test_an_interval_is_valid_whenever_the_clock_stops_it(looks):
    class Countdown:
        reason = "stopped"
        left = looks

        @property
        def is_over(self):
            self.left -= 1
            return self.left < 0

    network = random_network((10, 8, 8, 6, 3), seed=5)
    x, faults = (1, -1) * 5, AsymmetricFlip("0.05", "0.11")
    faulty, exact = FaultyNetwork(network, faults), exact_error_probability(network, x, 0, faults)
    answer, run = faulty.answer(x, 0, tolerance=1e-12, clock=Countdown())
    assert answer.lower <= exact <= answer.upper
    assert run.reason in ("stopped", "")


def test_no_time_at_all_still_gives_a_proof_with_the_reason():
    network = random_network((30, 20, 20, 10), seed=1)
    answer, run = FaultyNetwork(network, BitFlip("0.1")).answer([1] * 30, 0, seconds=1e-9)
    assert answer.kind is Kind.INTERVAL
    assert run.reason.startswith("time limit of 1e-09 s reached")


def test_a_limit_on_the_states_is_named_in_the_run():
    network = random_network((30, 40, 40, 10), seed=1)
    _, run = FaultyNetwork(network, BitFlip("0.1")).answer([1] * 30, 0, max_states=2)
    assert "32 sign vectors kept behind block" in run.reason
    assert len(run.statistics["left_out"]) == 2


def conv_network(seed, filters=6, size=8):
    rng = np.random.default_rng(seed)
    conv = ConvBlock.create(
        rng.choice([-1, 1], (filters, 1, 3, 3)), rng.integers(-2, 3, filters), input_shape=(1, size, size), pool=2
    )
    dense = DenseBlock.create(rng.choice([-1, 1], (12, conv.n_outputs)), rng.integers(-3, 4, 12))
    output = OutputBlock.create(rng.choice([-1, 1], (10, 12)))
    return BinaryNetwork(InputDomain.binary(size * size), (conv, dense), output)


@pytest.mark.parametrize("p", ["1e-3", "0.02"])
@pytest.mark.parametrize("model", [BitFlip, lambda p: PerRead(BitFlip(p)), lambda p: AsymmetricFlip(p, 0)])
def test_certified_intervals_of_convolutions_meet_monte_carlo(p, model):
    from bnnverify.engines.montecarlo import sample_errors

    network = conv_network(seed=2)
    images = np.random.default_rng(1).choice([-1, 1], (6, 64))
    labels, faults = network.evaluate_batch(images), model(p)
    sampled = sample_errors(network, images, labels, faults, samples=3000, seed=2, confidence=0.999)
    faulty = FaultyNetwork(network, faults)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        answer = faulty.error_probability(image, int(label), tolerance=1e-3, max_states=64)
        assert answer.lower <= sampled.image(i).upper and sampled.image(i).lower <= answer.upper


def test_flips_that_are_not_enumerated_keep_the_interval_open_and_the_run_says_so():
    network = conv_network(seed=7)
    faulty = FaultyNetwork(network, BitFlip("0.2"))
    answer, run = faulty.answer([1] * 64, 0, max_states=1)
    assert 0 < answer.width <= 1
    assert run.reason and max(run.statistics["left_out"]) > 0.1


@settings(max_examples=100)
@given(st.data())
def test_the_probability_that_a_row_fires_errs_by_no_more_than_its_roundings(data):
    counts = np.array(data.draw(st.lists(st.integers(0, 6), min_size=4, max_size=4)))
    cells = int(counts.sum())
    limit = data.draw(st.integers(-1, cells))
    plus, minus = (Fraction(data.draw(st.sampled_from(RATES))) for _ in range(2))
    hits = [plus] * counts[0] + [1 - plus] * counts[1] + [minus] * counts[2] + [1 - minus] * counts[3]
    law = {0: Fraction(1)}
    for p in hits:
        following = {}
        for d, weight in law.items():
            following[d] = following.get(d, 0) + weight * (1 - p)
            following[d + 1] = following.get(d + 1, 0) + weight * p
        law = following
    out = np.zeros(2)
    fires_given(limit, counts, flip_laws(plus, cells), flip_laws(minus, cells), out)
    exact = sum(w for d, w in law.items() if d <= limit), sum(w for d, w in law.items() if d > limit)
    for computed, true in zip(out.tolist(), exact, strict=True):
        assert abs(Fraction(computed) - true) <= true * firing_roundings(cells) * UNIT


@settings(max_examples=60)
@given(st.data())
def test_what_is_drawn_and_what_is_left_out_are_everything(data):
    parts = data.draw(st.integers(1, 4))
    threshold = data.draw(st.sampled_from([1e-1, 1e-3, 1e-200]))
    capacity = data.draw(st.sampled_from([1, 3, 1000]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    laws = [np.sort(rng.dirichlet(np.full(int(rng.integers(1, 5)), 0.3)))[::-1] for _ in range(parts)]
    named = [law if rng.random() < 0.5 or law.size == 1 else law[:-1] for law in laws]
    order = sorted(range(parts), key=lambda i: -(named[i][1] / named[i][0] if named[i].size > 1 else 0.0))
    first = np.array([named[i][0] for i in order])
    nameless = np.array([laws[i].sum() - named[i].sum() if named[i].size < laws[i].size else 0.0 for i in order])
    starts = np.cumsum([0, *(named[i].size - 1 for i in order)])
    masses = np.concatenate([named[i][1:] for i in order])
    rests = np.concatenate(
        [np.cumsum(np.append(t, named[i][:0:-1]))[:0:-1] for i, t in zip(order, nameless, strict=True)]
    )
    changes = np.array(
        [[(o + 1) << (3 * k)] for k, i in enumerate(order) for o in range(named[i].size - 1)], dtype=np.uint64
    )
    vectors = Vectors.empty(1, capacity)
    loops = first, starts, masses, rests, changes.reshape(-1, 1), nameless
    draw(0.5, np.zeros(1, dtype=np.uint64), loops, threshold, new_stack(parts, 1), vectors.loops)
    keys, drawn = vectors.by_mass()
    assert len(np.unique(keys)) == vectors.count <= capacity
    assert abs(drawn.sum() + vectors.open_mass[0] - 0.5) < 1e-12
    assert (drawn >= threshold).all()
    if capacity == 1000:
        likely = [np.prod(c) * 0.5 for c in product(*named)]
        assert vectors.count == sum(mass >= threshold * (1 + 1e-9) for mass in likely)


def test_the_maps_of_a_filter_are_those_of_its_flip_patterns():
    network = conv_network(seed=3, filters=1, size=4)
    conv, x = network.blocks[0], np.random.default_rng(0).choice([-1, 1], 16)
    rates, index = cell_rates(BitFlip("0.1"), 0, conv.stored)
    parts = ConvStep.of(conv, rates, index).parts(x, 9)
    expected = {}
    for flips in product((0, 1), repeat=9):
        rows = [[-w if e else w for w, e in zip(oracle.rows_of(conv)[0], flips, strict=True)]]
        key = int(pack_signs(oracle.convolved(conv, x.tolist(), rows))[0])
        expected[key] = expected.get(key, Fraction(0)) + Fraction(1, 10) ** sum(flips) * Fraction(9, 10) ** (
            9 - sum(flips)
        )
    found = {int(parts.modal[0]): parts.first[0]}
    found |= {int(parts.modal[0] ^ c[0]): m for c, m in zip(parts.changes, parts.masses, strict=True)}
    assert set(found) == set(expected)
    for key, mass in found.items():
        assert abs(Fraction(float(mass)) - expected[key]) <= expected[key] * parts.roundings * UNIT
