"""Sizes of a transformers model, by configurations that name them differently, or not at all, or for each layer."""

from __future__ import annotations

from typing import Any

UNLIMITED = 2**31
"""A context beyond any model's, where nothing bounds it."""
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_seq_length", "seq_length")


def context_length(config: Any, tokenizer: Any) -> int:
    """The most tokens of a sequence: by the text part of the configuration, else by the tokenizer, else `UNLIMITED`."""
    text = config.get_text_config()
    for name in _CONTEXT_NAMES:
        if found := size(text, name) or size(config, name):
            return found
    # Tokenizers without a limit have one of 10³⁰.
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if isinstance(limit, int | float) and 0 < limit < UNLIMITED else UNLIMITED


def size(config: Any, name: str) -> int | None:
    """The largest of a size over the layers; None if the configuration has no such number."""
    found = [value for one in _configurations(config) if isinstance(value := getattr(one, name, None), int)]
    return max(found, default=None)


def hidden_size(model: Any) -> int:
    """H, the width of the residual stream."""
    found = size(model.config.get_text_config(), "hidden_size")
    return found or int(model.get_input_embeddings().weight.shape[1])


def inner_size(model: Any) -> int:
    """The inner width of a layer's MLP, or what is usual."""
    return size(model.config.get_text_config(), "intermediate_size") or 4 * hidden_size(model)


def layer_count(model: Any) -> int:
    return size(model.config.get_text_config(), "num_hidden_layers") or 1


def attention_width(model: Any) -> int:
    """Heads × head dimension, summed over the layers; 0 without attention."""
    config = model.config.get_text_config()
    layers = _configurations(config)
    repeated = layer_count(model) if len(layers) == 1 else 1
    total = 0
    for layer in layers:
        heads = getattr(layer, "num_attention_heads", None)
        if heads:
            total += repeated * heads * (getattr(layer, "head_dim", None) or hidden_size(model) // heads)
    return total


def _configurations(config: Any) -> list[Any]:
    """One per layer where layers differ, else the one of all."""
    return list(config.per_layer_config) if getattr(config, "is_heterogeneous", False) else [config]
