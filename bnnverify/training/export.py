"""From a trained model to the exact BinaryNetwork, with the proof by data that both are the same."""

from __future__ import annotations

import copy
import math
import platform
from typing import Any

import numpy as np
import torch

from bnnverify.datasets import Dataset
from bnnverify.errors import EngineError
from bnnverify.folding import fold_block
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock, Provenance
from bnnverify.training.loop import TrainedModel
from bnnverify.training.model import BinaryMlp, HiddenBlock


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
    network = BinaryNetwork(
        InputDomain.binary(math.prod(dataset.shape), dataset.shape),
        tuple(_dense_block(block, f"blocks[{i}]") for i, block in enumerate(model.hidden)),
        _output_block(model),
        Provenance(_provenance(trained)),
    )
    check_agreement(network, model, dataset)
    measured = {**network.provenance.data, "accuracy": accuracies(network, dataset)}
    return BinaryNetwork(network.domain, network.blocks, network.output, Provenance(measured))


def check_agreement(network: BinaryNetwork, model: BinaryMlp, dataset: Dataset) -> None:
    """Checks that network and model, in float64 and evaluation mode, predict the same class for every image.

    Raises:
        EngineError: They differ; the message counts the images.
    """
    double = copy.deepcopy(model).double().eval()
    images = np.concatenate([split.images for split in dataset.splits.values()])
    with torch.no_grad():
        expected = double(torch.from_numpy(images.astype(np.float64))).argmax(dim=1).numpy()
    wrong = np.flatnonzero(network.evaluate_batch(images) != expected)
    if wrong.size:
        raise EngineError(
            f"the exported network disagrees with the torch model on {wrong.size} of {len(images)} images, "
            f"first on number {wrong[0]}, expected on none. This is a bug in the export; please report it."
        )


def accuracies(network: BinaryNetwork, dataset: Dataset) -> dict[str, float]:
    """Fraction of right predictions in each split: train, validation, test."""
    return {
        name: int(np.count_nonzero(network.evaluate_batch(split.images) == split.labels)) / len(split)
        for name, split in dataset.splits.items()
    }


def _dense_block(block: HiddenBlock, name: str) -> DenseBlock:
    weights = block.weight.detach().numpy().astype(np.int8)
    m, n = weights.shape
    if block.norm is None:
        assert block.bias is not None
        # z = s / sqrt(n) + bias is the batch norm with variance n
        return fold_block(
            weights,
            gamma=[1] * m,
            beta=block.bias.tolist(),
            mean=[0] * m,
            variance=[n] * m,
            epsilon=0,
            input_reach=[1] * n,
            name=name,
        )
    norm = block.norm
    assert norm.running_mean is not None and norm.running_var is not None
    return fold_block(
        weights,
        gamma=norm.weight.tolist(),
        beta=norm.bias.tolist(),
        mean=norm.running_mean.tolist(),
        variance=norm.running_var.tolist(),
        epsilon=norm.eps,
        input_reach=[1] * n,
        name=name,
    )


def _output_block(model: BinaryMlp) -> OutputBlock:
    output = copy.deepcopy(model.output).double()
    weights = output.weight.detach().numpy().astype(np.int8)
    return OutputBlock.create(weights, scale=output.scale.item(), bias=output.bias.tolist())


def _provenance(trained: TrainedModel) -> dict[str, Any]:
    scalars = ("loss", "train_accuracy", "validation_accuracy", "flip_ratio", "pulses", "switches")
    history = trained.history
    return {
        "made_by": "bnnverify.training",
        "config": trained.config.as_json(),
        "data": dict(trained.dataset.provenance),
        "best_epoch": trained.best_epoch,
        "selected_by": "validation accuracy, then validation loss",
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
