"""What saves work in a rollout, each with and without it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import torch
from cases import SEED, Case
from forced_sharpen import engine_of_lengths
from means_training import LONG, SHORT
from pair import Pair, on_one_thread, under
from synthetic import random_prompts

from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local import projections, scheduler


def rollout_pairs(policy: Policy) -> list[Pair]:
    spread = replace(LONG, spread=True)

    def short() -> None:
        draw(policy, SHORT)

    return [
        Pair(
            "rollout: a prompt once for its group, rather than for each completion",
            spread,
            lambda: draw(policy, spread),
            lambda: draw(policy, spread, prompt_once=False),
        ),
        Pair(
            "rollout: rows that have ended leave, rather than stay",
            SHORT,
            short,
            under(lambda: mock.patch.object(scheduler, "COMPACT_AT", 0.0), short),
        ),
        Pair(
            "rollout, 8 rows at a time: others begin where some have ended, rather than all have",
            SHORT,
            lambda: draw(policy, SHORT, sequences=8),
            lambda: draw(policy, SHORT, together=8),
        ),
        Pair(
            "rollout: weights in oneDNN's blocked layout where it helps, rather than as they are",
            SHORT,
            short,
            under(_no_blocks, short),
        ),
        Pair("rollout: two threads, rather than one", SHORT, short, on_one_thread(short)),
    ]


def draw(
    policy: Policy, case: Case, prompt_once: bool = True, sequences: int = 512, together: int | None = None
) -> None:
    """``together``: so many rows at a time, of which none begins before all have ended."""
    engine = engine_of_lengths(case.lengths())(policy, max_sequences=sequences)
    prompts = random_prompts(case, policy.config.vocab_size)
    ids = [range(p * case.group, (p + 1) * case.group) for p in range(case.prompts)]
    if not prompt_once:
        prompts, ids = [p for p in prompts for _ in range(case.group)], [[i] for group in ids for i in group]
    many = len(prompts) if together is None else together // case.group
    for first in range(0, len(prompts), many):
        part = slice(first, first + many)
        generate(engine, prompts[part], ids[part], Sampling(case.limit), SEED)


@contextlib.contextmanager
def _no_blocks() -> Iterator[None]:
    with (
        mock.patch.object(projections, "_blocked_is_faster", return_value=False),
        mock.patch.object(torch.backends.mkldnn, "is_available", return_value=False),
    ):
        yield
