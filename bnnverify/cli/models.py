"""Networks that commands answer about, with what had to be assumed when they were read.

Every command loads its network here, so that none answers about an assumption in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bnnverify.network import BinaryNetwork

_SAID = "bnnverify.assumptions"  # of the click context: networks whose assumptions were printed


def load(path: Path) -> BinaryNetwork:
    """`formats.load_network`, after which the assumptions of the network are on stderr.

    Raises:
        FormatError: As there.
        UnsupportedError: As there.
    """
    from bnnverify.formats import load_network

    network = load_network(path)
    say_assumptions(path, network)
    return network


def say_assumptions(path: Path, network: BinaryNetwork) -> None:
    """Print what was assumed about the network to stderr, once for each command."""
    context = click.get_current_context(silent=True)
    said = set() if context is None else context.meta.setdefault(_SAID, set())
    if network.identity in said:
        return
    said.add(network.identity)
    for text in network.provenance.assumptions:
        click.echo(f"assumed: {path}: {text}", err=True)
