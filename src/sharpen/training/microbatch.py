"""The default size of a micro-batch, from the memory that activations need."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sharpen.models.model import Model
from sharpen.models.shape import hidden_size, inner_size, layer_count
from sharpen.types import Group

CPU_BYTES = {"float32": 768 * 2**20, "bfloat16": 2 * 2**30}
"""Activation memory, by compute dtype. In float32 a CPU is no faster with more. In bfloat16 the fixed cost of a
micro-batch, rounding the weights and accumulating gradients, is a larger share."""
GPU_SHARE = 0.25
"""Share of the device's memory for activations; weights, gradients and optimizer state use the rest."""
LEAST_TOKENS, MOST_TOKENS = 512, 32768


def usual_tokens(model: Model, longest_prompt: int) -> int:
    """At least twice the longest prompt: if a group is split, its prompt is computed again for each part.

    Depends only on the model, the kind of its device and the data, so that a resumed run is split the same way.
    """
    if model.device.type == "cuda":
        room = GPU_SHARE * torch.cuda.get_device_properties(model.device).total_memory
    else:
        room = CPU_BYTES[model.compute_dtype]
    return max(LEAST_TOKENS, 2 * longest_prompt, min(MOST_TOKENS, int(room / activation_bytes(model))))


def longest_prefix(groups: Sequence[Group]) -> int:
    """The tokens of the longest prefix of these groups' samples: of the longest prompt, where each has one sample."""
    return max(len(s.prefix_ids) for group in groups for t in group.trajectories for s in t.samples)


def activation_bytes(model: Model) -> int:
    """Approximate activation memory of one token between forward and backward pass, in bytes.

    In float32 a layer keeps two residual streams, the queries and the keys: about 4 hidden sizes. In the compute dtype
    it keeps the outputs of two norms, the values, the attention output and some probabilities, and three times the
    MLP's inner size: about 7 hidden and 3 inner sizes. With gradient checkpointing, each layer keeps one residual
    stream, and one layer at a time the rest.
    """
    hidden, inner, layers = hidden_size(model.model), inner_size(model.model), layer_count(model.model)
    number = 2 if model.compute_dtype == "bfloat16" else 4
    layer = 4 * 4 * hidden + number * (7 * hidden + 3 * inner)
    # The attribute's future name in transformers; below, the name in 5.17.
    checkpointing = getattr(model.model, "is_activation_checkpointing", None)
    if getattr(model.model, "is_gradient_checkpointing", False) if checkpointing is None else checkpointing:
        return int(4 * layers * hidden + layer)
    return int(layers * layer)
