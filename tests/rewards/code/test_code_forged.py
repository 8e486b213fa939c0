"""Forged solutions, each through every way of testing."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.code.forged_programs import ADDING, FORGED
from sharpen.rewards.code.asserts import CodeAsserts, CodeCheck
from sharpen.rewards.code.extraction import as_completion
from sharpen.rewards.code.verifiers import CodeTests, ScoredCode

LIMITS = {"test_timeout_s": 1.0, "total_timeout_s": 2.0, "memory_bytes": 1 << 28}
CHECK = "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(10, -4) == 6\n"
STYLES: dict[str, tuple[type[ScoredCode], dict[str, Any], str]] = {
    "stdin": (
        CodeTests,
        {"tests": [{"input": "2 3\n", "output": "5\n"}, {"input": "10 -4\n", "output": "6\n"}]},
        "\nprint(add(*map(int, input().split())))\n",
    ),
    "call": (CodeTests, {"tests": {"inputs": [[2, 3], [10, -4]], "outputs": [5, 6], "fn_name": "add"}}, ""),
    "check": (CodeCheck, {"test": CHECK, "entry_point": "add", "prompt": "import math\n"}, ""),
    "asserts": (CodeAsserts, {"test_list": ["assert add(2, 3) == 5", "assert add(10, -4) == 6"]}, ""),
}


def scorer(kind: type[ScoredCode]) -> ScoredCode:
    """With a share of the tests as the score where a row has several, so that one test forged would be seen."""
    return kind(**LIMITS) if kind is CodeCheck else kind(**LIMITS, score="share")


@pytest.mark.parametrize("style", STYLES)
def test_a_right_program_passes(style: str) -> None:
    kind, row, ending = STYLES[style]
    assert scorer(kind)(as_completion(ADDING + ending), **row) == 1.0


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", FORGED)
def test_a_forged_program_gets_nothing(style: str, name: str) -> None:
    kind, row, ending = STYLES[style]
    assert scorer(kind)(as_completion(FORGED[name] + ending), **row) == 0.0
