"""PNG images of inputs, written with the standard library alone."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.domain import InputDomain
from bnnverify.errors import UnsupportedError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR = 0, 2


def png_bytes(x: NDArray[Any], domain: InputDomain) -> bytes:
    """The PNG file of an input: black is its least value, white its greatest; three channels are red, green, blue.

    Args:
        x: Shape `(n,)`, integers of the domain.
        domain: With `shape` (rows, columns) or (1 or 3 channels, rows, columns).

    Raises:
        UnsupportedError: The shape is another one.
    """
    shape = domain.shape if len(domain.shape) == 3 else (1, *domain.shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UnsupportedError(f"an input of shape {domain.shape} is no image, expected 1 or 3 channels.")
    low, high = int(domain.lower.min()), int(domain.upper.max())
    levels = (np.asarray(x, dtype=np.int64) - low) * 255 // max(high - low, 1)
    pixels = levels.astype(np.uint8).reshape(shape).transpose(1, 2, 0)
    rows = b"".join(b"\x00" + row.tobytes() for row in np.ascontiguousarray(pixels))
    kind = _GREY if shape[0] == 1 else _COLOUR
    header = struct.pack(">IIBBBBB", shape[2], shape[1], 8, kind, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows, 9)), _chunk(b"IEND", b""))
    return _SIGNATURE + b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
