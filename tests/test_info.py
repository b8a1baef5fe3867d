"""`bnnverify info` on networks with convolutions."""

import contextlib
import io
import json

import numpy as np
import pytest

from bnnverify.cli import main
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock


@pytest.fixture
def path(tmp_path):
    first = ConvBlock.create(
        np.ones((4, 1, 3, 3)),
        [0, 1, 2, 3],
        input_shape=(1, 6, 6),
        padding=1,
        pad_value=-1,
        pool=2,
        negated=np.array([True, False, False, True]),
        conjunction=np.array([True, False, False, True]),
    )
    second = ConvBlock.create(np.ones((2, 4, 2, 2)), [0, 1], input_shape=(4, 3, 3))
    dense = DenseBlock.create(np.ones((5, 8)), [0] * 5)
    output = OutputBlock.create(np.ones((3, 5)))
    network = BinaryNetwork(InputDomain.binary(36, (6, 6)), (first, second, dense), output)
    save(network, tmp_path / "conv.npz")
    return tmp_path / "conv.npz"


def printed(*words):
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        assert main([str(word) for word in words]) == 0
    return stdout.getvalue()


def test_the_table_shows_costs_and_geometry(path):
    text = printed("info", path)
    assert "1x6x6-4c3p1-mp2-2c2-5-3  signs -1/+1 (6x6)  123 cells" in text
    assert "4x3x3             36       4  0.02       1,296           -" in text
    assert (
        "0..3           2            4 filters 3x3, stride 1x1, padding 1x1 of -1, max over 2x2, 2 of them conjunctions"
        in text
    )
    assert "0..1           0            2 filters 2x2, stride 1x1\n" in text


def test_the_json_line_has_geometry_costs_and_totals(path):
    answer = json.loads(printed("info", path, "--json"))["answer"]
    assert [block["kind"] for block in answer["blocks"]] == ["conv", "conv", "dense", "output"]
    first = answer["blocks"][0]
    assert (first["kernel"], first["padding"], first["pad_value"], first["pool"]) == ([3, 3], [1, 1], -1, [2, 2])
    assert (first["conjunctions"], first["negated"], first["output_shape"]) == (2, 2, [4, 3, 3])
    assert first["binary_macs"] == 36 * 36
    assert answer["totals"]["binary_weights"] == 123 == sum(block["cells"] for block in answer["blocks"])
    assert answer["totals"]["macs"] == 36 * 36 + 4 * 32 + 40 + 15
