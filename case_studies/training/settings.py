"""The training runs of the study: what is trained, how, on which seeds, and which accuracy it should reach.

Every row is a `TrainingConfig` for each of its seeds. The settings were chosen by validation accuracy, with training
on the 55,000 training images alone. The rows of the section "numbers" then train on these and the 5000 validation
images together; the rows of the section "claims" keep the validation images aside, for the curves of the figures.
The last epoch counts, and the test images are looked at once, after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bnnverify.training import TrainingConfig

BREVITAS = "Brevitas/FINN examples, 1000 epochs"
MTJ = "arXiv:1912.12636, ternary weights, trained on magnetic tunnel junctions"
PROTOTYPE = "our prototype, 1 or 2 seeds"


# what a rule would choose by the number of steps, fixed where a row says nothing: the recorded runs had these
_FIXED: dict[str, dict[str, Any]] = {
    "ste": {"average": 0.99},
    "bop": {},
    "bop2nd": {"tau": 0.1, "gamma": 1e-3, "sigma": 1e-2},
    "pbop": {"scaler": 0.01},
    "ss-none": {},
    "ss-batch": {"batches": 20, "rate": "1e-2:1e-4"},
    "ss-ema": {},
    "ss-count": {"bits": 6, "increment": "2.0:0.05"},
    "ss-mem": {"rate": "3e-3:3e-4"},
    "soft-bound": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a network, a rule, and all seeds that it is trained with.

    Attributes:
        name: Short, for file names and the command line.
        title: For the reader.
        rule: Name of the update rule.
        options: Hyper-parameters of the rule that differ from its defaults.
        changes: Attributes of `TrainingConfig` that differ from the rule's recipe; without the seed.
        seeds: Of the runs.
        data: Name of the data set.
        section: ``numbers`` or ``claims``: which table it stands in.
        target: Test accuracy that the mean over the seeds should reach, or None.
        source: Whose number the target or the comparison is.
        expected: In words what should be seen where there is no target.
    """

    name: str
    title: str
    rule: str
    options: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    data: str = "mnist"
    section: str = "numbers"
    target: float | None = None
    source: str = ""
    expected: str = ""

    def config(self, seed: int, *, epochs: int | None = None) -> TrainingConfig:
        """How the run with this seed is trained; `epochs` in place of the row's own, for a trial."""
        changes = {**self.changes, "seed": seed}
        if epochs is not None:
            changes["epochs"] = epochs
        return TrainingConfig.for_rule(self.rule, options={**_FIXED[self.rule], **self.options}, **changes)


# the network of most rows: 784-256-256-10, binary input, no batch norm, thresholds 0
_PLAIN: dict[str, Any] = {
    "hidden": "mlp-256-256",
    "batch_norm": False,
    "bias": False,
    "output_bias": False,
    "output_scale": False,
    "noise": 0.0,
    "batch_size": 100,
    "epochs": 15,
    "select": "final",
}
_NORMED: dict[str, Any] = {**_PLAIN, "batch_norm": True, "output_bias": True, "output_scale": True}
_ALL_IMAGES = {"train_on_validation": True}

_STE = {"learning_rate": "1e-2:1e-4:cosine"}
_SOFT = {"learning_rate": "1e-3:1e-4"}
_EMA = {"gamma": 0.005, "rate": "5e-4:3e-5", "power": 2.0}
_COLLAPSING = {"gamma": 0.01, "rate": 5e-3, "power": 2.0}
_UNDO = {"data": "holdout", "size": 500, "tolerance": 0.02, "down": 0.9, "up": 1.02}
_FTJ = {
    "cell": {
        "kind": "nucleation-limited",
        "tau_inf": 1e-10,
        "activation_voltage": 10.0,
        "beta": 0.6,
        "reset_factor": 1.5,
        "resistance": 1e6,
        "d2d_sigma": 0.3,
        "c2c_sigma": 0.3,
    },
    "menu": {"levels": 16},
}

MEMRISTORS = (1, 3, 7, 15, 31)
_MANY_MEMRISTORS = {"count": 31, "rate": "2e-2:1e-3", "threshold": 7}
IMBALANCES = (0.0, 0.2, 0.5)


def memristors_row(count: int) -> str:
    """Name of the row with so many auxiliary memristors for each weight."""
    return f"mem-{count}-55k"


def soft_bound_row(imbalance: float, *, zero_shift: bool) -> str:
    """Name of the row with this imbalance of up and down pulses."""
    return f"soft-{imbalance:g}{'-zero' if zero_shift else ''}-55k"


_NUMBERS = [
    Row(
        name="ste",
        title="784-256-256-10, latent weights (STE)",
        rule="ste",
        options=_STE,
        changes={**_PLAIN, **_ALL_IMAGES},
        target=0.953,
        source=PROTOTYPE,
    ),
    Row(
        name="ss-none",
        title="same, memoryless switching",
        rule="ss-none",
        options={"rate": "1e-3:1e-5", "power": 2.0},
        changes={**_PLAIN, **_ALL_IMAGES},
        expected="plateaus near 84 %",
        source=PROTOTYPE,
    ),
    Row(
        name="ss-batch",
        title="same, switching by sums over 20 mini-batches",
        rule="ss-batch",
        changes={**_PLAIN, **_ALL_IMAGES},
        seeds=(0,),
        expected="86 %",
        source=PROTOTYPE,
    ),
    Row(
        name="ss-ema",
        title="same, switching by an exponential average",
        rule="ss-ema",
        options=_EMA,
        changes={**_PLAIN, **_ALL_IMAGES},
        target=0.94,
        source=PROTOTYPE,
    ),
    Row(
        name="ss-count",
        title="same, switching by a saturating counter of 6 bits",
        rule="ss-count",
        changes={**_PLAIN, **_ALL_IMAGES},
        target=0.95,
        source=PROTOTYPE,
    ),
    Row(
        name="ss-count-4",
        title="same, switching by a saturating counter of 4 bits",
        rule="ss-count",
        options={"bits": 4, "increment": "0.1:0.01"},
        changes={**_PLAIN, **_ALL_IMAGES},
        seeds=(0,),
        expected="93.9 %",
        source=PROTOTYPE,
    ),
    Row(
        name="ss-count-ftj",
        title="same, counter, cells of a ferroelectric tunnel junction: 16 pulses, 30 % spread from device to device",
        rule="ss-count",
        options={"hardware": _FTJ},
        changes={**_PLAIN, **_ALL_IMAGES},
        seeds=(0,),
    ),
    Row(
        name="ss-ema-ftj",
        title="same, exponential average, cells of a ferroelectric tunnel junction",
        rule="ss-ema",
        options={**_EMA, "hardware": _FTJ},
        changes={**_PLAIN, **_ALL_IMAGES},
        seeds=(0,),
    ),
    Row(
        name="ss-mem",
        title="same, switching by 31 auxiliary memristors for each weight",
        rule="ss-mem",
        options=_MANY_MEMRISTORS,
        changes={**_PLAIN, **_ALL_IMAGES},
        seeds=(0,),
        expected="87 % after 4 epochs, with 7",
        source=PROTOTYPE,
    ),
    Row(
        name="bop",
        title="same, Bop",
        rule="bop",
        options={"tau": 3e-5, "gamma": 1e-3},
        changes={**_PLAIN, **_ALL_IMAGES},
        seeds=(0,),
        expected="89 % after 4 epochs",
        source=PROTOTYPE,
    ),
    Row(
        name="bop2nd",
        title="same, Bop2ndOrder",
        rule="bop2nd",
        changes={**_PLAIN, **_ALL_IMAGES},
        target=0.94,
        source=PROTOTYPE,
    ),
    Row(
        name="pbop",
        title="same, PBop",
        rule="pbop",
        changes={**_PLAIN, **_ALL_IMAGES},
        seeds=(0,),
    ),
    Row(
        name="pbop-bn",
        title="784-256-256-10 with batch norm, PBop",
        rule="pbop",
        options={"scaler": "1e-2:1e-3"},
        changes={**_NORMED, **_ALL_IMAGES},
        seeds=(0,),
    ),
    Row(
        name="soft-bound",
        title="784-256-256-10, soft-bound synapses, balanced",
        rule="soft-bound",
        options=_SOFT,
        changes={**_PLAIN, **_ALL_IMAGES},
        seeds=(0,),
    ),
    Row(
        name="mlp-100",
        title="784-100-10 with batch norm, latent weights (STE)",
        rule="ste",
        options=_STE,
        changes={**_NORMED, **_ALL_IMAGES, "hidden": "100", "epochs": 40},
        seeds=(0,),
        target=0.93,
        source="ours",
    ),
    Row(
        name="tfc",
        title="784-64-64-64-10 with batch norm (TFC), latent weights (STE)",
        rule="ste",
        options=_STE,
        changes={**_NORMED, **_ALL_IMAGES, "hidden": "tfc", "epochs": 60},
        target=0.932,
        source=BREVITAS,
    ),
    Row(
        name="sfc",
        title="784-256-256-256-10 with batch norm (SFC), latent weights (STE), images moved by up to 1 pixel",
        rule="ste",
        options=_STE,
        changes={**_NORMED, **_ALL_IMAGES, "hidden": "sfc", "epochs": 150, "move": 1},
        seeds=(0,),
        target=0.978,
        source=BREVITAS,
    ),
    Row(
        name="conv",
        title="24C5-P2-48C5-P2-256-10 with batch norm, saturating counter of 6 bits, images moved by up to 1 pixel",
        rule="ss-count",
        changes={**_NORMED, **_ALL_IMAGES, "hidden": "24c5p2,48c5p2,256", "epochs": 20, "move": 1},
        seeds=(0,),
        target=0.986,
        source=MTJ,
    ),
    Row(
        name="collapse",
        title="784-256-256-10, exponential average, switching rate too high",
        rule="ss-ema",
        options=_COLLAPSING,
        changes=_PLAIN,
        expected="collapses: 70 % after 6 epochs",
        source=PROTOTYPE,
    ),
    Row(
        name="undo",
        title="same, with undo",
        rule="ss-ema",
        options={**_COLLAPSING, "undo": _UNDO},
        changes=_PLAIN,
        target=0.88,
        source=PROTOTYPE,
    ),
]


def _aside(name: str, seeds: tuple[int, ...] = (0,)) -> Row:
    """The row of this name without the validation images, for the claims."""
    row = next(row for row in _NUMBERS if row.name == name)
    changes = {**row.changes, "train_on_validation": False}
    rest: dict[str, Any] = {"section": "claims", "seeds": seeds, "target": None, "expected": "", "source": ""}
    return replace(
        row, name=f"{name}-55k", title=row.title.replace("same,", "784-256-256-10,"), changes=changes, **rest
    )


_CLAIMS = [
    _aside("ste", (0, 1)),
    Row(
        name="ste-bn-55k",
        title="784-256-256-10 with batch norm, latent weights (STE)",
        rule="ste",
        options=_STE,
        changes=_NORMED,
        seeds=(0, 1),
        section="claims",
    ),
    _aside("ss-ema", (0, 1)),
    Row(
        name="ss-ema-bn-55k",
        title="784-256-256-10 with batch norm, switching by an exponential average",
        rule="ss-ema",
        options=_EMA,
        changes=_NORMED,
        seeds=(0, 1),
        section="claims",
    ),
    _aside("ss-none"),
    _aside("ss-batch"),
    _aside("ss-count"),
    *(
        Row(
            name=memristors_row(count),
            title=f"784-256-256-10, {count} auxiliary memristor{'s' * (count > 1)} for each weight",
            rule="ss-mem",
            options=_MANY_MEMRISTORS if count == 31 else {"count": count, "threshold": min(count, 3)},
            changes=_PLAIN,
            seeds=(0,),
            section="claims",
        )
        for count in MEMRISTORS
    ),
    *(
        Row(
            name=soft_bound_row(imbalance, zero_shift=zero_shift),
            title=f"784-256-256-10, soft-bound synapses, imbalance {imbalance:g}{', zero shift' * zero_shift}",
            rule="soft-bound",
            options={**_SOFT, "up_down": imbalance, "zero_shift": zero_shift},
            changes=_PLAIN,
            seeds=(0,),
            section="claims",
        )
        for zero_shift in (False, True)
        for imbalance in IMBALANCES
    ),
]

ROWS: dict[str, Row] = {row.name: row for row in (*_NUMBERS, *_CLAIMS)}
