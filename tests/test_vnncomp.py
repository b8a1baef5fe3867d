"""The scripts of the VNN competition, with a stand-in for the program."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "vnncomp"


@pytest.fixture
def program(tmp_path):
    """A script in the place of bnnverify that keeps its arguments and does what `body` says."""

    def make(body):
        path = tmp_path / "program"
        path.write_text(
            f'#!/bin/sh\necho "$@" >"{tmp_path}/arguments"\nwhile [ "$1" != --result ]; do shift; done\n{body}\n'
        )
        path.chmod(0o755)
        return path

    return make


def run(script, program, *arguments):
    environment = {**os.environ, "BNNVERIFY": str(program), "JOBS": "2"}
    code = ["bash", str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(code, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("body", "limit", "result", "code"),
    [
        ('printf "sat\\n((X_0 1)\\n(Y_0 2))\\n" >"$2"', 60, "sat\n((X_0 1)\n(Y_0 2))\n", 0),
        ('echo unknown >"$2"; exit 3', 60, "unknown\n", 0),
        ("exit 2", 60, "error\n", 1),
        ("exec sleep 30", 1, "timeout\n", 0),
    ],
)
def test_an_instance_leaves_its_result(tmp_path, program, body, limit, result, code):
    results = tmp_path / "results.txt"
    results.write_text("sat\n")  # of another instance
    done = run("run_instance.sh", program(body), "v1", "traffic", "m.onnx", "p.vnnlib", results, limit)
    assert (results.read_text(), done.returncode) == (result, code)
    seconds = max(limit - 2, 1)
    expected = f"verify m.onnx p.vnnlib --timeout {seconds} --jobs 2 --result {results}"
    assert (tmp_path / "arguments").read_text().strip() == expected


def test_a_wrong_call_is_refused(tmp_path, program):
    for script in ("run_instance.sh", "prepare_instance.sh", "install_tool.sh"):
        done = run(script, program(""), "v2", "traffic")
        assert done.returncode == 1 and f"{script}: expected " in done.stderr


def test_an_instance_that_cannot_be_read_is_not_prepared(tmp_path, program):
    done = run("prepare_instance.sh", program(""), "v1", "traffic", tmp_path / "none.onnx", tmp_path / "none.vnnlib")
    assert done.returncode == 1 and "cannot read" in done.stderr
