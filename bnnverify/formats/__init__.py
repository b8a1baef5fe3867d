"""File formats: one file per format, reading and writing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats import bnnquanalyst, native
from bnnverify.network import BinaryNetwork
from bnnverify.reading import Archive, opened

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
}


def kind_of(path: str | os.PathLike[str]) -> str:
    """The format of the file or folder at `path`: by what it holds, or else by its suffix.

    Returns:
        `native`, `bnnquanalyst`, `eevbnn`, `onnx`, `keras`, `torch`, or `unknown`.

    Raises:
        FormatError: The file cannot be read.
    """
    if Path(path).is_dir():
        return "bnnquanalyst"
    with opened(path, "a network file") as file:
        start = file.read(8)
    name = Path(path).name.lower()
    for suffix, kind in _KINDS.items():
        if name.endswith(suffix):
            return kind
    if start.startswith(b"\x89HDF"):
        return "keras"
    if start.startswith(b"PK\x03\x04"):
        return _archive_kind(path)
    return "native" if name.endswith(".npz") else "unknown"


def _archive_kind(path: str | os.PathLike[str]) -> str:
    try:
        with opened(path, "a network file") as file, Archive(file, os.fspath(path), "a network file") as archive:
            names = set(archive.names)
    except FormatError:
        return "native"  # which says what is wrong with it
    if "header.npy" not in names and {"meta.npy", "L0_w.npy"} <= names:
        return "eevbnn"
    return "torch" if any(name.endswith("/data.pkl") for name in names) else "native"


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

        zero = 1 if zero_sign is None else zero_sign
        return torchstate.load(path, coding=coding, input_shape=input_shape, zero_sign=zero, **options)
    if kind in ("native", "bnnquanalyst"):
        raise UnsupportedError(f"{os.fspath(path)}: is read as it is, expected another tool's file. Use load_network.")
    raise _unknown(path)


def _unknown(path: str | os.PathLike[str]) -> FormatError:
    with opened(path, "a network file") as file:
        start = file.read(4)
    return FormatError(
        f"{os.fspath(path)}: is of an unknown kind (it starts with {start!r}), expected a network file that "
        "bnnverify wrote (.npz), a model folder of BNNQuanalyst, or a file of another tool that `bnnverify import` "
        "reads. Make one with `bnnverify train` or bnnverify.save."
    )
