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
from collections.abc import Iterator
from pathlib import Path

import torch
from cases import Case
from means_rollout import draw, rollout_pairs
from means_training import batch_of, optimizer_pair, training_pairs
from pair import THREADS, Pair, Run

from models import PLACES
from sharpen.methods.grpo import GRPO
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import Policy, load_policy
from sharpen.system.memory import keep_freed_memory
from sharpen.training.microbatch import usual_tokens
from sharpen.training.update import accumulate_gradient

BOTH_TYPES = Case("smollm2", prompt=48, limit=16, prompts=2, group=4, spread=False)


def type_pair(native: Policy, model: Path) -> Pair:
    """Weights and gradients are in float32 on both sides."""
    other = load_policy(
        model, compute_dtype="float32" if native.compute_dtype == "bfloat16" else "bfloat16", device="cpu"
    )
    (objective,) = GRPO(group_size=BOTH_TYPES.group).objectives()

    def step(policy: Policy) -> Run:
        batch = batch_of(policy, BOTH_TYPES)
        limits = MicrobatchLimits(usual_tokens(policy, BOTH_TYPES.prompt), shared_prompt=True)

        def run() -> None:
            draw(policy, BOTH_TYPES)
            policy.model.zero_grad(set_to_none=True)
            accumulate_gradient(policy, objective, batch, 1.0, limits)

        return run

    means = f"rollout and training: products in {native.compute_dtype}, rather than {other.compute_dtype}"
    return Pair(means, BOTH_TYPES, step(native), step(other))


def pairs(policy: Policy, model: Path) -> Iterator[Pair]:
    yield from training_pairs(policy)
    yield from rollout_pairs(policy)
    yield optimizer_pair(policy)
    yield type_pair(policy, model)


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
    for pair in pairs(policy, arguments.model):
        if arguments.only in pair.means:
            print(measure(pair, arguments.repetitions), flush=True)


if __name__ == "__main__":
    main()
