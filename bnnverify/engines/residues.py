"""Exact integers as machine words: one word modulo 2^64, or residues modulo primes below 2^31."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flint import fmpz
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Residues:
    """A number system for integers from 0 to below the product of the moduli.

    Attributes:
        moduli: Primes, or the single 0 that stands for 2^64. Sums and products of residues below 2^31 fit a word.
    """

    moduli: tuple[int, ...]

    @classmethod
    def up_to(cls, greatest: int) -> Residues:
        """Room for all integers from 0 to `greatest`.

        >>> Residues.up_to(2**64 - 1).moduli
        (0,)
        >>> system = Residues.up_to(10**30)
        >>> system.number(system.of(10**29 + 7)) == 10**29 + 7
        True
        """
        if greatest < 1 << 64:
            return cls((0,))
        primes, product, candidate = [], 1, (1 << 31) - 1
        while product <= greatest:
            if fmpz(candidate).is_prime():
                primes.append(candidate)
                product *= candidate
            candidate -= 2
        return cls(tuple(primes))

    @property
    def array(self) -> NDArray[np.uint64]:
        """The moduli for the loops."""
        return np.array(self.moduli, dtype=np.uint64)

    def of(self, number: int) -> NDArray[np.uint64]:
        """The residues of an integer."""
        return np.array([number % (m or 1 << 64) for m in self.moduli], dtype=np.uint64)

    def number(self, residues: NDArray[np.uint64]) -> int:
        """The integer with these residues."""
        if self.moduli == (0,):
            return int(residues[0])
        product = math.prod(self.moduli)
        total = 0
        for residue, m in zip(residues.tolist(), self.moduli, strict=True):
            rest = product // m
            total += residue * rest * pow(rest, -1, m)
        return total % product
