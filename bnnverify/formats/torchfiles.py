"""Files that torch.save wrote, read without running code, and tensors of them as arrays."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError
from bnnverify.reading import Archive, opened, reason, require_growth, shown


def load(path: str | os.PathLike[str], expected: str, remedy: str) -> Any:
    """What torch.save put into the file at `path`: tensors on the CPU, and plain values around them.

    Args:
        path: The file.
        expected: What it should hold, for messages.
        remedy: The last sentence of messages.

    Raises:
        FormatError: The file cannot be read, or holds objects of other kinds.
        ImportError: torch is not installed.
    """
    import torch

    where = shown(path)
    with opened(path, expected) as file:
        if file.read(4) == b"PK\x03\x04":
            Archive(file, where, expected)  # looks at all sizes
        file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged files break torch in many ways
            raise FormatError(f"{where}: cannot be read ({_why(error)}), expected {expected}. {remedy}") from None


def _why(error: Exception) -> str:
    """What is wrong with the file, without torch's advice to trust it all the same."""
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]{1,60})", text):
        return f"it holds an object of {found[1]}: a whole module or checkpoint was pickled, which would run code"
    if "TorchScript" in text:
        return "it is a TorchScript program, of which torch.jit.load(FILE).state_dict() gives the tensors"
    return "it is no file of tensors" if isinstance(error, pickle.UnpicklingError) else reason(error)


def array_of(tensor: Any, where: str) -> NDArray[Any]:
    """The entries of a tensor: float64 where it holds real numbers, else integers or bools.

    Raises:
        FormatError: The tensor holds no numbers, complex ones, or so many of so few that are stored that it is a bomb.
    """
    import torch

    kind = next(
        (name for name in ("meta", "quantized", "nested", "complex") if _is(tensor, name)),
        None,
    )
    if kind is not None or (tensor.dtype == torch.bool and tensor.layout != torch.strided):
        raise FormatError(f"{where}: is a {kind or 'sparse bool'} tensor, expected plain numbers. Save it as floats.")
    stored = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided else 16 * tensor._nnz()
    require_growth(stored, 8 * tensor.numel(), where, "a tensor")
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    array: NDArray[Any] = (dense.double() if dense.is_floating_point() else dense).resolve_neg().numpy()
    return np.array(array)


def _is(tensor: Any, kind: str) -> bool:
    return bool(tensor.is_complex() if kind == "complex" else getattr(tensor, f"is_{kind}"))
