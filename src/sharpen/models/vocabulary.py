"""The tokens of a tokenizer against the rows of a model's embedding."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sharpen.errors import ModelError


def embedding_rows(model: Any) -> int:
    """The number of token ids that the model can read."""
    return len(model.get_input_embeddings().weight)


def check_end(path: str, model: Any, tokenizer: Any) -> None:
    """Raises ModelError if the token that ends completions has no embedding.

    Tokens without an embedding that no text uses do no harm.
    """
    rows, end = embedding_rows(model), tokenizer.eos_token_id
    if end is not None and end >= rows:
        beyond = [tokenizer.convert_ids_to_tokens(i) for i in range(rows, len(tokenizer))]
        named = ", ".join(map(str, beyond[:5])) + (", …" if len(beyond) > 5 else "")
        raise ModelError(
            f"{path}: its end-of-sequence token {tokenizer.eos_token!r} has the id {end}, and the model has {rows} "
            f"embeddings for the {len(tokenizer)} tokens of its tokenizer, none for {named}: use the tokenizer that "
            "belongs to the model, or give the model an embedding for each of its tokens"
        )


def name_end(tokenizer: Any, ends: Collection[int]) -> None:
    """Let a tokenizer without an end-of-sequence token use the model's, if that has one only."""
    if tokenizer.eos_token_id is None and len(ends) == 1:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(next(iter(ends)))


def padding_of(tokenizer: Any, ends: Collection[int], rows: int) -> int:
    """The tokenizer's padding, or the first end where it has none, or one without an embedding."""
    pad = tokenizer.pad_token_id
    return int(pad) if pad is not None and pad < rows else min(ends)
