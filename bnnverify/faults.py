"""Fault models: how stored weights go wrong, as exact rates per cell.

Each unmasked weight is one cell. A model gives each cell, by its *stored* sign and its place, the probability
that it reads as the opposite sign; cells are independent. Faults are permanent, drawn once when a chip is
programmed, one draw is one chip, except under `PerRead`, which draws anew at every read. Rates are Fractions
(`rates.rate`).

- by stored sign, everywhere: `BitFlip`, `AsymmetricFlip`, `StuckAt`; by block: `PerBlock`, `PerBlock.only`;
- cell by cell, independent but not identical: `PerCell`; fresh at every read: `PerRead`;
- what becomes of rates: `write_verified`, `in_series` (write, then retention, then read), `mapped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.permanent import (
    AsymmetricFlip,
    BitFlip,
    PerBlock,
    PerCell,
    PermanentModel,
    SignModel,
    StuckAt,
    block_of,
)
from bnnverify.rates import CellRates, CellTable, after_write_verify, compose, log_grid, one_channel, rate

__all__ = [
    "AsymmetricFlip",
    "BitFlip",
    "CellRates",
    "CellTable",
    "FaultModel",
    "PerBlock",
    "PerCell",
    "PerRead",
    "PermanentModel",
    "SignModel",
    "StuckAt",
    "after_write_verify",
    "cell_rates",
    "compose",
    "fault_model_from_json",
    "in_series",
    "is_per_cell",
    "log_grid",
    "mapped",
    "positions_share",
    "rate",
    "require_blocks",
    "write_verified",
]


@dataclass(frozen=True, slots=True)
class PerRead:
    """Transient faults: fresh ones at every read of a cell, on top of permanent ones.

    What one image meets has the same rates as permanent faults, so for dense blocks P(error | image) is the same. A
    convolution reads its cells once for every position, so its positions fail independently. Images are independent
    if nothing is permanent.

    Where permanent faults and those of reading meet in one convolution, P(error | image) is not served
    (`UnsupportedError`): its positions share the first and not the second. Whole chips can be sampled.

    Attributes:
        model: What a read gets wrong.
        permanent: Faults that stay, which the reads see; None for none. Stuck cells are read wrong as often as others.
    """

    model: SignModel | PerBlock | PerCell
    permanent: SignModel | PerBlock | PerCell | None = None

    def __post_init__(self) -> None:
        for name in ("model", "permanent"):
            value = getattr(self, name)
            if not isinstance(value, SignModel | PerBlock | PerCell) and not (name == "permanent" and value is None):
                raise QueryError(f"{name} is {value!r:.80}, expected a model of permanent faults such as BitFlip.")

    @property
    def single(self) -> SignModel | PerBlock | PerCell:
        """The permanent faults with the rates of one read."""
        return self.model if self.permanent is None else _permanent_series((self.permanent, self.model))

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block at one read."""
        return self.single.rates(block)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        permanent = None if self.permanent is None else self.permanent.to_json()
        return {"kind": "per-read", "model": self.model.to_json(), "permanent": permanent}


FaultModel = PermanentModel | PerRead


def require_blocks(faults: FaultModel, blocks: int) -> None:
    """QueryError if the model names its blocks one by one and they are not `blocks`, the output block included."""
    single = faults.single if isinstance(faults, PerRead) else faults
    named = single.models if isinstance(single, PerBlock) else single.blocks if isinstance(single, PerCell) else None
    if named is not None and len(named) != blocks:
        raise QueryError(f"the fault model has {len(named)} blocks, but the network has {blocks}, the output included.")


def is_per_cell(faults: FaultModel) -> bool:
    """True if cells of one block and stored sign may have different rates, so that `rates` may not answer."""
    single = faults.single if isinstance(faults, PerRead) else faults
    return isinstance(single, PerCell) and any(isinstance(m, CellTable) and len(m.rates) > 1 for m in single.blocks)


def cell_rates(
    faults: FaultModel, block: int, stored: NDArray[np.int8]
) -> tuple[tuple[Fraction, ...], NDArray[np.intp]]:
    """The rate of every cell of a block, under any model.

    Args:
        faults: The fault model; of `PerRead` what one read meets.
        block: Number of the block.
        stored: `block.stored`: signs that the cells hold, 0 where there is no cell; the first axis is the row.

    Returns:
        Rates that may occur, and for each cell which of them it has, shape `(rows, cells of a row)`; rate 0 where there
        is no cell.

    Raises:
        QueryError: A table of cells has another shape.

    >>> cell_rates(AsymmetricFlip(p01="1/5", p10="1/7"), 0, np.array([[1, -1, 0]]))
    ((Fraction(0, 1), Fraction(1, 7), Fraction(1, 5)), array([[1, 2, 0]]))
    """
    signs = stored.reshape(len(stored), -1)
    single = faults.single if isinstance(faults, PerRead) else faults
    model = block_of(single.blocks, block) if isinstance(single, PerCell) else single
    if isinstance(model, CellTable):
        kinds, index = model.rates, model.index
        if index.shape != signs.shape:
            raise QueryError(
                f"the rates of block {block} have shape {index.shape}, expected that of its cells, {signs.shape}."
            )
    else:
        kinds, index = (model.rates(block),), np.zeros(signs.shape, dtype=np.intp)
    rates = (Fraction(0), *(r.plus for r in kinds), *(r.minus for r in kinds))
    return rates, np.where(signs == 1, 1 + index, np.where(signs == -1, 1 + len(kinds) + index, 0))


def positions_share(faults: FaultModel, block: int, stored: NDArray[np.int8]) -> bool:
    """True if all positions of a convolution meet the same faults, False if they fail independently.

    Permanent faults are shared; faults of reading are each position's own. They depend on the sign that a cell *holds*,
    which need not be the one that was programmed. What is certain (a rate of 0 or 1) counts as both.

    Args:
        faults: The fault model.
        block: Number of the convolution.
        stored: Its `stored`.

    Raises:
        UnsupportedError: Permanent faults and those of reading may meet there. Then the positions are dependent, but
            not alike.
    """
    if not isinstance(faults, PerRead):
        return True
    if faults.permanent is None:
        return False
    rates, places = cell_rates(faults.permanent, block, stored)
    changed, kept = _which(rates, places, lambda p: p > 0), _which(rates, places, lambda p: p < 1)
    if not (changed & kept).any():
        return False
    for signs, held in ((stored, kept), (-stored, changed)):
        if (_which(*cell_rates(faults.model, block, signs), lambda p: 0 < p < 1) & held).any():
            raise UnsupportedError(
                f"blocks[{block}] is a convolution with permanent faults and those of reading besides, expected one "
                "kind: its positions share the first and not the second. Sample whole chips (--chips N --only-samples)."
            )
    return True


def _which(rates: tuple[Fraction, ...], places: NDArray[np.intp], has: Callable[[Fraction], bool]) -> NDArray[np.bool_]:
    """Cells whose rate has a property."""
    return np.array([has(p) for p in rates])[places]


def mapped(model: FaultModel, change: Callable[[CellRates], CellRates]) -> FaultModel:
    """The model of the same shape with its rates changed, all of them in the same way."""
    if isinstance(model, PerRead):
        if model.permanent is not None:
            raise UnsupportedError("the faults are partly permanent and partly fresh at every read; change each part.")
        inner = mapped(model.model, change)
        assert not isinstance(inner, PerRead)
        return PerRead(inner)
    if isinstance(model, PerBlock):
        return PerBlock(tuple(_flip(change(m.rates(b))) for b, m in enumerate(model.models)))
    if isinstance(model, PerCell):
        return PerCell(
            tuple(
                CellTable(tuple(map(change, m.rates)), m.index)
                if isinstance(m, CellTable)
                else _flip(change(m.rates(b)))
                for b, m in enumerate(model.blocks)
            )
        )
    return _flip(change(model.rates(0)))


def _flip(rates: CellRates) -> AsymmetricFlip:
    return AsymmetricFlip(p01=rates.minus, p10=rates.plus)


def write_verified(model: FaultModel, retries: int) -> FaultModel:
    """What is left of write errors after up to `retries` rewrites with perfect, independent verification; exact.

    >>> write_verified(AsymmetricFlip(p01="0.1", p10="0.2"), 1)
    AsymmetricFlip(p01=Fraction(1, 100), p10=Fraction(1, 25))
    """
    if _has_stuck(model):
        raise QueryError(
            "a stuck cell stays stuck however often it is written, expected write errors, such as BitFlip."
        )
    return mapped(model, lambda r: CellRates(after_write_verify(r.plus, retries), after_write_verify(r.minus, retries)))


def _has_stuck(model: FaultModel) -> bool:
    """True if cells of some block are stuck."""
    if isinstance(model, PerRead):
        return _has_stuck(model.model) or (model.permanent is not None and _has_stuck(model.permanent))
    parts = model.models if isinstance(model, PerBlock) else model.blocks if isinstance(model, PerCell) else (model,)
    return any(isinstance(part, StuckAt) for part in parts)


def in_series(*models: FaultModel) -> FaultModel:
    """The fault model of independent causes one after the other: write, then retention, then reading.

    Exact: each cause is a channel on the sign that the causes before it left, so
    ``p10 = a10 (1 - b01) + (1 - a10) b10`` and likewise p01. The order matters where rates are asymmetric; for
    symmetric rates this is `compose`. `PerRead` comes last: what is permanent is what it reads.

    A cell that is stuck (`StuckAt`) stays so, whatever comes before or after; if two causes may stick it, the first one
    that does. The result has rates only: give all permanent causes in one call.

    Raises:
        QueryError: A permanent cause after `PerRead`, models over different blocks, or errors of reading after
            `StuckAt`, which would have to spare stuck cells. ``PerRead(fresh, permanent=StuckAt(...))`` does not.

    >>> in_series(BitFlip("0.1"), BitFlip("0.1"))
    AsymmetricFlip(p01=Fraction(9, 50), p10=Fraction(9, 50))
    >>> in_series(StuckAt(p_plus=1, p_minus=0), BitFlip("0.1"))  # all cells hold +1 for ever
    AsymmetricFlip(p01=Fraction(1, 1), p10=Fraction(0, 1))
    """
    kept = [model for model in models if not isinstance(model, PerRead)]
    reads = [model for model in models if isinstance(model, PerRead)]
    if any(isinstance(model, PerRead) for model in models[: len(kept)]) or any(r.permanent for r in reads[1:]):
        raise QueryError("a permanent fault comes after PerRead, expected the errors of reading to be the last.")
    if not reads:
        return _permanent_series(kept, stuck_for_good=True)
    if any(_has_stuck(model) for model in kept):
        raise QueryError(
            "errors of reading come after StuckAt, but a stuck cell reads the same every time, expected no StuckAt. "
            "If its reads fail as those of other cells do, give PerRead(fresh, permanent=StuckAt(...))."
        )
    before = [*kept, *([] if reads[0].permanent is None else [reads[0].permanent])]
    permanent = _permanent_series(before, stuck_for_good=True) if before else None
    return PerRead(_permanent_series([r.model for r in reads]), permanent)


def _permanent_series(models: Iterable[PermanentModel], *, stuck_for_good: bool = False) -> PermanentModel:
    """All causes as one; `stuck_for_good` unless the later ones are reads, which see stuck cells as others."""
    models = tuple(models)
    lengths = {
        len(m.models) if isinstance(m, PerBlock) else len(m.blocks) for m in models if isinstance(m, PerBlock | PerCell)
    }
    if not models or len(lengths) > 1:
        raise QueryError(
            f"{len(models)} fault models over {sorted(lengths)} blocks, expected at least 1, equally long."
        )
    blocks = [
        _stuck_last(_causes(models, b)) if stuck_for_good else _causes(models, b)
        for b in range(max(lengths, default=1))
    ]
    if not lengths:
        return _flip(one_channel(m.rates(0) for m in blocks[0]))
    if not any(isinstance(model, PerCell) for model in models):
        return PerBlock(tuple(_flip(one_channel(m.rates(b) for m in causes)) for b, causes in enumerate(blocks)))
    return PerCell(tuple(_table_series(causes, b) for b, causes in enumerate(blocks)))


def _causes(models: Iterable[PermanentModel], block: int) -> list[Any]:
    """What each model does to one block: a `CellTable`, or a model by stored sign."""
    return [
        m.models[block] if isinstance(m, PerBlock) else m.blocks[block] if isinstance(m, PerCell) else m for m in models
    ]


def _stuck_last(causes: list[Any]) -> list[Any]:
    """The order in which channels compose so that stuck cells stay stuck, and what sticks a cell first decides."""
    stuck = [m for m in causes if isinstance(m, StuckAt)]
    return [m for m in causes if not isinstance(m, StuckAt)] + stuck[::-1]


def _table_series(models: list[Any], block: int) -> CellTable | SignModel:
    """One block of causes in series, at least one of them perhaps a table."""
    shapes = {m.index.shape for m in models if isinstance(m, CellTable)}
    if not shapes:
        return _flip(one_channel(m.rates(block) for m in models))
    if len(shapes) > 1:
        raise QueryError(f"the rates of block {block} have shapes {sorted(shapes)}, expected equal shapes.")
    kinds: list[CellRates] = [CellRates(Fraction(0), Fraction(0))]
    index = np.zeros(shapes.pop(), dtype=np.intp)
    for m in models:
        causes = m.rates if isinstance(m, CellTable) else (m.rates(block),)
        places = m.index if isinstance(m, CellTable) else np.zeros_like(index)
        pairs, index = np.unique(index * len(causes) + places, return_inverse=True)
        index = index.reshape(places.shape)
        kinds = [one_channel((kinds[i // len(causes)], causes[i % len(causes)])) for i in pairs.tolist()]
    return CellTable(tuple(kinds), index)


def fault_model_from_json(values: Any) -> FaultModel:
    """The fault model that `to_json` of its class wrote.

    Raises:
        QueryError: Something else.
    """
    try:
        model = _from_json(values)
        if isinstance(model, FaultModel):
            return model
    except (KeyError, TypeError, ValueError, AttributeError):
        pass  # an attribute is missing, or is of another type
    raise QueryError(f"the fault model is {values!r:.80}, expected what to_json of a fault model gives.")


def _from_json(values: Any) -> Any:
    kind = values["kind"]
    if kind == "bit-flip":
        return BitFlip(values["p"])
    if kind == "asymmetric-flip":
        return AsymmetricFlip(values["p01"], values["p10"])
    if kind == "stuck-at":
        return StuckAt(values["p_plus"], values["p_minus"])
    if kind == "per-block":
        return PerBlock(tuple(map(_from_json, values["models"])))
    if kind == "per-cell":
        return PerCell(tuple(map(_from_json, values["blocks"])))
    if kind == "cells":
        runs = np.array(values["runs"], dtype=np.intp).reshape(-1, 2)
        rates = tuple(CellRates(plus=rate(r["p10"], "p10"), minus=rate(r["p01"], "p01")) for r in values["rates"])
        return CellTable(rates, np.repeat(runs[:, 0], runs[:, 1]).reshape(values["shape"]))
    if kind == "per-read":
        return PerRead(_from_json(values["model"]), values["permanent"] and _from_json(values["permanent"]))
    raise KeyError(kind)
