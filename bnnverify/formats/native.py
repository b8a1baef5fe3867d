"""The native network file: one ``.npz`` with a JSON header, no pickle.

Members, in this order, each uncompressed and with a fixed time stamp, so that equal networks give equal bytes:

- ``header``: uint8, the UTF-8 JSON of the format name and version, the input domain, the shape of every block, scales
  and biases as exact ``numerator/denominator`` text, the provenance, and the two identities;
- ``domain.lower``, ``domain.upper``: int64, only for integer inputs;
- ``blocks.I.weights`` (int8, 0 where masked), ``blocks.I.thresholds`` (int64), ``blocks.I.negated`` (int8, 0 or 1)
  of every hidden block I from 0; ``blocks.I.conjunction`` (int8, 0 or 1) too of a convolution;
- ``output.weights``: int8, 0 where masked.

`input_coding` is in the header only where it is true: the first block has no cells (`BinaryNetwork.input_coding`).

Version 2 brought convolutions. A network without one is still written as version 1, the same bytes as ever.

`load` believes nothing: every size is checked before memory is taken, every type and shape against the header,
and at last the function against the sha256 that the header states.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError
from bnnverify.files import write_whole
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, HiddenBlock, InputDomain, OutputBlock, Provenance
from bnnverify.reading import Archive, json_of, opened, shown

FORMAT = "bnnverify network"
VERSION = 2

_HEADER_LIMIT = 2**24  # bytes of JSON
_SIZE_LIMIT = 2**30  # bytes of all arrays together
_NPY_HEADER_LIMIT = 2**12  # bytes before the data of one array
_RATIONAL = re.compile(r"-?[0-9]{1,4000}/[0-9]{1,4000}", re.ASCII)
_REMEDY = "Write the network again with bnnverify.save or `bnnverify train`."


def save(network: BinaryNetwork, path: str | os.PathLike[str]) -> None:
    """Write `network` to `path`: whole or not at all, and byte for byte the same for the same network.

    Args:
        network: What to write; its provenance goes along.
        path: Customarily ends in ``.npz``; nothing is appended.

    Raises:
        FormatError: The path cannot be written.
        ModelError: The provenance is not plain JSON.
    """
    write_whole(path, to_bytes(network))


def to_bytes(network: BinaryNetwork) -> bytes:
    """The file that `save` writes."""
    arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(_header_text(network), dtype=np.uint8)}
    if not network.domain.is_binary:
        arrays["domain.lower"], arrays["domain.upper"] = network.domain.lower, network.domain.upper
    for i, block in enumerate(network.blocks):
        arrays[f"blocks.{i}.weights"] = block.weights
        arrays[f"blocks.{i}.thresholds"] = block.thresholds
        arrays[f"blocks.{i}.negated"] = block.negated.astype(np.int8)
        if isinstance(block, ConvBlock):
            arrays[f"blocks.{i}.conjunction"] = block.conjunction.astype(np.int8)
    arrays["output.weights"] = network.output.weights
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            little_endian = array.astype(array.dtype.newbyteorder("<"))
            np.lib.format.write_array(member, little_endian, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def _header_text(network: BinaryNetwork) -> bytes:
    output = network.output
    header = {
        "format": FORMAT,
        "version": VERSION if network.has_convolutions else 1,
        "domain": {
            "kind": "binary" if network.domain.is_binary else "integers",
            "inputs": network.n_inputs,
            "shape": list(network.domain.shape),
        },
        "blocks": [_block_header(block) for block in network.blocks],
        "output": {
            "classes": output.n_classes,
            "inputs": output.n_inputs,
            "scale": [_rational_text(q) for q in output.scale],
            "bias": [_rational_text(q) for q in output.bias],
        },
        "provenance": dict(network.provenance.data),
        "identity": network.identity,
        "cells_identity": network.cells_identity,
        **({"input_coding": True} if network.input_coding else {}),
    }
    try:
        text = json.dumps(header, sort_keys=True, allow_nan=False, ensure_ascii=True).encode()
    except (TypeError, ValueError) as error:
        raise ModelError(f"the provenance is not plain JSON ({error}), expected strings, numbers and lists.") from None
    if len(text) > _HEADER_LIMIT:
        raise ModelError(f"the provenance makes a header of {len(text)} bytes, expected at most {_HEADER_LIMIT}.")
    return text


def _block_header(block: HiddenBlock) -> dict[str, Any]:
    if isinstance(block, DenseBlock):
        return {"kind": "dense", "outputs": block.n_outputs, "inputs": block.n_inputs}
    return {
        "kind": "conv",
        "filters": block.n_filters,
        "kernel": list(block.kernel),
        "input": list(block.input_shape),
        "stride": list(block.stride),
        "padding": list(block.padding),
        "pad_value": block.pad_value,
        "pool": list(block.pool),
    }


def _rational_text(value: Fraction) -> str:
    """Exact text; 4000 digits is what `load` takes, and below what Python converts."""
    if max(abs(value.numerator), value.denominator) >= 10**4000:
        raise ModelError("a scale or bias has more than 4000 digits, expected fewer. Round it to a float64.")
    return f"{value.numerator}/{value.denominator}"


def load(path: str | os.PathLike[str]) -> BinaryNetwork:
    """The network in the native file at `path`, checked against its sha256.

    Raises:
        FormatError: The file cannot be read, is none of ours, or was damaged or changed.
    """
    where = shown(path)
    with opened(path, "a network file") as file, Archive(file, where, "a complete network file (.npz)") as archive:
        header = _read_header(archive, where)
        arrays = _read_arrays(archive, header, where)
    try:
        network = _build(header, arrays)
    except ModelError as error:
        raise FormatError(f"{where}: {error} The file was changed after it was written. {_REMEDY}") from None
    for what, found in (("identity", network.identity), ("cells_identity", network.cells_identity)):
        if header.get(what) != found:
            raise FormatError(
                f"{where}: {what} of the arrays is sha256 {found[:16]}, expected {str(header.get(what))[:16]} as the "
                f"header states. The file was changed after it was written. {_REMEDY}"
            )
    return network


def _read_header(archive: Archive, where: str) -> Mapping[str, Any]:
    names = archive.names
    if "header.npy" not in names:
        shown = ", ".join(names[:3]) or "nothing"
        raise FormatError(
            f"{where}: has no array 'header' (it holds {shown}), expected a network file of bnnverify. {_REMEDY}"
        )
    raw = _member(archive, "header", np.dtype(np.uint8), None, where).tobytes()
    header = json_of(raw, f"{where}: the header", "a network file")
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise FormatError(f"{where}: the header names the format {found!r:.60}, expected {FORMAT!r}. {_REMEDY}")
    if header.get("version") not in range(1, VERSION + 1):
        raise FormatError(
            f"{where}: has format version {header.get('version')!r:.60}, expected at most {VERSION}. "
            "Read it with the bnnverify release that wrote it, or update bnnverify."
        )
    return header


def _read_arrays(archive: Archive, header: Mapping[str, Any], where: str) -> dict[str, NDArray[Any]]:
    """All arrays that the header calls for, and no others."""
    expected = _expected_arrays(header, where)
    total = sum(dtype.itemsize * math.prod(shape) for dtype, shape in expected.values())
    if total > _SIZE_LIMIT:
        raise FormatError(
            f"{where}: the header calls for {total} bytes of arrays, expected at most {_SIZE_LIMIT}. {_REMEDY}"
        )
    wanted = {f"{name}.npy" for name in expected} | {"header.npy"}
    names = archive.names
    if missing := sorted(wanted - set(names)):
        raise FormatError(f"{where}: has no array {missing[0].removesuffix('.npy')!r}. {_REMEDY}")
    if len(names) != len(wanted):
        extra = sorted(set(names) - wanted) or sorted(n for n in names if names.count(n) > 1)
        raise FormatError(f"{where}: holds {extra[0]!r}, expected only the arrays that its header names. {_REMEDY}")
    return {name: _member(archive, name, dtype, shape, where) for name, (dtype, shape) in expected.items()}


def _expected_arrays(header: Mapping[str, Any], where: str) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Name -> type and shape, from the header; FormatError if the header does not make sense."""
    int8, int64 = np.dtype(np.int8), np.dtype(np.int64)
    try:
        domain, output = header["domain"], header["output"]
        n = _size(domain["inputs"])
        if domain["kind"] not in ("binary", "integers"):
            raise ValueError(f"the domain kind is {domain['kind']!r:.60}, expected 'binary' or 'integers'")
        if not isinstance(domain["shape"], list) or math.prod(_size(d) for d in domain["shape"]) != n:
            raise ValueError(f"the image shape is {domain['shape']!r:.60}, expected {n} entries in all")
        expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        if domain["kind"] == "integers":
            expected |= {"domain.lower": (int64, (n,)), "domain.upper": (int64, (n,))}
        for i, block in enumerate(header["blocks"]):
            shape = _weights_shape(block, i)
            expected[f"blocks.{i}.weights"] = (int8, shape)
            expected[f"blocks.{i}.thresholds"] = (int64, shape[:1])
            expected[f"blocks.{i}.negated"] = (int8, shape[:1])
            if block["kind"] == "conv":
                expected[f"blocks.{i}.conjunction"] = (int8, shape[:1])
        expected["output.weights"] = (int8, (_size(output["classes"]), _size(output["inputs"])))
        for number in (*output["scale"], *output["bias"]):
            _rational(number)
        if not isinstance(header["provenance"], dict):
            raise ValueError("the provenance is not a JSON object")
    except KeyError as error:
        raise FormatError(f"{where}: the header has no entry {error}. {_REMEDY}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{where}: the header does not describe a network: {error}. {_REMEDY}") from None
    return expected


def _weights_shape(block: Mapping[str, Any], index: int) -> tuple[int, ...]:
    """Shape of the weights of a hidden block; ValueError if its header does not make sense."""
    if block["kind"] == "dense":
        return _size(block["outputs"]), _size(block["inputs"])
    if block["kind"] != "conv":
        raise ValueError(f"block {index} is of kind {block['kind']!r:.60}, expected 'dense' or 'conv'")
    for name, length, least in (("input", 3, 1), ("kernel", 2, 1), ("stride", 2, 1), ("padding", 2, 0), ("pool", 2, 1)):
        if not isinstance(block[name], list) or len(block[name]) != length:
            raise ValueError(f"{name} of block {index} is {block[name]!r:.60}, expected {length} numbers")
        for value in block[name]:
            _size(value, least)
    if type(block["pad_value"]) is not int:
        raise ValueError(f"pad_value of block {index} is {block['pad_value']!r:.60}, expected -1, 0 or 1")
    return _size(block["filters"]), block["input"][0], *block["kernel"]


def _size(value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _SIZE_LIMIT:
        raise ValueError(f"a size is {value!r:.60}, expected {least} to {_SIZE_LIMIT}")
    return value


def _rational(text: Any) -> Fraction:
    if not isinstance(text, str) or not _RATIONAL.fullmatch(text):
        raise ValueError(f"a scale or bias is {text!r:.60}, expected text like '-3/8'")
    numerator, denominator = map(int, text.split("/"))
    if denominator == 0:
        raise ValueError("a scale or bias has denominator 0")
    return Fraction(numerator, denominator)


def _member(
    archive: Archive, name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None, where: str
) -> NDArray[Any]:
    """One array, read only after its declared type, shape and size are what they should be."""
    limit = _NPY_HEADER_LIMIT + (_HEADER_LIMIT if shape is None else dtype.itemsize * math.prod(shape))
    size = archive.size(f"{name}.npy")
    if size > limit:
        raise FormatError(f"{where}: array {name!r} takes {size} bytes, expected at most {limit}. {_REMEDY}")
    array = archive.array(f"{name}.npy")
    if array.dtype.newbyteorder("=") != dtype:
        raise FormatError(f"{where}: array {name!r} has dtype {array.dtype}, expected {dtype}. {_REMEDY}")
    if array.shape != shape if shape is not None else array.ndim != 1:
        wanted = shape if shape is not None else "one dimension"
        raise FormatError(f"{where}: array {name!r} has shape {array.shape}, expected {wanted}. {_REMEDY}")
    return np.ascontiguousarray(array, dtype=dtype)


def _build(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> BinaryNetwork:
    """The network; the constructors check what is left to check and raise ModelError."""
    shape = header["domain"]["shape"]
    if header["domain"]["kind"] == "binary":
        domain = InputDomain.binary(header["domain"]["inputs"], shape)
    else:
        domain = InputDomain.integers(arrays["domain.lower"], arrays["domain.upper"], shape)
    blocks = tuple(_build_block(block, arrays, f"blocks.{i}") for i, block in enumerate(header["blocks"]))
    output = OutputBlock.create(
        arrays["output.weights"],
        scale=[_rational(q) for q in header["output"]["scale"]],
        bias=[_rational(q) for q in header["output"]["bias"]],
        mask=arrays["output.weights"] != 0,
    )
    coding = header.get("input_coding", False)
    return BinaryNetwork(domain, blocks, output, Provenance(header["provenance"]), coding)


def _build_block(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], name: str) -> HiddenBlock:
    weights, thresholds = arrays[f"{name}.weights"], arrays[f"{name}.thresholds"]
    mask, negated = weights != 0, _flags(arrays, f"{name}.negated")
    if header["kind"] == "dense":
        return DenseBlock.create(weights, thresholds, mask=mask, negated=negated, name=name)
    return ConvBlock.create(
        weights,
        thresholds,
        input_shape=header["input"],
        stride=header["stride"],
        padding=header["padding"],
        pad_value=header["pad_value"],
        pool=header["pool"],
        mask=mask,
        negated=negated,
        conjunction=_flags(arrays, f"{name}.conjunction"),
        name=name,
    )


def _flags(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.bool_]:
    values = arrays[name]
    if ((values != 0) & (values != 1)).any():
        raise ModelError(f"{name} holds other values than 0 and 1.")
    return values.astype(bool)
