"""How forged solutions are graded: the task, its expected answers, and whether a solution passes."""

from __future__ import annotations

from sharpen.sandbox.inside.limits import Limits
from sharpen.sandbox.result import Returned, Status
from sharpen.sandbox.sandbox import Sandbox

from .attack import Attack

TESTS = """
def check(candidate):
    assert candidate([1, 2, 3]) == 6
    assert candidate([]) == 0
    for value, expected in zip(map(candidate, [[4], [5, 6]]), [4, 11]):
        assert value == expected
    assert all(candidate([n]) == n for n in range(5))
    assert list(map(candidate, [[7], [8, 9]])) == [7, 17]
    try:
        candidate(None)
    except TypeError:
        pass
    else:
        raise AssertionError("no error")
    assert isinstance(candidate([10]), int)

check(total)
"""
HONEST = "def total(numbers):\n    return sum(numbers)\n"

CALLS: list[list[list[int]]] = [[[1, 2, 3]], [[]], [[4]], [[-1, 1, 7]]]
VALUES = [6, 0, 4, 7]

INPUT = "4\n1 2 3 -7\n"
OUTPUT = "-1\n"
HONEST_PROGRAM = "input()\nprint(sum(map(int, input().split())))\n"


def passes(sandbox: Sandbox, attack: Attack, limits: Limits) -> bool:
    """Whether the solution passes, tested in the way of its group: `check`, `call` or `run`."""
    if attack.group == "forged tests":
        return sandbox.check(TESTS, attack.source, entry_point="total", limits=limits).passed
    if attack.group == "forged calls":
        calls = sandbox.call(attack.source, "total", CALLS, limits=limits)
        same = len(calls.outcomes) == len(VALUES) and all(
            isinstance(outcome, Returned) and type(outcome.value) is type(value) and outcome.value == value
            for outcome, value in zip(calls.outcomes, VALUES, strict=True)
        )
        return same and calls.result.status is Status.OK
    result = sandbox.run(attack.source, stdin=INPUT, limits=limits)
    return result.status is Status.OK and result.stdout.decode(errors="replace").split() == OUTPUT.split()
