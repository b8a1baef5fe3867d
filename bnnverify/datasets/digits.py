"""The handwritten digits that scikit-learn ships: 8x8 pixels, nothing to obtain.

References:
    E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository,
    1998. https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.datasets.splits import SPLIT_SEED, Dataset, indices_sha256, part_of, stratified_split
from bnnverify.errors import UnsupportedError


def load_digits() -> Dataset:
    """The 1797 digits: 1200 for training, 200 for validation, the rest for the test.

    Raises:
        UnsupportedError: scikit-learn is not installed.
    """
    pixels, labels, version = _shipped()
    images = np.where(pixels >= 8, 1, -1).astype(np.int8)
    parts = stratified_split(labels, (1200, 200), seed=SPLIT_SEED)
    train, validation, test = (part_of(images, pixels, labels, part, white=16) for part in parts)
    provenance = {
        "dataset": "digits",
        "source": "scikit-learn load_digits: UCI optical recognition of handwritten digits, test part",
        "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "binarization": "pixel >= 8 (of 0 to 16) is +1, else -1",
        "split": f"stratified {len(train)}/{len(validation)}/{len(test)}, RandomState({SPLIT_SEED})",
        "split_sha256": indices_sha256({"train": train, "validation": validation, "test": test}),
        "scikit-learn": version,
    }
    classes = tuple(str(digit) for digit in range(10))
    return Dataset("digits", (8, 8), classes, train, validation, test, provenance)


_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"  # of digits.csv.gz


def _shipped() -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """Pixels, labels, and the version of scikit-learn, whose file is read without the second that its import takes."""
    try:
        spec = util.find_spec("sklearn")
        path = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")  # type: ignore[union-attr,index]
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == _SHA256:
            rows = np.array(list(csv.reader(gzip.decompress(data).decode().splitlines())), dtype=np.float64)
            return rows[:, :-1].astype(np.uint8), rows[:, -1].astype(np.int64), metadata.version("scikit-learn")
    except (AttributeError, TypeError, LookupError, OSError, metadata.PackageNotFoundError):
        pass  # installed in another way, or not at all
    try:
        import sklearn
        from sklearn.datasets import load_digits as images_of_sklearn
    except ImportError as error:
        raise UnsupportedError(
            "the digits come with scikit-learn, which is not installed. Run: pip install 'bnnverify[data]'"
        ) from error
    bunch: Any = images_of_sklearn()
    return np.asarray(bunch.data).astype(np.uint8), np.asarray(bunch.target, dtype=np.int64), str(sklearn.__version__)
