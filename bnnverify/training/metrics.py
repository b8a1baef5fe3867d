"""Metrics of a run for TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bnnverify.errors import UnsupportedError


@contextmanager
def tensorboard_sink(directory: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that writes the records of `train` as TensorBoard scalars.

    Records of epochs appear by epoch, those of steps by step under ``step/``; lists get one curve per block.

    Raises:
        UnsupportedError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UnsupportedError("TensorBoard is not installed. Run: pip install tensorboard") from None
    writer = SummaryWriter(str(directory))
    try:
        yield lambda record: write_scalars(record, writer.add_scalar)
    finally:
        writer.close()


def write_scalars(record: Mapping[str, Any], add: Callable[[str, float, int], Any]) -> None:
    """Calls ``add(name, value, position)`` for every number of a record.

    >>> write_scalars({"epoch": 2, "loss": 0.5, "inside_window": [0.4, 0.6]}, print)
    loss 0.5 2
    inside_window/0 0.4 2
    inside_window/1 0.6 2
    """
    by_step = "epoch" not in record
    position = record["step"] if by_step else record["epoch"]
    prefix = "step/" if by_step else ""
    for name, value in record.items():
        if name in ("epoch", "step"):
            continue
        numbers = enumerate(value) if isinstance(value, list) else [(None, value)]
        for i, number in numbers:
            if isinstance(number, (int, float)):
                add(f"{prefix}{name}" if i is None else f"{prefix}{name}/{i}", number, position)
