"""From a trained model to the exact BinaryNetwork, with the proof by data that both are the same."""

from __future__ import annotations

import copy
import math
import platform
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from bnnverify.convolution import ConvBlock
from bnnverify.datasets import Dataset, inputs_for
from bnnverify.errors import EngineError
from bnnverify.folding import fold_block, fold_conv_block
from bnnverify.kernels import PackedNetwork
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock, Provenance
from bnnverify.training.architecture import Conv
from bnnverify.training.config import TrainingConfig
from bnnverify.training.loop import TrainedModel, inputs_of
from bnnverify.training.model import BinaryModel, HiddenBlock

_BATCH = 1000


def export(trained: TrainedModel) -> BinaryNetwork:
    """The exact network that the trained model is.

    Batch norm, or the fixed scale and bias, is folded into integer thresholds without rounding. The output keeps
    one scale for all classes, rounded once to float64, and the bias of each class. Then every prediction on the
    training, validation and test images is compared with the torch model in float64.

    Returns:
        The network, its provenance with config, data, accuracies, history and versions.

    Raises:
        EngineError: A prediction of the network differs from the model's.
        ModelError: A parameter is not finite.
    """
    model, dataset = trained.model, trained.dataset
    shape = dataset.shape
    n = math.prod(shape)
    top = model.reach if trained.config.input == "pixels" else 0
    domain = InputDomain.integers([0] * n, [top] * n, shape) if top else InputDomain.binary(n, shape)
    network = BinaryNetwork(
        domain,
        tuple(_block(block, f"blocks[{i}]", top=top if i == 0 else 0) for i, block in enumerate(model.hidden)),
        _output_block(model, top=0 if model.hidden else top),
        Provenance(_provenance(trained)),
    )
    check_agreement(network, model, dataset, trained.config)
    measured = {**network.provenance.data, "accuracy": accuracies(network, dataset)}
    return BinaryNetwork(network.domain, network.blocks, network.output, Provenance(measured))


def check_agreement(network: BinaryNetwork, model: BinaryModel, dataset: Dataset, config: TrainingConfig) -> None:
    """Checks that network and model, in float64 and evaluation mode, predict the same class for every image.

    Raises:
        EngineError: They differ; the message counts the images.
    """
    top = model.reach if config.input == "pixels" else 0
    double = copy.deepcopy(model).double().eval()
    packed = PackedNetwork(network)
    wrong, first, total = 0, None, 0
    for split in dataset.splits.values():
        inputs = inputs_of(config, split)
        for start in range(0, len(inputs), _BATCH):
            part = inputs[start : start + _BATCH]
            x = torch.from_numpy(part.astype(np.float64))
            with torch.no_grad():
                scores = double(x if config.input == "binary" else 2 * x - top)
            bad = np.flatnonzero(packed.classes(part) != scores.argmax(dim=1).numpy())
            if bad.size and first is None:
                first = total + start + int(bad[0])
            wrong += bad.size
        total += len(inputs)
    if wrong:
        raise EngineError(
            f"the exported network disagrees with the torch model on {wrong} of {total} images, "
            f"first on number {first}, expected on none. This is a bug in the export; please report it."
        )


def accuracies(network: BinaryNetwork, dataset: Dataset) -> dict[str, float]:
    """Fraction of right predictions in each split: train, validation, test."""
    packed = PackedNetwork(network)
    return {
        name: int(np.count_nonzero(packed.classes(inputs_for(network, split)) == split.labels)) / len(split)
        for name, split in dataset.splits.items()
    }


def card(
    name: str, network: BinaryNetwork, *, command: str, selection: Mapping[str, Any], epochs: int, seconds: float
) -> dict[str, Any]:
    """What a reader wants to know of an exported network before using it; plain JSON values.

    Args:
        name: Of the network; its file is ``name.npz``.
        network: As `export` made it.
        command: Makes the network again.
        selection: How it was chosen among others.
        epochs: Epochs that were trained.
        seconds: Time of one training.
    """
    made = network.provenance.data
    return {
        "name": name,
        "file": f"{name}.npz",
        "sha256": network.identity,
        "cells_sha256": network.cells_identity,
        "architecture": network.architecture,
        "cells": network.n_cells,
        "accuracy": made["accuracy"],
        "command": command,
        "config": made["config"],
        "epochs_trained": epochs,
        "best_epoch": made["best_epoch"],
        "selection": dict(selection),
        "data": made["data"],
        "versions": made["versions"],
        "seconds_per_seed": round(seconds, 1),
    }


def _block(block: HiddenBlock, name: str, *, top: int) -> DenseBlock | ConvBlock:
    """The exact block: a fixed scale is the batch norm with variance ``fan_in * reach^2``; shifts move beta."""
    weights = block.weight.detach().numpy().astype(np.int8)
    channels = weights.shape[0]
    shift = Fraction(block.x_shift - block.y_shift)
    if block.norm is None:
        assert block.bias is not None
        gamma: list[Any] = [1] * channels
        beta, mean = [Fraction(b) - shift for b in block.bias.tolist()], [Fraction(0)] * channels
        variance, epsilon = [Fraction(block.fan_in * block.reach**2)] * channels, Fraction(0)
    else:
        norm = block.norm
        gamma, beta = norm.weight.tolist(), [Fraction(b) - shift for b in norm.bias.tolist()]
        mean, variance = ([Fraction(v) for v in t.tolist()] for t in (norm.running_mean, norm.running_var))
        epsilon = Fraction(norm.eps)
    if top:  # the model saw 2x - top, so its sums are 2u - top * sum(w) with u = w . x
        totals = weights.reshape(channels, -1).sum(axis=1, dtype=np.int64).tolist()
        mean = [(mu + top * total) / 2 for mu, total in zip(mean, totals, strict=True)]
        variance, epsilon = [v / 4 for v in variance], epsilon / 4
    norms: dict[str, Any] = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance, "epsilon": epsilon}
    if isinstance(block.layer, Conv):
        channels_in, height, width = block.input_shape
        return fold_conv_block(
            weights,
            **norms,
            input_shape=(channels_in, height, width),
            stride=block.layer.stride,
            padding=block.layer.padding,
            pool=block.layer.pool,
            pool_before_norm=True,
            input_reach=block.reach,
            name=name,
        )
    return fold_block(weights, **norms, input_reach=[block.reach] * weights.shape[1], name=name)


def _output_block(model: BinaryModel, *, top: int) -> OutputBlock:
    """The scores; over pixels x the model's ``scale * w . (2x - top) + bias`` is written in terms of ``w . x``."""
    output = copy.deepcopy(model.output).double()
    weights = output.weight.detach().numpy().astype(np.int8)
    scale, bias = output.scale.item(), output.bias.tolist()
    if not top:
        return OutputBlock.create(weights, scale=scale, bias=bias)
    totals = weights.sum(axis=1, dtype=np.int64).tolist()
    moved = [Fraction(b) - top * Fraction(scale) * t for b, t in zip(bias, totals, strict=True)]
    return OutputBlock.create(weights, scale=2 * Fraction(scale), bias=moved)


def _provenance(trained: TrainedModel) -> dict[str, Any]:
    scalars = ("loss", "train_accuracy", "validation_accuracy", "flip_ratio", "pulses", "switches", "undone")
    history = trained.history
    return {
        "made_by": "bnnverify.training",
        "config": trained.config.as_json(),
        "data": dict(trained.dataset.provenance),
        "best_epoch": trained.best_epoch,
        "selected_by": "validation accuracy, then validation loss" if trained.config.select == "best" else "last epoch",
        "interrupted": trained.interrupted,
        "history": {key: [_short(e[key]) for e in history] for key in scalars if key in history[0]},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _short(value: float) -> float:
    """Five significant digits: enough for a curve."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
