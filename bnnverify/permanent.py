"""Models of permanent faults: the rate of every cell by its stored sign, its block, or its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.rates import CellRates, CellTable, rate
from bnnverify.scalars import integer, integers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BitFlip:
    """Every cell flips independently with probability `p`."""

    p: Fraction

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", rate(self.p))

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block; `block` counts hidden blocks from 0, the output block comes last."""
        return CellRates(self.p, self.p)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "bit-flip", "p": str(self.p)}


@dataclass(frozen=True, slots=True)
class AsymmetricFlip:
    """A stored -1 reads +1 with probability `p01`, a stored +1 reads -1 with probability `p10`."""

    p01: Fraction
    p10: Fraction

    def __post_init__(self) -> None:
        object.__setattr__(self, "p01", rate(self.p01, "p01"))
        object.__setattr__(self, "p10", rate(self.p10, "p10"))

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block."""
        return CellRates(plus=self.p10, minus=self.p01)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "asymmetric-flip", "p01": str(self.p01), "p10": str(self.p10)}


@dataclass(frozen=True, slots=True)
class StuckAt:
    """A cell is stuck at +1 with probability `p_plus`, at -1 with probability `p_minus`, else as programmed."""

    p_plus: Fraction
    p_minus: Fraction

    def __post_init__(self) -> None:
        object.__setattr__(self, "p_plus", rate(self.p_plus, "p_plus"))
        object.__setattr__(self, "p_minus", rate(self.p_minus, "p_minus"))
        if self.p_plus + self.p_minus > 1:
            raise QueryError(f"p_plus + p_minus is {self.p_plus + self.p_minus}, expected at most 1.")

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block: only a cell stuck at the other sign reads wrong."""
        return CellRates(plus=self.p_minus, minus=self.p_plus)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "stuck-at", "p_plus": str(self.p_plus), "p_minus": str(self.p_minus)}


SignModel = BitFlip | AsymmetricFlip | StuckAt  # rates that depend on the stored sign only


@dataclass(frozen=True, slots=True)
class PerBlock:
    """A fault model of its own for each block: hidden blocks in order, then the output block."""

    models: tuple[SignModel, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(self.models))
        for i, model in enumerate(self.models):
            if not isinstance(model, SignModel):
                raise QueryError(f"models[{i}] is {model!r:.80}, expected BitFlip, AsymmetricFlip or StuckAt.")

    @classmethod
    def only(cls, model: SignModel, blocks: int | Iterable[int], *, of: int) -> PerBlock:
        """Faults in some blocks, none in the others.

        Args:
            model: The faults where there are any.
            blocks: The faulty block or blocks, hidden blocks from 0.
            of: Blocks of the network, output block included.

        >>> PerBlock.only(BitFlip("1e-3"), 1, of=2).models
        (BitFlip(p=Fraction(0, 1)), BitFlip(p=Fraction(1, 1000)))
        """
        count = integer(of, "of", least=1)
        faulty = set(integers([blocks] if np.ndim(blocks) == 0 else blocks, "blocks"))  # type: ignore[arg-type]
        if not faulty <= set(range(count)):
            raise QueryError(f"blocks names {sorted(faulty)}, expected some of the blocks 0 to {count - 1}.")
        return cls(tuple(model if b in faulty else BitFlip(Fraction(0)) for b in range(count)))

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block."""
        return block_of(self.models, block).rates(block)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "per-block", "models": [m.to_json() for m in self.models]}


def block_of(blocks: tuple[T, ...], block: int) -> T:
    """The part of a model that is about one block."""
    if not 0 <= block < len(blocks):
        raise QueryError(f"the fault model has {len(blocks)} blocks, but block {block} was asked for.")
    return blocks[block]


@dataclass(frozen=True, slots=True)
class PerCell:
    """Cells with rates of their own, independent but not identical.

    Attributes:
        blocks: For each block, the output block last, the table of its cells, or a model by stored sign.

    >>> faults = PerCell((CellTable.create([[0.1, 0.2]]), BitFlip(0)))
    >>> faults.rates(1).is_symmetric
    True
    """

    blocks: tuple[CellTable | SignModel, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        for i, model in enumerate(self.blocks):
            if not isinstance(model, CellTable | SignModel):
                raise QueryError(f"blocks[{i}] is {model!r:.80}, expected a CellTable, or a model such as BitFlip.")

    def rates(self, block: int) -> CellRates:
        """Rates of a block whose cells are all alike; UnsupportedError where they are not."""
        model = block_of(self.blocks, block)
        if not isinstance(model, CellTable):
            return model.rates(block)
        if len(model.rates) > 1:
            raise UnsupportedError(
                f"the cells of block {block} have {len(model.rates)} different rates, expected one for all of them. "
                "Use error_probability or exact_error_probability, which look at every cell."
            )
        return model.rates[0]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "per-cell", "blocks": [m.to_json() for m in self.blocks]}


PermanentModel = BitFlip | AsymmetricFlip | StuckAt | PerBlock | PerCell
