"""The rewards of a run with several data sources: each prompt's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from transformers import PreTrainedTokenizerBase

from sharpen.rewards.combine import timed, unique_names
from sharpen.rewards.execution.concurrency import run_concurrently
from sharpen.rewards.reward import Reward, all_part_names
from sharpen.types import Group, Row, Score, WeightedReward


class BySource(Reward):
    """Scores each group with the reward of its prompt's source, as that reward alone would.

    Rewards run concurrently, see `Reward.concurrency_group`. Votes and steps are there if all of them have them. If any
    total is a weighted sum, the terms of all rewards are those of each score: the terms of other sources' rewards do
    not apply to it, and a total that is no sum is its only term. Groups of a source without a reward get no score:
    whoever needs one checks `scores_source` first.
    """

    name = "by_source"

    def __init__(self, rewards: Mapping[str, Reward]) -> None:
        """``rewards`` by the source's name."""
        self.rewards = dict(rewards)
        # One that several sources share scores all their groups in one call.
        distinct = list({id(reward): reward for reward in self.rewards.values()}.values())
        self._distinct = dict(zip(unique_names([reward.name for reward in distinct]), distinct, strict=True))
        self.has_answer = all(reward.has_answer for reward in self.rewards.values())
        self.gives_steps = all(reward.gives_steps for reward in self.rewards.values())
        self.reads_tokens = any(reward.reads_tokens for reward in self.rewards.values())
        sums = any(reward.term_weights for reward in self.rewards.values())
        self._terms = {name: reward.term_weights or (1.0,) for name, reward in self.rewards.items()} if sums else {}
        self.term_weights = tuple(weight for weights in self._terms.values() for weight in weights)

    @property
    def part_names(self) -> tuple[str, ...] | None:
        return all_part_names(self._distinct.values())

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        for reward in self._distinct.values():
            reward.use_tokenizer(tokenizer)

    def check_columns(self, columns: Collection[str], where: str) -> None:
        """Not defined for rows of several sources: check `of_source` with the rows of each."""
        raise TypeError(f"{where}: each source has a reward of its own, to be checked with its rows")

    def check_row(self, row: Row, where: str) -> None:
        """Not defined, as `check_columns` is not."""
        self.check_columns(row.keys(), where)

    def leaves(self) -> tuple[Reward, ...]:
        return tuple(leaf for reward in self._distinct.values() for leaf in reward.leaves())

    def of_source(self, source: str) -> Reward:
        return self.rewards[source]

    def scores_source(self, source: str) -> bool:
        return source in self.rewards

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        return self.score_timed(groups)[0]

    def score_timed(self, groups: Sequence[Group]) -> tuple[list[tuple[Score, ...]], Mapping[str, float]]:
        places: dict[str, list[int]] = {
            name: [place for place, group in enumerate(groups) if self.rewards.get(group.prompt.source) is reward]
            for name, reward in self._distinct.items()
        }
        called = [(name, self._distinct[name], where) for name, where in places.items() if where]
        jobs = [
            (reward.concurrency_group, partial(timed, reward, [groups[place] for place in where]))
            for _, reward, where in called
        ]
        found = {
            place: (Score(None),) * len(group.trajectories)
            for place, group in enumerate(groups)
            if not self.scores_source(group.prompt.source)
        }
        seconds: dict[str, float] = {}
        for (name, _, where), (scores, took_s) in zip(called, run_concurrently(jobs), strict=True):
            seconds[name] = took_s
            found.update(zip(where, scores, strict=True))
        return [self._with_terms(group.prompt.source, found[i]) for i, group in enumerate(groups)], seconds

    def _with_terms(self, source: str, scores: tuple[Score, ...]) -> tuple[Score, ...]:
        if not self._terms:
            return scores
        return tuple(replace(score, weighted_rewards=self._all_terms(source, score)) for score in scores)

    def _all_terms(self, source: str, score: Score) -> tuple[WeightedReward, ...]:
        if score.total is None:
            return ()
        own = score.weighted_rewards or (WeightedReward(1.0, score.total),)
        return tuple(
            term
            for name, weights in self._terms.items()
            for term in (own if name == source else (WeightedReward(weight, None) for weight in weights))
        )
