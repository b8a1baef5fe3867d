"""Physics of binary memory cells: from pulses, V and t, to the fault models of the reliability analysis."""

from __future__ import annotations

from bnnverify.devices.pulses import PulseMenu
from bnnverify.devices.switching import (
    PRESETS,
    RESET,
    SET,
    FieldAccelerated,
    NucleationLimited,
    SetReset,
    SwitchingCell,
    ThermallyActivated,
    cell_from_json,
)

__all__ = [
    "PRESETS",
    "RESET",
    "SET",
    "FieldAccelerated",
    "NucleationLimited",
    "PulseMenu",
    "SetReset",
    "SwitchingCell",
    "ThermallyActivated",
    "cell_from_json",
]
