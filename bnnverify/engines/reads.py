"""Faults of reading: fresh flips for every image, and in a convolution for every position."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.engines.flips import faulty_network
from bnnverify.engines.owncells import OwnCells
from bnnverify.errors import UnsupportedError
from bnnverify.faults import AsymmetricFlip, BitFlip, FaultModel, PerBlock, PerRead, is_per_cell, positions_share
from bnnverify.network import BinaryNetwork, DenseBlock


def independent_reads(network: BinaryNetwork, faults: FaultModel) -> tuple[BinaryNetwork, FaultModel]:
    """A network of dense blocks whose cells, failing independently, fail as the reads of one image do.

    A dense block reads each cell once. Every position of a convolution reads the cells of its filter anew: its rows are
    unrolled, and what pools them cannot fail.

    Raises:
        UnsupportedError: A convolution whose positions share faults, with rates per cell, or with padding by a sign,
            whose cells over the padding may fail too.
    """
    if not network.has_convolutions:
        return network, faults
    for b, hidden in enumerate(network.blocks):
        if isinstance(hidden, ConvBlock) and (is_per_cell(faults) or positions_share(faults, b, hidden.stored)):
            raise UnsupportedError(
                f"blocks[{b}] is a convolution with permanent faults or rates per cell, for images one by one; "
                "expected faults of reading only, by block and stored sign. Sample whole chips (sample_chips)."
            )
    blocks: list[HiddenBlock] = []
    models: list[AsymmetricFlip | BitFlip] = []
    for b, block in enumerate(network.all_blocks):
        rates = faults.rates(b)
        models.append(AsymmetricFlip(p01=rates.minus, p10=rates.plus))
        if isinstance(block, ConvBlock):
            if block.pad_value and block.padding != (0, 0):
                raise UnsupportedError(
                    f"blocks[{b}] is padded with the sign {block.pad_value:+d}, expected absent padding: the cells "
                    "over the padding fail at every read, too. Sample permanent faults instead."
                )
            first, *pooling = block.unrolled()
            negated = np.repeat(block.negated, first.n_outputs // block.n_filters)
            blocks += [DenseBlock(first.weights, first.thresholds, negated), *pooling]
            models += [BitFlip(0)] * len(pooling)  # type: ignore[arg-type]
        elif isinstance(block, DenseBlock):
            blocks.append(block)
    return BinaryNetwork(network.domain, tuple(blocks), network.output), PerBlock(tuple(models))


class ReadChips:
    """Passes over the images under `PerRead`: permanent faults once a pass, those of reading anew for every image.

    Args:
        network: As `independent_reads` takes it.
        points: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: the class that is right.
        faults: Of reading, and perhaps permanent ones.
    """

    def __init__(
        self, network: BinaryNetwork, points: NDArray[np.int64], labels: NDArray[np.int64], faults: PerRead
    ) -> None:
        self._network, self._points, self._labels, self._faults = network, points, labels, faults
        self._reads = PerRead(faults.model)
        self._clean = OwnCells(*independent_reads(network, self._reads), points)

    def wrong(self, seeds: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `wholechips.Chips`."""
        wrong, errors = np.zeros(len(seeds), dtype=np.int64), np.zeros(len(self._labels), dtype=np.int64)
        for chip, seed in enumerate(seeds):
            here = self._clean
            if self._faults.permanent is not None:
                held = faulty_network(self._network, self._faults, seed)
                here = OwnCells(*independent_reads(held, self._reads), self._points)
            streams = np.random.SeedSequence([int(seed), 1]).generate_state(len(self._labels), dtype=np.uint64)
            for i, label in enumerate(self._labels.tolist()):
                missed = here.errors(i, label, streams[i], 1)
                errors[i] += missed
                wrong[chip] += missed
        return wrong, errors
