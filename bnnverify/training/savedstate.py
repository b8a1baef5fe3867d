"""What a checkpoint may hold: the state of a run, held against that of the same run before its first step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bnnverify.reading import parsed

# values of the arrays with these names, wherever they are
_RANGES = {
    "cells": (-1.0, 1.0),
    "running_var": (0.0, math.inf),
    "exp_avg_sq": (0.0, math.inf),
    "second": (0.0, math.inf),
    "theta": (0.0, 1.0),
    "worn": (0.0, math.inf),
    "factors": (0.0, math.inf),
    "level_pulses": (0.0, math.inf),
    "level_switches": (0.0, math.inf),
}


def require_state(
    state: Any,
    fresh: Mapping[str, Any],
    *,
    steps: int,
    steps_per_epoch: int,
    images: int,
    binary: Sequence[str],
    real: Sequence[Tensor],
    metrics: set[str],
) -> list[dict[str, Any]]:
    """Checks the state of a run.

    Args:
        state: As loaded.
        fresh: That of the run before its first step; what it has of keys, shapes and types the state must have too.
        steps: Of the whole training.
        steps_per_epoch: Of one epoch.
        images: Training images.
        binary: Names of the binary weights in the model's state.
        real: The parameters of Adam, in its order.
        metrics: Keys of the record of an epoch.

    Returns:
        The records of the epochs.

    Raises:
        ValueError: What is wrong, in one sentence without a full stop.
    """
    _require(isinstance(state, Mapping) and set(state) == set(fresh), "its entries", "others", ", ".join(fresh))
    done = state["steps"]
    _require(type(done) is int and 0 <= done <= steps, "steps", f"{done!r:.40}", f"an integer from 0 to {steps}")
    _alike(state["order"], torch.zeros(images if done else 0, dtype=torch.int64), "order")
    everyone = torch.equal(state["order"].sort().values, torch.arange(images)) or not done
    _require(everyone, "order", "no order", "every training image once")
    history = _history(state["history"], done // steps_per_epoch, metrics)
    epoch = state["best_epoch"]
    _require(type(epoch) is int and bool(history) <= epoch <= len(history), "best_epoch", f"{epoch!r:.40}", "an epoch")
    record = history[epoch - 1] if epoch else {"validation_accuracy": -1.0, "validation_loss": 0.0}
    best = [record["validation_accuracy"], -record["validation_loss"]]
    _require(state["best"] == best, "best", f"{state['best']!r:.40}", f"{best}, that of epoch {epoch}")
    _alike(state["best_state"], fresh["model"] if epoch else {}, "best_state")
    model = state["model"]
    _alike(model, fresh["model"], "model")
    for values in (model, state["best_state"] if epoch else model):
        _require(all(bool((values[name].abs() == 1).all()) for name in binary), "the model", "not binary", "-1 and +1")
    if real:
        moments = {i: {"step": torch.zeros(()), "exp_avg": p, "exp_avg_sq": p} for i, p in enumerate(real)}
        adam = state["adam"]
        _require(isinstance(adam, Mapping) and "state" in adam, "adam", f"a {type(adam).__name__}", "its state")
        _alike(adam["state"], moments if done else {}, "adam")
    for name in fresh:
        if name not in ("order", "history", "best", "best_state", "model", "adam"):
            _alike(state[name], fresh[name], name)
    return history


def _history(text: Any, epochs: int, metrics: set[str]) -> list[dict[str, Any]]:
    _require(isinstance(text, str), "history", f"a {type(text).__name__}", "text")
    found: Any = parsed(text)
    _require(isinstance(found, list) and len(found) == epochs, "history", "of other length", f"{epochs} records")
    for i, record in enumerate(found, start=1):
        fine = isinstance(record, dict) and set(record) == metrics and record["epoch"] == i
        numbers = fine and all(_is_metric(value) for value in record.values())
        single = numbers and isinstance(record["validation_accuracy"], float | int)
        _require(single and isinstance(record["validation_loss"], float | int), f"record {i}", "none", "its metrics")
    return list(found)


def _is_metric(value: Any) -> bool:
    if isinstance(value, list):
        return all(type(v) in (int, float) for v in value)
    return value is None or type(value) in (int, float)


def _alike(found: Any, like: Any, where: str) -> None:
    """The same keys, lengths, types, dtypes and shapes; finite numbers within the range of their name."""
    if isinstance(like, Tensor):
        fine = isinstance(found, Tensor) and found.layout == torch.strided and found.device.type == "cpu"
        fine = fine and not found.is_quantized and (found.dtype, found.shape) == (like.dtype, like.shape)
        _require(fine, where, _described(found), _described(like))
        low, high = _RANGES.get(where.split(".")[-1].split("[")[0], (-math.inf, math.inf))
        _require(bool(found.isfinite().all()), where, "not finite", "finite numbers")
        inside = bool(((found >= low) & (found <= high)).all())
        _require(inside, where, "out of range", f"values of {low:g} to {high:g}")
        _require("cells" not in where or bool((found != 0).all()), where, "0 somewhere", "-1 and +1")
    elif isinstance(like, Mapping):
        fine = isinstance(found, Mapping) and set(found) == set(like)
        _require(fine, where, _described(found), f"the entries {', '.join(map(str, like)) or 'none'}")
        for key, value in like.items():
            _alike(found[key], value, f"{where}.{key}")
    elif isinstance(like, (list, tuple)):
        fine = isinstance(found, (list, tuple)) and len(found) == len(like)
        _require(fine, where, _described(found), f"a list of {len(like)}")
        for i, value in enumerate(like):
            _alike(found[i], value, f"{where}[{i}]")
    elif type(like) is int:
        _require(type(found) is int and 0 <= found < 2**63, where, f"{found!r:.40}", "an integer of at least 0")
    elif type(like) is float:
        fine = type(found) in (int, float) and math.isfinite(found)
        _require(fine, where, f"{found!r:.40}", "a finite number")
    else:
        _require(type(found) is type(like), where, _described(found), _described(like))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} of shape {tuple(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _require(holds: Any, what: str, got: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{what} is {got}, expected {expected}")
