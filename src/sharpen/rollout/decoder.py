"""A forward pass for decoding alone: no gradient, one token a row, a prompt's keys and values once for its group.

It runs the modules of a transformers model of a plain architecture (llama, qwen2, qwen3, mistral, olmo2), with an
attention and a cache of its own, and in bfloat16 with products that are fused and laid out for few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.models.policy import Policy
from sharpen.rollout.past import Past
from sharpen.rollout.products import Product, make_product
from sharpen.types import Prompt

CPU_BLOCK = 16
"""Keys are looked at in multiples of so many: PyTorch's softmax over fewer, or an odd number, is many times slower."""
GPU_BLOCK = 128
"""The same on a GPU, where a step is captured anew whenever its shapes change."""
PREFILL_TOKENS = 8192
"""Prompt tokens, padding included, that are computed in one pass."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A transformer layer. olmo2 has norms behind attention and MLP where the others have them before."""

    attention: Any
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


class Decoder:
    """The weights of a policy as decoding wants them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._rounded = policy.compute_dtype == "bfloat16"
        body: Any = policy.model.get_decoder()  # type: ignore[operator]
        self._body = body
        self._layers = [self._layer(layer) for layer in body.layers]
        head: Any = policy.model.get_output_embeddings()  # type: ignore[operator]
        self._head = make_product([head], rounded=self._rounded)
        config = policy.config
        self._head_dim: int = body.layers[0].self_attn.head_dim
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads

    def publish(self) -> None:
        """Take over the policy's present weights: in bfloat16 the matrices are rounded copies, all else is shared."""
        for layer in self._layers:
            for product in layer.products:
                product.publish()
        self._head.publish()

    def empty_past(self, room: int) -> Past:
        """For rows of at most ``room`` tokens beside their prompt."""
        device = self.policy.device
        on_cpu = device.type == "cpu"
        # In float32 batched products are faster on a CPU than in bfloat16, and scores are not rounded.
        stored = torch.bfloat16 if self._rounded and not on_cpu else next(self.policy.model.parameters()).dtype
        return Past(
            len(self._layers),
            self.kv_heads,
            self._head_dim,
            scale=self._scale,
            dtype=stored,
            device=device,
            room=room,
            block=CPU_BLOCK if on_cpu else GPU_BLOCK,
        )

    def prefill(self, prompts: Sequence[Prompt]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits [P, V] of the token after each prompt, and the keys and values [P, heads, L, D] of every layer."""
        lengths = [len(p.token_ids) for p in prompts]
        width = max(lengths)
        tokens_PL = torch.zeros(len(prompts), width, dtype=torch.long)
        for p, prompt in enumerate(prompts):
            # What is padded on the right is seen by nobody on its left.
            tokens_PL[p, : lengths[p]] = torch.tensor(prompt.token_ids)
        device = self.policy.device
        position_L = torch.arange(width, device=device)
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def attend(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.view(len(prompts), width, -1, self._head_dim).transpose(1, 2) for x in (q, k, v))
            keys.append(k)
            values.append(v)
            k, v = (x.repeat_interleave(self.heads // self.kv_heads, dim=1) for x in (k, v))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self._scale)
            return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

        hidden = self._forward(tokens_PL.to(device).flatten(), position_L.repeat(len(prompts)), attend)
        last_P = torch.arange(len(prompts)) * width + torch.tensor(lengths) - 1
        return self._logits(hidden[last_P.to(device)]), keys, values

    def step(self, token_B: Tensor, position_B: Tensor, past: Past) -> Tensor:
        """Logits [B, V] of the token after ``token_B``, which the past takes in: it has made room."""
        past.look()

        return self._logits(self._forward(token_B, position_B, past.attend))

    @property
    def _scale(self) -> float:
        return float(self._layers[0].attention.scaling)

    def _forward(
        self, token_N: Tensor, position_N: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Hidden states [N, H] of tokens in any arrangement that ``attend`` knows."""
        hidden = self._body.embed_tokens(token_N)
        compute = torch.bfloat16 if self._rounded else hidden.dtype
        cos, sin = (x[0][:, None] for x in self._body.rotary_emb(hidden[None], position_N[None]))
        half = self._head_dim // 2
        # Half of the rotation has its sign in the table.
        signed_sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        for number, layer in enumerate(self._layers):
            q, k, v = self._heads_of(layer, layer.qkv(layer.before_attention(hidden).to(compute)), cos, signed_sin)
            mixed = layer.out(attend(number, q, k, v).to(compute))
            hidden = hidden + layer.after_attention(mixed)
            gate, up = layer.gate_up(layer.before_mlp(hidden).to(compute)).chunk(2, dim=-1)
            hidden = hidden + layer.after_mlp(layer.down(layer.activation(gate) * up))
        states: Tensor = self._body.norm(hidden).to(compute)
        return states

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._head(hidden)

    def _heads_of(self, layer: _Layer, qkv: Tensor, cos: Tensor, signed_sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, heads, D], keys and values [N, kv heads, D], rounded as the trainer's are."""
        size = self._head_dim
        norm = getattr(layer.attention, "q_norm", None)
        if norm is not None:
            q, k, v = qkv.split((self.heads * size, self.kv_heads * size, self.kv_heads * size), dim=-1)
            # qwen3 norms each head, olmo2 all heads together.
            if norm.weight.shape[0] == size:
                q, k = (x.reshape(len(qkv), -1, size) for x in (q, k))
            q, k = layer.attention.q_norm(q), layer.attention.k_norm(k)
            qkv = torch.cat((q.flatten(1), k.flatten(1), v), dim=-1)
        qk, v = qkv.view(len(qkv), -1, size).split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        rounded = qkv.dtype
        qk = qk.to(torch.promote_types(rounded, cos.dtype))
        turned = torch.addcmul(qk * cos, qk.roll(size // 2, dims=-1), signed_sin).to(rounded)
        q, k = turned.split((self.heads, self.kv_heads), dim=1)
        return q, k, v

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        nothing = nn.Identity()
        behind = not hasattr(layer, "input_layernorm")
        rounded = self._rounded
        return _Layer(
            attention=attention,
            qkv=make_product([attention.q_proj, attention.k_proj, attention.v_proj], rounded=rounded),
            out=make_product([attention.o_proj], rounded=rounded),
            gate_up=make_product([mlp.gate_proj, mlp.up_proj], rounded=rounded),
            down=make_product([mlp.down_proj], rounded=rounded),
            activation=mlp.act_fn,
            before_attention=nothing if behind else layer.input_layernorm,
            after_attention=layer.post_attention_layernorm if behind else nothing,
            before_mlp=nothing if behind else layer.post_attention_layernorm,
            after_mlp=layer.post_feedforward_layernorm if behind else nothing,
        )


class PlainDecoding:
    """Rows of a plain architecture, continued side by side."""

    refills = True

    def __init__(self, decoder: Decoder, room: int) -> None:
        """``room``: tokens that a row may be given; the past makes room for as many at most."""
        self._decoder = decoder
        self._past = decoder.empty_past(room)

    @property
    def arrangement(self) -> int:
        return self._past.arrangement

    def admit(self, prompts: Sequence[Prompt], copies: Sequence[int]) -> Tensor:
        logits_PV: list[Tensor] = []
        for start, end in _passes([len(p.token_ids) for p in prompts]):
            logits, keys, values = self._decoder.prefill(prompts[start:end])
            lengths = [len(p.token_ids) for p in prompts[start:end]]
            self._past.admit(keys, values, lengths, copies[start:end])
            logits_PV.append(logits)
        logits = torch.cat(logits_PV)
        return logits.repeat_interleave(torch.tensor(list(copies), device=logits.device), dim=0)

    def make_room(self) -> None:
        self._past.make_room()

    def advance(self, token_B: Tensor) -> Tensor:
        return self._decoder.step(token_B, self._past.position_B, self._past)

    def keep(self, index_B: Tensor) -> None:
        self._past.keep(index_B)


def _passes(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours that are computed together, from and to."""
    passes: list[tuple[int, int]] = []
    start, width = 0, 0
    for i, length in enumerate(lengths):
        width = max(width, length)
        if i > start and width * (i + 1 - start) > PREFILL_TOKENS:
            passes.append((start, i))
            start, width = i, length
    return [*passes, (start, len(lengths))]
