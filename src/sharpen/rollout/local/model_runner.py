"""A forward pass for decoding alone: no gradient, one token a row, a prompt's keys and values once for its group.

It runs the modules of a transformers model of a plain architecture (llama, qwen2, qwen3, mistral, olmo2), with an
attention and a cache of its own, and in bfloat16 with products that are fused and laid out for few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.models.kernels.compiled import compiles, on_gpu
from sharpen.models.policy import Policy
from sharpen.rollout.local.kv_cache import KVCache
from sharpen.rollout.local.layer import enter, go_on, layers_of, leave
from sharpen.rollout.local.projections import make_projection
from sharpen.rollout.local.torch_kv_cache import TorchKVCache
from sharpen.rollout.local.triton_kv_cache import TritonKVCache
from sharpen.types import Prompt

PREFILL_TOKENS = 8192
"""Prompt tokens, padding included, that are computed in one pass."""


class Decoder:
    """The weights of a policy as decoding wants them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._rounded = policy.compute_dtype == "bfloat16"
        body: Any = policy.model.get_decoder()  # type: ignore[operator]
        self._body = body
        self._layers = layers_of(body, policy.config, rounded=self._rounded)
        head: Any = policy.model.get_output_embeddings()  # type: ignore[operator]
        self._head = make_projection([head], rounded=self._rounded)
        self._products = [*chain.from_iterable(layer.products for layer in self._layers), self._head]
        device = policy.device
        self._enter, self._go_on, self._leave = on_gpu(enter, device), on_gpu(go_on, device), on_gpu(leave, device)

    def publish(self) -> None:
        """Take over the policy's present weights: matrices that are copies are made anew, all else is shared."""
        for product in self._products:
            product.publish()

    def release(self) -> None:
        """Between calls, let go of copies that can be made again."""
        for product in self._products:
            product.release()

    def empty_kv_cache(self, room: int) -> KVCache:
        """For rows of at most ``room`` tokens beside their prompt."""
        device = self.policy.device
        first = self._layers[0]
        kind = TritonKVCache if compiles(device) else TorchKVCache
        return kind(
            len(self._layers),
            first.kv_heads,
            first.size,
            scale=self._scale,
            dtype=first.stored,
            device=device,
            room=room,
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
            q, k, v = (x.to(q.dtype).unflatten(0, (len(prompts), width)).transpose(1, 2) for x in (q, k, v))
            keys.append(k)
            values.append(v)
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self._scale)
            return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

        hidden = self._forward(tokens_PL.to(device).flatten(), position_L.repeat(len(prompts)), attend)
        last_P = torch.arange(len(prompts)) * width + torch.tensor(lengths) - 1
        return self._logits(hidden[last_P.to(device)]), keys, values

    def step(self, token_B: Tensor, position_B: Tensor, past: KVCache) -> Tensor:
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
        cos, sin = (x[0][:, None] for x in self._body.rotary_emb(hidden[None], position_N[None]))
        half = self._layers[0].size // 2
        # Half of the rotation has its sign in the table.
        signed_sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        q, k, v = self._enter(self._layers[0], hidden, cos, signed_sin)
        for number, (layer, following) in enumerate(pairwise(self._layers)):
            mixed = attend(number, q, k, v)
            hidden, q, k, v = self._go_on(layer, following, hidden, mixed, cos, signed_sin)
        last = self._layers[-1]
        hidden = self._leave(last, hidden, attend(len(self._layers) - 1, q, k, v))
        states: Tensor = self._body.norm(hidden).to(last.dtype)
        return states

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._head(hidden)


class PackedRunner:
    """Rows of a plain architecture, continued side by side."""

    refills = True

    def __init__(self, decoder: Decoder, room: int) -> None:
        """``room``: tokens that a row may be given; the past makes room for as many at most."""
        self._decoder = decoder
        self._past = decoder.empty_kv_cache(room)

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
