import random
import re
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from growth import growth
from sharpen.rewards.code.comparison import _NUMBER, same_output, same_value


@pytest.mark.parametrize(
    ("printed", "expected", "settings"),
    [
        (b"1 2\n3\n", "1 2\n3", {}),
        (b"1\n2   3", "1 2\n3\n", {}),
        (b"", "\n", {}),
        (b"yes \n", "yes", {}),
        ("é\n".encode(), "é", {}),
        (b"0.3333\n", "0.33333333", {"tolerance": 1e-4}),
        (b"1000001", "1000000", {"tolerance": 1e-5}),
        (b"1e3 .5 -2.", "1000 0.5 -2", {"tolerance": 1e-9}),
        (b"nan x", "nan x", {"tolerance": 1e-9}),
        (b"a  b\n\n", "a  b", {"how": "exact"}),
        (b"a\r\n", "a\n", {"how": "exact"}),
    ],
)
def test_the_same_output(printed: bytes, expected: str, settings: dict[str, Any]) -> None:
    assert same_output(printed, expected, **settings)


@pytest.mark.parametrize(
    ("printed", "expected", "settings"),
    [
        (b"1 2", "1 2 3", {}),
        (b"1 2 3 4", "1 2 3", {}),
        (b"12", "1 2", {}),
        (b"1.0", "1", {}),
        (b"Yes", "yes", {}),
        (b"", "1", {}),
        (b"\xff", "\ufffd", {}),
        (b"0.334", "0.333", {"tolerance": 1e-4}),
        (b"1 1", "1", {"tolerance": 0.5}),
        (b"nan", "1", {"tolerance": 0.5}),
        (b"inf", "1", {"tolerance": 0.5}),
        (b"1_0", "10", {"tolerance": 0.5}),
        (b"one", "1", {"tolerance": 0.5}),
        (b"1e999", "1e998", {"tolerance": 0.5}),
        (b"a b", "a  b", {"how": "exact"}),
        (b" a", "a", {"how": "exact"}),
        (b"a ", "a", {"how": "exact"}),
    ],
)
def test_another_output(printed: bytes, expected: str, settings: dict[str, Any]) -> None:
    assert not same_output(printed, expected, **settings)


NAN = float("nan")


@pytest.mark.parametrize(
    ("found", "expected", "settings"),
    [
        (1, 1, {}),
        (-0.0, 0.0, {}),
        (NAN, NAN, {}),
        ("a", "a", {}),
        (None, None, {}),
        ([1, [2.0, "x"]], [1, [2.0, "x"]], {}),
        ((1, [2]), [1, (2,)], {}),
        ({"a": (1, 2), "b": None}, {"b": None, "a": [1, 2]}, {}),
        ({1, 2}, {2, 1}, {}),
        ({(1, 2)}, {(1, 2)}, {}),
        (1.0, 1, {"int_is_float": True}),
        ([1], [1.0], {"int_is_float": True}),
        (0.1 + 0.2, 0.3, {"tolerance": 1e-9}),
        ([100.001], [100.0], {"tolerance": 1e-4}),
        (10**400, 10**400, {"tolerance": 0.1}),
        ({-0.0, "a", 2.5}, {0.0, 2.5, "a"}, {}),
        ({NAN, 1}, {1, float("nan")}, {}),
        ({NAN: 1}, {float("nan"): 1}, {}),
        ({(1, (2.0, b"x"), None)}, {(1, (2.0, b"x"), None)}, {}),
        ({frozenset({1, (2, 3)}), frozenset()}, {frozenset(), frozenset({(2, 3), 1})}, {}),
        ({1.0, (2, 3.0)}, {1, (2.0, 3)}, {"int_is_float": True}),
        ({1.0: [2]}, {1: (2.0,)}, {"int_is_float": True}),
        ({1: 0.1 + 0.2}, {1: 0.3}, {"tolerance": 1e-9}),
        ({2**800_000, -(2**800_000)}, {-(2**800_000), 2**800_000}, {}),
        ({Decimal("1.0"), Decimal("-0"), Decimal("1E+999999")}, {Decimal(0), Decimal("10E+999998"), Decimal(1)}, {}),
        ({Fraction(2**80_000, 3), range(3), 1 - 0.0j}, {range(3), 1 + 0j, Fraction(2**80_000, 3)}, {}),
    ],
)
def test_the_same_value(found: Any, expected: Any, settings: dict[str, Any]) -> None:
    assert same_value(found, expected, **settings)


@pytest.mark.parametrize(
    ("found", "expected", "settings"),
    [
        (True, 1, {}),
        (1, True, {}),
        (1.0, 1, {}),
        (1, 1.0, {}),
        (True, 1, {"int_is_float": True}),
        (True, 1.0, {"int_is_float": True}),
        ("1", 1, {}),
        (b"a", "a", {}),
        (None, False, {}),
        ([], None, {}),
        ([1, 2], [1, 2, 3], {}),
        ([1, 2, 3], [1, 2], {}),
        ([True], [1], {}),
        ([2, 1], [1, 2], {}),
        ((1,), [1], {"tuple_is_list": False}),
        ([1], (1,), {"tuple_is_list": False}),
        ({1, 2}, [1, 2], {}),
        ({1}, frozenset({1}), {}),
        ({True}, {1}, {}),
        ({1: "a"}, {"1": "a"}, {}),
        ({True: "a"}, {1: "a"}, {}),
        ({"a": 1, "b": 2}, {"a": 1}, {}),
        ({"a": 1}, {"a": 1, "b": 2}, {}),
        (0.1 + 0.2, 0.3, {}),
        (2.1, 2, {"tolerance": 0.5}),
        (NAN, 1.0, {"tolerance": 0.5}),
        (10**400, 1.0, {"int_is_float": True, "tolerance": 0.5}),
        (iter([1]), [1], {}),
        (range(2), [0, 1], {}),
        (Decimal("sNaN"), 1, {}),
        ({1, 2}, {1, 3}, {}),
        ({True, 2}, {1, 2}, {}),
        ({1.0}, {1}, {}),
        ({True}, {1}, {"int_is_float": True}),
        ({(True,)}, {(1,)}, {"int_is_float": True}),
        ({0.1 + 0.2}, {0.3}, {"tolerance": 1e-9}),
        ({("a", "b")}, {("a', 'b",)}, {}),
        ({"1"}, {1}, {}),
        ({"b'a'"}, {b"a"}, {}),
        ({(1, 2)}, {frozenset({1, 2})}, {}),
        ({frozenset({(1, 2)})}, {frozenset({(2, 1)})}, {}),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}, {}),
        ({NAN: 1, float("nan"): 2}, {NAN: 2, float("nan"): 2}, {}),
        ({NAN, float("nan")}, {NAN, 1}, {}),
        ({2**800_000}, {2**800_000 + 1}, {}),
        ({Decimal(1), Decimal("0.5")}, {1, 0.5}, {"int_is_float": True}),
    ],
)
def test_another_value(found: Any, expected: Any, settings: dict[str, Any]) -> None:
    assert not same_value(found, expected, **settings)


def test_a_value_of_any_depth_is_compared_no_deeper_than_what_is_expected() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert not same_value(deep, [[1]])


def test_members_of_any_depth_are_no_members_that_are_expected() -> None:
    deep: Any = ()
    for _ in range(2_000):
        deep = (deep,)
    assert not same_value({deep}, {1})
    assert not same_value({deep: 1}, {1: 1})
    assert not same_value({frozenset({deep})}, {frozenset({(1,)})})


def test_members_of_one_hash_take_no_longer_than_others() -> None:
    members, others = ({n * (2**61 - 1) for n in range(start, start + 6_000)} for start in (0, 1))
    started = time.thread_time()
    assert same_value(members, members)
    assert not same_value(members, others)
    assert time.thread_time() - started < 0.3  # looked up, each is compared with some 3,000 others


def test_words_that_are_nearly_numbers_take_linear_time() -> None:
    """With a tolerance every pair of words is tried as numbers, until one is none."""

    def nearly(digits: int) -> str:
        return "1" * (digits - 1) + "x"

    def match(word: str) -> None:
        for _ in range(2000):
            assert _NUMBER.fullmatch(word) is None

    assert growth(nearly, match, 1000) <= 6


def test_the_same_words_are_numbers_as_before() -> None:
    old = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
    random_words = random.Random(0)
    for _ in range(20_000):
        word = "".join(random_words.choices("019.eE+-x", k=random_words.randrange(1, 9)))
        assert bool(_NUMBER.fullmatch(word)) is bool(old.fullmatch(word)), word
