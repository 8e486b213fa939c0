"""What two models say of the same tokens: how exports are compared with the model that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sharpen.data.collate import collate
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.policy import Policy
from sharpen.training.microbatch import usual_tokens
from sharpen.types import Group, Prompt, single_turn

TEXTS = (
    "The capital of France is Paris, and its longest river is the Loire.",
    "def add(a, b):\n    return a + b\n\nprint(add(47, 85))  # 132",
    "  Größe: 3 × 12 ≈ 36 €; 東京は日本の首都です。 I'll don't WE'RE 1234567\t\n\n end",
    "<|im_start|>user\nWhat is 2+2?<|im_end|>\n",
)
LONGEST = 64
RANDOM_TOKENS = 48


def probe_tokens(tokenizer: Any, vocabulary: int, context: int) -> list[list[int]]:
    """The texts' tokens, and tokens drawn from the whole vocabulary, for tokenizers that know few of the texts."""
    length = min(LONGEST, context)
    known = min(vocabulary, len(tokenizer))
    drawn = torch.randint(0, known, (min(RANDOM_TOKENS, length),), generator=torch.Generator().manual_seed(0))
    rows = [tokenizer(text)["input_ids"][:length] for text in TEXTS]
    return [row for row in (*rows, drawn.tolist()) if len(row) > 1 and max(row) < vocabulary]


def policy_logprobs(policy: Policy, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """log π of every token but the first of each row, as training computes it."""
    found = []
    for number, row in enumerate(rows):
        prompt = Prompt(str(number), tuple(row[:1]), "", {})
        batch = collate([Group(prompt, (single_turn(tuple(row[:1]), tuple(row[1:]), ""),))])
        limits = MicrobatchLimits(usual_tokens(policy, 1), shared_prompt=True)
        found.append(all_outputs(policy, batch, "logprobs", 1.0, limits)[0][batch.mask_ET[0]].float().cpu())
    return found


@torch.no_grad()
def plain_logprobs(model: Any, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """The same by transformers' own forward pass."""
    found = []
    for row in rows:
        ids = torch.tensor([list(row)], device=model.device)
        logprobs = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
        found.append(logprobs.gather(1, ids[0, 1:, None])[:, 0].cpu())
    return found


@torch.no_grad()
def plain_scores(model: Any, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """A scorer's score of each row, or of each of its tokens, by transformers' own forward pass."""
    return [
        model(input_ids=torch.tensor([list(row)], device=model.device)).logits.float().cpu().flatten() for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two models' log-probabilities or scores, in absolute values."""

    mean: float
    largest: float

    def __str__(self) -> str:
        return f"mean {self.mean:.2g}, largest {self.largest:.2g}"


def difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> Difference:
    apart = (torch.cat(list(first)).double() - torch.cat(list(second)).double()).abs()
    return Difference(float(apart.mean()), float(apart.max()))
