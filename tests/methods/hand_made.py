"""Batches small enough to work a method out by hand, and a world whose policy answers by script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.data.collate import collate
from sharpen.methods import Method
from sharpen.rollout.sources import Collected
from sharpen.training.update import with_weights
from sharpen.types import Finish, Group, Prompt, Score, Trajectory, single_turn
from tiny_models import with_given

PREFIX = (1, 2)


def completion(*token_ids: int, cut: bool = False) -> Trajectory:
    finish = Finish.LENGTH if cut else Finish.EOS
    return single_turn(PREFIX, token_ids, "".join(map(str, token_ids)), finish=finish)


def prompt(name: str) -> Prompt:
    return Prompt(name, PREFIX, name, {"prompt": name})


def group(name: str, *answers: tuple[Trajectory, float | None]) -> Group:
    completions, totals = zip(*answers, strict=True)
    return Group(prompt(name), completions).scored([Score(total, error=None) for total in totals])


def rollout(rewards: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]], limit: int = 10) -> Batch:
    """Groups of completions of these lengths, cut off where they have ``limit`` tokens."""
    groups = [
        group(
            str(g),
            *(
                (completion(*range(3 + 20 * i, 3 + 20 * i + length), cut=length == limit), reward)
                for i, (reward, length) in enumerate(zip(*of_group, strict=True))
            ),
        )
        for g, of_group in enumerate(zip(rewards, lengths, strict=True))
    ]
    return collate(groups, completion_limit=limit)


def rows(*values: Sequence[float]) -> Tensor:
    """[B, T], padded with a number that a mistake would show."""
    longest = max(map(len, values))
    return torch.tensor([[*row, *[7.7] * (longest - len(row))] for row in values], dtype=torch.float64)


def ready(method: Method, batch: Batch, **given: Any) -> Batch:
    """With advantages, targets, the tokens that are trained on, and weights, as the trainer makes them."""
    start = {name: coefficient.initial for name, coefficient in method.coefficients().items()}
    batch = with_given(batch, **{"coefficients": start, **given})
    batch = with_given(
        batch,
        advantages=method.advantages(batch),
        targets=method.targets(batch),
        mask_ET=method.loss_mask(batch),
    )
    return with_weights(method, batch)


def losses(method: Method, batch: Batch, **said: Tensor) -> Mapping[str, float]:
    """The loss of each model that is trained, when it says this of the batch."""
    result = {}
    for objective in method.objectives():
        terms = objective.terms(Outputs(**said), batch).loss
        result[objective.model] = (batch["weights"] * terms).sum().item()
    return result


class ScriptedCollector:
    """``answers[prompt]`` are its completions of each round, with their rewards. Records the kept groups."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[tuple[Trajectory, float | None]]]]) -> None:
        self.answers = {name: iter(rounds) for name, rounds in answers.items()}
        self.names = list(answers)
        self.asked: list[tuple[list[str], int]] = []
        self.rewards: dict[int, float | None] = {}
        self.kept: list[Group] = []

    def first_prompts(self, at_most: int | None) -> list[Prompt]:
        return [prompt(name) for name in self.names[:at_most]]

    def next_prompts(self, count: int) -> list[Prompt]:
        self.names = self.names[count:] + self.names[:count]
        return [prompt(name) for name in self.names[-count:]]

    def next_groups(self, count: int) -> list[Group]:
        return self.kept[:count]

    def collect(self, prompts: list[Prompt], group_size: int) -> Collected:
        self.asked.append(([p.id for p in prompts], group_size))
        drawn = [group(p.id, *next(self.answers[p.id])) for p in prompts]
        assert all(len(g.trajectories) == group_size for g in drawn)
        return Collected(drawn)

    def keep(self, groups: list[Group]) -> None:
        self.kept = groups
