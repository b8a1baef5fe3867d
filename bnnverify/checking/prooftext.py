"""Proofs as text, as SAT solvers write them (DRUP): a lemma per line, literals and a final 0.

Lines that start with ``d`` delete a clause.

References:
    DRUP: Heule, Hunt & Wetzler, FMCAD 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.errors import FormatError

Ints = NDArray[np.int64]
Literals = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Proof:
    """The lines of a proof.

    Attributes:
        literals: Of all lines, one after the other.
        ends: Where each line ends among the literals.
        deletes: True where the line deletes a clause.
        n_variables: Highest variable.
    """

    literals: Literals
    ends: Ints
    deletes: NDArray[np.bool_]
    n_variables: int

    @property
    def n_lemmas(self) -> int:
        """Lines that are not deletions."""
        return int(self.deletes.size - np.count_nonzero(self.deletes))


def parse_proof(text: bytes, where: str = "proof") -> Proof:
    """The lines of a proof in text.

    Raises:
        FormatError: Something that is neither a number, nor ``d``, nor white space; or a last line that does not end.
    """
    data = np.frombuffer(text, dtype=np.uint8)
    room = int(np.count_nonzero(data == ord("0")) + np.count_nonzero(data == ord(" ")) + data.size // 2 + 2)
    literals = np.empty(room, dtype=np.int32)
    ends = np.empty(room, dtype=np.int64)
    deletes = np.zeros(room, dtype=np.bool_)
    count, lines, bad = _parse(data, literals, ends, deletes)
    if bad >= 0:
        line = text[:bad].count(b"\n") + 1
        raise FormatError(
            f"{where}:{line}: found {text[bad : bad + 12]!r}, expected literals, a final 0 and maybe a d."
        )
    kept = literals[:count]
    return Proof(kept, ends[:lines], deletes[:lines], int(np.abs(kept).max(initial=0)))


@njit
def _parse(data, literals, ends, deletes):  # type: ignore[no-untyped-def]
    """Numbers of literals and lines, and the place of the first mistake or -1."""
    count, lines, i, n = 0, 0, 0, data.size
    is_open = False
    while i < n:
        c = data[i]
        if c == 32 or c == 10 or c == 13 or c == 9:
            i += 1
        elif c == 100:
            if is_open or deletes[lines]:
                return count, lines, i
            deletes[lines] = True
            i += 1
        elif c == 45 or 48 <= c <= 57:
            begin, sign = i, 1
            if c == 45:
                sign = -1
                i += 1
            number, digits = 0, 0
            while i < n and 48 <= data[i] <= 57:
                number = number * 10 + data[i] - 48
                digits += 1
                i += 1
            if digits == 0 or digits > 9:
                return count, lines, begin
            if number == 0:
                ends[lines] = count
                lines += 1
                is_open = False
            else:
                literals[count] = sign * number
                count += 1
                is_open = True
        else:
            return count, lines, i
    if is_open or deletes[lines]:
        return count, lines, n
    return count, lines, -1
