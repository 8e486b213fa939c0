from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from math_pairs import EQUAL, MISSED, UNEQUAL
from sharpen.rewards.math import verifier as math_reward
from sharpen.rewards.math.verifier import equal

Pairs = list[tuple[str, str]]


@pytest.fixture(scope="module", autouse=True)
def _end_the_workers() -> Iterator[None]:
    yield
    math_reward._workers.close()


def found_otherwise(pairs: Pairs, wanted: bool) -> Pairs:
    """The pairs of which the verdict is not the wanted one; compared side by side, each in both directions."""
    both_ways = [*pairs, *((given, expected) for expected, given in pairs if given)]
    with ThreadPoolExecutor(math_reward._workers.size) as threads:
        verdicts = list(threads.map(lambda pair: equal(*pair, timeout_s=30.0), both_ways))
    return [pair for pair, verdict in zip(both_ways, verdicts, strict=True) if verdict is not wanted]


def test_the_table_is_large_enough_and_has_each_pair_once() -> None:
    pairs = [pair for table in (EQUAL, UNEQUAL) for part in table.values() for pair in part]
    assert len(pairs) >= 400
    assert len({*pairs, *MISSED.values()}) == len(pairs) + len(MISSED)


@pytest.mark.parametrize("kind", EQUAL)
def test_what_is_equal_is_found_equal(kind: str) -> None:
    assert found_otherwise(EQUAL[kind], True) == []


@pytest.mark.parametrize("kind", UNEQUAL)
def test_what_is_not_equal_is_never_found_equal(kind: str) -> None:
    assert found_otherwise(UNEQUAL[kind], False) == []


@pytest.mark.parametrize("reason", MISSED)
def test_what_is_known_to_be_missed_is_still_missed(reason: str) -> None:
    """Where one of these is found equal, it belongs into the table of equal pairs, and out of the docs."""
    assert found_otherwise([MISSED[reason]], False) == []
