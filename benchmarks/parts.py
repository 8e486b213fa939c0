"""Where the time of a decoding step and of a training pass goes: products of matrices, other operations, Python.

    python benchmarks/parts.py [MODEL] [--rows 1 8 64] [--top 6]

SmolLM2-135M by default, in the type that the processor computes in natively. A decoding step is what a rollout of 32
tokens takes more than one of 1, over 31; a training pass is forward and backward of 4 prompts of 48 tokens with 8
completions each. "Seconds" are without the profiler; the parts are the operations' own times as PyTorch's profiler
counts them, some microseconds too many for each call. What is left of the seconds is Python and what lies between
operations. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from cases import SEED, Case
from forced_sharpen import engine_of_lengths
from synthetic import grpo_batch, random_groups, random_prompts
from torch.profiler import ProfilerActivity, profile

from models import PLACES
from sharpen.methods.grpo import GRPO
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import Policy, load_policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.system.memory import keep_freed_memory
from sharpen.training.microbatch import usual_tokens
from sharpen.training.update import accumulate_gradient

THREADS = 2
REPETITIONS = 3
CASE = Case("smollm2", prompt=48, limit=48, prompts=4, group=8)
TOKENS = 32
OPERATION = ("aten::", "mkldnn::")
KINDS = {
    "products with weights": ("aten::mm", "aten::addmm", "mkldnn::_linear_pointwise", "aten::mkldnn_linear"),
    "products of attention": ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product_flash_attention_for_cpu"),
}
Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds of a piece of work, the operations that it calls, and each operation's own seconds by its name."""

    seconds: float
    calls: float
    own_s: Counter[str]

    def beyond(self, other: Parts, times: int) -> Parts:
        """What one of the ``times`` repetitions takes that this has more than ``other``."""
        own_s = Counter({name: (s - other.own_s[name]) / times for name, s in self.own_s.items()})
        return Parts((self.seconds - other.seconds) / times, (self.calls - other.calls) / times, own_s)

    def of(self, kind: str) -> float:
        return sum(self.own_s[name] for name in KINDS[kind])

    @property
    def others(self) -> Counter[str]:
        """The operations of no kind."""
        known = {name for names in KINDS.values() for name in names}
        return Counter({name: s for name, s in self.own_s.items() if name not in known})


def measure(run: Run) -> Parts:
    run()
    seconds = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    calls, own_s = 0, Counter[str]()
    for event in profiler.events() or ():
        if event.name.startswith(OPERATION):
            own_s[event.name] += event.self_cpu_time_total / 1e6
            parent = event.cpu_parent
            calls += parent is None or not parent.name.startswith(OPERATION)
    return Parts(statistics.median(seconds), calls, own_s)


def decoding(policy: Policy, rows: int) -> Parts:
    prompts = min(rows, 8)

    def draw(limit: int) -> None:
        case = replace(CASE, limit=limit, prompts=prompts, group=rows // prompts, spread=False)
        engine = engine_of_lengths(case.lengths())(policy)
        ids = [range(p * case.group, (p + 1) * case.group) for p in range(prompts)]
        generate(engine, random_prompts(case, policy.config.vocab_size), ids, Sampling(limit), SEED)

    return measure(lambda: draw(TOKENS)).beyond(measure(lambda: draw(1)), TOKENS - 1)


def training(policy: Policy) -> Parts:
    method = GRPO(group_size=CASE.group)
    (objective,) = method.objectives()
    batch = grpo_batch(method, random_groups(CASE, policy.config.vocab_size), CASE.limit)
    limits = MicrobatchLimits(usual_tokens(policy, CASE.prompt), shared_prompt=True)

    def train() -> None:
        policy.model.zero_grad(set_to_none=True)
        accumulate_gradient(policy, objective, batch, 1.0, limits)

    return measure(train)


def row(name: str, parts: Parts) -> str:
    kinds = [parts.of(kind) for kind in KINDS]
    others = parts.others.total()
    cells = [parts.seconds, *kinds, others, parts.seconds - sum(kinds) - others]
    return f"| {name} | {parts.calls:.0f} | {' | '.join(f'{1e3 * s:.3g}' for s in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=PLACES["smollm2"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--top", type=int, default=6, help="of the other operations, so many are listed")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    policy = load_policy(arguments.model, compute_dtype="auto", device="cpu")
    print(f"{arguments.model.name} in {policy.compute_dtype}, torch {torch.__version__}; milliseconds\n")
    print("| | operations called | takes | " + " | ".join(KINDS) + " | other operations | between operations |")
    print("|---" * (5 + len(KINDS)) + "|")
    measured = {f"a decoding step of {rows} rows": decoding(policy, rows) for rows in arguments.rows}
    measured["a training pass"] = training(policy)
    for name, parts in measured.items():
        print(row(name, parts), flush=True)
    for name, parts in measured.items():
        most = ", ".join(f"{operation} {1e3 * s:.3g}" for operation, s in parts.others.most_common(arguments.top))
        print(f"\n{name}, other operations: {most}")


if __name__ == "__main__":
    main()
