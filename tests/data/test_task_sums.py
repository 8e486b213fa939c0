import pytest

from sharpen.data.tasks.sums import EXAMPLE_PAIR, PAIRS, Sums, question

TASK = Sums()


def pairs(rows):
    wanted = {question(a, b)["content"]: (a, b) for a in range(10) for b in range(10)}
    return [wanted[row["prompt"][-1]["content"]] for row in rows]


def test_every_pair_is_in_one_part_in_both_orders():
    train, held_out = pairs(TASK.train_rows()), pairs(TASK.held_out_rows())
    assert sorted(train + held_out) == [(a, b) for a in range(10) for b in range(10)]
    assert not {frozenset(pair) for pair in train} & {frozenset(pair) for pair in held_out}
    assert len({frozenset(pair) for pair in held_out}) == 11 == round(0.2 * len(PAIRS))


@pytest.mark.parametrize("seed", range(5))
def test_every_held_out_sum_is_the_sum_of_a_training_pair(seed):
    task = Sums(seed=seed, held_out_share=0.5)
    assert {row["answer"] for row in task.train_rows()} == set(range(19))


def test_the_worked_example_is_never_held_out():
    for seed in range(20):
        rows = Sums(seed=seed, worked_example=True).held_out_rows()
        assert EXAMPLE_PAIR not in pairs(rows)
        assert [message["content"] for message in rows[0]["prompt"][:-1]] == [
            "What is two plus one? Answer with the number only, in digits.",
            "2 + 1 = 3",
        ]


def test_answers_are_the_sums():
    rows = TASK.train_rows()
    assert [row["answer"] for row in rows] == [a + b for a, b in pairs(rows)]


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("8", 1),
        (" 8.\n", 1),
        ("3 + 5 = 8", 1),
        ("3+5=8", 1),
        ("The answer is **8**!", 1),
        ("Not 7, but 8,", 1),
        ("8 is 3 + 5", 0),
        ("eight", 0),
        ("08", 0),
        ("-8", 0),
        ("8.5", 0),
        ("7.8", 0),
        ("18", 0),
        ("1,8", 0),
        ("1 2 3 4 5 6 7 8 9", 0),
        ("", 0),
    ],
)
def test_verify(completion, reward):
    assert TASK.verify(completion, prompt=[question(3, 5)], answer=8) == reward


def test_answer():
    assert TASK.answer("4+4 = 8") == "8"
    assert TASK.answer("eight") is None
