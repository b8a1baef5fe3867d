"""Model folders of BNNQuanalyst: plain CSV files, one per parameter, no header lines.

A folder holds the hidden blocks ``blk1``, ``blk2``, ... and the output block ``out_blk``:

- ``blkI/lin_weight.csv``: one line per neuron, -1 or +1 for each input;
- ``blkI/lin_bias.csv``, ``bn_weight.csv``, ``bn_bias.csv``, ``bn_mean.csv``, ``bn_var.csv``: one line, one number per
  neuron;
- ``out_blk/lin_weight.csv``: one line per class, -1 or +1 for each neuron of the last hidden block;
- ``out_blk/lin_bias.csv``: one line, one number per class.

Its meaning, exactly: with s = weights . x a neuron fires iff
``(s + lin_bias - bn_mean) / sqrt(bn_var) * bn_weight + bn_bias >= 0`` (no epsilon), and class k has the score
``weights[k] . h + lin_bias[k]``; the greatest score wins, ties go to the lowest index. Inputs are -1/+1.

The numbers were trained as float32 and are written as the shortest decimal text of their float64 value, so *the
float64 nearest to the text* is the trained number itself, and that is what is read; everything after it is rational
arithmetic (`folding`). The tool itself compares with thresholds that it rounds to float32.

References:
    Zhang et al., "Precise quantitative analysis of binarized neural networks: a BDD-based approach", ACM TOSEM 2023.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnnverify.blocks import sign_array
from bnnverify.errors import FormatError, ModelError
from bnnverify.folding import fold_block
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock, Provenance
from bnnverify.reading import read_text

VECTORS = ("lin_bias", "bn_weight", "bn_bias", "bn_mean", "bn_var")
OUTPUT = "out_blk"
TORCH_EPSILON = 1e-5  # with which such networks were trained

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
_HIDDEN = re.compile(r"blk([1-9][0-9]{0,3})", re.ASCII)
_EXPECTED = "expected a model folder of BNNQuanalyst: the folders blk1, blk2, ... without a gap, and out_blk"

Row = list[float]


def load(path: str | os.PathLike[str]) -> BinaryNetwork:
    """The network in the model folder at `path`, with exact integer thresholds.

    The image is shown as a square where the number of inputs is one: the folder does not say its shape.

    Args:
        path: The folder that holds ``out_blk``, not one above it.

    Returns:
        A network of dense blocks over -1/+1 inputs. Its provenance says how the folder was understood.

    Raises:
        FormatError: A folder or file is missing, unreadable or unknown, a line is no row of numbers, sizes do not
            fit, a weight is not -1 or +1, or a variance is not above 0.
    """
    folder = Path(path)
    count = _count_blocks(folder)
    blocks: list[DenseBlock] = []
    width: int | None = None
    others = 0
    for i in range(1, count + 1):
        block, with_epsilon = _hidden_block(folder / f"blk{i}", width)
        others += int((block.thresholds != with_epsilon.thresholds).sum())
        blocks.append(block)
        width = block.n_outputs
    output = _output_block(folder / OUTPUT, width)
    n = blocks[0].n_inputs if blocks else output.n_inputs
    side = math.isqrt(n)
    domain = InputDomain.binary(n, (side, side) if side * side == n else None)
    return BinaryNetwork(domain, tuple(blocks), output, Provenance(_provenance(folder, blocks, others)))


def _count_blocks(folder: Path) -> int:
    """Number of hidden blocks; FormatError unless the folder holds just what it should."""
    names = _names(folder)
    inner = {name for name in names if (folder / name).is_dir() and not name.startswith(".")}
    numbers = sorted(int(match[1]) for name in inner if (match := _HIDDEN.fullmatch(name)))
    expected = {f"blk{i}" for i in range(1, len(numbers) + 1)} | {OUTPUT}
    if inner != expected:
        if OUTPUT not in inner:
            models = [name for name in sorted(inner) if (folder / name / OUTPUT).is_dir()]
            remedy = f" Name one of the models in it, such as {folder / models[0]}." if models else ""
        else:
            remedy = " Complete the folder, or remove what does not belong to the model."
        raise FormatError(f"{folder}: holds {_listed(names)}, {_EXPECTED}.{remedy}")
    return len(numbers)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FormatError(f"{folder}: cannot be read ({reason}), {_EXPECTED}. Check the path.") from None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6]) or "nothing"
    return shown + (f", ... ({len(names)} entries)" if len(names) > 6 else "")


def _hidden_block(folder: Path, width: int | None) -> tuple[DenseBlock, DenseBlock]:
    """The block, and what it would be with the epsilon that torch adds to variances."""
    _require_files(folder, ("lin_weight", *VECTORS))
    weights = _sign_rows(folder / "lin_weight.csv", width)
    m = len(weights)
    vectors = {name: _vector(folder / f"{name}.csv", m, "neuron") for name in VECTORS}
    for j, variance in enumerate(vectors["bn_var"]):
        if variance <= 0:
            raise FormatError(
                f"{folder / 'bn_var.csv'}:1: entry {j + 1} is {variance:g}, expected a variance above 0: the batch "
                "norm divides by its square root and adds no epsilon. Export the model again."
            )
    try:
        return _folded(weights, vectors, 0, folder.name), _folded(weights, vectors, TORCH_EPSILON, folder.name)
    except ModelError as error:
        raise FormatError(f"{folder}: {error}") from None


def _folded(weights: list[Row], vectors: Mapping[str, Row], epsilon: float, name: str) -> DenseBlock:
    return fold_block(
        weights,
        gamma=vectors["bn_weight"],
        beta=vectors["bn_bias"],
        mean=vectors["bn_mean"],
        variance=vectors["bn_var"],
        epsilon=epsilon,
        bias=vectors["lin_bias"],
        input_reach=[1] * len(weights[0]),
        name=name,
    )


def _output_block(folder: Path, width: int | None) -> OutputBlock:
    _require_files(folder, ("lin_weight", "lin_bias"))
    weights = _sign_rows(folder / "lin_weight.csv", width)
    bias = _vector(folder / "lin_bias.csv", len(weights), "class")
    try:
        return OutputBlock.create(weights, bias=bias)
    except ModelError as error:
        raise FormatError(f"{folder}: {error}") from None


def _require_files(folder: Path, needed: Sequence[str]) -> None:
    """FormatError unless the folder holds these CSV files and no other: one more would mean something."""
    names = _names(folder)
    tables = {name for name in names if name.lower().endswith(".csv") and not name.startswith(".")}
    wanted = {f"{name}.csv" for name in needed}
    if missing := sorted(wanted - tables):
        raise FormatError(
            f"{folder}: has no {missing[0]} (it holds {_listed(names)}), expected {', '.join(sorted(wanted))}. "
            "Copy the whole model folder."
        )
    if extra := sorted(tables - wanted):
        raise FormatError(
            f"{folder}: holds {extra[0]}, expected only {', '.join(sorted(wanted))}. "
            "Remove it if it does not belong to the model."
        )


def _sign_rows(path: Path, width: int | None) -> list[Row]:
    """Rows of equal length, -1 and +1 only."""
    rows = _rows(path)
    n = len(rows[0]) if width is None else width
    source = "as line 1 has" if width is None else "one per neuron of the block before"
    for line, row in enumerate(rows, start=1):
        if len(row) != n:
            raise FormatError(f"{path}:{line}: has {len(row)} entries, expected {n}, {source}.")
    try:
        sign_array(rows, None, "weights")
    except ModelError:
        line, entry, value = next(
            (i, j, v) for i, row in enumerate(rows, 1) for j, v in enumerate(row, 1) if v not in (-1, 1)
        )
        raise FormatError(
            f"{path}:{line}: entry {entry} is {value:g}, expected -1 or +1. Export the binarized weights."
        ) from None
    return rows


def _vector(path: Path, size: int, kind: str) -> Row:
    rows = _rows(path)
    if len(rows) != 1:
        raise FormatError(f"{path}:2: is a second line of numbers, expected one line, with one entry per {kind}.")
    if len(rows[0]) != size:
        raise FormatError(f"{path}:1: has {len(rows[0])} entries, expected {size}, one per {kind} in lin_weight.csv.")
    return rows[0]


def _rows(path: Path) -> list[Row]:
    """The lines of a CSV file as float64 numbers; the lines after the last number may be empty."""
    lines = read_text(path, "a CSV file of numbers").rstrip().split("\n")
    if lines == [""]:
        raise FormatError(f"{path}: is empty, expected a CSV file of numbers. Copy the whole model folder.")
    return [_numbers(path, number, line) for number, line in enumerate(lines, start=1)]


def _numbers(path: Path, number: int, line: str) -> Row:
    words = [word.strip() for word in line.split(",")]
    values = [float(word) if _NUMBER.fullmatch(word) else math.nan for word in words]
    for entry, (word, value) in enumerate(zip(words, values, strict=True), start=1):
        if not math.isfinite(value):
            raise FormatError(
                f"{path}:{number}: entry {entry} is {word!r:.40}, expected a finite number. Export the model again."
            )
    return values


def _provenance(folder: Path, blocks: Sequence[DenseBlock], others: int) -> dict[str, Any]:
    """What was understood, for `bnnverify info`; `others` neurons have another threshold with torch's epsilon."""
    absolute = Path(os.path.realpath(folder))
    assumed = (
        f"no epsilon was added to the variances, as BNNQuanalyst does it; with torch's {TORCH_EPSILON:g}, {others} "
        "neurons would have another threshold"
    )
    return {
        **({"assumed": [assumed]} if others else {}),
        "format": "BNNQuanalyst model folder",
        "folder": absolute.name,
        "read as": {
            "inputs": "-1/+1; 0 in an instance file means -1",
            "neuron": "fires iff (w.x + lin_bias - bn_mean) / sqrt(bn_var) * bn_weight + bn_bias >= 0, no epsilon",
            "score": "w.h + lin_bias; the greatest wins, ties go to the lowest index",
            "numbers": "the float64 nearest to the decimal text, then rational arithmetic without rounding",
        },
        "blocks": {f"blk{i}": _understood(block) for i, block in enumerate(blocks, start=1)},
    }


def _understood(block: DenseBlock) -> str:
    limits = block.thresholds
    constant = int(np.count_nonzero((limits > block.n_inputs) | (limits <= -block.n_inputs)))
    return (
        f"{block.n_outputs} neurons of {block.n_inputs} inputs; {int(block.negated.sum())} with bn_weight below 0 "
        f"(rows negated), {constant} constant"
    )
