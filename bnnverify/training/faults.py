"""Bit errors during training: the passes read cells that are wrong with the rates of a fault model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.faults import FaultModel, PerBlock, StuckAt
from bnnverify.training.randomness import Randomness, uniform
from bnnverify.training.rules.base import Cells

DRAWS = ("chip", "step")


class Injection:
    """Reads cells through faults.

    The fault model speaks of stored signs, and so does the training: a stored +1 reads -1 with probability p10, a
    stored -1 reads +1 with probability p01. Gradients pass as if there were no fault.

    Args:
        model: Rates of each block.
        draw: ``chip``: one draw for the whole run, whose cell i fails for ever on the signs it fails on. ``step``:
            a new draw for every training pass.
        random: Draws.
    """

    def __init__(self, model: FaultModel, draw: str, random: Randomness) -> None:
        self._model, self._draw, self._random = model, draw, random
        self._key = random.key()

    def read(self, cells: Sequence[Cells]) -> list[Cells]:
        """What the cells read as, new arrays."""
        if self._draw == "step":
            self._key = self._random.key()
        return [self._one(i, block) for i, block in enumerate(cells)]

    def _one(self, i: int, block: Cells) -> Cells:
        rates = self._model.rates(i)
        out = np.empty(block.size, dtype=np.int8)
        key = np.uint64((int(self._key) + (i << 40)) % 2**64)
        stuck = isinstance(_of_block(self._model, i), StuckAt)
        _read(block.ravel(), float(rates.plus), float(rates.minus), stuck, key, out)
        return out.reshape(block.shape)

    def state(self) -> dict[str, Any]:
        """The draw."""
        return {"key": int(self._key)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the same chip."""
        self._key = np.uint64(state["key"])


@njit(nogil=True)
def _read(
    cells: NDArray[np.int8], plus: float, minus: float, stuck: bool, key: np.uint64, out: NDArray[np.int8]
) -> None:
    """A stuck cell is wrong for one of the two signs only: those of +1 lie at the other end of the unit interval."""
    for i in range(cells.size):
        u = uniform(key, i)
        below, above = u < (plus if cells[i] > 0 else minus), u >= 1.0 - minus
        wrong = above if stuck and cells[i] < 0 else below
        out[i] = -cells[i] if wrong else cells[i]


def _of_block(model: FaultModel, i: int) -> FaultModel:
    return model.models[i] if isinstance(model, PerBlock) else model
