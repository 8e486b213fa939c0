"""Whether a model computes with a cache what it computes without: tried on a few tokens."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from math import inf, isnan

import torch
from torch import Tensor

from sharpen.models.causal import ordinary_tokens
from sharpen.models.modules import PolicyModule
from sharpen.models.policy import Policy
from sharpen.rollout.local.model_runner import ModelRunner
from sharpen.rollout.local.recomputing_runner import RecomputingRunner
from sharpen.rollout.local.transformers_runner import TransformersRunner

LENGTHS = (2, 7)
"""Tokens of the contexts; the shorter one is padded."""
TOLERANCE = 3e-5
"""In nats, or `NOISE` times the rounding of the model's own forward if that is more."""
NOISE = 20
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
            difference, rounding = _largest_differences(precise, cache_argument, seed=attempt)
        except Exception as error:  # noqa: BLE001 - a model may raise anything for a cache that is not its own
            return f"its forward raises {type(error).__name__} with transformers' cache ({error})"
        if difference <= max(TOLERANCE, NOISE * rounding):
            return None
        reason = f"with a cache its log-probabilities differ by {difference:.2g} nats"
    return reason


def _largest_differences(policy: Policy, cache_argument: str, *, seed: int) -> tuple[float, float]:
    """With and without a cache; and without one, of a sequence alone and in a batch."""
    contexts, decoded = _tokens(policy, seed)
    with_cache: ModelRunner = TransformersRunner(policy, policy.model, cache_argument, 2**20)
    without: ModelRunner = RecomputingRunner(policy, policy.model)
    found: list[Tensor] = []
    expected: list[Tensor] = []
    for runner, results in ((with_cache, found), (without, expected)):
        runner.raise_limit(len(decoded))
        results.append(runner.prefill(contexts, [2, 1]))
        for number, tokens in enumerate(decoded):
            runner.reserve(2**20)
            results.append(runner.decode(tokens))
            if number == 1:
                # The rows finish at different times.
                runner.select_rows(torch.tensor([2, 0], device=tokens.device))
    batched = RecomputingRunner(policy, policy.model).prefill([contexts[1]] * 3, [1] * 3)[0]
    return max(map(_difference, found, expected)), _difference(batched, expected[0][2])


def _difference(one: Tensor, other: Tensor) -> float:
    difference = (one.log_softmax(dim=-1) - other.log_softmax(dim=-1)).abs().max().item()
    return inf if isnan(difference) else difference


def _tokens(policy: Policy, seed: int) -> tuple[list[tuple[int, ...]], list[Tensor]]:
    """Two contexts, and the tokens that their rows get in each step."""
    steps = (3, 3, 2, 2)
    tokens = iter(ordinary_tokens(policy.tokenizer, policy.root.head_shape[0], sum(LENGTHS) + sum(steps), seed))
    contexts = [tuple(islice(tokens, n)) for n in LENGTHS]
    return contexts, [torch.tensor(list(islice(tokens, n)), device=policy.device) for n in steps]
