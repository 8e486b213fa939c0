"""How many tokens a micro-batch has where the recipe does not say: what their activations take in memory."""

from __future__ import annotations

import torch

from sharpen.models.model import Model

CPU_BYTES = {"float32": 768 * 2**20, "bfloat16": 2 * 2**30}
"""Of activations, by the type of the products. In float32 a processor is no faster with more. In bfloat16 what every
micro-batch costs besides, rounding the weights and adding up gradients, is a larger part."""
GPU_SHARE = 0.25
"""Of the device's memory; weights, gradients and optimizer have the rest."""
LEAST_TOKENS, MOST_TOKENS = 512, 32768


def usual_tokens(model: Model, longest_prompt: int) -> int:
    """At least twice the longest prompt: where a group has to be cut, the prompt is computed again for each part.

    Depends on the model, the kind of its device and the data alone, so that a resumed run is cut like the one before.
    """
    if model.device.type == "cuda":
        room = GPU_SHARE * torch.cuda.get_device_properties(model.device).total_memory
    else:
        room = CPU_BYTES[model.compute_dtype]
    return max(LEAST_TOKENS, 2 * longest_prompt, min(MOST_TOKENS, int(room / activation_bytes(model))))


def activation_bytes(model: Model) -> int:
    """About what one token keeps in memory between forward and backward pass.

    A layer keeps, in float32, two residual streams, its queries and its keys, and in the type of the products two
    norms' outputs, values, what attention mixes and some of its probabilities, and three times the inner size of the
    MLP: together some 4 hidden sizes in the one, and 7 hidden and 3 inner sizes in the other. With gradient
    checkpointing it is one stream a layer, and one layer.
    """
    config = model.config.get_text_config()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    number = 2 if model.compute_dtype == "bfloat16" else 4
    layer = 4 * 4 * hidden + number * (7 * hidden + 3 * inner)
    # The name that transformers is changing to, and the one that 5.17 knows.
    checkpointing = getattr(model.model, "is_activation_checkpointing", None)
    if getattr(model.model, "is_gradient_checkpointing", False) if checkpointing is None else checkpointing:
        return int(4 * layers * hidden + layer)
    return int(layers * layer)
