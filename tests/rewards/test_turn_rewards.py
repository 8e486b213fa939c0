"""Values for the steps of trajectories of several turns, and where they are placed."""

from dataclasses import replace
from math import nan
from typing import Any

import pytest
import torch

from conversations import cut_off, group_of, ids_of, in_one_sample, in_two_samples
from sharpen.data.collate import collate
from sharpen.errors import RewardError
from sharpen.models.character_model import character_tokenizer
from sharpen.rewards import StepReward, WeightedSum, resolve_reward
from sharpen.types import Sample, Score, StepValue, Trajectory, single_turn

CHARACTERS = character_tokenizer("0123456789+-=;#ab", context=64)
ONE = in_one_sample(CHARACTERS)
TWO = in_two_samples(CHARACTERS)


def by_turn(trajectory: Trajectory) -> list[float]:
    """0.25 for the first turn, 0.5 for the second, 0.75 for the third."""
    answers = [message for message in trajectory.messages if message["role"] == "assistant"]
    return [0.25 * (turn + 1) for turn in range(len(answers))]


def scores_of(reward: Any, *trajectories: Trajectory) -> tuple[Score, ...]:
    reward.use_tokenizer(CHARACTERS)
    (scores,) = reward.score([group_of(CHARACTERS, *trajectories)])
    return tuple(scores)


def test_a_turns_value_is_placed_at_its_last_drawn_token() -> None:
    one, two, cut, single = scores_of(
        StepReward(by_turn, turns=True), ONE, TWO, cut_off(TWO), single_turn((1,), (4, 5, 1), "ab")
    )
    assert one.steps == (StepValue(3, 0.25, 0), StepValue(9, 0.5, 0))
    assert two.steps == (StepValue(3, 0.25, 0), StepValue(3, 0.5, 1))
    assert cut.steps == (StepValue(3, 0.25, 0), StepValue(2, 0.5, 1))
    assert single.steps == (StepValue(2, 0.25, 0),)
    assert [score.total for score in (one, two, single)] == [0.375, 0.375, 0.25]


def test_turns_need_no_tokenizer() -> None:
    (scores,) = StepReward(by_turn, turns=True).score([group_of(CHARACTERS, TWO)])
    assert scores[0].steps == (StepValue(3, 0.25, 0), StepValue(3, 0.5, 1))


def test_a_reply_at_the_end_belongs_to_no_turn() -> None:
    """Out of turns: the tool has answered, and the model was not asked again."""
    last = ONE.last
    at = 6
    replied = replace(
        ONE,
        samples=(
            Sample(last.prefix_ids, last.token_ids[:at], last.loss_mask[:at], last.finish, (), last.versions[:at]),
        ),
        messages=ONE.messages[:2],
    )
    (score,) = scores_of(StepReward(by_turn, turns=True), replied)
    assert score.steps == (StepValue(3, 0.25, 0),)
    # 1+ and 1 of its last answer, 1+1: characters are tokens.
    (score,) = scores_of(StepReward(lambda completion: [(2, 1.0), (3, 0.0)], "s"), replied)
    assert score.steps == (StepValue(1, 1.0, 0), StepValue(3, 0.0, 0))


def test_turn_values_reach_the_rows_of_the_batch() -> None:
    """Row: the tokens of both samples one after another, 0 to 3 and 4 to 7; or with the tool's two between them."""
    group = group_of(CHARACTERS, ONE, TWO)
    (scores,) = StepReward(by_turn, turns=True).score([group])
    batch = collate([group.scored(scores)])
    expected = torch.full((2, 10), nan, dtype=torch.float64)
    expected[0, [3, 9]] = torch.tensor([0.25, 0.5], dtype=torch.float64)
    expected[1, [3, 7]] = torch.tensor([0.25, 0.5], dtype=torch.float64)
    torch.testing.assert_close(batch["step_rewards"], expected, rtol=0, atol=0, equal_nan=True)


def test_a_total_beside_turn_values_ends_with_the_trajectory() -> None:
    """1 for the outcome, weighted 2, adds to the last turn's value."""
    group = group_of(CHARACTERS, ONE, TWO)
    outcome = resolve_reward(lambda completion: 1.0)
    (scores,) = WeightedSum([(StepReward(by_turn, turns=True), 1.0), (outcome, 2.0)]).score([group])
    assert scores[1].steps == (StepValue(3, 0.25, 0), StepValue(3, 0.5, 1), StepValue(3, 2.0, 1))
    batch = collate([group.scored(scores)])
    assert batch["step_rewards"][0, [3, 9]].tolist() == [0.25, 2.5]
    assert batch["step_rewards"][1, [3, 7]].tolist() == [0.25, 2.5]


@pytest.mark.parametrize("options", [{"separator": ";"}, {}])
def test_character_ends_are_those_of_the_last_answer(options: dict[str, Any]) -> None:
    """2; and 3 of 2;3, whose first token is the seventh of the one sample, and the first of the second."""
    values: list[Any] = [1.0, 0.5] if options else [(2, 1.0), (3, 0.5)]
    one, two = scores_of(StepReward(lambda trajectory: values, "s", **options), ONE, TWO)
    assert one.steps == (StepValue(7, 1.0, 0), StepValue(9, 0.5, 0))
    assert two.steps == (StepValue(1, 1.0, 1), StepValue(3, 0.5, 1))


def test_an_answer_may_be_what_follows_the_thinking() -> None:
    """The model wrote ab2;3, and the message says 2;3."""
    ids = ids_of(CHARACTERS, "ab2;3")
    (score,) = scores_of(StepReward(lambda completion: [1.0, 0.5], separator=";"), single_turn((1,), ids, "2;3"))
    assert score.steps == (StepValue(3, 1.0), StepValue(5, 0.5))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "returned 1 values for the 2 turns of prompt 'p0', completion 0"),
        ([1.0, 0.5, 0.0], "returned 3 values for the 2 turns"),
        ([], "returned no steps"),
        (1.0, "it must return a list with one value per turn"),
        ([1.0, "x"], "returned a str for turn 2 of prompt 'p0'"),
        ([nan, 1.0], "returned nan for turn 1 of"),
    ],
)
def test_anything_else_names_the_turn(value: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        scores_of(StepReward(lambda trajectory: value, "s", turns=True), TWO)


def test_turns_in_a_recipe() -> None:
    spec = {"name": "steps", "function": by_turn, "turns": True, "total": "last"}
    assert [score.total for score in scores_of(resolve_reward(spec), ONE, TWO)] == [0.5, 0.5]
    with pytest.raises(RewardError, match="the steps are turns, so there is no separator"):
        resolve_reward({**spec, "separator": ";"})
    with pytest.raises(RewardError, match=r"`turns`: Input should be a valid boolean \(given: 'yes'\)"):
        resolve_reward({**spec, "turns": "yes"})
