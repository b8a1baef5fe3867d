import gzip
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnnverify.datasets as datasets
from bnnverify.datasets import NAMES, indices_sha256, inputs_for, load, mnist, stratified_split
from bnnverify.errors import FormatError, QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock


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
    with pytest.raises(QueryError, match="there is no dataset 'mnits', expected one of: digits, mnist, fashion-mnist"):
        load("mnits")


def test_a_missing_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'bnnverify\[data\]'"):
        load("digits")


def test_the_repr_tells_the_sizes(digits):
    assert repr(digits) == "Dataset(digits, 8x8, 10 classes, 1200/200/397 images)"


# MNIST and Fashion-MNIST, with made-up images in their files.


def fake_arrays(n_train=120, n_test=10, seed=0):
    random = np.random.default_rng(seed)
    return {
        "train_images": random.integers(0, 256, (n_train, 28, 28), dtype=np.uint8),
        "train_labels": np.arange(n_train, dtype=np.uint8) % 10,
        "test_images": random.integers(0, 256, (n_test, 28, 28), dtype=np.uint8),
        "test_labels": np.arange(n_test, dtype=np.uint8) % 10,
    }


def write_idx(folder, arrays, dot="-", packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for part, (stem, _, axes) in mnist.PARTS.items():
        data = mnist.idx_bytes(arrays[part])
        name = f"{stem}{dot}idx{axes}-ubyte" + (".gz" if packed else "")
        (folder / name).write_bytes(gzip.compress(data, 1) if packed else data)


def write_npz(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{key: arrays[part] for part, (_, key, _) in mnist.PARTS.items()})


def pin(monkeypatch, arrays, name="mnist"):
    """Makes these arrays the official ones."""
    official = {"mnist": mnist.MNIST, "fashion-mnist": mnist.FASHION_MNIST}[name]
    monkeypatch.setitem(datasets._IN_FILES, name, replace(official, sha256=mnist.checksums(arrays)))


@pytest.fixture
def arrays(monkeypatch):
    monkeypatch.delenv("BNNVERIFY_DATA", raising=False)
    made = fake_arrays()
    pin(monkeypatch, made)
    return made


def same(dataset, arrays):
    """The test images are the official ones in order, the others a partition of the training images."""
    assert (dataset.test.pixels == arrays["test_images"].reshape(-1, 784)).all()
    assert (dataset.test.labels == arrays["test_labels"]).all()
    assert dataset.test.indices.tolist() == list(range(len(arrays["test_labels"])))
    dealt = np.concatenate([dataset.train.indices, dataset.validation.indices])
    assert sorted(dealt) == list(range(len(arrays["train_labels"])))
    for split in (dataset.train, dataset.validation):
        assert (split.pixels == arrays["train_images"][split.indices].reshape(-1, 784)).all()
        assert (split.labels == arrays["train_labels"][split.indices]).all()
    return True


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "."])
def test_idx_files_are_found_by_their_names_packed_or_not(tmp_path, arrays, folder, dot, packed):
    write_idx(tmp_path / folder, arrays, dot, packed)
    dataset = load("mnist", directory=tmp_path)
    assert same(dataset, arrays) and dataset.shape == (28, 28) and dataset.name == "mnist"
    assert repr(dataset) == "Dataset(mnist, 28x28, 10 classes, 110/10/10 images)"


@pytest.mark.parametrize("path", ["mnist.npz", "mnist/mnist.npz"])
def test_an_npz_file_of_keras_is_the_same_data_set_as_the_idx_files(tmp_path, arrays, path):
    write_npz(tmp_path / "a" / path, arrays)
    write_idx(tmp_path / "b" / "mnist", arrays)
    packed, plain = load("mnist", directory=tmp_path / "a"), load("mnist", directory=tmp_path / "b")
    assert same(packed, arrays) and packed.provenance == plain.provenance


def test_a_pixel_above_127_is_plus_one_and_arrays_are_read_only(tmp_path, arrays):
    arrays["test_images"][0, 0, :4] = 0, 127, 128, 255
    write_idx(tmp_path, arrays)
    dataset = load("mnist", directory=tmp_path, verify=False)
    assert dataset.test.images[0, :4].tolist() == [-1, -1, 1, 1]
    for split in dataset.splits.values():
        assert split.images.dtype == np.int8 and ((split.pixels > 127) == (split.images == 1)).all()
        assert not any(a.flags.writeable for a in (split.images, split.pixels, split.labels, split.indices))


def test_the_directory_is_the_argument_then_the_environment_then_data(tmp_path, arrays, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = {"argument": fake_arrays(seed=1), "environment": fake_arrays(seed=2), "data": fake_arrays(seed=3)}
    for name, made in others.items():
        write_idx(tmp_path / name / "mnist", made)
    monkeypatch.setenv("BNNVERIFY_DATA", str(tmp_path / "environment"))
    assert same(load("mnist", directory="argument", verify=False), others["argument"])
    assert same(load("mnist", verify=False), others["environment"])
    monkeypatch.delenv("BNNVERIFY_DATA")
    assert same(load("mnist", verify=False), others["data"])


def test_fashion_mnist_has_its_own_folder_and_names_of_clothes(tmp_path, arrays, monkeypatch):
    clothes = fake_arrays(seed=5)
    pin(monkeypatch, clothes, "fashion-mnist")
    write_idx(tmp_path / "mnist", arrays)
    write_idx(tmp_path / "fashion-mnist", clothes, packed=True)
    dataset = load("fashion-mnist", directory=tmp_path)
    assert same(dataset, clothes) and dataset.classes[9] == "Ankle boot" and len(dataset.classes) == 10


def test_missing_data_say_in_one_sentence_how_to_get_them(tmp_path, arrays):
    with pytest.raises(UnsupportedError) as caught:
        load("mnist", directory=tmp_path)
    text = str(caught.value)
    assert 'run "bnnverify data mnist"' in text and "--data-dir" in text and str(tmp_path / "mnist") in text
    assert "\n" not in text and ". " not in text.replace(str(tmp_path), "")


@pytest.mark.parametrize("part", mnist.PARTS)
def test_one_changed_byte_is_refused_with_both_checksums(tmp_path, arrays, part):
    right = mnist.checksums(arrays)[part]
    arrays[part].flat[3] ^= 1
    write_idx(tmp_path, arrays)
    wrong = mnist.checksums(arrays)[part]
    with pytest.raises(FormatError, match=f"{part.replace('_', ' ')} have sha256 {wrong}, expected {right}"):
        load("mnist", directory=tmp_path)
    other = load("mnist", directory=tmp_path, verify=False)
    assert same(other, arrays) and "unofficial" in other.provenance["source"]
    assert other.provenance["sha256"][part] == wrong


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: raw[:-1], r"holds 7839 bytes after its head, expected 7840 for \(10, 28, 28\)"),
        (lambda raw: raw + b"0", "holds 7841 bytes"),
        (lambda raw: b"\0\0\x0d\x03" + raw[4:], "starts with 00000d03, expected an idx file with 00000803"),
        (lambda raw: b"", "starts with nothing"),
        (lambda raw: raw[:6], "starts with 00000803"),
        (lambda raw: gzip.compress(raw)[:100], "cannot be unpacked"),
        (lambda raw: gzip.compress(raw)[:10] + b"\xff" * 50, "cannot be unpacked"),
        (lambda raw: raw[:7] + b"\x09" + raw[8:-784], r"9, 28, 28\) and 10 labels"),
    ],
)
def test_a_broken_idx_file_is_refused_by_name(tmp_path, arrays, spoil, message):
    write_idx(tmp_path, arrays)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(FormatError, match=message) as caught:
        load("mnist", directory=tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_images_of_another_size_or_labels_above_nine_are_refused(tmp_path, arrays):
    write_idx(tmp_path / "a", {**arrays, "test_images": np.zeros((10, 14, 14), dtype=np.uint8)})
    with pytest.raises(FormatError, match="of different sizes"):
        load("mnist", directory=tmp_path / "a")
    write_idx(tmp_path / "b", {**arrays, "test_labels": np.arange(1, 11, dtype=np.uint8)})
    with pytest.raises(FormatError, match="has a test label 10, expected 0 to 9"):
        load("mnist", directory=tmp_path / "b", verify=False)
    write_idx(tmp_path / "c", {**arrays, **fake_arrays(0, 10)})
    with pytest.raises(FormatError, match="train images of shape"):
        load("mnist", directory=tmp_path / "c", verify=False)


def test_a_broken_npz_file_is_refused_by_name(tmp_path, arrays):
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=arrays["train_images"])
    with pytest.raises(FormatError, match="expected x_train, y_train, x_test and y_test"):
        load("mnist", directory=tmp_path)
    write_npz(path, {**arrays, "test_images": arrays["test_images"] / 255})
    with pytest.raises(FormatError, match=r"x_test has shape .* and dtype float64, expected 3 axes of integers"):
        load("mnist", directory=tmp_path)
    write_npz(path, {**arrays, "test_labels": arrays["test_labels"].astype(np.int64) - 1})
    with pytest.raises(FormatError, match="y_test"):
        load("mnist", directory=tmp_path)
    write_npz(path, {**arrays, "test_labels": np.array([None] * 10)})
    with pytest.raises(FormatError, match=r"mnist\.npz: array .y_test.: has dtype object"):
        load("mnist", directory=tmp_path)
    np.save(tmp_path / "one.npy", arrays["test_images"])
    for data in (b"", b"no", path.read_bytes()[:500], (tmp_path / "one.npy").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"mnist\.npz: is not a readable archive"):
            load("mnist", directory=tmp_path)


@given(st.binary(max_size=60), st.sampled_from([1, 3]))
def test_any_bytes_are_an_idx_file_or_a_format_error(data, axes):
    try:
        array = mnist.parse_idx(data, "file", axes)
    except FormatError:
        return
    assert mnist.idx_bytes(array) == data


@given(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(0, 255))
def test_idx_bytes_are_read_back(shape, value):
    array = np.full(shape, value, dtype=np.uint8)
    back = mnist.parse_idx(mnist.idx_bytes(array), "file", len(shape))
    assert back.shape == array.shape and (back == array).all()


SPLITS = {
    "mnist": "b432c7f017466c906234a8cfc6f6f3906b1aa3051cde2b827df353081c10ca41",
    "fashion-mnist": "c74408f10855ccc0a88c40809f89b6bdd637db0278c9a3ec6f317c0a4801015b",
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_real_files_have_the_pinned_checksums_and_split(name):
    root = Path(__file__).resolve().parents[1] / "data"
    if mnist.find(datasets._IN_FILES[name], root) is None:
        pytest.skip(f"{name} is not in {root}; make data obtains it")
    dataset = load(name, directory=root)
    assert [len(split) for split in dataset.splits.values()] == [55000, 5000, 10000]
    assert indices_sha256(dataset.splits) == dataset.provenance["split_sha256"] == SPLITS[name]
    if name == "mnist":  # the first test image is a seven
        assert dataset.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    share = np.bincount(dataset.train.labels) / 11 - np.bincount(dataset.validation.labels)
    assert np.abs(share).max() <= 1


# What a network takes.


def test_a_network_gets_signs_or_pixels_as_its_domain_says(digits):
    output = OutputBlock.create(np.ones((2, 64), dtype=np.int8))
    for domain, expected in [
        (InputDomain.binary(64), digits.test.images),
        (InputDomain.integers([0] * 64, [16] * 64), digits.test.pixels),
    ]:
        assert inputs_for(domain, digits.test) is expected
        assert inputs_for(BinaryNetwork(domain, (), output), digits.test) is expected
        domain.require_batch(inputs_for(domain, digits.test))


def test_images_that_do_not_fit_the_domain_are_refused(digits):
    with pytest.raises(QueryError, match="the images have 64 pixels, but the network takes 784 inputs"):
        inputs_for(InputDomain.binary(784), digits.test)
    with pytest.raises(QueryError, match="pixel 2 of the images goes from 0 to 16, but the network takes 0 to 15"):
        inputs_for(InputDomain.integers([0] * 64, [15] * 64), digits.test)
    with pytest.raises(QueryError, match="pixel 0 of the images goes from 0 to 0, but the network takes 1 to 16"):
        inputs_for(InputDomain.integers([1] * 64, [16] * 64), digits.test)


def test_the_names_are_those_that_load_knows():
    assert NAMES == ("digits", "mnist", "fashion-mnist")
