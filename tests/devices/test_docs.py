"""The page on devices runs as it is written."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def test_the_examples_of_the_page_give_what_it_says():
    results = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert results.attempted > 15 and results.failed == 0
