import pytest

from sharpen.data.tasks.words import WORDS, Words

TASK = Words()


def test_parts_share_no_pair_in_either_order():
    train = {frozenset(row["words"]) for row in TASK.train_rows()}
    held_out = {frozenset(row["words"]) for row in TASK.held_out_rows()}
    assert (len(held_out), len(TASK.held_out_rows())) == (100, 100)
    assert not train & held_out
    assert len(train | held_out) == len(WORDS) * (len(WORDS) - 1) // 2


def test_the_words_are_asked_for():
    row = TASK.train_rows()[0]
    first, second = row["words"]
    assert row["prompt"][-1]["role"] == "user"
    assert f"the words {first} and {second}" in row["prompt"][-1]["content"]
    assert TASK.answer is None


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("The dog swims across the river.", 1),
        ("River and DOG were happy!", 1),
        ('"Did the dog cross the river?"\n', 1),
        ("The dog, tired and wet, left the river.", 1),
        ("The dogs swim across the river.", 0),
        ("The dog swims across the water.", 0),
        ("The dog swims across the river", 0),
        ("The dog swims. The river is cold.", 0),
        ("The dog swims across the river...", 0),
        ("the dog swims across the river.", 0),
        ("Dog river.", 0),
        ("Dog, river.", 0),
        ("Dog and river.", 0),
        ("Dog river dog river dog river.", 0),
        ("The dog\nswims across the river.", 0),
        ("The dog saw the river" + ", the river" * 10 + ".", 1),
        ("The dog saw the river" + ", the river" * 11 + ".", 0),
        ("Write one short sentence that contains the words dog and river.", 0),
        ("A sentence with the words dog and river.", 0),
        ("Some words about a dog and river.", 1),
        (".", 0),
        ("", 0),
    ],
)
def test_verify(completion, reward):
    assert TASK.verify(completion, prompt=[], words=["dog", "river"]) == reward
