import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from rewards.conftest import make_group
from sharpen.errors import RewardError
from sharpen.rewards.code import verifiers as code_module
from sharpen.rewards.code.extraction import as_completion
from sharpen.rewards.code.verifiers import CodeCompiles, CodeTests
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.registry import resolve_reward
from sharpen.sandbox import EncodedCalls, Sandbox, SandboxError

SUMS = [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5\n", "output": "9\n"}, {"input": "-1 1\n", "output": "0\n"}]
ADDING = "print(sum(map(int, input().split())))"


def judge(code: str, row: dict[str, Any], **settings: Any) -> float:
    return CodeTests(**{"test_timeout_s": 5.0, **settings})(as_completion(code), **row)


@pytest.mark.parametrize(
    ("code", "all_pass", "share"),
    [
        (ADDING, 1.0, 1.0),
        ("a, b = map(int, input().split())\nprint(abs(a) + b)", 0.0, 2 / 3),
        ("print(3)", 0.0, 1 / 3),
        ("print(" + "'3'" + ")\nraise SystemExit(1)", 0.0, 0.0),
        (ADDING + "\nraise SystemExit(0)", 1.0, 1.0),
        (ADDING + "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)", 1.0, 1.0),
        (ADDING + "\n1 / 0", 0.0, 0.0),
        (ADDING.replace("print", "print(0, end='') or print"), 0.0, 0.0),
        ("print(", 0.0, 0.0),
        ("if __name__ == '__main__':\n    " + ADDING, 1.0, 1.0),
    ],
)
def test_a_program_that_reads_and_prints(code: str, all_pass: float, share: float) -> None:
    assert judge(code, {"tests": SUMS}) == all_pass
    assert judge(code, {"tests": SUMS}, score="share") == pytest.approx(share)


def test_how_output_is_compared_is_a_setting() -> None:
    row = {"tests": [{"input": "", "output": "a  b\n0.5"}]}
    assert judge("print('a b 0.5')", row) == 1.0
    assert judge("print('a b 0.5')", row, output="exact") == 0.0
    assert judge("print('a b 0.501')", row) == 0.0
    assert judge("print('a b 0.501')", row, tolerance=0.01) == 1.0


@pytest.mark.parametrize(
    ("code", "share"),
    [
        ("def f(x):\n    return x + 1", 1.0),
        ("class Solution:\n    def f(self, x):\n        return x + 1", 1.0),
        ("f = lambda x: x + 1", 1.0),
        ("def f(x):\n    print('noise')\n    return x + 1", 1.0),
        ("def f(x):\n    return x + 1.0", 0.0),
        ("def f(x):\n    return 2", 1 / 3),
        ("def f(x):\n    return 4 // (3 - x)", 1 / 3),
        ("import os\ndef f(x):\n    return os._exit(0) if x == 2 else x + 1", 2 / 3),
        ("def f(x):\n    while x == 2: pass\n    return x + 1", 2 / 3),
        ("def f(x):\n    return [0] * (1 << 40) if x == 2 else x + 1", 2 / 3),
        ("def f(x):\n    return 'y' * (1 << 21) if x == 2 else x + 1", 2 / 3),
        ("def g(x):\n    return x + 1", 0.0),
        ("def f():\n    return 2", 0.0),
        ("1 / 0", 0.0),
    ],
)
def test_a_function_that_returns(code: str, share: float) -> None:
    row = {"tests": {"inputs": [[1], [2], [3]], "outputs": [2, 3, 4], "fn_name": "f"}}
    assert judge(code, row, score="share", test_timeout_s=0.7) == pytest.approx(share)
    assert judge(code, row, test_timeout_s=0.7) == float(share == 1)


def test_how_values_are_compared_is_a_setting() -> None:
    row = {"tests": {"inputs": [[]], "outputs": [[1, 0.5]], "fn_name": "f"}}
    assert judge("f = lambda: (1, 0.5)", row) == 1.0
    assert judge("f = lambda: (1, 0.5)", row, tuple_is_list=False) == 0.0
    assert judge("f = lambda: [1.0, 0.5]", row) == 0.0
    assert judge("f = lambda: [1.0, 0.5]", row, int_is_float=True) == 1.0
    assert judge("f = lambda: [1, 0.5001]", row, tolerance=0.001) == 1.0
    wrapped = {"tests": {"inputs": [[]], "outputs": [[1]], "fn_name": "f"}}
    assert [judge("f = lambda: 1", wrapped, wrapped_outputs=w) for w in ("never", "always", "either")] == [0, 1, 1]


def test_a_program_beyond_its_limits_fails() -> None:
    one = {"tests": [{"input": "", "output": "x"}]}
    assert judge("print('x')", one) == 1.0
    assert judge("print('x', flush=True)\nwhile True: pass", one, test_timeout_s=0.5) == 0.0
    assert judge("x = bytearray(1 << 29)\nprint('x')", one, memory_bytes=1 << 28) == 0.0
    assert judge("print('x' + ' ' * 2000)", one, output_bytes=1000) == 0.0


# One integer of 800,000 bits and sixty decimals of its hash: comparing them takes a minute.
COLLIDING = """
import os, struct
number = 2**800_000 - 1
decimals = ",".join('{"Decimal":"%d"}' % (hash(number) + n * (2**61 - 1)) for n in range(60))
data = b'[true,{"set":[{"int":"%x"},%s]}]' % (number, decimals.encode())
def f(n):
    if n == 1:
        return 1
    left = struct.pack("!I", len(data)) + data
    while left:
        left = left[os.write(3, left):]
"""


def test_what_a_program_returns_holds_nobody_up_and_fails_its_own_test_only() -> None:
    tests = [{"input": [n], "output": 1} for n in (1, 2)]
    started = time.thread_time()
    assert judge(COLLIDING, {"tests": tests, "fn_name": "f"}, score="share") == 1 / 2
    assert time.thread_time() - started < 2


def test_all_tests_together_have_a_limit() -> None:
    row = {"tests": [{"input": "", "output": "x"}] * 4}
    code = "import time\ntime.sleep(0.8)\nprint('x')"
    assert judge(code, row, score="share", total_timeout_s=1.5) == 0.25


def test_only_inputs_enter_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for owner, name in ((Sandbox, "run"), (Sandbox, "call_from"), (EncodedCalls, "__init__")):
        real = getattr(owner, name)

        def spied(*arguments: Any, real: Any = real, **keywords: Any) -> Any:
            seen.append(repr((arguments, keywords)))
            return real(*arguments, **keywords)

        monkeypatch.setattr(owner, name, spied)
    judge("print(1)", {"tests": [{"input": "question", "output": "SECRET"}]})
    judge("def f(x): return x", {"tests": {"inputs": [["question"]], "outputs": ["SECRET"], "fn_name": "f"}})
    assert ["question" in call for call in seen] == [True, True, False]
    assert not any("SECRET" in call for call in seen)


def test_a_failure_of_the_sandbox_is_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Sandbox):
        def run(self, *arguments: Any, **keywords: Any) -> Any:
            raise SandboxError("the sandbox's process is dead")

    monkeypatch.setattr(code_module, "shared_sandbox", lambda *_: Broken())
    ((score,),) = FunctionReward(CodeTests()).score([make_group([as_completion(ADDING)], tests=SUMS)])
    assert score.total is None
    assert score.error is not None
    assert "SandboxError: the sandbox's process is dead" in score.error


def test_a_machine_without_isolation_is_an_error_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing(Sandbox):
        @property
        def isolation(self) -> Any:
            raise SandboxError("this machine cannot isolate programs")

    monkeypatch.setattr(code_module, "shared_sandbox", lambda *_: Missing())
    with pytest.raises(RewardError, match=r"reward 'code_tests': .*this machine cannot isolate programs"):
        resolve_reward("code_tests")


def test_a_row_without_sense_is_an_error_whatever_the_completion() -> None:
    for completion in ("no code", as_completion(ADDING)):
        with pytest.raises(ValueError, match="'tests' of this row is empty"):
            CodeTests()(completion, tests=[])


def test_no_program_is_worth_nothing() -> None:
    assert CodeTests()("no code", tests=SUMS) == 0.0
    assert CodeTests(code_from="whole")(ADDING, tests=SUMS) == 1.0
    assert CodeTests(code_from="tags", tag="code")(f"<code>{ADDING}</code>", tests=SUMS) == 1.0


def test_several_completions_at_once() -> None:
    verifier = CodeTests()
    completions = [as_completion(f"print({n})") for n in range(24)]
    row = {"tests": [{"input": "", "output": "7"}]}
    with ThreadPoolExecutor(4) as threads:
        rewards = list(threads.map(lambda completion: verifier(completion, **row), completions))
    assert rewards == [float(n == 7) for n in range(24)]


@pytest.mark.parametrize(
    ("code", "reward"),
    [
        ("x = 1", 1.0),
        ("1 / 0", 1.0),
        ("import os\nos._exit(1)", 1.0),
        ("x = ", 0.0),
        ("return 1", 0.0),
        ("x = '\0'", 0.0),
        ("def f():\nreturn 1", 0.0),
        ("(" * 10_000 + ")" * 10_000, 0.0),
        ("x = " + "-" * 100_000 + "1", 0.0),
    ],
)
def test_compiling(code: str, reward: float) -> None:
    assert CodeCompiles()(as_completion(code)) == reward


def test_the_reference_is_the_column_of_right_programs() -> None:
    verifier = CodeTests(reference_column="solutions")
    for row in ({"solutions": [ADDING, "x"]}, {"solutions": ADDING}):
        reference = verifier.reference(row)
        assert reference is not None
        assert verifier(reference, tests=SUMS) == 1.0
    assert [verifier.reference(row) for row in ({}, {"solutions": None}, {"solutions": []}, {"solutions": " "})] == [
        None
    ] * 4


def test_a_completion_may_continue_the_prompt() -> None:
    verifier = CodeTests(code_from="whole", continues_prompt=True, prompt_column="start")
    assert verifier.columns == ("tests", "start")
    assert verifier(" + 1)", tests=SUMS[:1], start="print(len(input()) - 1") == 1.0
    assert CodeCompiles(code_from="whole", continues_prompt=True)("    return 1", prompt="def f():\n") == 1.0
    for row in ({}, {"start": ["a", "list"]}):
        with pytest.raises(ValueError, match="the column 'start' of this row must be a string"):
            verifier("x", tests=SUMS, **row)
    # A right program that is the rest of the prompt's needs the prompt, where it stands alone.
    row = {"prompt": "def f():\n", "canonical_solution": "    return 1\n"}
    for compiling in (CodeCompiles(), CodeCompiles(code_from="whole", continues_prompt=True)):
        reference = compiling.reference(row)
        assert reference is not None
        assert compiling(reference, **row) == 1.0


def test_by_name_with_settings() -> None:
    reward = resolve_reward({"name": "code_tests", "score": "share", "isolation": "auto"})
    ((score,),) = reward.score([make_group([as_completion("print(3)")], tests=SUMS)])
    assert score.total == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"score": "some"},
        {"code_from": "box"},
        {"test_timeout_s": 0},
        {"tolerance": -1},
        {"output": "lines"},
        {"isolation": "vm"},
        {"isolation": "none"},
        {"column": 5},
        {"continues_prompt": True, "prompt_column": None},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CodeTests(**settings)
