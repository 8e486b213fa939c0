"""Rewards for programs tested by asserts, as in HumanEval and MBPP."""

from __future__ import annotations

import ast
import re
from typing import Any, ClassVar

from sharpen.rewards.code.rows import AssertTest, from_json
from sharpen.rewards.code.running import check_tests
from sharpen.rewards.code.sources import asserted_functions, parsed, source_text
from sharpen.rewards.code.verifiers import ScoredCode
from sharpen.settings import Effect, Name
from sharpen.types import Row

_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(?:(?:\(\))?\.[A-Za-z_]\w*)?", re.ASCII)


class CodeCheck(ScoredCode):
    """1 if the program passes a test function ``check(candidate)``, as in HumanEval, else 0.

    ``column`` holds the source that defines ``check``, and ``entry_point_column`` the candidate: a function or
    ``Class().method``. ``prompt_column`` (null for none) holds the beginning of the program: imports, helper functions
    and the signature of the function. It runs before both the tests and the program.

    Tests and program run in separate processes; the tests only see what the program's functions return. A row has one
    test, so ``share`` equals ``all``.
    """

    name: ClassVar[str] = "code_check"

    column: Name = "test"
    """The column with the source that defines `check`."""
    entry_point_column: Name = "entry_point"
    """The column with the name of the tested function, or `Class().method`."""

    effects = (Effect("score", "with several tests in a row, and rows of code_check have one", lambda s: False),)

    @property
    def columns(self) -> tuple[str, ...]:
        prompt = () if self.prompt_column is None else (self.prompt_column,)
        return (self.column, self.entry_point_column, *prompt)

    def check_row(self, row: Row) -> None:
        super().check_row(row)
        self._test(row)
        self._prompt(row)

    def __call__(self, completion: str, **row: Any) -> float:
        test, prompt = self._test(row), self._prompt(row)
        code = self._code(completion, row)
        if code is None:
            return 0.0
        return self._score(check_tests(self._sandbox, code, [test], prompt, self._budget()), 1)

    def _test(self, row: Row) -> AssertTest:
        source, entry_point = source_text(row, self.column), source_text(row, self.entry_point_column)
        if not any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in parsed(source).body):
            raise ValueError(f"the column {self.column!r} of this row defines no function check")
        if not _ENTRY_POINT.fullmatch(entry_point):
            raise ValueError(
                f"the column {self.entry_point_column!r} of this row must name a function or Class().method, "
                f"not {entry_point!r:.200}"
            )
        return AssertTest(f"{source}\n\ncheck({entry_point})\n", (entry_point.replace("()", ""),))

    def _prompt(self, row: Row) -> str:
        if self.prompt_column is None:
            return ""
        prompt = source_text(row, self.prompt_column)
        parsed(prompt)
        return prompt


class CodeAsserts(ScoredCode):
    """1 if the program passes a list of asserts, as in MBPP, else 0; or the share that it passes.

    ``column`` holds a list of strings, or its JSON text, each an assert that calls functions of the program by name.
    ``setup_column`` holds code to run before them, mostly imports, as a string or a list of strings; it is optional.

    Tests and program run in separate processes; the tests only see what the program's functions return, so objects of
    classes that the program defines cannot be tested.
    """

    name: ClassVar[str] = "code_asserts"

    column: Name = "test_list"
    """The column with the asserts."""
    setup_column: Name = "test_setup_code"
    """The column with code to run before the asserts; rows may lack it."""
    reference_column: Name = "code"
    """The column with a reference solution, for `sharpen reward check`."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, *super().columns)

    @property
    def optional_columns(self) -> tuple[str, ...]:
        return (self.setup_column,)

    def check_row(self, row: Row) -> None:
        super().check_row(row)
        self._tests(row)

    def __call__(self, completion: str, **row: Any) -> float:
        tests = self._tests(row)
        code = self._code(completion, row)
        if code is None:
            return 0.0
        return self._score(check_tests(self._sandbox, code, tests, "", self._budget()), len(tests))

    def _tests(self, row: Row) -> list[AssertTest]:
        lines, setup = row.get(self.column), row.get(self.setup_column) or ""
        if isinstance(lines, str) and lines.lstrip().startswith("["):
            lines = from_json(lines, f"the column {self.column!r} of this row")
        if not isinstance(lines, (list, tuple)) or not lines or not all(isinstance(line, str) for line in lines):
            raise ValueError(f"the column {self.column!r} of this row must be a list of asserts, not {lines!r:.200}")
        if isinstance(setup, (list, tuple)):
            setup = "\n".join(map(str, setup))
        if not isinstance(setup, str):
            raise ValueError(f"the column {self.setup_column!r} of this row must be a string, not {setup!r:.200}")
        return [AssertTest(f"{setup}\n{line}\n", asserted_functions(line, setup)) for line in lines]
