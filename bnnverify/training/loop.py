"""The training loop: seeded, reproducible, and blind to the test images."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from bnnverify.datasets import Dataset, Split
from bnnverify.errors import QueryError
from bnnverify.training.config import TrainingConfig
from bnnverify.training.model import BinaryMlp
from bnnverify.training.rules import RuleState

Metrics = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """A model as it was after its best epoch.

    Attributes:
        model: In evaluation mode.
        config: How it was trained.
        dataset: On what.
        best_epoch: The epoch, from 1, with the highest validation accuracy; among equals the one with the lowest
            validation loss. The model is the one after this epoch.
        history: Metrics of every epoch, as `train` describes them.
        interrupted: True if the training was stopped from the keyboard; the best so far was kept.
        seconds: Wall-clock time of the training.
    """

    model: BinaryMlp
    config: TrainingConfig
    dataset: Dataset
    best_epoch: int
    history: tuple[Metrics, ...]
    interrupted: bool
    seconds: float

    @property
    def validation_accuracy(self) -> float:
        """Of the best epoch."""
        return float(self.history[self.best_epoch - 1]["validation_accuracy"])

    def __repr__(self) -> str:
        return (
            f"TrainedModel({self.config}, best epoch {self.best_epoch} of {len(self.history)}, "
            f"validation accuracy {self.validation_accuracy:.1%}, {self.seconds:.1f} s)"
        )


def train(
    config: TrainingConfig,
    dataset: Dataset,
    *,
    device: str = "cpu",
    progress: bool = True,
    metrics: TextIO | Callable[[Metrics], None] | None = None,
) -> TrainedModel:
    """A network trained on `dataset.train` and chosen among the epochs by `dataset.validation`.

    The test images are not looked at. Ctrl-C after the first epoch ends the training and keeps the best so far.
    Runs on one thread: then sums have one order, and small matrices are fastest.

    Args:
        config: How to train.
        dataset: Binary images.
        device: Where torch computes: ``cpu``, or ``cuda`` for a GPU. Random numbers are drawn on the CPU, so the
            device changes the result only through float rounding. The trained model is returned on the CPU.
        progress: Show a progress bar on stderr.
        metrics: Where the metrics of each epoch go: a text file, which gets one JSON object per line, or a
            function of one dict. The keys: `epoch` (from 1), `loss` (mean over the steps), `train_accuracy`,
            `validation_accuracy`, `validation_loss`, `flip_ratio` (mean fraction of binary weights that a step
            changes), and for each hidden block in a list `activation_balance` (mean output over validation images
            and neurons, 0 is balanced) and `inside_window` (fraction of what the sign is taken of that lies in
            [-1, 1], where gradients pass; 0 is a dead network); then the totals of the rule, such as `pulses`.

    Raises:
        QueryError: The batch is larger than the training set, the loss became infinite or NaN, or torch
            does not see the device.
    """
    n_train = len(dataset.train)
    if config.batch_size > n_train:
        raise QueryError(f"batch_size is {config.batch_size}, but there are {n_train} training images.")
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(config.seed)
    widths = (dataset.shape[0] * dataset.shape[1], *config.hidden, len(dataset.classes))
    model = BinaryMlp(
        widths,
        batch_norm=config.batch_norm,
        bias=config.bias,
        output_bias=config.output_bias,
        generator=generator,
    )
    run = _Run(config, dataset, model.to(_usable(device)), generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    history: list[Metrics] = []
    best: tuple[float, float] = (-1.0, 0.0)
    best_epoch, best_state, interrupted = 0, {}, False
    bar = tqdm(range(1, config.epochs + 1), desc="train", unit="epoch", disable=not progress)
    try:
        for epoch in bar:
            record = run.epoch(epoch)
            history.append(record)
            rank = (record["validation_accuracy"], -record["validation_loss"])
            if rank > best:
                best, best_epoch, best_state = rank, epoch, copy.deepcopy(model.state_dict())
            bar.set_postfix(loss=f"{record['loss']:.3f}", validation=f"{record['validation_accuracy']:.1%}")
            _emit(record, metrics)
    except KeyboardInterrupt:
        if not best_epoch:
            raise
        interrupted = True
    finally:
        bar.close()
        torch.set_num_threads(threads)
    model.load_state_dict(best_state)
    model.to("cpu").eval()
    seconds = time.perf_counter() - started
    return TrainedModel(model, config, dataset, best_epoch, tuple(history), interrupted, seconds)


class _Run:
    """One training run in progress."""

    def __init__(self, config: TrainingConfig, dataset: Dataset, model: BinaryMlp, generator: torch.Generator) -> None:
        self.config, self.model, self.generator = config, model, generator
        device = model.output.weight.device
        self.train, self.validation = _tensors(dataset.train, device), _tensors(dataset.validation, device)
        self.rule: RuleState = config.rule.start(model.binary_weights(), generator=generator)
        real = model.real_parameters()
        self.adam = torch.optim.Adam(real, lr=config.learning_rate) if real else None
        self.steps_per_epoch = len(dataset.train) // config.batch_size

    def epoch(self, epoch: int) -> Metrics:
        """Trains for one epoch and measures."""
        images, labels = self.train
        order = torch.randperm(len(labels), generator=self.generator).to(labels.device)
        weights = self.model.binary_weights()
        losses, flips = [], 0
        for i in range(self.steps_per_epoch):
            batch = order[i * self.config.batch_size : (i + 1) * self.config.batch_size]
            progress = (epoch - 1 + i / self.steps_per_epoch) / self.config.epochs
            self.rule.prepare(training=True)
            before = [w.detach().clone() for w in weights]
            losses.append(self._step(self._noisy(images[batch]), labels[batch], progress))
            flips += sum(int(torch.count_nonzero(a != b)) for a, b in zip(before, weights, strict=True))
        if not all(math.isfinite(loss) for loss in losses):
            raise QueryError(f"the loss became infinite or NaN in epoch {epoch}. Lower the learning rates.")
        n_weights = sum(w.numel() for w in weights)
        return {
            "epoch": epoch,
            "loss": sum(losses) / len(losses),
            **self._measure(),
            "flip_ratio": flips / (n_weights * len(losses)),
            **self.rule.statistics(),
        }

    def _step(self, images: Tensor, labels: Tensor, progress: float) -> float:
        self.model.train()
        self.model.zero_grad()
        loss = loss_of(self.model(images), labels, self.config.loss)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.adam is not None:
            cosine = 0.5 * (1 + math.cos(math.pi * progress))
            self.adam.param_groups[0]["lr"] = self.config.learning_rate * (0.01 + 0.99 * cosine)
            self.adam.step()
        self.rule.step(progress, lambda: self._again(images, labels))
        return float(loss.detach())

    @torch.no_grad()
    def _again(self, images: Tensor, labels: Tensor) -> float:
        self.model.eval()
        return float(loss_of(self.model(images), labels, self.config.loss))

    @torch.no_grad()
    def _measure(self) -> Metrics:
        self.model.eval()
        self.rule.prepare(training=False)
        scores, normalized = self.model.trace(self.validation[0])
        return {
            "train_accuracy": _accuracy(self.model(self.train[0]), self.train[1]),
            "validation_accuracy": _accuracy(scores, self.validation[1]),
            "validation_loss": float(loss_of(scores, self.validation[1], self.config.loss)),
            "activation_balance": [float((z >= 0).float().mean() * 2 - 1) for z in normalized],
            "inside_window": [float((z.abs() <= 1).float().mean()) for z in normalized],
        }

    def _noisy(self, images: Tensor) -> Tensor:
        if self.config.noise == 0:
            return images
        flipped = torch.rand(images.shape, generator=self.generator).to(images.device) < self.config.noise
        return torch.where(flipped, -images, images)


def loss_of(scores: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Mean loss of scores `(N, classes)` against labels `(N,)`.

    ``cross-entropy`` is that of the softmax. ``squared-hinge`` is the mean over images and classes of
    ``max(0, 1 - t * score)^2`` with t = +1 for the true class and -1 for the others.
    """
    if loss == "cross-entropy":
        return functional.cross_entropy(scores, labels)
    target = 2.0 * functional.one_hot(labels, scores.shape[1]) - 1.0
    return (1 - target * scores).clamp(min=0).square().mean()


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return int(torch.count_nonzero(scores.argmax(dim=1) == labels)) / len(labels)


def _tensors(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(split.images.astype(np.float32))
    return images.to(device), torch.from_numpy(split.labels.copy()).to(device)


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


def _emit(record: Metrics, metrics: TextIO | Callable[[Metrics], None] | None) -> None:
    if metrics is None:
        return
    if callable(metrics):
        metrics(record)
    else:
        metrics.write(json.dumps(record) + "\n")
        metrics.flush()
