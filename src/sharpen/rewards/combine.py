"""The weighted sum of several rewards."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from transformers import PreTrainedTokenizerBase

from sharpen.errors import RewardError
from sharpen.rewards.execution.concurrency import run_concurrently
from sharpen.rewards.function import FunctionReward, RewardFunction
from sharpen.rewards.gate import Gate
from sharpen.rewards.reward import Reward, Wanted, at_the_end
from sharpen.types import Group, Row, Score, StepValue, Trajectory, WeightedReward


class WeightedSum(Reward):
    """``total = Σ weight · reward`` over the rewards that apply to a completion.

    A reward that does not apply (None) is left out of the sum; if none applies, the total is None. If one fails, the
    total is None and the error is kept. A reward of weight 0 is only logged: it adds nothing, and does not make a total
    where no other reward applies. Parts have the rewards' names, with ``_2``, ``_3``, … for duplicates. Rewards run
    concurrently, see `Reward.concurrency_group`.

    ``gates`` maps positions in ``weighted`` to gates. If a gate is closed, the total is its ``otherwise`` and each
    weighted reward is 0. If several are closed, the first counts.

    Step values are weighted alike. If any reward has steps, the total of a reward without steps becomes a step at the
    last token that the model generated, so that the sum of the step rewards from any token on (DeepSeekMath 4.1.3,
    2402.03300) includes it. If a gate is closed, the total is the only step.

    A function or verifier among ``weighted`` becomes a `FunctionReward`. Raises `RewardError` for a weight that is not
    finite, and if all weights are 0.
    """

    def __init__(
        self,
        weighted: Sequence[tuple[Reward | RewardFunction, float]],
        name: str = "sum",
        *,
        gates: Mapping[int, Gate] | None = None,
    ) -> None:
        rewards = [reward if isinstance(reward, Reward) else FunctionReward(reward) for reward, _ in weighted]
        for reward, (_, weight) in zip(rewards, weighted, strict=True):
            if not math.isfinite(weight):
                raise RewardError(f"the weight of reward {reward.name!r} is {weight}; it must be finite")
        if not any(weight for _, weight in weighted):
            raise RewardError("a sum of rewards needs at least one reward with a weight other than 0")
        self.name = name
        self.rewards = tuple(rewards)
        self.weights = tuple(float(weight) for _, weight in weighted)
        self.names = unique_names([reward.name for reward in self.rewards])
        self.gates = dict(sorted((gates or {}).items()))
        self._otherwise = any(gate.otherwise for gate in self.gates.values())
        self.term_weights = tuple(weight for weight in self.weights if weight) + ((1.0,) if self._otherwise else ())
        # Majority voting uses the answers of the first reward that has them.
        self._voter = next((reward for reward in self.rewards if reward.has_answer), None)
        self.has_answer = self._voter is not None
        self.gives_steps = any(
            reward.gives_steps and weight for reward, weight in zip(self.rewards, self.weights, strict=True)
        )

    @property
    def part_names(self) -> tuple[str, ...] | None:
        names: list[str] = []
        for reward, name in zip(self.rewards, self.names, strict=True):
            if reward.part_names is None:
                return None
            names += [name, *(f"{name}/{part}" for part in reward.part_names if part != reward.name)]
        return tuple(names)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        for reward in self.rewards:
            reward.use_tokenizer(tokenizer)

    def check_columns(self, columns: Collection[str], where: str) -> None:
        for reward in self.rewards:
            reward.check_columns(columns, where)

    def check_row(self, row: Row, where: str) -> None:
        for reward in self.rewards:
            reward.check_row(row, where)

    def columns_read(self, columns: Sequence[str]) -> tuple[str, ...]:
        read = {column for reward in self.rewards for column in reward.columns_read(columns)}
        return tuple(column for column in columns if column in read)

    def answer(self, completion: str) -> str | None:
        return None if self._voter is None else self._voter.answer(completion)

    def leaves(self) -> tuple[Reward, ...]:
        return tuple(leaf for reward in self.rewards for leaf in reward.leaves())

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        return self.score_timed(groups)[0]

    def score_timed(self, groups: Sequence[Group]) -> tuple[list[tuple[Score, ...]], Mapping[str, float]]:
        everything = [(True,) * len(group.trajectories) for group in groups]
        skipping = {place: gate for place, gate in self.gates.items() if gate.skip}
        others = [place for place in range(len(self.rewards)) if place not in skipping]
        timed = self._each(list(skipping), groups, everything)
        opened = _open(everything, skipping, {place: scores for place, (scores, _) in timed.items()})
        timed |= self._each(others, groups, opened)
        by_reward = [timed[place][0] for place in range(len(self.rewards))]
        combined = [
            tuple(
                self._combine(scores, trajectory)
                for trajectory, *scores in zip(group.trajectories, *group_scores, strict=True)
            )
            for group, *group_scores in zip(groups, *by_reward, strict=True)
        ]
        return combined, {self.names[place]: seconds for place, (_, seconds) in timed.items()}

    def _each(
        self, places: Sequence[int], groups: Sequence[Group], wanted: Wanted
    ) -> dict[int, tuple[list[tuple[Score, ...]], float]]:
        """The scores of these rewards, which run concurrently, and the seconds that each took."""
        rewards = [self.rewards[place] for place in places]
        jobs = [(reward.concurrency_group, partial(timed, reward, groups, wanted)) for reward in rewards]
        return dict(zip(places, run_concurrently(jobs), strict=True))

    def _combine(self, scores: Sequence[Score], trajectory: Trajectory) -> Score:
        parts: dict[str, float | None] = {}
        for reward, name, score in zip(self.rewards, self.names, scores, strict=True):
            parts[name] = score.total
            parts.update({f"{name}/{part}": v for part, v in score.parts.items() if part != reward.name})
        retries = sum(score.retries for score in scores)
        errors = [score.error for score in scores if score.error is not None]
        late = any(score.timed_out for score in scores)
        refused = "; ".join(score.refused for score in scores if score.refused is not None) or None
        if errors:
            return Score(None, parts, error="; ".join(errors), timed_out=late, retries=retries, refused=refused)
        closed = next((gate for place, gate in self.gates.items() if gate.closed(scores[place].total)), None)
        weighted = [(w, s) for w, s in zip(self.weights, scores, strict=True) if w and s.total is not None]
        if closed is not None:
            weighted = [(1.0, Score(closed.otherwise))]
        elif not weighted:
            return Score(None, parts, timed_out=late, retries=retries, refused=refused)
        total = sum(weight * score.total for weight, score in weighted if score.total is not None)
        weighted_rewards = self._weighted_rewards(scores, closed)
        steps = _steps(weighted, trajectory if self.gives_steps else None)
        return Score(
            total,
            parts,
            steps,
            timed_out=late,
            retries=retries,
            weighted_rewards=weighted_rewards,
            refused=refused,
        )

    def _weighted_rewards(self, scores: Sequence[Score], closed: Gate | None) -> tuple[WeightedReward, ...]:
        """The terms of the total; a gate's ``otherwise`` is a term of its own if any gate has one other than 0."""
        weighted_rewards = [
            WeightedReward(weight, score.total if closed is None else 0.0)
            for weight, score in zip(self.weights, scores, strict=True)
            if weight
        ]
        if self._otherwise:
            weighted_rewards.append(WeightedReward(1.0, 0.0 if closed is None else closed.otherwise))
        return tuple(weighted_rewards)


def timed(
    reward: Reward, groups: Sequence[Group], wanted: Wanted | None = None
) -> tuple[list[tuple[Score, ...]], float]:
    """The scores of the wanted completions, None meaning all, and the seconds that they took."""
    started = time.perf_counter()
    if wanted is None or all(map(all, wanted)):
        scores = reward.score(groups)
    else:
        scores = reward.score_where(groups, wanted)
    return scores, time.perf_counter() - started


def _steps(weighted: Sequence[tuple[float, Score]], trajectory: Trajectory | None) -> tuple[StepValue, ...]:
    """The weighted values of all steps, in order. With ``trajectory``, a total without steps is a step at its end."""
    steps: list[StepValue] = []
    for weight, score in weighted:
        own = score.steps
        if not own and trajectory is not None and score.total is not None:
            own = (at_the_end(trajectory, score.total),)
        steps += [replace(step, value=weight * step.value) for step in own]
    return tuple(sorted(steps, key=lambda step: (step.sample, step.position)))


def _open(wanted: Wanted, gates: Mapping[int, Gate], found: Mapping[int, Sequence[Sequence[Score]]]) -> Wanted:
    """The wanted completions for which no gate is closed."""
    if not gates:
        return wanted
    return [
        [
            want and not any(gate.closed(found[place][g][i].total) for place, gate in gates.items())
            for i, want in enumerate(of_group)
        ]
        for g, of_group in enumerate(wanted)
    ]


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with ``_2``, ``_3``, … for duplicates."""
    unique: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in unique:
            candidate, number = f"{name}_{number}", number + 1
        unique.append(candidate)
    return tuple(unique)
