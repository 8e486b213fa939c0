"""The completions of a step made up, and the batch that GRPO makes of them."""

from __future__ import annotations

import random

from cases import SEED, Case

from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.methods.grpo import GRPO
from sharpen.training.update import with_weights
from sharpen.types import Finish, Group, Prompt, Score, single_turn

SPECIAL = 3
"""Tokens at the start of the vocabulary that are no letters."""


def random_prompts(case: Case, vocabulary: int, *, seed: int = SEED) -> list[Prompt]:
    draw = random.Random(seed)
    return [
        Prompt(str(p), tuple(draw.randrange(SPECIAL, vocabulary) for _ in range(case.prompt)), "", {})
        for p in range(case.prompts)
    ]


def random_groups(case: Case, vocabulary: int, *, flat: int = 0, seed: int = SEED) -> list[Group]:
    """Random tokens and random rewards; in the first ``flat`` groups all rewards are equal."""
    draw = random.Random(seed)
    lengths = case.lengths()
    groups = []
    for p, prompt in enumerate(random_prompts(case, vocabulary, seed=seed)):
        completions = tuple(
            single_turn(
                prompt.token_ids,
                tuple(draw.randrange(SPECIAL, vocabulary) for _ in range(length)),
                "",
                finish=Finish.LENGTH,
            )
            for length in lengths[p * case.group : (p + 1) * case.group]
        )
        scores = [Score(1.0 if p < flat else draw.random()) for _ in completions]
        groups.append(Group(prompt, completions).scored(scores))
    return groups


def grpo_batch(method: GRPO, groups: list[Group], limit: int) -> Batch:
    """A batch as the trainer hands it to an optimizer step."""
    batch = collate(groups, completion_limit=limit)
    return with_weights(method, batch.with_streams(advantages=method.advantages(batch).float()))
