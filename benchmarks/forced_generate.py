"""transformers' ``generate``, with lengths that are given."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from cases import Case
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

CERTAIN = 1e4
"""No logit comes near it, so that its exponential is all of the sum."""


class _Ends(LogitsProcessor):
    """Forbids the end of sequence before the ``lengths[i]``-th token of row i, and there forces it."""

    def __init__(self, case: Case, eos: int) -> None:
        last_B = torch.tensor(case.lengths())[:, None] - 1
        self._end_TB = torch.where(torch.arange(case.limit) == last_B, CERTAIN, -math.inf).T.contiguous()
        self._eos, self._prompt = eos, case.prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._end_TB = self._end_TB.to(scores.device)
        scores[:, self._eos] = self._end_TB[input_ids.shape[1] - self._prompt]
        return scores


def force_lengths(model: Any, case: Case, eos: int) -> None:
    """Completion i of each call of the model's ``generate`` ends at its ``case.lengths()[i]``-th token."""
    generate = model.generate
    ends = LogitsProcessorList([_Ends(case, eos)])

    @functools.wraps(generate)
    def forced(*args: Any, **kwargs: Any) -> Any:
        return generate(*args, **kwargs, logits_processor=ends)

    model.generate = forced
