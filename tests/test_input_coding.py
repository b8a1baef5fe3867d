"""A fixed binarization of the inputs in front of a network has no cells, whatever is asked about cells."""

import json

import numpy as np
import pytest

from bnnverify import bit_flip_distance, load, save
from bnnverify.engines.chipsampling import sample_chips
from bnnverify.engines.flips import chip_seeds, faulty_network
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.errors import ModelError, QueryError
from bnnverify.faults import BitFlip, PerBlock, PerRead
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import (
    block_sensitivity,
    certified_range,
    critical_cells,
    error_probability,
    exact_error_probability,
    expected_accuracy,
    fault_coefficients,
    fault_enumerator,
    flip_distances,
)
from bnnverify.reliability.probability import FaultyNetwork
from tests import oracle
from tests.test_cli import run  # noqa: F401

CODER = ConvBlock.create([[[[1]]]], [100], input_shape=(1, 1, 4))
BLOCKS = (CODER, DenseBlock.create([[1, -1, 1, 1], [1, 1, -1, 1]], [0, 1]))
OUTPUT = OutputBlock.create([[1, 1], [-1, 1]], bias=[0, 1])
PIXELS = InputDomain.integers([0] * 4, [255] * 4, (2, 2))
NET = BinaryNetwork(PIXELS, BLOCKS, OUTPUT, input_coding=True)
SIGNS = BinaryNetwork(InputDomain.binary(4), BLOCKS[1:], OUTPUT)
IMAGES = [[0, 200, 100, 99], [255, 100, 0, 13]]
CODED = [[-1, 1, 1, -1], [1, 1, -1, -1]]
LABELS = [NET.evaluate(x) for x in IMAGES]
FAULTS = BitFlip("0.1")


def test_it_has_no_cells_and_the_same_identity():
    without = BinaryNetwork(PIXELS, BLOCKS, OUTPUT)
    assert NET.identity == without.identity and NET.cells_identity != without.cells_identity
    assert NET.n_cells == SIGNS.n_cells == without.n_cells - 1
    network, coded = NET.behind_coding(IMAGES)
    assert network == SIGNS and coded.tolist() == CODED
    assert without.behind_coding(IMAGES)[0] is without


@pytest.mark.parametrize(
    "ask",
    [
        lambda net, x: error_probability(net, x[0], LABELS[0], FAULTS),
        lambda net, x: exact_error_probability(net, x[0], LABELS[0], PerBlock((FAULTS, BitFlip(0)))),
        lambda net, x: fault_enumerator(net, x[0], LABELS[0]),
        lambda net, x: fault_coefficients(net, x[0], LABELS[0], order=2).counts,
        lambda net, x: bit_flip_distance(net, x[0], LABELS[0]).witness,
        lambda net, x: [d.witness for d in flip_distances(net, x, LABELS).per_image],
        lambda net, x: expected_accuracy(net, x, LABELS, FAULTS).per_image,
        lambda net, x: certified_range(net, x, LABELS, "0.6").p_ok,
        lambda net, x: str(block_sensitivity(net, images=x, labels=LABELS, model=FAULTS)),
        lambda net, x: critical_cells(net, x, LABELS).ranking(5, "breaks"),
        lambda net, x: sample_errors(net, x, LABELS, FAULTS, samples=50).hits,
        lambda net, x: sample_errors(net, x, LABELS, PerRead(FAULTS), samples=50).hits,
        lambda net, x: sample_chips(net, x, LABELS, FAULTS, chips=50).correct,
    ],
)
def test_every_question_about_cells_is_that_of_the_network_behind_it(ask):
    assert ask(NET, IMAGES) == ask(SIGNS, CODED)


def test_the_exact_probability_is_that_of_all_flip_patterns_behind_it():
    truth = oracle.error_probability(SIGNS, CODED[0], LABELS[0], FAULTS)
    assert exact_error_probability(NET, IMAGES[0], LABELS[0], FAULTS) == truth


def test_a_chip_is_rebuilt_with_its_coding():
    (seed,) = chip_seeds(3, 0, 1)
    chip, held = faulty_network(NET, FAULTS, seed), faulty_network(SIGNS, FAULTS, seed)
    assert chip.input_coding and chip.blocks[0] is CODER
    assert chip.evaluate_batch(IMAGES).tolist() == held.evaluate_batch(CODED).tolist()


def test_models_of_blocks_do_not_count_it():
    with pytest.raises(QueryError, match="the fault model has 3 blocks, but the network has 2"):
        error_probability(NET, IMAGES[0], 0, PerBlock((FAULTS,) * 3))
    with pytest.raises(QueryError, match="has no cells"):
        FaultyNetwork(NET, FAULTS)


@pytest.mark.parametrize("blocks", [(), BLOCKS[1:], (ConvBlock.create([[[[1, 1]]]], [1], input_shape=(1, 1, 4)),)])
def test_only_one_sign_of_each_input_is_a_coding(blocks):
    width = blocks[-1].n_outputs if blocks else 4
    with pytest.raises(ModelError, match="expected a first block that makes one sign of each input"):
        BinaryNetwork(PIXELS, blocks, OutputBlock.create([[1] * width, [-1] * width]), input_coding=True)


def test_a_file_keeps_it_and_a_changed_file_is_refused(tmp_path):
    save(NET, tmp_path / "net.npz")
    again = load(tmp_path / "net.npz")
    assert again.input_coding and again.cells_identity == NET.cells_identity
    save(BinaryNetwork(PIXELS, BLOCKS, OUTPUT), tmp_path / "cell.npz")
    assert not load(tmp_path / "cell.npz").input_coding


def test_commands_say_so_and_number_the_blocks_behind_it(tmp_path, monkeypatch, run):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    save(NET, "net.npz")
    np.save("x.npy", np.array(IMAGES))
    code, out, _ = run("info", "net.npz")
    assert code == 0 and "12 cells" in out and "block 0 codes the inputs: a fixed threshold for each, no cells" in out
    asked = ("reliability", "net.npz", "--input", "x.npy", "--critical", "30")
    code, out, _ = run(*asked)
    assert code == 0 and "12 cells" in out and "the first block codes the inputs and has no cells" in out
    code, out, _ = run(*asked, "--json")
    (answer,) = (json.loads(line)["answer"] for line in out.splitlines())
    assert [entry["cell"] for entry in answer["ranking"]] == [
        list(cell) for cell, _ in critical_cells(SIGNS, CODED, LABELS).ranking(30, "breaks")
    ]
    code, _, err = run("reliability", "net.npz", "--input", "x.npy", "--ber", "0.1", "--only-block", "2")
    assert code == 2 and "block 2 does not exist, expected 0 to 1" in err
