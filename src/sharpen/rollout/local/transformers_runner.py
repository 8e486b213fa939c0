"""A model runner for any architecture of transformers, with the model's own forward and a transformers cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.models.policy import Policy
from sharpen.rollout.local.kept import Kept
from sharpen.rollout.local.transformers_cache import (
    capacity_of,
    grown_capacity,
    limit_capacity,
    make_cache,
    select_cache_rows,
)


class TransformersRunner:
    """All rows start together. Each has its own copy of its context's cache; contexts are padded on the left.

    It keeps no conversations: the next request of one computes its whole context again.
    """

    continuous_batching = False
    keeps = False

    def __init__(self, policy: Policy, model: nn.Module, cache_argument: str, slots: int) -> None:
        """``cache_argument``: the name of the cache argument of the model's forward; ``slots``: the most to hold."""
        self._policy, self._model = policy, model
        self._cache_argument = cache_argument
        self._max_slots = slots
        self.layout_version = 0
        self._cache: Any = None
        self._length = self._end = self._max_new_tokens = 0
        self._position_B = self._visible_BL = torch.empty(0)

    @property
    def slots(self) -> int:
        return 0 if self._cache is None else len(self._position_B) * max(self._length, capacity_of(self._cache))

    def slots_after_adding(self, lengths: Sequence[int], copies: Sequence[int], max_new_tokens: int) -> int:
        return sum(copies) * grown_capacity(max(lengths))

    @property
    def must_grow(self) -> bool:
        return self._length >= capacity_of(self._cache)

    def slots_to_decode(self, rows: int) -> int:
        length, capacity = self._length + 1, capacity_of(self._cache)
        if capacity and length > capacity:
            return rows * min(grown_capacity(length), self._end)
        return rows * max(length, capacity)

    def slots_alone(self, length: int) -> int:
        return length

    def raise_limit(self, max_new_tokens: int) -> None:
        self._max_new_tokens = max_new_tokens

    def prefill(self, contexts: Sequence[tuple[int, ...]], copies: Sequence[int]) -> Tensor:
        policy, device = self._policy, self._policy.device
        lengths = torch.tensor([len(context) for context in contexts])
        width = int(lengths.max())
        input_PL = torch.full((len(contexts), width), policy.pad_id)
        visible_PL = torch.arange(width) >= (width - lengths)[:, None]
        for p, context in enumerate(contexts):
            # On the left, so that all rows write to the same slot.
            input_PL[p, width - len(context) :] = torch.tensor(context)
        position_PL = (visible_PL.cumsum(dim=1) - 1).clamp(min=0)
        self._cache = make_cache(policy.config, cache_dtype(policy))
        limit_capacity(self._cache, self._max_slots // sum(copies))
        input_PL, visible_PL, position_PL = (x.to(device) for x in (input_PL, visible_PL, position_PL))
        logits_PV = self._forward(input_PL, position_PL, visible_PL)
        prompt_B = torch.repeat_interleave(torch.tensor(list(copies))).to(device)
        select_cache_rows(self._cache, prompt_B)
        self._length, self._end = width, width + self._max_new_tokens
        self._visible_BL, self._position_B = visible_PL[prompt_B], lengths.to(device)[prompt_B]
        return logits_PV[prompt_B]

    def extend(self, contexts: Sequence[tuple[int, ...]], kept: Sequence[Kept], reused: Sequence[int]) -> Tensor:
        raise NotImplementedError("it keeps no conversations")

    def copy_row(self, row: int, own: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("it keeps no conversations")

    def reserve(self, slots: int) -> None:
        # The cache grows with every token, so every step uses new tensors.
        self.layout_version += 1
        self._length += 1
        limit_capacity(self._cache, slots // len(self._position_B))

    def decode(self, token_B: Tensor) -> Tensor:
        self._visible_BL = nn.functional.pad(self._visible_BL, (0, 1), value=True)
        logits_BV = self._forward(token_B[:, None], self._position_B[:, None], self._visible_BL)
        self._position_B = self._position_B + 1
        return logits_BV

    def select_rows(self, index_B: Tensor) -> None:
        select_cache_rows(self._cache, index_B)
        self._visible_BL, self._position_B = self._visible_BL[index_B], self._position_B[index_B]

    def _forward(self, input_ids: Tensor, position_ids: Tensor, visible: Tensor) -> Tensor:
        """Logits of the next token, [B, V]."""
        with self._policy.autocast():
            output = self._model(
                input_ids=input_ids,
                position_ids=position_ids,
                attention_mask=visible,
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_argument: self._cache},
            )
        logits: Tensor = output.logits[:, -1]
        return logits


def cache_dtype(policy: Policy) -> torch.dtype | None:
    """What full-attention layers store; None: the dtype of the keys."""
    return torch.bfloat16 if policy.compute_dtype == "bfloat16" else None


class _Bfloat16Linears(nn.Module):
    """A model run with weights of its own in bfloat16 in its linear layers; everything else is the model's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.rounded = {
            f"{name}.{part}": parameter.detach().to(torch.bfloat16)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
            for part, parameter in module.named_parameters(recurse=False)
        }

    def forward(self, **arguments: Any) -> Any:
        # A tied embedding keeps its own type.
        return torch.func.functional_call(self.model, self.rounded, kwargs=arguments, tie_weights=False)


def with_bfloat16_linears(model: nn.Module) -> nn.Module:
    """The model as autocast runs it, but with the weights of its linear layers rounded once, not at every use."""
    return _Bfloat16Linears(model)


@torch.no_grad()
def update_bfloat16_linears(model: nn.Module, rounded: nn.Module) -> None:
    """Round the model's current linear weights into ``rounded``, made by `with_bfloat16_linears`."""
    assert isinstance(rounded, _Bfloat16Linears)
    for name, weight in rounded.rounded.items():
        weight.copy_(model.get_parameter(name))
