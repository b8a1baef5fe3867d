"""VNN-LIB 1.0 properties (``.vnnlib`` or ``.vnnlib.gz``): a box over the inputs X and comparisons of the outputs Y.

A property describes counterexamples. Understood are declarations of real X_i and Y_j and assertions made of ``and``,
``or`` and comparisons: of an X_i with a number, and of two Y_j. Altogether they must amount to cases, each a box and
comparisons that hold together; each case, or several over one box, becomes a `Query`, and the property is
satisfiable iff one of these is not robust. Numbers are read as the decimal fractions that they are.

References:
    Guidotti, Demarchi, Tacchella, Pulina, "The verification of neural networks library (VNN-LIB)", 2019;
    Brix et al., "First three years of the international verification of neural networks competition (VNN-COMP)",
    STTT 2023, for the form of the files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from bnnverify import reading
from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.vnnlibcases import Case, Cases, Ends
from bnnverify.formats.vnnlibtext import EXPECTED, VnnlibText
from bnnverify.network import BinaryNetwork, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import RealBox

TOGETHER = 2**16  # inputs of the boxes that are looked at together


@dataclass(frozen=True, slots=True)
class Specification:
    """What a VNN-LIB file says: a counterexample is an input for which one of the cases holds.

    Attributes:
        where: The path, for messages.
        n_inputs: Declared X.
        n_outputs: Declared Y.
        cases: Some, unless the assertions contradict each other.
    """

    where: str
    n_inputs: int
    n_outputs: int
    cases: Cases

    def coding(self) -> InputCoding:
        """Integers in the range of pixels, 0 to 255, or in a wider one if a box needs it.

        Raises:
            UnsupportedError: The boxes are so narrow that the inputs are no pixels 0 to 255.
        """
        lower, upper = self.cases.hull() if self.cases.count else ([], [])
        low, high = math.floor(min(lower, default=0)), math.ceil(max(upper, default=255))
        if lower and high - low <= 4 and any(v.denominator > 1 for ends in (lower, upper) for v in ends):
            raise UnsupportedError(
                f"{self.where}: the inputs lie between {low} and {high}, expected pixels 0 to 255. Say what an integer "
                "step of an input is worth: InputCoding.integers(0, 255, scale=Fraction(1, 255)) "
                "(--input-range 0 255 --input-scale 1/255)."
            )
        return InputCoding.integers(min(low, 0), max(high, 255))

    def queries(self, imported: Imported) -> Iterable[Query]:
        """Questions of which one is not robust iff the property is satisfiable; none if no input can fulfil it.

        Where a case compares some outputs only, the network of its question has these classes only. Few questions are
        a tuple; many are made one after the other, while somebody asks for them.

        Raises:
            UnsupportedError: A case compares outputs in a way that is no question about a class.
            FormatError: The property is about another number of inputs or outputs.
            QueryError: A box lies outside the input range.
        """
        network = imported.network
        if imported.open_zero:
            raise UnsupportedError(
                f"{self.where}: is about real inputs, which can make the first sign of the model 0, expected a sign "
                "that is never 0 (Sign -> Add 0.1 -> Sign). Say what it means: zero_sign=1 (--zero-sign plus)."
            )
        for what, declared, expected in (
            ("inputs", self.n_inputs, network.n_inputs),
            ("outputs", self.n_outputs, imported.n_outputs),
        ):
            if declared != expected:
                raise FormatError(
                    f"{self.where}: declares {declared} {what}, but the model has {expected}, expected the "
                    "same. Give the property of this model."
                )
        if imported.gives != "scores":
            raise UnsupportedError(
                f"{self.where}: compares scores, but the model gives one number for each input, its {imported.gives}, "
                "expected a model that gives a score for each class."
            )
        if network.domain.is_binary:
            raise UnsupportedError(f"{self.where}: is about real inputs, but the network was read with -1/+1 inputs.")
        found = self._questions(imported)
        return tuple(found) if self.cases.boxes <= self._together else found

    @property
    def _together(self) -> int:
        """Boxes that are looked at together, to ask one question about all cases of one box."""
        return max(16, TOGETHER // self.n_inputs)

    def _questions(self, imported: Imported) -> Iterator[Query]:
        for several in _by_box(self.cases, self._together):
            for cases in several:
                box = _box(cases[0].lower, cases[0].upper, imported)
                for (loser, strict), group in _by_loser(case for case in cases if _is_single(case)).items():
                    yield _untargeted(imported.network, box, loser, strict, group)
                for case in cases:
                    if not _is_single(case):
                        yield _targeted(imported.network, box, case, self.where)


def load(path: str | os.PathLike[str]) -> Specification:
    """The property in the file at `path`.

    Raises:
        FormatError: It cannot be read, or is malformed; the message has the line and the column.
        UnsupportedError: It says something that is not understood; likewise.
    """
    where = reading.shown(path)
    data = reading.read_unpacked(path, EXPECTED, limit=reading.TEXT_LIMIT)
    return Specification(where, *VnnlibText(where, reading.text_of(data, where, EXPECTED)).cases())


def _is_single(case: Case) -> bool:
    return len(case.comparisons) == 1


def _by_box(cases: Iterable[Case], most: int) -> Iterator[list[list[Case]]]:
    """Cases with the same box together, for up to `most` boxes at a time."""
    found: dict[tuple[Ends, Ends], list[Case]] = {}
    known: tuple[Ends, Ends] | None = None
    for case in cases:
        if known is None or case.lower is not known[0] or case.upper is not known[1]:  # to hash a box takes long
            known = case.lower, case.upper
            if known not in found and len(found) == most:
                yield list(found.values())
                found = {}
            group = found.setdefault(known, [])
        group.append(case)
    yield list(found.values())


def _by_loser(cases: Iterator[Case]) -> dict[tuple[int, bool], set[int]]:
    """(output that loses, strictness) -> outputs that may win."""
    found: dict[tuple[int, bool], set[int]] = {}
    for case in cases:
        (comparison,) = case.comparisons
        found.setdefault((comparison.loser, comparison.strict), set()).add(comparison.winner)
    return found


def _box(lower: Sequence[Fraction], upper: Sequence[Fraction], imported: Imported) -> RealBox:
    """A box over X as one over the inputs of the network."""
    coding, order = imported.coding, imported.order.tolist()
    ends = []
    for values in (lower, upper):
        moved = values if coding.offset == 0 else [v - coding.offset for v in values]
        scaled = moved if coding.scale == 1 else [v / coding.scale for v in moved]
        ends.append([scaled[i] for i in order])
    if coding.scale < 0:
        ends.reverse()
    return RealBox(tuple(ends[0]), tuple(ends[1]))


def _restricted(network: BinaryNetwork, classes: Sequence[int]) -> BinaryNetwork:
    """The network with some of its classes only."""
    if len(classes) == network.n_classes:
        return network
    rows, output = list(classes), network.output
    weights = output.weights[rows]
    scale, bias = [output.scale[k] for k in rows], [output.bias[k] for k in rows]
    kept = OutputBlock.create(weights, scale=scale, bias=bias, mask=weights != 0)
    return BinaryNetwork(network.domain, network.blocks, kept, network.provenance, network.input_coding)


def _untargeted(network: BinaryNetwork, box: RealBox, loser: int, strict: bool, winners: set[int]) -> Query:
    classes = sorted({loser, *winners})
    ties = Ties.ROBUST if strict else Ties.COUNTEREXAMPLE
    return Query(_restricted(network, classes), box, Untargeted(classes.index(loser)), ties)


def _targeted(network: BinaryNetwork, box: RealBox, case: Case, where: str) -> Query:
    winners, strict = {c.winner for c in case.comparisons}, {c.strict for c in case.comparisons}
    if not winners:
        raise UnsupportedError(
            f"{where}:{case.line}: every input of the box is a counterexample, since no outputs are compared, expected "
            "a comparison such as (>= Y_1 Y_0)."
        )
    if len(winners) != 1 or len(strict) != 1:
        raise UnsupportedError(
            f"{where}:{case.line}: a counterexample must fulfil {len(case.comparisons)} comparisons of outputs "
            "together that are not one output against others, expected such."
        )
    (winner,) = winners
    classes = sorted({winner, *(c.loser for c in case.comparisons)})
    ties = Ties.ROBUST if strict.pop() else Ties.COUNTEREXAMPLE
    return Query(_restricted(network, classes), box, Targeted(classes.index(winner)), ties)
