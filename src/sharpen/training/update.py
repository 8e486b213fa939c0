"""One optimizer step: weights over the whole step, then micro-batches, then the optimizer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharpen.methods import Method
from sharpen.models.layout import plan
from sharpen.models.logprobs import row_logprobs, training_cost
from sharpen.models.policy import Policy
from sharpen.training.metrics import TokenStats
from sharpen.types import Batch


@dataclass(frozen=True, slots=True)
class Limits:
    """How a step is cut into micro-batches. None of this changes a gradient."""

    tokens_per_microbatch: int
    shared_prompt: bool


@dataclass(frozen=True, slots=True)
class Updated:
    """What one optimizer step did. ``applied`` is False where nothing had a gradient and nothing was changed."""

    loss: float
    grad_norm: float
    applied: bool
    tokens: int


def accumulate_gradient(
    policy: Policy,
    method: Method,
    batch: Batch,
    temperature: float,
    limits: Limits,
    stats: TokenStats | None = None,
) -> tuple[float, int]:
    """Add the gradient of the step's loss to the parameters; returns the loss and the number of tokens computed.

    ``loss = Σ weight × term`` over the tokens of the step. The weights are made here, from the whole step; what
    follows only sums. Sequences that can have no gradient are left out of the computation, not of the weights.
    """
    assert batch.advantages_BT is not None
    taught_B = batch.advantages_BT.ne(0).any(dim=1) | method.trains_without_advantage
    batch = replace(batch, weights_BT=method.weights(batch)).select(taught_B.nonzero().squeeze(1))
    loss, tokens = 0.0, 0
    if not batch.mask_BT.any():
        return loss, tokens
    for rows in plan(
        batch,
        tokens_per_microbatch=limits.tokens_per_microbatch,
        shared=limits.shared_prompt and policy.plain,
        cost=training_cost(policy),
    ):
        logprobs_BT, entropy_BT = row_logprobs(policy, batch, rows, temperature)
        index_B = torch.tensor([b for row in rows for b in row.sequences])
        part = batch.select(index_B).to(policy.device)
        logprobs_BT, entropy_BT = logprobs_BT[index_B], entropy_BT[index_B]
        if method.needs_old_logprobs and part.old_logprobs_BT is None:
            # One update per rollout: the policy still is the one that the rollout began with.
            part = replace(part, old_logprobs_BT=logprobs_BT.detach())
        terms = method.terms(logprobs_BT, part)
        assert part.weights_BT is not None
        total = (part.weights_BT * terms.loss_BT).sum()
        total.backward()
        loss += total.item()
        tokens += sum(row.tokens for row in rows)
        if stats is not None:
            stats.add(part, logprobs_BT.detach(), entropy_BT, terms)
    return loss, tokens


def optimizer_step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    method: Method,
    batch: Batch,
    *,
    learning_rate: float,
    max_grad_norm: float | None,
    temperature: float,
    limits: Limits,
    stats: TokenStats | None = None,
) -> Updated:
    """Accumulate, clip and apply. A step without any gradient is a no-op, optimizer state included."""
    optimizer.zero_grad(set_to_none=True)
    loss, tokens = accumulate_gradient(policy, method, batch, temperature, limits, stats)
    if tokens == 0:
        return Updated(0.0, 0.0, applied=False, tokens=0)
    grads = [p.grad for p in policy.model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if not norm.isfinite():
        raise FloatingPointError(
            f"the gradient norm is {norm.item()} (loss {loss}); the weights were left as they were. Lower "
            "optimizer.learning_rate, or look at the rewards and log-probabilities of this step"
        )
    if max_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(
            [p for p in policy.model.parameters() if p.grad is not None], max_grad_norm, norm
        )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    policy.version += 1
    return Updated(loss, norm.item(), applied=True, tokens=tokens)


@torch.no_grad()
def all_logprobs(policy: Policy, batch: Batch, temperature: float, limits: Limits) -> Tensor:
    """log π of every trained token of the batch under a model, without gradient, [B, T], on the CPU."""
    total_BT = torch.zeros(batch.tokens_BT.shape)
    for rows in plan(
        batch,
        tokens_per_microbatch=limits.tokens_per_microbatch,
        shared=limits.shared_prompt and policy.plain,
        cost=training_cost(policy),
    ):
        total_BT += row_logprobs(policy, batch, rows, temperature)[0].cpu()
    return total_BT
