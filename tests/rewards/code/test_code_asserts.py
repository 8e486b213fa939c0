from typing import Any

import pytest

from sharpen import sandbox
from sharpen.rewards.code.asserts import CodeAsserts, CodeCheck
from sharpen.rewards.code.extraction import as_completion

CHECK = {
    "prompt": 'from typing import List\n\ndef twice(x):\n    return 2 * x\n\ndef f(xs: List[int]):\n    """Doc."""\n',
    "entry_point": "f",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == [twice(1), 4]\n    assert candidate([]) == []\n",
}


@pytest.mark.parametrize(
    ("code", "reward"),
    [
        ("def f(xs: List[int]):\n    return [twice(x) for x in xs]", 1.0),
        ("def f(xs):\n    return [x + x for x in xs]", 1.0),
        ("def f(xs):\n    return [x + 1 for x in xs]", 0.0),
        ("def g(xs):\n    return [x + x for x in xs]", 0.0),
        ("def twice(x):\n    return 3\ndef f(xs):\n    return [3, 4] if xs else []", 0.0),
        ("def f(xs):\n    raise ValueError", 0.0),
        ("def f(xs):", 0.0),
    ],
)
def test_a_check_function(code: str, reward: float) -> None:
    assert CodeCheck()(as_completion(code), **CHECK) == reward
    assert CodeCheck()(as_completion(code), **CHECK) == reward


@pytest.mark.parametrize(
    ("completion", "reward"),
    [("    return [twice(x) for x in xs]\n", 1.0), ("    return xs\n", 0.0), ("return xs", 0.0), ("", 0.0)],
)
def test_a_completion_that_continues_the_prompt(completion: str, reward: float) -> None:
    assert CodeCheck(code_from="whole", continues_prompt=True)(completion, **CHECK) == reward


def test_a_method_of_a_class_and_no_prompt() -> None:
    verifier = CodeCheck(prompt_column=None)
    assert verifier.columns == ("test", "entry_point")
    row = {"test": "def check(candidate):\n    assert candidate(2) == 4", "entry_point": "Solution().double"}
    right = "class Solution:\n    def double(self, x):\n        return 2 * x"
    assert verifier(as_completion(right), **row) == 1.0
    assert verifier(as_completion(right.replace("2 *", "3 *")), **row) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": " "}, "'test' of this row is empty"),
        ({"test": "def check(candidate"}, "is not valid Python"),
        ({"test": "assert f(1)"}, "'test' of this row defines no function check"),
        ({"entry_point": ""}, "'entry_point' of this row is empty"),
        ({"entry_point": "f(); g"}, r"must name a function or Class\(\).method, not 'f\(\); g'"),
        ({"prompt": "Write a function"}, "'Write a function' is not valid Python"),
        ({"prompt": [{"role": "user"}]}, "'prompt' of this row must be a string, not"),
        ({"test": None}, "'test' of this row must be a string, not None"),
    ],
)
def test_a_row_without_sense_is_named(change: dict[str, Any], message: str) -> None:
    for completion in ("no code", as_completion("x = 1")):
        with pytest.raises(ValueError, match=message):
            CodeCheck()(completion, **{**CHECK, **change})


def test_tests_that_no_program_can_pass_are_an_error() -> None:
    with pytest.raises(sandbox.TestsError, match="nowhere"):
        CodeCheck()(as_completion("def f(xs):\n    return xs"), **{**CHECK, "prompt": "import nowhere"})


ASSERTS = {
    "test_list": [
        "assert f(2) == (4, 8)",
        "assert math.isclose(f(0.5)[0], 0.25)",
        "assert list(map(f, [1])) == [g(1)]",
    ],
    "test_setup_code": "import math",
}


@pytest.mark.parametrize(
    ("code", "share"),
    [
        ("def f(x):\n    return x**2, x**3\ndef g(x):\n    return (1, 1)", 1.0),
        ("def f(x):\n    return x**2, x**3", 2 / 3),
        ("def f(x):\n    return [x**2, x**3]\ndef g(x):\n    return [1, 1]", 2 / 3),
        ("def f(x):\n    return 4, 8\ndef g(x): raise ValueError", 1 / 3),
        ("def g(x):\n    return (1, 1)", 0.0),
        ("1 / 0", 0.0),
    ],
)
def test_a_list_of_asserts(code: str, share: float) -> None:
    assert CodeAsserts(score="share")(as_completion(code), **ASSERTS) == pytest.approx(share)
    assert CodeAsserts()(as_completion(code), **ASSERTS) == float(share == 1)


def test_setup_is_a_text_a_list_or_not_there() -> None:
    verifier = CodeAsserts(setup_column="test_imports")
    right = as_completion("def f(x):\n    return x")
    assert verifier(right, test_list=["assert math.pi < f(4)"], test_imports=["import math", "import re"]) == 1.0
    assert verifier(right, test_list=["assert f(4) == 4"], test_imports=[]) == 1.0
    assert verifier(right, test_list=["assert f(4) == 4"]) == 1.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "'test_list' of this row must be a list of asserts, not None"),
        ({"test_list": []}, "must be a list of asserts"),
        ({"test_list": "assert f(1)"}, "must be a list of asserts"),
        ({"test_list": ["f(1)"]}, "contains no assert"),
        ({"test_list": ["assert f(1)"], "test_setup_code": 5}, "'test_setup_code' of this row must be a string, not 5"),
    ],
)
def test_a_list_without_sense_is_named(row: dict[str, Any], message: str) -> None:
    for completion in ("no code", as_completion("x = 1")):
        with pytest.raises(ValueError, match=message):
            CodeAsserts()(completion, **row)


def test_references() -> None:
    verifier = CodeAsserts()
    reference = verifier.reference({"code": "def f(x):\r\n    return x"})
    assert reference is not None
    assert verifier(reference, test_list=["assert f(4) == 4"]) == 1.0
    assert verifier.reference({}) is None
    odd = {"code": "\n\ndef sum(x):\n    return x", "prompt": "Write a function.", "test_list": ["assert sum(4) == 4"]}
    assert verifier(str(verifier.reference(odd)), **odd) == 1.0

    body, whole = "    return [2 * x for x in xs]\n", "def f(xs):\n    return [2 * x for x in xs]\n"
    for check, solution in ((CodeCheck(), body), (CodeCheck(), whole), (CodeCheck(continues_prompt=True), body)):
        reference = check.reference({**CHECK, "canonical_solution": solution})
        assert reference is not None
        assert check(reference, **CHECK) == 1.0
    assert CodeCheck().reference(CHECK) is None
