"""Images in their fixed split, and how the split is dealt.

Every class gets a seeded random order, image number r (from 0) of a class with m images has the position
``(r + 1/2) / m``, and the positions in ascending order (equal ones by class) are dealt out to the parts of a split.
The random orders come from `numpy.random.RandomState`, whose stream numpy has frozen, so a split depends on no version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import QueryError

SPLIT_SEED = 20240229


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Some images of a dataset; row i of every array belongs to image i.

    Attributes:
        images: Shape `(N, n)`, int8, -1/+1: what a network sees.
        pixels: Shape `(N, n)`, uint8: the grey values before binarization, for drawing.
        labels: Shape `(N,)`, int64: the true classes.
        indices: Shape `(N,)`, int64: the image's number in the original set; where that comes as a training and a
            test file, the number in its file.
        white: Greatest grey value that a pixel can have.
    """

    images: NDArray[np.int8]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    white: int = 255

    def __len__(self) -> int:
        return int(self.labels.size)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images in their fixed split.

    Attributes:
        name: What `load` calls it.
        shape: Height and width of an image; ``height * width`` is the number of inputs n.
        classes: Name of each class, in the order of the labels.
        train: For the update rule.
        validation: For choosing among epochs, seeds and settings.
        test: For the one final measurement.
        provenance: Plain JSON values: source, binarization, split and its hash, versions.
    """

    name: str
    shape: tuple[int, int]
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    provenance: Mapping[str, Any]

    @property
    def white(self) -> int:
        """Greatest grey value that a pixel can have."""
        return self.test.white

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name: train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def __repr__(self) -> str:
        sizes = "/".join(str(len(split)) for split in self.splits.values())
        return f"Dataset({self.name}, {self.shape[0]}x{self.shape[1]}, {len(self.classes)} classes, {sizes} images)"


def stratified_split(labels: NDArray[np.int64], sizes: tuple[int, ...], *, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Disjoint index arrays of the given sizes and a last one with the rest, each stratified by class.

    Args:
        labels: Class of each image, shape `(N,)`.
        sizes: Sizes of all parts but the last; their sum is at most N.
        seed: Of the frozen `numpy.random.RandomState` that orders the images of each class.

    Raises:
        QueryError: The sizes ask for more images than there are.

    >>> [part.tolist() for part in stratified_split(np.array([0, 0, 1, 1, 1, 1]), (3,), seed=0)]
    [[4, 1, 2], [3, 0, 5]]
    """
    if sum(sizes) > labels.size:
        raise QueryError(f"the split takes {sum(sizes)} images, but there are {labels.size}.")
    random = np.random.RandomState(seed)
    position = np.empty(labels.size)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position[random.permutation(members)] = (np.arange(members.size) + 0.5) / members.size
    order = np.lexsort((labels, position)).astype(np.int64)
    return tuple(np.split(order, np.cumsum(sizes)))


def indices_sha256(splits: Mapping[str, Split]) -> str:
    r"""sha256 over ``name size\n`` and the little-endian int64 indices of each split, in order, as hex."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {len(split)}\n".encode())
        digest.update(split.indices.astype("<i8").tobytes())
    return digest.hexdigest()


def part_of(
    images: NDArray[Any], pixels: NDArray[Any], labels: NDArray[Any], part: NDArray[np.int64], white: int = 255
) -> Split:
    """The rows `part` as a split of read-only arrays."""
    arrays = (images[part], pixels[part], labels[part], part.copy())
    for array in arrays:
        array.setflags(write=False)
    return Split(*arrays, white)
