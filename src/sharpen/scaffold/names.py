"""What columns are called in the wild."""

from __future__ import annotations

from collections.abc import Sequence

PROMPT = ("prompt", "question", "problem", "instruction", "query", "input")
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog")
COMPLETION = ("completion", "response", "output", "demonstration", "target", "answer", "solution")
CHOSEN = ("chosen", "chosen_response", "response_chosen", "preferred")
REJECTED = ("rejected", "rejected_response", "response_rejected", "dispreferred")
WORDS = ("words", "keywords", "required_words")
TESTS = ("tests", "test_cases", "input_output", "unit_tests", "public_tests")
CHECK = ("test", "check", "tests")
ASSERTS = ("test_list", "tests", "asserts", "test_cases", "unit_tests")
SOLUTION_CODE = ("canonical_solution", "code", "reference_solution", "solution", "solutions")

ANSWER = (
    *("answer", "final_answer", "ground_truth", "expected_answer", "reference_answer", "correct_answer"),
    *("expected", "gold", "target", "label", "solution", "output", "response"),
)
"""Columns whose values may be checked against a completion, the likeliest first."""


def first_of(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """The first of ``names`` that is a column."""
    return next((name for name in names if name in columns), None)
