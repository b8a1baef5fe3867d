"""What the study asks: networks, error rates, accuracy drops, cells; for MNIST, and for the digits as a trial."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

MODELS = Path(__file__).resolve().parents[2] / "models"


@dataclass(frozen=True, slots=True)
class Trained:
    """A network of the study.

    Attributes:
        role: What it stands for; short, for tables and the command line.
        file: Name in models/, without the suffix.
        title: How it was trained, for legends.
    """

    role: str
    file: str
    title: str


NORMED, PLAIN, SWITCHING, INJECTED, MARGIN = "norm", "plain", "switching", "injected", "margin"

NETWORKS: dict[str, tuple[Trained, ...]] = {
    "mnist": (
        Trained(NORMED, "mnist-784-100-10", "batch norm"),
        Trained(PLAIN, "mnist-784-100-10-plain", "no batch norm"),
        Trained(SWITCHING, "mnist-784-100-10-ss-count", "stochastic switching"),
        Trained(INJECTED, "mnist-784-100-10-ber", "trained with errors"),
        Trained(MARGIN, "mnist-784-100-10-margin", "margin loss"),
    ),
    "digits": (
        Trained(NORMED, "digits-64-32-10", "latent weights"),
        Trained(SWITCHING, "digits-64-32-10-ss-count", "stochastic switching"),
    ),
}

RATES = tuple(
    map(Fraction, ("1e-6", "1e-5", "1e-4", "3e-4", "1e-3", "3e-3", "1e-2", "2e-2", "4e-2", "1e-1"))
)  # of the bands
MRAM_RATE = Fraction(1, 1000)  # claimed harmless for ST-MRAM
RRAM_RATE = Fraction(4, 100)  # claimed tolerable after training with errors, RRAM
RRAM_PLAIN_RATE = Fraction(1, 10000)  # claimed tolerable without it, RRAM
CLAIMED = (RRAM_PLAIN_RATE, MRAM_RATE, Fraction(1, 100), RRAM_RATE)
# greatest rate of the cells: width to aim at for each image, most work for each image
EFFORTS = (
    (Fraction(1, 1000), 1e-5, 1024),
    (Fraction(1, 100), 1e-4, 1024),
    (Fraction(4, 100), 1e-3, 256),
    (Fraction(1), 1e-2, 64),
)
SEARCH = (1e-3, 256)  # the same for a search over rates or writes
QUICK_RATE = Fraction(1, 1000)  # up to it, claims are asked about all test images
FEW = 100  # images for faults of two rates, whose proofs take longer
SAMPLED = (Fraction(1, 10000), MRAM_RATE, Fraction(1, 100), RRAM_RATE, Fraction(1, 10))
DROPS = (Fraction(1, 1000), Fraction(1, 100), Fraction(3, 100))  # of accuracy: 0.1, 1 and 3 points
GOOD_CHIP = Fraction(2, 100)  # a good chip loses at most so much accuracy
CONFIDENCE = 0.99  # of everything sampled
SEED = 1
REFERENCES = (Fraction(1, 10**6), Fraction(1, 10**9))  # write errors that a memory without tolerance would ask for
# what the pulses of a menu fail with; the reference is the first one
MENU_RATES = (
    *REFERENCES,
    *map(Fraction, ("1e-4", "1e-3", "2e-3", "4e-3", "7e-3", "1e-2", "2e-2", "3e-2", "5e-2", "1e-1")),
)
