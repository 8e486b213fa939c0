"""Tests written as code: the candidate is in another process and can only answer."""

import pytest

from sharpen.sandbox import Limits, Sandbox, Status, TestsError

HONEST = "def total(numbers):\n    return sum(numbers)\n"


def test_the_right_candidate_passes_and_the_wrong_one_does_not(sandbox: Sandbox) -> None:
    tests = "assert total([1, 2]) == 3\nassert total([]) == 0\n"
    right = sandbox.check(tests, HONEST, entry_point="total")
    assert (right.passed, right.reason) == (True, "")
    wrong = sandbox.check(tests, "def total(numbers):\n    return 3", entry_point="total")
    assert (wrong.passed, wrong.reason) == (False, "AssertionError:  (line 2)")


def test_tests_in_the_way_of_human_eval_call_helpers_of_the_prompt(sandbox: Sandbox) -> None:
    preamble = "import math\n\ndef encode(text):\n    return text[::-1]\n\ndef decode(text):\n    'Undo encode.'\n"
    tests = (
        "def check(candidate):\n    for t in ('abc', ''):\n        assert candidate(encode(t)) == t\n\ncheck(decode)"
    )
    candidate = "def decode(text):\n    return encode(text)"
    assert sandbox.check(tests, candidate, entry_point="decode", preamble=preamble).passed
    assert not sandbox.check(
        tests, "def decode(text):\n    return text", entry_point="decode", preamble=preamble
    ).passed


def test_an_exception_of_a_builtin_class_reaches_the_tests_as_such(sandbox: Sandbox) -> None:
    tests = (
        "try:\n    f(1)\nexcept ValueError as error:\n    assert (type(error), error.args) == (ValueError, ('no', 2))\n"
        "else:\n    assert False\n"
        "try:\n    f(2)\nexcept KeyError as error:\n    assert error.args == ('k',)\nelse:\n    assert False\n"
        "try:\n    f(3)\nexcept LookupError as error:\n    pass\nelse:\n    assert False\n"
    )
    candidate = (
        "class Own(LookupError):\n    pass\n"
        "def f(n):\n    if n == 1:\n        raise ValueError('no', 2)\n    if n == 2:\n        {}['k']\n    raise Own"
    )
    verdict = sandbox.check(tests, candidate, entry_point="f")
    assert verdict.passed, verdict.reason


def test_an_answer_that_is_no_plain_data_is_no_exception_that_tests_expect(sandbox: Sandbox) -> None:
    tests = "try:\n    f()\nexcept (ValueError, TypeError, LookupError, ArithmeticError):\n    pass\n"
    assert not sandbox.check(tests, "def f():\n    return object()", entry_point="f").passed


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)", "raise KeyboardInterrupt", "os.abort()"])
def test_not_even_tests_that_catch_everything_are_passed_by_an_end(sandbox: Sandbox, ending: str) -> None:
    tests = "try:\n    f()\nexcept:\n    pass\n"
    assert sandbox.check(tests, "def f():\n    raise ValueError", entry_point="f").passed
    assert not sandbox.check(tests, f"import os, sys\ndef f():\n    {ending}", entry_point="f").passed


def test_tests_that_leave_early_have_not_passed(sandbox: Sandbox) -> None:
    verdict = sandbox.check("import sys\nsys.exit(0)\nassert f() == 1", "def f():\n    return 2", entry_point="f")
    assert not verdict.passed


def test_the_candidate_does_not_see_the_tests(sandbox: Sandbox) -> None:
    candidate = (
        "import gc\ndef f():\n    return [s for d in gc.get_objects() if isinstance(d, dict)"
        " for s in d.values() if isinstance(s, str) and 'token-' in s]"
    )
    assert sandbox.check("token = 'token-' + 'of-tests'\nassert f() == []", candidate, entry_point="f").passed


def test_a_change_of_an_argument_does_not_reach_the_tests(sandbox: Sandbox) -> None:
    tests = "x = [1, 2]\nf(x)\nassert x == [1, 2]"
    assert sandbox.check(tests, "def f(x):\n    x.clear()", entry_point="f").passed


def test_several_functions_and_methods_can_be_called(sandbox: Sandbox) -> None:
    candidate = "def f():\n    return 1\ndef g(x):\n    return x\nclass C:\n    def h(self, *, k):\n        return k"
    tests = "assert f() == 1 and g(2) == 2\nassert C().h(k=3) == 3"
    assert sandbox.check(tests, candidate, entry_point=["f", "g", "C.h"]).passed


def test_an_answer_that_would_be_slow_to_decode_is_an_error_of_the_candidate(sandbox: Sandbox) -> None:
    candidate = "def f(n):\n    return {k * (2**61 - 1) for k in range(n)}"
    tests = (
        "assert f(64) == {k * (2**61 - 1) for k in range(64)}\n"
        "try:\n    f(65)\nexcept Exception as error:\n    said = repr(error)\n"
        "assert said.startswith('CandidateError') and 'same hash' in said, said\n"
        "assert f(1) == {0}\n"
    )
    verdict = sandbox.check(tests, candidate, entry_point="f")
    assert verdict.passed, verdict.reason


def test_a_candidate_out_of_time_fails_and_is_named(sandbox: Sandbox) -> None:
    verdict = sandbox.check("f()", "def f():\n    while True: pass", entry_point="f", limits=Limits(wall_s=1))
    assert not verdict.passed
    assert Status.TIMEOUT in (verdict.candidate.status, verdict.tests.status)
    assert "timeout" in verdict.reason


def test_a_candidate_that_goes_on_does_not_hold_up_the_verdict(sandbox: Sandbox) -> None:
    candidate = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ndef f():\n    return 1"
    )
    verdict = sandbox.check("assert f() == 1", candidate, entry_point="f", limits=Limits(wall_s=30))
    assert verdict.passed
    assert verdict.candidate.status is Status.CANCELLED
    assert verdict.candidate.wall_s < 10


@pytest.mark.parametrize(
    ("tests", "preamble", "said"),
    [
        ("assert f(", "", "SyntaxError"),
        ("f()", "1 / 0", "ZeroDivisionError"),
        ("f(lambda: 1)", "", "not plain data"),
    ],
)
def test_tests_that_cannot_be_used_are_no_failure_of_the_candidate(
    sandbox: Sandbox, tests: str, preamble: str, said: str
) -> None:
    with pytest.raises(TestsError, match=said):
        sandbox.check(tests, "def f(*x):\n    return 1", entry_point="f", preamble=preamble)
