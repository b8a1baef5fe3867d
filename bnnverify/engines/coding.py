"""Questions about cells of networks whose first block codes the inputs: that block has none, so it is done first."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from bnnverify.network import BinaryNetwork

P = ParamSpec("P")
R = TypeVar("R")


def about_cells(function: Callable[P, R]) -> Callable[P, R]:
    """A function of ``network`` and, right after it, one input or a batch, asked about the blocks that have cells.

    Blocks are numbered from the first one that has cells, in fault models and in answers.
    """
    signature = inspect.signature(function)
    names = list(signature.parameters)
    inputs = names[names.index("network") + 1]

    @wraps(function)
    def asked(*args: P.args, **options: P.kwargs) -> R:
        bound = signature.bind(*args, **options)
        network, points = bound.arguments["network"], bound.arguments[inputs]
        if not (isinstance(network, BinaryNetwork) and network.input_coding):
            return function(*args, **options)
        is_one = np.ndim(points) == 1
        rest, coded = network.behind_coding(np.asarray(points)[None] if is_one else points)
        bound.arguments.update({"network": rest, inputs: coded[0] if is_one else coded})
        return function(*bound.args, **bound.kwargs)

    return asked
