"""Runs programs against their tests, in a sandbox that all code verifiers share."""

from __future__ import annotations

import atexit
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sharpen.rewards.code.rows import AssertTest, CallTests, StdinTest
from sharpen.sandbox import EncodedCalls, Isolation, Limits, Returned, Sandbox, Status
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


OVERHEAD_S = 30.0
"""How long the tests of a program may take beyond their total time, for starting processes on a busy machine."""


class Budget:
    """The remaining time for the tests of one program, and the limits for the next test.

    Two bounds hold. The program's own time, with the processor time that this process needs to send its input and to
    decode and compare its output, is at most ``total_timeout_s``. All that passes until the last verdict is at most
    `OVERHEAD_S` more, except for the comparison of what one process returned, which is at most ``output_bytes`` long.
    """

    def __init__(self, test_timeout_s: float, total_timeout_s: float, memory_bytes: int, output_bytes: int) -> None:
        self._test_timeout_s = test_timeout_s
        self._own_left_s = total_timeout_s
        self._deadline = time.monotonic() + total_timeout_s + OVERHEAD_S
        self._memory_bytes = memory_bytes
        self._output_bytes = output_bytes

    def spend(self, wall_s: float) -> None:
        """Subtract a program's own time, as the sandbox measured it: starting its process does not count."""
        self._own_left_s -= wall_s

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Subtract the processor time of this thread, which depends on what the program returns."""
        started = time.thread_time()
        try:
            yield
        finally:
            self._own_left_s -= time.thread_time() - started

    def of_one_test(self) -> Limits | None:
        """The limits of a process for one test; None if no time is left."""
        left_s = self._left_s()
        return self._limits(min(self._test_timeout_s, left_s), None) if left_s > 0 else None

    def of_many_tests(self) -> Limits | None:
        """The limits of a process for all remaining tests; None if no time is left."""
        left_s = self._left_s()
        return self._limits(left_s, self._test_timeout_s) if left_s > 0 else None

    def _left_s(self) -> float:
        return min(self._own_left_s, self._deadline - time.monotonic())

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
    limits = budget.of_one_test()
    return limits is not None and sandbox.run(_COMPILE, stdin=code, limits=limits).status is Status.OK


def stdin_tests(
    sandbox: Sandbox, code: str, tests: Sequence[StdinTest], budget: Budget, same: Callable[[bytes, str], bool]
) -> Iterator[bool]:
    """For each test, whether a fresh run of the program exits with 0 and prints the expected output."""
    for test in tests:
        limits = budget.of_one_test()
        if limits is None:
            yield False
            continue
        with budget.spending():
            result = sandbox.run(code, stdin=test.stdin, limits=limits)
            budget.spend(result.wall_s)
            passed = result.status is Status.OK and same(result.stdout, test.stdout)
        yield passed


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
    count = len(tests.tests)
    with EncodedCalls([test.arguments for test in tests.tests]) as calls:
        first = 0
        while first < count:
            limits = budget.of_many_tests()
            if limits is None:
                yield from [False] * (count - first)
                return
            with budget.spending():
                called = sandbox.call_from(code, function, calls, first, limits=limits)
            budget.spend(called.result.wall_s)
            for test, outcome in zip(tests.tests[first:], called.outcomes, strict=False):
                with budget.spending():
                    passed = isinstance(outcome, Returned) and any(same(outcome.value, value) for value in test.values)
                yield passed
            first += len(called.outcomes)
            if first < count:
                yield False
                first += 1


def check_tests(
    sandbox: Sandbox, code: str, tests: Sequence[AssertTest], preamble: str, budget: Budget
) -> Iterator[bool]:
    """For each test, whether it runs to its last line. It calls the program's functions in another process.

    Raises `sharpen.sandbox.TestsError` for a test or a preamble that no program could pass.
    """
    for test in tests:
        limits = budget.of_one_test()
        if limits is None:
            yield False
            continue
        with budget.spending():
            verdict = sandbox.check(test.source, code, entry_point=test.functions, preamble=preamble, limits=limits)
        budget.spend(max(verdict.tests.wall_s, verdict.candidate.wall_s))
        yield verdict.passed
