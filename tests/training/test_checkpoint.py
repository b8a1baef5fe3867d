import contextlib
import copy
import os
import re
import signal
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from bnnverify.errors import BnnVerifyWarning, FormatError, QueryError
from bnnverify.faults import BitFlip, StuckAt
from bnnverify.training import TrainingConfig, checkpoint, export, loop, train
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


# damaged states


def leaves(value, path=()):
    """The paths of all entries of nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inner:
        yield (*path, key)
        yield from leaves(entry, (*path, key))


def parent(state, path):
    for key in path[:-1]:
        state = state[key]
    return state


def dropped(state, path):
    del parent(state, path)[path[-1]]


def replaced(by):
    def change(state, path):
        parent(state, path)[path[-1]] = by

    return change


def bent(how):
    def change(state, path):
        value = parent(state, path)[path[-1]]
        parent(state, path)[path[-1]] = how(value) if isinstance(value, torch.Tensor) else "bent"

    return change


DAMAGES = {
    "missing": dropped,
    "none": replaced(None),
    "text": replaced("nonsense"),
    "negative": replaced(-1),
    "huge": replaced(2**70),
    "not finite": replaced(float("nan")),
    "a list": replaced([1, [2]]),
    "longer": bent(lambda t: torch.cat([t.reshape(-1), t.reshape(-1)[:1]])),
    "other shape": bent(lambda t: t.reshape(1, -1)),
    "other dtype": bent(lambda t: t.to(torch.float64) if t.dtype != torch.float64 else t.to(torch.int8)),
    "NaN inside": bent(lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t[..., :0]),
    "sparse": bent(lambda t: t.to_sparse() if t.ndim else None),
    "sevens": bent(lambda t: torch.full_like(t, 7.5) if t.is_floating_point() else t[..., :0]),
}


@pytest.fixture(scope="module")
def checkpoints(toy, tmp_path_factory):
    """A checkpoint in the middle of a run for every rule: config, file, what the file holds."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rule in RULES:
            config = TrainingConfig.for_rule(rule, **QUICK, faults=BitFlip("0.02"))
            file = tmp_path_factory.mktemp(rule) / "run.pt"
            train(config, toy, progress=False, checkpoint=file, metrics=interrupting(9), metrics_every=1)
            found[rule] = config, file, torch.load(file, weights_only=True)
    return found


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("rule", RULES)
def test_a_damaged_state_is_one_sentence_and_never_another_error(toy, tmp_path, checkpoints, rule, damage):
    config, _, saved = checkpoints[rule]
    refused = 0
    paths = list(leaves(saved["state"]))
    for path in paths[:: max(1, len(paths) // 12)]:
        state = copy.deepcopy(saved["state"])
        DAMAGES[damage](state, path)
        file = tmp_path / "run.pt"
        torch.save({**saved, "state": state}, file)
        try:
            train(config, toy, progress=False, checkpoint=file, resume=True)
        except FormatError as error:
            refused += 1
            assert re.fullmatch(r"\S+run\.pt: the state of the run is damaged: [^\n]+ earlier copy\.", str(error))
    assert refused > 6


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("steps",), 25, "steps is 25, expected an integer from 0 to 24"),
        (("steps",), 15, r"history is of other length, expected 2 records"),
        (("best",), [1.0, 0.0], r"best is \[1\.0, 0\.0\], expected \[.*, that of epoch 1"),
        (("best_epoch",), 2, "best_epoch is 2, expected an epoch"),
        (("history",), "[[", "damaged: "),
        (("history",), "{}", "history is of other length"),
        (("order",), torch.zeros(120, dtype=torch.int64), "order is no order, expected every training image once"),
        (("rule", "cells", 0), torch.zeros(8, 9, dtype=torch.int8), r"rule.cells\[0\] is 0 somewhere"),
        (
            ("rule", "cells", 0),
            torch.ones(8, 9),
            r"is a tensor of torch.float32 of shape \(8, 9\), expected a tensor of",
        ),
        (("model", "output.weight"), torch.full((3, 8), 0.5), "the model is not binary"),
        (("generator",), torch.zeros(5056, dtype=torch.uint8), "damaged: "),
    ],
)
def test_what_is_wrong_with_a_state_is_said(toy, tmp_path, checkpoints, path, value, sentence):
    config, _, saved = checkpoints["ste"]
    state = copy.deepcopy(saved["state"])
    replaced(value)(state, path)
    torch.save({**saved, "state": state}, tmp_path / "run.pt")
    with pytest.raises(FormatError, match=sentence):
        train(config, toy, progress=False, checkpoint=tmp_path / "run.pt", resume=True)


@pytest.mark.parametrize("identity", ["", "[1]", "{}", 5, None, '{"config": 3}', '{"config": {"seed": 9}, "data": []}'])
def test_a_checkpoint_of_a_strange_identity_is_refused(toy, tmp_path, checkpoints, identity):
    config, _, saved = checkpoints["ste"]
    torch.save({**saved, "identity": identity}, tmp_path / "run.pt")
    with pytest.raises((QueryError, FormatError), match=r"run\.pt"):
        train(config, toy, progress=False, checkpoint=tmp_path / "run.pt", resume=True)


def test_cut_off_and_changed_files_are_one_sentence(toy, tmp_path, checkpoints):
    config, source, _ = checkpoints["ss-ema"]
    data, rng = source.read_bytes(), np.random.default_rng(0)
    file = tmp_path / "run.pt"
    for size in range(0, len(data), len(data) // 12):
        file.write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"run\.pt"):
            train(config, toy, progress=False, checkpoint=file, resume=True)
    for _ in range(20):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            changed[place] = int(rng.integers(256))
        file.write_bytes(changed)
        with contextlib.suppress(FormatError, QueryError):
            train(config, toy, progress=False, checkpoint=file, resume=True)


# places that cannot be written


class Full:
    """A text file on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_training_goes_on_where_metrics_and_checkpoint_cannot_be_written(toy, tmp_path, monkeypatch):
    config, file = TrainingConfig.for_rule("ste", **QUICK), tmp_path / "run.pt"
    whole = train(config, toy, progress=False)
    monkeypatch.setattr(loop, "_SAVE_SECONDS", -1.0)

    def full(path, data):
        raise FormatError(f"{path}: cannot be written (no space left on device).")

    monkeypatch.setattr(checkpoint, "write_whole", full)
    with pytest.warns(BnnVerifyWarning) as said:
        trained = train(config, toy, progress=False, metrics=Full(), checkpoint=file)
    assert [str(w.message) for w in said] == [
        "the metrics cannot be written (no space left on device). The training goes on.",
        f"the checkpoint is not up to date: {file}: cannot be written (no space left on device). The training goes on.",
    ]
    assert trained.problems == tuple(str(w.message).removesuffix(". The training goes on.") for w in said)
    assert export(trained) == export(whole)
    assert whole.problems == ()
