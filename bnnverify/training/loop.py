"""The training loop: seeded, reproducible, resumable, and blind to the test images."""

from __future__ import annotations

import copy
import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bnnverify.datasets import Dataset
from bnnverify.errors import BnnVerifyWarning, FormatError, QueryError
from bnnverify.reading import reason, shown
from bnnverify.training import checkpoint as checkpoints
from bnnverify.training.adversarial import worsened
from bnnverify.training.config import TrainingConfig
from bnnverify.training.faults import Injection
from bnnverify.training.losses import loss_of
from bnnverify.training.model import BinaryModel
from bnnverify.training.randomness import Randomness, flip_signs, moved
from bnnverify.training.rules.base import Cells, RuleState
from bnnverify.training.savedstate import require_state

Metrics = dict[str, Any]
Sink = TextIO | Callable[[Metrics], None] | None

_DEAD_STEPS = 100
_EVALUATION_BATCH = 1000
_MEASURED = 10_000  # training images whose accuracy is measured after an epoch
_SAVE_SECONDS = 30.0
_WORTH_THREADS = 2_000_000
_OF_EVERY_RULE = {
    "epoch",
    "loss",
    "train_accuracy",
    "validation_accuracy",
    "validation_loss",
    "activation_balance",
    "inside_window",
    "weight_balance",
    "flip_ratio",
}


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """A model as it was after its best (or last) epoch.

    Attributes:
        model: In evaluation mode, its binary weights as deployed.
        config: How it was trained.
        dataset: On what.
        best_epoch: The epoch, from 1, that the model is of: with ``select="best"`` the one with the highest
            validation accuracy, among equals with the lowest validation loss; with ``select="final"`` the last whole
            one.
        history: Metrics of every epoch, as `train` describes them.
        interrupted: True if the training was stopped from the keyboard; what there was is kept.
        seconds: Wall-clock time of the training, that of earlier parts of a resumed run included.
        problems: What could not be written meanwhile, metrics or the checkpoint, one sentence each. The training went
            on without, and a `BnnVerifyWarning` said so.
    """

    model: BinaryModel
    config: TrainingConfig
    dataset: Dataset
    best_epoch: int
    history: tuple[Metrics, ...]
    interrupted: bool
    seconds: float
    problems: tuple[str, ...] = ()

    @property
    def validation_accuracy(self) -> float:
        """Of the best epoch."""
        return float(self.history[self.best_epoch - 1]["validation_accuracy"])

    @property
    def statistics(self) -> dict[str, Any]:
        """Totals of the rule after the last epoch, such as pulses, switches, energy and the fraction undone."""
        last = self.history[-1]
        return {name: value for name, value in last.items() if name not in _OF_EVERY_RULE}

    def __repr__(self) -> str:
        return (
            f"TrainedModel({self.config}, {self.config.select} epoch {self.best_epoch} of {len(self.history)}, "
            f"validation accuracy {self.validation_accuracy:.1%}, {self.seconds:.1f} s)"
        )


def train(
    config: TrainingConfig,
    dataset: Dataset,
    *,
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = True,
    metrics: Sink = None,
    metrics_every: int | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
) -> TrainedModel:
    """A network trained on `dataset.train` and judged by `dataset.validation`.

    The test images are not looked at. The result does not depend on the number of threads: everything that is added
    up is an integer or a fixed-point number, see `bnnverify.training.fixedpoint`.

    Ctrl-C ends the training after the step at work; the model is then the best (or last) whole epoch's, and the
    checkpoint holds everything to go on from that step with the same bits. A second Ctrl-C stops at once.

    Args:
        config: How to train.
        dataset: Images.
        device: Where torch computes the passes: ``cpu``, or ``cuda`` for a GPU. The updates of the binary weights are
            computed on the host. The trained model is returned on the CPU.
        threads: Threads of torch; default: one for small networks, where more are slower, else as torch is set.
        progress: Show a progress bar on stderr.
        metrics: Where the metrics of each epoch go: a text file, which gets one JSON object per line, or a
            function of one dict. The keys: `epoch` (from 1), `loss` (mean over the steps), `train_accuracy` (of the
            first 10,000 training images), `validation_accuracy`, `validation_loss`, `flip_ratio` (mean fraction of
            binary weights that a step changes), and for each hidden block in a list `activation_balance` (mean output
            over validation images and neurons, 0 is balanced), `inside_window` (fraction of what the sign is
            taken of that lies where gradients pass; 0 is a dead network) and, with the output block,
            `weight_balance` (mean weight); then the totals of the rule, such as `pulses`.
        metrics_every: Also report every so many steps: `step` (from 1), `loss`, `flip_ratio` of that one step.
        checkpoint: File that the state of the run is saved to, at least every 30 seconds at the end of an epoch, and
            at the end.
        resume: Go on from `checkpoint` if it exists. Config and data must be those of the checkpoint.

    Raises:
        QueryError: The batch is larger than the training set, the loss became infinite or NaN, the network died
            (for 100 steps no gradient reached the first block), torch does not see the device, or the checkpoint is
            of another run.
        FormatError: The checkpoint is no checkpoint.
    """
    before_threads = torch.get_num_threads()
    for what, count, most in (("threads", threads, 1024), ("metrics_every", metrics_every, 2**63)):
        if count is not None and not (isinstance(count, int | np.integer) and 1 <= count <= most):
            raise QueryError(f"{what} is {count!r:.60}, expected an integer from 1 to {most}.")
    where = _usable(device)
    try:
        run = _Run(config, dataset, where)
        torch.set_num_threads(int(threads or 0) or (before_threads if run.products >= _WORTH_THREADS else 1))
        saver = None if checkpoint is None else checkpoints.Checkpoint(Path(checkpoint), run.identity())
        if resume:
            if saver is None:
                raise QueryError("resume is asked for without a checkpoint, expected the file to go on from.")
            saved = saver.load()
            if saved is not None:
                try:
                    run.restore(saved)
                except Exception as error:  # whatever a damaged state breaks
                    raise FormatError(
                        f"{shown(saver.path)}: the state of the run is damaged: {reason(error)}. Start anew with "
                        "another file, or take an earlier copy."
                    ) from None
        with _exact_products(where):
            return _follow(run, progress=progress, metrics=metrics, metrics_every=metrics_every, saver=saver)
    finally:
        torch.set_num_threads(before_threads)


def _follow(
    run: _Run, *, progress: bool, metrics: Sink, metrics_every: int | None, saver: checkpoints.Checkpoint | None
) -> TrainedModel:
    """Trains to the end or to the first Ctrl-C."""
    started, saved_at = time.perf_counter() - run.seconds, time.perf_counter()
    total = run.config.epochs * run.steps_per_epoch
    bar = tqdm(total=total, initial=run.steps, desc="train", unit="step", disable=not progress, mininterval=0.5)
    with _interruptible() as interrupted, bar:
        while run.steps < total and not interrupted.is_set():
            record = run.advance()
            bar.update()
            if metrics_every and run.steps % metrics_every == 0:
                run.emit(run.step_record, metrics)
            if record is not None:
                bar.set_postfix(loss=f"{record['loss']:.3f}", validation=f"{record['validation_accuracy']:.1%}")
                run.emit(record, metrics)
                if saver is not None and time.perf_counter() - saved_at > _SAVE_SECONDS:
                    run.seconds = time.perf_counter() - started
                    run.save(saver)
                    saved_at = time.perf_counter()
    run.seconds = time.perf_counter() - started
    if saver is not None:
        run.save(saver)
    if not run.history:
        raise KeyboardInterrupt
    return run.result(interrupted=run.steps < total)


class _Run:
    """One training run in progress, between two steps."""

    def __init__(self, config: TrainingConfig, dataset: Dataset, device: torch.device) -> None:
        images = len(dataset.train) + (len(dataset.validation) if config.train_on_validation else 0)
        if config.batch_size > images:
            raise QueryError(f"batch_size is {config.batch_size}, but there are {images} training images.")
        self.steps_per_epoch = images // config.batch_size
        self.dataset, self.device = dataset, device
        self.random = Randomness(config.seed)
        self.reach = 1 if config.input == "binary" else brightest(dataset)
        self.model = BinaryModel(
            config.hidden,
            dataset.shape,
            len(dataset.classes),
            reach=self.reach,
            batch_norm=config.batch_norm,
            bias=config.bias,
            output_bias=config.output_bias,
            output_scale=None if config.loss == "margin-hinge" else config.output_scale,
            x_shift=config.x_shift,
            y_shift=config.y_shift,
            random=self.random,
        ).to(device)
        self.weights = self.model.binary_weights()
        config = config.for_steps(config.epochs * self.steps_per_epoch, math.prod(self.weights[0].shape[1:]))
        self.config = config
        cells = [w.detach().cpu().numpy().astype(np.int8) for w in self.weights]
        self.rule: RuleState = config.rule.start(cells, random=self.random)
        self.faults = None
        if config.faults is not None:
            self.faults = Injection(config.faults, config.fault_draw, self.random)
        real = self.model.real_parameters()
        self.adam = torch.optim.Adam(real, lr=config.learning_rate, fused=True) if real else None
        parts = [dataset.train, dataset.validation] if config.train_on_validation else [dataset.train]
        inputs = [inputs_of(config, part) for part in parts]
        self.images = np.concatenate(inputs) if len(inputs) > 1 else inputs[0]
        self.labels = torch.from_numpy(np.concatenate([part.labels for part in parts]))
        self.steps = 0
        self.seconds = 0.0
        self.history: list[Metrics] = []
        self.step_record: Metrics = {}
        self.best: tuple[float, float] = (-1.0, 0.0)
        self.best_epoch = 0
        self.best_state: dict[str, Tensor] = {}
        self._order = torch.zeros(0, dtype=torch.int64)
        self._loss_total, self._flips, self._silent = 0.0, 0, 0
        self._problems: dict[str, str] = {}

    @property
    def products(self) -> int:
        """Products of weights and inputs in one forward pass over a batch, positions of convolutions not counted."""
        return self.config.batch_size * sum(w.numel() for w in self.weights)

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree on."""
        return {"config": self.config.as_json(), "data": dict(self.dataset.provenance)}

    def advance(self) -> Metrics | None:
        """One step; the metrics of the epoch if it was its last."""
        config = self.config
        i = self.steps % self.steps_per_epoch
        if i == 0:
            self._order = torch.randperm(len(self.labels), generator=self.random.generator)
            self._loss_total, self._flips = 0.0, 0
        batch = self._order[i * config.batch_size : (i + 1) * config.batch_size]
        images, labels = self._batch(batch, noisy=True)
        before = [c.copy() for c in self.rule.cells]
        loss = self._step(images, labels)
        self.steps += 1
        if not math.isfinite(loss):
            raise QueryError(
                f"the loss became {loss} in step {self.steps}, expected a finite number. Lower the learning rates."
            )
        flips = sum(int(np.count_nonzero(a != b)) for a, b in zip(before, self.rule.cells, strict=True))
        self._loss_total, self._flips = self._loss_total + loss, self._flips + flips
        n_weights = sum(c.size for c in before)
        self.step_record = {"step": self.steps, "loss": loss, "flip_ratio": flips / n_weights}
        if i + 1 < self.steps_per_epoch:
            return None
        record = {
            "epoch": self.steps // self.steps_per_epoch,
            "loss": self._loss_total / self.steps_per_epoch,
            **self._measure(),
            "flip_ratio": self._flips / (n_weights * self.steps_per_epoch),
            **self.rule.statistics(),
        }
        self._keep(record)
        return record

    def _step(self, images: Tensor, labels: Tensor) -> float:
        progress = self.steps / (self.config.epochs * self.steps_per_epoch)
        self._publish(self.rule.cells if self.faults is None else self.faults.read(self.rule.cells))
        if self.config.adversarial:
            images = self._against(images, labels)
        self.model.train()
        self.model.zero_grad()
        loss = self._loss(self.model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        gradients = [_host(w.grad) for w in self.weights]
        self._watch(gradients, value)
        if self.adam is not None:
            cosine = 0.5 * (1 + math.cos(math.pi * progress))
            self.adam.param_groups[0]["lr"] = self.config.learning_rate * (0.01 + 0.99 * cosine)
            self.adam.step()
        self.rule.step(gradients, progress, _Probe(self, images, labels))
        return value

    def _against(self, images: Tensor, labels: Tensor) -> Tensor:
        """The images, changed to raise the loss of the model in evaluation mode."""
        self.model.eval()
        x = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self._loss(self.model(x), labels), x)
        return worsened(images, gradient, self.config.adversarial, binary=self.config.input == "binary", top=self.reach)

    def _watch(self, gradients: list[NDArray[np.float32]], loss: float) -> None:
        """Stops a network that cannot learn any more; one with a loss of 0, as hinges have, need not."""
        self._silent = 0 if loss == 0 or bool(gradients[0].any()) else self._silent + 1
        if self._silent >= _DEAD_STEPS:
            raise QueryError(
                f"the network is dead: for {_DEAD_STEPS} steps no gradient reached its first block, and the loss is "
                f"{loss:.4g} (guessing gives {math.log(len(self.dataset.classes)):.4g}), expected gradients. Too many "
                "weights switched at once: lower the rate of the rule, or train with batch norm."
            )

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return loss_of(scores, labels, self.config.loss, margin=self.config.margin)

    def _batch(self, chosen: Tensor, *, noisy: bool = False) -> tuple[Tensor, Tensor]:
        images = self.images[chosen.numpy()]
        if noisy and self.config.move:
            background = -1 if self.config.input == "binary" else 0
            images = moved(images, *self.dataset.shape, self.config.move, background, self.random.key())
        if noisy and self.config.noise:
            flip_signs(images.reshape(-1), self.config.noise, self.random.key())
        return self.on_device(images), self.labels[chosen].to(self.device)

    def on_device(self, images: NDArray[Any]) -> Tensor:
        """Inputs of the model from images as stored."""
        floats = torch.from_numpy(images).to(self.device).float()
        return floats if self.config.input == "binary" else floats * 2 - self.reach

    @torch.no_grad()
    def _publish(self, cells: list[Cells]) -> None:
        for weight, cell in zip(self.weights, cells, strict=True):
            weight.copy_(torch.from_numpy(cell))

    @torch.no_grad()
    def probe(self, images: Tensor, labels: Tensor) -> float:
        """Loss of the cells as they are, in evaluation mode."""
        self._publish(self.rule.cells)
        self.model.eval()
        return float(self._loss(self.model(images), labels))

    def holdout(self, size: int) -> tuple[Tensor, Tensor]:
        """`size` training images drawn afresh."""
        chosen = torch.randint(0, len(self.labels), (size,), generator=self.random.generator)
        return self._batch(chosen)

    @torch.no_grad()
    def _measure(self) -> Metrics:
        """Metrics of the deployed weights."""
        deployed = self.rule.deployed()
        self._publish(deployed)
        self.model.eval()
        right = sum(
            int(torch.count_nonzero(self.model(x).argmax(dim=1) == y))
            for x, y in self._chunks(self.images[:_MEASURED], self.labels[:_MEASURED])
        )
        split = self.dataset.validation
        n = len(split)
        correct, loss = 0, 0.0
        balance, inside = np.zeros(len(self.model.hidden)), np.zeros(len(self.model.hidden))
        for x, y in self._chunks(inputs_of(self.config, split), torch.from_numpy(split.labels.copy())):
            scores, normalized = self.model.trace(x)
            correct += int(torch.count_nonzero(scores.argmax(dim=1) == y))
            loss += float(self._loss(scores, y)) * len(y)
            for i, (block, z) in enumerate(zip(self.model.hidden, normalized, strict=True)):
                fired = int(torch.count_nonzero(z >= block.x_shift - block.y_shift))
                balance[i] += (2 * fired / z.numel() - 1) * len(y)
                inside[i] += int(torch.count_nonzero(block.inside(z))) / z.numel() * len(y)
        return {
            "train_accuracy": right / min(len(self.labels), _MEASURED),
            "validation_accuracy": correct / n,
            "validation_loss": loss / n,
            "activation_balance": [float(b) / n for b in balance],
            "inside_window": [float(b) / n for b in inside],
            "weight_balance": [float(c.mean(dtype=np.float64)) for c in deployed],
        }

    def _chunks(self, images: NDArray[Any], labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(labels), _EVALUATION_BATCH):
            part = slice(start, start + _EVALUATION_BATCH)
            yield self.on_device(images[part].copy()), labels[part].to(self.device)

    def _keep(self, record: Metrics) -> None:
        self.history.append(record)
        rank = (record["validation_accuracy"], -record["validation_loss"])
        if self.config.select == "final" or rank > self.best:
            self.best, self.best_epoch = rank, record["epoch"]
            self.best_state = {name: value.cpu().clone() for name, value in self.model.state_dict().items()}

    def result(self, *, interrupted: bool) -> TrainedModel:
        """The model of the best epoch."""
        model = copy.deepcopy(self.model).cpu()
        model.load_state_dict(self.best_state)
        model.eval()
        history, problems = tuple(self.history), tuple(self._problems.values())
        return TrainedModel(
            model, self.config, self.dataset, self.best_epoch, history, interrupted, self.seconds, problems
        )

    def emit(self, record: Metrics, metrics: Sink) -> None:
        """Hands a record over; where it cannot be written, the training goes on without metrics."""
        if metrics is None or "metrics" in self._problems:
            return
        try:
            if callable(metrics):
                metrics(record)
            else:
                metrics.write(json.dumps(record) + "\n")
                metrics.flush()
        except FormatError as error:
            self._problem("metrics", f"the metrics are not complete: {error}")
        except OSError as error:
            self._problem("metrics", f"the metrics cannot be written ({reason(error)})")

    def save(self, saver: checkpoints.Checkpoint) -> None:
        """Writes the checkpoint; where it cannot be written, the training goes on without, and tries again later."""
        try:
            saver.save(self.state())
        except FormatError as error:
            self._problem("checkpoint", f"the checkpoint is not up to date: {error}")
        else:
            self._problems.pop("checkpoint", None)

    def _problem(self, what: str, sentence: str) -> None:
        if what not in self._problems:
            warnings.warn(f"{sentence.rstrip('.')}. The training goes on.", BnnVerifyWarning, stacklevel=2)
        self._problems[what] = sentence.rstrip(".")

    def state(self) -> dict[str, Any]:
        """Everything that changes."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "order": self._order,
            "loss_total": self._loss_total,
            "flips": self._flips,
            "silent": self._silent,
            "history": json.dumps(self.history),
            "best": list(self.best),
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "model": {name: value.cpu() for name, value in self.model.state_dict().items()},
            "adam": None if self.adam is None else self.adam.state_dict(),
            "rule": self.rule.state(),
            "faults": None if self.faults is None else self.faults.state(),
            "generator": self.random.generator.get_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; any exception if it is no state of this run."""
        history = require_state(
            state,
            checkpoints.frozen(self.state()),
            steps=self.config.epochs * self.steps_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            images=len(self.labels),
            binary=[name for name, p in self.model.named_parameters() if any(p is w for w in self.weights)],
            real=self.model.real_parameters(),
            metrics=_OF_EVERY_RULE | set(self.rule.statistics()),
        )
        self.steps, self.seconds = int(state["steps"]), float(state["seconds"])
        self._order = state["order"]
        self._loss_total, self._flips = float(state["loss_total"]), int(state["flips"])
        self._silent = int(state["silent"])
        self.history = history
        self.best, self.best_epoch = (state["best"][0], state["best"][1]), int(state["best_epoch"])
        self.best_state = state["best_state"]
        self.model.load_state_dict(state["model"])
        if self.adam is not None:
            self.adam.load_state_dict({**self.adam.state_dict(), "state": state["adam"]["state"]})
        self.rule.restore(checkpoints.thawed(state["rule"]))
        if self.faults is not None:
            self.faults.restore(state["faults"])
        self.random.generator.set_state(state["generator"])


class _Probe:
    """The loss of the cells as they are; see `bnnverify.training.rules.base.Probe`."""

    def __init__(self, run: _Run, images: Tensor, labels: Tensor) -> None:
        self._run, self._images, self._labels = run, images, labels

    def on_batch(self) -> Callable[[], float]:
        return lambda: self._run.probe(self._images, self._labels)

    def on_holdout(self, size: int) -> Callable[[], float]:
        images, labels = self._run.holdout(size)
        return lambda: self._run.probe(images, labels)


def inputs_of(config: TrainingConfig, split: Any) -> NDArray[Any]:
    """What the first block reads of a split: signs, int8, or pixels, uint8; shape `(N, n)`."""
    images: NDArray[Any] = split.images if config.input == "binary" else split.pixels
    return images


def brightest(dataset: Dataset) -> int:
    """The greatest pixel value of all images: 16 for the digits, 255 for MNIST."""
    return max(int(split.pixels.max()) for split in dataset.splits.values())


def _host(gradient: Tensor | None) -> NDArray[np.float32]:
    assert gradient is not None
    return gradient.contiguous().cpu().numpy()


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one raises. Outside the main thread: never set."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    except KeyboardInterrupt:
        if event.is_set():
            raise
        event.set()
    finally:
        signal.signal(signal.SIGINT, before)


def _exact_products(device: torch.device) -> AbstractContextManager[Any]:
    """On a GPU: convolutions without TF32, whose 11 bits would round the integers that are added up."""
    return torch.backends.cudnn.flags(deterministic=True, allow_tf32=False) if device.type == "cuda" else nullcontext()


def _usable(name: str) -> torch.device:
    """The device of this name, if torch can compute there."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise QueryError(
            f"device is {name!r}, which torch does not see here, expected cpu, or cuda with a GPU."
        ) from None
    return device
