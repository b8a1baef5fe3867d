"""Whether a proof refutes clauses: each lemma must follow by unit propagation alone (RUP). No solver is trusted.

The proof is what `prooftext` reads. Lemmas are checked in order, each against all that is not deleted: assume that all
its literals are false, propagate, and arrive at a contradiction. A deletion can only take away from what follows, so
nothing has to be checked about it. Literals that are forced on their own stay forced for good, also where the clause
that forced them is deleted: they had been proved.

References:
    Reverse unit propagation: Goldberg & Novikov, DATE 2003; Van Gelder, ISAIM 2008. Two watched literals: Moskewicz et
    al., DAC 2001.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.checking.prooftext import Ints, Literals, Proof
from bnnverify.compilation import njit

_STEPS = 2000  # of the proof between two looks at the caller
_OPEN, _TRUE, _FALSE = 0, 1, 2
_GOES_ON, _REFUTED, _NOT_IMPLIED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Refutation:
    """What became of a proof.

    Attributes:
        holds: True if the clauses have no solution.
        lemmas: Lemmas that were checked.
        reason: Why it does not hold; empty if it does.
    """

    holds: bool
    lemmas: int
    reason: str = ""


def refutes(
    clauses: Sequence[Sequence[int]],
    proof: Proof,
    *,
    jobs: int = 1,
    look: Callable[[int, int], None] = lambda done, total: None,
) -> Refutation:
    """Checks that the proof refutes the clauses.

    Args:
        clauses: What must have no solution.
        proof: Lemmas and deletions.
        jobs: Threads. Each goes through the whole proof and checks its share of the lemmas, given all before them.
        look: Called now and then with the lines checked so far and their number; raises to stop.
    """
    sizes = np.fromiter((len(clause) for clause in clauses), dtype=np.int64, count=len(clauses))
    flat = np.fromiter((v for clause in clauses for v in clause), dtype=np.int32, count=int(sizes.sum()))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    most = int(np.abs(flat).max(initial=0))
    if proof.n_variables > most:
        return Refutation(False, 0, f"the proof names variable {proof.n_variables}, but the clauses go to {most}")
    states = [
        _State.empty(most, len(clauses) + proof.ends.size, flat.size + proof.literals.size) for _ in range(max(1, jobs))
    ]
    if any(_load(flat, starts, *state.parts) for state in states):
        return Refutation(True, 0)
    lines = proof.ends.size
    with ThreadPoolExecutor(len(states)) as pool:
        for start in range(0, lines, _STEPS):
            look(start, lines)
            stop = min(start + _STEPS, lines)
            lines_at = (proof.literals, proof.ends, proof.deletes, start, stop)
            parts = [(*lines_at, share, len(states), *state.parts) for share, state in enumerate(states)]
            found = list(pool.map(_run_part, parts))
            # what stands refuted rests on all lemmas before that line, so nobody may have found one of them wanting
            outcome, at = min(found, key=lambda pair: (pair[1], pair[0] == _REFUTED))
            lemmas = int(at - np.count_nonzero(proof.deletes[:at]))
            if outcome == _REFUTED:
                return Refutation(True, lemmas + 1)
            if outcome == _NOT_IMPLIED:
                return Refutation(False, lemmas, f"line {at + 1} of the proof does not follow by unit propagation")
    return Refutation(False, proof.n_lemmas, "the proof ends without a contradiction")


def _run_part(arguments: tuple[Any, ...]) -> tuple[int, int]:
    outcome, line = _run(*arguments)
    return int(outcome), int(line)


@dataclass(frozen=True, slots=True)
class _State:
    """Arrays of the loops. Literal v has the code 2 v, its negation 2 v + 1; clause c watches the first two of its own.

    Attributes:
        values: By code: open, true or false.
        trail: Codes that are true, in order; ``sizes[0]`` of them are true, ``sizes[1]`` propagated for good.
        heads: By code the first watch, or -1. Watch 2 c + k is the one of clause c at its place k.
        watches: By watch the next one of the same literal, and a code of the clause that may be true already.
        arena: Codes of all clauses.
        places: Where each clause begins and ends in the arena; both the same once it is deleted.
        buckets: By hash the first clause, or -1.
        chain: By clause the next of the same hash.
        sizes: Numbers of true codes, propagated codes, clauses, codes in the arena.
    """

    values: NDArray[np.int8]
    trail: Ints
    heads: Literals
    watches: Literals
    arena: Literals
    places: Ints
    hashes: NDArray[np.uint64]
    buckets: Ints
    chain: Ints
    sizes: Ints

    @classmethod
    def empty(cls, variables: int, clauses: int, literals: int) -> _State:
        codes = 2 * variables + 2
        slots = 1 << max(10, int(clauses).bit_length())
        return cls(
            values=np.zeros(codes, dtype=np.int8),
            trail=np.zeros(variables + 1, dtype=np.int64),
            heads=np.full(codes, -1, dtype=np.int32),
            watches=np.full((2 * clauses + 2, 2), -1, dtype=np.int32),
            arena=np.zeros(literals + 1, dtype=np.int32),
            places=np.zeros((clauses + 1, 2), dtype=np.int64),
            hashes=np.zeros(clauses + 1, dtype=np.uint64),
            buckets=np.full(slots, -1, dtype=np.int64),
            chain=np.full(clauses + 1, -1, dtype=np.int64),
            sizes=np.zeros(4, dtype=np.int64),
        )

    @property
    def parts(self) -> tuple[NDArray[np.generic], ...]:
        """What the loops take."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


@njit
def _code(literal):  # type: ignore[no-untyped-def]
    return 2 * literal if literal > 0 else 1 - 2 * literal


@njit
def _assign(code, values, trail, sizes):  # type: ignore[no-untyped-def]
    values[code] = _TRUE
    values[code ^ 1] = _FALSE
    trail[sizes[0]] = code
    sizes[0] += 1


@njit
def _propagate(front, values, trail, heads, watches, arena, places, sizes):  # type: ignore[no-untyped-def]
    """Makes true what follows from the trail; whether that contradicts itself."""
    while front < sizes[0]:
        false = trail[front] ^ 1
        front += 1
        before, watch = -1, heads[false]
        while watch >= 0:
            after = watches[watch, 0]
            if values[watches[watch, 1]] == _TRUE:
                before, watch = watch, after
                continue
            clause, place = watch >> 1, watch & 1
            begin, end = places[clause, 0], places[clause, 1]
            gone = begin == end  # deleted
            if not gone:
                other = arena[begin + 1 - place]
                if values[other] != _TRUE:
                    for k in range(begin + 2, end):
                        code = arena[k]
                        if values[code] != _FALSE:
                            arena[k] = false
                            arena[begin + place] = code
                            watches[watch, 0] = heads[code]
                            watches[watch, 1] = other
                            heads[code] = watch
                            gone = True
                            break
                    if not gone:
                        if values[other] == _FALSE:
                            return True
                        _assign(other, values, trail, sizes)
            if gone:
                if before < 0:
                    heads[false] = after
                else:
                    watches[before, 0] = after
            else:
                watches[watch, 1] = other
                before = watch
            watch = after
    return False


@njit
def _hash(literals, begin, end):  # type: ignore[no-untyped-def]
    """The same number for the same literals in any order."""
    total, mixed = np.uint64(0), np.uint64(0)
    for k in range(begin, end):
        x = np.uint64(_code(literals[k])) * np.uint64(0x9E3779B97F4A7C15)
        x ^= x >> np.uint64(29)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(32)
        total += x
        mixed ^= x
    return total * np.uint64(31) + mixed


@njit
def _add(  # type: ignore[no-untyped-def]
    literals, begin, end, values, trail, heads, watches, arena, places, hashes, buckets, chain, sizes
):
    """Adds a clause that holds; whether all is contradictory then."""
    clause, at = sizes[2], sizes[3]
    length = 0
    is_settled = False
    for k in range(begin, end):
        code = _code(literals[k])
        if values[code] == _TRUE:
            is_settled = True  # for good: it can never force anything
            break
        if values[code] == _FALSE:
            continue
        is_new = True
        for j in range(at, at + length):
            if arena[j] == code:
                is_new = False
            elif arena[j] == code ^ 1:
                is_settled = True
        if is_new:
            arena[at + length] = code
            length += 1
    if is_settled:
        return False
    if length == 0:
        return True
    if length == 1:
        _assign(arena[at], values, trail, sizes)
        conflict = _propagate(sizes[1], values, trail, heads, watches, arena, places, sizes)
        sizes[1] = sizes[0]
        return conflict
    places[clause, 0], places[clause, 1] = at, at + length
    for place in range(2):
        code = arena[at + place]
        watches[2 * clause + place, 0] = heads[code]
        watches[2 * clause + place, 1] = arena[at + 1 - place]
        heads[code] = 2 * clause + place
    value = _hash(literals, begin, end)
    bucket = np.int64(value & np.uint64(buckets.size - 1))
    hashes[clause] = value
    chain[clause] = buckets[bucket]
    buckets[bucket] = clause
    sizes[2] += 1
    sizes[3] += length
    return False


@njit
def _load(  # type: ignore[no-untyped-def]
    flat, starts, values, trail, heads, watches, arena, places, hashes, buckets, chain, sizes
):
    """Adds the clauses; whether they contradict by propagation alone."""
    for c in range(starts.size - 1):
        if _add(
            flat, starts[c], starts[c + 1],
            values, trail, heads, watches, arena, places, hashes, buckets, chain, sizes,
        ):  # fmt: skip
            return True
    return False


@njit(nogil=True)
def _run(  # type: ignore[no-untyped-def]
    literals, ends, deletes, start, stop, share, shares,
    values, trail, heads, watches, arena, places, hashes, buckets, chain, sizes,
):  # fmt: skip
    """Outcome, and the line where it was clear."""
    for line in range(start, stop):
        begin, end = (ends[line - 1] if line > 0 else 0), ends[line]
        if deletes[line]:
            value = _hash(literals, begin, end)
            bucket = np.int64(value & np.uint64(buckets.size - 1))
            before, clause = -1, buckets[bucket]
            while clause >= 0 and hashes[clause] != value:
                before, clause = clause, chain[clause]
            if clause >= 0:
                places[clause, 1] = places[clause, 0]  # its watches go when they are met
                if before < 0:
                    buckets[bucket] = chain[clause]
                else:
                    chain[before] = chain[clause]
            continue
        implied = line % shares != share  # if so, another thread checks it
        for k in range(begin, end):
            if implied:
                break
            code = _code(literals[k])
            if values[code] == _TRUE:
                implied = True
                break
            if values[code] == _OPEN:
                _assign(code ^ 1, values, trail, sizes)
        if not implied:
            implied = _propagate(sizes[1], values, trail, heads, watches, arena, places, sizes)
        for k in range(sizes[1], sizes[0]):
            values[trail[k]] = _OPEN
            values[trail[k] ^ 1] = _OPEN
        sizes[0] = sizes[1]
        if not implied:
            return _NOT_IMPLIED, line
        if _add(
            literals, begin, end,
            values, trail, heads, watches, arena, places, hashes, buckets, chain, sizes,
        ):  # fmt: skip
            return _REFUTED, line
    return _GOES_ON, stop
