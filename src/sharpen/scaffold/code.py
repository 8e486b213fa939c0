"""Which reward tests the programs that rows ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.errors import DataError
from sharpen.rewards.code.rows import read_tests
from sharpen.scaffold.names import ASSERTS, CHECK, SOLUTION_CODE, TESTS, first_of
from sharpen.scaffold.part import Part

REFERENCE_COLUMN = {"code_asserts": "code", "code_check": "canonical_solution", "code_tests": "canonical_solution"}
"""The defaults of the rewards' setting."""


def code_reward(part: Part) -> dict[str, Any] | None:
    """The reward for these rows' tests, as a recipe has it; None if they have none.

    Raises DataError for tests in a form that no reward reads.
    """
    for column in (name for name in CHECK if name in part.columns):
        if "entry_point" in part.columns and _all(part, column, lambda value: "def check(" in str(value)):
            return _with(part, "code_check", column, "test")
    for column in (name for name in ASSERTS if name in part.columns):
        if _all(part, column, _is_asserts):
            return _with(part, "code_asserts", column, "test_list")
    tests = first_of(TESTS, part.columns)
    return None if tests is None else _of_pairs(part, tests)


def _of_pairs(part: Part, column: str) -> dict[str, Any]:
    if "def check(" in str(part.rows[0].get(column)):
        raise DataError(f"{part.rows.name}: column `{column}` calls a candidate; name it in a column `entry_point`")
    for place, row in zip(part.places, part.rows, strict=True):
        try:
            read_tests(row, column, "fn_name", "never")
        except ValueError as error:
            raise DataError(
                f"{place}: {error}. Tests of a program are pairs of input and output, a list of asserts, or a "
                "function check(candidate): docs/rewards.md has their forms"
            ) from error
    return _with(part, "code_tests", column, "tests")


def _with(part: Part, name: str, column: str, usual: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"name": name}
    if column != usual:
        settings["column"] = column
    solution = first_of((REFERENCE_COLUMN[name], *SOLUTION_CODE), part.columns)
    if solution not in (None, REFERENCE_COLUMN[name]):
        settings["reference_column"] = solution
    return settings


def columns_of(reward: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """What a reward for programs reads, and for what."""
    name = reward["name"]
    usual = {"code_check": "test", "code_asserts": "test_list", "code_tests": "tests"}[name]
    uses = {reward.get("column", usual): f"tests of the program, read by `{name}`"}
    uses |= {
        "entry_point": "the function that is tested",
        "test_setup_code": "run before the asserts",
        "fn_name": "the function that is tested",
    }
    uses[reward.get("reference_column", REFERENCE_COLUMN[name])] = "a right program, for checks of the reward"
    return {column: use for column, use in uses.items() if column in columns}


def _all(part: Part, column: str, holds: Any) -> bool:
    return all(holds(row.get(column)) for row in part.rows)


def _is_asserts(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(line, str) and "assert" in line for line in value)
    )
