"""Dividing items into parts of similar work: by hand, as a slow reference does it, and in good time."""

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
import torch

from growth import growth
from oracles import microbatches as slow
from sharpen.models.packing import balance
from sharpen.models.packing.balance import balanced, shares

Items = tuple[list[float], list[int], int]


def test_parts_by_hand() -> None:
    # The largest first, each to the part with least: 5 | 4, then 3 to the 4, 3 to the 5, 2 to the 7.
    assert balanced([3, 5, 2, 4, 3], [1] * 5, 3) == [[1, 4], [0, 2, 3]]
    # Nine tokens fit into two parts of five, but 3 + 3 + 3 do not; one item may be too large by itself.
    assert balanced([3, 3, 3], [3, 3, 3], 5) == [[0], [1], [2]]
    assert balanced([9, 1, 1], [9, 1, 1], 5) == [[0], [1, 2]]
    assert balanced([1, 1], [9, 9], 5) == [[0], [1]]
    # Where attention dominates, the part with the one long sequence gets fewer tokens.
    assert balanced([10, 4, 4, 2], [4, 3, 3, 2], 9) == [[0], [1, 2, 3]]
    assert balanced([], [], 5) == []


def test_without_room_for_two_tokens_each_item_has_its_own_part() -> None:
    """Parts are begun with the largest item first."""
    for most_tokens in (1, 0, -3):
        assert balanced([2, 3, 1], [1, 1, 1], most_tokens) == [[1], [0], [2]]


def test_three_parts_suffice_where_four_do_not() -> None:
    """Largest first: 9 | 8 | 7 5, then 4 to the 8, 3 to the 9, and the six tokens fit with the 7 and 5, of two.

    Of four parts, 9 | 8 | 7 3 | 5 4, none has room for six more tokens.
    """
    work, tokens = [5, 3, 4, 7, 9, 2, 8], [1, 4, 4, 1, 4, 6, 5]
    assert slow.greedy(work, tokens, 9, 4) is None
    assert balanced(work, tokens, 9) == [[1, 4], [2, 6], [0, 3, 5]]


@pytest.mark.parametrize("work", [0.0, -1.0, float("nan")])
def test_work_that_is_not_above_0_is_named(work: float) -> None:
    for most_tokens in (1, 10):
        with pytest.raises(ValueError, match="the work of item 1 is"):
            balanced([1.0, work], [1, 1], most_tokens)
    with pytest.raises(ValueError, match="the work of item 1 is"):
        shares([1.0, work], 2)


@pytest.mark.parametrize("seed", range(10))
def test_balanced_parts_are_within_the_bound_of_largest_first(seed: int) -> None:
    """Within Graham's bound, 7/6 of the best of all divisions of eight items into two."""
    generator = torch.Generator().manual_seed(seed)
    work = torch.randint(1, 100, (8,), generator=generator).tolist()
    best = min(max(sum(part), sum(work) - sum(part)) for n in range(9) for part in itertools.combinations(work, n))
    found = balanced(work, [1] * 8, 7)
    assert len(found) == 2
    assert max(sum(work[i] for i in part) for part in found) <= 7 / 6 * best


def drawn(draw: random.Random) -> Iterator[Items]:
    """Items with few or many ties, works that follow the tokens, oppose them or do neither, limits of every kind."""
    while True:
        most_items, longest = draw.choice([3, 8, 40, 90]), draw.choice([1, 2, 5, 20, 100])
        tokens = [draw.randint(draw.choice([0, 1]), longest) for _ in range(draw.randint(0, most_items))]
        work: list[float] = draw.choice(
            [
                [float(t + 1) for t in tokens],
                [t + 1 + t * t / 3 for t in tokens],
                [1 / (t + 1) for t in tokens],
                [float(draw.randint(1, 4)) for _ in tokens],
                [draw.random() + 0.1 for _ in tokens],
            ]
        )
        limits = [-5, 0, 1, 2, longest // 2, longest, longest + 1, 2 * longest, 3 * longest, 10 * longest]
        yield work, tokens, draw.choice(limits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("shortest_round", "most_passed_over"), [(16, 4), (1, 4), (1000, 1000), (1000, -1)])
def test_every_way_of_placing_gives_the_parts_of_the_slow_reference(
    seed: int, shortest_round: int, most_passed_over: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rounds, one by one from a heap, and by looking at all parts."""
    monkeypatch.setattr(balance, "SHORTEST_ROUND", shortest_round)
    monkeypatch.setattr(balance, "MOST_PASSED_OVER", most_passed_over)
    for items in itertools.islice(drawn(random.Random(seed)), 250):
        assert balanced(*items) == slow.balanced(*items), items


def test_of_parts_with_equal_work_the_first_gets_the_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """6 | 4, 3 to the 4, ½ to the 6 and ½ to the 6½, so that both have 7; the third ½ goes to the first, for 7½."""
    for shortest_round in (1, 1000):
        monkeypatch.setattr(balance, "SHORTEST_ROUND", shortest_round)
        assert balanced([6, 4, 3, 0.5, 0.5, 0.5], [1] * 6, 4) == [[0, 3, 4, 5], [1, 2]]


def test_shares_by_hand() -> None:
    """5 | 4, 3 to the 4, 3 to the 5; the 1 goes to the 7. At most three of five, and two of four, go to one."""
    assert shares([5, 4, 3, 3, 1], 2) == [[0, 3], [1, 2, 4]]
    assert shares([9, 1, 1, 1], 2) == [[0, 3], [1, 2]]
    assert shares([1, 2], 3) == [[1], [0], []]
    assert shares([], 2) == [[], []]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
def test_shares_are_those_of_the_slow_reference(count: int) -> None:
    for work, _, _ in itertools.islice(drawn(random.Random(count)), 200):
        assert shares(work, count) == slow.greedy(work, [1] * len(work), -(-len(work) // count), count)


def ragged(n: int) -> Items:
    draw = random.Random(0)
    tokens = [draw.randint(100, 1500) for _ in range(n)]
    return [t + t * t / 6000 for t in tokens], tokens, 32768


def alternating(n: int) -> Items:
    """Every second item fits only into the part with the most work, every other one into all."""
    parts = n // 4
    pairs = (n - parts) // 2
    most = 21 * pairs + 100
    work = [1e9, *[1e4] * (parts - 1), *[1000 - i / 1000 for i in range(2 * pairs)]]
    return work, [1, *[most - 10] * (parts - 1), *[20, 1] * pairs], most


@pytest.mark.parametrize("make", [ragged, alternating])
def test_placing_takes_little_more_time_than_in_proportion(make: Callable[[int], Items]) -> None:
    """Placing 4 times as many items by comparing each with each part takes 16 times as long."""
    assert any(growth(make, lambda items: balanced(*items), 4096) <= 8 for _ in range(3))


def test_numbers_of_parts_that_cannot_suffice_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """1024 items of 700 tokens fill 350 parts of 2048, but only two fit into one: 512."""
    tried: list[int] = []
    owners = balance._Items.owners
    monkeypatch.setattr(balance._Items, "owners", lambda items, count: tried.append(count) or owners(items, count))
    assert len(balanced([1.0] * 1024, [700] * 1024, 2048)) == 512
    assert tried == [350, 512]
