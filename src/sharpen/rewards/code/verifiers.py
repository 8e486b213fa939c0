"""Rewards for programs in Python, which run in the sandbox only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sharpen.rewards.code.comparison import Output, same_output, same_value
from sharpen.rewards.code.extraction import CodeSource, as_completion, extract_code
from sharpen.rewards.code.rows import StdinTests, WrappedOutputs, read_tests
from sharpen.rewards.code.running import CORES, Budget, call_tests, compiles, shared_sandbox, stdin_tests
from sharpen.rewards.code.sources import source_text
from sharpen.rewards.verifier import Verifier
from sharpen.sandbox import Isolation, Sandbox, SandboxError
from sharpen.types import Row

_INDENTED = re.compile(r"(?:[ \t]*\r?\n)*[ \t]+\S")


class Code(Verifier):
    """What the rewards for programs have in common.

    ``code_from`` and ``tag`` say where the program stands, see `sharpen.rewards.code.extraction.extract_code`; a
    completion without one is worth 0. With ``continues_prompt`` the program is the text in ``prompt_column`` and what
    the completion adds to it, as a base model does. ``reference_column`` holds a right program, if anything; one that
    begins with an indentation adds to the prompt. Only `reference` reads it.
    """

    code_from: CodeSource = "fence"
    tag: str = Field("answer", min_length=1)
    prompt_column: str | None = "prompt"
    continues_prompt: bool = False
    reference_column: str = "canonical_solution"

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

    def _code(self, completion: str, row: Row) -> str | None:
        """The program, None if the completion gives none. Raises ValueError if the row has no prompt to continue."""
        prompt = source_text(row, self.prompt_column) if self.continues_prompt and self.prompt_column else ""
        code = extract_code(completion, self.code_from, self.tag)
        return None if code is None else prompt + code


class SandboxedCode(Code):
    """What the rewards have in common that run a program, or a part of Python on it.

    One test may take ``test_timeout_s`` and all tests of a program together ``total_timeout_s``, in which waiting for
    the sandbox does not count; ``memory_bytes`` is its address space, ``output_bytes`` what it may print or return. A
    program that goes beyond a limit fails the test. A failure of the sandbox itself is a `SandboxError`, which is
    recorded with the sample: it is no reward of 0. ``isolation`` and ``unsafe`` are those of `sharpen.sandbox.Sandbox`;
    a machine that cannot give this isolation is an error of the settings.
    """

    at_once: ClassVar[int] = CORES

    test_timeout_s: float = Field(5.0, gt=0)
    total_timeout_s: float = Field(30.0, gt=0)
    memory_bytes: int = Field(1 << 30, gt=0)
    output_bytes: int = Field(1 << 20, gt=0)
    isolation: Isolation = Isolation.AUTO
    unsafe: bool = False

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        # Before the first step, and before a model or a secret is in memory: the sandbox's process is started here.
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
    """1 if the program compiles, else 0. Nothing of it is run."""

    name: ClassVar[str] = "code_compiles"

    def __call__(self, completion: str, **row: Any) -> float:
        code = self._code(completion, row)
        return 0.0 if code is None else float(compiles(self._sandbox, code, self._budget()))


class ScoredCode(SandboxedCode):
    """``score`` is ``all``, 1 if all tests pass, else 0; or ``share``, the share of the tests that pass."""

    score: Literal["all", "share"] = "all"

    def _score(self, passed: Iterable[bool], count: int) -> float:
        """The reward for ``count`` tests; with ``all``, none is run after one that fails."""
        return float(all(passed)) if self.score == "all" else sum(passed) / count


class CodeTests(ScoredCode):
    """1 if the program passes tests of input and output, else 0; or the share that it passes.

    ``column`` holds the tests: of a whole program, which reads standard input and prints, or of the function that the
    tests or ``function_column`` name; see `sharpen.rewards.code.rows.read_tests` for the forms, and for
    ``wrapped_outputs``. Only inputs enter the sandbox; what comes out is compared outside, as
    `sharpen.rewards.code.comparison` says: ``output`` and ``tolerance`` for what is printed, ``tuple_is_list``,
    ``int_is_float`` and ``tolerance`` for what a function returns.
    """

    name: ClassVar[str] = "code_tests"

    column: str = "tests"
    function_column: str = "fn_name"
    wrapped_outputs: WrappedOutputs = "never"
    output: Output = "tokens"
    tolerance: float = Field(0.0, ge=0, lt=1)
    tuple_is_list: bool = True
    int_is_float: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, *super().columns)

    def __call__(self, completion: str, **row: Any) -> float:
        tests = read_tests(row, self.column, self.function_column, self.wrapped_outputs)
        code = self._code(completion, row)
        if code is None:
            return 0.0
        if isinstance(tests, StdinTests):
            passed = stdin_tests(self._sandbox, code, tests.tests, self._budget(), self._same_output)
        else:
            passed = call_tests(self._sandbox, code, tests, self._budget(), self._same_value)
        return self._score(passed, len(tests.tests))

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
