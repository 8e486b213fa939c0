"""Whether the model has an embedding for every token of the data, and the tokenizer a token for its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from transformers import PreTrainedTokenizerBase

from sharpen.errors import DataError

UNKNOWN_SHARE = 0.01
"""The share of unknown tokens above which there is a warning."""


def check_embeddings(
    rows: Sequence[Iterable[Sequence[int]]],
    where: Callable[[int], str],
    tokenizer: PreTrainedTokenizerBase,
    embedding_rows: int,
) -> None:
    """Raises DataError for a token in ``rows``, several sequences each, for which the model has no embedding."""
    for index, row in enumerate(rows):
        longest = max(map(max, filter(None, row)), default=0)
        if longest >= embedding_rows:
            name = tokenizer.name_or_path or "this model"
            token = tokenizer.convert_ids_to_tokens(longest)
            raise DataError(
                f"{where(index)}: the token {token!r} has the id {longest}, and {name} has embeddings for ids below "
                f"{embedding_rows} only, while its tokenizer has {len(tokenizer)} tokens: use the tokenizer that "
                "belongs to the model, or give the model an embedding for each of its tokens"
            )


def unknown_tokens(
    rows: Sequence[Iterable[Sequence[int]]], where: Callable[[int], str], tokenizer: PreTrainedTokenizerBase
) -> str | None:
    """A warning if more than `UNKNOWN_SHARE` of the tokens, or all of a row, stand for text that has no token.

    Raises DataError if all tokens of all rows do, special tokens aside.
    """
    unknown = tokenizer.unk_token_id
    special = frozenset(tokenizer.all_special_ids) - {unknown}
    # GPT-2 calls its end of text unknown, and knows all text.
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        return None
    found: list[tuple[int, int, int]] = []
    total = 0
    for index, row in enumerate(rows):
        ids = list(chain.from_iterable(row))
        count = ids.count(unknown)
        total += len(ids)
        if count:
            found.append((index, count, sum(token_id not in special for token_id in ids)))
    wholly = [index for index, count, known in found if count == known]
    share = sum(count for _, count, _ in found) / max(total, 1)
    if not wholly and share <= UNKNOWN_SHARE:
        return None
    token = tokenizer.convert_ids_to_tokens(unknown)
    remedy = "use a model whose tokenizer knows this script"
    if len(wholly) == len(rows):
        raise DataError(
            f"{where(0)}: all its tokens, and those of every other row, are {token}, which stands for text that the "
            f"tokenizer has no token for: {remedy}"
        )
    some = f"; in {len(wholly)} of {len(rows)} rows all are" if wholly else ""
    first = wholly[0] if wholly else found[0][0]
    return (
        f"{share:.1%} of the tokens are {token}, which stands for text that the tokenizer has no token for{some} "
        f"(first in {where(first)}). The model cannot read it: {remedy}"
    )
