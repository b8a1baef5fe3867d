import numpy as np
import pytest

from bnnverify.confidence import clopper_pearson
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt
from bnnverify.training import TrainingConfig, train
from bnnverify.training.faults import Injection
from bnnverify.training.randomness import Randomness

SIGNS = np.where(np.random.RandomState(0).rand(200, 250) < 0.5, -1, 1).astype(np.int8)


def within(hits, trials, p):
    band = clopper_pearson(hits, trials, confidence=1 - 1e-9)
    return float(band.lower) <= p <= float(band.upper)


def wrong_by_sign(read, cells):
    return [int(np.count_nonzero(read[cells == sign] != sign)) for sign in (1, -1)]


@pytest.mark.parametrize(
    ("model", "plus", "minus"),
    [(BitFlip("0.1"), 0.1, 0.1), (AsymmetricFlip("0.05", "0.3"), 0.3, 0.05), (StuckAt("0.2", "0.1"), 0.1, 0.2)],
)
@pytest.mark.parametrize("draw", ["chip", "step"])
def test_cells_read_wrong_at_the_rates_of_the_model(model, plus, minus, draw):
    (read,) = Injection(model, draw, Randomness(1)).read([SIGNS])
    wrong_plus, wrong_minus = wrong_by_sign(read, SIGNS)
    assert within(wrong_plus, int((SIGNS == 1).sum()), plus)
    assert within(wrong_minus, int((SIGNS == -1).sum()), minus)
    assert set(np.unique(read)) == {-1, 1}


def test_a_chip_keeps_its_faults_and_a_step_draws_new_ones():
    chip, step = (Injection(BitFlip("0.1"), draw, Randomness(1)) for draw in ("chip", "step"))
    assert (chip.read([SIGNS])[0] == chip.read([SIGNS])[0]).all()
    assert (step.read([SIGNS])[0] != step.read([SIGNS])[0]).any()


def test_a_stuck_cell_reads_the_same_whatever_is_stored():
    chip = Injection(StuckAt("0.2", "0.1"), "chip", Randomness(1))
    (as_is,), (negated,) = chip.read([SIGNS]), chip.read([-SIGNS])
    stuck = as_is == negated
    assert within(int((as_is[stuck] == 1).sum()), SIGNS.size, 0.2)
    assert within(int((as_is[stuck] == -1).sum()), SIGNS.size, 0.1)
    assert (as_is[~stuck] == SIGNS[~stuck]).all()


def test_blocks_have_their_own_rates_and_draws():
    model = PerBlock((BitFlip(0), BitFlip("0.5"), BitFlip("0.5")))
    reads = Injection(model, "chip", Randomness(1)).read([SIGNS, SIGNS, SIGNS])
    assert (reads[0] == SIGNS).all()
    assert (reads[1] != reads[2]).any()


def test_the_draw_is_part_of_the_state():
    chip = Injection(BitFlip("0.1"), "chip", Randomness(1))
    other = Injection(BitFlip("0.1"), "chip", Randomness(2))
    other.restore(chip.state())
    assert (other.read([SIGNS])[0] == chip.read([SIGNS])[0]).all()


def test_training_under_faults_differs_and_evaluation_reads_clean_cells(toy):
    config = TrainingConfig(hidden=(8,), epochs=2, batch_size=20)
    clean = train(config, toy, progress=False)
    for draw in ("chip", "step"):
        noisy = TrainingConfig(hidden=(8,), epochs=2, batch_size=20, faults=BitFlip("0.2"), fault_draw=draw)
        trained = train(noisy, toy, progress=False)
        assert trained.history != clean.history
        assert set(trained.model.hidden[0].weight.detach().unique().tolist()) == {-1.0, 1.0}
    always = TrainingConfig(hidden=(8,), epochs=1, batch_size=20, faults=BitFlip(0))
    assert train(always, toy, progress=False).history[0]["loss"] == pytest.approx(clean.history[0]["loss"], rel=0.5)
