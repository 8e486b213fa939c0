"""The reference of a policy: a copy that stays, follows at intervals, or trails as a moving average."""

from __future__ import annotations

import copy

import torch

from sharpen.models.policy import Policy


def copy_policy(policy: Policy) -> Policy:
    """A frozen copy of the weights as they are now, without the value head; the tokenizer is shared."""
    model = copy.deepcopy(policy.model).requires_grad_(False).eval()
    return Policy(
        model=model,
        tokenizer=policy.tokenizer,
        eos_ids=policy.eos_ids,
        pad_id=policy.pad_id,
        context_length=policy.context_length,
        compute_dtype=policy.compute_dtype,
        source=policy.source,
        version=policy.version,
    )


def follow(reference: Policy, policy: Policy) -> None:
    """π_ref ← π, in place, its version included. Raises ValueError if the two are not of one shape."""
    average(reference, policy, 0.0)
    reference.version = policy.version


@torch.no_grad()
def average(reference: Policy, policy: Policy, decay: float) -> None:
    """π_ref ← decay · π_ref + (1 − decay) · π, weight by weight, in place; one update more of the reference.

    Raises ValueError if ``decay`` is not within [0, 1] or the two are not of one shape.
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay is {decay}: give a number from 0, the policy itself, to 1, no change")
    mine, theirs = dict(reference.model.named_parameters()), dict(policy.model.named_parameters())
    if {name: p.shape for name, p in mine.items()} != {name: p.shape for name, p in theirs.items()}:
        raise ValueError(f"{reference.source} is not of the same shape as the policy, {policy.source}")
    for name, parameter in mine.items():
        parameter.lerp_(theirs[name].to(parameter), 1.0 - decay)
    # Buffers are counts and tables, of which no average makes sense.
    for buffer, newer in zip(reference.model.buffers(), policy.model.buffers(), strict=True):
        buffer.copy_(newer)
    reference.version += 1
