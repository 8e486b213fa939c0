"""The private entry points of PyTorch, transformers and peft that sharpen uses. No other file uses any.

Each has a fallback for versions that lack it, except where noted. ``tests/models/test_private_torch.py`` checks that
each exists, takes the arguments used here and agrees with public functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

# oneDNN's matrix product, used for float32 on AMD processors and for decoding.


def slow_linear_pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, *_: Any) -> Tensor:
    return nn.functional.linear(x, weight, bias)


def slow_reorder_linear_weight(weight: Tensor, _rows: int | None = None) -> Tensor:
    return weight


HAS_ONEDNN_LINEAR = all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))

linear_pointwise: Callable[..., Tensor] = (
    torch.ops.mkldnn._linear_pointwise if HAS_ONEDNN_LINEAR else slow_linear_pointwise
)
"""``(x, weight, bias, "none", [], "")``: x @ weightᵀ + bias. The weight may be in the blocked layout."""
reorder_linear_weight: Callable[[Tensor, int], Tensor] = (
    torch.ops.mkldnn._reorder_linear_weight if HAS_ONEDNN_LINEAR else slow_reorder_linear_weight
)
"""``(weight, rows)``: the weight in the blocked layout that is fastest for so many rows of the other factor."""


# Backward formulas that autograd uses itself.


def slow_softmax_backward_data(grad: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    weighted = grad * output
    return (weighted - output * weighted.sum(dim=dim, keepdim=True)).to(dtype)


def slow_silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(x)
    return grad * sigmoid * (1 + x * (1 - sigmoid))


softmax_backward_data: Callable[[Tensor, Tensor, int, torch.dtype], Tensor] = getattr(
    torch, "_softmax_backward_data", slow_softmax_backward_data
)
"""``(grad, output, dim, dtype)``: P ∘ (dP − Σ P ∘ dP) for the softmax P and its gradient dP."""
silu_backward: Callable[[Tensor, Tensor], Tensor] = getattr(torch.ops.aten, "silu_backward", slow_silu_backward)
"""``(grad, x)``: the gradient of silu at x."""


# FlashAttention over sequences of different lengths. Without it FlexAttention is used.

flash_attention_forward: Any = getattr(torch.ops.aten, "_flash_attention_forward", None)
flash_attention_backward: Any = getattr(torch.ops.aten, "_flash_attention_backward", None)
HAS_FLASH_ATTENTION = flash_attention_forward is not None and flash_attention_backward is not None


# What the CPU supports. Where PyTorch does not say, nothing: ``compute_dtype: auto`` is then float32.


def cpu_has_avx512_bf16() -> bool:
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", _unknown)())


def cpu_has_amx_tile() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", _unknown)())


def onednn_has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this CPU, natively or by emulation."""
    return bool(getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", _unknown)())


def _unknown() -> bool:
    return False


# Compilation.


def maybe_mark_dynamic() -> Callable[[Tensor, int], None]:
    """The function that marks an axis as dynamic for the compiler.

    Without it a second length is compiled once more. Looked up on demand: importing torch._dynamo takes seconds.
    """
    found: Callable[[Tensor, int], None] = getattr(torch._dynamo, "maybe_mark_dynamic", _leave_static)
    return found


def _leave_static(tensor: Tensor, axis: int) -> None:
    pass


def is_compiled(module: nn.Module) -> bool:
    """Whether ``module.compile()`` was called. Without the private attribute False: copies are then not compiled."""
    return getattr(module, "_compiled_call_impl", None) is not None


# transformers.

set_tqdm_hook: Callable[[Any], Any] | None = getattr(logging, "set_tqdm_hook", None)
"""``(hook)``: every progress bar is made by ``hook(factory, args, kwargs)``; returns the previous hook."""


def set_attention(config: Any, name: str) -> None:
    """Make a model use the attention registered under ``name``. There is no fallback: packed rows depend on it."""
    if config._attn_implementation != name:
        config._attn_implementation = name


def kept_in_float32(model: Any, dtype: torch.dtype) -> frozenset[str]:
    """Names, as regular expressions, of the weights that transformers loads in float32 whatever is asked for."""
    always = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    of_float16 = getattr(model, "_keep_in_fp32_modules", None) or ()
    return frozenset(always) | frozenset(of_float16 if dtype == torch.float16 else ())


# peft.


def means_experts(target: str, config: Any, model: nn.Module) -> bool:
    """Whether peft, loading a LoRA adapter for ``model``, takes a target for the name of experts in older files.

    A peft without that conversion takes every name as it is.
    """
    from peft.utils import transformers_weight_conversion

    convert = getattr(transformers_weight_conversion, "convert_peft_config_for_transformers", None)
    if convert is None:
        return False
    alone = copy.copy(config)
    alone.target_modules, alone.target_parameters = {target}, None
    alone.rank_pattern, alone.alpha_pattern = {}, {}
    try:
        convert(alone, model, None)
    except ValueError:
        # It knows the name, but not without the other half of a matrix that is one today.
        return True
    return target not in alone.target_modules


def switch_adapter(layer: Any, name: str | None) -> str | None:
    """Make an adapted layer run with the adapter ``name``, or with none; returns what it ran with. No fallback.

    peft's public switches also change ``requires_grad`` of the weights. A sharded weight may only be told that once.
    """
    before = None if layer.disable_adapters else layer.active_adapters[0]
    layer._disable_adapters = name is None
    if name is not None:
        layer._active_adapter = name
    return before
