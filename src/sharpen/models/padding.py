"""The padding token of scorers.

transformers reads a sequence's score at the last token that is not the configuration's ``pad_token_id``, ignoring the
attention mask. If that token also ends texts, the score is read one token too early.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from sharpen.errors import ModelError
from sharpen.models.ends import end_of_sequence_ids, saved_generation_config
from sharpen.models.vocabulary import embedding_rows

NEW_TOKEN = "<|pad|>"

_RESERVED = re.compile("pad|reserved|unused", re.IGNORECASE)
"""Names of special tokens that occur in no text: for padding, such as <|vision_pad|>, or reserved."""

_RARE = "\ue000\u1680\U0001f9ff"
"""Characters that are unknown to a vocabulary without byte fallback."""


def pad_sequences(path: str, model: Any, tokenizer: Any) -> int:
    """Give the model and its tokenizer a padding token that ends no text, and return its id.

    The first suitable of: the tokenizer's, the configuration's, a special token named as padding or unused, a new
    token. A new token takes the next spare row of the embeddings, or an added row of 0; no score depends on it.
    """
    config = model.config.get_text_config()
    ends = end_of_sequence_ids(saved_generation_config(path), config, tokenizer)
    special = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    aside = sorted((i for i in special if _RESERVED.search(special[i])), key=lambda i: "pad" not in special[i].lower())
    for candidate in (tokenizer.pad_token_id, config.pad_token_id, *aside):
        if candidate is not None and _ends_no_text(candidate, tokenizer, ends):
            if candidate != tokenizer.pad_token_id:
                tokenizer.pad_token = tokenizer.convert_ids_to_tokens(candidate)
            break
    else:
        tokenizer.add_special_tokens({"pad_token": NEW_TOKEN})
    pad_id = int(tokenizer.pad_token_id)
    config.pad_token_id = pad_id
    _make_room(model, pad_id)
    return pad_id


def pad_tokens(path: str, model: Any, tokenizer: Any) -> int:
    """Give the tokenizer a padding token if it has none with an embedding, and return its id.

    Any token will do, since every token has its own score and the attention mask marks the padding.

    Raises ModelError if the tokenizer has no special token.
    """
    rows = embedding_rows(model)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        names = (tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token)
        name = next((n for n in names if n is not None and tokenizer.convert_tokens_to_ids(n) < rows), None)
        if name is None:
            raise ModelError(f"{path}: its tokenizer has no special token to pad with: set its pad_token")
        tokenizer.pad_token = name
    return int(tokenizer.pad_token_id)


def same_tokens(scorer: Any, policy: Any) -> bool:
    """Whether two tokenizers have the same vocabulary, apart from the scorer's padding token."""
    own, other = scorer.get_vocab(), policy.get_vocab()
    if scorer.pad_token not in other:
        own.pop(scorer.pad_token, None)
    return bool(own == other)


def _ends_no_text(token_id: int, tokenizer: Any, ends: frozenset[int]) -> bool:
    # Old configurations use -1 for no token.
    token = tokenizer.convert_ids_to_tokens(token_id) if 0 <= token_id < len(tokenizer) else None
    if token is None or token_id in ends or token in str(tokenizer.chat_template):
        return False
    unknown = tokenizer.unk_token_id
    return token_id != unknown or unknown not in tokenizer(_RARE, add_special_tokens=False)["input_ids"]


def _make_room(model: Any, pad_id: int) -> None:
    """Add a padding embedding that gets no gradient, as transformers does when it loads the saved model."""
    rows = embedding_rows(model)
    if pad_id >= rows:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.resize_token_embeddings(pad_id + 1, mean_resizing=False)
            model.get_input_embeddings().weight[rows:] = 0
    model.get_input_embeddings().padding_idx = pad_id
