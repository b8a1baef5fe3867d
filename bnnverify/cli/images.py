"""The inputs that a command names: images of a data set, or rows of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.cli.options import index_list
from bnnverify.errors import FormatError, QueryError
from bnnverify.network import BinaryNetwork


@dataclass(frozen=True, slots=True)
class Image:
    """One input.

    Attributes:
        index: Its place in the split or file.
        original: Its number in the original set, or None.
        label: Its true class, or None if nobody knows.
        x: The input, -1/+1.
    """

    index: int
    original: int | None
    label: int | None
    x: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Images:
    """Inputs with their provenance, as plain JSON values."""

    images: tuple[Image, ...]
    provenance: Mapping[str, Any]

    @property
    def description(self) -> str:
        """For the heading of a table."""
        if "file" in self.provenance:
            return str(self.provenance["file"])
        return f"{self.provenance['name']}, {self.provenance['split']} split"


def choose(
    network: BinaryNetwork,
    *,
    data: str | None,
    split: str,
    index: str | None,
    input_file: str | None,
    default: str = "0",
) -> Images:
    """The images that the options name.

    Raises:
        QueryError: None or two sources are named, an index does not exist, or sizes do not fit the network.
        FormatError: The file is not what it should be.
    """
    if (data is None) == (input_file is None):
        raise QueryError(
            "no images are named, expected --data NAME or --input FILE."
            if data is None
            else "images are named twice, expected --data or --input, not both."
        )
    chosen = (
        _of_data(data, split, index, default)
        if data is not None
        else _of_file(str(input_file), index, network.n_inputs)
    )
    for image in chosen.images[:1]:
        if len(image.x) != network.n_inputs:
            raise QueryError(
                f"the images have {len(image.x)} pixels, but the network takes {network.n_inputs} inputs. "
                "A file holds one image per row."
            )
    return chosen


def _of_data(name: str, split: str, index: str | None, default: str) -> Images:
    from bnnverify import datasets

    dataset = datasets.load(name)
    part = dataset.splits[split]
    text = (index or default).replace("all", f"0:{len(part)}")
    images = tuple(
        Image(i, int(part.indices[i]), int(part.labels[i]), tuple(part.images[i].tolist()))
        for i in index_list(text, len(part), f"image of the {split} split")
    )
    return Images(images, {"name": dataset.name, "split": split, "provenance": dict(dataset.provenance)})


def _of_file(name: str, index: str | None, n_inputs: int) -> Images:
    raw, values = read_signs(name)
    if values.shape[1] != n_inputs and values.size == n_inputs:
        values = values.reshape(1, n_inputs)  # one image, written as a picture
    images = tuple(Image(i, None, None, tuple(row)) for i, row in enumerate(values.tolist()))
    chosen = images if index is None else tuple(images[i] for i in index_list(index, len(images), f"row of {name}"))
    return Images(chosen, {"file": name, "sha256": hashlib.sha256(raw).hexdigest()})


def read_signs(name: str) -> tuple[bytes, NDArray[np.int8]]:
    """Bytes and rows of a file of signs: -1/+1, or 0/1 where 0 means -1.

    Raises:
        FormatError: The file cannot be read, or holds anything else.
    """
    try:
        raw = Path(name).read_bytes()
        array = _npy(name) if raw.startswith(b"\x93NUMPY") else _text(name, raw.decode("utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FormatError(f"{name}: cannot be read ({reason}), expected a file of inputs. Check the path.") from None
    except UnicodeDecodeError:
        raise FormatError(f"{name}: is neither .npy nor text, expected rows of 0/1 or -1/1.") from None
    rows = array[None, :] if array.ndim == 1 else array.reshape(len(array), -1) if array.size else array
    if rows.ndim != 2 or rows.size == 0:
        raise FormatError(f"{name}: has shape {array.shape}, expected (inputs,) or (rows, inputs), not empty.")
    if rows.dtype.kind not in "biuf":
        raise FormatError(f"{name}: has dtype {rows.dtype}, expected numbers.")
    present = set(np.unique(rows).tolist())
    if not (present <= {-1, 1} or present <= {0, 1}):
        bad = sorted(v for v in present if v not in (-1, 0, 1)) or [0]
        raise FormatError(f"{name}: holds {bad[0]}, expected only 0 and 1, or only -1 and 1. Binarize the image first.")
    return raw, np.where(rows > 0, 1, -1).astype(np.int8)


def _npy(name: str) -> NDArray[Any]:
    try:
        return np.asarray(np.load(name, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise FormatError(f"{name}: is not a plain .npy array ({' '.join(str(error).split())}).") from None


def _text(name: str, text: str) -> NDArray[Any]:
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            glued = len(words) == 1 and len(words[0]) > 1 and set(words[0]) <= {"0", "1"}  # 0010110...
            rows.append([float(word) for word in (words[0] if glued else words)])
        except ValueError:
            raise FormatError(f"{name}:{number}: is {line.strip()!r:.60}, expected numbers 0/1 or -1/1.") from None
        if len(rows[-1]) != len(rows[0]):
            raise FormatError(f"{name}:{number}: has {len(rows[-1])} entries, expected {len(rows[0])} as in row 1.")
    return np.array(rows)
