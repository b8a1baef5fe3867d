"""Checkpoints: the whole state of a training run in one file, to go on from with the same bits."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnnverify.errors import FormatError, QueryError
from bnnverify.files import write_whole
from bnnverify.formats import torchfiles
from bnnverify.reading import parsed

_FORMAT = "bnnverify training checkpoint 1"


class Checkpoint:
    """A file with the state of one run.

    Args:
        path: The file; it is replaced whole, never left half written.
        identity: What determines the run: plain JSON values, compared when loading.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._identity = json.dumps(identity, sort_keys=True)

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes the state: numbers, text, arrays, tensors, lists and dicts of them."""
        buffer = io.BytesIO()
        torch.save({"format": _FORMAT, "identity": self._identity, "state": frozen(state)}, buffer)
        write_whole(self.path, buffer.getvalue())

    def load(self) -> dict[str, Any] | None:
        """The state, arrays of it as tensors; None if there is no file.

        Raises:
            FormatError: The file is no checkpoint.
            QueryError: The checkpoint is of a run with another config or other data.
        """
        if not self.path.exists():
            return None
        saved = torchfiles.load(self.path, "a training checkpoint", "Take another file.")
        if not isinstance(saved, dict) or not {"format", "identity", "state"} <= set(saved):
            raise FormatError(f"{self.path}: is no training checkpoint of this version. Take another file.")
        if saved["format"] != _FORMAT:
            raise FormatError(f"{self.path}: the format is {saved['format']!r:.60}, expected {_FORMAT!r}.")
        if saved["identity"] != self._identity:
            raise QueryError(
                f"{self.path} is the checkpoint of another run: {_difference(saved['identity'], self._identity)}. "
                "Give the settings it was made with, or another file."
            )
        state: dict[str, Any] = saved["state"]
        return state


def frozen(value: Any) -> Any:
    """Arrays as tensors, so that a file can be read without running code."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Mapping):
        return {key: frozen(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def thawed(value: Any) -> Any:
    """Tensors as arrays of their own."""
    if isinstance(value, torch.Tensor):
        return value.numpy().copy()
    if isinstance(value, Mapping):
        return {key: thawed(v) for key, v in value.items()}
    return [thawed(v) for v in value] if isinstance(value, list) else value


def _difference(there: str, here: str) -> str:
    try:
        a, b = parsed(there), parsed(here)
        parts = [(dict(a.get(part, {})), dict(b.get(part, {}))) for part in ("config", "data")]
    except (ValueError, TypeError, AttributeError):
        return "its settings cannot be read"
    for one, other in parts:
        for key in sorted({*one, *other}):
            if one.get(key) != other.get(key):
                return f"its {key} is {one.get(key)!s:.60}, expected {other.get(key)!s:.60}"
    return "its settings differ"
