"""Result lines: an answer with everything that it takes to read, redraw or repeat it.

The schema is in docs/results.md. Each line stands alone: it names the network by path and sha256, the data and
their provenance, the image, the question and the answer with its kind of exactness.
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from bnnverify.cli.images import Image, Images
from bnnverify.network import BinaryNetwork
from bnnverify.reading import shown
from bnnverify.report.lines import FORMAT, VERSION


def envelope(verb: str, path: Path, network: BinaryNetwork) -> dict[str, Any]:
    """What all lines of one command share."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "verb": verb,
        "command": shlex.join(["bnnverify", *click.get_current_context().obj]),
        "versions": {
            "bnnverify": metadata.version("bnnverify"),
            "python": platform.python_version(),
            "numpy": metadata.version("numpy"),
        },
        "model": {
            "path": shown(path),
            "identity": network.identity,
            "cells_identity": network.cells_identity,
            "architecture": network.architecture,
            "cells": network.n_cells,
            "classes": network.n_classes,
            "shape": list(network.domain.shape),
            "assumed": list(network.provenance.assumptions),
        },
    }


def about_image(images: Images, image: Image, predicted: int) -> dict[str, Any]:
    """The part of a line that says which image it is about."""
    return {
        "data": dict(images.provenance),
        "image": {
            "index": image.index,
            "original": image.original,
            "label": image.label,
            "predicted": predicted,
            "input": list(image.x),
        },
    }


def emit(line: Mapping[str, Any]) -> None:
    """One line on stdout, at once, so that an interrupt keeps it."""
    click.echo(json.dumps(line, allow_nan=False))
    sys.stdout.flush()
