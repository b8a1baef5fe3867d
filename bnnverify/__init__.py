"""Exact answers about binarized neural networks.

Names are imported on first use, so that ``import bnnverify`` costs nothing and needs neither torch nor numba nor
a decision-diagram package.

>>> import bnnverify
>>> bnnverify.HammingBall((1, -1, 1), 1).size()
4
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnnverify.counting import count_adversarial
    from bnnverify.datasets import load as load_dataset
    from bnnverify.engines.base import Limits
    from bnnverify.engines.montecarlo import sample_errors
    from bnnverify.errors import BnnVerifyError
    from bnnverify.explain import check_explanation, essential_features, prime_implicant
    from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt, log_grid
    from bnnverify.folding import fold_block, fold_conv_block
    from bnnverify.formats import load_network as load
    from bnnverify.formats.native import save
    from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock, Provenance
    from bnnverify.query import Query, Targeted, Ties, Untargeted
    from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
    from bnnverify.reliability import (
        accuracy_curve,
        error_probability,
        expected_accuracy,
        fault_enumerator,
        tolerance_bracket,
    )
    from bnnverify.results import Count, Decision, Distance, EssentialFeatures, Explanation, Kind, Probability, Verdict
    from bnnverify.robustness import decide, minimum_adversarial_distance
    from bnnverify.summary import summarize

# Public name -> the module it lives in, and its name there if that is another one.
_PUBLIC = {
    "AsymmetricFlip": "faults",
    "BinaryNetwork": "network",
    "BitFlip": "faults",
    "BnnVerifyError": "errors",
    "ConvBlock": "network",
    "Count": "results",
    "Decision": "results",
    "DenseBlock": "network",
    "Distance": "results",
    "EssentialFeatures": "results",
    "Explanation": "results",
    "FixedIndexRegion": "regions",
    "HammingBall": "regions",
    "InputDomain": "network",
    "Kind": "results",
    "Limits": "engines.base",
    "OutputBlock": "network",
    "PerBlock": "faults",
    "Probability": "results",
    "Provenance": "network",
    "Query": "query",
    "StuckAt": "faults",
    "Targeted": "query",
    "Ties": "query",
    "Untargeted": "query",
    "Verdict": "results",
    "accuracy_curve": "reliability",
    "check_explanation": "explain",
    "count_adversarial": "counting",
    "decide": "robustness",
    "error_probability": "reliability",
    "essential_features": "explain",
    "expected_accuracy": "reliability",
    "fault_enumerator": "reliability",
    "fold_block": "folding",
    "fold_conv_block": "folding",
    "load": "formats:load_network",
    "load_dataset": "datasets:load",
    "log_grid": "faults",
    "minimum_adversarial_distance": "robustness",
    "prime_implicant": "explain",
    "sample_errors": "engines.montecarlo",
    "save": "formats.native",
    "summarize": "summary",
    "tolerance_bracket": "reliability",
    "whole_cube": "regions",
}

__all__ = [
    "AsymmetricFlip",
    "BinaryNetwork",
    "BitFlip",
    "BnnVerifyError",
    "ConvBlock",
    "Count",
    "Decision",
    "DenseBlock",
    "Distance",
    "EssentialFeatures",
    "Explanation",
    "FixedIndexRegion",
    "HammingBall",
    "InputDomain",
    "Kind",
    "Limits",
    "OutputBlock",
    "PerBlock",
    "Probability",
    "Provenance",
    "Query",
    "StuckAt",
    "Targeted",
    "Ties",
    "Untargeted",
    "Verdict",
    "accuracy_curve",
    "check_explanation",
    "count_adversarial",
    "decide",
    "error_probability",
    "essential_features",
    "expected_accuracy",
    "fault_enumerator",
    "fold_block",
    "fold_conv_block",
    "load",
    "load_dataset",
    "log_grid",
    "minimum_adversarial_distance",
    "prime_implicant",
    "sample_errors",
    "save",
    "summarize",
    "tolerance_bracket",
    "whole_cube",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("bnnverify")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bnnverify' has no attribute {name!r}")
    module, _, there = _PUBLIC[name].partition(":")
    value = getattr(import_module(f"bnnverify.{module}"), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
