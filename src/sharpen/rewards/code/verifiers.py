"""Rewards for Python programs. Programs run only in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sharpen.rewards.code.comparison import Output, same_output, same_value
from sharpen.rewards.code.extraction import CodeSource, as_completion, extract_code
from sharpen.rewards.code.rows import CallTests, StdinTests, WrappedOutputs, read_tests
from sharpen.rewards.code.running import CORES, Budget, call_tests, compiles, shared_sandbox, stdin_tests
from sharpen.rewards.code.sources import source_text
from sharpen.rewards.verifier import Verifier
from sharpen.sandbox import Isolation, Sandbox, SandboxError
from sharpen.settings import Effect, Name, Seconds
from sharpen.types import Row

_INDENTED = re.compile(r"(?:[ \t]*\r?\n)*[ \t]+\S")


class Code(Verifier):
    """The base of all rewards for programs.

    ``code_from`` and ``tag`` say where the program is, see `sharpen.rewards.code.extraction.extract_code`; a completion
    without a program scores 0. With ``continues_prompt`` the program is the text in ``prompt_column`` followed by the
    completion, as a base model writes it. ``reference_column`` may hold a reference solution; one that starts indented
    continues the prompt. Only `reference` reads it.
    """

    code_from: CodeSource = "fence"
    """Where the program is: in the last fenced block, between tags, or the whole completion."""
    tag: Name = "answer"
    """The name of the tags around the program."""
    prompt_column: Name | None = "prompt"
    """The column with the beginning of the program; null: none."""
    continues_prompt: bool = False
    """Whether the program is the text in `prompt_column` followed by the completion."""
    reference_column: Name = "canonical_solution"
    """The column with a reference solution, for `sharpen reward check`."""

    effects = (Effect("tag", "with code_from tags", lambda s: s.code_from == "tags"),)

    @model_validator(mode="after")
    def _has_prompt(self) -> Self:
        if self.continues_prompt and self.prompt_column is None:
            raise ValueError("continues_prompt needs a prompt_column")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.prompt_column,) if self.continues_prompt and self.prompt_column is not None else ()

    def reference(self, row: Row) -> str | None:
        code = row.get(self.reference_column)
        if isinstance(code, (list, tuple)):
            code = code[0] if code else None
        if not isinstance(code, str) or not code.strip():
            return None
        if _INDENTED.match(code) and self.prompt_column is not None and not self.continues_prompt:
            code = source_text(row, self.prompt_column) + code
        return as_completion(code, self.code_from, self.tag)

    def check_row(self, row: Row) -> None:
        self._beginning(row)

    def _beginning(self, row: Row) -> str:
        """What the completion continues. Raises ValueError if the row has no prompt to continue."""
        return source_text(row, self.prompt_column) if self.continues_prompt and self.prompt_column else ""

    def _code(self, completion: str, row: Row) -> str | None:
        """The program; None if the completion has none."""
        prompt = self._beginning(row)
        code = extract_code(completion, self.code_from, self.tag)
        return None if code is None else prompt + code


class SandboxedCode(Code):
    """The base of rewards that run or compile a program.

    A test may take ``test_timeout_s``, and all tests of a program together ``total_timeout_s``: its own time, and the
    time to send its input and to decode and compare its output. The wait for a sandbox does not count, nor does the
    start of processes, up to `sharpen.rewards.code.running.OVERHEAD_S`. ``memory_bytes`` limits the address space,
    ``output_bytes`` what the program may print or return. A program that exceeds a limit fails the test. A failure of
    the sandbox itself is a `SandboxError`, which is recorded with the sample instead of a reward of 0. ``isolation``
    and ``unsafe`` are those of `sharpen.sandbox.Sandbox`; if the machine cannot provide the isolation, the settings are
    invalid.
    """

    at_once: ClassVar[int] = CORES

    test_timeout_s: Seconds = 5.0
    """Time limit of one test in seconds."""
    total_timeout_s: Seconds = 30.0
    """Time limit of all tests of a program in seconds, not counting the wait for a sandbox and its start."""
    memory_bytes: int = Field(1 << 30, gt=0)
    """Limit of a program's address space."""
    output_bytes: int = Field(1 << 20, gt=0)
    """Limit of what a program may print or return."""
    isolation: Isolation = Isolation.AUTO
    """How programs are isolated from the machine; auto: the strongest level that it supports."""
    unsafe: bool = False
    """Run programs without isolation if the machine does not support the level."""

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        # Start the sandbox process here: before the first step, and before models or secrets are in memory.
        try:
            self._sandbox.isolation  # noqa: B018
        except SandboxError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def _sandbox(self) -> Sandbox:
        return shared_sandbox(self.isolation, self.unsafe)

    def _budget(self) -> Budget:
        return Budget(self.test_timeout_s, self.total_timeout_s, self.memory_bytes, self.output_bytes)


class CodeCompiles(SandboxedCode):
    """1 if the program compiles, else 0. It is not run."""

    name: ClassVar[str] = "code_compiles"

    def __call__(self, completion: str, **row: Any) -> float:
        code = self._code(completion, row)
        return 0.0 if code is None else float(compiles(self._sandbox, code, self._budget()))


class ScoredCode(SandboxedCode):
    """``score`` is ``all``, 1 if all tests pass, else 0; or ``share``, the share of tests that pass."""

    score: Literal["all", "share"] = "all"
    """all: 1 if all tests pass, else 0. share: the share of tests that pass."""

    def _score(self, passed: Iterable[bool], count: int) -> float:
        """The reward for ``count`` tests; ``all`` stops at the first failure."""
        return float(all(passed)) if self.score == "all" else sum(passed) / count


class CodeTests(ScoredCode):
    """1 if the program passes tests of input and output, else 0; or the share that it passes.

    ``column`` holds the tests: either of a whole program, which reads standard input and prints, or of the function
    named by the tests or by ``function_column``; see `sharpen.rewards.code.rows.read_tests` for the formats and
    ``wrapped_outputs``. Only inputs enter the sandbox; outputs are compared outside it, see
    `sharpen.rewards.code.comparison`: printed output by ``output`` and ``tolerance``, returned values by
    ``tuple_is_list``, ``int_is_float`` and ``tolerance``.
    """

    name: ClassVar[str] = "code_tests"

    column: Name = "tests"
    """The column with the tests."""
    function_column: Name = "fn_name"
    """The column with the name of the tested function; rows without it test the whole program."""
    wrapped_outputs: WrappedOutputs = "never"
    """Whether each expected output is wrapped in a list, as in APPS and TACO; either accepts both."""
    output: Output = "tokens"
    """How printed output is compared: by its words, regardless of white space, or exactly."""
    tolerance: float = Field(0.0, ge=0, lt=1)
    """How much two numbers may differ, absolutely or relative to the larger."""
    tuple_is_list: bool = True
    """Whether a returned tuple equals a list."""
    int_is_float: bool = False
    """Whether a returned integer equals a float."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, *super().columns)

    @property
    def optional_columns(self) -> tuple[str, ...]:
        return (self.function_column,)

    def check_row(self, row: Row) -> None:
        super().check_row(row)
        self._tests(row)

    def __call__(self, completion: str, **row: Any) -> float:
        tests = self._tests(row)
        code = self._code(completion, row)
        if code is None:
            return 0.0
        if isinstance(tests, StdinTests):
            passed = stdin_tests(self._sandbox, code, tests.tests, self._budget(), self._same_output)
        else:
            passed = call_tests(self._sandbox, code, tests, self._budget(), self._same_value)
        return self._score(passed, len(tests.tests))

    def _tests(self, row: Row) -> StdinTests | CallTests:
        return read_tests(row, self.column, self.function_column, self.wrapped_outputs)

    def _same_output(self, printed: bytes, expected: str) -> bool:
        return same_output(printed, expected, self.output, self.tolerance)

    def _same_value(self, found: Any, expected: Any) -> bool:
        return same_value(
            found,
            expected,
            tuple_is_list=self.tuple_is_list,
            int_is_float=self.int_is_float,
            tolerance=self.tolerance,
        )
