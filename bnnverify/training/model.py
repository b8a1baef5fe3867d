"""The trainable network: torch modules that read binary weights and leave gradients with respect to them.

A binary weight is a parameter that holds -1 or +1 at every pass; the update rule decides what it holds. What lies
behind the sign (latent weights, moments, counters, cells) belongs to the rule, so all rules train the same modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bnnverify.training.architecture import Conv, Layer, flat, shapes
from bnnverify.training.fixedpoint import ExactBatchNorm, binary_conv2d, binary_linear, scaled, scores
from bnnverify.training.randomness import Randomness
from bnnverify.training.sign import inside_window, ste_sign


class HiddenBlock(nn.Module):
    """Binary linear layer or convolution, max pooling if the block has it, batch norm or a fixed scale, sign.

    With batch norm ``z = batch_norm(s)``, epsilon 1e-5. Without it ``z = s / sqrt(fan_in) / reach + bias``, the bias
    zero and not trained if `bias` is False. The block outputs the sign of z, see `ste_sign`.
    """

    def __init__(
        self,
        layer: Layer,
        input_shape: tuple[int, ...],
        *,
        reach: int,
        batch_norm: bool,
        bias: bool,
        x_shift: float,
        y_shift: float,
        random: Randomness,
    ) -> None:
        super().__init__()
        self.layer, self.input_shape, self.reach = layer, input_shape, reach
        self.x_shift, self.y_shift = x_shift, y_shift
        if isinstance(layer, Conv):
            channels = layer.filters
            shape: tuple[int, ...] = (channels, input_shape[0], layer.kernel, layer.kernel)
        else:
            channels = layer
            shape = (channels, flat(input_shape))
        self.fan_in = math.prod(shape[1:])
        self.weight = nn.Parameter(torch.from_numpy(random.signs(shape)).float())
        self.norm = ExactBatchNorm(channels) if batch_norm else None
        self.bias = None if batch_norm else nn.Parameter(torch.zeros(channels), requires_grad=bias)

    def normalized(self, x: Tensor) -> Tensor:
        """What the sign is taken of, shape `(N, neurons)` or `(N, filters, height, width)`."""
        if isinstance(self.layer, Conv):
            x = x.view(-1, *self.input_shape)
            sums = binary_conv2d(x, self.weight, reach=self.reach, stride=self.layer.stride, padding=self.layer.padding)
            if self.layer.pool > 1:
                sums = functional.max_pool2d(sums, self.layer.pool)
        else:
            sums = binary_linear(x, self.weight, reach=self.reach)
        if self.bias is not None:
            divisor = math.sqrt(self.fan_in) * self.reach
            if sums.dtype == torch.float64:  # the check of an export: a quotient is exact where it ties
                return sums / divisor + self.bias.view(-1, *[1] * (sums.ndim - 2))
            return scaled(sums, self.bias, scale=1 / divisor)
        assert self.norm is not None
        z: Tensor = self.norm(sums)
        return z

    def fire(self, z: Tensor) -> Tensor:
        """Signs of normalized pre-activations, flat: shape `(N, outputs)`."""
        return ste_sign(z, x_shift=self.x_shift, y_shift=self.y_shift).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Signs of all neurons or positions, shape `(N, outputs)`."""
        return self.fire(self.normalized(x))

    def inside(self, z: Tensor) -> Tensor:
        """Where gradients pass the sign."""
        return inside_window(z, self.x_shift)


class OutputScores(nn.Module):
    """Scores ``scale * (W h) + bias``: binary weights, one positive scale for all classes, a bias per class."""

    def __init__(self, n: int, classes: int, *, reach: int, bias: bool, scale: bool | None, random: Randomness) -> None:
        super().__init__()
        self.reach = reach
        self.weight = nn.Parameter(torch.from_numpy(random.signs((classes, n))).float())
        start = 0.0 if scale is None else -0.5 * math.log(n) - math.log(reach)
        self.log_scale = nn.Parameter(torch.tensor(start), requires_grad=bool(scale))
        self.bias = nn.Parameter(torch.zeros(classes), requires_grad=bias)

    @property
    def scale(self) -> Tensor:
        """The common scale, above 0 because it is an exponential."""
        return self.log_scale.exp()

    def forward(self, h: Tensor) -> Tensor:
        """Scores, shape `(N, classes)`."""
        return scores(binary_linear(h, self.weight, reach=self.reach), self.scale, self.bias)


class BinaryModel(nn.Module):
    """Hidden blocks and the output scores, initialized with random signs.

    Args:
        layers: Hidden blocks.
        image: Height and width of an input image.
        classes: Number of classes.
        reach: Bound on the inputs: 1 for signs; for centred pixels ``2x - top``, x of 0 to top, it is top.
        batch_norm: Whether hidden blocks normalize.
        bias: Whether hidden blocks without batch norm learn a bias.
        output_bias: Whether the scores learn a bias per class.
        output_scale: Whether the scores learn their common scale; None for plain sums, that is, the scale 1.
        x_shift: See `ste_sign`.
        y_shift: See `ste_sign`.
        random: Draws the initial signs.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        image: tuple[int, int],
        classes: int,
        *,
        reach: int = 1,
        batch_norm: bool = False,
        bias: bool = True,
        output_bias: bool = True,
        output_scale: bool | None = True,
        x_shift: float = 0.0,
        y_shift: float = 0.0,
        random: Randomness,
    ) -> None:
        super().__init__()
        self.reach = reach
        widths = shapes(layers, image)
        reaches = [reach] + [1] * len(layers)
        self.hidden: Sequence[HiddenBlock] = nn.ModuleList(  # type: ignore[assignment]
            HiddenBlock(
                layer,
                shape,
                reach=reach,
                batch_norm=batch_norm,
                bias=bias,
                x_shift=x_shift,
                y_shift=y_shift,
                random=random,
            )
            for layer, shape, reach in zip(layers, widths, reaches, strict=False)
        )
        self.output = OutputScores(
            flat(widths[-1]), classes, reach=reaches[-1], bias=output_bias, scale=output_scale, random=random
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores of a batch of flat images, shape `(N, n)` -> `(N, classes)`."""
        for block in self.hidden:
            x = block(x)
        result: Tensor = self.output(x)
        return result

    def trace(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores, and what the sign is taken of in each hidden block."""
        normalized = []
        for block in self.hidden:
            normalized.append(block.normalized(x))
            x = block.fire(normalized[-1])
        return self.output(x), normalized

    def binary_weights(self) -> list[nn.Parameter]:
        """The weight arrays whose signs the update rule owns, first block first."""
        return [*(block.weight for block in self.hidden), self.output.weight]

    def real_parameters(self) -> list[nn.Parameter]:
        """All other parameters that are trained: batch norm, biases, the output scale."""
        binary = {id(weight) for weight in self.binary_weights()}
        return [p for p in self.parameters() if id(p) not in binary and p.requires_grad]
