"""Whether a model's outputs at a token depend on that token and earlier ones alone: tried on a few tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sharpen.errors import ModelError

PREFIX, LENGTH = 6, 12
"""Tokens of a text, and of a longer one that begins with it."""
TOLERANCE = 3e-4
"""Of the largest output. Looking ahead changes an output by more even in an untrained model, float32 rounds by less."""
TRIES = 2
"""A mixture of experts may round to another expert, and sparse attention to other tokens; rarely twice."""


@torch.no_grad()
def refuse_not_causal(path: str, model: Any, tokenizer: Any) -> None:
    """Raises ModelError for a model that reads later tokens, such as an encoder: no token has a probability in it.

    Also raises it for one that needs more than token ids.

    Training and sampling rely on it: sequences are padded on the right without an attention mask.
    """
    try:
        looks_ahead = all(_difference(model, tokenizer, seed=attempt) > TOLERANCE for attempt in range(TRIES))
    except Exception as error:
        raise ModelError(f"{path}: {type(model).__name__} does not run on token ids alone: {error}") from error
    if looks_ahead:
        raise ModelError(
            f"{path}: {type(model).__name__} is not causal: what it computes at a token depends on later ones, as in "
            "an encoder. A language model generates from left to right"
        )


def ordinary_tokens(tokenizer: Any, vocabulary: int, count: int, seed: int) -> list[int]:
    """Random tokens that are not special, drawn without PyTorch's random state."""
    size = min(len(tokenizer), vocabulary)
    special = {*tokenizer.all_special_ids}
    ordinary = [i for i in range(size) if i not in special] or list(range(size))
    generator = torch.Generator().manual_seed(seed)
    return [ordinary[i] for i in torch.randint(len(ordinary), (count,), generator=generator).tolist()]


def _difference(model: Any, tokenizer: Any, *, seed: int) -> float:
    """Between the outputs of a text alone and as the beginning of a longer one, relative to the largest output."""
    embedding: Tensor = model.get_input_embeddings().weight
    tokens = ordinary_tokens(tokenizer, len(embedding), LENGTH, seed)
    ids_1L = torch.tensor([tokens], device=embedding.device)
    head = model.get_output_embeddings()
    whole, alone = (
        model(input_ids=ids, use_cache=False).logits[0, :PREFIX].float()
        if head is not None
        else model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, :PREFIX].float()
        for ids in (ids_1L, ids_1L[:, :PREFIX])
    )
    return float((whole - alone).abs().max() / alone.abs().max().clamp(min=1e-30))
