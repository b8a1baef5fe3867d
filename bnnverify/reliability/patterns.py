"""Sign vectors with their probabilities: equal ones merged, drawn from independent parts, most likely first (numba).

A block whose input is fixed is a list of independent *parts*: a neuron with its two signs, a filter with its output
maps. Every part has a most likely outcome, and the block's outcomes are those of all parts together. `draw` walks over
the outcomes whose probability is at least a threshold and adds up what it leaves out, without ever forming 1 - x: a
subtree is left out whole, and its probability is a product of nonnegative numbers.

References:
    Ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.packing import Words
from bnnverify.reliability.laws import FloatArray

_MOST_ADDITIONS = 64  # for each vector that there is room for


@dataclass(slots=True)
class Vectors:
    """Distinct sign vectors, packed, with their probabilities.

    Attributes:
        keys: Shape `(capacity, words)`.
        masses: Shape `(capacity,)`.
        slots: Hash table of places in `keys`; -1 where empty.
        totals: (vectors, additions that were made, additions after which nothing more is drawn).
        open_mass: Probability that was drawn but left out, in an array of one.
    """

    keys: Words
    masses: FloatArray
    slots: NDArray[np.int32]
    totals: NDArray[np.int64]
    open_mass: FloatArray

    @classmethod
    def empty(cls, words: int, capacity: int) -> Vectors:
        """Room for `capacity` vectors."""
        slots = np.full(1 << max(2 * capacity - 1, 1).bit_length(), -1, dtype=np.int32)
        keys, masses = np.empty((capacity, words), dtype=np.uint64), np.empty(capacity)
        return cls(keys, masses, slots, np.array([0, 0, _MOST_ADDITIONS * capacity]), np.zeros(1))

    @property
    def count(self) -> int:
        """Vectors."""
        return int(self.totals[0])

    @property
    def is_full(self) -> bool:
        """True if vectors may have been left out for want of room."""
        return self.count == len(self.masses) or bool(self.totals[1] >= self.totals[2])

    @property
    def loops(self) -> tuple[Any, ...]:
        """What the loops take."""
        return self.keys, self.masses, self.slots, self.totals, self.open_mass

    def by_mass(self) -> tuple[Words, FloatArray]:
        """Keys and masses, most likely first."""
        order = np.argsort(-self.masses[: self.count], kind="stable")
        return self.keys[order], self.masses[order]


@njit(nogil=True)
def add_vector(key, mass, keys, masses, slots, totals, open_mass):  # type: ignore[no-untyped-def]
    """Add `mass` to the vector `key`; where there is no room for a new one, to what is left open."""
    h = np.uint64(1469598103934665603)
    for w in range(key.shape[0]):
        h = (h ^ key[w]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    wrap = np.int64(slots.shape[0] - 1)
    slot = np.int64((h ^ (h >> np.uint64(32))) & np.uint64(wrap))
    totals[1] += 1
    while True:
        i = np.int64(slots[slot])
        if i < 0:
            count = totals[0]
            if count == keys.shape[0]:
                open_mass[0] += mass
                return
            slots[slot] = count
            for w in range(key.shape[0]):
                keys[count, w] = key[w]
            masses[count] = mass
            totals[0] = count + 1
            return
        same = True
        for w in range(key.shape[0]):
            if keys[i, w] != key[w]:
                same = False
                break
        if same:
            masses[i] += mass
            return
        slot = (slot + 1) & wrap


@njit(nogil=True)
def has_room(keys, totals):  # type: ignore[no-untyped-def]
    """True while more may be drawn."""
    return totals[0] < keys.shape[0] and totals[1] < totals[2]


@njit(nogil=True)
def draw(mass, modal, parts, threshold, stack, vectors):  # type: ignore[no-untyped-def]
    """Add the outcomes of independent parts whose probability times `mass` is at least `threshold` to `vectors`.

    Args:
        mass: Probability of the state that is continued.
        modal: Its most likely vector, packed.
        parts: Parts in falling order of the odds of their second outcome against the first: P(first outcome), shape
            `(n,)`; starts of the other outcomes, `(n + 1,)`; their probabilities, falling within a part;
            P(this outcome or a later one, or one that has no name); what each changes in the vector, `(outcomes,
            words)`; and P(some outcome that has no name) of each part.
        threshold: Least probability of an outcome that is drawn.
        stack: See `new_stack`.
        vectors: `Vectors.loops`.

    Adds what is left out to the open mass of `vectors`. Each product has one factor of each part, and at most
    ``4 * n + 4`` roundings beside theirs; the open mass sees one sum for each part and vector.
    """
    first, starts, masses, rests, changes, nameless = parts
    at, outcome, prefix, keys, whole, other = stack
    open_mass = vectors[4]
    n = first.shape[0]
    whole[n], other[n] = 1.0, 0.0  # P(parts i.. are all at their first outcome), P(some is not)
    for i in range(n - 1, -1, -1):
        whole[i] = whole[i + 1] * first[i]
        rest = rests[starts[i]] if starts[i] < starts[i + 1] else nameless[i]
        other[i] = rest + first[i] * other[i + 1]
    if mass * whole[0] < threshold:
        open_mass[0] += mass
        return
    add_vector(modal, mass * whole[0], *vectors)
    at[0], outcome[0], prefix[0], keys[0] = 0, starts[0], mass, modal
    depth = 0
    while depth >= 0:
        i, o = at[depth], outcome[depth]  # parts before i are settled; outcomes of i before o are done
        if i == n:
            depth -= 1
            continue
        if o < starts[i + 1]:
            share = prefix[depth] * masses[o]
            if share * whole[i + 1] >= threshold and has_room(vectors[0], vectors[3]):
                outcome[depth] = o + 1
                for w in range(modal.shape[0]):
                    keys[depth + 1, w] = keys[depth, w] ^ changes[o, w]
                depth += 1
                at[depth], prefix[depth] = i + 1, share
                outcome[depth] = starts[i + 1]
                add_vector(keys[depth], share * whole[i + 1], *vectors)
                continue
        if o == starts[i] and o < starts[i + 1]:
            open_mass[0] += prefix[depth] * other[i]  # later parts have smaller odds still
            depth -= 1
            continue
        open_mass[0] += prefix[depth] * (rests[o] if o < starts[i + 1] else nameless[i])
        prefix[depth] *= first[i]
        at[depth], outcome[depth] = i + 1, starts[i + 1]


def new_stack(parts: int, words: int) -> tuple[Any, ...]:
    """Scratch of `draw` and `draw_signs`."""
    n = parts + 2
    integers = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    return *integers, np.zeros(n), np.zeros((n, words), dtype=np.uint64), np.zeros(n), np.zeros(n)
