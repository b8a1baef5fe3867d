"""Which images the verbs take: data sets in files, pixels for integer inputs, one's own files."""

import json

import numpy as np
import pytest

from bnnverify.cli import main
from bnnverify.cli.images import choose
from bnnverify.datasets import NAMES, load
from bnnverify.errors import FormatError, QueryError
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from tests.test_datasets import fake_arrays, pin, write_idx


def network(n=784, *, top=None):
    random = np.random.default_rng(0)
    domain = InputDomain.binary(n) if top is None else InputDomain.integers([0] * n, [top] * n)
    hidden = DenseBlock.create(random.choice([-1, 1], (4, n)), random.integers(-9, 9, 4))
    return BinaryNetwork(domain, (hidden,), OutputBlock.create(random.choice([-1, 1], (10, 4))))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with made-up images as mnist, and networks for them and for the digits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNNVERIFY_DATA", raising=False)
    arrays = fake_arrays()
    pin(monkeypatch, arrays)
    write_idx(tmp_path / "files" / "mnist", arrays)
    save(network(), "signs.npz")
    save(network(top=255), "pixels.npz")
    save(network(64, top=16), "digits.npz")
    return arrays


@pytest.fixture
def run(capsys):
    """Runs a command; gives exit code, stdout and stderr."""

    def call(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("verb", [["verify", "--radius", 1], ["count", "--radius", 1], ["distance", "--max-radius", 1]])
def test_the_verbs_take_images_of_mnist(workplace, run, verb):
    code, out, err = run(*verb, "signs.npz", "--data", "mnist", "--data-dir", "files", "--index", "3", "--json", "-q")
    assert (code in (0, 3), err) == (True, "")
    line = json.loads(out)
    assert line["image"]["label"] == workplace["test_labels"][3]
    assert line["image"]["input"] == np.where(workplace["test_images"][3].ravel() > 127, 1, -1).tolist()
    assert line["data"]["name"] == "mnist" and line["data"]["provenance"]["source"] == "the official MNIST"


def test_the_environment_names_the_directory_too(workplace, run, monkeypatch, tmp_path):
    words = ("verify", "signs.npz", "--data", "mnist", "--radius", 0)
    code, _, err = run(*words)
    assert code == 2 and 'run "bnnverify data mnist" to obtain it' in err and len(err.splitlines()) == 1
    monkeypatch.setenv("BNNVERIFY_DATA", str(tmp_path / "files"))
    assert run(*words)[0] == 0


def test_a_network_of_integer_inputs_gets_the_pixels(workplace, run):
    net = network(top=255)
    words = ("--data", "mnist", "--data-dir", "files", "--ber", "0", "--samples", 2, "--only-samples", "--json")
    code, out, _ = run("reliability", "pixels.npz", *words, "-q")
    right = net.evaluate_batch(workplace["test_images"].reshape(-1, 784)) == workplace["test_labels"]
    assert code == 0 and json.loads(out)["images"]["clean_correct"] == right.sum()
    chosen = choose(net, data="mnist", data_dir="files", split="train", index="5", input_file=None)
    number = chosen.images[0].original
    assert chosen.images[0].x == tuple(workplace["train_images"][number].ravel().tolist())


def test_digits_are_pixels_from_0_to_16_there():
    chosen = choose(network(64, top=16), data="digits", split="test", index=None, input_file=None)
    assert chosen.images[0].x == tuple(load("digits").test.pixels[0].tolist())
    with pytest.raises(QueryError, match="pixel 1 of the images goes from 0 to 6, but the network takes 0 to 4"):
        choose(network(64, top=4), data="digits", split="test", index=None, input_file=None)


def test_questions_about_regions_refuse_integer_inputs_in_one_sentence(workplace, run):
    code, out, err = run("verify", "digits.npz", "--data", "digits", "--radius", 1)
    assert (code, out) == (2, "") and "digits.npz takes integer inputs" in err


def test_a_file_of_integers_is_checked_against_the_bounds(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(6, dtype=np.uint8).reshape(2, 3))
    (tmp_path / "picture.txt").write_text("0 5\n3 1\n")
    options = {"data": None, "split": "test", "index": None}
    rows = choose(network(3, top=5), input_file=str(tmp_path / "rows.npy"), **options).images
    assert [image.x for image in rows] == [(0, 1, 2), (3, 4, 5)]
    (one,) = choose(network(4, top=5), input_file=str(tmp_path / "picture.txt"), **options).images
    assert one.x == (0, 5, 3, 1)
    with pytest.raises(FormatError, match=r"rows.npy: row 1: input\[2\] is 5, expected 0 to 4"):
        choose(network(3, top=4), input_file=str(tmp_path / "rows.npy"), **options)
    with pytest.raises(QueryError, match="the images have 3 pixels, but the network takes 2 inputs"):
        choose(network(2, top=5), input_file=str(tmp_path / "rows.npy"), **options)
    np.save(tmp_path / "half.npy", np.array([[0.5, 1, 2]]))
    with pytest.raises(FormatError, match=r"half.npy: inputs\[0, 0\] is 0.5, expected an integer"):
        choose(network(3, top=5), input_file=str(tmp_path / "half.npy"), **options)


def test_the_help_names_every_data_set(run):
    for verb in ("verify", "count", "distance", "reliability"):
        text = " ".join(run(verb, "--help")[1].split())
        assert all(name in text for name in NAMES) and "--data-dir" in text
    code, out, _ = run("data", "--help")
    assert code == 0 and "  bnnverify data " in out and "Examples:" in out
