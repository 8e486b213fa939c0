"""The data that passes: everything comes out equal and of a builtin type, and hostile bytes cost no time."""

import json
import math
import sys
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.sandbox import NotPlain
from sharpen.sandbox.inside.plain import TooCostly, decode, encode

P = 2**61 - 1
"""Multiples of it have the hash 0."""
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False)
VALUES = st.recursive(
    KEYS | st.complex_numbers(allow_nan=False) | st.fractions() | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
        | st.lists(inner).map(deque)
    ),
    max_leaves=20,
)


def kinds(value: object) -> object:
    """The types in a value, nested as it is."""
    inner = [kinds(v) for v in value] if isinstance(value, list | tuple | deque) else []
    return (type(value), *inner)


@given(VALUES)
def test_a_value_comes_back_equal_and_of_the_same_types(value: object) -> None:
    back = decode(encode(value))
    assert back == value
    assert kinds(back) == kinds(value)


def test_subclasses_come_back_as_what_they_are_made_of() -> None:
    class Level(IntEnum):
        HIGH = 3

    point = namedtuple("point", "x y")
    for value, plain in [
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (point(1, 2), (1, 2)),
        (Level.HIGH, 3),
        ({1: 2}.keys(), {1}),
        ({1: 2}.values(), [2]),
    ]:
        back = decode(encode(value))
        assert back == plain
        assert type(back) is type(plain)


def test_an_iterator_comes_back_as_an_iterator_of_the_same_items() -> None:
    assert list(decode(encode(n * n for n in range(4)))) == [0, 1, 4, 9]


def test_an_iterator_without_end_is_refused() -> None:
    with pytest.raises(NotPlain, match="iterator"):
        encode(iter(int, 1))


@pytest.mark.parametrize(
    "value",
    [object(), len, int, Enum("E", "A").A, [object()], {"k": open}],
    ids=["object", "function", "class", "enum", "object in a list", "function in a dict"],
)
def test_what_is_no_data_is_refused(value: object) -> None:
    with pytest.raises(NotPlain):
        encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"object": 1}',
        b'{"int": 5}',
        b'{"set": [[]]}',
        b'{"range": [1.5, 2, 3]}',
        b'{"dict": [[1]]}',
        b'{"bytes": "xy"}',
        b'{"Fraction": [1, 0]}',
        b'{"Decimal": "abc"}',
        b'{"Decimal": [0, [1], 2]}',
        b'{"complex": [1, 2]}',
        b'{"complex": ["1", "2"]}',
        b'{"tuple": {"range": [0, 1000000000000, 1]}}',
        b'{"tuple": "ab"}',
        b'{"int": "1", "float": "1"}',
        b"[" * 100_000,
        b"9" * 100_000,
        b"\xff",
    ],
    ids=lambda data: data[:20].decode(errors="replace"),
)
def test_bytes_that_nobody_would_write_are_refused(data: bytes) -> None:
    with pytest.raises(NotPlain):
        decode(data)


@pytest.mark.parametrize("kind", ["set", "dict"])
def test_keys_made_to_collide_cost_no_time(kind: str) -> None:
    # Multiples of 2**61 - 1 all have the hash 0.
    keys = [{"int": f"{n * (2**61 - 1):x}"} for n in range(10_000)]
    data = json.dumps({kind: keys if kind == "set" else [[key, 0] for key in keys]}).encode()
    started = time.process_time()
    with pytest.raises(NotPlain, match="hash"):
        decode(data)
    assert time.process_time() - started < 2  # as a set they take seconds


@pytest.mark.parametrize("kind", ["set", "dict"])
def test_a_table_is_refused_from_the_size_on_at_which_its_keys_could_be_slow_together(kind: str) -> None:
    """Most is 200 million steps: of n keys of chosen hashes, n squared; text and small integers take none."""

    def table(keys: list[Any]) -> bytes:
        return json.dumps({kind: keys if kind == "set" else [[key, 0] for key in keys]}).encode()

    large = [n << 40 for n in range(1, 14_200)]
    assert len(decode(table(large[:14_142]))) == 14_142  # 199,996,164
    with pytest.raises(NotPlain, match="very many items"):
        decode(table(large[:14_143]))  # 200,024,449
    mixed = [*range(30_000), *(n << 40 for n in range(1, 5_556))]
    assert len(decode(table(mixed[:-1]))) == 35_554  # 5,554 of them large: 197,466,916
    assert len(decode(table([*map(str, range(100_000)), *range(100_000)]))) == 200_000
    halves = json.dumps([{kind: json.loads(table(large[:10_001]))[kind]}] * 2).encode()
    with pytest.raises(NotPlain, match="very many items"):
        decode(halves)  # together 200,040,002


def test_a_long_integer_and_decimals_of_its_hash_are_refused() -> None:
    number = 2**800_000 - 1
    decimals = [Decimal(hash(number) + n * (2**61 - 1)) for n in range(60)]
    assert {hash(decimal) for decimal in decimals} == {hash(number)}
    data = b'{"set":' + encode([number, *decimals]) + b"}"
    started = time.process_time()
    with pytest.raises(NotPlain, match="decimal"):
        decode(data)
    assert time.process_time() - started < 2  # as a set they take a minute


@pytest.mark.parametrize(
    "value",
    [
        set(product(range(-3, 4), repeat=4)),  # -1 and -2 have the same hash: up to 16 of these points do
        {2**n: n for n in range(2000)},  # 2**0, 2**61, 2**122 ... have one
        {frozenset(pair) for pair in product(range(-3, 4), repeat=2)},
        {frozenset(pair) for pair in combinations(product(range(-2, 3), repeat=2), 2)},
        {Decimal(-1), -2, Fraction(-1), -2.0 - 1j, (Decimal(-2), -1), (-1, Decimal(-2))},
        {n * P for n in range(64)},
        {frozenset({n * P, (n + 1) * P}) for n in range(32)},
        {frozenset({frozenset({0, P}), n}) for n in range(-3, 4)},
        {2**800_000, -(2**800_000)},
        {Decimal("1.5"): 2**800_000, "x": [Decimal(7), 2**800_000]},
        [2**800_000, {Decimal("1.5")}],
        range(10**20, 10**30, 7),
        {"", 0, b"", None, (), frozenset()},
        {math.inf, 314159, -math.inf, -314159},
    ],
)
def test_hashes_that_agree_as_they_may_are_no_harm(value: object) -> None:
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        {n * P for n in range(65)},
        dict.fromkeys(n * P for n in range(65)),
        frozenset((n * P, "x") for n in range(65)),
        # 33 of one hash in a frozenset, and two such frozensets of one hash: 66.
        {frozenset(n * P for n in range(33)), frozenset(n * P for n in range(1, 34))},
        {Decimal("0.5"), 2**5000},
        {(Decimal("0.5"), frozenset({(2**5000,)}))},
        {Decimal("0.5"): 0, Fraction(1, 3**5000): 0},
        range(2**80_001),
        Fraction(2**80_001, 3),
        Decimal("1" * 10_001),
    ],
    ids=range(10),
)
def test_what_would_be_slow_to_compare_is_refused(value: object) -> None:
    data = encode(value)
    with pytest.raises(TooCostly):
        decode(data)
    with pytest.raises(TooCostly):
        decode(b'["a",{"tuple":[' + data + b"]}]")


def test_numbers_that_take_long_to_reduce_are_refused() -> None:
    with pytest.raises(NotPlain):
        decode(json.dumps({"Fraction": [{"int": "f" * 100_000}, {"int": "7" * 100_000}]}).encode())
    assert decode(encode(Fraction(10**50, 3))) == Fraction(10**50, 3)
    assert decode(encode(Decimal("1.10"))) == Decimal("1.10")


def test_digits_are_not_read_where_python_would() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with pytest.raises(NotPlain, match="digits"):
            decode(b"9" * 21)
    finally:
        sys.set_int_max_str_digits(before)
    assert decode(encode([2**62 - 1, -(2**62) + 1, 2**62, -(2**62)])) == [2**62 - 1, -(2**62) + 1, 2**62, -(2**62)]
