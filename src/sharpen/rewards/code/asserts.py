"""Rewards for programs that are tested by asserts, as HumanEval's and MBPP's."""

from __future__ import annotations

import ast
import re
from typing import Any, ClassVar

from sharpen.rewards.code.rows import AssertTest
from sharpen.rewards.code.running import check_tests
from sharpen.rewards.code.sources import asserted_functions, parsed, source_text
from sharpen.rewards.code.verifiers import ScoredCode
from sharpen.types import Row

_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(?:(?:\(\))?\.[A-Za-z_]\w*)?", re.ASCII)


class CodeCheck(ScoredCode):
    """1 if the program passes a test function ``check(candidate)``, as in HumanEval, else 0.

    ``column`` holds the source that defines ``check``; ``entry_point_column`` what it is called with, a function or
    ``Class().method``. ``prompt_column``, null for none, holds the beginning of a program: imports, helper functions
    and the head of the function itself. It runs before the tests and before the program.

    Tests and program run in two processes, and the tests see of the program only what its functions return. A row has
    one test, so that ``share`` is ``all``.
    """

    name: ClassVar[str] = "code_check"

    column: str = "test"
    entry_point_column: str = "entry_point"

    @property
    def columns(self) -> tuple[str, ...]:
        prompt = () if self.prompt_column is None else (self.prompt_column,)
        return (self.column, self.entry_point_column, *prompt)

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

    ``column`` holds the list of texts, each an assert that calls functions of the program by their names.
    ``setup_column`` holds what they need before them, imports for the most part, as a text or a list of texts; a row
    may lack it.

    Tests and program run in two processes, and the tests see of the program only what its functions return: objects of
    classes that the program defines cannot be tested.
    """

    name: ClassVar[str] = "code_asserts"

    column: str = "test_list"
    setup_column: str = "test_setup_code"
    reference_column: str = "code"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, *super().columns)

    def __call__(self, completion: str, **row: Any) -> float:
        tests = self._tests(row)
        code = self._code(completion, row)
        if code is None:
            return 0.0
        return self._score(check_tests(self._sandbox, code, tests, "", self._budget()), len(tests))

    def _tests(self, row: Row) -> list[AssertTest]:
        lines, setup = row.get(self.column), row.get(self.setup_column) or ""
        if not isinstance(lines, (list, tuple)) or not lines or not all(isinstance(line, str) for line in lines):
            raise ValueError(f"the column {self.column!r} of this row must be a list of asserts, not {lines!r:.200}")
        if isinstance(setup, (list, tuple)):
            setup = "\n".join(map(str, setup))
        if not isinstance(setup, str):
            raise ValueError(f"the column {self.setup_column!r} of this row must be a text, not {setup!r:.200}")
        return [AssertTest(f"{setup}\n{line}\n", asserted_functions(line, setup)) for line in lines]
