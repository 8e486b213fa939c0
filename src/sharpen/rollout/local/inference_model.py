"""The forward pass for decoding: no gradient, one token per row, a prompt's keys and values once for its group.

It runs the modules of a transformers model of a plain architecture (llama, qwen2, qwen3, mistral, olmo2) with its own
attention and KV cache and, in bfloat16, with fused projections laid out for few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.models.kernels.compiled import compiles, on_gpu
from sharpen.models.policy import Policy
from sharpen.rollout.local.continuation import Continuation
from sharpen.rollout.local.kv_cache import KVCache
from sharpen.rollout.local.layer import finish_and_project_next, finish_layer, make_layers, project_qkv
from sharpen.rollout.local.projections import make_projection
from sharpen.rollout.local.torch_kv_cache import TorchKVCache
from sharpen.rollout.local.triton_kv_cache import TritonKVCache


class InferenceModel:
    """A policy's weights prepared for decoding, and the forward pass through them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        rounded = policy.compute_dtype == "bfloat16"
        body: Any = policy.model.get_decoder()  # type: ignore[operator]
        self._body = body
        self._layers = make_layers(body, policy.config, rounded=rounded)
        head: Any = policy.model.get_output_embeddings()  # type: ignore[operator]
        self._head = make_projection([head], rounded=rounded)
        self._projections = [*chain.from_iterable(layer.projections for layer in self._layers), self._head]
        self._project_qkv, self._finish_and_project_next, self._finish_layer = (
            on_gpu(project_qkv, policy.device),
            on_gpu(finish_and_project_next, policy.device),
            on_gpu(finish_layer, policy.device),
        )

    def reload(self) -> None:
        """Load the policy's current weights: copied matrices are copied again, everything else is shared."""
        for projection in self._projections:
            projection.reload()

    def release(self) -> None:
        """Free, between calls, copies of weights that can be made again."""
        for projection in self._projections:
            projection.release()

    def make_kv_cache(self, max_new_tokens: int) -> KVCache:
        """An empty cache for rows of at most ``max_new_tokens`` tokens besides their prompt."""
        device = self.policy.device
        first = self._layers[0]
        kind = TritonKVCache if compiles(device) else TorchKVCache
        return kind(
            len(self._layers),
            first.kv_heads,
            first.head_dim,
            scale=self._scale,
            dtype=first.attention_dtype,
            device=device,
            max_new_tokens=max_new_tokens,
        )

    @property
    def copy_bytes(self) -> tuple[int, int]:
        """Of the copies of weights that `release` frees, and of those that it leaves."""
        freed, kept = (sum(p.copy_bytes for p in self._projections if p.keeps_copy is keeps) for keeps in (False, True))
        return freed, kept

    @property
    def bytes_per_token(self) -> int:
        """Of a token's keys and values in all layers."""
        first = self._layers[0]
        return 2 * len(self._layers) * first.kv_heads * first.head_dim * first.attention_dtype.itemsize

    def prefill(self, contexts: Sequence[Sequence[int]], cache: KVCache) -> Tensor:
        """Logits [P, V] of the token after each context, whose keys and values go to the cache layer by layer."""
        lengths = [len(context) for context in contexts]
        width = max(lengths)
        tokens_PL = torch.zeros(len(contexts), width, dtype=torch.long)
        for p, context in enumerate(contexts):
            # Attention is causal, so no token of the context sees the padding on its right.
            tokens_PL[p, : lengths[p]] = torch.tensor(context)
        device = self.policy.device
        position_L = torch.arange(width, device=device)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.to(q.dtype).unflatten(0, (len(contexts), width)).transpose(1, 2) for x in (q, k, v))
            cache.add_layer(layer, cache.stored_keys(k), v)
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
            attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self._scale)
            return attended.transpose(1, 2).flatten(2).flatten(0, 1)

        hidden = self._forward(tokens_PL.to(device).flatten(), position_L.repeat(len(contexts)), attend)
        return self._logits(_last_of_each(hidden, lengths, width))

    def extend(self, continuation: Continuation) -> Tensor:
        """Logits [P, V] of the token after each context, of which the kept tokens are not computed again."""
        hidden = self._forward(continuation.token_PW.flatten(), continuation.position_PW.flatten(), continuation.attend)
        return self._logits(_last_of_each(hidden, continuation.new_lengths, continuation.token_PW.shape[1]))

    def decode(self, token_B: Tensor, position_B: Tensor, cache: KVCache) -> Tensor:
        """Logits [B, V] of the token after ``token_B``. Call ``cache.reserve`` before."""
        cache.begin_step()
        return self._logits(self._forward(token_B, position_B, cache.attend))

    @property
    def _scale(self) -> float:
        return float(self._layers[0].attention.scaling)

    def _forward(
        self, token_N: Tensor, position_N: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Hidden states [N, H]. How the N tokens form sequences is known to ``attend`` alone."""
        hidden = self._body.embed_tokens(token_N)
        cos, sin = (x[0][:, None] for x in self._body.rotary_emb(hidden[None], position_N[None]))
        half = self._layers[0].head_dim // 2
        # The rotation negates half of each head; the table of sines carries the sign instead.
        signed_sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        q, k, v = self._project_qkv(self._layers[0], hidden, cos, signed_sin)
        for number, (layer, following) in enumerate(pairwise(self._layers)):
            attended = attend(number, q, k, v)
            hidden, q, k, v = self._finish_and_project_next(layer, following, hidden, attended, cos, signed_sin)
        last = self._layers[-1]
        hidden = self._finish_layer(last, hidden, attend(len(self._layers) - 1, q, k, v))
        states: Tensor = self._body.norm(hidden).to(last.dtype)
        return states

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._head(hidden)


def _last_of_each(hidden_NH: Tensor, lengths: Sequence[int], width: int) -> Tensor:
    last_P = torch.arange(len(lengths)) * width + torch.tensor(lengths) - 1
    return hidden_NH[last_P.to(hidden_NH.device)]
