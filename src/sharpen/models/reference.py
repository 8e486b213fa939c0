"""The reference of a policy: a copy that stays, follows at intervals, or trails as a moving average."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from sharpen.models.lora import sharing_frozen, without_adapter
from sharpen.models.policy import Policy


def copy_policy(policy: Policy) -> Policy:
    """A frozen copy of the weights as they are now, without the value head.

    The tokenizer is shared, and so is the base of an adapter: of that the copy holds none.
    """
    model = copy.deepcopy(policy.model) if policy.adapter is None else sharing_frozen(policy.model)
    for own, copied in zip(policy.model.modules(), model.modules(), strict=True):
        # What is compiled is not copied.
        if own._compiled_call_impl is not None:
            copied.compile(dynamic=True)
    return replace(policy, model=model.requires_grad_(False).eval(), value_head=None)


def base_policy(policy: Policy) -> Policy:
    """The policy with its adapter off, on the very same weights."""
    base = copy_policy(policy)
    without_adapter(base.model)
    return replace(base, adapter=None, version=0)


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
        if parameter is theirs[name]:
            # The base that both adapters belong to.
            continue
        parameter.lerp_(theirs[name].to(parameter), 1.0 - decay)
    # Buffers are counts and tables, of which no average makes sense.
    for buffer, newer in zip(reference.model.buffers(), policy.model.buffers(), strict=True):
        buffer.copy_(newer)
    reference.version += 1
