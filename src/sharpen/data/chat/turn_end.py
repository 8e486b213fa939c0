"""What ends an assistant's turn."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase


def end_of_turn(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], start: int) -> int:
    """Where a turn that begins at ``start`` ends: after its last special token, if only whitespace follows."""
    special = set(tokenizer.all_special_ids) | {
        token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    end = next((i + 1 for i in reversed(range(start, len(ids))) if ids[i] in special), len(ids))
    return len(ids) if str(tokenizer.decode(list(ids[end:]))).strip() else end
