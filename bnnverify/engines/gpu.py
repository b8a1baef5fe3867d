"""Whole chips on a device of torch: the same chips as `wholechips`, as products of matrices.

Flips are drawn here, from the same seeds, and sent as lists. All sums are integers that the type of the products holds
exactly, so the answers are those of the packed loops, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.engines.flips import cells_of, drawn
from bnnverify.errors import UnsupportedError
from bnnverify.faults import FaultModel, PerRead
from bnnverify.network import BinaryNetwork
from bnnverify.packing import score_ranks

_HALF = 2**11  # integers up to here are exact in float16
_SINGLE = 2**24  # and in float32
_DOUBLE = 2**53  # and in float64
_ROOM = 2**27  # pre-activations of a block that are worked on at once


def require_device(device: str) -> Any:
    """The module torch, if it has the device.

    Raises:
        UnsupportedError: torch is not installed, or there is no such device.
    """
    try:
        import torch
    except ImportError:
        raise UnsupportedError("device needs torch. Run: pip install 'bnnverify[train]'") from None
    try:
        torch.zeros(1, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise UnsupportedError(
            f"device is {device!r:.40}, which torch does not have here ({reason:.120}). Leave it out: the loops of "
            "this package give the same answers."
        ) from None
    return torch


def require_served(network: BinaryNetwork, faults: FaultModel, device: str) -> Any:
    """The module torch, if chips of this kind can be sampled on the device.

    Raises:
        UnsupportedError: They cannot.
    """
    if isinstance(faults, PerRead):
        raise UnsupportedError(
            "faults of reading are sampled image by image, expected no device for them. Leave out --device."
        )
    network.dense_blocks("convolutions are sampled without a device.")
    return require_device(device)


class TorchChips:
    """Chips of a network of dense blocks on a device.

    Args:
        network: Dense blocks only; one with integer inputs has a hidden block.
        points: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: the class that is right.
        faults: Rates of the cells, permanent.
        device: As torch names it, such as ``cuda``.

    Raises:
        UnsupportedError: torch is not installed, there is no such device, or the question is none for it.
    """

    def __init__(
        self,
        network: BinaryNetwork,
        points: NDArray[np.int64],
        labels: NDArray[np.int64],
        faults: FaultModel,
        *,
        device: str,
    ) -> None:
        torch = require_served(network, faults, device)
        self._device = torch.device(device)
        self._torch, self.cells = torch, cells_of(network, faults)
        reach = [int(np.maximum(np.abs(network.domain.lower), np.abs(network.domain.upper)).sum())]
        reach += [block.n_outputs for block in network.blocks]
        self._types = [self._type(r, integers=b == 0 and not network.domain.is_binary) for b, r in enumerate(reach)]
        self._inputs = self._sent(points, self._types[0])
        self._labels = self._sent(labels, torch.int64)
        self._weights = [
            self._sent(block.weights, kind) for block, kind in zip(network.all_blocks, self._types, strict=True)
        ]
        self._thresholds = [self._sent(block.thresholds, torch.float64) for block in network.blocks]
        self._ranks = self._sent(_ranks_by_sum(network), torch.int64)
        widest = max(len(block.weights) for block in network.all_blocks)
        self._images = max(1, min(len(points), _ROOM // (widest * 8)))

    def wrong(self, seeds: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `wholechips.Chips`."""
        torch = self._torch
        weights = self._flipped(*drawn(self.cells, seeds))
        wrong = torch.zeros(len(seeds), dtype=torch.int64, device=self._device)
        errors = []
        for start in range(0, len(self._inputs), self._images):
            h = self._inputs[start : start + self._images]
            for b, limits in enumerate(self._thresholds):
                sums = torch.matmul(h, weights[b].transpose(-1, -2))  # (chips, images, neurons)
                h = (sums.to(torch.float64) >= limits).to(weights[b + 1].dtype) * 2 - 1
            sums = torch.matmul(h, weights[-1].transpose(-1, -2)).to(torch.int64)
            classes = torch.arange(sums.shape[-1], device=self._device)
            ranks = self._ranks[classes, sums + self._ranks.shape[1] // 2]
            # ties go to the lowest class, whatever argmax does with them
            found = (ranks * len(classes) + (len(classes) - 1 - classes)).argmax(dim=-1)
            missed = found != self._labels[start : start + self._images]
            wrong += missed.sum(dim=1)
            errors.append(missed.sum(dim=0))
        return wrong.cpu().numpy(), torch.cat(errors).cpu().numpy()

    def _type(self, reach: int, *, integers: bool) -> Any:
        """The fastest type that is exact for sums up to `reach`, partial ones included."""
        torch = self._torch
        if self._device.type == "cuda" and not integers and reach <= _HALF:
            return torch.float16
        if reach < _SINGLE:
            return torch.float32
        if reach < _DOUBLE:
            return torch.float64
        raise UnsupportedError("the sums of the first block are beyond 2^53, expected no device for them.")

    def _sent(self, array: Any, kind: Any) -> Any:
        return self._torch.as_tensor(np.array(array), device=self._device).to(kind)

    def _flipped(self, flips: NDArray[np.int64], starts: NDArray[np.int64]) -> list[Any]:
        """The weights of every chip, block by block, shape `(chips, neurons, inputs)`."""
        torch = self._torch
        chips = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        found = []
        for b, clean in enumerate(self._weights):
            mine = (flips >= self.cells.starts[b, 0]) & (flips < self.cells.starts[b, -1])
            rows, columns = self.cells.places[flips[mine]].T
            places = (chips[mine] * clean.shape[0] + rows) * clean.shape[1] + columns
            weights = clean.expand(len(starts) - 1, -1, -1).contiguous()
            at = torch.as_tensor(places, device=self._device)
            weights.view(-1)[at] *= -1  # each place at most once
            found.append(weights)
        return found


def _ranks_by_sum(network: BinaryNetwork) -> NDArray[np.int64]:
    """`score_ranks` by the sum: ``ranks[k, sum + n]``."""
    output = network.output
    by_disagreement, n = score_ranks(output), output.n_inputs
    present = np.count_nonzero(output.weights, axis=1)[:, None]
    disagreements = (present - np.arange(-n, n + 1)) // 2
    return np.take_along_axis(by_disagreement, np.clip(disagreements, 0, present), axis=1).astype(np.int64)
