"""One layer of a plain architecture, split at attention: what is computed before it and what after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.rollout.local.projections import Projection, make_projection


@dataclass(frozen=True, slots=True)
class Layer:
    """A transformer layer. olmo2 has its norms after attention and MLP, the others have them before."""

    attention: Any
    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    """Of the projections' inputs."""
    attention_dtype: torch.dtype
    """Of queries and keys."""
    qkv: Projection
    out: Projection
    gate_up: Projection
    down: Projection
    activation: Callable[[Tensor], Tensor]
    pre_attention_norm: nn.Module
    post_attention_norm: nn.Module
    pre_mlp_norm: nn.Module
    post_mlp_norm: nn.Module

    @property
    def projections(self) -> tuple[Projection, ...]:
        return self.qkv, self.out, self.gate_up, self.down


def project_qkv(layer: Layer, hidden_NH: Tensor, cos: Tensor, signed_sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries [N, heads, D] and keys, and values, [N, kv heads, D]."""
    qkv = layer.qkv(layer.pre_attention_norm(hidden_NH).to(layer.dtype))
    head_dim, heads, kv_heads = layer.head_dim, layer.heads, layer.kv_heads
    norm = getattr(layer.attention, "q_norm", None)
    if norm is not None:
        q, k, v = qkv.split((heads * head_dim, kv_heads * head_dim, kv_heads * head_dim), dim=-1)
        # qwen3 norms each head, olmo2 all heads together.
        if norm.weight.shape[0] == head_dim:
            q, k = (x.reshape(len(qkv), -1, head_dim) for x in (q, k))
        q, k = layer.attention.q_norm(q), layer.attention.k_norm(k)
        qkv = torch.cat((q.flatten(1), k.flatten(1), v), dim=-1)
    qk, v = qkv.view(len(qkv), -1, head_dim).split((heads + kv_heads, kv_heads), dim=1)
    qk = qk.to(torch.promote_types(qk.dtype, cos.dtype))
    rotated = torch.addcmul(qk * cos, qk.roll(head_dim // 2, dims=-1), signed_sin).to(layer.attention_dtype)
    q, k = rotated.split((heads, kv_heads), dim=1)
    return q, k, v


def finish_layer(layer: Layer, hidden_NH: Tensor, attended: Tensor) -> Tensor:
    """The layer's output [N, H], given its input and the result of attention [N, heads · D]."""
    hidden_NH = hidden_NH + layer.post_attention_norm(layer.out(attended.to(layer.dtype)))
    gate, up = layer.gate_up(layer.pre_mlp_norm(hidden_NH).to(layer.dtype)).chunk(2, dim=-1)
    result: Tensor = hidden_NH + layer.post_mlp_norm(layer.down(layer.activation(gate) * up))
    return result


def finish_and_project_next(
    layer: Layer, following: Layer, hidden_NH: Tensor, attended: Tensor, cos: Tensor, signed_sin: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From one layer's attention up to the next one's, as one function for the compiler."""
    hidden_NH = finish_layer(layer, hidden_NH, attended)
    return hidden_NH, *project_qkv(following, hidden_NH, cos, signed_sin)


def make_layers(body: Any, config: Any, *, rounded: bool) -> list[Layer]:
    """The layers of a transformers model's body; ``rounded``: with projections in bfloat16."""
    parameter = next(body.parameters())
    dtype = torch.bfloat16 if rounded else parameter.dtype
    # As in training, attention is computed in bfloat16 on a GPU only. On a CPU its products are also faster in float32.
    attention_dtype = parameter.dtype if parameter.device.type == "cpu" else dtype

    def make_layer(module: Any) -> Layer:
        attention, mlp = module.self_attn, module.mlp
        identity = nn.Identity()
        post_norm = not hasattr(module, "input_layernorm")
        return Layer(
            attention=attention,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=attention.head_dim,
            dtype=dtype,
            attention_dtype=attention_dtype,
            qkv=make_projection([attention.q_proj, attention.k_proj, attention.v_proj], rounded=rounded),
            out=make_projection([attention.o_proj], rounded=rounded),
            gate_up=make_projection([mlp.gate_proj, mlp.up_proj], rounded=rounded),
            down=make_projection([mlp.down_proj], rounded=rounded),
            activation=mlp.act_fn,
            pre_attention_norm=identity if post_norm else module.input_layernorm,
            post_attention_norm=module.post_attention_layernorm if post_norm else identity,
            pre_mlp_norm=identity if post_norm else module.post_attention_layernorm,
            post_mlp_norm=module.post_feedforward_layernorm if post_norm else identity,
        )

    return [make_layer(module) for module in body.layers]
