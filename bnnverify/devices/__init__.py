"""Physics of binary memory cells: from pulses, V and t, to the fault models of the reliability analysis.

- `switching`, `interpolated`: P(V, t) of a cell and its inverses, by law or by table; `pulses`: menus of pulses;
- `programming`, `variation`: write errors, write-verify, retention and energy, as fault models; `reading`: of reads;
- `measured`, `endurance`, `maps`, `tables`: what was measured, from CSV;
- `pairs`: one weight in two cells; `synapse`: an analog cell as the latent of a binary weight.
"""

from __future__ import annotations

from bnnverify.devices.endurance import Endurance, Lifetimes
from bnnverify.devices.interpolated import InterpolatedSwitching
from bnnverify.devices.maps import RateMap, StuckMap
from bnnverify.devices.measured import MeasuredSwitching, PulseCount, SwitchingFit
from bnnverify.devices.pairs import LognormalResistance, pair_faults
from bnnverify.devices.programming import (
    Retention,
    Write,
    cheapest_write,
    switching_shares,
    write_error,
)
from bnnverify.devices.pulses import PulseMenu
from bnnverify.devices.reading import ReadNoise, read_disturb
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
from bnnverify.devices.synapse import SoftBoundSynapse, SynapseCells, weights
from bnnverify.devices.variation import mean_pulses, mean_survival
from bnnverify.faults import in_series

__all__ = [
    "PRESETS",
    "RESET",
    "SET",
    "Endurance",
    "FieldAccelerated",
    "InterpolatedSwitching",
    "Lifetimes",
    "LognormalResistance",
    "MeasuredSwitching",
    "NucleationLimited",
    "PulseCount",
    "PulseMenu",
    "RateMap",
    "ReadNoise",
    "Retention",
    "SetReset",
    "SoftBoundSynapse",
    "StuckMap",
    "SwitchingCell",
    "SwitchingFit",
    "SynapseCells",
    "ThermallyActivated",
    "Write",
    "cell_from_json",
    "cheapest_write",
    "in_series",
    "mean_pulses",
    "mean_survival",
    "pair_faults",
    "read_disturb",
    "switching_shares",
    "weights",
    "write_error",
]
