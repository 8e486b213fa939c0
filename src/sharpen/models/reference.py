"""The reference policy: fixed, synchronised at intervals, or an exponential moving average."""

from __future__ import annotations

from dataclasses import replace

import torch

from sharpen.models.adapter import adapter_weights
from sharpen.models.lora import add_frozen_adapter
from sharpen.models.policy import Policy


def frozen(policy: Policy) -> Policy:
    """The policy itself, made a reference: none of its weights is trained, and it has no value head."""
    policy.root.value_head = None
    policy.root.requires_grad_(False).eval()
    return policy


def base_policy(policy: Policy) -> Policy:
    """The base model of a policy with an adapter: the same root, run without the adapter."""
    return replace(policy, adapter=None, shares_root=True, version=0)


def second_adapter(policy: Policy) -> Policy:
    """A frozen copy of a policy's adapter: the same root, run with a second adapter."""
    return replace(policy, adapter=add_frozen_adapter(policy), shares_root=True)


def follow(reference: Policy, policy: Policy) -> None:
    """π_ref ← π, in place, version included. Raises ValueError if their shapes differ."""
    average(reference, policy, 0.0)
    reference.version = policy.version


@torch.no_grad()
def average(reference: Policy, policy: Policy, decay: float) -> None:
    """π_ref ← decay · π_ref + (1 − decay) · π, in place; adds 1 to the reference's version.

    Raises ValueError if ``decay`` is not within [0, 1] or the shapes differ.
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay is {decay}: use a number from 0 (copy the policy) to 1 (no change)")
    mine, theirs = _moved(reference), _moved(policy)
    if {name: p.shape for name, p in mine.items()} != {name: p.shape for name, p in theirs.items()}:
        raise ValueError(f"{reference.source}: its weights differ in shape from those of the policy, {policy.source}")
    for name, parameter in mine.items():
        parameter.lerp_(theirs[name].to(parameter), 1.0 - decay)
    # Buffers are counts and tables: averaging them makes no sense.
    for buffer, newer in zip(reference.model.buffers(), policy.model.buffers(), strict=True):
        buffer.copy_(newer)
    reference.version += 1


def _moved(policy: Policy) -> dict[str, torch.nn.Parameter]:
    """The weights by name; of a policy with an adapter only the adapter's, for the rest is frozen and shared."""
    if policy.adapter is None:
        return dict(policy.model.named_parameters())
    return adapter_weights(policy.model, None, policy.adapter.name)
