"""How the time that decoding and comparing take grows with the bytes: of every kind of value, and of hostile ones."""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import pytest

from costly_values import LISTS, REFUSED, TABLES
from growth import growth
from sharpen.rewards.code.comparison import same_value
from sharpen.sandbox import Limits, NotPlain
from sharpen.sandbox.inside.plain import decode

T = TypeVar("T")

MOST_BYTES = Limits().output_bytes
A_REWARDS_BYTES = MOST_BYTES // 4
"""What a code reward lets a program return."""
A_TABLES_BYTES = A_REWARDS_BYTES // 4
"""Beyond, there are too many items in one table for it to be accepted, whatever they are."""
MOST_GROWTH = 6
"""Times as long for 4 times the bytes: sorting, caches and the clock add to the 4."""


def is_linear(make: Callable[[int], T], act: Callable[[T], object], size: int) -> bool:
    """Other work on the machine, which takes the caches, may spoil a trial; quadratic work fails each."""
    return any(growth(make, act, size, attempts=2) <= MOST_GROWTH for _ in range(6))


@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(make, size, id=name)
        for kinds, size in ((LISTS, MOST_BYTES), (TABLES, A_TABLES_BYTES))
        for name, make in kinds.items()
    ],
)
def test_decoding_and_comparing_take_time_in_proportion_to_the_bytes(make: Callable[[int], bytes], size: int) -> None:
    make = lru_cache(make)

    def twice(size: int) -> tuple[object, object]:
        return decode(make(size)), decode(make(size))

    def compare(pair: tuple[object, object]) -> None:
        same_value(*pair)

    assert is_linear(make, decode, size)
    assert is_linear(twice, compare, min(size, A_REWARDS_BYTES))


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_take_longer_is_refused_at_once(make: Callable[[int], bytes]) -> None:
    def refuse(data: bytes) -> None:
        with pytest.raises(NotPlain):
            decode(data)

    assert is_linear(make, refuse, MOST_BYTES)
