import sys

import numpy as np
import pytest

from bnnverify.datasets import indices_sha256, load, stratified_split
from bnnverify.errors import QueryError, UnsupportedError


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_the_split_of_the_digits_is_pinned(digits):
    expected = "d3170b05114af589c4c91e3d98c045f1e769b62d0dd8d2376a970ffad61c07eb"
    assert indices_sha256(digits.splits) == expected
    assert digits.provenance["split_sha256"] == expected
    # the images themselves: another edition of the set would be another data set
    assert digits.provenance["pixels_sha256"] == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"


def test_the_splits_are_disjoint_complete_and_of_the_documented_sizes(digits):
    indices = [split.indices for split in digits.splits.values()]
    assert [len(i) for i in indices] == [1200, 200, 397]
    assert sorted(np.concatenate(indices)) == list(range(1797))


def test_every_class_has_its_share_of_every_split(digits):
    total = np.bincount(np.concatenate([s.labels for s in digits.splits.values()]))
    for split in digits.splits.values():
        assert np.abs(np.bincount(split.labels) - total * len(split) / 1797).max() <= 1


def test_an_image_is_its_pixels_compared_with_eight(digits):
    for split in digits.splits.values():
        assert split.images.dtype == np.int8 and split.images.shape == (len(split), 64)
        assert split.pixels.dtype == np.uint8 and split.pixels.max() == 16
        assert ((split.pixels >= 8) == (split.images == 1)).all()
        assert set(np.unique(split.images)) == {-1, 1}


def test_rows_keep_the_number_of_the_original_image(digits):
    from sklearn.datasets import load_digits

    original = load_digits()
    for split in digits.splits.values():
        assert (original.data[split.indices] == split.pixels).all()
        assert (original.target[split.indices] == split.labels).all()


def test_arrays_are_read_only(digits):
    with pytest.raises(ValueError, match="read-only"):
        digits.test.images[0, 0] = 1


def test_the_split_follows_its_definition_written_as_loops():
    labels = np.array([1, 0, 0, 2, 1, 0, 2, 2, 0, 1, 0])
    random, keyed = np.random.RandomState(7), []
    for label in range(3):
        members = [i for i, other in enumerate(labels) if other == label]
        for rank, image in enumerate(random.permutation(members)):
            keyed.append(((rank + 0.5) / len(members), label, int(image)))
    order = [image for _, _, image in sorted(keyed)]
    first, second, rest = stratified_split(labels, (4, 3), seed=7)
    assert [*first, *second, *rest] == order
    assert (len(first), len(second), len(rest)) == (4, 3, 4)


def test_a_split_larger_than_the_set_is_refused():
    with pytest.raises(QueryError, match="takes 5 images, but there are 3"):
        stratified_split(np.zeros(3, dtype=np.int64), (5,), seed=0)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(QueryError, match="there is no dataset 'mnits', expected one of: digits"):
        load("mnits")


def test_a_missing_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'bnnverify\[data\]'"):
        load("digits")


def test_the_repr_tells_the_sizes(digits):
    assert repr(digits) == "Dataset(digits, 8x8, 10 classes, 1200/200/397 images)"
