import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bnnverify.datasets import Dataset, Split, load  # noqa: E402

torch.set_num_threads(1)  # nothing here is worth a second thread


def make_split(n_images, n_inputs, seed):
    random = np.random.RandomState(seed)
    images = np.where(random.rand(n_images, n_inputs) < 0.5, -1, 1).astype(np.int8)
    labels = (images[:, :3].sum(axis=1) > 0).astype(np.int64) + (images[:, 3] > 0)
    pixels = (images > 0).astype(np.uint8)
    return Split(images, pixels, labels, np.arange(n_images))


@pytest.fixture(scope="session")
def toy():
    """Three classes that four of nine pixels determine; trains in a fraction of a second."""
    splits = [make_split(n, 9, seed) for n, seed in ((120, 0), (60, 1), (60, 2))]
    return Dataset("toy", (3, 3), ("a", "b", "c"), *splits, {"dataset": "toy"})


@pytest.fixture(scope="session")
def digits():
    """The built-in digits."""
    return load("digits")
