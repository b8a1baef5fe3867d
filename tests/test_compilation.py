"""Compiled loops: kept where one can write, made again where the file is damaged or the source has changed."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from bnnverify import cli, compilation
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock

ROOT = Path(__file__).parent.parent

FAR = """
from bnnverify.compilation import njit

FACTOR = {}

@njit
def far(x):
    return FACTOR * x
"""
NEAR = """
from bnnverify.compilation import njit
from far import far

@njit(nogil=True)
def near(x):
    return far(x) + 1
"""
CALL = "import far, near; print(near.near(3)); print(sum(near.near.stats.cache_hits.values()))"


def write_loops(folder, factor=2):
    (folder / "far.py").write_text(FAR.format(factor))
    (folder / "near.py").write_text(NEAR)


def called(folder, code=CALL, **environment):
    """What two lines a process printed that calls a loop: its answer, and loops taken from files."""
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-W", "always", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.fixture
def loops(tmp_path):
    folder = tmp_path / "loops"
    folder.mkdir()
    write_loops(folder)
    return folder


def kept(cache):
    return sorted(cache.rglob("near.near*.nbc"))


def test_a_loop_is_kept_for_the_next_process(loops, tmp_path):
    cache = tmp_path / "cache"
    assert called(loops, NUMBA_CACHE_DIR=str(cache)) == (["7", "0"], "")
    assert called(loops, NUMBA_CACHE_DIR=str(cache)) == (["7", "1"], "")


def test_a_loop_is_made_again_when_one_that_it_calls_or_a_constant_has_changed(loops, tmp_path):
    cache = tmp_path / "cache"
    called(loops, NUMBA_CACHE_DIR=str(cache))
    write_loops(loops, factor=5)
    assert called(loops, NUMBA_CACHE_DIR=str(cache)) == (["16", "0"], "")
    assert len(kept(cache)) == 1  # the old one is gone
    (loops / "near.py").write_text("# moved\n\n" + (loops / "near.py").read_text())
    os.utime(loops / "far.py")
    assert called(loops, NUMBA_CACHE_DIR=str(cache)) == (["16", "1"], "")


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "directory"])
def test_a_damaged_file_counts_as_absent_and_is_replaced(loops, tmp_path, damage):
    cache = tmp_path / "cache"
    called(loops, NUMBA_CACHE_DIR=str(cache))
    (path,) = kept(cache)
    data = path.read_bytes()
    if damage == "directory":
        path.unlink()
        path.mkdir()
    else:
        flipped = data[:200] + bytes([data[200] ^ 1]) + data[201:]
        foreign = b"not a pickle of numba"
        new = {"cut": data[: len(data) // 2], "flipped": flipped}
        path.write_bytes(new.get(damage, hashlib.sha256(foreign).digest() + foreign))
    answer, _ = called(loops, NUMBA_CACHE_DIR=str(cache))
    assert answer == ["7", "0"]
    if damage != "directory":
        assert called(loops, NUMBA_CACHE_DIR=str(cache)) == (["7", "1"], "")


@pytest.fixture
def installed(tmp_path):
    """A copy of the package that cannot keep anything beside its files, in an environment without other folders."""
    shutil.copytree(ROOT / "bnnverify", tmp_path / "bnnverify", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "bnnverify" / "__pycache__").write_text("in the way: root may write to read-only folders")
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "below")
    (tmp_path / "tmp").mkdir()
    return {"XDG_CACHE_HOME": nowhere, "HOME": nowhere, "LOCALAPPDATA": nowhere, "TMPDIR": str(tmp_path / "tmp")}


def test_without_a_folder_in_the_package_the_users_is_taken(loops, tmp_path, installed):
    places = installed | {"PYTHONPATH": f"{loops}{os.pathsep}{tmp_path}", "XDG_CACHE_HOME": str(tmp_path / "home")}
    assert called(loops, **places) == (["7", "0"], "")
    assert called(loops, **places) == (["7", "1"], "")
    assert len(kept(tmp_path / "home")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="folders of Windows have no modes")
def test_without_a_home_a_private_temporary_folder_is_taken(loops, tmp_path, installed):
    places = installed | {"PYTHONPATH": f"{loops}{os.pathsep}{tmp_path}"}
    assert called(loops, **places) == (["7", "0"], "")
    assert called(loops, **places) == (["7", "1"], "")
    (path,) = kept(tmp_path / "tmp")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.chmod(0o777)  # somebody else could have put code there
    answer, said = called(loops, **places)
    assert answer == ["7", "0"] and said.count("no folder for compiled loops can be written") == 1


WORDS = ("count", "net.npz", "--input", "x.txt", "--radius", "12", "--engine", "enumeration")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    block = DenseBlock.create(rng.choice([-1, 1], (9, 24)), np.zeros(9))
    output = OutputBlock.create(rng.choice([-1, 1], (3, 9)))
    save(BinaryNetwork(InputDomain.binary(24), (block,), output), tmp_path / "net.npz")
    (tmp_path / "x.txt").write_text("1" * 24)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_command_says_in_one_sentence_that_loops_cannot_be_kept(monkeypatch, capsys):
    def run(words, where):
        warnings.simplefilter("default")
        compilation._warn_once.__wrapped__()
        return 0

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(["info"]) == 0
    assert capsys.readouterr().err == (
        "bnnverify: no folder for compiled loops can be written, so they are compiled by every process. "
        "Set NUMBA_CACHE_DIR to a folder that can be written.\n"
    )


def test_a_command_without_a_compiler_is_refused_in_one_sentence(workplace):
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "bnnverify", *WORDS], capture_output=True, text=True, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("bnnverify count: NUMBA_DISABLE_JIT is set, but ") and done.stderr.count("\n") == 1
