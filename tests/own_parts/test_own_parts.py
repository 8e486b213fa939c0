"""What a user adds is short, and the page that shows it shows what is tested."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

MODULES = (
    "own_max_rl",
    "own_task",
    "own_logger",
    "own_engine",
    "own_teacher",
    "own_hint",
    "own_divergence",
    "own_mixed",
)
PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.mark.parametrize("module", MODULES)
def test_a_part_of_ones_own_takes_at_most_40_lines(module: str) -> None:
    assert len(Path(__file__).with_name(f"{module}.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("module", MODULES)
def test_the_page_shows_the_code_that_is_tested(module: str) -> None:
    source = Path(__file__).with_name(f"{module}.py").read_text()
    shown = min(place for start in ("\n\n\nclass ", "\n\n\ndef ") if (place := source.find(start)) >= 0)
    assert textwrap.indent(source[shown:].strip() + "\n", "    ") in PAGE.read_text()
