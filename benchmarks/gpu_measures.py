"""Decoding and training of one model on a device, as shares of the device's peak rates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from cases import SEED, Case
from floor import Rates, Shape, rollout, training
from gpu_device import median_seconds, peak_bytes, restart_peak, scheduled
from synthetic import grpo_batch, random_groups, random_prompts

from sharpen.methods.grpo import GRPO
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local.engine import LocalEngine
from sharpen.training.microbatch import usual_tokens
from sharpen.training.update import accumulate_gradient

COMPUTE_BYTES = 2
"""Of a number in bfloat16."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoding without prefill: its rate, and its minimum time as a share of the measured time."""

    model: str
    prompts: int
    group: int
    capture: bool
    seconds: float
    tokens_per_s: float
    share_of_floor: float
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Trained:
    """Forward and backward of a step: operations that it needs at least, and the share of the matrix rate."""

    model: str
    prompt: int
    tokens: int
    seconds: float
    operations: float
    share_of_rate: float
    peak_bytes: int | None


def decode(name: str, policy: Policy, shape: Shape, case: Case, rates: Rates, *, capture: bool) -> Decoded:
    """All completions have the length of the limit. What a draw of one token takes is taken off."""
    policy.eos_ids = frozenset()
    device = policy.device.type
    engine = LocalEngine(policy)
    prompts = random_prompts(case, shape.vocabulary)
    draw_ids = [range(p * case.group, (p + 1) * case.group) for p in range(case.prompts)]
    restart_peak(device)
    with scheduled(cuda_graph=capture):
        whole, first = (
            median_seconds(
                partial(generate, engine, prompts, draw_ids, Sampling(limit), SEED), device, 5 if capture else 2
            )
            for limit in (case.limit, 1)
        )
    taken = whole - first
    phases = rollout(shape, case, [case.limit] * case.completions, COMPUTE_BYTES)[1:]
    return Decoded(
        model=name,
        prompts=case.prompts,
        group=case.group,
        capture=capture,
        seconds=taken,
        tokens_per_s=case.completions * (case.limit - 1) / taken,
        share_of_floor=rates.seconds(phases) / taken,
        peak_bytes=peak_bytes(device),
    )


def train(name: str, policy: Policy, shape: Shape, case: Case, rates: Rates, tokens: int | None) -> Trained:
    """`accumulate_gradient` of GRPO."""
    device = policy.device.type
    method = GRPO(group_size=case.group)
    batch = grpo_batch(method, random_groups(case, shape.vocabulary), case.limit)
    (objective,) = method.objectives()
    limits = MicrobatchLimits(tokens or usual_tokens(policy, case.prompt), shared_prompt=True)

    def once() -> None:
        policy.model.zero_grad(set_to_none=True)
        accumulate_gradient(policy, objective, batch, 1.0, limits)

    restart_peak(device)
    taken = median_seconds(once, device)
    peak = peak_bytes(device)
    policy.model.zero_grad(set_to_none=True)
    lengths = case.lengths()
    operations = training(shape, case, lengths, COMPUTE_BYTES)[0].operations
    return Trained(
        model=name,
        prompt=case.prompt,
        tokens=case.prompts * case.prompt + sum(lengths),
        seconds=taken,
        operations=operations,
        share_of_rate=operations / taken / rates.operations,
        peak_bytes=peak,
    )
