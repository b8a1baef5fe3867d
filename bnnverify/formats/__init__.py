"""File formats: one file per format, reading and writing."""

from __future__ import annotations

import os
from pathlib import Path

from bnnverify.errors import FormatError
from bnnverify.formats import bnnquanalyst, native
from bnnverify.network import BinaryNetwork


def load_network(path: str | os.PathLike[str]) -> BinaryNetwork:
    """The network in the file or folder at `path`, whichever supported kind it is of.

    The kind of a file shows in the first bytes, or else in the suffix; a folder is a model of BNNQuanalyst
    (`formats.bnnquanalyst`).

    Raises:
        FormatError: The file cannot be read, is of a kind that is not supported, or is damaged.
    """
    if Path(path).is_dir():
        return bnnquanalyst.load(path)
    try:
        with Path(path).open("rb") as file:
            start = file.read(4)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{os.fspath(path)}: cannot be read ({reason}), expected a network file. Check the path."
        raise FormatError(message) from None
    if start == b"PK\x03\x04" or Path(path).suffix.lower() == ".npz":
        return native.load(path)
    raise FormatError(
        f"{os.fspath(path)}: is of an unknown kind (it starts with {start!r}), expected a network file that "
        "bnnverify wrote (.npz), or a model folder of BNNQuanalyst. Make one with `bnnverify train` or bnnverify.save."
    )
