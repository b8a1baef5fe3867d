"""What the README shows is what happens: its Python example and its console commands are run and compared.

python -m tests.test_readme     writes what happens now into the README, where that is something else
"""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from bnnverify.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.search(r"```console\n(.*?)```", README, re.DOTALL).group(1)
COMMANDS = re.findall(r"^\$ (bnnverify .*)\n((?:(?!\$ ).*\n)*)", CONSOLE, re.MULTILINE)


def printed(action):
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        action()
    return stdout.getvalue()


def without_times(text):
    """Without the time and the engine that end a row: which one is quickest depends on the machine."""
    lines = [re.sub(r", \d+\.\d+ s\)$", ")", line) for line in text.rstrip().splitlines()]
    return [re.sub(r"(\s+[a-z+]+)?\s+\d+\.\d+ s$", "", line).rstrip() for line in lines]


EXAMPLES = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("code", "shown"), EXAMPLES, ids=["network", "device"])
def test_the_python_examples_print_what_the_readme_shows(code, shown, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert len(code.strip().splitlines()) <= 11
    assert printed(lambda: exec(compile(code, "README.md", "exec"), {})) == shown


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[c[:40] for c, _ in COMMANDS])
def test_console_commands_print_what_the_readme_shows(command, shown, monkeypatch):
    monkeypatch.chdir(ROOT)
    codes = []
    text = printed(lambda: codes.append(main([*shlex.split(command)[1:], "-q"])))
    assert codes == [0]
    assert without_times(text) == without_times(shown)


def test_the_readme_shows_the_verbs_that_ask_and_real_files():
    shown = [command.split()[1] for command, _ in COMMANDS]
    assert shown == ["verify", "count", "count", "explain", "distance", "certify", "reliability", "reliability"]
    for path in re.findall(r"(?:docs|case_studies|models)/[\w./-]+", README):
        assert (ROOT / path).exists(), path


def test_accuracies_of_the_update_rules_are_those_of_the_study():
    lines = (ROOT / "case_studies/training/results.jsonl").read_text(encoding="utf-8").splitlines()
    tests: dict[str, list[float]] = {}
    for record in map(json.loads, lines):
        tests.setdefault(record["name"], []).append(100 * record["accuracy"]["test"])
    rows = re.findall(
        r"^\| `([\w-]+)` (?:\|[^|]*){3}\| ([\d.]+) %(?: \(([\d.]+) to ([\d.]+), (\d) seeds\))? \|", README, re.MULTILINE
    )
    assert len(rows) == 12
    for name, mean, low, high, seeds in rows:
        found = tests[name]
        assert f"{sum(found) / len(found):.2f}" == mean
        assert len(found) == int(seeds or 1)
        assert not seeds or (low, high) == (f"{min(found):.2f}", f"{max(found):.2f}")


def test_accuracies_in_the_readme_are_those_on_the_cards():
    rows = re.findall(r"^\| (digits-[\w-]+) \|.*\| ([\d.]+) % \|$", README, re.MULTILINE)
    assert len(rows) == 11
    for name, percent in rows:
        card = json.loads((ROOT / "models" / f"{name}.json").read_text(encoding="utf-8"))
        assert f"{100 * card['accuracy']['test']:.1f}" == percent


def rewrite():
    """Put what happens now where the README shows something else."""
    text = README
    for code, shown in EXAMPLES:
        text = text.replace(
            f"{code}```\n\n```text\n{shown}", f"{code}```\n\n```text\n{printed(lambda c=code: exec(c, {}))}"
        )
    for command, shown in COMMANDS:
        now = printed(lambda c=command: main([*shlex.split(c)[1:], "-q"]))
        if without_times(now) != without_times(shown):
            end = "\n" if shown.endswith("\n\n") else ""
            text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{now.rstrip()}\n{end}", 1)
    (ROOT / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
