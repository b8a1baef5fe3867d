"""Elementwise operations of model files on a `Tensor`: constants, batch norms, signs, comparisons, clips, borders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats.tensors import Tensor
from bnnverify.formats.units import Affine, Column, Steps, clipped, column, constant_column, signs_of


def require_plain(tensor: Tensor, where: str) -> None:
    """UnsupportedError if the tensor has a border, which only a convolution takes."""
    if tensor.border is not None:
        raise UnsupportedError(f"{where} follows a padding, expected a convolution there.")


def require_exact(tensor: Tensor, where: str) -> None:
    """UnsupportedError if the values are known by their signs only, or have a border."""
    require_plain(tensor, where)
    if tensor.squashed and tensor.steps is None:
        raise UnsupportedError(f"{where} follows a clip of sums, expected a sign there.")


def per_unit(tensor: Tensor, values: Any, where: str) -> Column:
    """A constant, broadcast against the tensor, as one Fraction per unit.

    Raises:
        UnsupportedError: The constant differs within the positions of one unit, or makes the tensor larger.
    """
    array = np.asarray(values)
    if array.size == 1 and array.ndim <= tensor.index.ndim:
        return column(array, where)[[0] * tensor.affine.size]
    try:
        spread = np.broadcast_to(array, np.broadcast_shapes(array.shape, tensor.index.shape))
    except ValueError:
        raise ModelError(f"{where}: a constant of shape {array.shape} does not fit {tensor.index.shape}.") from None
    if spread.shape != tensor.index.shape:
        raise UnsupportedError(
            f"{where} makes {spread.shape} of {tensor.index.shape} by broadcasting, expected a constant per channel."
        )
    flat = np.empty(spread.size, dtype=array.dtype)
    flat[tensor.index.ravel()] = spread.ravel()
    rows = flat.reshape(tensor.affine.size, -1)
    if (rows != rows[:, :1]).any():
        raise UnsupportedError(
            f"{where} has a constant that differs between the positions of one channel, expected one per channel."
        )
    return column(rows[:, 0], where)


def is_integral(tensor: Tensor) -> bool:
    """True if the values are integers whatever the sums are."""
    affine = tensor.affine
    whole = all(v.denominator == 1 for values in (affine.slope, affine.offset) for v in values)
    return whole and all(affine.root == 1) and not tensor.squashed


def plus(tensor: Tensor, values: Any, where: str) -> Tensor:
    """The tensor plus a constant."""
    require_exact(tensor, where)
    summand = per_unit(tensor, values, where)
    if tensor.steps is not None:
        return replace(tensor, steps=tensor.steps.mapped(lambda v: v + summand))
    return replace(tensor, affine=tensor.affine.plus(summand))


def times(tensor: Tensor, values: Any, where: str, *, inverse: bool = False) -> Tensor:
    """The tensor times a constant, or divided by it."""
    require_exact(tensor, where)
    factor = per_unit(tensor, values, where)
    if inverse:
        if any(v == 0 for v in factor):
            raise ModelError(f"{where} divides by 0, expected another number.")
        factor = np.array([1 / v for v in factor], dtype=object)
    if tensor.steps is not None:
        return replace(tensor, steps=tensor.steps.mapped(lambda v: v * factor))
    return replace(tensor, affine=tensor.affine.times(factor))


def normed(
    tensor: Tensor, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: Any, *, axis: int, where: str
) -> Tensor:
    """Batch norm over the channels, which lie along `axis`."""
    require_exact(tensor, where)
    if not 0 <= axis < tensor.index.ndim:
        raise ModelError(
            f"{where} norms axis {axis} of a tensor of shape {tensor.index.shape}, expected one that is there."
        )
    shape = [1] * tensor.index.ndim
    shape[axis] = tensor.index.shape[axis]
    columns = []
    for what, values in (("scale", gamma), ("shift", beta), ("mean", mean), ("variance", variance)):
        array = np.asarray(values)
        if array.shape != (shape[axis],):
            raise ModelError(f"{where}: {what} has shape {array.shape}, expected ({shape[axis]},), one per channel.")
        columns.append(per_unit(tensor, array.reshape(shape), f"{where}: {what}"))
    g, b, mu, var = columns
    var = var + constant_column(epsilon, var.size)
    if tensor.steps is None:
        return replace(tensor, affine=tensor.affine.normed(gamma=g, beta=b, mean=mu, variance=var, where=where))
    plain = Affine.create(constant_column(1, g.size), constant_column(0, g.size))
    if any(v <= 0 for v in var):
        raise ModelError(f"{where}: a variance + epsilon is not above 0.")
    scale, shift, rounded = plain.normed(gamma=g, beta=b, mean=mu, variance=var, where=where).as_scores()
    if rounded:
        raise UnsupportedError(
            f"{where} divides signs by an irrational root, expected a batch norm before the sign. Fuse it into the "
            "layer that follows."
        )
    return replace(tensor, steps=tensor.steps.mapped(lambda v: v * scale + shift))


def sign(tensor: Tensor, where: str) -> Tensor:
    """The sign in its mathematical sense, of three values."""
    require_plain(tensor, where)
    if tensor.steps is not None:
        return replace(tensor, steps=tensor.steps.mapped(signs_of))
    return replace(tensor, steps=Steps.create(-1, 0, 1, tensor.affine.size))


def compared(tensor: Tensor, values: Any, kind: str, where: str) -> Tensor:
    """1 where the tensor is `kind` (``>``, ``>=``, ``<`` or ``<=``) than a constant, 0 elsewhere."""
    require_plain(tensor, where)
    outcome = {">": (0, 0, 1), ">=": (0, 1, 1), "<": (1, 0, 0), "<=": (1, 1, 0)}[kind]
    bound = np.asarray(values)
    if bound.dtype.kind not in "iufO":
        raise ModelError(f"{where} compares with values of type {bound.dtype}, expected numbers.")
    if bound.dtype.kind in "iu":  # whose negative may not fit its type
        bound = bound.astype(object)
    below = tensor if not bound.any() else plus(tensor, -bound, where)
    if below.steps is None:
        return replace(below, steps=Steps.create(*outcome, tensor.affine.size))
    table = dict(zip((-1, 0, 1), map(Fraction, outcome), strict=True))

    def compare(values: Column) -> Column:
        return column([table[int(s)] for s in signs_of(values)])

    return replace(below, steps=below.steps.mapped(compare))


def is_truth(steps: Steps) -> bool:
    """True if all values are 0 or 1, as those of a comparison are."""
    return all(v in (0, 1) for values in (steps.low, steps.zero, steps.high) for v in values)


def chosen(tensor: Tensor, yes: Any, no: Any, where: str) -> Tensor:
    """`yes` where the tensor is not 0, `no` where it is; the tensor is the outcome of a comparison."""
    if tensor.steps is None:
        raise UnsupportedError(f"{where} chooses by numbers, expected the outcome of a comparison.")
    a, b = per_unit(tensor, yes, where), per_unit(tensor, no, where)
    return replace(tensor, steps=tensor.steps.mapped(lambda v: np.where(v != 0, a, b)))


def clip(tensor: Tensor, low: Fraction | None, high: Fraction | None, where: str) -> Tensor:
    """The tensor clipped.

    Before a sign this is understood where 0 lies strictly between the bounds: the sign stays what it was, and anything
    else than a sign is refused afterwards.
    """
    require_plain(tensor, where)
    if low is None and high is None:
        return tensor
    if tensor.steps is not None:
        return replace(tensor, steps=tensor.steps.mapped(lambda v: clipped(v, low, high)))
    if (low is not None and low >= 0) or (high is not None and high <= 0):
        raise UnsupportedError(f"{where} clips sums to {low}..{high}, expected bounds around 0 before a sign.")
    return replace(tensor, squashed=True)


def bordered(tensor: Tensor, pads: tuple[int, int, int, int], value: Any, where: str) -> Tensor:
    """Images `(1, channels, height, width)` with rows and columns of a constant around them."""
    require_plain(tensor, where)
    if not any(pads):
        return tensor
    return replace(tensor, border=(pads, column([value], where)[0]))
