"""The reference policy: a copy that is fixed, synchronised at intervals, or an exponential moving average."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from sharpen.models.kernels import private_torch
from sharpen.models.lora import copy_sharing_frozen, remove_adapter
from sharpen.models.policy import Policy


def copy_policy(policy: Policy) -> Policy:
    """A frozen copy of the current weights, without the value head.

    The copy shares the tokenizer and, with an adapter, the base weights.
    """
    model = copy.deepcopy(policy.model) if policy.adapter is None else copy_sharing_frozen(policy.model)
    for own, copied in zip(policy.model.modules(), model.modules(), strict=True):
        # deepcopy drops the compiled call.
        if private_torch.is_compiled(own):
            copied.compile(dynamic=True)
    return replace(policy, model=model.requires_grad_(False).eval(), value_head=None)


def base_policy(policy: Policy) -> Policy:
    """The policy without its adapter, sharing the base weights."""
    base = copy_policy(policy)
    remove_adapter(base.model)
    return replace(base, adapter=None, version=0)


def follow(reference: Policy, policy: Policy) -> None:
    """π_ref ← π, in place, version included. Raises ValueError if their shapes differ."""
    average(reference, policy, 0.0)
    reference.version = policy.version


@torch.no_grad()
def average(reference: Policy, policy: Policy, decay: float) -> None:
    """π_ref ← decay · π_ref + (1 − decay) · π, in place; counts as one update of the reference.

    Raises ValueError if ``decay`` is not within [0, 1] or the shapes differ.
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay is {decay}: use a number from 0 (copy the policy) to 1 (no change)")
    mine, theirs = dict(reference.model.named_parameters()), dict(policy.model.named_parameters())
    if {name: p.shape for name, p in mine.items()} != {name: p.shape for name, p in theirs.items()}:
        raise ValueError(f"{reference.source}: its weights differ in shape from those of the policy, {policy.source}")
    for name, parameter in mine.items():
        if parameter is theirs[name]:
            # A base weight shared by both adapters.
            continue
        parameter.lerp_(theirs[name].to(parameter), 1.0 - decay)
    # Buffers are counts and tables: averaging them makes no sense.
    for buffer, newer in zip(reference.model.buffers(), policy.model.buffers(), strict=True):
        buffer.copy_(newer)
    reference.version += 1
