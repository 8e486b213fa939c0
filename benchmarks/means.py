"""What each of sharpen's means to save work is worth: the same work with and without it, in turns.

    python benchmarks/means.py [MODEL] [--repetitions 3] [--only WORD]

SmolLM2-135M by default, in the type that the processor computes in natively. Each pair runs in this process, one after
the other, after a turn that warms up; given are the medians, and the median, least and most of the ratios of two turns
that follow each other. Both sides of a pair train on, or draw, the same completions. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from cases import LEARNING_RATE, SEED, Case
from forced_sharpen import engine_of_lengths
from synthetic import grpo_batch, random_groups, random_prompts

from models import PLACES
from sharpen.config import OptimizerSettings
from sharpen.methods.grpo import GRPO
from sharpen.models.policy import Policy, load_policy
from sharpen.rollout import drawing
from sharpen.rollout.engine import Sampling
from sharpen.runtime.memory import keep_freed_memory
from sharpen.training.microbatch import usual_tokens
from sharpen.training.optimizer import make_optimizer
from sharpen.training.update import Limits, accumulate_gradient, all_outputs
from sharpen.types import Batch

THREADS = 2
LONG = Case("smollm2", prompt=256, limit=24, prompts=4, group=8, spread=False)
SHORT = Case("smollm2", prompt=48, limit=48, prompts=4, group=8)
Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pair:
    """One piece of work, done with a means and without it."""

    means: str
    case: Case
    with_it: Run
    without: Run


def training_pairs(policy: Policy) -> list[Pair]:
    def batch_of(case: Case) -> Batch:
        return grpo_batch(GRPO(group_size=case.group), random_groups(case, policy.config.vocab_size), case.limit)

    long, short = batch_of(LONG), batch_of(SHORT)
    (objective,) = GRPO(group_size=LONG.group).objectives()
    limits = Limits(usual_tokens(policy, LONG.prompt), shared_prompt=True)

    def train(batch: Batch, limits: Limits = limits) -> None:
        policy.model.zero_grad(set_to_none=True)
        accumulate_gradient(policy, objective, batch, 1.0, limits)

    def train_after_a_pass() -> None:
        old_BT = all_outputs(policy, short, "logprobs", 1.0, limits)
        train(replace(short, old_logprobs_BT=old_BT))

    return [
        Pair(
            "training: a prompt once for its group, rather than for each completion",
            LONG,
            lambda: train(long),
            lambda: train(long, replace(limits, shared_prompt=False)),
        ),
        Pair(
            "training: the first update's old log-probabilities from its own pass, rather than from one before",
            SHORT,
            lambda: train(short),
            train_after_a_pass,
        ),
        Pair(
            "training: two threads, rather than one", SHORT, lambda: train(short), on_one_thread(lambda: train(short))
        ),
    ]


def optimizer_pair(policy: Policy) -> Pair:
    """Both change the weights by what no later pair could notice."""
    parameters = list(policy.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    fused = make_optimizer(parameters, OptimizerSettings(learning_rate=LEARNING_RATE))
    plain = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=False, foreach=False)
    return Pair("AdamW: fused, rather than operation by operation", SHORT, fused.step, plain.step)


def drawing_pairs(policy: Policy) -> list[Pair]:
    def draw(case: Case, prompt_once: bool = True, sequences: int = 512, together: int | None = None) -> None:
        """``together``: so many rows at a time, of which none begins before all have ended."""
        engine = engine_of_lengths(case.lengths())(policy)
        prompts = random_prompts(case, policy.config.vocab_size)
        ids = [range(p * case.group, (p + 1) * case.group) for p in range(case.prompts)]
        if not prompt_once:
            prompts, ids = [p for p in prompts for _ in range(case.group)], [[i] for group in ids for i in group]
        many = len(prompts) if together is None else together // case.group
        for first in range(0, len(prompts), many):
            part = slice(first, first + many)
            engine.generate(prompts[part], ids[part], Sampling(case.limit, max_sequences=sequences), SEED)

    def without_leaving() -> None:
        usual, drawing.COMPACT_AT = drawing.COMPACT_AT, 0.0
        try:
            draw(SHORT)
        finally:
            drawing.COMPACT_AT = usual

    spread = replace(LONG, spread=True)
    return [
        Pair(
            "rollout: a prompt once for its group, rather than for each completion",
            spread,
            lambda: draw(spread),
            lambda: draw(spread, prompt_once=False),
        ),
        Pair("rollout: rows that have ended leave, rather than stay", SHORT, lambda: draw(SHORT), without_leaving),
        Pair(
            "rollout, 8 rows at a time: others begin where some have ended, rather than all have",
            SHORT,
            lambda: draw(SHORT, sequences=8),
            lambda: draw(SHORT, together=8),
        ),
        Pair("rollout: two threads, rather than one", SHORT, lambda: draw(SHORT), on_one_thread(lambda: draw(SHORT))),
    ]


def on_one_thread(run: Run) -> Run:
    def alone() -> None:
        torch.set_num_threads(1)
        try:
            run()
        finally:
            torch.set_num_threads(THREADS)

    return alone


def measure(pair: Pair, repetitions: int) -> str:
    """A row of the table."""
    turns = [[seconds(run) for run in (pair.with_it, pair.without)] for _ in range(1 + repetitions)][1:]
    with_s, without_s = (statistics.median(side) for side in zip(*turns, strict=True))
    ratios = sorted(without / with_it for with_it, without in turns)
    case = f"{pair.case.prompt} × {pair.case.limit}, {pair.case.prompts} × {pair.case.group}"
    spread = f"{statistics.median(ratios):.2f} × [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
    return f"| {pair.means} | {case} | {with_s:.3g} | {without_s:.3g} | {spread} |"


def seconds(run: Run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=PLACES["smollm2"])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", default="", help="pairs whose description contains this")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    policy = load_policy(arguments.model, compute_dtype="auto", device="cpu")
    print(f"{arguments.model.name} in {policy.compute_dtype}, torch {torch.__version__}\n")
    print("| means | prompt × limit, prompts × group | with it, s | without, s | ratio |\n|---|---|---|---|---|")
    for pair in [*training_pairs(policy), *drawing_pairs(policy), optimizer_pair(policy)]:
        if arguments.only in pair.means:
            print(measure(pair, arguments.repetitions), flush=True)


if __name__ == "__main__":
    main()
