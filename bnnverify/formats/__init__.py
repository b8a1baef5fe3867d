"""File formats: one file per format, reading and writing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats import bnnquanalyst, native
from bnnverify.network import BinaryNetwork
from bnnverify.reading import Archive, opened, shown
from bnnverify.scalars import integer, integers

if TYPE_CHECKING:
    from bnnverify.formats.coding import InputCoding
    from bnnverify.formats.imported import Imported

_KINDS = {
    ".onnx": "onnx",
    ".onnx.gz": "onnx",
    ".h5": "keras",
    ".hdf5": "keras",
    ".keras": "keras",
    ".pt": "torch",
    ".pth": "torch",
    ".npz": "native",
}


_NETWORK = "a network file"
_HDF5, _ZIP, _LEGACY_TORCH = b"\x89HDF", b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF"


def kind_of(path: str | os.PathLike[str]) -> str:
    """The format of the file or folder at `path`: by what it holds, or else by its suffix.

    Returns:
        `native`, `bnnquanalyst`, `eevbnn`, `onnx`, `keras`, `torch`, or `unknown`.

    Raises:
        FormatError: The file cannot be read.
    """
    if Path(path).is_dir():
        return "bnnquanalyst"
    with opened(path, _NETWORK) as file:
        start = file.read(8)
    if start.startswith(_HDF5):
        return "keras"
    if start.startswith(_LEGACY_TORCH):
        return "torch"
    kind = _archive_kind(_members(path)) if start.startswith(_ZIP) else None
    name = Path(path).name.lower()
    by_name = next((known for suffix, known in _KINDS.items() if name.endswith(suffix)), "unknown")
    return kind or by_name


def _members(path: str | os.PathLike[str]) -> frozenset[str]:
    """Names in an archive; none if it is damaged, which its own reader says better."""
    with opened(path, _NETWORK) as file:
        try:
            with Archive(file, shown(path), _NETWORK) as archive:
                return frozenset(archive.names)
        except FormatError:
            return frozenset()


def _archive_kind(names: frozenset[str]) -> str | None:
    if "header.npy" in names:
        return "native"
    if {"meta.npy", "L0_w.npy"} <= names:
        return "eevbnn"
    if {"config.json", "model.weights.h5"} <= names:
        return "keras"
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    return "unknown" if names else None


def load_network(path: str | os.PathLike[str]) -> BinaryNetwork:
    """The network in the file or folder at `path`, if the file alone says what it means.

    These are bnnverify's own `.npz` files, model folders of BNNQuanalyst (`formats.bnnquanalyst`), networks of eevbnn,
    and ONNX files that bnnverify wrote. For others `import_model` takes what the file leaves open.

    Raises:
        FormatError: The file cannot be read, is of a kind that is not supported, or is damaged.
        UnsupportedError: The file leaves open what its inputs are.
    """
    kind = kind_of(path)
    if kind == "bnnquanalyst":
        return bnnquanalyst.load(path)
    if kind == "native":
        return native.load(path)
    if kind in ("keras", "torch"):
        raise UnsupportedError(
            f"{shown(path)}: leaves open what its inputs are, expected a network file. Run `bnnverify import` once, "
            "with -o FILE, and use that file."
        )
    return import_model(path).network


def import_model(
    path: str | os.PathLike[str],
    *,
    coding: InputCoding | None = None,
    zero_sign: int | None = None,
    input_shape: Sequence[int] | None = None,
    **options: Any,
) -> Imported:
    """The exact network of another tool's file, with how the two correspond.

    Args:
        path: An ONNX, eevbnn, Keras (HDF5) or torch file.
        coding: What the inputs are: see `formats.coding.InputCoding`.
        zero_sign: What a plain sign makes of 0, where the format leaves it open: see `formats.onnx.load`.
        input_shape: Shape of one input, where the file does not say it.
        options: What only the format's own `load` takes.

    Raises:
        FormatError: The file cannot be read, is of a kind that is not supported, or is damaged.
        UnsupportedError: It holds something that no exact network expresses, leaves open what its inputs are, or says
            itself what is given here.
    """
    kind = kind_of(path)
    zero_sign = None if zero_sign is None else integer(zero_sign, "zero_sign")
    input_shape = None if input_shape is None else integers(input_shape, "input_shape")
    if kind == "onnx":
        from bnnverify.formats import onnx

        return onnx.load(path, coding=coding, zero_sign=zero_sign, input_shape=input_shape, **options)
    if kind == "eevbnn":
        from bnnverify.formats import eevbnn

        for given, what in ((coding, "inputs"), (zero_sign, "sign of 0"), (input_shape, "input shape")):
            if given is not None:
                raise UnsupportedError(f"{os.fspath(path)}: a file of eevbnn says its {what} itself, expected none.")
        return eevbnn.load(path, **options)
    if kind == "keras":
        from bnnverify.formats import keras

        return keras.load(path, coding=coding, zero_sign=zero_sign, input_shape=input_shape, **options)
    if kind == "torch":
        from bnnverify.formats import torchstate

        return torchstate.load(path, coding=coding, input_shape=input_shape, zero_sign=zero_sign, **options)
    if kind in ("native", "bnnquanalyst"):
        load_network(path)  # where it is damaged, that is what there is to say
        what = "network of bnnverify" if kind == "native" else "model folder of BNNQuanalyst"
        raise UnsupportedError(
            f"{shown(path)}: is a {what}, which every command reads as it is, expected another tool's file. Use it "
            "directly, as in `bnnverify info FILE`."
        )
    raise _unknown(path)


def _unknown(path: str | os.PathLike[str]) -> FormatError:
    with opened(path, _NETWORK) as file:
        start = file.read(8)
    found = f"starts with {start[:4]!r}" if start else "is empty"
    if start.startswith(_ZIP):
        names = sorted(name.removesuffix(".npy") for name in _members(path))
        rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
        found = f"is an archive of {', '.join(names[:4])}{rest}"
    elif start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        found = "is a pickle of Python objects, which is not loaded, because that would run code"
    return FormatError(
        f"{shown(path)}: is of an unknown kind (it {found}), expected a network that bnnverify wrote (.npz), a model "
        "folder of BNNQuanalyst, or a file that `bnnverify import` reads: ONNX, Keras (.h5, .keras), a state dict of "
        "torch, or .npz of eevbnn."
    )
