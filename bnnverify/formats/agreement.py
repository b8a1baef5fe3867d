"""Agreement: an exact network beside the framework that evaluates the same file in floating point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnnverify.domain import IntArray
from bnnverify.formats import runtime
from bnnverify.formats.imported import Imported


@dataclass(frozen=True, slots=True)
class Margins:
    """How near the sums of one block came to its thresholds on some inputs.

    Attributes:
        block: Index of the block.
        smallest: Least distance other than 0 of a sum from the real threshold, in units of the sum; None where all
            units are constant.
        ties: Sums that met a real threshold exactly, over all inputs, units and positions.
    """

    block: int
    smallest: float | None
    ties: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was compared, and what came of it.

    Attributes:
        inputs: Inputs compared.
        equal: Inputs whose class is the same in both; None if nothing was compared.
        first: The first input that differs.
        tied: Inputs for which two or more classes share the highest exact score.
        margins: One for each hidden block.
        runtime: onnxruntime with its version; None if it was not asked, or is not installed.
        reason: Why nothing was compared with onnxruntime; empty if it was.
    """

    inputs: int
    equal: int | None
    first: int | None
    tied: int
    margins: tuple[Margins, ...]
    runtime: str | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "inputs": self.inputs,
            "equal": self.equal,
            "first_difference": self.first,
            "tied_scores": self.tied,
            "runtime": self.runtime,
            "not_compared": self.reason or None,
            "margins": [{"block": m.block, "smallest": m.smallest, "ties": m.ties} for m in self.margins],
        }


def random_inputs(imported: Imported, count: int, seed: int = 0) -> IntArray:
    """Inputs of the network, drawn uniformly; shape `(count, n)`."""
    domain, generator = imported.network.domain, np.random.default_rng(seed)
    drawn = generator.integers(domain.lower, domain.upper + 1, (count, domain.n))
    return np.where(drawn == 0, -1, drawn) if domain.is_binary else drawn


def compare(imported: Imported, inputs: IntArray, model: str | None = None) -> Agreement:
    """The exact network, and onnxruntime on the file it came from.

    Args:
        imported: The network.
        inputs: Inputs of the network, shape `(N, n)`.
        model: Path of the ONNX file; None to look at margins only.
    """
    network = imported.network
    points = network.domain.require_batch(inputs)
    h, margins = points, []
    for i, block in enumerate(network.blocks):
        margins.append(_margins(i, block.preactivations(h), imported.layers[i].crossings))
        h = block.outputs(h)
    sums = network.output.popcounts(h)
    classes = network.classes_of_sums(sums)
    a, b = (np.array(values, dtype=object) for values in network.output.integer_form())
    scores = sums.astype(object) * a + b
    tied = sum(int((row == row.max()).sum() > 1) for row in scores)
    if model is None:
        return Agreement(len(points), None, None, tied, tuple(margins), None, "it runs ONNX files only")
    found = runtime.outputs(imported, points, model)
    if found.values is None:
        return Agreement(len(points), None, None, tied, tuple(margins), found.runtime, found.reason)
    same = runtime.classes(imported, found.values) == classes
    first = None if same.all() else int(np.argmin(same))
    return Agreement(len(points), int(same.sum()), first, tied, tuple(margins), found.runtime)


def _margins(index: int, sums: IntArray, crossings: tuple[float, ...]) -> Margins:
    """Over sums of shape `(N, units)` or `(N, units, rows, columns)`."""
    spread = np.array(crossings).reshape(1, -1, *[1] * (sums.ndim - 2))
    gaps = np.abs(sums - spread)
    ties = int((gaps == 0).sum())
    rest = gaps[(gaps > 0) & ~np.isnan(gaps)]
    smallest = float(rest.min()) if rest.size else math.nan
    return Margins(index, None if math.isnan(smallest) else smallest, ties)
