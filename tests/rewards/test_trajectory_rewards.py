"""Functions that take the whole trajectory, in threads, processes and on the event loop."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversations import cut_off, group_of, in_one_sample, in_two_samples
from sharpen.errors import RewardError
from sharpen.models.character_model import character_tokenizer
from sharpen.rewards import FunctionReward, Reward, Verifier, check, resolve_reward
from sharpen.types import Group, Trajectory, single_turn

CHARACTERS = character_tokenizer("0123456789+-=;#ab", context=64)
BOTH = (in_one_sample(CHARACTERS), in_two_samples(CHARACTERS))
ROW = {"answer": "3"}


def totals(reward: Any, *trajectories: Trajectory, **row: Any) -> list[float | None]:
    found: Reward = reward if isinstance(reward, Reward) else resolve_reward(reward)
    (scores,) = found.score([group_of(CHARACTERS, *trajectories, **row)])
    assert [score.error for score in scores] == [None] * len(trajectories)
    return [score.total for score in scores]


def tool_calls(trajectory: Trajectory) -> float:
    """100 a tool's message, 10 a sample, 1 a drawn token."""
    tools = sum(message["role"] == "tool" for message in trajectory.messages)
    return 100 * tools + 10 * len(trajectory.samples) + trajectory.drawn


def test_the_completion_is_the_last_answer() -> None:
    assert totals(lambda completion: float(completion == "2;3"), *BOTH) == [1.0, 1.0]


def test_a_function_may_take_the_trajectory_instead_of_the_completion() -> None:
    # Eight drawn tokens: 1+1 and its end, 2;3 and its end.
    assert totals(tool_calls, *BOTH) == [118.0, 128.0]
    assert totals(tool_calls, single_turn((1,), (2, 3, 1), "ab", versions=(0, 0, 0))) == [13.0]


def both(answer: str, trajectory: Trajectory, completion: str) -> float:
    return len(trajectory.messages) + 0.5 * (completion == "2;3") + 0.25 * (answer == "3")


def all_columns(trajectory: Trajectory, **row: Any) -> float:
    return len(trajectory.messages) + 10 * len(row)


def by_keyword(*, answer: str, trajectory: Trajectory) -> float:
    return len(trajectory.messages) + 0.25 * (answer == "3")


@pytest.mark.parametrize(("function", "expected"), [(both, 3.75), (all_columns, 13.0), (by_keyword, 3.25)])
def test_it_stands_beside_the_completion_and_the_columns(function: Callable[..., float], expected: float) -> None:
    assert totals(function, *BOTH, **ROW) == [expected, expected]


class Turns:
    """A reward whose setting is the worth of a turn."""

    def __init__(self, worth: float) -> None:
        self.worth = worth

    def __call__(self, trajectory: Trajectory) -> float:
        return self.worth * sum(message["role"] == "assistant" for message in trajectory.messages)


class AsyncTurns(Turns):
    async def __call__(self, trajectory: Trajectory) -> float:  # type: ignore[override]
        return super().__call__(trajectory)


class Thrifty(Verifier):
    """A verifier that reads more than the answer."""

    name = "thrifty"
    tokens: int

    def __call__(self, completion: str, trajectory: Trajectory, **row: Any) -> float:  # type: ignore[override]
        return float(trajectory.drawn <= self.tokens and completion == row["answer"])


@pytest.mark.parametrize("kind", [Turns, AsyncTurns])
def test_classes_and_async_calls_take_it_too(kind: type) -> None:
    assert totals({"name": kind, "worth": 2.0}, *BOTH) == [4.0, 4.0]


def test_a_verifier_may_take_it() -> None:
    shorter = cut_off(BOTH[1])
    assert totals({"name": Thrifty, "tokens": 7}, BOTH[0], shorter, answer="2;3") == [0.0, 1.0]


def test_verifiers_judge_the_last_answer() -> None:
    assert totals({"name": "exact_answer"}, *BOTH, answer="2;3") == [1.0, 1.0]
    assert totals({"name": "exact_answer"}, *BOTH, answer="1+1") == [0.0, 0.0]


def test_a_column_of_that_name_is_refused_before_the_first_step() -> None:
    reward = resolve_reward(both)
    reward.check_columns(["answer"], "rows.jsonl")
    with pytest.raises(RewardError, match=r"'both' takes the whole trajectory .* but rows.jsonl has a column of that"):
        reward.check_columns(["answer", "trajectory"], "rows.jsonl")
    with pytest.raises(RewardError, match="'both' needs the column 'answer'"):
        reward.check_columns(["trajectory"], "rows.jsonl")
    # A function that does not ask for the trajectory gets its column.
    assert totals(lambda completion, **row: row["trajectory"], *BOTH, trajectory=0.5) == [0.5, 0.5]


def nameless(text: str, /, trajectory: Trajectory) -> float:
    return 1.0


def positional(trajectory: Trajectory, /) -> float:
    return 1.0


def anything(completion: str, **row: Any) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (nameless, "nothing is passed to its positional-only parameter 'text'"),
        (positional, "its parameter 'trajectory' is positional-only"),
        (lambda **row: 1.0, "no parameter for the completion or the trajectory"),
        ({"name": all_columns, "trajectory": 1}, "takes no setting 'trajectory'"),
        ({"name": anything, "completion": "1"}, "takes no setting 'completion'"),
    ],
)
def test_what_cannot_be_called_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        resolve_reward(spec)


def test_the_text_is_not_passed_under_another_name() -> None:
    reward = resolve_reward(lambda text, trajectory: 1.0)
    with pytest.raises(RewardError, match="needs the column 'text'"):
        reward.check_columns(["prompt"], "rows")


MODULE = """
from sharpen.types import End, Finish, Sample, Trajectory

def same(trajectory, expected, completion=None):
    assert type(trajectory) is Trajectory
    assert type(trajectory.samples[0]) is Sample
    assert trajectory.end is End(trajectory.end)
    assert trajectory.last.finish is Finish(trajectory.last.finish)
    return float(repr(trajectory) == expected and completion == trajectory.text)

async def turns(trajectory):
    return float(len(trajectory.messages))

def by_turn(trajectory):
    return [len(m["content"]) for m in trajectory.messages if m["role"] == "assistant"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "judges.py"
    path.write_text(MODULE)
    return path


def test_it_crosses_to_another_process_whole(file: Path) -> None:
    """Every field of it, to the last bit of the log-probabilities."""
    for trajectory in (*BOTH, cut_off(BOTH[1])):
        spec = {"name": f"{file}:same", "expected": repr(trajectory), "call": {"process": True}}
        assert totals(spec, trajectory) == [1.0]


def test_async_and_step_functions_in_processes_take_it(file: Path) -> None:
    assert totals({"name": f"{file}:turns", "call": {"process": True}}, *BOTH) == [3.0, 3.0]
    spec = {"name": "steps", "function": f"{file}:by_turn", "turns": True, "total": "min", "call": {"process": True}}
    assert totals(spec, *BOTH) == [3.0, 3.0]


def test_what_a_process_cannot_be_sent_is_said(file: Path) -> None:
    odd = replace(BOTH[0], messages=({"role": "assistant", "content": object()},))
    reward = resolve_reward({"name": f"{file}:turns", "call": {"process": True}})
    ((score,),) = reward.score([group_of(CHARACTERS, odd)])
    assert "'trajectory' cannot be given to a function in another process" in str(score.error)


def right_in_one_turn(trajectory: Trajectory, answer: str) -> float:
    return float(len(trajectory.messages) == 1 and trajectory.text == answer and trajectory.truncated is False)


def test_a_reward_check_tries_single_turns() -> None:
    rows = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(10, 20)]
    report = check(right_in_one_turn, rows)
    assert report.references.full == 10
    assert report.ok, report.findings
    with pytest.raises(RewardError, match="has a column of that name"):
        check(right_in_one_turn, [{**row, "trajectory": "-"} for row in rows])


def test_such_a_function_reads_tokens() -> None:
    assert FunctionReward(tool_calls).reads_tokens
    assert not FunctionReward(anything).reads_tokens


def test_lengths_count_what_the_policy_drew_in_all_turns() -> None:
    """Eight tokens of the policy, and in one sample two of the tool, which do not count; 0 up to 6, −1 from 10 on."""
    reward = {"name": "soft_overlong", "l_max": 10, "l_cache": 4}
    untrained = replace(BOTH[0], samples=(replace(BOTH[0].last, loss_mask=(False,) * 4 + BOTH[0].loss_mask[4:]),))
    assert totals(reward, *BOTH, cut_off(BOTH[1]), untrained) == [-0.5, -0.5, -0.25, -0.5]


def test_a_majority_votes_on_last_answers() -> None:
    group: Group = group_of(CHARACTERS, *BOTH, answer="2;3")
    reward = resolve_reward("exact_answer")
    assert [reward.answer(t.text) for t in group.trajectories] == ["2;3", "2;3"]
