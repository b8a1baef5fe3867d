"""What a network costs: weights, memory and multiply-accumulates, block by block.

The table that users of larq know (`larq.models.summary`), for a folded network: batch norms have become thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bnnverify.convolution import ConvBlock
from bnnverify.network import BinaryNetwork, OutputBlock

_NUMBER_BITS = 32  # a threshold, a scale or a bias


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """The cost of one block.

    Attributes:
        kind: `dense`, `conv` or `output`; `coding` for a binarization of the inputs, which has no cells.
        input_bits: Bits of an input: 1 for signs, enough for the range of integers.
        output_shape: `(neurons,)`, or `(filters, height, width)` after pooling.
        binary_weights: Weights of 1 bit: the cells. Masked ones take none.
        numbers: Numbers of 32 bits: thresholds, or scales and biases.
        macs: Multiply-accumulates for one input: the weights, times the positions of a convolution. Those on padding
            count.
    """

    kind: str
    input_bits: int
    output_shape: tuple[int, ...]
    binary_weights: int
    numbers: int
    macs: int

    @property
    def memory_bits(self) -> int:
        """Bits of weights and numbers."""
        return self.binary_weights + _NUMBER_BITS * self.numbers

    @property
    def binary_macs(self) -> int:
        """Multiply-accumulates of signs with signs: XNOR and popcount."""
        return self.macs if self.input_bits == 1 else 0

    @property
    def other_macs(self) -> int:
        """Multiply-accumulates of signs with integers."""
        return self.macs - self.binary_macs

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "input_bits": self.input_bits,
            "output_shape": list(self.output_shape),
            "binary_weights": self.binary_weights,
            "numbers": self.numbers,
            "memory_bytes": self.memory_bits / 8,
            "binary_macs": self.binary_macs,
            "other_macs": self.other_macs,
        }


@dataclass(frozen=True, slots=True)
class NetworkSummary:
    """The cost of a network; its text is the table.

    Attributes:
        architecture: As `BinaryNetwork.architecture`.
        blocks: Hidden blocks in order, then the output block.
    """

    architecture: str
    blocks: tuple[BlockSummary, ...]

    @property
    def binary_weights(self) -> int:
        """Weights of 1 bit."""
        return sum(b.binary_weights for b in self.blocks)

    @property
    def numbers(self) -> int:
        """Numbers of 32 bits."""
        return sum(b.numbers for b in self.blocks)

    @property
    def memory_bytes(self) -> float:
        """Bytes of packed weights and numbers."""
        return sum(b.memory_bits for b in self.blocks) / 8

    @property
    def float32_bytes(self) -> int:
        """Bytes if every weight and number took 32 bits."""
        return (self.binary_weights + self.numbers) * _NUMBER_BITS // 8

    @property
    def compression(self) -> float:
        """`float32_bytes` over `memory_bytes`."""
        return self.float32_bytes / self.memory_bytes

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one input."""
        return sum(b.macs for b in self.blocks)

    @property
    def binary_share(self) -> Fraction:
        """Share of the multiply-accumulates that are of signs with signs; 1 if there are none."""
        return Fraction(sum(b.binary_macs for b in self.blocks), self.macs) if self.macs else Fraction(1)

    def to_json(self) -> dict[str, Any]:
        """The totals as plain values for a JSON line."""
        return {
            "binary_weights": self.binary_weights,
            "numbers": self.numbers,
            "memory_bytes": self.memory_bytes,
            "float32_bytes": self.float32_bytes,
            "compression": self.compression,
            "macs": self.macs,
            "binary_macs": sum(b.binary_macs for b in self.blocks),
        }

    def __str__(self) -> str:
        head = ("block", "input", "outputs", "1-bit weights", "32-bit", "KiB", "1-bit MACs", "other MACs")
        rows = [head]
        for b in self.blocks:
            sizes = (f"{b.binary_weights:,}", f"{b.numbers:,}", f"{b.memory_bits / 8192:.2f}")
            rows.append((b.kind, f"{b.input_bits} bit", _shape(b.output_shape), *sizes, *_macs(b)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = []
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
        packed, full = f"{self.memory_bytes / 1024:,.2f} KiB", f"{self.float32_bytes / 1024:,.2f} KiB"
        lines += [
            "",
            f"1-bit weights       {self.binary_weights:,}",
            f"32-bit numbers      {self.numbers:,}",
            f"memory              {packed} packed, {full} as float32: {self.compression:.1f} times smaller",
            f"MACs for one input  {self.macs:,}, {float(self.binary_share):.2%} of them binarized",
        ]
        return "\n".join(lines)


def summarize(network: BinaryNetwork) -> NetworkSummary:
    """What `network` costs.

    >>> from bnnverify.network import *
    >>> net = BinaryNetwork(InputDomain.binary(64), (), OutputBlock.create([[1] * 64, [-1] * 64]))
    >>> cost = summarize(net)
    >>> cost.memory_bytes, cost.macs
    (32.0, 128)
    """
    domain = network.domain
    reach = int(domain.upper.max()) - int(domain.lower.min())
    bits, blocks = 1 if domain.is_binary else max(reach.bit_length(), 1), []
    for b, block in enumerate(network.all_blocks):
        shape: tuple[int, ...] = (block.weights.shape[0],)
        places, kind, numbers = 1, "dense", shape[0]
        if isinstance(block, ConvBlock):
            shape, kind = block.output_shape, "conv"
            places = math.prod(block.positions)
        elif isinstance(block, OutputBlock):
            kind, numbers = "output", 2 * block.n_classes
        codes = b == 0 and network.input_coding
        cells = 0 if codes else block.n_cells
        blocks.append(BlockSummary("coding" if codes else kind, bits, shape, cells, numbers, block.n_cells * places))
        bits = 1
    return NetworkSummary(network.architecture, tuple(blocks))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _macs(block: BlockSummary) -> tuple[str, str]:
    return (
        f"{block.binary_macs:,}" if block.binary_macs else "-",
        f"{block.other_macs:,}" if block.other_macs else "-",
    )
