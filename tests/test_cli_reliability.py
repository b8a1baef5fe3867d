"""`bnnverify reliability`: fault models, whole chips, figures, files to go on from, and its exit codes."""

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bnnverify import campaign
from bnnverify.cli.faultmodels import fault_points
from bnnverify.cli.reliability import EXAMPLES
from bnnverify.engines.chipsampling import sample_chips
from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, PerRead, StuckAt, in_series
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.report.figures import Curve
from bnnverify.report.lines import read_lines
from bnnverify.report.reliability import reliability_figure
from tests.test_cli import json_lines, run, workplace  # noqa: F401

COMMON = ("digits.npz", "--data", "digits", "--index", "0:6")
NOTHING = {
    "ber": None,
    "p01": None,
    "p10": None,
    "stuck_at": (),
    "retries": 0,
    "retention": None,
    "only_block": None,
    "per_read": False,
    "read_error": None,
}


def points(**options):
    return [point.faults for point in fault_points(2, **{**NOTHING, **options})]


def test_fault_models_come_in_the_order_in_which_a_cell_meets_them():
    assert points(ber="0,0.1") == [BitFlip(0), BitFlip("0.1")]
    assert points(stuck_at=("0.1,0.2", "0,1")) == [StuckAt("0.1", "0.2"), StuckAt("0", "1")]
    assert points(ber="0.1", retries=1) == [AsymmetricFlip("0.01", "0.01")]
    (aged,) = points(ber="0.1", retries=1, retention="1/4")
    late = 0.5 * -np.expm1(-0.5)
    assert float(aged.p01) == pytest.approx(0.01 + late - 2 * 0.01 * late) and aged.p01 == aged.p10
    (stuck,) = points(stuck_at=("1,0",), retention="1/4")  # all cells hold +1 for ever
    assert stuck == AsymmetricFlip(p01=1, p10=0)
    assert points(ber="0.1", only_block="1") == [PerBlock.only(BitFlip("0.1"), [1], of=2)]
    assert points(p01="0.1", p10="0", per_read=True) == [PerRead(AsymmetricFlip("0.1", "0"))]
    assert points(ber="0.1", read_error="0.2") == [PerRead(BitFlip("0.2"), permanent=BitFlip("0.1"))]
    assert points(retention="1/4") == [in_series(BitFlip(0), AsymmetricFlip(*[Fraction(late)] * 2))]
    (point,) = fault_points(2, **{**NOTHING, "p01": "0.1", "p10": "0.3", "only_block": "0"})
    assert (point.rate, point.text) == (Fraction(3, 10), "p01 0.1  p10 0.3, block 0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ber": "0.1", "stuck_at": ("0,0",)}, "rates are named twice"),
        ({"stuck_at": ("0.1",)}, "expected two probabilities such as 1e-3,1e-4"),
        ({"retries": 2}, "--retries is given without an error rate"),
        ({"only_block": "0"}, "--only-block is given without an error rate"),
        ({"ber": "0.1", "only_block": "2"}, "block 2 does not exist, expected 0 to 1"),
        ({"ber": "0.1", "per_read": True, "read_error": "0"}, "expected one of the two"),
        ({"ber": "0.1", "read_error": "0,1"}, "expected one number such as"),
        ({"ber": "0.1", "retention": "soon"}, "--retention is 'soon', expected a time over a lifetime"),
        ({"stuck_at": ("0.1,0.1",), "retries": 1}, "a stuck cell stays stuck"),
        ({"stuck_at": ("0.1,0.1",), "read_error": "0.1"}, "--read-error is given with --stuck-at"),
        ({"stuck_at": ("0.1,0.1",), "per_read": True}, "--per-read is given with --stuck-at"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(QueryError, match=message):
        points(**options)


def test_pairs_of_rates_are_paired_as_given():
    given = points(p01="1e-2,1e-3,1e-2", p10="1e-1,1e-1,1e-3")
    assert given == [
        AsymmetricFlip("1e-2", "1e-1"),
        AsymmetricFlip("1e-3", "1e-1"),
        AsymmetricFlip("1e-2", "1e-3"),
    ]
    assert len(points(p01="0.1,0.1", p10="0.2,0.2")) == len(points(ber="0.1,0.1")) == 1  # the same point is asked once
    with pytest.raises(QueryError, match="--p01 has 2 rates and --p10 has 3"):
        points(p01="0.1,0.1", p10="0.1,0.2,0.3")


def test_errors_in_some_blocks_only_are_those_of_reading_too():
    (point,) = points(ber="0.1", read_error="0.2", only_block="0")
    none = BitFlip(0)
    assert point == PerRead(PerBlock((BitFlip("0.2"), none)), permanent=PerBlock((BitFlip("0.1"), none)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ber", "0.1", "--flips", "2"), "--flips is given without --worst-case"),
        (("--ber", "0.1", "--cell-map", "a.png"), "--cell-map is given without --critical"),
        (("--ber", "0.1", "--device", "cuda"), "--device is given without --chips"),
        (("--ber", "0.1", "--every-rate"), "--every-rate is given without --target-accuracy"),
        (("--ber", "0.1", "--event", "change", "--keep", "1"), "--event and --keep are both given"),
        (("--ber", "0.1", "--chips", "0"), "--chips is 0, expected at least 1"),
        (("--worst-case", "--chips", "5"), "--chips is given without --ber"),
        (("--coefficients", "-1"), "--coefficients is '-1', expected a number of flips from 0, or all"),
        (("--ber", "0.1", "--figure", "a.gif"), "expected a name that ends in .png or .svg"),
        (("--ber", "0.1", "--figure", "no/a.png"), "--figure no/a.png cannot be written"),
        (("--ber", "0.1", "--yield", "2"), "--yield is 2, expected a probability"),
        (("--ber", "0.1", "--chips", "5", "--device", "abacus"), "device is 'abacus'"),
        (("--target-accuracy", "0.5,0.6"), "--target-accuracy is '0.5,0.6', expected one number"),
        (("--ber", "0.1", "--tolerance", "1e-3,1e-3"), "--tolerance is '1e-3,1e-3', expected one number"),
        (("--ber", "0.1", "--yield", "0.5,0.9"), "--yield is '0.5,0.9', expected one number"),
        (("--ber", "0.1", "--samples", "5", "--only-samples", "--sensitivity"), "--only-samples and --sensitivity are"),
        (
            ("--ber", "0.1", "--samples", "5", "--only-samples", "--yield", "0.5"),
            "--yield is given with --only-samples",
        ),
        (("--ber", "0.1", "--samples", "5", "--only-samples", "--worst-case"), "--only-samples and --worst-case are"),
        (("--worst-case", "--figure", "a.png"), "--figure is given without --ber"),
        (("--worst-case", "--csv", "a.csv"), "--csv is given without --ber"),
        (("--ber", "0", "--figure", "a.png"), "--figure has a logarithmic axis, expected a rate above 0"),
        (("--critical", "3", "--map-block", "1"), "--map-block is given without --cell-map"),
        (("--critical", "3", "--cell-map", "a.png", "--map-block", "9"), "--map-block is 9, expected 0 to"),
        (("--retention", "3600/"), "--retention is '3600/', expected a time over a lifetime"),
        (("--retention", "1/2/3"), "--retention is '1/2/3', expected a time over a lifetime"),
        (("--ber", "0.1", "--sensitivity", "--only-block", "0"), "--sensitivity and --only-block are both given"),
        (("--ber", "0.1", "--sensitivity", "--per-read"), "--sensitivity and --per-read are both given"),
        (("--ber", "0.1", "--sensitivity", "--read-error", "0.1"), "--sensitivity and --read-error are both given"),
        (("--ber", "0.1", "--chips", "5", "--per-read", "--device", "cpu"), "Leave out --device"),
        (("--stuck-at", "0.1,0.1", "--retries", "1"), "--retries is given with --stuck-at"),
        (("--ber", "0.1", "--seed", "3"), "--seed is given without --samples or --chips"),
        (("--worst-case", "--resume", "a.jsonl"), "--resume is given without --ber"),
    ],
)
def test_a_mistake_is_one_line(workplace, run, words, message):  # noqa: F811
    before = set(workplace.iterdir())
    code, out, err = run("reliability", *COMMON, *words)
    assert code == 2 and message in err and err.count("\n") == 1
    assert not out and set(workplace.iterdir()) == before


@pytest.mark.parametrize(
    ("question", "about"),
    [
        (("--target-accuracy", "0.5"), "permanent flips at one rate in all cells"),
        (("--worst-case",), "any set of permanently flipped cells"),
        (("--critical", "2"), "single permanently flipped cells"),
        (("--coefficients", "0"), "sets of permanently flipped cells"),
    ],
)
@pytest.mark.parametrize(
    "option",
    [
        ("--only-block", "0"),
        ("--per-read",),
        ("--retries", "1"),
        ("--p01", "0.1"),
        ("--p10", "0.1"),
        ("--stuck-at", "0.1,0.1"),
        ("--retention", "1/4"),
        ("--read-error", "0.1"),
    ],
)
def test_a_question_refuses_fault_options_that_it_would_ignore(workplace, run, question, about, option):  # noqa: F811
    for rates in ((), ("--ber", "0.1")):
        code, out, err = run("reliability", *COMMON, *rates, *question, *option)
        said = (
            f"{option[0]} does not apply to {question[0]}, which asks about {about}. Ask the two in separate commands."
        )
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_lines_say_which_faults_a_question_without_rates_means(workplace, run):  # noqa: F811
    words = ("--ber", "0.01", "--target-accuracy", "0", "--every-rate", "--energy", "mtj", "--retries", 1)
    lines = json_lines(run("reliability", *COMMON, *words, "--tolerance", "0.1", "--json")[1])
    lines += json_lines(run("reliability", *COMMON, "--worst-case", "--critical", 1, "--coefficients", 0, "--json")[1])
    kinds = {line["answer"]["type"]: line["question"]["faults"] for line in lines}
    rewritten = in_series(AsymmetricFlip("1e-4", "1e-4"))
    assert kinds.pop("accuracy") == rewritten.to_json()
    assert kinds.pop("lowest-write-energy") == {"kind": "write-error"}
    assert {kinds.pop(name)["kind"] for name in ("tolerance", "certified-range")} == {"bit-flip"}
    assert [faults["kind"] for faults in kinds.values()] == ["flipped-cells"] * 3


def test_the_help_promises_a_crossing_and_not_the_first_one():
    from bnnverify.cli.reliability import command

    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "first falls below" not in text and "not for the first time perhaps" in text


def test_whole_chips_and_the_yield_are_those_of_the_library(workplace, run):  # noqa: F811
    from bnnverify import load
    from bnnverify.datasets import inputs_for
    from bnnverify.datasets import load as load_data

    words = ("--ber", "0.02", "--chips", 40, "--seed", 3, "--yield", "0.1", "--json", "--jobs", 2)
    code, out, _ = run("reliability", *COMMON, *words)
    proved, sampled, good = json_lines(out)
    net, test = load("digits.npz"), load_data("digits").splits["test"]
    expected = sample_chips(net, inputs_for(net, test)[:6], test.labels[:6].tolist(), BitFlip("0.02"), chips=40, seed=3)
    assert code == 0 and sampled["answer"]["correct"] == list(expected.correct)
    assert sampled["answer"]["method"] == "whole chips" and sampled["answer"]["chips"] == 40
    assert good["answer"]["sampled"] == expected.yield_at("0.1").to_json()
    assert good["answer"]["proved"]["kind"] == "interval"
    assert [line["question"]["event"] for line in (proved, sampled, good)] == ["error"] * 3
    assert proved["question"]["rates"] == "p 0.02"
    _, out, _ = run("reliability", *COMMON, *words, "--samples", 5, "--sensitivity")
    lines = json_lines(out)
    assert len(lines) == 5 and all(set(line) == set(proved) for line in lines)


def test_change_is_about_the_fault_free_class(workplace, run):  # noqa: F811
    words = ("--ber", "0", "--json")
    (change,) = json_lines(run("reliability", *COMMON, *words, "--event", "change")[1])
    assert (change["answer"]["lower"], change["question"]["event"]) == ("1", "change")
    (error,) = json_lines(run("reliability", *COMMON, *words, "--event", "error")[1])
    assert error["question"]["keep"] == "true" and error["answer"]["lower"] != "1"


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_the_figure_is_there_and_of_its_kind(workplace, run, name):  # noqa: F811
    code, _, _ = run("reliability", *COMMON, "--ber", "0,1e-3,1e-2", "--chips", 20, "--figure", name)
    start = (workplace / name).read_bytes()[:200]
    assert code == 0 and (
        start.startswith(b"\x89PNG\r\n") if name == "a.png" else b"<svg" in start or b"<?xml" in start
    )


def test_a_figure_says_model_data_and_event_and_leaves_out_rate_zero():
    curve = Curve("net", 0.9, ((0.0, 0.9, 0.9), (0.01, 0.7, 0.8)), ((0.01, 0.75, 0.6, 0.9),))
    figure = reliability_figure([curve], title="net on digits", event="change", confidence=0.99)
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "net on digits" and "keep their class" in axes.get_ylabel()
    assert axes.get_xscale() == "log" and min(axes.get_lines()[1].get_xdata()) == 0.01
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any("proved" in text for text in labels) and any("99% confidence" in text for text in labels)
    with pytest.raises(QueryError, match="no accuracy at a rate above 0"):
        reliability_figure([Curve("net", 0.9, ((0.0, 0.9, 0.9),), ())], title="")


def test_a_rerun_asks_only_for_what_the_file_does_not_have(workplace, run, monkeypatch):  # noqa: F811
    honest, asked = campaign.image_errors, []

    def image_errors(*arguments, indices, **options):
        for count, pair in enumerate(honest(*arguments, indices=indices, **options)):
            if len(asked) == 3 and count == 3:
                raise KeyboardInterrupt
            asked.append(pair[0])
            yield pair

    monkeypatch.setattr(campaign, "image_errors", image_errors)
    words = ("--ber", "0.01", "--resume", "known.jsonl", "--json")
    assert run("reliability", *COMMON, *words)[0] == 130
    assert len((workplace / "known.jsonl").read_text().splitlines()) == 3
    code, out, _ = run("reliability", *COMMON, *words)
    assert code == 0 and sorted(asked) == [0, 1, 2, 3, 4, 5]
    (again,) = json_lines(run("reliability", *COMMON, *words)[1])
    assert again["answer"]["run"]["statistics"]["known"] == 6 and len(asked) == 6
    assert again["answer"]["lower"] == json_lines(out)[0]["answer"]["lower"]
    changed = json_lines(run("reliability", *COMMON, *words, "--event", "change")[1])
    assert changed[0]["answer"]["run"]["statistics"]["known"] == 0
    (workplace / "other.jsonl").write_text("hello\n")
    code, _, err = run("reliability", *COMMON, "--ber", "0.01", "--resume", "other.jsonl")
    assert code == 2 and "other.jsonl:1: is no line of a campaign" in err


def test_a_time_limit_is_partial_and_prints_what_is_proved(workplace, run):  # noqa: F811
    code, out, _ = run("reliability", *COMMON, "--ber", "0.01", "--timeout", "1e-6", "--json")
    (line,) = json_lines(out)
    assert code == 3 and "time limit of 1e-06 s reached" in line["answer"]["run"]["reason"]
    assert line["answer"]["kind"] == "interval"


def test_a_time_limit_that_left_nothing_open_is_no_failure(workplace, run, monkeypatch):  # noqa: F811
    honest = campaign.image_errors
    monkeypatch.setattr(campaign, "image_errors", lambda *a, **o: honest(*a, **{**o, "seconds": None}))
    words = ("--ber", "1e-4", "--timeout", "1e-6", "--json")
    code, out, _ = run("reliability", *COMMON, *words, "--tolerance", "0.5")
    (line,) = json_lines(out)
    assert (code, line["answer"]["run"]["reason"], line["answer"]["images_within_tolerance"]) == (0, "", 6)
    code, out, _ = run("reliability", *COMMON, *words, "--tolerance", "1e-30")
    reason = json_lines(out)[0]["answer"]["run"]["reason"]
    assert (code, reason) == (3, "time limit of 1e-06 s reached; 6 of 6 images wider than the tolerance")


def test_answers_about_cells_need_no_error_rate(workplace, run):  # noqa: F811
    words = ("--worst-case", "--critical", 3, "--cell-map", "map.png", "--coefficients", 1, "--json")
    code, out, _ = run("reliability", *COMMON, *words)
    kinds = [line["answer"]["type"] for line in json_lines(out)]
    assert code == 0 and kinds == ["flip-distances", "critical-cells", "fault-coefficients"]
    assert (workplace / "map.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("reliability", *COMMON, *words[:3])
    assert code == 0 and "Worst case:" in out and "in tolerance" not in out
    Path("lines.jsonl").write_text(run("reliability", *COMMON, *words)[1])
    assert len(read_lines("lines.jsonl")) == 3  # the report takes them, though it does not show them


def test_coefficients_prove_at_rates_above_one_half_too(workplace, run):  # noqa: F811
    code, out, _ = run("reliability", *COMMON, "--coefficients", "1", "--ber", "0.6", "--json")
    assert code == 0
    *_, found = [json.loads(line)["answer"] for line in out.splitlines()]
    assert [at["p"] for at in found["at"]] == ["3/5"]


def test_all_coefficients_of_a_small_network_give_exact_accuracies(workplace, run):  # noqa: F811
    rng = np.random.default_rng(0)
    block = DenseBlock.create(rng.choice([-1, 1], (3, 64)), [0] * 3)
    save(BinaryNetwork(InputDomain.binary(64), (block,), OutputBlock.create(rng.choice([-1, 1], (10, 3)))), "net.npz")
    words = ("net.npz", "--data", "digits", "--index", "0:2", "--coefficients", "all", "--ber", "1e-2")
    code, out, _ = run("reliability", *words, "--json")
    proved, counted = (line["answer"] for line in json_lines(out))
    exact = Fraction(counted["at"][0]["accuracy"]["lower"])
    assert code == 0 and len(counted["counts"]) == 64 * 3 + 30 + 1 and counted["at"][0]["accuracy"]["kind"] == "exact"
    assert Fraction(proved["lower"]) <= exact <= Fraction(proved["upper"])


def test_each_block_alone_and_targets_at_every_rate(workplace, run):  # noqa: F811
    words = ("--ber", "1e-3", "--sensitivity", "--target-accuracy", "0", "--every-rate", "--json", "--tolerance", "0.1")
    code, out, _ = run("reliability", *COMMON, *words)
    lines = {line["answer"]["type"]: line["answer"] for line in json_lines(out)}
    assert code == 0 and len(lines["block-sensitivity"]["blocks"]) == 2
    assert {"accuracy", "tolerance", "certified-range"} <= set(lines)


def test_the_cheapest_write_is_asked_of_a_preset_cell(workplace, run):  # noqa: F811
    words = ("--target-accuracy", "0", "--energy", "mtj", "--retries", 1, "--json", "--tolerance", "0.1")
    code, out, _ = run("reliability", *COMMON, *words)
    _, energy = json_lines(out)
    assert code == 0 and energy["answer"]["type"] == "lowest-write-energy" and energy["answer"]["best"] is not None
    assert energy["question"]["most_retries"] == 1
    assert run("reliability", *COMMON, *words[:3], "abacus")[2].count("expected one of mtj, rram, ftj") == 1


def test_faults_of_reading_and_per_block_reach_the_table_and_the_csv(workplace, run):  # noqa: F811
    words = ("--ber", "0.01", "--only-block", "1", "--per-read", "--chips", 5, "--samples", 5, "--csv", "a.csv")
    code, out, _ = run("reliability", *COMMON, *words)
    assert code == 0 and out.count("p 0.01, block 1, per read") == 3
    with Path("a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["interval", "sampled", "sampled"]
    assert {row["rates"] for row in rows} == {"p 0.01, block 1, per read"} and rows[2]["chips"] == "5"


def test_what_cannot_be_proved_is_refused_before_the_table(workplace, run):  # noqa: F811
    net = BinaryNetwork(InputDomain.integers([0] * 64, [16] * 64), (), OutputBlock.create(np.ones((10, 64), dtype=int)))
    save(net, "flat.npz")
    code, out, err = run("reliability", "flat.npz", "--data", "digits", "--index", "0:2", "--ber", "0.1")
    assert (code, out) == (2, "") and err.count("\n") == 1


def test_every_example_of_the_help_parses(workplace):  # noqa: F811
    from bnnverify.cli.reliability import command

    for text in EXAMPLES.splitlines()[2:]:
        words = text.split("#")[0].split(">")[0].split()[2:]
        with command.make_context("reliability", words) as context:
            assert context.params["model"] == Path("net.npz")
    help_text = CliRunner().invoke(command, ["--help"]).output
    assert "--resume" in help_text and "--only-block" in help_text


def test_lines_say_everything_that_makes_them_repeatable(workplace, run):  # noqa: F811
    (line,) = json_lines(run("reliability", *COMMON, "--stuck-at", "0.01,0.02", "--json", "--per-image")[1])
    assert line["question"]["faults"] == {"kind": "stuck-at", "p_plus": "1/100", "p_minus": "1/50"}
    assert json.loads(json.dumps(line)) == line and len(line["answer"]["per_image"]) == 6


def test_a_deeper_network_prints_its_sampled_points_without_proof(workplace, run):  # noqa: F811
    rng = np.random.default_rng(0)
    blocks = tuple(DenseBlock.create(rng.choice([-1, 1], (8, n)), [0] * 8) for n in (64, 8))
    save(BinaryNetwork(InputDomain.binary(64), blocks, OutputBlock.create(rng.choice([-1, 1], (10, 8)))), "deep.npz")
    words = ("--data", "digits", "--index", "0:3", "--ber", "0.1", "--chips", 4, "--only-samples")
    code, out, _ = run("reliability", "deep.npz", *words)
    assert code == 0 and "interval" not in out and "whole chips, 0.99" in out
