"""All pairs of options of a verb: each pair is honoured, or refused before any work.

The test of a verb says how each of its options is used (`Use`); the options themselves come from the click command, so
a new one without a use fails. Every pair is run in this process. It is *refused* with exit code 2, one line that names
one of the options, and nothing printed, written or asked; or it is *honoured*: with each of the two options the output
differs from that without it, whatever the other one is. What the output should be, the verb's own `judge` says.
"""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from itertools import combinations
from pathlib import Path

import click

from bnnverify.cli import main

_VARYING = {"seconds", "command", "versions", "statistics", "version"}  # keys of JSON lines that differ from run to run
_TIMES = re.compile(r"[0-9.]+(e-[0-9]+)? s\b|[0-9.]+ (kB|bytes)|[0-9,]+ bytes")
_DRAWN = (".svg", ".png", ".html", ".pdf", ".pt")  # files whose bytes may differ from run to run


@dataclass(frozen=True)
class Use:
    """One way to use an option.

    Attributes:
        words: As on the command line: the option with its value, or the value of an argument.
        needs: Words of other options without which this one says nothing.
        effect: True: what is printed or written is another than without it. False: nothing changes (resources, progress
            bars). None: either may be.
        alone: False: without another option it is refused, here at least.
    """

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    effect: bool | None = True
    alone: bool = True


def use(text: str, needs: str = "", effect: bool | None = True, alone: bool = True) -> Use:
    """A use from plain text."""
    return Use(tuple(text.split()), tuple(needs.split()), effect, alone)


@dataclass(frozen=True)
class Outcome:
    """What a command did, without times."""

    code: int
    out: str
    err: str
    files: Mapping[str, object]
    worked: bool

    @property
    def seen(self) -> object:
        """What an option can change."""
        return self.code, self.out, self.files


@dataclass
class Pairs:
    """The pairs of one verb.

    Attributes:
        verb: Words of the verb, such as ``("count",)`` or ``("diagram", "pick")``.
        uses: Parameter, by click's name, to its uses. Every parameter of the verb is here.
        base: From the names of the parameters in use to the words that a complete command still takes.
        folder: Where commands run; what they write is taken away after each.
        patch: pytest's monkeypatch.
        work: Dotted functions that only run once the options are checked.
        judge: Called with the options of every command that is honoured, as click parses them, and its outcome; asserts
            that it is right.
        unseen: (option, in the presence of) -> why it rightly changes nothing there.
    """

    verb: tuple[str, ...]
    uses: Mapping[str, Sequence[Use]]
    base: Callable[[frozenset[str]], Sequence[str]]
    folder: Path
    patch: object
    work: Sequence[str] = ()
    judge: Callable[[Mapping[str, object], Outcome], None] | None = None
    unseen: Mapping[tuple[str, str], str] = field(default_factory=dict)
    _known: dict[tuple[str, ...], Outcome] = field(default_factory=dict)
    _judgements: set[tuple[str, ...]] = field(default_factory=set)
    _worked: bool = False

    def check(self) -> None:
        """Asserts what the head of this file says."""
        parameters = {p.name: p for p in command_of(self.verb).params}
        missing = sorted(set(parameters) - set(self.uses))
        assert not missing, f"no use is given for {missing} of {' '.join(self.verb)}"
        unknown = sorted(set(self.uses) - set(parameters))
        assert not unknown, f"{' '.join(self.verb)} has no parameters {unknown}"
        self.patch.chdir(self.folder)
        for target in self.work:
            self._watch(target)
        single = [(name, one) for name, uses in self.uses.items() for one in uses]
        faults = [fault for name, one in single for fault in self._alone(name, one, parameters[name])]
        assert not faults, "\n".join(faults)
        for (a, one), (b, other) in combinations(single, 2):
            quick = one == self.uses[a][0] and other == self.uses[b][0]
            if a != b and (quick or False not in (one.effect, other.effect)):  # resources: one use of each is enough
                faults += self._pair(a, one, b, other)
        assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)

    def run(self, words: Sequence[str]) -> Outcome:
        """Runs a command, once for all."""
        words = tuple(words)
        if words not in self._known:
            before = _snapshot(self.folder)
            out, err = io.StringIO(), io.StringIO()
            self._worked = False
            with redirect_stdout(out), redirect_stderr(err):
                code = main(words)
            after = _snapshot(self.folder)
            files = {name: _content(self.folder / name) for name in after if after[name] != before.get(name)}
            files |= dict.fromkeys(set(before) - set(after), "removed")
            self._known[words] = Outcome(code, _plain(out.getvalue()), err.getvalue(), files, self._worked)
            _restore(self.folder, before)
        return self._known[words]

    def _watch(self, target: str) -> None:
        module, _, name = target.rpartition(".")
        original = getattr(import_module(module), name)

        def watched(*args, **options):
            self._worked = True
            return original(*args, **options)

        self.patch.setattr(target, watched)

    def _command(self, *chosen: tuple[str, Use], bare: bool = False) -> tuple[str, ...]:
        """The words of a complete command."""
        own = {name for name, _ in chosen}
        needed = {} if bare else {name: group for _, one in chosen for name, group in self._needed(one).items()}
        base = self.base(frozenset({*own, *needed}))
        words = [word for name, group in needed.items() if name not in own for word in group]
        return (*self.verb, *base, *words, *(word for _, one in chosen for word in one.words))

    def _needed(self, one: Use) -> dict[str, tuple[str, ...]]:
        return {self._name_of(group[0]): group for group in _groups(one.needs)}

    def _name_of(self, option: str) -> str:
        return next(p.name for p in command_of(self.verb).params if option in (*p.opts, *p.secondary_opts))

    def _alone(self, name: str, one: Use, parameter: click.Parameter) -> list[str]:
        """Faults of an option by itself, and of one that is given twice."""
        words = self._command((name, one))
        found, without = self.run(words), self.run(self._command(("", Use((), one.needs))))
        if not one.alone:
            return [] if _is_refusal(found, _names(one)) else [f"{' '.join(words)}: not refused: {found}"]
        faults = [f"{' '.join(words)}: exit {found.code} {found.err}"] if found.code not in (0, 1, 3) else []
        if not faults and one.effect is not None and (found.seen != without.seen) != one.effect:
            faults.append(f"{' '.join(words)}: {'changes nothing' if one.effect else 'changes the output'}")
        if not faults:
            faults += self._judged(words, found)
        if isinstance(parameter, click.Option) and not parameter.multiple and not parameter.is_flag:
            twice = self.run((*words, *one.words))
            if not _is_refusal(twice, _names(one)):
                faults.append(f"{' '.join((*words, *one.words))}: exit {twice.code}, expected a refusal. {twice.err}")
        return faults

    def _pair(self, a: str, one: Use, b: str, other: Use) -> list[str]:
        """Faults of two options together, with what they need and without."""
        faults = []
        for bare in (False, True) if one.needs or other.needs else (False,):
            words = self._command((a, one), (b, other), bare=bare)
            found, text = self.run(words), " ".join(words)
            if found.code == 2:
                if not _is_refusal(found, _names(one) | _names(other)):
                    faults.append(f"{text}: refused late or without a name: {found}")
                continue
            if found.code not in (0, 1, 3):
                faults.append(f"{text}: exit {found.code} {found.err}")
                continue
            for (name, mine), (beside, rest) in (((a, one), (b, other)), ((b, other), (a, one))):
                if mine.effect is None or (name, beside) in self.unseen or name in self._needed(rest):
                    continue
                both = Use(rest.words, () if bare else (*mine.needs, *rest.needs))
                without = self.run(self._command((beside, both), bare=bare))
                if without.code != 2 and (found.seen != without.seen) != mine.effect:
                    what = "has no effect" if mine.effect else "changes the output"
                    faults.append(f"{text}: {' '.join(mine.words)} {what}")
            faults += self._judged(words, found)
        return faults

    def _judged(self, words: Sequence[str], found: Outcome) -> list[str]:
        """What the verb's own test says against an outcome."""
        if self.judge is None or words in self._judgements:
            return []
        self._judgements.add(words)
        command = command_of(self.verb)
        options = command.make_parser(click.Context(command)).parse_args(list(words[len(self.verb) :]))[0]
        try:
            self.judge(options, found)
        except AssertionError as error:
            return [f"{' '.join(words)}: wrong: {(str(error).splitlines() or ['judge'])[0]}"]
        return []


def command_of(verb: Sequence[str]) -> click.Command:
    """The click command of a verb."""
    from bnnverify.cli import cli

    context, found = click.Context(cli), cli
    for word in verb:
        found = found.get_command(context, word)
    return found


def _is_refusal(found: Outcome, names: set[str]) -> bool:
    """True if a command was refused before any work, in one line that names one of its options."""
    silent = found.code == 2 and not found.out and not found.files and not found.worked
    lines = found.err.splitlines()
    one_line = len(lines) == 1 or "--debug" in names
    return silent and one_line and any(name.strip("-") in lines[-1] for name in names)


def _names(one: Use) -> set[str]:
    """The names by which a message can call an option or argument."""
    words = [word for word in (*one.words, *one.needs) if word.startswith("-")]
    return set(words) if one.words[0].startswith("-") else {*one.words, "PROPERTY", "MODEL"}


def _groups(words) -> list[tuple[str, ...]]:
    """Options with their values."""
    groups: list[tuple[str, ...]] = []
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-[0-9.]+", word):
            groups.append((word,))
        else:
            groups[-1] += (word,)
    return groups


def _plain(text: str) -> str:
    """Output without what differs from run to run."""
    return "\n".join(_line(line) for line in text.splitlines())


def _line(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return " ".join(_TIMES.sub("", text).split())
    return json.dumps(_settled(value), sort_keys=True)


def _settled(value: object) -> object:
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items() if key not in _VARYING}
    return [_settled(inner) for inner in value] if isinstance(value, list) else value


def _snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, and every folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def _content(path: Path) -> object:
    if path.is_dir() or path.suffix in _DRAWN:
        return "there"
    data = path.read_bytes()
    if path.suffix == ".csv":
        return [
            {k: v for k, v in row.items() if k not in _VARYING} for row in csv.DictReader(data.decode().splitlines())
        ]
    try:
        return _plain(data.decode())
    except UnicodeDecodeError:
        return data


def _restore(folder: Path, before: Mapping[str, bytes | None]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if str(path.relative_to(folder)) not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, data in before.items():
        if data is not None and (not (folder / name).is_file() or (folder / name).read_bytes() != data):
            (folder / name).write_bytes(data)
