"""How long planning a step's micro-batches takes, beside sorting as many numbers.

    python benchmarks/planning.py [--completions 4096]

GRPO steps of random completions of up to 1024 tokens, in groups of 8 and of 64, planned for every layout on one thread:
packed rows with the prompt shared or not, and padded rows; the least of some attempts, in turns with sorting as many
Python floats. "Again" is a further pass over the same step with the same `Planner`. No model is needed. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from cases import SEED, Case
from synthetic import grpo_batch, random_groups

from sharpen.methods.grpo import GRPO
from sharpen.models.packing.microbatches import Cost, Planner
from sharpen.types import Batch

LAYOUTS = {"shared": (True, False), "not shared": (False, False), "padded": (False, True)}
LIMITS = (4096, 32768)
GROUPS = (8, 64)
SMOLLM2 = Cost(per_token=6.0 * 106e6, per_pair=12.0 * 30 * 576)
ATTEMPTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, nargs="+", default=[4096])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| completions | group | layout | limit, tokens | micro-batches | planning ms | × sorting | again ms |")
    print("|" + "---|" * 8)
    for count in given.completions:
        for group in GROUPS:
            case = Case("none", prompt=256, limit=1024, prompts=count // group, group=group)
            for cells in rows(grpo_batch(GRPO(group_size=group), random_groups(case, 512), case.limit)):
                print(f"| {count} | {group} | {' | '.join(cells)} |", flush=True)


def rows(batch: Batch) -> Iterator[tuple[str, ...]]:
    """A row of the table for each layout and limit."""
    draw = random.Random(SEED)
    numbers = [draw.random() for _ in range(len(batch))]
    for layout, (shared, padded) in LAYOUTS.items():
        for limit in LIMITS:

            def plan(planner: Planner, shared: bool = shared, padded: bool = padded, limit: int = limit) -> int:
                return len(planner.plan(batch, tokens_per_microbatch=limit, shared=shared, padded=padded, cost=SMOLLM2))

            known = Planner()
            count = plan(known)
            turns = [
                (seconds(partial(plan, Planner())), seconds(partial(sorted, numbers)), seconds(partial(plan, known)))
                for _ in range(ATTEMPTS)
            ]
            planning_s, sorting_s, again_s = (min(side) for side in zip(*turns, strict=True))
            yield (
                layout,
                str(limit),
                str(count),
                f"{planning_s * 1e3:.1f}",
                f"{planning_s / sorting_s:.0f}",
                f"{again_s * 1e3:.1f}",
            )


def seconds(act: Callable[[], object]) -> float:
    """Of this thread's processor time."""
    started = time.thread_time()
    act()
    return time.thread_time() - started


if __name__ == "__main__":
    main()
