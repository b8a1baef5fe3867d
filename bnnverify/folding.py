"""Batch norm and sign folded into integer thresholds, in exact rational arithmetic.

A neuron of a trained network computes ``y = gamma * (s + bias - mean) / sqrt(var + eps) + beta`` on its integer
pre-activation s and fires iff y >= 0. All parameters are floats, hence dyadic rationals; the only irrational
is the square root, and comparing with it needs squares only. So the threshold is exact.

References:
    Narodytska et al., "Verifying properties of binarized deep neural networks", AAAI 2018, Sec. 4, for folding
    into cardinality thresholds. The treatment of the square root by comparing squares: ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.blocks import KERNELS, as_fraction, sign_array
from bnnverify.convolution import ConvBlock
from bnnverify.domain import integer_array
from bnnverify.errors import ModelError
from bnnverify.network import DenseBlock
from bnnverify.scalars import plain

REACH_LIMIT = 2**61  # beyond the pre-activations of any InputDomain


@dataclass(frozen=True, slots=True)
class RealThreshold:
    """The exact real number ``offset + factor * sqrt(radicand)``; all three rational, radicand >= 0."""

    offset: Fraction
    factor: Fraction
    radicand: Fraction

    def is_at_most(self, value: Fraction | int) -> bool:
        """True iff the threshold is <= `value`, decided without rounding."""
        rest = Fraction(value) - self.offset  # asks: factor * sqrt(radicand) <= rest
        square = self.factor * self.factor * self.radicand
        if self.factor <= 0 or self.radicand == 0:
            return rest >= 0 or square >= rest * rest
        return rest >= 0 and square <= rest * rest

    def ceil(self) -> int:
        """The least integer >= the threshold."""
        square = self.factor * self.factor * self.radicand
        root = math.isqrt(square.numerator * square.denominator) // square.denominator
        signed = root if self.factor > 0 else -root - 1
        guess = math.floor(self.offset) + signed  # below the answer by at most 3
        while not self.is_at_most(guess):
            guess += 1
        return guess

    def floor(self) -> int:
        """The greatest integer <= the threshold."""
        return -RealThreshold(-self.offset, -self.factor, self.radicand).ceil()


@dataclass(frozen=True, slots=True)
class FoldedNeuron:
    """A neuron as it fires: iff ``w . x >= threshold`` (rising), or iff ``w . x <= threshold`` (falling)."""

    threshold: int
    rising: bool


def fold_neuron(
    *,
    gamma: Any,
    beta: Any,
    mean: Any,
    variance: Any,
    epsilon: Any,
    reach: int = REACH_LIMIT,
    bias: Any = 0,
    name: str = "neuron",
) -> FoldedNeuron:
    """The exact integer firing rule of ``sign(batch_norm(s + bias))``, sign(0) = +1.

    Args:
        gamma: Batch-norm scale. Below 0 the rule is falling; 0 makes the neuron constant.
        beta: Batch-norm shift.
        mean: Running mean.
        variance: Running variance, at least 0.
        epsilon: Added to the variance, at least 0 (torch 1e-5, Keras 1e-3).
        reach: A bound on |s|. Thresholds beyond it are clamped to ``-reach`` or ``reach + 1``, which fire always or
            never. The default is beyond the pre-activations of any network, so always right; the exact bound (the
            number of present inputs, if these are signs) gives constant neurons the smallest thresholds.
        bias: Bias of the linear layer before batch norm.
        name: What error messages call the neuron.

    Raises:
        ModelError: A parameter is not finite, a variance is negative, or variance + epsilon is 0.

    >>> fold_neuron(gamma=2.0, beta=-1.0, mean=0.5, variance=4.0, epsilon=0, reach=10)
    FoldedNeuron(threshold=2, rising=True)
    """
    names = {
        "gamma": gamma,
        "beta": beta,
        "mean": mean,
        "variance": variance,
        "epsilon": epsilon,
        "bias": bias,
    }
    g, b, mu, var, eps, c = (as_fraction(v, f"{name}: batch-norm {k}") for k, v in names.items())
    if var < 0 or eps < 0:
        raise ModelError(
            f"{name}: batch-norm variance is {float(var):g} and epsilon {float(eps):g}, expected both at least 0."
        )
    if var + eps == 0:
        raise ModelError(f"{name}: batch-norm variance + epsilon is 0, expected above 0.")
    if g == 0:
        return FoldedNeuron(-reach if b >= 0 else reach + 1, rising=True)
    real = RealThreshold(mu - c, -b / g, var + eps)
    if g > 0:
        return FoldedNeuron(min(max(real.ceil(), -reach), reach + 1), rising=True)
    return FoldedNeuron(max(min(real.floor(), reach), -reach - 1), rising=False)


def fold_block(
    weights: ArrayLike,
    *,
    gamma: Sequence[Any],
    beta: Sequence[Any],
    mean: Sequence[Any],
    variance: Sequence[Any],
    epsilon: Any,
    bias: Sequence[Any] | None = None,
    mask: ArrayLike | None = None,
    input_reach: Sequence[int] | None = None,
    name: str = "block",
) -> DenseBlock:
    """A DenseBlock that fires exactly as linear -> batch norm -> sign does.

    Rows with gamma < 0 are negated so that every neuron has the form ``w . x >= t``; `DenseBlock.negated`
    remembers them.

    Args:
        weights: Shape `(m, n)`, -1/+1.
        gamma: Shape `(m,)`; beta, mean, variance, bias likewise.
        beta: Batch-norm shifts.
        mean: Running means.
        variance: Running variances.
        epsilon: One number for the block.
        bias: Biases of the linear layer; default 0.
        mask: Shape `(m, n)`, bool, True where the input is present.
        input_reach: Bound on |x_i| of each input, shape `(n,)`: 1 for signs. It only keeps the thresholds of
            constant neurons small; the default is right for any inputs.
        name: What error messages call the block.

    Raises:
        ModelError: As `fold_neuron` and `DenseBlock.create`.
    """
    matrix, present = sign_array(weights, mask, f"{name}.weights")
    m, n = matrix.shape
    reach = None if input_reach is None else integer_array(input_reach, f"{name}: input_reach", 1)
    if reach is not None and (reach.shape != (n,) or (reach < 0).any()):
        raise ModelError(f"{name}: input_reach is {reach.tolist()}, expected {n} numbers of at least 0, one per input.")
    rows = _fold_rows(
        {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance, "bias": [0] * m if bias is None else bias},
        epsilon,
        [REACH_LIMIT if reach is None else int(reach[present[j]].sum()) for j in range(m)],
        name,
        "neuron",
    )
    negated = np.array([not row.rising for row in rows])
    matrix[negated] *= -1
    thresholds = [row.threshold if row.rising else -row.threshold for row in rows]
    return DenseBlock.create(matrix, thresholds, mask=present, negated=negated, name=name)


def fold_conv_block(
    weights: ArrayLike,
    *,
    gamma: Sequence[Any],
    beta: Sequence[Any],
    mean: Sequence[Any],
    variance: Sequence[Any],
    epsilon: Any,
    bias: Sequence[Any] | None = None,
    mask: ArrayLike | None = None,
    input_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    pad_value: int = 0,
    pool: int | Sequence[int] = 1,
    pool_before_norm: bool = False,
    input_reach: int | None = None,
    name: str = "block",
) -> ConvBlock:
    """A ConvBlock that fires exactly as convolution -> batch norm -> sign -> max-pooling does.

    With `pool_before_norm` it fires as convolution -> max-pooling -> batch norm -> sign does. The two are the same
    where gamma >= 0. Where gamma < 0 a neuron fires iff the greatest sum of its window is at most a threshold, that is,
    iff all positions of the window fire: `ConvBlock.conjunction`.

    Args:
        weights: Shape `(filters, channels, rows, columns)`, -1/+1.
        gamma: Batch-norm scales, shape `(filters,)`; beta, mean, variance, bias likewise.
        beta: Batch-norm shifts.
        mean: Running means.
        variance: Running variances.
        epsilon: One number for the block.
        bias: Biases of the convolution; default 0.
        mask: Shape of `weights`, bool, True where the cell is present.
        input_shape: `(channels, height, width)`.
        stride: As in `ConvBlock.create`; padding, pad_value and pool likewise.
        padding: Rows above and below, columns left and right.
        pad_value: 0 for absent inputs (what frameworks call zero padding), -1 or +1 for a constant sign.
        pool: Rows and columns of the pooling windows.
        pool_before_norm: True if the model pools the sums, False if it pools the signs.
        input_reach: Bound on |x_i| of every input: 1 for signs. It only keeps the thresholds of constant neurons
            small; the default is right for any inputs.
        name: What error messages call the block.

    Raises:
        ModelError: As `fold_neuron` and `ConvBlock.create`.

    References:
        The order of max-pooling and batch norm: Courbariaux, Hubara et al., "Binarized neural networks", 2016, pool
        first. Conjunctions for negative scales: ours.
    """
    kernels, present = sign_array(weights, mask, f"{name}.weights", KERNELS)
    filters = kernels.shape[0]
    input_reach = plain(input_reach)
    if input_reach is not None and (type(input_reach) is not int or input_reach < 0):
        raise ModelError(f"{name}: input_reach is {input_reach!r}, expected an integer of at least 0.")
    cells = np.count_nonzero(kernels, axis=(1, 2, 3))
    entry = None if input_reach is None else max(input_reach, abs(pad_value))
    rows = _fold_rows(
        {
            "gamma": gamma,
            "beta": beta,
            "mean": mean,
            "variance": variance,
            "bias": [0] * filters if bias is None else bias,
        },
        epsilon,
        [REACH_LIMIT if entry is None else entry * int(count) for count in cells],
        name,
        "filter",
    )
    negated = np.array([not row.rising for row in rows])
    kernels[negated] *= -1
    return ConvBlock.create(
        kernels,
        [row.threshold if row.rising else -row.threshold for row in rows],
        input_shape=input_shape,
        stride=stride,
        padding=padding,
        pad_value=pad_value,
        pool=pool,
        mask=present,
        negated=negated,
        conjunction=negated if pool_before_norm else None,
        name=name,
    )


def _fold_rows(
    columns: Mapping[str, Sequence[Any]], epsilon: Any, reaches: Sequence[int], name: str, kind: str
) -> list[FoldedNeuron]:
    """The firing rule of each neuron or filter, from the columns of batch-norm parameters."""
    m = len(reaches)
    for what, values in columns.items():
        if np.shape(values) != (m,):
            raise ModelError(
                f"{name}: batch-norm {what} has shape {np.shape(values)}, expected ({m},), one per {kind}."
            )
    return [
        fold_neuron(
            **{what: values[j] for what, values in columns.items()},
            epsilon=epsilon,
            reach=reaches[j],
            name=f"{name}, {kind} {j}",
        )
        for j in range(m)
    ]
