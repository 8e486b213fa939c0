"""Rewards for programs that are tested by asserts, as HumanEval's and MBPP's."""

from __future__ import annotations

import ast
from typing import Any, ClassVar

from sharpen.rewards.code import TestedCode
from sharpen.rewards.code_rows import asserted_function, parsed
from sharpen.rewards.code_running import check_tests
from sharpen.rewards.verifier import reference_text
from sharpen.types import Row


class CodeCheck(TestedCode):
    """1 if the program passes a test function ``check(candidate)``, as in HumanEval, else 0.

    ``column`` holds the source that defines ``check``, ``entry_point_column`` the name of the function that it is
    called with. ``prompt_column``, null for none, holds the beginning of a program: imports, helper functions and the
    head of the function itself. It is run before the tests and before the program; with ``continues_prompt`` the
    program goes on where it ends, as what a base model writes.

    Tests and program run in two processes, and the tests see of the program only what its functions return. There is
    one test for each row, so that ``share`` is ``all``.
    """

    name: ClassVar[str] = "code_check"

    column: str = "test"
    entry_point_column: str = "entry_point"
    prompt_column: str | None = "prompt"
    continues_prompt: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(c for c in (self.column, self.entry_point_column, self.prompt_column) if c is not None)

    def __call__(self, completion: str, **row: Any) -> float:
        tests, entry_point = reference_text(row, self.column), reference_text(row, self.entry_point_column)
        if not any(isinstance(n, ast.FunctionDef) and n.name == "check" for n in parsed(tests).body):
            raise ValueError(f"the column {self.column!r} of this row defines no function check")
        prompt = self._prompt(row)
        code = self._code(completion)
        if code is None:
            return 0.0
        if self.continues_prompt:
            code = prompt + code
        passed = check_tests(
            self._sandbox, code, [f"{tests}\n\ncheck({entry_point})\n"], entry_point, prompt, self._budget()
        )
        return self._score(passed, 1)

    def _prompt(self, row: Row) -> str:
        if self.prompt_column is None:
            return ""
        prompt = reference_text(row, self.prompt_column)
        parsed(prompt)
        return prompt

    def _reference_code(self, row: Row) -> str | None:
        code = super()._reference_code(row)
        # HumanEval's solutions are the rest of the function that the prompt begins.
        if code is not None and code[0].isspace() and not self.continues_prompt:
            return self._prompt(row) + code
        return code


class CodeAsserts(TestedCode):
    """1 if the program passes a list of asserts, as in MBPP, else 0; or the share that it passes.

    ``column`` holds the list of texts, each an assert that calls the function by its name. ``setup_column`` holds what
    they need before them, imports for the most part; a row may lack it. ``entry_point_column`` names the column with
    the function's name; by default it is the one function that the asserts call.

    Tests and program run in two processes, and the tests see of the program only what its functions return: classes
    that the program defines cannot be tested.
    """

    name: ClassVar[str] = "code_asserts"

    column: str = "test_list"
    setup_column: str = "test_setup_code"
    entry_point_column: str | None = None
    reference_column: str = "code"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(c for c in (self.column, self.entry_point_column) if c is not None)

    def __call__(self, completion: str, **row: Any) -> float:
        asserts, setup = self._asserts(row), str(row.get(self.setup_column) or "")
        if self.entry_point_column is None:
            entry_point = asserted_function(asserts, setup)
        else:
            entry_point = reference_text(row, self.entry_point_column)
        code = self._code(completion)
        if code is None:
            return 0.0
        sources = [f"{setup}\n{line}\n" for line in asserts]
        passed = check_tests(self._sandbox, code, sources, entry_point, "", self._budget())
        return self._score(passed, len(asserts))

    def _asserts(self, row: Row) -> list[str]:
        given = row.get(self.column)
        if not isinstance(given, (list, tuple)) or not given or not all(isinstance(line, str) for line in given):
            raise ValueError(f"the column {self.column!r} of this row must be a list of asserts, not {given!r:.200}")
        for line in given:
            if not any(isinstance(node, ast.Assert) for node in ast.walk(parsed(line))):
                raise ValueError(f"{line!r:.200} in the column {self.column!r} of this row asserts nothing")
        return list(given)
