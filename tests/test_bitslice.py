"""Bit-sliced loops and their tables, bit by bit against sums in numpy and definitions in plain loops."""

import math
from itertools import combinations

import numpy as np
import pytest
from flint import fmpz
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from bnnverify import simd
from bnnverify.engines import tails
from bnnverify.engines.bitslice import TILES, at_least, count_rows
from bnnverify.engines.plan import Plan
from bnnverify.engines.residues import Residues
from bnnverify.engines.tails import binomial_table, ends, setting_tail, subset_tail


@njit  # not cached: a cached loop does not notice that an intrinsic has changed
def every_operation(words, other, bytes_a, bytes_b, short_a, short_b, out, short_out, facts):
    words_at, bytes_at, out_at, short_at = (
        simd.address(words), simd.address(bytes_a), simd.address(out), simd.address(short_out),
    )  # fmt: skip
    simd.prefetch(words_at, 3)
    a, b = simd.vload(words_at, 8), simd.vload(simd.address(other), 0)
    simd.vstore(out_at, 0, simd.vand(a, b))
    simd.vstore(out_at, 8, simd.vor(a, b))
    simd.vstore(out_at, 16, simd.vxor(a, b))
    simd.vstore(out_at, 24, simd.vadd(a, b))
    simd.vstore(out_at, 32, simd.vpopcount(a))
    simd.vstore(out_at, 40, simd.vsplat(words[8]))
    facts[0] = simd.vany(a)
    facts[1] = simd.vany(simd.vxor(a, a))
    x, y = simd.bload(bytes_at, 64), simd.bload(simd.address(bytes_b), 0)
    facts[2], facts[3] = simd.bgreater_equal(x, y), simd.bless(x, y)
    facts[4] = simd.trailing_zeros(words[8])
    simd.store(simd.address(facts), 5, simd.load(words_at, 9))
    simd.bstore(bytes_at, 0, simd.badd(x, y))
    s, t = simd.hload(simd.address(short_a), 16), simd.hload(simd.address(short_b), 0)
    simd.hstore(short_at, 0, simd.hadd(s, t))
    simd.hstore(short_at, 16, simd.hmin(s, t))
    simd.hstore(short_at, 32, simd.hmax(s, t))


@given(st.integers(0, 2**32))
@settings(max_examples=50)
def test_vectors_do_what_numpy_does(seed):
    generator = np.random.default_rng(seed)
    words, other = (generator.integers(0, 2**64, 16, dtype=np.uint64) for _ in range(2))
    words[8] <<= np.uint64(seed % 64)
    words[8] |= np.uint64(1 << 63)
    a, b = (generator.integers(-128, 128, 128, dtype=np.int8) for _ in range(2))
    a[64:70] = b[:6]
    s, t = (generator.integers(-128, 128, 32, dtype=np.int8) for _ in range(2))
    out, short, facts = np.zeros(48, dtype=np.uint64), np.zeros(48, dtype=np.int8), np.zeros(6, dtype=np.uint64)
    every_operation(words, other, a, b, s, t, out, short, facts)
    w, o, x, y = words[8:], other[:8], a[64:], b[:64]
    expected = (w & o, w | o, w ^ o, w + o, [int(v).bit_count() for v in w.tolist()], [w[0]] * 8)
    assert (out.reshape(6, 8) == np.array(expected, dtype=np.uint64)).all()
    low = int(w[0])
    comparisons = [sum(1 << i for i in range(64) if hits[i]) for hits in (x >= y, x < y)]
    assert facts.tolist() == [1, 0, *comparisons, (low & -low).bit_length() - 1, int(w[1])]
    assert (a[:64] == x + y).all()
    assert (short.reshape(3, 16) == [s[16:] + t[:16], np.minimum(s[16:], t[:16]), np.maximum(s[16:], t[:16])]).all()


def bits_of(words):
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little").astype(np.int64)


def random_rows(generator, rows, row_words, shares):
    """Rows of words with about these shares of set bits, at shuffled places behind 16 words of junk."""
    bits = generator.random((rows, 64 * row_words)) < np.asarray(shares)[:, None]
    packed = np.packbits(bits, axis=1, bitorder="little").view(np.uint64)
    order = generator.permutation(rows)
    source = generator.integers(0, 2**64, 16 + rows * row_words, dtype=np.uint64)
    places = 16 + np.argsort(order) * row_words
    source[16:] = packed[order].ravel()
    return source, places.astype(np.int64), packed


def at(array):
    """Address of an array that stays alive."""
    return array.ctypes.data


def sums_of(packed, plus, shift, tiles):
    bits = bits_of(packed[:, shift : shift + 8 * tiles])
    return bits[:plus].sum(axis=0) + (1 - bits[plus:]).sum(axis=0)


def counts_at_least(seed, plus, minus, need, tiles, shift):
    """Whether `at_least` is right on random rows whose sums are often close to `need`."""
    generator, n = np.random.default_rng(seed), plus + minus
    share = need / (n + 1)
    source, places, packed = random_rows(generator, n, 8 * (shift + tiles), [share] * plus + [1 - share] * minus)
    out = np.full(8 * (tiles + 2), 7, dtype=np.uint64)
    before = [99, 98]  # entries of the list that belong to others
    rows = np.array([*before, *places], dtype=np.int64)
    digits = np.zeros(8 * 24, dtype=np.uint64)
    at_least(at(source), at(rows), len(before), plus, minus, need, 8 * shift, tiles, at(out), 8, at(digits))
    assert (out[:8] == 7).all() and (out[8 * (tiles + 1) :] == 7).all()
    expected = sums_of(packed, plus, 8 * shift, tiles) >= need
    assert (bits_of(out[8 : 8 * (tiles + 1)]) == expected).all()


@settings(max_examples=100)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))), st.data())
def test_at_least_compares_sums_of_rows_with_a_number(sizes, data):
    n, plus, need = sizes
    tiles, shift = data.draw(st.integers(1, TILES)), data.draw(st.integers(0, 2))
    counts_at_least(data.draw(st.integers(0, 999)), plus, n - plus, need, tiles, shift)


def test_at_least_is_right_for_every_number_of_few_rows():
    for n in range(1, 15):
        for need in range(1, n + 1):
            for plus in range(n + 1):
                counts_at_least(n, plus, n - plus, need, 1, 0)


@pytest.mark.parametrize("n", [8, 15, 16, 63, 64, 65, 127, 128, 129, 200])
def test_at_least_is_right_where_the_width_of_its_counter_changes(n):
    for need in sorted({k for edge in (1, 8, 64, n - 63, n - 7, n) for k in (edge - 1, edge, edge + 1)}):
        if 1 <= need <= n:
            counts_at_least(need, n // 3, n - n // 3, need, 2, 1)


@settings(max_examples=100)
@given(st.integers(0, 200), st.integers(0, 2**32), st.data())
def test_count_rows_adds_rows_to_a_number(n, seed, data):
    plus, initial = data.draw(st.integers(0, n)), data.draw(st.integers(0, 60))
    tiles, shift = data.draw(st.integers(1, TILES)), data.draw(st.integers(0, 2))
    width = max(1, (n + initial).bit_length()) + data.draw(st.integers(0, 2))
    generator = np.random.default_rng(seed)
    source, places, packed = random_rows(generator, n, 8 * (shift + tiles), generator.random(n))
    out = np.full(8 * (1 + tiles * (width + 1)), 7, dtype=np.uint64)
    count_rows(at(source), at(places), 0, plus, n - plus, initial, width, 8 * shift, tiles, at(out), 8)
    vectors = out[8:].reshape(tiles, width + 1, 8)
    assert (out[:8] == 7).all() and (vectors[:, 0] == 7).all()
    digits = bits_of(vectors[:, 1:])  # (tiles, width, 512)
    totals = (digits << np.arange(width)[None, :, None]).sum(axis=1).ravel()
    expected = initial + (sums_of(packed, plus, 8 * shift, tiles) if n else 0)
    assert (totals == expected).all()


# Tables of tails


def make_tail_plan(seed, free, neurons, *, masked):
    """Only what tails look at: what flips add."""
    generator = np.random.default_rng(seed)
    words = max(1, -(-neurons // 64))
    deltas = np.zeros((free, 64 * words), dtype=np.int8)
    deltas[:, :neurons] = generator.choice([-1, 0, 1] if masked else [-1, 1], (free, neurons))
    is_masked = bool((deltas[:, :neurons] == 0).any())
    margins = np.zeros(64 * words, dtype=np.int8)
    return Plan(margins, deltas, neurons, (), (0, 1), free, is_masked, (neurons,))


def row_bits(tail, neuron, level):
    """The row of a neuron whose margin is `level` below its upper bound."""
    first = int(tail.base[neuron]) + ((level + tail.divisor - 1) // tail.divisor - 1) * tail.row_words
    return bits_of(tail.table[first : first + tail.row_words])


def ends_with_constants(tail, neurons):
    first = int(tail.base[neurons])
    zeros, ones = tail.table[first : first + tail.row_words], tail.table[first + tail.row_words :]
    return not zeros.any() and ones.size >= tail.row_words and bool((ones == np.uint64(2**64 - 1)).all())


def test_runs_of_bits_are_put_at_any_place():
    generator = np.random.default_rng(0)
    source = generator.integers(0, 2**64, 8, dtype=np.uint64)
    bits = bits_of(source[2:])
    for place in range(130):
        for length in (1, 2, 63, 64, 65, 127, 128, 200):
            target, filled = np.zeros(8, dtype=np.uint64), np.zeros(8, dtype=np.uint64)
            tails._append(target, place, source, 2, length)
            assert (bits_of(target)[place : place + length] == bits[:length]).all()
            assert bits_of(target).sum() == bits[:length].sum()
            tails._fill(filled, place, length)
            assert bits_of(filled)[place : place + length].all() and bits_of(filled).sum() == length


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("flips", "free"), [(0, 3), (1, 1), (1, 100), (2, 2), (2, 12), (2, 40), (3, 3), (3, 17), (4, 4), (4, 13), (5, 9)]
)
def test_a_tail_of_subsets_has_every_sign(flips, free, masked):
    neurons = 3
    plan = make_tail_plan(flips, free, neurons, masked=masked)
    tail = subset_tail(plan, flips, free)
    assert tail.sizes.tolist() == [math.comb(free, flips)] and ends_with_constants(tail, neurons)
    assert (tail.upper == flips).all() and (tail.lower == -flips).all()
    subsets = sorted(combinations(range(free), flips), key=lambda chosen: chosen[::-1])  # distances from the end
    for j in range(neurons):
        nets = [sum(int(plan.deltas[free - 1 - q, j]) for q in chosen) for chosen in subsets]
        for level in range(1, 2 * flips + 1):
            margin = flips - level
            expected = [margin + net >= 0 for net in nets]
            assert row_bits(tail, j, level)[: len(subsets)].tolist() == expected


def test_the_first_subsets_of_a_tail_are_those_of_the_last_inputs():
    plan = make_tail_plan(0, 20, 2, masked=False)
    for flips in (1, 2, 3):
        long = subset_tail(plan, flips, 20)
        for few in range(flips, 20, 5):
            short, bits = subset_tail(plan, flips, few), math.comb(few, flips)
            for level in range(1, 2 * flips + 1):
                assert (row_bits(long, 1, level)[:bits] == row_bits(short, 1, level)[:bits]).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("by_flips", [False, True])
@pytest.mark.parametrize("inputs", [0, 1, 2, 5, 9, 10, 13])
def test_a_tail_of_settings_has_every_sign(inputs, by_flips, masked):
    neurons, free = 3, 15
    plan = make_tail_plan(inputs, free, neurons, masked=masked)
    chosen = np.random.default_rng(1).permutation(free)[:inputs].astype(np.int64)
    tail = setting_tail(plan, chosen, by_flips=by_flips)
    numbers = range(1 << inputs)
    groups = [[v for v in numbers if v.bit_count() == k] for k in range(inputs + 1)] if by_flips else [list(numbers)]
    assert tail.sizes.tolist() == [len(group) for group in groups] and ends_with_constants(tail, neurons)
    assert (tail.firsts % 8 == 0).all() and tail.row_words % 8 == 0
    for j in range(neurons):
        moves = [int(plan.deltas[i, j]) for i in chosen]
        nets = [0]
        for move in moves:
            nets += [net + move for net in nets]
        upper, lower = moves.count(-1), -moves.count(1)
        assert (tail.upper[j], tail.lower[j]) == (upper, lower)
        for level in range(1, upper - lower + 1):
            bits = row_bits(tail, j, level)
            for first, group in zip(tail.firsts.tolist(), groups, strict=True):
                expected = [upper - level + nets[v] >= 0 for v in group]
                assert bits[64 * first : 64 * first + len(group)].tolist() == expected


def test_row_b_of_the_ends_has_its_first_b_bits_set():
    assert (bits_of(ends().reshape(513, 8)).sum(axis=1) == np.arange(513)).all()
    assert all(bits_of(ends()[8 * b : 8 * b + 8])[:b].all() for b in (1, 63, 64, 65, 511, 512))


def test_binomials_are_exact_as_far_as_a_word_goes():
    table = binomial_table(70, 35)
    assert table[66, 33] == math.comb(66, 33) and table[5, 7] == 0
    assert table[70, 35] == 2**63 - 1 < math.comb(70, 35)


# Integers as residues


@given(st.integers(0, 2**400), st.data())
def test_an_integer_comes_back_from_its_residues(greatest, data):
    system = Residues.up_to(greatest)
    number = data.draw(st.integers(0, greatest))
    assert system.number(system.of(number)) == number
    assert system.number(system.of(greatest)) == greatest
    if system.moduli != (0,):
        assert all(m < 2**31 and fmpz(m).is_prime() for m in system.moduli)
        assert len(set(system.moduli)) == len(system.moduli) and math.prod(system.moduli) > greatest


@given(st.integers(0, 2**90), st.integers(0, 2**90))
def test_residues_add_and_multiply_in_words(a, b):
    system = Residues.up_to(max(a + b, a * b))
    left, right, moduli = system.of(a), system.of(b), system.array
    if system.moduli == (0,):
        assert (system.number(left + right), system.number(left * right)) == (a + b, a * b)
    else:
        assert system.number((left + right) % moduli) == a + b
        assert system.number(left * right % moduli) == a * b


def test_2_to_the_64_is_the_first_number_that_needs_primes():
    assert Residues.up_to(2**64 - 1).moduli == (0,)
    assert len(Residues.up_to(2**64).moduli) == 3


def test_the_product_of_the_moduli_needs_one_more():
    product = math.prod(Residues.up_to(2**80).moduli)
    assert len(Residues.up_to(product - 1).moduli) == 3
    system = Residues.up_to(product)
    assert system.number(system.of(product)) == product
