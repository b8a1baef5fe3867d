"""The lowest write energy against trying every write, and every choice in plain loops."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from bnnverify.devices import PRESETS, PulseMenu, Retention, ThermallyActivated, Write
from bnnverify.engines.base import Monitor
from bnnverify.errors import QueryError
from bnnverify.faults import PerRead, in_series
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import exact_error_probability
from bnnverify.reliability.energy import lowest_write_energy, write_frontier

CELL = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5, reset_factor=2.0, resistance=5e3)
MENU = PulseMenu.for_cell(CELL, levels=4, lowest=0.5, highest=0.9999, width=1e-8)


def network_and_images():
    rng = np.random.default_rng(4)
    block = DenseBlock.create(
        rng.choice([-1, 1], (4, 8)), rng.integers(-2, 3, 4), negated=np.array([True] + [False] * 3)
    )
    network = BinaryNetwork(InputDomain.binary(8), (block,), OutputBlock.create(rng.choice([-1, 1], (3, 4))))
    images = rng.choice([-1, 1], (5, 8))
    return network, images, network.evaluate_batch(images).tolist()


def wrong_cells(network, faults):
    """Expected share of wrong cells, cell by cell."""
    total = Fraction(0)
    for block in network.all_blocks:
        for stored in block.stored.ravel().tolist():
            total += faults.p10 if stored == 1 else faults.p01
    return total / network.n_cells


def every_write(network, most_retries, before):
    plus = sum(int((block.stored == 1).sum()) for block in network.all_blocks) / network.n_cells
    found = []
    for retries in range(most_retries + 1):
        for v, t in zip(MENU.voltages, MENU.widths, strict=True):
            for u, s in zip(MENU.voltages, MENU.widths, strict=True):
                write = Write(CELL, v, t, u, s, retries=retries, before=before, read_energy=1e-16)
                found.append((write.energy(plus_share=plus), wrong_cells(network, write.faults()), write))
    return found


@pytest.mark.parametrize("before", ["reset", "random", "opposite"])
def test_the_frontier_leaves_out_only_writes_that_a_cheaper_one_beats(before):
    network, _, _ = network_and_images()
    points = write_frontier(CELL, network, MENU, most_retries=1, before=before, read_energy=1e-16)
    assert [p.energy for p in points] == sorted(p.energy for p in points)
    assert all(a.wrong > b.wrong for a, b in pairwise(points))
    for energy, wrong, _ in every_write(network, 1, before):
        assert any(p.energy <= energy * (1 + 1e-12) and p.wrong <= wrong for p in points)
    for point in points:
        assert point.wrong == wrong_cells(network, point.faults)


@pytest.mark.parametrize("target", ["0.6", "0.9", "0.99"])
def test_the_best_write_reaches_the_target_and_the_next_cheaper_one_does_not(target):
    network, images, labels = network_and_images()
    options = {"menu": MENU, "most_retries": 1, "before": "opposite"}
    found = lowest_write_energy(CELL, network, images, labels, target, **options)
    slow = lowest_write_energy(CELL, network, images, labels, target, exhaustive=True, **options)
    exact = [
        1 - sum(exact_error_probability(network, x, y, p.faults) for x, y in zip(images, labels, strict=True)) / 5
        for p in found.points
    ]
    place = found.points.index(found.best)
    assert exact[place] >= Fraction(target)
    assert found.best.reach.accuracy.lower >= Fraction(target)
    assert place == 0 or exact[place - 1] < Fraction(target)
    assert slow.best.energy <= found.best.energy
    assert slow.best.energy == min(p.energy for p, a in zip(found.points, exact, strict=True) if a >= Fraction(target))
    assert found.relative == found.best.energy / found.reference.energy
    assert "proved for these rates" in str(found)
    assert found.to_json()["best"]["retries"] == found.best.write.retries


def test_what_follows_the_write_counts_too():
    network, images, labels = network_and_images()
    aging = Retention(1e3, 1e3).faults(10.0)
    found = lowest_write_energy(CELL, network, images, labels, "0.9", menu=MENU, after=aging)
    plain = lowest_write_energy(CELL, network, images, labels, "0.9", menu=MENU)
    assert found.best.faults == in_series(found.best.write.faults(), aging)
    assert found.best.energy >= plain.best.energy
    reads = lowest_write_energy(CELL, network, images, labels, "0.9", menu=MENU, after=PerRead(aging))
    assert isinstance(reads.best.faults, PerRead)
    assert reads.best.energy == found.best.energy  # dense blocks: one image meets the same rates


def test_without_a_proof_there_is_no_best_write_but_a_reason():
    network, images, labels = network_and_images()
    wrong = [(y + 1) % 3 for y in labels]
    found = lowest_write_energy(CELL, network, images, wrong, "0.99", menu=MENU)
    assert found.best is None and found.relative is None
    assert "no point of the menu is proved" in found.run.reason
    assert str(found).startswith("no write is proved to reach the accuracy 0.99")
    assert found.to_json()["best"] is None
    stopped = lowest_write_energy(CELL, network, images, labels, "0.9", menu=MENU, monitor=Monitor(stop=True))
    assert stopped.best is None and stopped.run.reason == "interrupted"


def test_the_reference_writes_without_errors_where_the_menu_can():
    network, images, labels = network_and_images()
    loose = lowest_write_energy(CELL, network, images, labels, "0.6", menu=MENU, reference_rate="0.1")
    assert loose.reference.wrong <= Fraction(1, 10)
    strict = lowest_write_energy(CELL, network, images, labels, "0.6", menu=MENU)
    assert strict.reference == strict.points[-1] or strict.reference.wrong == strict.points[-1].wrong
    with pytest.raises(QueryError, match="most_retries is -1"):
        write_frontier(PRESETS["mtj"], network, MENU, most_retries=-1)
