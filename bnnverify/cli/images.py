"""The inputs that a command names: images of a data set, or rows of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.cli.options import index_list
from bnnverify.errors import FormatError, ModelError, QueryError
from bnnverify.network import BinaryNetwork
from bnnverify.reading import array_of, read_bytes, text_of

if TYPE_CHECKING:
    from bnnverify.datasets import Dataset


@dataclass(frozen=True, slots=True)
class Image:
    """One input.

    Attributes:
        index: Its place in the split or file.
        original: Its number in the original set, or None.
        label: Its true class, or None if nobody knows.
        x: The input: -1/+1, or pixels where the network takes integers.
        pixels: The grey values, shape `(n,)`, uint8; None for rows of a file.
        white: Greatest grey value that a pixel of the data set can have.
    """

    index: int
    original: int | None
    label: int | None
    x: tuple[int, ...]
    pixels: NDArray[np.uint8] | None = None
    white: int = 255


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
        quantized = f", inputs {self.provenance['inputs']}" if "inputs" in self.provenance else ""
        return f"{self.provenance['name']}, {self.provenance['split']} split{quantized}"


def choose(
    network: BinaryNetwork,
    *,
    data: str | None,
    data_dir: Path | None = None,
    split: str,
    index: str | None,
    input_file: str | None,
    default: str = "0",
) -> Images:
    """The images that the options name, as the network takes them: signs or pixels.

    Raises:
        QueryError: No source is named, an index does not exist, or the images do not fit the network.
        FormatError: A file is not what it should be.
        UnsupportedError: The data set is not here.
    """
    if data is not None and input_file is not None:
        raise QueryError("--data and --input are both given, expected only one of them.")
    if data is not None:
        return _of_data(network, data, data_dir, split, index or default)
    if input_file is None:
        raise QueryError("no images are named, expected --data NAME or --input FILE.")
    return _of_file(input_file, index, network)


def dataset_of(name: str, directory: Path | None) -> Dataset:
    """The data set that ``--data`` and ``--data-dir`` name.

    Raises:
        QueryError: No data set has this name, or it needs no directory.
        UnsupportedError: It is not here.
    """
    from bnnverify import datasets

    if directory is not None and name == "digits":
        raise QueryError(
            "--data-dir is given, but digits come with scikit-learn, expected --data mnist or fashion-mnist with it."
        )
    return datasets.load(name, directory=directory)


def _of_data(network: BinaryNetwork, name: str, directory: Path | None, split: str, index: str) -> Images:
    from bnnverify import datasets
    from bnnverify.datasets.quantized import quantizing

    dataset = dataset_of(name, directory)
    part = dataset.splits[split]
    inputs = datasets.inputs_for(network, part)
    images = tuple(
        Image(i, int(part.indices[i]), int(part.labels[i]), tuple(inputs[i].tolist()), part.pixels[i], dataset.white)
        for i in index_list(index, len(part), f"image of the {split} split")
    )
    step = quantizing(network, dataset.white)
    read = {} if step is None else {"inputs": f"round(pixel / 255 / {step})"}
    return Images(images, {"name": dataset.name, "split": split, **read, "provenance": dict(dataset.provenance)})


def _of_file(name: str, index: str | None, network: BinaryNetwork) -> Images:
    raw, values = read_signs(name) if network.domain.is_binary else _read_rows(name)
    n = network.n_inputs
    if values.shape[1] != n and values.size == n:
        values = values.reshape(1, n)  # one image, written as a picture
    if values.shape[1] != n:
        raise QueryError(
            f"the images have {values.shape[1]} pixels, but the network takes {n} inputs. "
            "A file holds one image per row."
        )
    try:
        points = network.domain.require_batch(values)
    except ModelError as error:
        raise FormatError(f"{name}: {error}") from None
    images = tuple(Image(i, None, None, tuple(row)) for i, row in enumerate(points.tolist()))
    chosen = images if index is None else tuple(images[i] for i in index_list(index, len(images), f"row of {name}"))
    return Images(chosen, {"file": name, "sha256": hashlib.sha256(raw).hexdigest()})


def read_signs(name: str) -> tuple[bytes, NDArray[np.int8]]:
    """Bytes and rows of a file of signs: -1/+1, or 0/1 where 0 means -1.

    Raises:
        FormatError: The file cannot be read, or holds anything else.
    """
    raw, rows = _read_rows(name)
    present = set(np.unique(rows).tolist())
    if not (present <= {-1, 1} or present <= {0, 1}):
        bad = sorted(v for v in present if v not in (-1, 0, 1)) or [0]
        raise FormatError(f"{name}: holds {bad[0]}, expected only 0 and 1, or only -1 and 1. Binarize the image first.")
    return raw, np.where(rows > 0, 1, -1).astype(np.int8)


def _read_rows(name: str) -> tuple[bytes, NDArray[Any]]:
    """Bytes and rows of a file of numbers."""
    what = "rows of numbers, as text or .npy"
    raw = read_bytes(name, what)
    array = array_of(raw, name) if raw.startswith(b"\x93NUMPY") else _text(name, text_of(raw, name, what))
    if array.ndim == 0 or array.size == 0:
        raise FormatError(f"{name}: has shape {array.shape}, expected (inputs,) or (rows, inputs), not empty.")
    return raw, array[None, :] if array.ndim == 1 else array.reshape(len(array), -1)


def _text(name: str, text: str) -> NDArray[Any]:
    rows: list[NDArray[np.float64]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            glued = len(words) == 1 and len(words[0]) > 1 and set(words[0]) <= {"0", "1"}  # 0010110...
            rows.append(np.array([float(word) for word in (words[0] if glued else words)]))
        except ValueError:
            raise FormatError(
                f"{name}:{number}: is {line.strip()!r:.60}, expected numbers such as 0/1 or -1/1."
            ) from None
        if len(rows[-1]) != len(rows[0]):
            raise FormatError(f"{name}:{number}: has {len(rows[-1])} entries, expected {len(rows[0])} as in row 1.")
    return np.array(rows)
