"""The memory for keys and values where the recipe gives none, and what a rollout is expected to take.

The budget follows from the model and the kind of device alone. What is free at the moment plays no part, so a run that
is resumed has the budget that it had.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sharpen.models.policy import Policy
from sharpen.models.shape import hidden_size, inner_size
from sharpen.system.memory import GIB

CPU_GIB = 8
"""On a CPU."""
_ADAM_BYTES = 12
"""Of a trained weight's gradient and two moments, in float32."""
_LEAST_SHARE = 0.05


def kv_bytes(policy: Policy, kv_gib: float | None) -> int:
    """``kv_gib``, or 8 GiB on a CPU. On a GPU: half of what the policy leaves of its memory, at least 5 % of it.

    The policy takes its weights, gradients and optimizer state. The other half is for activations and all other models:
    a critic, a reference, teachers and reward models are not subtracted.
    """
    if kv_gib is not None:
        return int(kv_gib * GIB)
    if policy.device.type != "cuda":
        return CPU_GIB * GIB
    total = torch.cuda.get_device_properties(policy.device).total_memory
    weights = list(policy.model.parameters())
    static = sum(w.numel() * (w.element_size() + _ADAM_BYTES * w.requires_grad) for w in weights)
    return int(max(0.5 * (total - static), _LEAST_SHARE * total))


@dataclass(frozen=True, slots=True)
class RolloutMemory:
    """What a rollout takes, in bytes: keys and values, copies of weights, and a pass over tokens.

    ``kept_copy_bytes`` are the copies that stay between rollouts, ``copy_bytes`` those that are freed.
    """

    kv_bytes: int
    copy_bytes: int
    kept_copy_bytes: int
    pass_bytes: int


def pass_bytes(policy: Policy, rows: int, tokens: int) -> int:
    """What a pass over so many prompt tokens, or decoding and sampling so many rows, takes besides the cache.

    A pass holds one layer's tensors at a time: about 6 hidden and 3 inner sizes per token. Sampling holds the logits
    twice and their softmax.
    """
    prefill = 4 * tokens * (6 * hidden_size(policy.model) + 3 * inner_size(policy.model))
    return int(max(prefill, 3 * 4 * rows * policy.root.head_shape[0]))
