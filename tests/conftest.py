"""hypothesis profiles: `fast` while editing, `ci` (the default) reproducible and without deadlines."""

import os

import pytest
from hypothesis import HealthCheck, settings

from bnnverify.engines import batches, warmup
from bnnverify.reliability import arrays

common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("fast", max_examples=20, **common)
settings.register_profile("ci", derandomize=True, **common)
settings.register_profile("explore", max_examples=2000, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def compiled_loops(monkeypatch):
    """Tests in this process look at the loops, not at what stands in for them in small regions."""
    monkeypatch.setattr(
        warmup, "COMPILING", dict.fromkeys(warmup.COMPILING, 0.0)
    )  # choices that do not depend on what is kept
    monkeypatch.setattr(batches, "_spent", float("inf"))
    monkeypatch.setattr(arrays, "_spent", float("inf"))
