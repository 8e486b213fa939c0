"""A model's weights as GGUF tensors: their names, their types, the rows of q and k, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sharpen.errors import ModelError

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
Q8_BLOCK = 32

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""GGUF's name of each type of model that the tests read back from a file."""


def refuse_unproven(config: Any, source: str) -> None:
    """Raises ModelError for a model that would be written wrongly, or whose file nothing here can check."""
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ModelError(f"{source}: GGUF export is proven for {', '.join(ARCHITECTURES)}, not for {kind}")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    refused = {
        f"rope scaling ({rope})": rope != "default",
        "a bias in attention (attention_bias)": kind in ("llama", "mistral", "qwen3")
        and getattr(config, "attention_bias", False),
        "a bias in the feed-forward layers (mlp_bias)": getattr(config, "mlp_bias", False),
        f"the activation {config.hidden_act}": config.hidden_act not in ("silu", "swish"),
        "a sliding window": _slides(config),
        "a head_dim other than 128": kind == "qwen3" and head_dim(config) != 128,
        "a head_dim that is not hidden_size / heads": kind == "qwen2"
        and head_dim(config) * config.num_attention_heads != config.hidden_size,
    }
    for what, present in refused.items():
        if present:
            raise ModelError(f"{source}: GGUF export of a {kind} with {what} is not proven; --to hf has no such limit")


def _slides(config: Any) -> bool:
    layers = getattr(config, "layer_types", None)
    if layers is not None:
        return "sliding_attention" in layers
    window = getattr(config, "sliding_window", None)
    return (
        window is not None and window < config.max_position_embeddings and getattr(config, "use_sliding_window", True)
    )


def head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def tensor_names(model: Any) -> dict[str, str]:
    """GGUF's name of each weight; an output that is tied to the embedding has none.

    Raises ModelError for a weight without a name there.
    """
    import gguf

    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[config.model_type])
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = {}
    for name, _ in model.named_parameters():  # tied weights once
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if own is None:
            raise ModelError(f"GGUF has no name for the weight {name} of a {config.model_type}")
        found[name] = own
    return found


def tensor_type(shape: tuple[int, ...], asked: GgufType) -> GgufType:
    """Vectors stay float32, as llama.cpp has them; rows that Q8_0's blocks do not divide are float16."""
    if len(shape) == 1:
        return "f32"
    return "f16" if asked == "q8_0" and shape[-1] % Q8_BLOCK else asked


def tensor_bytes(shape: tuple[int, ...], kind: GgufType) -> int:
    count = int(np.prod(shape))
    return count // Q8_BLOCK * (Q8_BLOCK + 2) if kind == "q8_0" else count * (4 if kind == "f32" else 2)


def permuted(weight: Tensor, heads: int) -> Tensor:
    """The rows of a q or k projection as llama.cpp's rotation takes them.

    transformers rotates dimension i of a head with i + d/2, llama.cpp those of the original Llama, 2i with 2i + 1. Row
    2i + j of each head is therefore row i + j·d/2.
    """
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def tensors(model: Any, asked: GgufType) -> Iterator[tuple[str, np.ndarray]]:
    """GGUF's tensors by name, each converted when it is asked for."""
    import gguf

    weights = dict(model.named_parameters())
    for name, own in tensor_names(model).items():
        weight = weights[name].detach().float().cpu()
        if ARCHITECTURES[model.config.model_type] == "llama":
            if ".attn_q." in own:
                weight = permuted(weight, model.config.num_attention_heads)
            elif ".attn_k." in own:
                weight = permuted(weight, model.config.num_key_value_heads)
        kind = tensor_type(tuple(weight.shape), asked)
        if kind == "f16" and float(weight.abs().max()) > torch.finfo(torch.float16).max:
            raise ModelError(f"{name} has values that float16 cannot hold: choose --dtype bf16 or f32")
        yield own, gguf.quants.quantize(weight.contiguous().numpy(), gguf.GGMLQuantizationType[kind.upper()])
