"""The worker that measures one point of the growth curves: first training alone, then with the rollout before it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from cases import LEARNING_RATE, MAX_GRAD_NORM, SEED, case_of
from synthetic import grpo_batch, random_groups
from worker import Gate

from sharpen.methods.grpo import GRPO
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import load_policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local.engine import LocalEngine
from sharpen.training.annotate import Annotator
from sharpen.training.learner import Learner
from sharpen.training.settings import OptimizerSettings


def main() -> None:
    gate = Gate()
    settings = gate.settings()
    case = case_of(settings["case"])
    torch.set_num_threads(settings["threads"])
    policy = load_policy(settings["model"], compute_dtype="float32", device="cpu")
    policy.eos_ids = frozenset()
    # Weights that are still in a mapped file would be counted as the first step's.
    sum(p.sum() for p in policy.parameters())
    gate.loaded()
    groups = random_groups(case, policy.config.vocab_size, flat=settings["flat"])
    method = GRPO(group_size=case.group)
    (objective,) = method.objectives()
    limits = MicrobatchLimits(settings["tokens_per_microbatch"], shared_prompt=True)
    learner = Learner(
        method,
        {"policy": policy},
        Annotator({"policy": policy}, None, 1.0, limits),
        OptimizerSettings(learning_rate=LEARNING_RATE, max_grad_norm=MAX_GRAD_NORM),
        steps=1,
        completion_limit=case.limit,
    )
    engine = LocalEngine(policy)
    prompts = [group.prompt for group in groups]
    draw_ids = [range(p * case.group, (p + 1) * case.group) for p in range(case.prompts)]

    def train() -> None:
        batch = grpo_batch(method, groups, case.limit)
        learner.step("policy", [learner.forward_backward(objective, batch)], LEARNING_RATE)

    def draw() -> None:
        generate(engine, prompts, draw_ids, Sampling(case.limit), seed=SEED)

    gate.ready()
    for phase in (train, draw):
        gate.done(median_s=median_seconds(phase, settings["repetitions"]))


def median_seconds(phase: Callable[[], None], repetitions: int) -> float:
    """After one that warms up."""
    seconds = []
    for _ in range(1 + repetitions):
        started = time.perf_counter()
        phase()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
