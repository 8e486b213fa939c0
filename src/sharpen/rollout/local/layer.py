"""One layer of a plain architecture on tokens in any arrangement: what comes before attention, and what after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.rollout.local.projections import Product, make_projection


@dataclass(frozen=True, slots=True)
class Layer:
    """A transformer layer. olmo2 has norms behind attention and MLP where the others have them before."""

    attention: Any
    heads: int
    kv_heads: int
    size: int
    dtype: torch.dtype
    """Of the products."""
    stored: torch.dtype
    """Of queries and keys."""
    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    activation: Callable[[Tensor], Tensor]
    before_attention: nn.Module
    after_attention: nn.Module
    before_mlp: nn.Module
    after_mlp: nn.Module

    @property
    def products(self) -> tuple[Product, ...]:
        return self.qkv, self.out, self.gate_up, self.down


def enter(layer: Layer, hidden_NH: Tensor, cos: Tensor, signed_sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [N, heads, D], keys and values [N, kv heads, D]."""
    qkv = layer.qkv(layer.before_attention(hidden_NH).to(layer.dtype))
    size, heads, kv_heads = layer.size, layer.heads, layer.kv_heads
    norm = getattr(layer.attention, "q_norm", None)
    if norm is not None:
        q, k, v = qkv.split((heads * size, kv_heads * size, kv_heads * size), dim=-1)
        # qwen3 norms each head, olmo2 all heads together.
        if norm.weight.shape[0] == size:
            q, k = (x.reshape(len(qkv), -1, size) for x in (q, k))
        q, k = layer.attention.q_norm(q), layer.attention.k_norm(k)
        qkv = torch.cat((q.flatten(1), k.flatten(1), v), dim=-1)
    qk, v = qkv.view(len(qkv), -1, size).split((heads + kv_heads, kv_heads), dim=1)
    qk = qk.to(torch.promote_types(qk.dtype, cos.dtype))
    turned = torch.addcmul(qk * cos, qk.roll(size // 2, dims=-1), signed_sin).to(layer.stored)
    q, k = turned.split((heads, kv_heads), dim=1)
    return q, k, v


def leave(layer: Layer, hidden_NH: Tensor, mixed: Tensor) -> Tensor:
    """The layer's result, [N, H], with what its queries have seen, [N, heads · D]."""
    hidden_NH = hidden_NH + layer.after_attention(layer.out(mixed.to(layer.dtype)))
    gate, up = layer.gate_up(layer.before_mlp(hidden_NH).to(layer.dtype)).chunk(2, dim=-1)
    result: Tensor = hidden_NH + layer.after_mlp(layer.down(layer.activation(gate) * up))
    return result


def go_on(
    layer: Layer, following: Layer, hidden_NH: Tensor, mixed: Tensor, cos: Tensor, signed_sin: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From one layer's attention to the next one's: what lies between is one piece for a compiler."""
    hidden_NH = leave(layer, hidden_NH, mixed)
    return hidden_NH, *enter(following, hidden_NH, cos, signed_sin)


def layers_of(body: Any, config: Any, *, rounded: bool) -> list[Layer]:
    """The layers of a transformers model's body; ``rounded``: with products in bfloat16."""
    computed = next(body.parameters())
    dtype = torch.bfloat16 if rounded else computed.dtype
    # As in training, attention is computed in bfloat16 on a GPU only. On a CPU its products are also faster in float32.
    stored = computed.dtype if computed.device.type == "cpu" else dtype

    def layer_of(module: Any) -> Layer:
        attention, mlp = module.self_attn, module.mlp
        nothing = nn.Identity()
        behind = not hasattr(module, "input_layernorm")
        return Layer(
            attention=attention,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            size=attention.head_dim,
            dtype=dtype,
            stored=stored,
            qkv=make_projection([attention.q_proj, attention.k_proj, attention.v_proj], rounded=rounded),
            out=make_projection([attention.o_proj], rounded=rounded),
            gate_up=make_projection([mlp.gate_proj, mlp.up_proj], rounded=rounded),
            down=make_projection([mlp.down_proj], rounded=rounded),
            activation=mlp.act_fn,
            before_attention=nothing if behind else module.input_layernorm,
            after_attention=module.post_attention_layernorm if behind else nothing,
            before_mlp=nothing if behind else module.post_attention_layernorm,
            after_mlp=module.post_feedforward_layernorm if behind else nothing,
        )

    return [layer_of(module) for module in body.layers]
