"""onnxruntime on a model file, as a second opinion: what it cannot run is a reason, never an error."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.domain import IntArray
from bnnverify.formats.imported import Imported
from bnnverify.formats.onnxgraph import WHAT, short
from bnnverify.reading import opened, read_unpacked

BATCH = 256  # inputs in one call
_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(uint16)": np.uint16, "tensor(int16)": np.int16,
    "tensor(uint32)": np.uint32, "tensor(int32)": np.int32, "tensor(uint64)": np.uint64, "tensor(int64)": np.int64,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What onnxruntime made of some inputs.

    Attributes:
        values: Shape `(N, outputs)`; None if it could not run the model.
        runtime: Name and version; None if it is not installed.
        reason: Why there are no values; empty if there are.
    """

    values: NDArray[Any] | None
    runtime: str | None
    reason: str


def outputs(imported: Imported, points: IntArray, model: str | os.PathLike[str]) -> Outputs:
    """The outputs of the model file on inputs of the exact network.

    Args:
        imported: What the file was read as.
        points: Inputs of the network, shape `(N, n)`.
        model: The file.
    """
    try:
        import onnxruntime
    except Exception as error:  # a broken installation raises what it likes
        missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
        return Outputs(None, None, "it is not installed" if missing else f"it cannot be imported: {short(error)}")
    name = f"onnxruntime {onnxruntime.__version__}"
    try:
        session = _session(onnxruntime, model)
        values = np.concatenate(
            [_batch(session, imported, points[i : i + BATCH]) for i in range(0, len(points), BATCH)]
        )
    except Exception as error:  # whatever it says, the exact answer stands without it
        return Outputs(None, name, f"it cannot run the model ({_reason(error)})")
    return Outputs(values, name, "")


def _session(onnxruntime: Any, model: str | os.PathLike[str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    path = Path(model)
    with opened(path, WHAT) as file:
        packed = file.read(2) == b"\x1f\x8b"
    # from a path it finds constants that lie in other files
    source = read_unpacked(model, WHAT) if packed else os.fspath(path)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _batch(session: Any, imported: Imported, points: IntArray) -> NDArray[Any]:
    """The outputs of a batch, one input at a time where the file fixes the batch or does not keep inputs apart."""
    (entry,) = session.get_inputs()
    fed = imported.fed(points).astype(_TYPES[entry.type])
    if entry.shape and not isinstance(entry.shape[0], int) and imported.input_shape[0] == 1:
        try:
            together = session.run(None, {entry.name: fed.reshape(len(points), *imported.input_shape[1:])})[0]
        except Exception:  # such as a Reshape to one row
            together = None
        if together is not None and np.size(together) == len(points) * imported.n_outputs:
            return np.asarray(together).reshape(len(points), -1)
    return np.stack([np.ravel(session.run(None, {entry.name: x})[0]) for x in fed])


def classes(imported: Imported, values: NDArray[Any]) -> IntArray:
    """The class that each row of outputs means."""
    if imported.gives == "scores":
        found = values.argmax(axis=1)
    elif imported.gives == "class":
        found = values[:, 0]
    else:
        found = values[:, 0] >= (0.5 if imported.gives == "probability" else 0)
    return np.asarray(found, dtype=np.int64)


def _reason(error: Exception) -> str:
    """What onnxruntime says, without its own source code's places."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    text = re.sub(r"^Load model from .*? failed: ?", "", text)
    text = re.sub(r"^/\S+\.cc:\d+ \S.*?\) (?=[A-Z])", "", text)
    return short(RuntimeError(text.rstrip(".")))
