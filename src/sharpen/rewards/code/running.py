"""Runs programs against their tests, in a sandbox that all code verifiers share."""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from sharpen.rewards.code.rows import AssertTest, CallTests, StdinTest
from sharpen.sandbox import Isolation, Limits, Returned, Sandbox, Status
from sharpen.system.processors import available_processors

CORES = available_processors()

_HAS_SOLUTION = re.compile(r"^class Solution\b", re.MULTILINE)
_COMPILE = 'import sys; compile(sys.stdin.buffer.read().decode(), "program.py", "exec", dont_inherit=True)'


@lru_cache
def shared_sandbox(isolation: Isolation, unsafe: bool) -> Sandbox:
    """This process's sandbox; starts with the first program and closes at exit."""
    sandbox = Sandbox(isolation, unsafe=unsafe)
    atexit.register(sandbox.close)
    return sandbox


class Budget:
    """The remaining time for the tests of one program, and the limits for the next test."""

    def __init__(self, test_timeout_s: float, total_timeout_s: float, memory_bytes: int, output_bytes: int) -> None:
        self._test_timeout_s = test_timeout_s
        self._left_s = total_timeout_s
        self._memory_bytes = memory_bytes
        self._output_bytes = output_bytes

    @property
    def is_spent(self) -> bool:
        return self._left_s <= 0

    def spend(self, wall_s: float) -> None:
        # Measured by the sandbox, so that waiting for a free core does not count.
        self._left_s -= wall_s

    def of_one_test(self) -> Limits:
        return self._limits(min(self._test_timeout_s, self._left_s), None)

    def of_many_tests(self) -> Limits:
        return self._limits(self._left_s, self._test_timeout_s)

    def _limits(self, wall_s: float, call_s: float | None) -> Limits:
        return Limits(
            wall_s=wall_s,
            cpu_s=wall_s * CORES,  # threads of one program may use all cores
            call_s=call_s,
            memory_bytes=self._memory_bytes,
            output_bytes=self._output_bytes,
        )


def compiles(sandbox: Sandbox, code: str, budget: Budget) -> bool:
    """Whether the program compiles; tried in the sandbox, as the compiler can run out of stack and memory."""
    result = sandbox.run(_COMPILE, stdin=code, limits=budget.of_one_test())
    return result.status is Status.OK


def stdin_tests(
    sandbox: Sandbox, code: str, tests: Sequence[StdinTest], budget: Budget, same: Callable[[bytes, str], bool]
) -> Iterator[bool]:
    """For each test, whether a fresh run of the program exits with 0 and prints the expected output."""
    for test in tests:
        if budget.is_spent:
            yield False
            continue
        result = sandbox.run(code, stdin=test.stdin, limits=budget.of_one_test())
        budget.spend(result.wall_s)
        yield result.status is Status.OK and same(result.stdout, test.stdout)


def call_tests(
    sandbox: Sandbox, code: str, tests: CallTests, budget: Budget, same: Callable[[Any, Any], bool]
) -> Iterator[bool]:
    """For each test, whether the function returns the expected value.

    The program runs once for all tests. If it terminates during a test, that test fails, and the program is started
    again for the rest. If it defines ``class Solution``, the function is a method of it.
    """
    function = tests.function
    if "." not in function and _HAS_SOLUTION.search(code):
        function = f"Solution.{function}"
    left = list(tests.tests)
    while left:
        if budget.is_spent:
            yield from [False] * len(left)
            return
        called = sandbox.call(code, function, [test.arguments for test in left], limits=budget.of_many_tests())
        budget.spend(called.result.wall_s)
        for test, outcome in zip(left, called.outcomes, strict=False):
            yield isinstance(outcome, Returned) and any(same(outcome.value, value) for value in test.values)
        del left[: len(called.outcomes)]
        if left:
            yield False
            del left[0]


def check_tests(
    sandbox: Sandbox, code: str, tests: Sequence[AssertTest], preamble: str, budget: Budget
) -> Iterator[bool]:
    """For each test, whether it runs to its last line. It calls the program's functions in another process.

    Raises `sharpen.sandbox.TestsError` for a test or a preamble that no program could pass.
    """
    for test in tests:
        if budget.is_spent:
            yield False
            continue
        limits = budget.of_one_test()
        verdict = sandbox.check(test.source, code, entry_point=test.functions, preamble=preamble, limits=limits)
        budget.spend(max(verdict.tests.wall_s, verdict.candidate.wall_s))
        yield verdict.passed
