"""Whether a model computes with a cache what it computes without: tried on a few tokens."""

from __future__ import annotations

from dataclasses import replace

import torch

from sharpen.models.modules import PolicyModule
from sharpen.models.policy import Policy
from sharpen.rollout.local.recomputing_runner import RecomputingRunner
from sharpen.rollout.local.transformers_runner import TransformersRunner

LENGTHS = (2, 7)
"""Tokens of the contexts; the shorter one is padded."""
TOLERANCE = 1e-3
"""In nats. A lost state changes a log-probability by much more, float32 rounds by less."""
TRIES = 2
"""A mixture of experts may round to another expert; twice in so few tokens is beyond chance."""


@torch.inference_mode()
def why_cache_fails(policy: Policy, cache_argument: str) -> str | None:
    """Why the local engine must not decode this model with a cache, in a few words; None if it may.

    Two contexts are prefilled, repeated, decoded, reordered and decoded again, and the logits are compared with the
    model's own forward of each sequence alone. In float32, whatever the model computes in.
    """
    precise = replace(policy, root=PolicyModule(policy.model, "float32"))
    reason = None
    for attempt in range(TRIES):
        try:
            difference = _largest_difference(precise, cache_argument, seed=attempt)
        except Exception as error:
            # A model's code may raise anything for a cache that is not its own; without one it is computed right.
            return f"its forward raises {type(error).__name__} with transformers' cache ({error})"
        if difference <= TOLERANCE:
            return None
        reason = f"with a cache its log-probabilities differ by {difference:.2g} nats"
    return reason


def _largest_difference(policy: Policy, cache_argument: str, *, seed: int) -> float:
    contexts, decoded = _tokens(policy, seed)
    with_cache = TransformersRunner(policy, policy.model, cache_argument, 2**20)
    without = RecomputingRunner(policy, policy.model)
    found, expected = [], []
    for runner, results in ((with_cache, found), (without, expected)):
        runner.raise_limit(len(decoded))
        results.append(runner.prefill(contexts, [2, 1]))
        for number, tokens in enumerate(decoded):
            runner.reserve(2**20)
            results.append(runner.decode(tokens))
            if number == 1:
                # The rows finish at different times.
                runner.select_rows(torch.tensor([2, 0], device=tokens.device))
    pairs = zip(found, expected, strict=True)
    differences = [(one.log_softmax(dim=-1) - other.log_softmax(dim=-1)).abs().max().item() for one, other in pairs]
    # max() would pass over a NaN.
    return max(differences) if all(d == d for d in differences) else float("inf")


def _tokens(policy: Policy, seed: int) -> tuple[list[tuple[int, ...]], list[torch.Tensor]]:
    """Two contexts and the tokens that rows of them get in each step: ordinary ones, drawn without torch's state."""
    special = {*policy.tokenizer.all_special_ids, policy.pad_id, *policy.eos_ids}
    size = min(len(policy.tokenizer), policy.root.head_shape[0])
    ordinary = [i for i in range(size) if i not in special] or list(range(size))
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return [ordinary[i] for i in torch.randint(len(ordinary), (count,), generator=generator).tolist()]

    return [tuple(draw(n)) for n in LENGTHS], [torch.tensor(draw(n), device=policy.device) for n in (3, 3, 2, 2)]
