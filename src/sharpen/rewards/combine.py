"""Several rewards as one, and the limit on failures."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from sharpen.errors import RewardError
from sharpen.rewards.reward import Reward, last_position, sample_name
from sharpen.types import Group, Score, StepValue


class WeightedSum(Reward):
    """``total = Σ weight · reward`` over the rewards that apply to a completion.

    A reward that does not apply (None) is left out of the sum; if none applies, the total is None. If one
    fails, the total is None too and the error is kept. A weight of 0 only logs a reward: it adds nothing,
    and is no reason for a total where nothing else applies. Parts carry the rewards' names, with ``_2``,
    ``_3``, … where two are called the same.

    Step values are weighted alike. Where one reward has steps, the value of one that has none stands at the last
    token the model wrote and is added to the last step's: the sum of the step rewards from any token on
    (DeepSeekMath 4.1.3, 2402.03300) then holds it.

    Raises `RewardError` for a weight that is not finite, and if no weight is different from 0.
    """

    def __init__(self, weighted: Sequence[tuple[Reward, float]], name: str = "sum") -> None:
        for reward, weight in weighted:
            if not math.isfinite(weight):
                raise RewardError(f"the weight of reward {reward.name!r} is {weight}; it must be finite")
        if not any(weight for _, weight in weighted):
            raise RewardError("a sum of rewards needs at least one reward with a weight other than 0")
        self.name = name
        self.rewards = tuple(reward for reward, _ in weighted)
        self.weights = tuple(float(weight) for _, weight in weighted)
        self.names = _unique([reward.name for reward in self.rewards])
        # Votes are counted on the answer of the first reward that reads one.
        self._voter = next((reward for reward in self.rewards if reward.has_answer), None)
        self.has_answer = self._voter is not None
        self.gives_steps = any(reward.gives_steps and weight for reward, weight in weighted)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        for reward in self.rewards:
            reward.use_tokenizer(tokenizer)

    def check_columns(self, columns: Collection[str], where: str) -> None:
        for reward in self.rewards:
            reward.check_columns(columns, where)

    def answer(self, completion: str) -> str | None:
        return None if self._voter is None else self._voter.answer(completion)

    def leaves(self) -> tuple[Reward, ...]:
        return tuple(leaf for reward in self.rewards for leaf in reward.leaves())

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        by_reward = [reward.score(groups) for reward in self.rewards]
        return [
            tuple(
                self._combine(scores, last_position(completion) if self.gives_steps else None)
                for completion, *scores in zip(group.completions, *group_scores, strict=True)
            )
            for group, *group_scores in zip(groups, *by_reward, strict=True)
        ]

    def _combine(self, scores: Sequence[Score], last: int | None) -> Score:
        """One score of several; ``last`` is where values without steps stand, None where there are no steps at all."""
        parts: dict[str, float | None] = {}
        for reward, name, score in zip(self.rewards, self.names, scores, strict=True):
            parts[name] = score.total
            parts.update({f"{name}/{part}": v for part, v in score.parts.items() if part != reward.name})
        errors = [score.error for score in scores if score.error is not None]
        if errors:
            return Score(None, parts, error="; ".join(errors))
        weighted = [(w, s) for w, s in zip(self.weights, scores, strict=True) if w and s.total is not None]
        if not weighted:
            return Score(None, parts)
        total = sum(weight * score.total for weight, score in weighted if score.total is not None)
        steps: list[StepValue] = []
        for weight, score in weighted:
            own = score.steps
            if not own and last is not None and score.total is not None:
                own = (StepValue(last, score.total),)
            steps += [StepValue(step.position, weight * step.value) for step in own]
        return Score(total, parts, tuple(sorted(steps, key=lambda step: step.position)))


def check_failures(groups: Sequence[Group], max_failure_rate: float) -> None:
    """Raises `RewardError` if more than this share of the scored completions failed.

    The message names the function, the first sample that failed and what was raised.
    """
    failed = [
        (group, index, score.error)
        for group in groups
        for index, score in enumerate(group.scores)
        if score.error is not None
    ]
    total = sum(len(group.scores) for group in groups)
    if len(failed) > max_failure_rate * total:
        group, index, error = failed[0]
        raise RewardError(
            f"the reward failed for {len(failed)} of {total} completions, more than the rate of "
            f"{max_failure_rate:g} allows. The first: {sample_name(group, index)}: {error}"
        )


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    unique: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in unique:
            candidate, number = f"{name}_{number}", number + 1
        unique.append(candidate)
    return tuple(unique)
