"""Images as arrays of signs, with their provenance and one fixed split.

A dataset has one split for ever: who trains, selects and tests on it in two places does so on the same images.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from bnnverify.datasets.digits import load_digits
from bnnverify.datasets.mnist import FASHION_MNIST, MNIST, load_files
from bnnverify.datasets.quantized import quantized, quantizing
from bnnverify.datasets.splits import Dataset, Split, indices_sha256, stratified_split
from bnnverify.domain import InputDomain
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork

__all__ = ["NAMES", "Dataset", "Split", "indices_sha256", "inputs_for", "load", "stratified_split"]

_IN_FILES = {official.name: official for official in (MNIST, FASHION_MNIST)}
NAMES = ("digits", *_IN_FILES)


def load(name: str, *, directory: str | os.PathLike[str] | None = None, verify: bool = True) -> Dataset:
    """The dataset called `name`, always with the same split.

    Args:
        name: One of these:

            - ``digits``: the 1797 handwritten digits of 8x8 pixels that scikit-learn ships (test part of the UCI
              set "Optical recognition of handwritten digits"). A pixel of at least 8 (of 0 to 16) is +1, else -1.
              1200 images for training, 200 for validation, the rest for the test.
            - ``mnist``, ``fashion-mnist``: the official 70,000 images of 28x28 pixels, from files. A pixel of at
              least 128 (of 0 to 255) is +1, else -1. The test is the official one, in its order; the official
              60,000 training images are split 55,000 for training, 5000 for validation.

        directory: Where the files are, for example what ``bnnverify data`` made: official idx files (gzip or not)
            or one npz file in the layout of Keras, in a folder of the dataset's name or directly. Default: the
            environment variable BNNVERIFY_DATA, else ``data`` in the current directory. The digits need none.
        verify: False takes images other than the official ones (KMNIST, say, or fewer of them) from files of the
            same names; a twelfth of their training images is for validation, and the provenance says "unofficial".

    Raises:
        QueryError: No dataset has this name.
        UnsupportedError: There are no such files, or the package that ships the images is not installed.
        FormatError: A file is not what it should be, or holds other images than the official ones.

    References:
        E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository,
        1998. https://doi.org/10.24432/C50P49

        Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
        Proc. IEEE 86(11), 1998. https://doi.org/10.1109/5.726791

        H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms", 2017. https://arxiv.org/abs/1708.07747
    """
    if name not in NAMES:
        raise QueryError(f"there is no dataset {name!r}, expected one of: {', '.join(NAMES)}.")
    return load_digits() if name == "digits" else load_files(_IN_FILES[name], directory, verify=verify)


def inputs_for(
    target: BinaryNetwork | InputDomain, split: Split
) -> NDArray[np.int8] | NDArray[np.uint8] | NDArray[np.int64]:
    """The images as a network takes them: signs for a binary input domain, pixels for an integer one.

    A network that quantizes pixels (`quantized.quantizing`) gets the quantized ones, int64.

    Args:
        target: The network, or its input domain.
        split: The images.

    Returns:
        `split.images` or `split.pixels` itself, shape `(N, n)`, read-only. Pixels are uint8, which wraps around at
        256: convert them before any arithmetic.

    Raises:
        QueryError: The number of pixels is not that of the inputs, or a pixel lies outside the input's bounds; or the
            network quantizes grey values that are not those of the images.

    >>> from bnnverify.network import InputDomain
    >>> pixels = np.array([[0, 255]], dtype=np.uint8)
    >>> split = Split(np.array([[-1, 1]], dtype=np.int8), pixels, np.array([0]), np.array([0]))
    >>> inputs_for(InputDomain.binary(2), split).tolist()
    [[-1, 1]]
    >>> inputs_for(InputDomain.integers([0, 0], [255, 255]), split).tolist()
    [[0, 255]]
    """
    domain = target.domain if isinstance(target, BinaryNetwork) else target
    inputs: NDArray[np.int8] | NDArray[np.uint8] | NDArray[np.int64]
    inputs = split.images if domain.is_binary else split.pixels
    if isinstance(target, BinaryNetwork) and (step := quantizing(target, split.white)) is not None:
        inputs = quantized(split.pixels, step)
    if inputs.shape[1] != domain.n:
        raise QueryError(
            f"the images have {inputs.shape[1]} pixels, but the network takes {domain.n} inputs. "
            "Name the data set that it was trained on."
        )
    if not domain.is_binary and len(split):
        low, high = inputs.min(axis=0), inputs.max(axis=0)
        bad = np.flatnonzero((low < domain.lower) | (high > domain.upper))
        if bad.size:
            i = int(bad[0])
            raise QueryError(
                f"pixel {i} of the images goes from {low[i]} to {high[i]}, but the network takes "
                f"{domain.lower[i]} to {domain.upper[i]} there. Name the data set that it was trained on."
            )
    return inputs
