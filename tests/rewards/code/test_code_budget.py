"""The cost of judging one program is linear in its tests and bounded, whatever the program does."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sharpen.rewards.code import running
from sharpen.rewards.code.comparison import same_output
from sharpen.rewards.code.extraction import as_completion
from sharpen.rewards.code.rows import CallTest, CallTests, StdinTest
from sharpen.rewards.code.running import Budget, call_tests, stdin_tests
from sharpen.rewards.code.verifiers import CodeTests
from sharpen.sandbox import Sandbox, zygote
from sharpen.sandbox.inside import plain

ENDING = "import os\ndef f(x):\n    os._exit(0)\n"
# Nearly a MiB of empty sets, which takes more than 0.1 s to decode.
SLOW_TO_DECODE = """
import os, struct
data = b'[true,[' + b'{"set":[]},' * 90_000 + b'0]]'
def f(x):
    left = struct.pack("!I", len(data)) + data
    while left:
        left = left[os.write(3, left):]
    os._exit(0)
"""


def row(tests: int, items: int) -> dict[str, Any]:
    return {"tests": {"inputs": [[list(range(items))]] * tests, "outputs": [1] * tests, "fn_name": "f"}}


@pytest.fixture
def encoded_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of bytes of each value that this process encodes."""
    sizes: list[int] = []
    real = plain.encode

    def counting(value: Any) -> bytes:
        encoded = real(value)
        sizes.append(len(encoded))
        return encoded

    monkeypatch.setattr(plain, "encode", counting)
    return sizes


def test_a_program_that_ends_in_each_call_gets_each_argument_encoded_once(encoded_bytes: list[int]) -> None:
    assert CodeTests(score="share", total_timeout_s=60.0)(as_completion(ENDING), **row(40, 5000)) == 0.0
    arguments = 40 * len("[" + ",".join(map(str, range(5000))) + "]")
    # Besides, of each process: its source and the frame around its arguments.
    assert arguments < sum(encoded_bytes) < arguments + 40 * 200


def test_the_tests_after_one_that_ends_the_program_are_judged_as_if_alone() -> None:
    code = (
        "import os\ncount = 0\ndef f(n):\n    global count\n    count += 1\n    if n % 7 == 3:\n        os._exit(0)\n"
    )
    code += "    return [n, count]\n"
    counts = {**{n: n + 1 for n in range(3)}, **{n: (n - 4) % 7 + 1 for n in range(4, 30)}}
    right = {"inputs": [[n] for n in range(30)], "outputs": [[n, counts.get(n, 0)] for n in range(30)], "fn_name": "f"}
    ended = len([n for n in range(30) if n % 7 == 3])
    assert CodeTests(score="share")(as_completion(code), tests=right) == pytest.approx((30 - ended) / 30)


@pytest.fixture
def no_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that seem to need no time of their own."""
    real = zygote._result
    monkeypatch.setattr(zygote, "_result", lambda *given: dataclasses.replace(real(*given), wall_s=0.0))


@pytest.mark.usefixtures("no_own_time")
def test_starting_processes_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "OVERHEAD_S", 0.5)
    started = time.monotonic()
    assert CodeTests(score="share", total_timeout_s=1.0)(as_completion(ENDING), **row(1000, 1)) == 0.0
    assert time.monotonic() - started < 1.0 + 0.5 + 3.0


@pytest.mark.usefixtures("no_own_time")
def test_decoding_what_a_program_returns_is_part_of_its_time(sandbox_of_this_process: Sandbox) -> None:
    tests = CallTests("f", tuple(CallTest((n,), (1,)) for n in range(60)))
    started = time.thread_time()
    budget = Budget(5.0, 2.0, 1 << 30, 1 << 20)
    passed = list(call_tests(sandbox_of_this_process, SLOW_TO_DECODE, tests, budget, lambda found, value: False))
    assert passed == [False] * 60
    # Its 60 values take far more than the 2 s that it has.
    assert time.thread_time() - started < 2.0 + 1.5


def test_comparing_what_a_program_prints_is_part_of_its_time(sandbox_of_this_process: Sandbox) -> None:
    compared = 0

    def slow(printed: bytes, expected: str) -> bool:
        nonlocal compared
        compared += 1
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            same_output(printed, expected)
        return True

    tests = [StdinTest("", "")] * 20
    budget = Budget(5.0, 1.0, 1 << 30, 1 << 20)
    passed = list(stdin_tests(sandbox_of_this_process, "", tests, budget, slow))
    assert passed == [True] * compared + [False] * (20 - compared)
    assert 1 <= compared <= 4


@pytest.fixture
def sandbox_of_this_process() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made
