"""State dicts in files of torch.save: arrays by name, whatever the dictionary is wrapped in.

A file may hold the state dict itself, or a checkpoint with it (`state_dict`, `model`, `net`, ..., as Lightning and
most training scripts write), and its names may have the prefixes of wrappers (`module.` of DataParallel, `model.` of
Lightning, `_orig_mod.` of torch.compile).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bnnverify.errors import FormatError
from bnnverify.formats import torchfiles
from bnnverify.reading import shown

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")
COUNTERS = ("num_batches_tracked", "_extra_state")  # no part of what a network computes
_EXPECTED = "a state dict that torch.save wrote (a dictionary of tensors)"
_SAVE = "Where the model is defined, run torch.save(model.state_dict(), 'weights.pt') and import that file"


def read_state(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Arrays by name, in the order of the file; numbers are float64 if they were floats of any kind.

    Raises:
        FormatError: The file cannot be read, holds no state dict or several, or a tensor that is no plain array.
        ImportError: torch is not installed.
    """
    where = shown(path)
    found = _unwrapped(torchfiles.load(path, _EXPECTED, f"{_SAVE}."), where)
    names = [str(name) for name in found]
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) and n != p for n in names)), None):
        names = [name.removeprefix(prefix) for name in names]
    if len(set(names)) != len(names):
        raise FormatError(f"{where}: two tensors have the same name, expected one of each name.")
    return {
        name: torchfiles.array_of(value, f"{where}: {name!r:.60}")
        for name, value in zip(names, found.values(), strict=True)
        if not _is_counter(name)
    }


def without_prefixes(name: str) -> str:
    """A name without the prefixes of wrappers."""
    while prefix := next((p for p in PREFIXES if name.startswith(p) and name != p), None):
        name = name.removeprefix(prefix)
    return name


def _unwrapped(data: Any, where: str, depth: int = 0) -> Mapping[Any, Any]:
    """The state dict in what was loaded."""
    import torch

    if not isinstance(data, Mapping) or not data:
        kind = "an empty dictionary" if isinstance(data, Mapping) else f"a {type(data).__name__}"
        raise FormatError(f"{where}: holds {kind}, expected {_EXPECTED}. {_SAVE}.")
    tensors = {name: value for name, value in data.items() if isinstance(value, torch.Tensor)}
    rest = {name: value for name, value in data.items() if name not in tensors and not _is_counter(name)}
    if not rest:
        return tensors
    inner = {name: value for name, value in rest.items() if isinstance(value, Mapping) and _has_tensors(value)}
    known = [name for name in WRAPPERS if name in inner]
    plain = [name for name, value in inner.items() if all(isinstance(v, torch.Tensor) for v in value.values())]
    likely = known or (plain if len(plain) == 1 else list(inner) if len(inner) == 1 else [])
    if depth < 4 and likely:
        return _unwrapped(inner[likely[0]], where, depth + 1)
    if len(plain) > 1:
        names = ", ".join(map(str, plain))
        raise FormatError(
            f"{where}: holds several state dicts ({names:.80}), expected one. Save the one that is meant."
        )
    name, value = next(iter(rest.items()))
    raise FormatError(
        f"{where}: {str(name)!r:.60} is a {type(value).__name__} and no tensor, expected {_EXPECTED}, or a checkpoint "
        f"with one under {', '.join(WRAPPERS[:4])}, ... {_SAVE}."
    )


def _is_counter(name: Any) -> bool:
    return str(name).rsplit(".", 1)[-1] in COUNTERS


def _has_tensors(data: Mapping[Any, Any], depth: int = 0) -> bool:
    import torch

    return any(
        isinstance(value, torch.Tensor) or (isinstance(value, Mapping) and depth < 4 and _has_tensors(value, depth + 1))
        for value in data.values()
    )
