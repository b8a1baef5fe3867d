"""The pages under docs: their Python sessions print what they show, and their links lead somewhere."""

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_sessions_print_what_they_show_and_links_lead_somewhere(page):
    assert doctest.testfile(str(page), module_relative=False).failed == 0
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_benchmark_and_test_that_a_page_names_exists():
    for page in PAGES:
        for path in re.findall(r"(?:case_studies|tests|models)/[\w./-]+\.\w+", page.read_text(encoding="utf-8")):
            assert (DOCS.parent / path).exists(), f"{page.name}: {path}"
