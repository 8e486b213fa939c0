import json
from typing import Any

import pytest

from sharpen.rewards.code.rows import (
    CallTest,
    CallTests,
    StdinTest,
    StdinTests,
    WrappedOutputs,
    read_tests,
)

PROGRAM = StdinTests((StdinTest("1 2\n", "3\n"), StdinTest("4\n5", "9")))
FUNCTION = CallTests("add", (CallTest((1, 2), (3,)), CallTest((4, [5]), (None,))))


@pytest.mark.parametrize(
    "tests",
    [
        [{"input": "1 2\n", "output": "3\n"}, {"input": "4\n5", "output": "9"}],
        [{"input": "1 2\n", "output": "3\n", "type": "stdin_stdout"}, {"input": ["4", "5"], "output": ["9"]}],
        {"inputs": ["1 2\n", "4\n5"], "outputs": ["3\n", "9"]},
        {"input": ["1 2\n", "4\n5"], "output": ["3\n", "9"]},
        {"inputs": ["1 2\n", "4\n5"], "outputs": ["3\n", "9"], "fn_name": None},
    ],
)
def test_tests_of_a_program(tests: Any) -> None:
    assert read_tests({"tests": tests}, "tests", "fn_name", "never") == PROGRAM
    assert read_tests({"t": json.dumps(tests), "fn_name": ""}, "t", "fn_name", "never") == PROGRAM


@pytest.mark.parametrize(
    "row",
    [
        {"tests": {"inputs": [[1, 2], [4, [5]]], "outputs": [3, None], "fn_name": "add"}},
        {"tests": {"inputs": [[1, 2], [4, [5]]], "outputs": [3, None]}, "fn_name": "add"},
        {"tests": {"inputs": ["1\n2", "4\n[5]\n"], "outputs": ["3", "null"], "fn_name": "add"}},
        {
            "tests": [
                {"input": "1\n2", "output": "3", "testtype": "functional"},
                {"input": "4\n[5]", "output": "null", "testtype": "functional"},
            ],
            "fn_name": '{"func_name": "add"}',
        },
        {
            "tests": [
                {"fn_name": "add", "input": [1, 2], "output": 3, "type": "function_call"},
                {"fn_name": "add", "input": [4, [5]], "output": None, "type": "function_call"},
            ]
        },
    ],
)
def test_tests_of_a_function(row: Any) -> None:
    assert read_tests(row, "tests", "fn_name", "never") == FUNCTION


@pytest.mark.parametrize(("wrapped", "values"), [("never", ([3],)), ("always", (3,)), ("either", ([3], 3))])
def test_outputs_in_a_list_of_one(wrapped: WrappedOutputs, values: tuple[Any, ...]) -> None:
    row = {"tests": {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}}
    tests = read_tests(row, "tests", "fn_name", wrapped)
    assert tests == CallTests("add", (CallTest((1, 2), values),))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "'tests' of this row is empty"),
        ({"tests": []}, "'tests' of this row is empty"),
        ({"tests": {"inputs": [], "outputs": []}}, "'tests' of this row has no tests"),
        ({"tests": 5}, "'tests' of this row holds a int, not tests"),
        ({"tests": "eJxrYBn"}, "'tests' of this row is not valid JSON"),
        ({"tests": {"inputs": ["1"]}}, "'tests' of this row has no lists 'inputs' and 'outputs'; its keys are inputs"),
        ({"tests": {"inputs": ["1"], "outputs": []}}, "'tests' of this row has 1 inputs and 0 outputs"),
        ({"tests": [{"input": "1", "output": "1"}, {"input": "1"}]}, "test 2 in the column 'tests' of this row has no"),
        ({"tests": [{"input": 1, "output": "1"}]}, "test 1 in the column 'tests' of this row: the input is a int"),
        ({"tests": [{"input": "1", "output": [1]}]}, "the output is a list, not a string or a list of lines"),
        ({"tests": [{"input": "1", "output": "1", "type": "gui"}]}, "has the unknown type 'gui'"),
        ({"tests": [{"input": "1", "output": "1", "testtype": "functional"}]}, "but the row names no function"),
        (
            {"tests": [{"input": "1", "output": "1", "type": "stdin"}], "fn_name": "f"},
            "but the row names the function 'f'",
        ),
        ({"tests": [{"input": [1], "output": 1, "fn_name": n} for n in "fg"]}, "name several functions"),
        ({"tests": {"inputs": [[1]], "outputs": [1], "fn_name": "f"}, "fn_name": "g"}, "name several functions"),
        ({"tests": {"inputs": [[1]], "outputs": [1], "fn_name": 5}}, "is 5, not a string"),
        ({"tests": {"inputs": [5], "outputs": [1], "fn_name": "f"}}, "the input is a int, not a list of arguments"),
        ({"tests": {"inputs": ["1"], "outputs": [1], "fn_name": "f"}}, "the output must be a JSON string, not 1"),
        ({"tests": {"inputs": ["1\nx"], "outputs": ["1"], "fn_name": "f"}}, "a line of the input of test 1"),
        ({"tests": {"inputs": [[1]], "outputs": [[object()]], "fn_name": "f"}}, "holds a object, which is not plain"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"row|test") as caught:
        read_tests(row, "tests", "fn_name", "never")
    assert message in str(caught.value)


def test_an_output_that_is_not_wrapped_is_refused_where_it_must_be() -> None:
    row = {"tests": {"inputs": [[1]], "outputs": [3], "fn_name": "f"}}
    with pytest.raises(ValueError, match="the output 3 is not a list of one"):
        read_tests(row, "tests", "fn_name", "always")
