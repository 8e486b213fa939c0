"""A task of two turns, learned from a model of random weights by GRPO, GSPO and PPO.

The policy has to write ``?`` first; the function then tells it a digit, which it has to write in its second turn. The
prompt says nothing of the digit: whoever does not ask, or does not read the answer, is right half of the time at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import sharpen
from sharpen.launch.run import Run
from sharpen.models.character_model import character_tokenizer, create_character_model
from sharpen.rewards.reward import Reward
from sharpen.rollout.turns import Reply
from sharpen.types import End, Group, Prompt, Score, Trajectory

ALPHABET = "01?-ab"
ID = character_tokenizer(ALPHABET, context=16).get_vocab()
PROMPTS = [a + b + c for a in "ab" for b in "ab" for c in "ab"]
ROWS = [{"prompt": prompt, "digit": digit} for prompt in PROMPTS for digit in "01"]


def told(prompt: Prompt, trajectory: Trajectory) -> str | None:
    """What the policy is told: the digit if it asked for it; None once it has answered."""
    if len(trajectory.messages) > 1:
        return None
    return str(prompt.row["digit"]) if trajectory.text == "?" else "-"


def appended(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
    """The conversation is one run of tokens."""
    answer = told(prompt, trajectory)
    if answer is None:
        return End.DONE
    (sample,) = trajectory.samples
    return Reply((*sample.prefix_ids, *sample.token_ids, ID[answer]), ({"role": "tool", "content": answer},))


def rendered_again(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
    """The second turn does not see the first."""
    answer = told(prompt, trajectory)
    if answer is None:
        return End.DONE
    return Reply((*prompt.token_ids, ID[answer]), ({"role": "tool", "content": answer},))


def never_told(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
    """A control: the answer is the same to all."""
    reply = appended(prompt, trajectory)
    return reply if isinstance(reply, End) else Reply((*reply.token_ids[:-1], ID["-"]))


class AskedAndRight(Reward):
    """1 for a trajectory that asked in its first turn and has the digit in its last."""

    name = "asked_and_right"

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        return [
            tuple(
                Score(float(t.messages[0]["content"] == "?" and t.text == group.prompt.row["digit"]))
                for t in group.trajectories
            )
            for group in groups
        ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_character_model(
        tmp_path_factory.mktemp("turns"), alphabet=ALPHABET, hidden=32, intermediate=64, layers=2, heads=2, context=16
    )


METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "grpo": ({}, 4e-3),
    "gspo": ({"minibatches": 2}, 4e-3),
    "ppo": ({"lam": 1.0, "minibatches": 2}, 2e-3),
}
"""Settings, and the learning rate."""


def learn(model: Path, method: str, turns: str, run: Path) -> Run:
    settings, rate = METHODS[method]
    return sharpen.train(
        model,
        {"name": method, "group_size": 8, **settings},
        ROWS,
        held_out=ROWS,
        reward=AskedAndRight(),
        run=run,
        quiet=True,
        seed=1,
        # Every character ends a turn.
        rollout={
            "max_new_tokens": 6,
            "stop": list(ALPHABET),
            "turns": f"{__file__}:{turns}",
            "max_turns": 2,
        },
        optimizer={"learning_rate": rate},
        training={"steps": 45, "prompts_per_step": 16},
        evaluation={"every": 1000, "prompts": len(ROWS), "n": 8},
    )


def shares(run: Run) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Of right answers before and after, with their intervals."""
    rows = [row for row in run.metric_rows() if "held_out/pass@1" in row]
    return rows[0], rows[-1]


@pytest.mark.parametrize("turns", ["appended", "rendered_again"])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_learns_to_ask_and_to_use_the_answer(method: str, turns: str, model: Path, tmp_path: Path) -> None:
    run = learn(model, method, turns, tmp_path / "run")
    before, after = shares(run)
    last = run.metric_rows()[-1]
    assert (last["turns/mean"], last["samples/mean"]) == (2, 1 if turns == "appended" else 2)
    assert before["held_out/pass@1_high"] < 0.1
    assert after["held_out/pass@1_low"] > 0.8


def test_who_is_told_nothing_is_right_half_of_the_time(model: Path, tmp_path: Path) -> None:
    """It learns to ask. 0.65 is 3.4 standard deviations of 128 guesses above one half."""
    run = learn(model, "grpo", "never_told", tmp_path / "run")
    _, after = shares(run)
    assert 0.35 < after["held_out/pass@1"] < 0.65
