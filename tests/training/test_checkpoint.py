import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from bnnverify.errors import FormatError, QueryError
from bnnverify.faults import BitFlip, StuckAt
from bnnverify.training import TrainingConfig, export, train
from bnnverify.training.checkpoint import frozen, thawed
from bnnverify.training.rules import RULES

QUICK = {"hidden": (8,), "epochs": 4, "batch_size": 20}  # 6 steps an epoch


def interrupting(step):
    """Sends Ctrl-C to this process after a step."""

    def watch(record):
        if record.get("step") == step:
            os.kill(os.getpid(), signal.SIGINT)

    return watch


@pytest.mark.filterwarnings("ignore::bnnverify.errors.BnnVerifyWarning")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", [9, 12])  # within an epoch, and at the end of one
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(toy, tmp_path, rule, step):
    config = TrainingConfig.for_rule(rule, **QUICK, faults=BitFlip("0.02"), fault_draw="chip")
    whole = train(config, toy, progress=False)
    file = tmp_path / "run.pt"
    part = train(config, toy, progress=False, checkpoint=file, metrics=interrupting(step), metrics_every=1)
    assert part.interrupted
    assert len(part.history) == step // 6
    resumed = train(config, toy, progress=False, checkpoint=file, resume=True)
    assert not resumed.interrupted
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert export(resumed) == export(whole)


HARDWARE = {"cell": "ftj", "stuck_plus": 0.02, "independent_directions": True, "rounding": "random"}
UNDO = {"writes": "stochastic", "size": 30, "scope": "block"}


@pytest.mark.parametrize(
    ("rule", "options", "changes"),
    [
        ("ss-ema", {"rate": 0.05, "hardware": HARDWARE, "undo": UNDO}, {"batch_norm": True, "fault_draw": "step"}),
        ("ss-batch", {"batches": 5, "rate": 0.05, "undo": True}, {"select": "final", "train_on_validation": True}),
        ("ste", {"binarization": "stochastic", "optimizer": "sgd"}, {"input": "pixels", "noise": 0}),
    ],
)
def test_a_run_with_everything_on_resumes_with_its_bits(toy, tmp_path, rule, options, changes):
    both = {"hidden": "3c2,6", "move": 1, "faults": StuckAt("0.02", "0.03"), **changes}
    config, file = TrainingConfig.for_rule(rule, options=options, **(QUICK | both)), tmp_path / "run.pt"
    whole = train(config, toy, progress=False)
    train(config, toy, progress=False, checkpoint=file, metrics=interrupting(11), metrics_every=1)
    resumed = train(config, toy, progress=False, checkpoint=file, resume=True)
    assert resumed.history == whole.history
    assert export(resumed) == export(whole)


def test_ctrl_c_before_the_first_epoch_keeps_the_checkpoint(toy, tmp_path):
    config, file = TrainingConfig.for_rule("ste", **QUICK), tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(config, toy, progress=False, checkpoint=file, metrics=interrupting(2), metrics_every=1)
    resumed = train(config, toy, progress=False, checkpoint=file, resume=True)
    assert export(resumed) == export(train(config, toy, progress=False))


def test_a_finished_run_resumes_to_itself_and_a_missing_checkpoint_starts_anew(toy, tmp_path):
    config, file = TrainingConfig.for_rule("ste", **QUICK), tmp_path / "run.pt"
    first = train(config, toy, progress=False, checkpoint=file, resume=True)
    again = train(config, toy, progress=False, checkpoint=file, resume=True)
    assert again.history == first.history
    assert export(again) == export(first)


def test_the_signal_handler_is_given_back_and_other_threads_train_without_it(toy):
    before = signal.getsignal(signal.SIGINT)
    train(TrainingConfig.for_rule("ste", **QUICK), toy, progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    done = []
    thread = threading.Thread(
        target=lambda: done.append(train(TrainingConfig.for_rule("ste", **QUICK), toy, progress=False))
    )
    thread.start()
    thread.join()
    assert len(done[0].history) == 4


def test_the_checkpoint_of_another_run_is_refused_with_what_differs(toy, tmp_path):
    config, file = TrainingConfig.for_rule("ste", **QUICK), tmp_path / "run.pt"
    train(config, toy, progress=False, checkpoint=file)
    with pytest.raises(QueryError, match="is the checkpoint of another run: its seed is 0, expected 5"):
        train(replace(config, seed=5), toy, progress=False, checkpoint=file, resume=True)
    with pytest.raises(QueryError, match="its dataset is toy, expected other"):
        train(config, replace(toy, provenance={"dataset": "other"}), progress=False, checkpoint=file, resume=True)


def test_what_is_no_checkpoint_is_a_format_error(toy, tmp_path):
    file = tmp_path / "run.pt"
    file.write_text("nonsense")
    with pytest.raises(FormatError, match=r"run\.pt: .*expected a training checkpoint"):
        train(TrainingConfig.for_rule("ste", **QUICK), toy, progress=False, checkpoint=file, resume=True)
    torch.save({"format": "something else", "identity": "", "state": {}}, file)
    with pytest.raises(FormatError, match="the format is 'something else', expected 'bnnverify training checkpoint 1'"):
        train(TrainingConfig.for_rule("ste", **QUICK), toy, progress=False, checkpoint=file, resume=True)


def test_resuming_needs_a_checkpoint(toy):
    with pytest.raises(QueryError, match="resume is asked for without a checkpoint"):
        train(TrainingConfig.for_rule("ste", **QUICK), toy, progress=False, resume=True)


def test_arrays_survive_freezing():
    state = {"a": [np.arange(3, dtype=np.int8), {"b": np.float32(0.5)}], "n": np.int64(3), "t": None}
    again = thawed(frozen(state))
    assert again["a"][0].dtype == np.int8
    assert again["a"][0].tolist() == [0, 1, 2]
    assert again["a"][1] == {"b": 0.5}
    assert again["n"] == 3
    assert again["t"] is None
