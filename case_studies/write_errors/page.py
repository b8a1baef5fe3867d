"""What the answers say, as markdown: every table and every verdict of README.md is computed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from energy import PROGRAMMINGS
from questions import Asker
from settings import (
    CLAIMED,
    DROPS,
    INJECTED,
    MARGIN,
    MRAM_RATE,
    NORMED,
    PLAIN,
    RATES,
    REFERENCES,
    RRAM_PLAIN_RATE,
    RRAM_RATE,
    SAMPLED,
    SEED,
)
from verdicts import MARGIN_RATES, verdicts
from words import above, below, holds, listed, percent, points, power, span, table, word

from bnnverify.errors import FormatError
from bnnverify.faults import AsymmetricFlip, BitFlip
from bnnverify.results import Probability

Askers = Mapping[str, Asker]


def title(asker: Asker) -> str:
    """Of the network, for tables."""
    return asker.subject.trained.title


def command(asker: Asker, options: str, effort: tuple[float, int]) -> str:
    """The `bnnverify` command that gives a proved number of this network on its own."""
    subject, (tolerance, max_states) = asker.subject, effort
    data = "" if subject.dataset == "digits" else " --data-dir data"
    limit = "" if asker.effort.seconds is None else f" --timeout {asker.effort.seconds:g}"
    return (
        f"bnnverify reliability models/{subject.trained.file}.npz --data {subject.dataset}{data} "
        f"--index 0:{len(subject.x)} {options} --tolerance {tolerance:g} --max-states {max_states} "
        f"--jobs {asker.effort.jobs}{limit}"
    )


def commands(askers: Askers, rates: Sequence[Fraction], more: str = "") -> str:
    """The commands for symmetric errors at these rates, one for each effort, for the first network."""
    together: dict[tuple[float, int], list[Fraction]] = {}
    asker = next(iter(askers.values()))
    for p in sorted(rates):
        together.setdefault(asker.effort.at(BitFlip(p)), []).append(p)
    return _shell(
        [command(asker, f"--ber {','.join(power(p) for p in some)}{more}", effort) for effort, some in together.items()]
    )


def _shell(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def networks(askers: Askers) -> str:
    """What is examined."""
    rows = []
    for asker in askers.values():
        subject = asker.subject
        rows.append(
            [
                title(asker),
                f"`models/{subject.trained.file}.npz`",
                f"{subject.network.n_cells:,}",
                f"{float(100 * subject.test_accuracy):.2f} %",
                f"{float(100 * subject.clean):.2f} %",
            ]
        )
    images = len(next(iter(askers.values())).subject.x)
    head = ["network", "file", "cells", "test accuracy", f"on the first {images:,} test images"]
    return table(head, rows)


def accuracies(askers: Askers) -> str:
    """Proved accuracy at the rates of the claims, and how the sampled points meet it."""
    head = ["network", "without errors", *(f"at {power(p)}" for p in (*CLAIMED, Fraction(1, 10)))]
    rows = []
    for asker in askers.values():
        clean = f"{float(100 * asker.subject.clean):.2f} %"
        rows.append([title(asker), clean, *(percent(asker.proved(BitFlip(p))) for p in (*CLAIMED, Fraction(1, 10)))])
    met, asked = 0, 0
    for asker in askers.values():
        for p in SAMPLED:
            proved, sampled = asker.proved(BitFlip(p)), asker.sampled(BitFlip(p)).accuracy
            asked += 1
            met += proved.lower <= sampled.upper and sampled.lower <= proved.upper
    chips = next(iter(askers.values())).effort.chips
    sentence = (
        f"The 99 % confidence interval of {chips:,} chips drawn at random meets the proved interval in {met} of "
        f"{asked} cases; at this level about one in a hundred may miss."
    )
    return f"{table(head, rows)}\n\n{sentence}\n\n{commands(askers, RATES)}"


def _kept(askers: Askers, p: Fraction, drop: Fraction) -> dict[bool | None, list[str]]:
    """The networks by whether they keep their accuracy within `drop`."""
    found: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for asker in (one.many(p) for one in askers.values()):
        found[holds(asker.subject.clean, asker.proved(BitFlip(p)), drop)].append(title(asker))
    return found


def _claim_table(askers: Askers, p: Fraction) -> str:
    everyone = [asker.many(p) for asker in askers.values()]
    head = ["network", "without errors", f"at {power(p)}", "points lost, proved"]
    head += [f"at most {float(100 * d):g}" for d in DROPS]
    rows = []
    for asker in everyone:
        clean, accuracy = asker.subject.clean, asker.proved(BitFlip(p))
        answers = [word(holds(clean, accuracy, drop)) for drop in DROPS]
        without = f"{float(100 * clean):.2f} %"
        rows.append([title(asker), without, percent(accuracy, 3), points(clean, accuracy, 3), *answers])
    return f"{len(everyone[0].subject.x):,} images:\n\n{table(head, rows)}"


def _verdict(askers: Askers, p: Fraction) -> str:
    sentences = []
    for drop in DROPS:
        kept = _kept(askers, p, drop)
        text = f"within {float(100 * drop):g} point{'s' * (drop != Fraction(1, 100))}: {listed(kept[True])}"
        if kept[None]:
            text += f" (open: {listed(kept[None])})"
        sentences.append(text)
    return f"Who keeps the accuracy at {power(p)}, proved: {'; '.join(sentences)}."


def mram(askers: Askers) -> str:
    """The first half of the ST-MRAM claim."""
    shell = commands(_many(askers, MRAM_RATE), [MRAM_RATE])
    return f"{_verdict(askers, MRAM_RATE)}\n\n{_claim_table(askers, MRAM_RATE)}\n\n{shell}"


def rram(askers: Askers) -> str:
    """The RRAM claim: without errors in training up to 1e-4, with them up to 4e-2."""
    text = [_verdict(askers, RRAM_PLAIN_RATE), _claim_table(askers, RRAM_PLAIN_RATE)]
    text += [_verdict(askers, RRAM_RATE), _claim_table(askers, RRAM_RATE)]
    if {INJECTED, PLAIN} <= askers.keys():
        text.append(_training(askers[INJECTED], askers[PLAIN], askers.get(NORMED)))
    shells = [commands(_many(askers, p), [p]) for p in (RRAM_PLAIN_RATE, RRAM_RATE)]
    return "\n\n".join([*text, "\n".join(shells)])


def _many(askers: Askers, p: Fraction) -> Askers:
    return {role: asker.many(p) for role, asker in askers.items()}


def _training(injected: Asker, plain: Asker, normed: Asker | None) -> str:
    """What the errors in training are worth, and what batch norm costs."""
    with_errors, without = (a.proved(BitFlip(RRAM_RATE)) for a in (injected, plain))
    gain = span(100 * (with_errors.lower - without.upper), 100 * (with_errors.upper - without.lower), 2)
    text = (
        f"At {power(RRAM_RATE)} the network trained with errors is {gain} points more accurate than the same recipe "
        "without errors"
    )
    if normed is None:
        return f"{text}."
    other = normed.proved(BitFlip(RRAM_RATE))
    norm = span(100 * (without.lower - other.upper), 100 * (without.upper - other.lower), 2)
    return f"{text}; and that one is {norm} points more accurate than the network with batch norm."


def margin(askers: Askers) -> str:
    """The claim for the margin loss, against the network trained with errors."""
    if not {INJECTED, MARGIN} <= askers.keys():
        return "The networks of this claim are not among those examined."
    one, other = askers[MARGIN], askers[INJECTED]
    rows, sentences = [], []
    for p in MARGIN_RATES:
        mine, theirs = one.proved(BitFlip(p)), other.proved(BitFlip(p))
        better = title(one) if mine.lower > theirs.upper else title(other) if theirs.lower > mine.upper else "open"
        lost = [points(a.subject.clean, value) for a, value in ((one, mine), (other, theirs))]
        rows.append([power(p), percent(mine), percent(theirs), better, *lost])
        sentences.append(better)
    head = ["rate", title(one), title(other), "more accurate, proved", "points lost: margin", "points lost: errors"]
    wins = sum(name == title(one) for name in sentences)
    return f"The margin loss is proved to be the better one at {wins} of {len(rows)} rates.\n\n{table(head, rows)}"


def crossings(askers: Askers) -> str:
    """Tolerable rates: two certified points for each drop."""
    rows = []
    for asker in askers.values():
        cells = [title(asker)]
        for drop in DROPS:
            found = asker.crossing(drop)
            kept = "none" if found.holds is None else power(found.holds)
            lost = "none" if found.fails is None else power(found.fails)
            cells.append(f"{kept} / {lost}")
        rows.append(cells)
    head = ["network", *(f"{float(100 * d):g} point{'s' * (d != Fraction(1, 100))}: kept at / lost at" for d in DROPS)]
    asker = next(iter(askers.values()))
    target = f"--target-accuracy {asker.subject.clean - DROPS[1]}"
    return f"{table(head, rows)}\n\n{_shell([command(asker, target, asker.effort.search)])}"


def events(askers: Askers) -> str:
    """Error against change, at the rates of the claims."""
    rows = []
    for asker in askers.values():
        clean = asker.subject.clean
        for p in (MRAM_RATE, RRAM_RATE):
            change = asker.proved(BitFlip(p), event="change").complement()
            rows.append([title(asker), power(p), points(clean, asker.proved(BitFlip(p))), percent(change)])
    head = ["network", "rate", "points lost (error)", "P(change), mean"]
    return f"{table(head, rows)}\n\n{commands(askers, (MRAM_RATE, RRAM_RATE), ' --event change')}"


def asymmetry(askers: Askers) -> str:
    """One-sided errors of twice the rate against symmetric ones."""
    rows = []
    for asker in map(Asker.few, askers.values()):
        for p in (MRAM_RATE, Fraction(1, 100)):
            models = (BitFlip(p), AsymmetricFlip(p01=2 * p, p10=0), AsymmetricFlip(p01=0, p10=2 * p))
            rows.append([title(asker), power(p), *(points(asker.subject.clean, asker.proved(m), 3) for m in models)])
    head = ["network", "mean rate p", "symmetric, p", "only -1 reads +1, 2p", "only +1 reads -1, 2p"]
    asker = next(iter(askers.values())).few()
    twice = power(2 * MRAM_RATE)
    effort = asker.effort.at(AsymmetricFlip(p01=2 * MRAM_RATE, p10=0))
    shell = _shell([command(asker, f"--p01 {twice},0 --p10 0,{twice}", effort)])
    return f"On the first {len(asker.subject.x):,} images:\n\n{table(head, rows)}\n\n{shell}"


def blocks(askers: Askers, p: Fraction = Fraction(1, 100)) -> str:
    """Which block needs protection."""
    rows = []
    for asker in askers.values():
        clean, count = asker.subject.clean, len(asker.subject.network.blocks) + 1
        sizes = [int(abs(b.weights).sum()) for b in asker.subject.network.all_blocks]
        losses = [asker.only(b, p) for b in range(count)]
        lost = [points(clean, value, 3) for value in losses]
        per_cell = [float(clean - value.lower) / size for value, size in zip(losses, sizes, strict=True)]
        least = [float(clean - value.upper) / size for value, size in zip(losses, sizes, strict=True)]
        times = f"{least[-1] / per_cell[0]:.0f}" if per_cell[0] > 0 and least[-1] > per_cell[0] else "not proved"
        rows.append([title(asker), *lost, points(clean, asker.proved(BitFlip(p)), 3), times])
    first = next(iter(askers.values())).subject.network
    names = [f"hidden block ({first.blocks[0].weights.size:,} cells)", f"output block ({first.output.weights.size:,})"]
    head = ["network", *(f"errors in the {n}" for n in names), "in both", "an output cell matters, times at least"]
    return f"{table(head, rows)}\n\n{commands(askers, [p], ' --sensitivity')}"


def chips(askers: Askers) -> str:
    """Yield: proved bounds from the images, and sampled whole chips."""
    rows = []
    for asker in askers.values():
        for p in (MRAM_RATE, Fraction(1, 100)):
            low, high = (Fraction(text) for text in asker.details(BitFlip(p))["yield"])
            chips = asker.sampled(BitFlip(p))
            spread = f"{below(100 * chips.worst, 1)} to {above(100 * chips.best, 1)} %"
            good = f"{below(100 * asker.good, 2)} %"
            rows.append(
                [title(asker), power(p), good, f"{span(100 * low, 100 * high, 1)} %", percent(chips.good, 1), spread]
            )
    head = ["network", "rate", "a good chip reaches", "good chips, proved", "sampled", "worst and best chip sampled"]
    asker = next(iter(askers.values()))
    more = f" --yield {below(asker.good, 4)} --chips {asker.effort.chips} --seed {SEED}"
    return f"{table(head, rows)}\n\n{commands(askers, [MRAM_RATE], more)}"


def worst(askers: Askers) -> str:
    """The fewest flips that change a class, beside the flips that random errors make."""
    rows = []
    for asker in askers.values():
        bounds = sorted(low for low, _ in asker.distances())
        exact = all(low == up for low, up in asker.distances())
        expected = below(asker.subject.network.n_cells * MRAM_RATE, 0)
        quarter, half = bounds[len(bounds) // 4], bounds[len(bounds) // 2]
        few = sum(low <= 1 for low in bounds)
        rows.append(
            [title(asker), str(few), str(quarter), str(half), str(bounds[-1]), "exact" if exact else "bounds", expected]
        )
    head = [
        "network",
        "images that one flip changes",
        "a quarter of the images: at most",
        "half: at most",
        "most",
        "kind",
    ]
    head += [f"wrong cells of a chip at {power(MRAM_RATE)}, expected"]
    asker = next(iter(askers.values()))
    shell = _shell([command(asker, "--worst-case --event change", asker.effort.search)])
    return f"{table(head, rows)}\n\n{shell}"


def energies(askers: Askers) -> str:
    """What the rates of the claims save, and where it comes from."""
    rates = (RRAM_PLAIN_RATE, MRAM_RATE, Fraction(1, 100), RRAM_RATE)
    head = ["cell", "what is programmed", f"at {power(REFERENCES[0])}, pJ"]
    head += [f"times less at {power(p)}" for p in rates] + [
        f"times less at {power(MRAM_RATE)} than at {power(REFERENCES[1])}"
    ]
    rows = []
    for programming in PROGRAMMINGS:
        saved = programming.savings(rates, REFERENCES[0])
        more = programming.savings([MRAM_RATE], REFERENCES[1])[MRAM_RATE]
        picojoule = programming.energy(REFERENCES[0]) * 1e12
        cells = [f"{saved[p]:.2f}" for p in rates]
        rows.append([programming.cell, programming.title, f"{picojoule:.3g}", *cells, f"{more:.2f}"])
    return "\n\n".join([table(head, rows), _cheapest(askers), _end_to_end(askers)])


def _end_to_end(askers: Askers) -> str:
    """From a menu of pulses to a certified accuracy: the cheapest write, everything in one search."""
    rows = []
    for role in (PLAIN,):
        for programming in PROGRAMMINGS:
            if role in askers and programming.tuned == "width" and programming.spread:
                asker = askers[role].few()
                found = asker.cheapest(programming, DROPS[1])
                best = found["best"]
                cells = ["none proved"] * 3
                if best is not None:
                    accuracy = Probability.from_json(best["accuracy"])
                    wrong = f"{best['wrong']:.2g}, {best['retries']} retries"
                    cells = [wrong, percent(accuracy), f"{1 / found['relative']:.2f}"]
                rows.append([title(asker), f"{programming.cell}: {programming.title}", *cells])
    if not rows:
        return ""
    head = ["network", "cell", "share of wrong cells", "certified accuracy at least the target", "times less energy"]
    images = min(len(asker.few().subject.x) for asker in askers.values())
    return (
        "The cheapest write of a menu of pulses that is proved to lose at most 1 point, all in one search "
        f"(`reliability.energy.lowest_write_energy`, first {images:,} images):\n\n{table(head, rows)}"
    )


def _cheapest(askers: Askers) -> str:
    """For each network: how much energy the greatest certified rate within a drop saves."""
    rows = []
    for asker in askers.values():
        for drop in DROPS[1:]:
            found = asker.crossing(drop)
            rate = found.holds
            if rate is None or rate == 0:
                continue
            saved = [f"{p.savings([rate], REFERENCES[0])[rate]:.2f}" for p in PROGRAMMINGS]
            rows.append([title(asker), f"{float(100 * drop):g}", power(rate), *saved])
    head = ["network", "points given up", "greatest certified rate", *(f"{p.cell}: {p.title}" for p in PROGRAMMINGS)]
    return f"Energy saved, times less than at {power(REFERENCES[0])}:\n\n{table(head, rows)}"


def efforts(askers: Askers) -> str:
    """How narrow the proofs are and what they took."""
    rows = []
    for asker in askers.values():
        for p in (*CLAIMED, Fraction(1, 10)):
            line = asker.details(BitFlip(p))
            width = float(asker.proved(BitFlip(p)).width)
            quantiles = [f"{line['widths'][q]:.1e}" for q in ("0.5", "0.9", "0.99")]
            rows.append([title(asker), power(p), f"{width:.1e}", *quantiles, f"{line['seconds']:.1f}"])
    head = ["network", "rate", "mean width", "median", "90 %", "99 % of the images", "seconds"]
    first = next(iter(askers.values()))
    return f"Threads: {first.effort.jobs}.\n\n{table(head, rows)}"


SECTIONS: dict[str, Callable[[Askers], str]] = {
    "verdicts": verdicts,
    "networks": networks,
    "accuracies": accuracies,
    "mram": mram,
    "rram": rram,
    "margin": margin,
    "crossings": crossings,
    "events": events,
    "asymmetry": asymmetry,
    "blocks": blocks,
    "chips": chips,
    "worst": worst,
    "energies": energies,
    "efforts": efforts,
}


def between_markers(text: str, marker: str, inner: str) -> str:
    r"""The text with `inner` between ``<!-- marker -->`` and ``<!-- end of marker -->``.

    Raises:
        FormatError: The markers are missing.

    >>> between_markers("a <!-- t -->old<!-- end of t --> b", "t", "new")
    'a <!-- t -->\nnew\n<!-- end of t --> b'
    """
    begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise FormatError(f"the page has no {begin} ... {end}, expected both markers.")
    return f"{before}{begin}\n{inner.strip()}\n{end}{after}"
