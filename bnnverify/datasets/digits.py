"""The handwritten digits that scikit-learn ships: 8x8 pixels, nothing to obtain.

References:
    E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository,
    1998. https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

import hashlib

import numpy as np

from bnnverify.datasets.splits import SPLIT_SEED, Dataset, indices_sha256, part_of, stratified_split
from bnnverify.errors import UnsupportedError


def load_digits() -> Dataset:
    """The 1797 digits: 1200 for training, 200 for validation, the rest for the test.

    Raises:
        UnsupportedError: scikit-learn is not installed.
    """
    try:
        import sklearn
        from sklearn.datasets import load_digits as images_of_sklearn
    except ImportError as error:
        raise UnsupportedError(
            "the digits come with scikit-learn, which is not installed. Run: pip install 'bnnverify[data]'"
        ) from error
    bunch = images_of_sklearn()
    pixels = np.asarray(bunch.data).astype(np.uint8)
    labels = np.asarray(bunch.target, dtype=np.int64)
    images = np.where(pixels >= 8, 1, -1).astype(np.int8)
    parts = stratified_split(labels, (1200, 200), seed=SPLIT_SEED)
    train, validation, test = (part_of(images, pixels, labels, part) for part in parts)
    provenance = {
        "dataset": "digits",
        "source": "scikit-learn load_digits: UCI optical recognition of handwritten digits, test part",
        "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "binarization": "pixel >= 8 (of 0 to 16) is +1, else -1",
        "split": f"stratified {len(train)}/{len(validation)}/{len(test)}, RandomState({SPLIT_SEED})",
        "split_sha256": indices_sha256({"train": train, "validation": validation, "test": test}),
        "scikit-learn": str(sklearn.__version__),
    }
    classes = tuple(str(digit) for digit in range(10))
    return Dataset("digits", (8, 8), classes, train, validation, test, provenance, white=16)
