"""Sources that are drawn by their shares: sequences worked out by hand, and bounds by brute force."""

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.data.cursor import Cursor
from sharpen.data.items import grouped
from sharpen.data.source_cursor import Shares, SourceCursor, dealt
from sharpen.errors import CheckpointError, DataError
from sharpen.system.seeds import stream_seed


def sequence(count: int, **shares: float) -> str:
    dealt = Shares(shares)
    return " ".join(dealt.next() for _ in range(count))


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"a": 1}, "a a a"),
        ({"a": 1, "b": 1}, "a b a b"),
        # Due latest as prompt number (drawn + 1) · 5 / share: a at 5/3, 10/3, 5; b and c at 5. The third is not a's,
        # which has 2 of 2, more than 9/5; the fourth is, which then has 2 of 3, less than 12/5.
        ({"a": 3, "b": 1, "c": 1}, "a a b a c a a b a c"),
        # As the ninth, a's first and b's ninth are both due as the tenth: the first in the recipe is taken.
        ({"a": 0.1, "b": 0.9}, "b b b b b b b b a b"),
        ({"b": 0.9, "a": 0.1}, "b b b b b b b b b a"),
        ({"a": 0.2, "b": 0.3, "c": 0.5}, "c b c a c b c a b c"),
    ],
)
def test_the_sequence_worked_out(shares: dict[str, float], expected: str) -> None:
    assert sequence(len(expected.split()), **shares) == expected


@settings(deadline=None, max_examples=60)
@given(shares=st.lists(st.integers(1, 40), min_size=1, max_size=7))
def test_at_all_times_every_source_has_its_share_rounded_up_or_down(shares: list[int]) -> None:
    dealt = Shares({str(i): share for i, share in enumerate(shares)})
    for count in range(1, 2 * sum(shares) + 1):
        dealt.next()
        for i, share in enumerate(shares):
            exact = Fraction(count * share, sum(shares))
            assert dealt.drawn[str(i)] in (math.floor(exact), math.ceil(exact))


def test_decimal_shares_are_exact_after_any_number_of_prompts() -> None:
    dealt = Shares({"a": 0.1, "b": 0.2, "c": 0.7})
    for _ in range(10_000):
        dealt.next()
    assert dealt.drawn == {"a": 1000, "b": 2000, "c": 7000}


ITEMS = grouped(["a", "b", "a", "b", "b"])
"""Items 0 and 2 are a's, 1, 3 and 4 b's."""


def test_within_a_source_the_order_is_its_own_cursors() -> None:
    taken = SourceCursor(ITEMS, {"a": 1, "b": 2}, seed=7).take(9)
    a, b = Cursor(2, stream_seed(7, "source/a")).take(3), Cursor(3, stream_seed(7, "source/b")).take(6)
    expected = [[0, 2][i] for i in a], [[1, 3, 4][i] for i in b]
    assert ([i for i in taken if i in (0, 2)], [i for i in taken if i not in (0, 2)]) == expected
    # b's first is due at 3/2; its second and a's first at 3.
    assert "".join("ab"[i not in (0, 2)] for i in taken) == "bab" * 3


def test_another_source_does_not_change_the_order_within_a_source() -> None:
    alone = SourceCursor(grouped(["a"] * 20), {"a": 1}, seed=3).take(20)
    beside = SourceCursor(grouped(["a"] * 20 + ["b"] * 20), {"a": 1, "b": 1}, seed=3).take(40)
    assert [i for i in beside if i < 20] == alone
    # Sources of one size are not shuffled alike.
    assert [i - 20 for i in beside if i >= 20] != alone


@settings(deadline=None, max_examples=40)
@given(before=st.lists(st.integers(0, 9), max_size=4), after=st.lists(st.integers(0, 9), max_size=4))
def test_a_restored_cursor_goes_on_as_if_never_stopped(before: list[int], after: list[int]) -> None:
    shares = {"a": 2, "b": 0.5}
    cursor, restored = SourceCursor(ITEMS, shares, 5), SourceCursor(ITEMS, shares, 5)
    for count in before:
        cursor.take(count)
    restored.load(json.loads(json.dumps(cursor.state())))
    assert [restored.take(count) for count in after] == [cursor.take(count) for count in after]


def test_how_the_draws_are_cut_into_steps_does_not_matter() -> None:
    shares = {"a": 2, "b": 1}
    by_one, at_once = SourceCursor(ITEMS, shares, 5), SourceCursor(ITEMS, shares, 5)
    assert [by_one.take(1)[0] for _ in range(11)] == at_once.take(11)


def test_other_sources_shares_or_data_are_refused() -> None:
    state = SourceCursor(ITEMS, {"a": 1, "b": 1}, 0).state()
    for items, shares in (
        (ITEMS, {"a": 1, "b": 2}),
        (grouped(["a", "c"]), {"a": 1, "c": 1}),
        (grouped(["a"]), {"a": 1}),
    ):
        with pytest.raises(CheckpointError, match="sources and shares"):
            SourceCursor(items, shares, 0).load(state)
    with pytest.raises(CheckpointError, match="size 2"):
        SourceCursor(grouped(["a", "b"]), {"a": 1, "b": 1}, 0).load(state)
    with pytest.raises(CheckpointError, match="sources and shares"):
        SourceCursor(ITEMS, {"a": 1, "b": 1}, 0).load(Cursor(5, 0).state())


def test_over_changed_sources_all_begin_an_epoch_and_their_shares_are_dealt_anew() -> None:
    """60 draws of two, half of each, then one of them has 100 items: it must not be held to have drawn 100 an epoch."""
    before = SourceCursor(grouped(["a", "a", "b", "b"]), {"a": 1, "b": 1}, 0)
    before.take(60)
    items = ["a"] * 100 + ["b", "b", "c"]
    cursor, restored = (SourceCursor(grouped(items), {"a": 1, "b": 1, "c": 2}, 0) for _ in range(2))
    cursor.load(before.state(), changed=True)
    assert {name: (of["epoch"], of["position"]) for name, of in cursor.state().items()} == {
        "a": (15, 0),
        "b": (15, 0),
        "c": (0, 0),
    }
    drawn = [items[item] for item in cursor.take(40)]
    # c is due by draws 2 and 4, a and b by draw 4; at that tie b is before c.
    assert drawn[:8] == ["c", "a", "b", "c"] * 2
    assert (drawn.count("a"), drawn.count("b"), drawn.count("c")) == (10, 10, 20)
    restored.load(json.loads(json.dumps(cursor.state())))
    assert restored.take(50) == cursor.take(50)


def test_over_corrected_sources_of_the_same_sizes_it_goes_on() -> None:
    before, now = (SourceCursor(ITEMS, {"a": 2, "b": 1}, 0) for _ in range(2))
    before.take(7)
    now.load(before.state(), changed=True)
    assert now.state() == before.state()
    assert now.take(20) == before.take(20)


def test_a_source_without_items_is_named() -> None:
    with pytest.raises(DataError, match=r"data\.sources\.b: there is nothing to draw"):
        SourceCursor(grouped(["a"]), {"a": 1, "b": 1}, 0)


def test_how_many_of_the_first_prompts_are_each_sources() -> None:
    assert dealt({"a": 1, "b": 2}, 3) == {"a": 1, "b": 2}
    assert dealt({"a": 1, "b": 2}, 7) == {"a": 2, "b": 5}  # 7/3 and 14/3


def test_the_next_of_the_same_source_takes_the_place_of_what_is_left_out() -> None:
    """A source keeps its share of what is used, also after the cursor is restored."""
    items, shares = grouped(["a"] * 8 + ["b"] * 8), {"a": 1, "b": 3}
    cursor, whole = SourceCursor(items, shares, 5), SourceCursor(items, shares, 5)
    order = whole.take(24)
    a, b = ([i for i in order if (i < 8) is of_a] for of_a in (True, False))
    assert cursor.take(3) == [b[0], b[1], a[0]]
    assert (cursor.instead_of(a[0]), cursor.instead_of(a[1]), cursor.instead_of(b[1])) == (a[1], a[2], b[2])
    assert cursor.left_out == 3
    restored = SourceCursor(items, shares, 5)
    restored.load(json.loads(json.dumps(cursor.state())))
    # The third of every four that are used is a's.
    assert restored.take(5) == cursor.take(5) == [b[3], b[4], b[5], a[3], b[6]]
