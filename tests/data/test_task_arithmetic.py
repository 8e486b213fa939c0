import re

import pytest

from sharpen.data.tasks.arithmetic import (
    ALPHABET,
    HELD_OUT_SHARE,
    Arithmetic,
    problem_text,
    shows_work,
    step_rewards,
    write_out,
    wrong_results,
)
from sharpen.errors import RecipeError

NO_SLIP = float("nan")
SMALL = Arithmetic(train_size=2000, held_out_size=300, demonstration_size=10_000)
SMALLER = Arithmetic(held_out_size=300, preference_size=4000, step_label_size=4000)


def test_problems_and_their_working():
    assert problem_text((47, 85, -36)) == "47+85-36="
    assert write_out((47, 85, -36), [NO_SLIP, NO_SLIP]) == "47+85=132;132-36=96#96"


def test_a_slip_is_carried_on_from():
    assert wrong_results(47, 85) == [131, 133, 122, 142, 22]
    assert write_out((47, 85, -36), [0.5, NO_SLIP]) == "47+85=122;122-36=86#86"
    assert write_out((47, 85, -36), [NO_SLIP, 0.0]) == "47+85=132;132-36=95#95"


@pytest.mark.parametrize(
    ("total", "number", "wrong"),
    [
        (12, 34, [45, 47, 36, 56]),  # no carry to drop
        (52, -38, [13, 15, 4, 24, 24]),  # 5-3=2, 2-8=4 modulo 10
        (15, -12, [2, 4, 13]),  # nothing below zero
        (-4, 30, [25, 27, 16, 36, 34]),
    ],
)
def test_slips(total, number, wrong):
    assert wrong_results(total, number) == wrong


@pytest.mark.parametrize(
    ("completion", "reward", "answer"),
    [
        ("#96", 1, "96"),
        ("47+85=132;132-36=96#96", 1, "96"),
        ("47+85=122;122-36=96#96", 1, "96"),
        ("47+85=132;132-36=96#95", 0, "95"),
        ("#95#96", 0, None),
        ("#96#96", 0, None),
        ("#96;", 0, None),
        ("#96 ", 0, None),
        ("#096", 0, "096"),
        ("#-96", 0, "-96"),
        ("96", 0, None),
        ("47+85=132;132-36=96", 0, None),
        ("#", 0, None),
        ("", 0, None),
    ],
)
def test_verify(completion, reward, answer):
    assert SMALL.verify(completion, prompt="47+85-36=", answer="96") == reward
    assert SMALL.answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "shown"),
    [
        ("47+85=132;132-36=96#96", True),
        ("47+85=122;122-36=86#86", True),
        ("3-5=-2#-2", True),
        ("#96", False),
        ("47+85=132;132-36=96#95", False),
        ("47+85;132-36=96#96", False),
        ("132#132", False),
        ("47+85=132", False),
    ],
)
def test_shows_work(completion, shown):
    assert shows_work(completion) is shown


def test_answers_are_right_and_totals_never_negative():
    for row in Arithmetic(terms=5, digits=3, train_size=500).train_rows():
        parts = list(map(int, re.findall(r"[+-]?\d+", row["prompt"])))
        assert str(sum(parts)) == row["answer"]
        assert all(100 <= abs(part) <= 999 for part in parts)
        assert all(sum(parts[: i + 1]) >= 0 for i in range(5))


def test_no_held_out_problem_is_trained_on_whatever_the_seed():
    held_out = {row["prompt"] for row in SMALL.held_out_rows()}
    assert len(held_out) == 300
    for seed in (0, 1):
        other = Arithmetic(train_size=20_000, demonstration_size=20_000, seed=seed)
        assert not held_out & {row["prompt"] for row in other.train_rows()}
        assert not held_out & {row["prompt"] for row in other.demonstrations()}


def test_every_problem_can_be_drawn():
    tiny = Arithmetic(terms=2, digits=1, train_size=5000, held_out_size=1)
    problems = {row["prompt"] for row in tiny.train_rows()}
    every = 81 + 45  # a+b, and a-b where a >= b
    assert abs(len(problems) - (1 - HELD_OUT_SHARE) * every) < 15
    with pytest.raises(RecipeError, match=r"only \d+ different held-out problems .* held_out_size=200"):
        Arithmetic(terms=2, digits=1, held_out_size=200).held_out_rows()


def test_demonstrations_guess_and_slip_as_often_as_asked():
    guesses = steps = wrong = 0
    for row in SMALL.demonstrations():
        completion = row["completion"]
        assert set(row["prompt"] + completion) <= set(ALPHABET)
        if completion.startswith("#"):
            guesses += 1
            assert completion == f"#{row['answer']}"
            continue
        assert shows_work(completion)
        for left, sign, right, result in re.findall(r"(-?\d+)([+-])(\d+)=(-?\d+)", completion):
            steps += 1
            wrong += int(left) + int(sign + right) != int(result)
    assert abs(guesses / 10_000 - 0.5) < 0.02  # four standard errors
    assert steps == 2 * (10_000 - guesses)
    assert abs(wrong / steps - 0.25) < 0.018


def test_shares_at_their_ends():
    for share, right in ((0, True), (1, False)):
        rows = Arithmetic(guess_share=0, wrong_step_share=share, terms=2, demonstration_size=200).demonstrations()
        assert {row["completion"].endswith(f"#{row['answer']}") for row in rows} == {right}


PROBLEM = {"prompt": "47+85-36=", "answer": "96"}


@pytest.mark.parametrize(
    ("completion", "rewards"),
    [
        ("47+85=132;132-36=96#96", [(10, 1), (22, 1)]),
        ("47+85=122;122-36=86#86", [(10, 0), (22, 0)]),
        ("47+85=132;132-36=95#95", [(10, 1), (22, 0)]),
        ("47+85=132;132-36=96#95", [(10, 1), (22, 0)]),
        ("47+85=122;132-36=96#96", [(10, 0), (22, 1)]),  # the second step is right by itself
        ("47+85=122;122-36=96#96", [(10, 0), (22, 0)]),  # two slips that cancel out
        ("132-36=96#96", [(12, 0)]),  # the right step in the wrong place
        ("132-36=96;47+85=132;#96", [(10, 0), (20, 0), (23, 1)]),
        ("47+85=132;132-36=96;#96", [(10, 1), (20, 1), (23, 1)]),
        ("47+85=132;132-36=96;96+0=96#96", [(10, 1), (20, 1), (30, 0)]),
        ("47+85=132;#96", [(10, 1), (13, 1)]),
        ("47+85=132#96", [(12, 1)]),
        ("#96", [(3, 1)]),
        ("#95", [(3, 0)]),
        ("#096", [(4, 0)]),
        ("#96#96", [(6, 0)]),
        ("#96;", [(4, 0), (4, 0)]),
        ("47+85=132;132-36=96", [(10, 1), (19, 0)]),
        ("47+85=132;", [(10, 1), (10, 0)]),
        (";;", [(1, 0), (2, 0), (2, 0)]),
        ("96", [(2, 0)]),
        ("", [(0, 0)]),
    ],
)
def test_step_rewards(completion, rewards):
    assert step_rewards(completion, **PROBLEM, other=1) == rewards


def labels_by_hand(row):
    """1 while every equation so far is right and goes on from the last one's result; a guess is right or not."""
    first, *others = map(int, re.findall(r"[+-]?\d+", row["prompt"]))
    total, fine, labels = first, True, []
    for number, step in enumerate(row["steps"]):
        equation, _, answer = step.rstrip(";").partition("#")
        if equation:
            left, _, result = equation.partition("=")
            fine = fine and left == f"{total}{others[number]:+d}" and int(result) == total + others[number]
            total = int(result)
        if answer:
            fine = fine and int(answer) == sum([first, *others])
        labels.append(int(fine))
    return labels


def test_step_labels():
    wrong = guesses = written = 0
    rows = list(SMALLER.step_labels())
    for row in rows:
        assert row["labels"] == labels_by_hand(row)
        assert all(step.endswith(";") for step in row["steps"][:-1])
        if row["steps"][0].startswith("#"):
            guesses += 1
            wrong += row["labels"] == [0]
        else:
            assert shows_work("".join(row["steps"]))
            written += row["labels"][0] == 1
    assert len(rows) == 4000
    assert abs(guesses / 4000 - 0.5) < 0.032  # four standard errors
    assert abs(wrong / guesses - 0.5) < 0.045
    assert abs(written / (4000 - guesses) - 0.75) < 0.039


def test_preferences():
    guesses = 0
    rows = list(SMALLER.preferences())
    for row in rows:
        assert shows_work(row["chosen"])
        assert all(value == 1.0 for _, value in step_rewards(row["chosen"], **row))
        assert SMALLER.verify(row["chosen"], **row) == 1.0
        assert SMALLER.verify(row["rejected"], **row) == 0.0
        assert set(row["rejected"]) <= set(ALPHABET)
        guesses += row["rejected"].startswith("#")
        if not row["rejected"].startswith("#"):
            assert shows_work(row["rejected"])
            assert row["rejected"].count("=") == 2
    assert len(rows) == 4000
    assert abs(guesses / 4000 - 0.5) < 0.032


def test_slips_and_guesses_at_their_ends():
    always = Arithmetic(guess_share=1, preference_size=50, wrong_step_share=0)
    assert all(row["rejected"].startswith("#") for row in always.preferences())
    # Nothing but slips: with three terms two of them may cancel out, and such a pair would be none.
    never = Arithmetic(guess_share=0, preference_size=300, wrong_step_share=1)
    assert all(never.verify(row["rejected"], **row) == 0.0 for row in never.preferences())
    assert {tuple(row["labels"]) for row in never.step_labels()} == {(0, 0)}


def test_what_is_held_out_stays_so_and_the_seed_decides():
    held_out = {row["prompt"] for row in SMALLER.held_out_rows()}
    for part in (SMALLER.held_out_preferences(), SMALLER.held_out_step_labels()):
        assert {row["prompt"] for row in part} == held_out
    for part in (SMALLER.preferences(), SMALLER.step_labels()):
        assert not held_out & {row["prompt"] for row in part}
    again, other = SMALLER.model_copy(), SMALLER.model_copy(update={"seed": 1})
    assert list(again.preferences()) == list(SMALLER.preferences()) != list(other.preferences())
    assert list(again.step_labels()) == list(SMALLER.step_labels()) != list(other.step_labels())
