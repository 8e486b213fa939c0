"""ModelRunner through the forward of any architecture of transformers, with a cache of transformers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.models.policy import Policy
from sharpen.rollout.local.transformers_cache import make_cache, select_rows
from sharpen.types import Prompt


class TransformersRunner:
    """Rows that begin together. Each has a copy of its prompt's cache; prompts are padded on the left."""

    refills = False

    def __init__(self, policy: Policy, model: nn.Module, cache_argument: str) -> None:
        """``cache_argument``: what the model's forward calls its cache."""
        self._policy, self._model = policy, model
        self._cache_argument = cache_argument
        self.arrangement = 0
        self._cache: Any = None
        self._position_B = self._visible_BL = torch.empty(0)

    def admit(self, prompts: Sequence[Prompt], copies: Sequence[int]) -> Tensor:
        policy, device = self._policy, self._policy.device
        lengths = torch.tensor([len(p.token_ids) for p in prompts])
        width = int(lengths.max())
        input_PL = torch.full((len(prompts), width), policy.pad_id)
        visible_PL = torch.arange(width) >= (width - lengths)[:, None]
        for p, prompt in enumerate(prompts):
            # On the left, so that all rows write at the same place.
            input_PL[p, width - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
        position_PL = (visible_PL.cumsum(dim=1) - 1).clamp(min=0)
        self._cache = make_cache(policy.config, torch.bfloat16 if policy.compute_dtype == "bfloat16" else None)
        input_PL, visible_PL, position_PL = (x.to(device) for x in (input_PL, visible_PL, position_PL))
        logits_PV = self._forward(input_PL, position_PL, visible_PL)
        prompt_B = torch.repeat_interleave(torch.tensor(list(copies))).to(device)
        select_rows(self._cache, prompt_B)
        self._visible_BL, self._position_B = visible_PL[prompt_B], lengths.to(device)[prompt_B]
        return logits_PV[prompt_B]

    def make_room(self) -> None:
        # Its cache grows with every token, so no step has the tensors of the one before.
        self.arrangement += 1

    def advance(self, token_B: Tensor) -> Tensor:
        self._visible_BL = nn.functional.pad(self._visible_BL, (0, 1), value=True)
        logits_BV = self._forward(token_B[:, None], self._position_B[:, None], self._visible_BL)
        self._position_B = self._position_B + 1
        return logits_BV

    def keep(self, index_B: Tensor) -> None:
        select_rows(self._cache, index_B)
        self._visible_BL, self._position_B = self._visible_BL[index_B], self._position_B[index_B]

    def _forward(self, input_ids: Tensor, position_ids: Tensor, visible: Tensor) -> Tensor:
        """Logits of the token that follows the last, [B, V]."""
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


def with_rounded_matrices(model: nn.Module) -> nn.Module:
    """A copy of the model whose linear layers hold bfloat16 weights of their own; everything else is shared."""
    twin = copy.deepcopy(model, memo={id(t): t for t in (*model.parameters(), *model.buffers())})
    for module in twin.modules():
        if isinstance(module, nn.Linear):
            for name, parameter in list(module.named_parameters(recurse=False)):
                rounded = parameter.detach().to(torch.bfloat16)
                module.register_parameter(name, nn.Parameter(rounded, requires_grad=False))
    return twin


@torch.no_grad()
def round_matrices(model: nn.Module, twin: nn.Module) -> None:
    for module, other in zip(model.modules(), twin.modules(), strict=True):
        if isinstance(module, nn.Linear):
            for ours, theirs in zip(module.parameters(recurse=False), other.parameters(recurse=False), strict=True):
                theirs.copy_(ours)
