"""Exact answers about binarized neural networks.

Names are imported on first use, so that ``import bnnverify`` costs nothing and needs neither torch nor numba nor
a decision-diagram package.

>>> import bnnverify
>>> bnnverify.HammingBall((1, -1, 1), 1).size()
4
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnnverify.certificates import certify as write_certificate
    from bnnverify.checking.certificate import check_certificate
    from bnnverify.counting import (
        adversarial_inputs,
        count_adversarial,
        counts_by_radius,
        maximal_safe_distance,
        misclassification_probability,
        sample_adversarial,
    )
    from bnnverify.datasets import load as load_dataset
    from bnnverify.deciding.distance import linf_distance
    from bnnverify.encodings.classdiagram import ClassDiagram, compile_diagram
    from bnnverify.engines.base import Limits, Monitor
    from bnnverify.engines.chipsampling import sample_chips
    from bnnverify.engines.montecarlo import sample_errors
    from bnnverify.errors import BnnVerifyError
    from bnnverify.explain import ExplanationCheck, check_explanation, essential_features, prime_implicant
    from bnnverify.faults import (
        AsymmetricFlip,
        BitFlip,
        PerBlock,
        PerCell,
        PerRead,
        StuckAt,
        in_series,
        log_grid,
        write_verified,
    )
    from bnnverify.folding import fold_block, fold_conv_block
    from bnnverify.formats import import_model
    from bnnverify.formats import load_network as load
    from bnnverify.formats.diagrams import load_diagram, save_diagram
    from bnnverify.formats.native import save
    from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock, Provenance
    from bnnverify.quantities import NoiseError, RadiusCounts, SafeDistance, Samples
    from bnnverify.query import Query, Targeted, Ties, Untargeted
    from bnnverify.regions import FixedIndexRegion, HammingBall, PixelBox, RealBox, quantized_box, whole_cube
    from bnnverify.reliability import (
        accuracy_curve,
        bit_flip_distance,
        block_sensitivity,
        certified_range,
        chip_yield,
        critical_cells,
        error_probability,
        exact_error_probability,
        expected_accuracy,
        fault_coefficients,
        fault_enumerator,
        lowest_write_energy,
        robust_to_flips,
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
    "ClassDiagram": "encodings.classdiagram",
    "ConvBlock": "network",
    "Count": "results",
    "Decision": "results",
    "DenseBlock": "network",
    "Distance": "results",
    "EssentialFeatures": "results",
    "Explanation": "results",
    "ExplanationCheck": "explain",
    "FixedIndexRegion": "regions",
    "HammingBall": "regions",
    "InputDomain": "network",
    "Kind": "results",
    "Limits": "engines.base",
    "Monitor": "engines.base",
    "NoiseError": "quantities",
    "OutputBlock": "network",
    "PerBlock": "faults",
    "PerCell": "faults",
    "PerRead": "faults",
    "PixelBox": "regions",
    "Probability": "results",
    "Provenance": "network",
    "Query": "query",
    "RadiusCounts": "quantities",
    "RealBox": "regions",
    "SafeDistance": "quantities",
    "Samples": "quantities",
    "StuckAt": "faults",
    "Targeted": "query",
    "Ties": "query",
    "Untargeted": "query",
    "Verdict": "results",
    "accuracy_curve": "reliability",
    "adversarial_inputs": "counting",
    "bit_flip_distance": "reliability",
    "block_sensitivity": "reliability",
    "certified_range": "reliability",
    "check_certificate": "checking.certificate",
    "check_explanation": "explain",
    "chip_yield": "reliability",
    "compile_diagram": "encodings.classdiagram",
    "count_adversarial": "counting",
    "counts_by_radius": "counting",
    "critical_cells": "reliability",
    "decide": "robustness",
    "error_probability": "reliability",
    "essential_features": "explain",
    "exact_error_probability": "reliability",
    "expected_accuracy": "reliability",
    "fault_coefficients": "reliability",
    "fault_enumerator": "reliability",
    "fold_block": "folding",
    "fold_conv_block": "folding",
    "import_model": "formats",
    "in_series": "faults",
    "linf_distance": "deciding.distance",
    "load": "formats:load_network",
    "load_dataset": "datasets:load",
    "load_diagram": "formats.diagrams",
    "log_grid": "faults",
    "lowest_write_energy": "reliability",
    "maximal_safe_distance": "counting",
    "minimum_adversarial_distance": "robustness",
    "misclassification_probability": "counting",
    "prime_implicant": "explain",
    "quantized_box": "regions",
    "robust_to_flips": "reliability",
    "sample_adversarial": "counting",
    "sample_chips": "engines.chipsampling",
    "sample_errors": "engines.montecarlo",
    "save": "formats.native",
    "save_diagram": "formats.diagrams",
    "summarize": "summary",
    "tolerance_bracket": "reliability",
    "whole_cube": "regions",
    "write_certificate": "certificates:certify",
    "write_verified": "faults",
}

__all__ = [
    "AsymmetricFlip",
    "BinaryNetwork",
    "BitFlip",
    "BnnVerifyError",
    "ClassDiagram",
    "ConvBlock",
    "Count",
    "Decision",
    "DenseBlock",
    "Distance",
    "EssentialFeatures",
    "Explanation",
    "ExplanationCheck",
    "FixedIndexRegion",
    "HammingBall",
    "InputDomain",
    "Kind",
    "Limits",
    "Monitor",
    "NoiseError",
    "OutputBlock",
    "PerBlock",
    "PerCell",
    "PerRead",
    "PixelBox",
    "Probability",
    "Provenance",
    "Query",
    "RadiusCounts",
    "RealBox",
    "SafeDistance",
    "Samples",
    "StuckAt",
    "Targeted",
    "Ties",
    "Untargeted",
    "Verdict",
    "accuracy_curve",
    "adversarial_inputs",
    "bit_flip_distance",
    "block_sensitivity",
    "certified_range",
    "check_certificate",
    "check_explanation",
    "chip_yield",
    "compile_diagram",
    "count_adversarial",
    "counts_by_radius",
    "critical_cells",
    "decide",
    "error_probability",
    "essential_features",
    "exact_error_probability",
    "expected_accuracy",
    "fault_coefficients",
    "fault_enumerator",
    "fold_block",
    "fold_conv_block",
    "import_model",
    "in_series",
    "linf_distance",
    "load",
    "load_dataset",
    "load_diagram",
    "log_grid",
    "lowest_write_energy",
    "maximal_safe_distance",
    "minimum_adversarial_distance",
    "misclassification_probability",
    "prime_implicant",
    "quantized_box",
    "robust_to_flips",
    "sample_adversarial",
    "sample_chips",
    "sample_errors",
    "save",
    "save_diagram",
    "summarize",
    "tolerance_bracket",
    "whole_cube",
    "write_certificate",
    "write_verified",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("bnnverify")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bnnverify' has no attribute {name!r}")
    module, _, there = _PUBLIC[name].partition(":")
    value = getattr(import_module(f"bnnverify.{module}"), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
