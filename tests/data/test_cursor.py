import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.data.cursor import Cursor
from sharpen.errors import CheckpointError

sizes = st.integers(1, 20)
takes = st.lists(st.integers(0, 30), max_size=6)


@settings(deadline=None, max_examples=50)
@given(size=sizes, seed=st.integers(0, 9), counts=takes)
def test_every_epoch_has_every_item_once(size, seed, counts):
    cursor = Cursor(size, seed)
    taken = [item for count in counts for item in cursor.take(count)]
    assert len(taken) == sum(counts)
    for start in range(0, len(taken) - size + 1, size):
        assert sorted(taken[start : start + size]) == list(range(size))
    assert taken == Cursor(size, seed).take(len(taken))


@settings(deadline=None, max_examples=50)
@given(size=sizes, seed=st.integers(0, 9), before=takes, after=takes)
def test_a_restored_cursor_goes_on_as_if_never_stopped(size, seed, before, after):
    cursor, restored = Cursor(size, seed), Cursor(size, seed)
    for count in before:
        cursor.take(count)
    restored.load(json.loads(json.dumps(cursor.state())))
    assert [restored.take(count) for count in after] == [cursor.take(count) for count in after]


def test_the_order_depends_on_seed_and_epoch():
    first, second = Cursor(50, seed=1), Cursor(50, seed=2)
    epoch_0, epoch_1 = first.take(50), first.take(50)
    assert epoch_0 != epoch_1
    assert epoch_0 != second.take(50)


def test_a_state_of_other_data_is_refused():
    with pytest.raises(CheckpointError, match="saved with size 5, but here size is 6"):
        Cursor(6, seed=0).load(Cursor(5, seed=0).state())
    with pytest.raises(CheckpointError, match="saved with seed 1, but here seed is 0"):
        Cursor(5, seed=0).load(Cursor(5, seed=1).state())


def test_over_changed_data_of_another_size_the_next_epoch_begins():
    """Of the same size it goes on where it was: a row or two were corrected."""
    before, larger, corrected = Cursor(5, seed=3), Cursor(6, seed=3), Cursor(5, seed=3)
    before.take(12)  # two epochs and two items
    larger.load(before.state(), changed=True)
    assert larger.state() == {"size": 6, "seed": 3, "epoch": 3, "position": 0}
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([3, 3])))
    assert larger.take(6) == generator.permutation(6).tolist()
    corrected.load(before.state(), changed=True)
    assert corrected.take(20) == before.take(20)
