"""Campaigns: what was finished is never asked again, and nothing that differs is taken for the same."""

import json
import os
from fractions import Fraction

import numpy as np
import pytest

from bnnverify import campaign
from bnnverify.campaign import Store, both, certified_accuracy, question_id, sampled_chips
from bnnverify.engines.base import Monitor
from bnnverify.engines.chipsampling import sample_chips
from bnnverify.errors import FormatError, QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import expected_accuracy
from bnnverify.results import Kind, Probability


def network(negated=False, seed=0):
    rng = np.random.default_rng(seed)
    first = DenseBlock.create(rng.choice([-1, 1], (5, 8)), rng.integers(-2, 3, 5), negated=np.array([negated] * 5))
    return BinaryNetwork(InputDomain.binary(8), (first,), OutputBlock.create(rng.choice([-1, 1], (3, 5))))


IMAGES = np.random.default_rng(3).choice([-1, 1], (6, 8))
LABELS = [0, 1, 2, 0, 1, 2]
FAULTS = BitFlip("0.05")
ASKED = (network(), IMAGES, LABELS, FAULTS)


def counted(monkeypatch):
    """The images that the engine is asked for."""
    honest, asked = campaign.image_errors, []

    def image_errors(*arguments, indices, **options):
        asked.extend(indices)
        return honest(*arguments, indices=indices, **options)

    monkeypatch.setattr(campaign, "image_errors", image_errors)
    return asked


def test_a_campaign_gives_the_accuracy_of_one_call_and_asks_nothing_twice(tmp_path, monkeypatch):
    asked, path = counted(monkeypatch), tmp_path / "results.jsonl"
    direct = expected_accuracy(*ASKED)
    with Store(path) as store:
        first = certified_accuracy(*ASKED, store=store)
    with Store(path) as store:
        again = certified_accuracy(*ASKED, store=store)
        assert len(store) == 6
    assert first.per_image == again.per_image == direct.per_image
    assert first.accuracy == again.accuracy == direct.accuracy
    assert asked == [0, 1, 2, 3, 4, 5]
    assert (first.run.statistics["known"], again.run.statistics["known"]) == (0, 6)


def test_what_was_finished_before_an_interrupt_is_kept(tmp_path, monkeypatch):
    path, seen = tmp_path / "results.jsonl", []

    def interrupt(count):
        seen.append(count)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with Store(path) as store, pytest.raises(KeyboardInterrupt):
        certified_accuracy(*ASKED, store=store, progress=interrupt)
    asked = counted(monkeypatch)
    with Store(path) as store:
        assert certified_accuracy(*ASKED, store=store).per_image == expected_accuracy(*ASKED).per_image
    assert asked == [3, 4, 5]


def test_a_stopped_campaign_counts_what_is_missing_as_unknown():
    monitor = Monitor()

    def stop(count):
        monitor.stop = True

    point = certified_accuracy(*ASKED, store=Store(), monitor=monitor, progress=stop)
    assert point.run.reason == "interrupted; 5 of 6 images left out"
    assert [float(p.width) == 1 for p in point.per_image] == [False] + [True] * 5
    whole = expected_accuracy(*ASKED).accuracy
    assert point.accuracy.lower <= whole.lower and whole.upper <= point.accuracy.upper


def test_a_limit_that_left_nothing_to_do_is_no_reason(monkeypatch):
    honest = campaign.image_errors
    monkeypatch.setattr(campaign, "image_errors", lambda *a, **o: honest(*a, **{**o, "seconds": None}))
    store = Store()
    for _ in range(2):  # the second time all is known
        assert certified_accuracy(*ASKED, store=store, seconds=1e-9).run.reason == ""
    wide = certified_accuracy(*ASKED, store=Store(), seconds=1e-9, tolerance=1e-30)
    assert wide.run.reason == "time limit of 1e-09 s reached; 6 of 6 images wider than the tolerance"


def test_ids_differ_wherever_the_truth_may():
    x, other = IMAGES[0], IMAGES[1]
    ids = {
        question_id(network(), x, 0, FAULTS, event="error"),
        question_id(network(), x, 0, FAULTS, event="change"),
        question_id(network(), x, 1, FAULTS, event="error"),
        question_id(network(), other, 0, FAULTS, event="error"),
        question_id(network(), x, 0, BitFlip("0.06"), event="error"),
        question_id(network(), x, 0, AsymmetricFlip("0.05", "0.05"), event="error"),
        question_id(network(seed=1), x, 0, FAULTS, event="error"),
        question_id(network(negated=True), x, 0, FAULTS, event="error"),  # other stored signs, the same function
    }
    assert len(ids) == 8
    assert question_id(network(), x.astype(np.int8), 0, BitFlip("1/20"), event="error") in ids
    with pytest.raises(QueryError, match="event is 'both', expected 'error'"):
        question_id(network(), x, 0, FAULTS, event="both")


def test_wide_bounds_are_asked_again_and_both_count_together(monkeypatch):
    store, asked = Store(), counted(monkeypatch)
    certified_accuracy(*ASKED, store=store, tolerance=1.0, max_states=1)
    narrow = certified_accuracy(*ASKED, store=store, tolerance=1e-6)
    assert asked.count(0) == 2
    assert all(p.width <= Fraction(1, 10**6) for p in narrow.per_image)
    wide = certified_accuracy(*ASKED, store=store, tolerance=0.5)
    assert wide.per_image == narrow.per_image and len(asked) == 12


def test_a_hard_image_is_not_asked_again_for_as_little_work():
    store, bounds = Store(), Probability.interval(Fraction(0), Fraction(1, 2))
    store.add_bounds("hard", bounds, tolerance=1e-6, max_states=64, is_complete=True)
    assert store.settles("hard", 1e-6, 64) and store.settles("hard", 1e-3, 8) and store.settles("hard", 0.5, 10**6)
    assert not store.settles("hard", 1e-6, 65) and not store.settles("hard", 1e-7, 64)
    store.add_bounds("cut", bounds, tolerance=1e-6, max_states=64, is_complete=False)
    assert not store.settles("cut", 1e-6, 64)
    assert not store.settles("unknown", 1, 1)


def test_files_merge_by_putting_one_after_the_other(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.jsonl" for i in range(3)]
    for part, path in zip(([0, 1, 2], [3, 4, 5]), paths, strict=False):
        with Store(path) as store:
            certified_accuracy(network(), IMAGES[part], [LABELS[i] for i in part], FAULTS, store=store)
    paths[2].write_bytes(paths[0].read_bytes() + paths[1].read_bytes())
    asked = counted(monkeypatch)
    with Store(paths[2]) as store:
        merged = certified_accuracy(*ASKED, store=store)
    assert merged.per_image == expected_accuracy(*ASKED).per_image and asked == []


def test_two_writers_may_share_a_file(tmp_path):
    path = tmp_path / "shared.jsonl"
    with Store(path) as one, Store(path) as two:
        for i in range(20):
            bounds = Probability.interval(Fraction(i, 64), Fraction(i + 1, 64))
            (one, two)[i % 2].add_bounds(str(i), bounds, tolerance=1e-3, max_states=1, is_complete=True)
    with Store(path) as store:
        assert len(store) == 20 and store.bounds("7").lower == Fraction(7, 64)


def test_a_line_cut_off_by_a_power_failure_is_dropped(tmp_path):
    path = tmp_path / "results.jsonl"
    with Store(path) as store:
        certified_accuracy(*ASKED, store=store)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with Store(path) as store:
        assert len(store) == 5
        certified_accuracy(*ASKED, store=store)
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize("text", ["{}\n", "hello\n", '{"format": "bnnverify campaign", "version": 2}\n', "[1]\n"])
def test_other_files_are_refused_with_their_line(tmp_path, text):
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"results\.jsonl:1: is no line of a campaign of version 1"):
        Store(path)
    assert path.read_text() == text
    with pytest.raises(FormatError, match="is a directory, expected a regular file"):
        Store(tmp_path)


def test_bounds_that_contradict_each_other_are_an_error_not_an_answer(tmp_path):
    low, high = (Probability.interval(Fraction(a, 8), Fraction(a + 1, 8)) for a in (0, 5))
    with pytest.raises(QueryError, match="contradict each other"):
        both(low, high)
    assert both(None, low) is low
    exact = Probability.exact(Fraction(1, 3))
    for one, other in ((exact, low), (low, exact), (exact, Probability.exact(Fraction(1, 4)))):
        with pytest.raises(QueryError, match="contradict each other"):
            both(one, other)
    whole = Probability.interval(Fraction(0), Fraction(1))
    assert both(exact, whole) == both(whole, exact) == exact
    with pytest.raises(QueryError, match="is sampled, expected proved bounds"):
        sampled = Probability(Kind.SAMPLED, Fraction(0), Fraction(1), 0.9, 1, 1)
        Store().add_bounds("x", sampled, tolerance=1, max_states=1, is_complete=True)


def test_exact_answers_stay_exact_in_the_file(tmp_path):
    path = tmp_path / "results.jsonl"
    asked = (network(), IMAGES, LABELS, BitFlip(0))
    with Store(path) as store:
        point = certified_accuracy(*asked, store=store)
    with Store(path) as store:
        again = certified_accuracy(*asked, store=store)
    assert point.accuracy == again.accuracy and again.accuracy.kind is Kind.EXACT


def test_chips_go_on_where_the_file_ends(tmp_path):
    path, whole = tmp_path / "chips.jsonl", sample_chips(*ASKED, chips=90, seed=5)
    for chips in (30, 90, 40):
        with Store(path) as store:
            done = sampled_chips(*ASKED, store=store, chips=chips, seed=5)
        assert done.chips == max(chips, 30 if chips == 30 else 90)
        assert done.correct == whole.correct[: done.chips]
    assert (done.errors, done.accuracy) == (whole.errors, whole.accuracy)
    assert [json.loads(line)["first"] for line in path.read_text().splitlines()] == [0, 30]
    with Store(path) as store:
        assert sampled_chips(*ASKED, store=store, chips=3, seed=6).chips == 3
        assert sampled_chips(*ASKED, store=store, event="change", chips=2, seed=5).chips == 2


def test_a_store_without_a_file_leaves_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    certified_accuracy(*ASKED, store=Store())
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("text", ["notes without an end", "notes\nand more"])
def test_a_file_that_is_not_ours_is_not_changed(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"notes.txt:1: is no line of a campaign"):
        Store(path)
    assert path.read_text() == text
