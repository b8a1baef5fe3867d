"""What an ONNX file cannot say of a network otherwise, in its metadata, so that reading gives back the same network.

The bounds of the inputs; the exact scales and biases, of which the graph has small integers that order the classes
alike; and what no output shows: thresholds beyond all sums, the sign of a padding of nothing, AND over a window of one
position. A reader that ignores all of it gets the same classes. Ours takes it only if it fits the graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bnnverify import reading
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.domain import IntArray
from bnnverify.errors import FormatError, ModelError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.scores import same_order
from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock

DOMAIN_KEY, SCORES_KEY, BLOCKS_KEY = "bnnverify.inputs", "bnnverify.scores", "bnnverify.blocks"
ASSUMED_KEY = "bnnverify.assumed"
_CHANGED = "The file was changed after it was written; export it again."


def written(network: BinaryNetwork) -> dict[str, str]:
    """The metadata of a network: text by key."""
    scores = [[str(v) for v in values] for values in (network.output.scale, network.output.bias)]
    found = {DOMAIN_KEY: json.dumps(_ends(network.domain)), SCORES_KEY: json.dumps(scores)}
    hidden = [_unseen(block, reach) for block, reach in zip(network.blocks, reaches(network), strict=True)]
    if any(hidden):
        found[BLOCKS_KEY] = json.dumps(hidden)
    if assumed := network.provenance.assumptions:
        found[ASSUMED_KEY] = json.dumps(assumed)
    return found


def reaches(network: BinaryNetwork) -> list[int]:
    """A bound on the absolute value of one input of each hidden block, at least 1."""
    first = int(np.abs([network.domain.lower, network.domain.upper]).max())
    return [max(first, 1) if i == 0 else 1 for i in range(len(network.blocks))]


def attainable(block: HiddenBlock, reach: int) -> IntArray:
    """The thresholds, and for those beyond all sums the nearest with the same effect."""
    cells = np.count_nonzero(block.weights.reshape(block.weights.shape[0], -1), axis=1).astype(np.int64)
    return np.clip(block.thresholds, -cells * reach, cells * reach + 1)


def _ends(domain: InputDomain) -> Any:
    """`"signs"`, or both bounds as numbers or lists."""
    if domain.is_binary:
        return "signs"
    return [int(v[0]) if (v == v[0]).all() else v.tolist() for v in (domain.lower, domain.upper)]


def _unseen(block: HiddenBlock, reach: int) -> dict[str, Any]:
    """What no output of the block shows."""
    found: dict[str, Any] = {}
    beyond = np.flatnonzero(attainable(block, reach) != block.thresholds)
    if beyond.size:
        found["thresholds"] = [[int(j), int(block.thresholds[j])] for j in beyond]
    if isinstance(block, ConvBlock):
        if block.padding == (0, 0) and block.pad_value:
            found["pad_value"] = int(block.pad_value)
        if block.pool == (1, 1) and block.conjunction.any():
            found["conjunction"] = np.flatnonzero(block.conjunction).tolist()
    return found


@dataclass(frozen=True, slots=True)
class Stated:
    """What the metadata of a file say of the inputs.

    Attributes:
        coding: The inputs; None if the file does not say it.
        bounds: Bounds of each input, or a number for all; None for signs, or if the file does not say it.
    """

    coding: InputCoding | None
    bounds: tuple[Any, Any] | None


def stated(metadata: Mapping[str, str], where: str) -> Stated:
    """What the metadata say of the inputs.

    Raises:
        FormatError: They say nonsense.
    """
    text = metadata.get(DOMAIN_KEY)
    if text is None:
        return Stated(None, None)
    try:
        data = reading.parsed(text)
        if data == "signs":
            return Stated(InputCoding.signs(), None)
        lower, upper = data
        low, high = np.broadcast_arrays(np.ravel(lower), np.ravel(upper))
        InputDomain.integers(low, high)
    except (ValueError, TypeError, RecursionError):
        raise FormatError(f"{where}: the metadata {DOMAIN_KEY} is {text!r:.60}, expected bounds. {_CHANGED}") from None
    return Stated(InputCoding.integers(int(low.min()), int(high.max())), (lower, upper))


def assumptions(metadata: Mapping[str, str], where: str) -> dict[str, list[str]]:
    """What was assumed about the network that was written, for the provenance.

    Raises:
        FormatError: It is no list of sentences.
    """
    text = metadata.get(ASSUMED_KEY)
    if text is None:
        return {}
    try:
        found = reading.parsed(text)
        if not isinstance(found, list) or not all(isinstance(sentence, str) for sentence in found):
            raise ValueError("no list of sentences")
    except (ValueError, RecursionError):
        raise FormatError(f"{where}: the metadata {ASSUMED_KEY} is {text!r:.60}, expected sentences.") from None
    return {"assumed": found}


def restored(
    network: BinaryNetwork, metadata: Mapping[str, str], bounds: tuple[Any, Any] | None, where: str, *, is_stated: bool
) -> BinaryNetwork:
    """The network as it was when `written` made the metadata.

    Args:
        network: What the graph says.
        metadata: Text by key.
        bounds: As in `Stated`, where these inputs are used.
        where: The path.
        is_stated: False if the inputs are others than the file states. Without hidden blocks its scores are those of
            its own inputs, so for others it means what its graph says; and thresholds are beyond all sums of its own
            inputs only.

    Raises:
        FormatError: They do not fit the graph.
    """
    domain, output, blocks = network.domain, network.output, network.blocks
    try:
        if bounds is not None and any(isinstance(ends, list) for ends in bounds):
            lower, upper = (np.broadcast_to(np.asarray(ends), (domain.n,)) for ends in bounds)
            domain = InputDomain.integers(lower, upper, domain.shape)
    except ValueError:
        raise FormatError(
            f"{where}: the metadata {DOMAIN_KEY} does not fit the graph, expected bounds of {domain.n} inputs. "
            f"{_CHANGED}"
        ) from None
    if (text := metadata.get(SCORES_KEY)) is not None and (blocks or is_stated):
        reach = 1 if blocks else max(int(np.abs([domain.lower, domain.upper]).max()), 1)
        output = _exact_scores(output, text, reach, where)
    if (text := metadata.get(BLOCKS_KEY)) is not None and is_stated:
        try:
            entries = reading.parsed(text)
            if not isinstance(entries, list):
                raise ValueError
            pairs = zip(blocks, entries, reaches(network), strict=True)
            blocks = tuple(_with_unseen(block, entry, reach) for block, entry, reach in pairs)
        except (ValueError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
            raise FormatError(
                f"{where}: the metadata {BLOCKS_KEY} does not fit the graph, expected what no output shows. {_CHANGED}"
            ) from None
    return BinaryNetwork(domain, blocks, output, network.provenance, network.input_coding)


def _with_unseen(block: HiddenBlock, entry: Mapping[str, Any], reach: int) -> HiddenBlock:
    """The block with what `_unseen` wrote; ValueError if it would change an output."""
    thresholds = block.thresholds.copy()
    for j, value in entry.get("thresholds", ()):
        thresholds[j] = value
    changed = replace(block, thresholds=thresholds)
    if isinstance(changed, ConvBlock):
        pad, units = entry.get("pad_value", changed.pad_value), entry.get("conjunction")
        if pad not in (-1, 0, 1) or (pad != changed.pad_value and changed.padding != (0, 0)):
            raise ValueError
        changed = replace(changed, pad_value=int(pad))
        if units is not None:
            if changed.pool != (1, 1):
                raise ValueError
            conjunction = np.zeros(len(thresholds), dtype=bool)
            conjunction[units] = True
            changed = replace(changed, conjunction=conjunction)
    if (attainable(changed, reach) != attainable(block, reach)).any():
        raise ValueError
    return changed


def _exact_scores(output: OutputBlock, text: str, reach: int, where: str) -> OutputBlock:
    """The output block with the exact scales and biases of the metadata, if they order the classes alike."""
    try:
        scale, bias = ([reading.number(word, exponent=0) for word in words] for words in reading.parsed(text))
        exact = OutputBlock.create(output.weights, scale=scale, bias=bias, mask=output.weights != 0)
    except (ValueError, TypeError, RecursionError, AttributeError, ModelError):
        raise FormatError(
            f"{where}: the metadata {SCORES_KEY} is {text!r:.60}, expected scales and biases. {_CHANGED}"
        ) from None
    if not same_order(output, exact, reach):
        raise FormatError(
            f"{where}: the metadata {SCORES_KEY} does not fit the graph, expected scales and biases that order the "
            f"classes alike. {_CHANGED}"
        )
    return exact
