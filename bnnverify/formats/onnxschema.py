"""What ONNX operators take: attributes with their defaults, and inputs, by opset.

The one place where defaults of attributes come from. What a node leaves out means what the standard says for the opset
of its file, and what a node holds that its opset does not know is refused: an attribute that became an input, an input
that was an attribute, a name that nobody knows. `tests/test_onnxschema.py` compares the table with ONNX's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats.onnxgraph import Node

FIRST, LAST = 7, 28  # opsets whose operators the table describes


class Default(Enum):
    """What stands in the place of a default."""

    REQUIRED = "must be there"
    GONE = "is no attribute of the operator (any more)"


REQUIRED, GONE = Default.REQUIRED, Default.GONE


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute.

    Attributes:
        kind: int, float, str, or list for a list of integers.
        defaults: (opset, default from that opset on), in ascending order; before the first one it is unknown.
    """

    kind: type
    defaults: tuple[tuple[int, Any], ...]

    def default(self, opset: int) -> Any:
        """The default in an opset; `Default` where there is none."""
        return next((value for since, value in reversed(self.defaults) if since <= opset), GONE)


def _of(kind: type, default: Any, *changes: tuple[int, Any], since: int = FIRST) -> Attribute:
    return Attribute(kind, ((since, default), *changes))


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    Attributes:
        attributes: By name.
        inputs: (opset, least, most number of inputs from that opset on), in ascending order.
        since: The first opset that has the operator.
    """

    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    inputs: tuple[tuple[int, int, int], ...] = ((FIRST, 1, 1),)
    since: int = FIRST

    def sides(self, opset: int) -> tuple[int, int]:
        """Least and most number of inputs in an opset."""
        least, most = next((least, most) for since, least, most in reversed(self.inputs) if since <= opset)
        return least, most


_MOST = 3.4028234663852886e38  # of float32
_TWO = ((FIRST, 2, 2),)
_AXES = ((FIRST, 1, 1), (13, 1, 2))
_PAIR = Operator(inputs=_TWO)
_SOFTMAX = Operator({"axis": _of(int, 1, (13, -1))})
_WINDOWS = {
    "auto_pad": _of(str, "NOTSET"),
    "dilations": _of(list, [1, 1]),
    "pads": _of(list, [0, 0, 0, 0]),
    "strides": _of(list, [1, 1]),
}

OPERATORS: dict[str, Operator] = {
    "Add": _PAIR,
    "ArgMax": Operator(
        {"axis": _of(int, 0), "keepdims": _of(int, 1), "select_last_index": _of(int, 0, since=12)},
    ),
    "BatchNormalization": Operator(
        {
            "epsilon": _of(float, 1e-5),
            "momentum": _of(float, 0.9),
            "spatial": _of(int, 1, (9, GONE)),
            "training_mode": _of(int, 0, since=14),
        },
        inputs=((FIRST, 5, 5),),
    ),
    "Cast": Operator(
        {"to": _of(int, REQUIRED), "saturate": _of(int, 1, since=19), "round_mode": _of(str, "up", since=24)}
    ),
    "Clip": Operator(
        {"min": _of(float, -_MOST, (11, GONE)), "max": _of(float, _MOST, (11, GONE))},
        inputs=((FIRST, 1, 1), (11, 1, 3)),
    ),
    "Conv": Operator(
        {**_WINDOWS, "group": _of(int, 1), "kernel_shape": _of(list, None)},
        inputs=((FIRST, 2, 3),),
    ),
    "Div": _PAIR,
    "Dropout": Operator(
        {"ratio": _of(float, 0.5, (12, GONE)), "seed": _of(int, None, since=12)},
        inputs=((FIRST, 1, 1), (12, 1, 3)),
    ),
    "Flatten": Operator({"axis": _of(int, 1)}),
    "Gemm": Operator(
        {"alpha": _of(float, 1.0), "beta": _of(float, 1.0), "transA": _of(int, 0), "transB": _of(int, 0)},
        inputs=((FIRST, 3, 3), (11, 2, 3)),
    ),
    "Greater": _PAIR,
    "GreaterOrEqual": Operator(inputs=_TWO, since=12),
    "Identity": Operator(),
    "Less": _PAIR,
    "LessOrEqual": Operator(inputs=_TWO, since=12),
    "LogSoftmax": _SOFTMAX,
    "MatMul": _PAIR,
    "MaxPool": Operator(
        {
            **_WINDOWS,
            "dilations": _of(list, [1, 1], since=10),
            "ceil_mode": _of(int, 0, since=10),
            "kernel_shape": _of(list, REQUIRED),
            "storage_order": _of(int, 0, since=8),
        }
    ),
    "Mul": _PAIR,
    "Neg": Operator(),
    "Not": Operator(),
    "Pad": Operator(
        {
            "mode": _of(str, "constant"),
            "pads": _of(list, REQUIRED, (11, GONE)),
            "value": _of(float, 0.0, (11, GONE)),
        },
        inputs=((FIRST, 1, 1), (11, 2, 3), (18, 2, 4)),
    ),
    "Relu": Operator(),
    "Reshape": Operator({"allowzero": _of(int, 0, since=14)}, inputs=_TWO),
    "Shape": Operator({"start": _of(int, 0, since=15), "end": _of(int, None, since=15)}),
    "Sigmoid": Operator(),
    "Sign": Operator(since=9),
    "Softmax": _SOFTMAX,
    "Softsign": Operator(),
    "Squeeze": Operator({"axes": _of(list, None, (13, GONE))}, inputs=_AXES),
    "Sub": _PAIR,
    "Tanh": Operator(),
    "TopK": Operator(
        {
            "axis": _of(int, -1),
            "k": _of(int, REQUIRED, (10, GONE)),
            "largest": _of(int, 1, since=11),
            "sorted": _of(int, 1, since=11),
        },
        inputs=((FIRST, 1, 1), (10, 2, 2)),
    ),
    "Transpose": Operator({"perm": _of(list, None)}),
    "Unsqueeze": Operator({"axes": _of(list, REQUIRED, (13, GONE))}, inputs=((FIRST, 1, 1), (13, 2, 2))),
    "Where": Operator(inputs=((FIRST, 3, 3),), since=9),
}

# Operators of QONNX have one version only.
QUANT = Operator(
    {"signed": _of(int, REQUIRED), "narrow": _of(int, REQUIRED), "rounding_mode": _of(str, "ROUND")},
    inputs=((FIRST, 4, 4),),
)
MULTI_THRESHOLD = Operator(
    {
        "out_scale": _of(float, 1.0),
        "out_bias": _of(float, 0.0),
        "out_dtype": _of(str, ""),
        "data_layout": _of(str, "NCHW"),
    },
    inputs=_TWO,
)
DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
for _domain in DOMAINS:
    OPERATORS[f"{_domain}.BipolarQuant"] = _PAIR
    OPERATORS[f"{_domain}.Quant"] = QUANT
    OPERATORS[f"{_domain}.MultiThreshold"] = MULTI_THRESHOLD
    OPERATORS[f"{_domain}.XnorPopcountMatMul"] = _PAIR


def attribute(node: Node, name: str, opset: int) -> Any:
    """The attribute of a node, or its default; None where the standard has no default and none is needed."""
    if name in node.attributes:
        return node.attributes[name]
    value = OPERATORS[node.kind].attributes[name].default(opset)
    return None if value is GONE else value


def check(node: Node, opset: int | None) -> None:
    """Whether the node is what its opset knows; nodes of operators that the table does not have pass.

    Args:
        node: The node.
        opset: Version of ONNX's own operators in its file; None if the file does not say it.

    Raises:
        ModelError: An attribute or an input is missing, or has another type.
        UnsupportedError: The opset is none that the table describes, or does not know the operator, one of its
            attributes or one of its inputs.
    """
    operator = OPERATORS.get(node.kind)
    if operator is None:
        return
    if "." not in node.kind and (opset is None or not FIRST <= opset <= LAST):
        raise UnsupportedError(
            f"{node} is of opset {opset}, expected {FIRST} to {LAST}: what an operator means depends on it. Export the "
            "model with another opset_version."
        )
    version = LAST if opset is None else opset
    if version < operator.since:
        raise UnsupportedError(f"{node} is not in opset {version}, expected {operator.since} or later for it.")
    for name, value in node.attributes.items():
        known = operator.attributes.get(name)
        if known is None or known.default(version) is GONE:
            raise UnsupportedError(
                f"{node} has the attribute {name!r}, which opset {version} does not know, expected "
                f"{_names(operator, version)}."
            )
        entries = value if isinstance(value, list) else [value]
        inner = int if known.kind is list else known.kind
        if isinstance(value, list) != (known.kind is list) or not all(isinstance(v, inner) for v in entries):
            kind = "a list of integers" if known.kind is list else f"a value of type {inner.__name__}"
            raise ModelError(f"{node} has the attribute {name} {value!r:.40}, expected {kind}.")
        if known.kind is float and not math.isfinite(value) and node.kind != "Clip":
            raise ModelError(f"{node} has the attribute {name} {value}, which is not finite, expected a number.")
    for name, known in operator.attributes.items():
        if known.default(version) is REQUIRED and name not in node.attributes:
            raise ModelError(f"{node} has no attribute {name!r}, expected it in opset {version}.")
    least, most = operator.sides(version)
    given = len(node.inputs)
    while given and not node.inputs[given - 1]:
        given -= 1
    if not least <= given <= most or not all(node.inputs[:least]):
        raise UnsupportedError(
            f"{node} has {given} inputs, expected {least}{f' to {most}' if most > least else ''} in opset {version}."
        )


def _names(operator: Operator, opset: int) -> str:
    names = [name for name, known in operator.attributes.items() if known.default(opset) is not GONE]
    return f"one of {', '.join(sorted(names))}" if names else "no attributes"
