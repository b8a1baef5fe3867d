import io
import json
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
import torch

from bnnverify.datasets import Split, load
from bnnverify.errors import EngineError, QueryError
from bnnverify.training import TrainedModel, TrainingConfig, export, train
from bnnverify.training.export import accuracies, check_agreement
from bnnverify.training.loop import _Run
from bnnverify.training.losses import loss_of
from bnnverify.training.model import BinaryModel
from bnnverify.training.randomness import Randomness, moved, uniforms

QUICK = {"hidden": (8,), "epochs": 4, "batch_size": 20}
VARIANTS = {
    "ste": TrainingConfig.for_rule("ste", **QUICK),
    "ste, batch norm, two blocks": TrainingConfig.for_rule("ste", **(QUICK | {"hidden": (8, 6)}), batch_norm=True),
    "ste, no biases": TrainingConfig.for_rule("ste", **QUICK, bias=False, output_bias=False),
    "ste, no hidden block": TrainingConfig.for_rule("ste", **(QUICK | {"hidden": ()})),
    "ss-ema": TrainingConfig.for_rule("ss-ema", **QUICK),
    "ss-ema, squared hinge": TrainingConfig.for_rule("ss-ema", **QUICK, batch_norm=False, loss="squared-hinge"),
}


def model_of(widths, **options):
    assert widths[0] == 9
    return BinaryModel(widths[1:-1], (3, 3), widths[-1], random=Randomness(0), **options)


def trained_with(model, dataset, config=None):
    record = {"epoch": 1, "loss": 0.0, "train_accuracy": 0.0, "validation_accuracy": 0.0, "flip_ratio": 0.0}
    return TrainedModel(model.eval(), config or TrainingConfig(), dataset, 1, (record,), False, 0.0)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_same_seed_gives_the_same_network_and_another_seed_another(toy, config):
    one, two = (export(train(config, toy, progress=False)) for _ in range(2))
    other = export(train(replace(config, seed=1), toy, progress=False))
    assert one.identity == two.identity != other.identity
    assert one.provenance == two.provenance


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_export_equals_the_model_on_all_inputs(toy, config):
    trained = train(config, toy, progress=False)
    network = export(trained)
    cube = np.array(np.meshgrid(*[[-1, 1]] * 9)).reshape(9, -1).T
    with torch.no_grad():
        expected = trained.model.double()(torch.from_numpy(cube.astype(np.float64))).argmax(dim=1)
    assert (network.evaluate_batch(cube) == expected.numpy()).all()


def test_training_learns_something(toy):
    for name, options in (("ste", {}), ("ss-ema", {"rate": "0.03:0.001"})):
        config = TrainingConfig.for_rule(name, options=options, hidden=(16,), epochs=100, batch_size=20, noise=0)
        accuracy = export(train(config, toy, progress=False)).provenance.data["accuracy"]
        assert accuracy["train"] >= 0.75, name
        assert accuracy["test"] >= 0.65, name  # the most frequent class makes up less than half


def test_training_leaves_the_global_random_state_alone(toy):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(VARIANTS["ste"], toy, progress=False)
    assert (torch.rand(3) == expected).all()


def test_the_bits_do_not_depend_on_the_number_of_threads_which_is_restored():
    digits, before = load("digits"), torch.get_num_threads()
    config = TrainingConfig.for_rule("ste", hidden=(300, 40), epochs=1, batch_size=100, batch_norm=True)
    one, two = (export(train(config, digits, threads=n, progress=False)) for n in (1, 2))
    assert one.identity == two.identity
    assert one.provenance == two.provenance
    assert torch.get_num_threads() == before
    with pytest.raises(QueryError, match="threads is 0, expected an integer from 1"):
        train(config, digits, threads=0)


def test_the_test_images_change_nothing(toy):
    poisoned = replace(toy, test=Split(-toy.test.images, toy.test.pixels, 2 - toy.test.labels, toy.test.indices))
    config = replace(VARIANTS["ste"], epochs=10)
    one, two = train(config, toy, progress=False), train(config, poisoned, progress=False)
    assert one.history == two.history
    assert one.best_epoch == two.best_epoch
    assert export(one) == export(two)


def test_the_best_epoch_is_the_first_of_highest_validation_accuracy_then_lowest_loss(toy):
    trained = train(replace(VARIANTS["ste"], epochs=15), toy, progress=False)
    best = min(trained.history, key=lambda r: (-r["validation_accuracy"], r["validation_loss"], r["epoch"]))
    assert trained.best_epoch == best["epoch"]
    # and the model is really the one of that epoch
    measured = export(trained).provenance.data["accuracy"]
    assert measured["validation"] == best["validation_accuracy"]
    assert measured["train"] == best["train_accuracy"]


def test_metrics_are_json_lines_or_go_to_a_function(toy):
    text, records = io.StringIO(), []
    train(VARIANTS["ste, batch norm, two blocks"], toy, progress=False, metrics=text)
    trained = train(VARIANTS["ss-ema"], toy, progress=False, metrics=records.append)
    lines = [json.loads(line) for line in text.getvalue().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert len(line["activation_balance"]) == len(line["inside_window"]) == 2
        assert all(-1 <= b <= 1 for b in line["activation_balance"])
        assert 0 <= line["flip_ratio"] <= 1
        assert math.isfinite(line["loss"])
    assert tuple(records) == trained.history
    assert records[0]["pulses"] >= records[0]["switches"]


def test_the_flip_ratio_counts_the_switches(toy):
    records = []
    train(VARIANTS["ss-ema"], toy, progress=False, metrics=records.append)
    steps, cells = 4 * 6, 9 * 8 + 8 * 3
    assert sum(r["flip_ratio"] for r in records) / 4 == pytest.approx(records[-1]["switches"] / (steps * cells))


def test_the_progress_bar_goes_to_stderr(toy, capsys):
    train(VARIANTS["ste"], toy)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "train: 100%" in captured.err


def test_ctrl_c_keeps_the_best_so_far_and_before_the_first_epoch_passes_on(toy):
    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    trained = train(VARIANTS["ste"], toy, progress=False, metrics=stop)
    assert trained.interrupted
    assert len(trained.history) == 2
    assert export(trained).provenance.data["interrupted"]

    @dataclass(frozen=True)
    class Impatient:
        name: ClassVar[str] = "impatient"
        recipe: ClassVar[dict] = {}

        def for_steps(self, steps, inputs):
            return self

        def start(self, cells, *, random):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(replace(VARIANTS["ste"], rule=Impatient()), toy, progress=False)


def test_a_rule_of_ones_own_can_look_at_the_loss_and_undo_its_move(toy):
    """The Protocol carries rules that this package does not have."""
    deployed = []

    class State:
        def __init__(self, cells, random):
            self.cells, self.random = list(cells), random

        def step(self, gradients, progress, probe):
            assert [g.shape for g in gradients] == [c.shape for c in self.cells]
            for measure in (probe.on_batch(), probe.on_holdout(30)):
                before, kept = measure(), [c.copy() for c in self.cells]
                assert measure() == before  # looking changes nothing
                for c in self.cells:
                    c[uniforms(self.random.key(), c.size).reshape(c.shape) < 0.02] *= -1
                if measure() > before:
                    for c, old in zip(self.cells, kept, strict=True):
                        c[:] = old
                assert measure() <= before
            assert 0 <= progress < 1

        def deployed(self):
            deployed.append(True)
            return self.cells

        def statistics(self):
            return {}

        def state(self):
            return {"cells": self.cells}

    @dataclass(frozen=True)
    class Undoing:
        strength: float = 1.0
        name: ClassVar[str] = "undoing"
        recipe: ClassVar[dict] = {}

        def for_steps(self, steps, inputs):
            return self

        def start(self, cells, *, random):
            return State(cells, random)

    config = TrainingConfig(rule=Undoing(), hidden=(8,), epochs=2, batch_size=20, batch_norm=True)
    network = export(train(config, toy, progress=False))
    assert network.provenance.data["config"]["rule"] == "undoing"
    assert deployed


def test_a_batch_larger_than_the_training_set_is_refused(toy):
    with pytest.raises(QueryError, match="batch_size is 500, but there are 120 training images"):
        train(replace(VARIANTS["ste"], batch_size=500), toy, progress=False)


def test_a_diverging_loss_is_one_sentence(toy):
    config = replace(VARIANTS["ste"], learning_rate=1e30, loss="squared-hinge")
    with pytest.raises(
        QueryError,
        match=r"the loss became (inf|nan) in step [0-9]+, expected a finite number",
    ):
        train(config, toy, progress=False)


def test_batch_norm_of_either_sign_and_zero_scale_is_exported_exactly(toy):
    model = model_of((9, 6, 3), batch_norm=True)
    with torch.no_grad():
        norm = model.hidden[0].norm
        norm.weight.copy_(torch.tensor([1.0, -1.0, 0.0, 0.0, -0.3, 0.5]))
        norm.bias.copy_(torch.tensor([0.2, 0.2, 0.0, -0.1, -0.4, 0.0]))
        norm.running_mean.copy_(torch.tensor([1.0, 1.0, 0.0, 0.0, -2.0, 3.0]))  # the last one ties at s = 3
        norm.running_var.copy_(torch.tensor([2.0, 2.0, 1.0, 1.0, 4.0, 9.0]))
    network = export(trained_with(model, toy))
    assert network.blocks[0].negated.tolist() == [False, True, False, False, True, False]
    stored = model.hidden[0].weight.detach().numpy()
    assert (network.blocks[0].stored == stored).all()
    # 1 - 0.2 sqrt(2) = 0.72; 1 + 0.28 falling; always; never; -2 - 0.4 / 0.3 * 2 = -4.67 falling; tie counts
    assert network.blocks[0].thresholds.tolist() == [1, -1, -9, 10, 5, 3]


def test_without_batch_norm_the_threshold_comes_from_the_bias_or_is_zero(toy):
    model = model_of((9, 4, 3))
    with torch.no_grad():
        model.hidden[0].bias.copy_(torch.tensor([0.0, 1.0, -1.0, 0.4]))  # in units of sqrt(9)
    assert export(trained_with(model, toy)).blocks[0].thresholds.tolist() == [0, -3, 3, -1]
    assert not export(trained_with(model_of((9, 4, 3), bias=False), toy)).blocks[0].thresholds.any()


def test_the_output_keeps_one_positive_scale_and_the_biases_as_they_are(toy):
    model = model_of((9, 4, 3))
    with torch.no_grad():
        model.output.bias.copy_(torch.tensor([0.25, -0.1, 0.0]))
    output = export(trained_with(model, toy)).output
    assert output.has_common_scale
    assert output.scale[0] == Fraction(model.output.log_scale.double().exp().item()) > 0
    assert output.bias == (Fraction(1, 4), Fraction(float(np.float32(-0.1))), Fraction(0))


def test_a_network_that_differs_from_the_model_is_refused_with_the_number_of_images(toy):
    trained = trained_with(model_of((9, 4, 3)), toy)
    network = export(trained)
    other = model_of((9, 4, 3))
    with torch.no_grad():
        other.output.bias.copy_(torch.tensor([0.0, 0.0, 99.0]))  # always class 2
    images = np.concatenate([s.images for s in toy.splits.values()])
    wrong = int((network.evaluate_batch(images) != 2).sum())
    assert wrong > 0
    with pytest.raises(EngineError, match=f"disagrees with the torch model on {wrong} of 240 images"):
        check_agreement(network, other, toy, TrainingConfig())


def test_the_provenance_is_json_and_tells_how_the_network_was_made(toy):
    network = export(train(VARIANTS["ss-ema"], toy, progress=False))
    data = json.loads(json.dumps(network.provenance.data, allow_nan=False))
    config = TrainingConfig.from_json(data["config"])
    assert config == VARIANTS["ss-ema"].for_steps(24)  # 4 epochs of 6 steps
    assert config.for_steps(7) == config
    assert data["data"] == {"dataset": "toy"}
    assert data["accuracy"] == accuracies(network, toy)
    assert all(len(column) == 4 for column in data["history"].values())
    assert {"loss", "validation_accuracy", "pulses"} <= set(data["history"])
    assert set(data["versions"]) == {"python", "torch", "numpy"}
    assert network.domain.shape == (3, 3)


def test_the_squared_hinge_is_its_definition():
    scores, labels = torch.tensor([[2.0, 0.5, -3.0], [0.0, -0.5, 0.25]]), torch.tensor([0, 2])
    total = 0.0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        for k, score in enumerate(row):
            total += max(0.0, 1 - (1 if k == label else -1) * score) ** 2
    assert float(loss_of(scores, labels, "squared-hinge")) == pytest.approx(total / 6)


def test_the_model_has_binary_weights_from_the_start_and_splits_its_parameters(toy):
    model = model_of((9, 5, 4, 3), batch_norm=True)
    binary = model.binary_weights()
    assert [tuple(w.shape) for w in binary] == [(5, 9), (4, 5), (3, 4)]
    assert all(set(w.detach().unique().tolist()) == {-1.0, 1.0} for w in binary)
    assert len(model.real_parameters()) == 2 * 2 + 2
    assert len(model_of((9, 5, 3), bias=False, output_bias=False).real_parameters()) == 1
    x = torch.ones(2, 9)
    model.eval()
    scores, normalized = model.trace(x)
    assert (scores == model(x)).all()
    assert [tuple(z.shape) for z in normalized] == [(2, 5), (2, 4)]


def test_the_epsilon_of_batch_norm_counts(toy):
    model = model_of((9, 2, 3), batch_norm=True)
    with torch.no_grad():
        model.hidden[0].norm.bias.copy_(torch.tensor([-3.0, 3.0]))
    # running variance 1: fires iff s >= 3 sqrt(1 + 1e-5) = 3.000015, or s >= -3.000015
    assert export(trained_with(model, toy)).blocks[0].thresholds.tolist() == [4, -3]


@pytest.mark.parametrize("name", ["meta", "nowhere", "cuda" if not torch.cuda.is_available() else "cuda:99"])
def test_a_device_that_torch_does_not_see_is_refused(toy, name):
    with pytest.raises(QueryError, match=f"device is '{name}', which torch does not see here"):
        train(TrainingConfig(), toy, device=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_trains_a_network_that_exports(toy):
    trained = train(TrainingConfig(hidden=(4,), epochs=3, batch_size=8), toy, device="cuda", progress=False)
    assert export(trained).widths[1] == 4


def test_a_dead_network_stops_with_a_sentence(toy):
    """All sums far outside the window of the sign: no gradient passes."""
    config = TrainingConfig(hidden=(8,), epochs=100, batch_size=20, x_shift=50.0, noise=0)
    with pytest.raises(QueryError, match=r"the network is dead: for 100 steps no gradient .*guessing gives 1\.099"):
        train(config, toy, progress=False)


@pytest.mark.parametrize("loss", ["margin-hinge", "squared-hinge"])
def test_a_loss_of_zero_is_no_dead_network(toy, loss):
    few = replace(toy, train=Split(*(getattr(toy.train, n)[:6] for n in ("images", "pixels", "labels", "indices"))))
    config = TrainingConfig(hidden=(16,), epochs=400, batch_size=6, noise=0, loss=loss, margin=1.0)
    trained = train(config, few, progress=False)
    assert trained.history[-1]["loss"] == 0
    assert trained.history[-1]["train_accuracy"] == 1


def test_pixels_are_the_input_of_the_first_block_exactly(toy):
    grey = np.random.RandomState(3)

    def grey_split(split):
        pixels = grey.randint(0, 17, size=split.images.shape).astype(np.uint8)
        pixels[:, :4] = np.where(split.images[:, :4] > 0, 16, 0)
        return Split(split.images, pixels, split.labels, split.indices)

    data = replace(toy, **{name: grey_split(split) for name, split in toy.splits.items()})
    for config in (
        TrainingConfig(hidden=(8,), epochs=30, batch_size=20, input="pixels", noise=0),
        TrainingConfig(hidden=(8,), epochs=10, batch_size=20, input="pixels", noise=0, batch_norm=True),
        TrainingConfig(hidden="3c2,6", epochs=10, batch_size=20, input="pixels", noise=0, batch_norm=True, x_shift=0.2),
        TrainingConfig(hidden=(), epochs=10, batch_size=20, input="pixels", noise=0),
    ):
        trained = train(config, data, progress=False)
        network = export(trained)  # compares all images
        assert not network.domain.is_binary
        assert network.domain.upper.max() == 16
        some = grey.randint(0, 17, size=(500, 9))
        with torch.no_grad():
            expected = trained.model.double()(torch.from_numpy(2.0 * some - 16)).argmax(dim=1)
        assert (network.evaluate_batch(some) == expected.numpy()).all()
        assert network.provenance.data["accuracy"]["train"] > 0.4


def test_a_sum_that_ties_with_the_shifted_threshold_is_no_disagreement(toy):
    # s / (sqrt(9) * 255) = 1 at s = 765, but 765 * (1 / 765) is below 1 in float64
    assert 765 * (1 / 765) < 1
    cube = np.array(np.meshgrid(*[[0, 255]] * 9)).reshape(9, -1).T.astype(np.uint8)
    labels = np.arange(512) % 3
    white = Split(np.where(cube > 0, 1, -1).astype(np.int8), cube, labels, np.arange(512))
    data = replace(toy, train=white, validation=white, test=white)
    config = TrainingConfig(hidden=(6,), input="pixels", noise=0, bias=False, x_shift=1.0)
    network = export(trained_with(model_of((9, 6, 3), bias=False, reach=255, x_shift=1.0), data, config))
    sums = cube.astype(int) @ network.blocks[0].weights.T.astype(int)
    assert (sums == network.blocks[0].thresholds).any()


@pytest.mark.parametrize("hidden", ["4c2", "4c2v1,5", "3c3v2s2,6", "4c2p2,3c1", "5c2v1p2"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_convolutions_are_exported_exactly(toy, hidden, batch_norm):
    config = TrainingConfig(hidden=hidden, epochs=3, batch_size=20, batch_norm=batch_norm, y_shift=0.3)
    trained = train(config, toy, progress=False)
    if batch_norm:  # every sign of the scale
        with torch.no_grad():
            for block in trained.model.hidden:
                scale = torch.linspace(-1, 1, len(block.norm.weight))
                block.norm.weight.copy_(scale * (scale.abs() > 0.4))
    network = export(trained)
    cube = np.array(np.meshgrid(*[[-1, 1]] * 9)).reshape(9, -1).T
    with torch.no_grad():
        expected = trained.model.double()(torch.from_numpy(cube.astype(np.float64))).argmax(dim=1)
    assert (network.evaluate_batch(cube) == expected.numpy()).all()


def test_shifts_of_the_sign_move_the_thresholds(toy):
    for shifts, threshold in (({"x_shift": 1.0}, 3), ({"y_shift": 0.5}, -1), ({"x_shift": 0.5, "y_shift": 0.5}, 0)):
        model = model_of((9, 2, 3), bias=False, **shifts)  # z = s / 3
        assert export(trained_with(model, toy)).blocks[0].thresholds.tolist() == [threshold, threshold]


def test_a_shift_unbalances_the_outputs_and_the_metrics_say_so(toy):
    balance = {}
    for shift in (-0.5, 0.0, 0.5):
        config = TrainingConfig(hidden=(16,), epochs=2, batch_size=20, x_shift=shift, bias=False)
        balance[shift] = train(config, toy, progress=False).history[-1]["activation_balance"][0]
    assert balance[-0.5] > balance[0.0] > balance[0.5]


def test_the_margin_hinge_is_its_definition_on_plain_sums(toy):
    scores, labels = torch.tensor([[20.0, -3.0], [4.0, 5.0]]), torch.tensor([0, 0])
    expected = (max(0, 8 - 20) + max(0, 8 - 3) + max(0, 8 - 4) + max(0, 8 + 5)) / 4 / 8
    assert float(loss_of(scores, labels, "margin-hinge", margin=8)) == pytest.approx(expected)
    trained = train(replace(VARIANTS["ste"], loss="margin-hinge", margin=4.0), toy, progress=False)
    assert trained.model.output.scale.item() == 1.0


def test_the_last_epoch_can_be_kept_and_the_validation_images_used(toy):
    config = replace(VARIANTS["ste"], select="final")
    assert train(config, toy, progress=False).best_epoch == 4
    more = train(replace(config, train_on_validation=True), toy, progress=False)
    assert more.history[0]["loss"] != train(config, toy, progress=False).history[0]["loss"]
    assert export(more).provenance.data["selected_by"] == "last epoch"
    swapped = replace(toy, validation=Split(-toy.validation.images, *_rest(toy.validation)))
    assert train(replace(config, train_on_validation=True), swapped, progress=False).history != more.history


def _rest(split):
    return split.pixels, split.labels, split.indices


def test_the_learning_rate_of_the_real_parameters_falls_along_half_a_cosine_by_steps(toy):
    run = _Run(replace(VARIANTS["ste"], epochs=2, learning_rate=0.5), toy, torch.device("cpu"))
    rates = []
    for _ in range(12):
        run.advance()
        rates.append(run.adam.param_groups[0]["lr"])
    expected = [0.5 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * k / 12))) for k in range(12)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("changes", [{"noise": 0.3, "move": 1}, {"input": "pixels", "noise": 0, "move": 1}])
def test_training_leaves_the_images_as_they_were(toy, changes):
    before = {name: (s.images.copy(), s.pixels.copy(), s.labels.copy()) for name, s in toy.splits.items()}
    export(train(replace(VARIANTS["ste"], **changes), toy, progress=False))
    for name, split in toy.splits.items():
        for old, new in zip(before[name], (split.images, split.pixels, split.labels), strict=True):
            np.testing.assert_array_equal(old, new)


def test_steps_are_reported_when_asked_for(toy):
    with pytest.raises(QueryError, match="metrics_every is 0, expected an integer from 1"):
        train(VARIANTS["ste"], toy, progress=False, metrics_every=0)
    records = []
    train(VARIANTS["ste"], toy, progress=False, metrics=records.append, metrics_every=4)
    steps = [r["step"] for r in records if "step" in r]
    assert steps == [4, 8, 12, 16, 20, 24]
    assert all(set(r) == {"step", "loss", "flip_ratio"} for r in records if "step" in r)
    assert sum("epoch" in r for r in records) == 4


def test_the_output_scale_can_stay_as_it_is(toy):
    trained = train(replace(VARIANTS["ste"], output_scale=False), toy, progress=False)
    assert trained.model.output.scale.item() == pytest.approx(1 / math.sqrt(8))


def test_moved_images_are_moves_of_the_images_and_background():
    image = np.arange(1, 13, dtype=np.int8).reshape(1, 12)  # 3 rows of 4
    seen = set()
    for key in range(200):
        new = moved(image, 3, 4, 1, -1, np.uint64(key)).reshape(3, 4)
        down, right = next(
            (d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if new[1, 1] == image.reshape(3, 4)[1 - d, 1 - r]
        )
        padded = np.pad(image.reshape(3, 4), 1, constant_values=-1)
        assert (new == padded[1 - down : 4 - down, 1 - right : 5 - right]).all()
        seen.add((down, right))
    assert len(seen) == 9


def test_moves_are_part_of_training(toy):
    still, moving = (train(replace(VARIANTS["ste"], move=n), toy, progress=False) for n in (0, 1))
    assert still.history != moving.history
