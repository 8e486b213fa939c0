"""The token that a scorer pads with.

transformers reads the score of a sequence at its last token that is not the configuration's ``pad_token_id``, whatever
the attention mask says. A model that pads with a token that texts end with is therefore read one token too early.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import GenerationConfig

from sharpen.errors import ModelError
from sharpen.models.load import end_of_sequence_ids

NEW_TOKEN = "<|pad|>"

_SET_ASIDE = re.compile("pad|reserved|unused", re.IGNORECASE)
"""Names of special tokens that no text has: for padding, as in <|vision_pad|>, or for uses that are not found yet."""

_RARE = "\ue000\u1680\U0001f9ff"
"""Characters that a vocabulary without bytes does not know."""


def pad_sequences(path: str, model: Any, tokenizer: Any) -> int:
    """Give the model and its tokenizer a padding token that no text ends with, and return its id.

    It is the first that fits of: the tokenizer's own, the configuration's, a special token whose name says that it is
    for padding or not in use, a new one. A new one has the next row of the embeddings that is to spare, or one more, of
    0; no score depends on it.
    """
    config = model.config.get_text_config()
    ends = end_of_sequence_ids(_generation_config(path), config, tokenizer)
    special = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    aside = sorted((i for i in special if _SET_ASIDE.search(special[i])), key=lambda i: "pad" not in special[i].lower())
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


def pad_tokens(path: str, tokenizer: Any) -> int:
    """Give the tokenizer a padding token if it has none, and return its id.

    Any token does where each has a score of its own and the attention mask says which are there.

    Raises ModelError if the tokenizer has no special token.
    """
    if tokenizer.pad_token_id is None:
        names = (tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token)
        name = next((name for name in names if name is not None), None)
        if name is None:
            raise ModelError(f"{path}: its tokenizer names no special token, so there is nothing to pad with")
        tokenizer.pad_token = name
    return int(tokenizer.pad_token_id)


def same_tokens(scorer: Any, policy: Any) -> bool:
    """Whether two tokenizers have the same tokens, the scorer's padding token aside."""
    own, other = scorer.get_vocab(), policy.get_vocab()
    if scorer.pad_token not in other:
        own.pop(scorer.pad_token, None)
    return bool(own == other)


def _ends_no_text(token_id: int, tokenizer: Any, ends: frozenset[int]) -> bool:
    # Old configurations say -1 for none.
    token = tokenizer.convert_ids_to_tokens(token_id) if 0 <= token_id < len(tokenizer) else None
    if token is None or token_id in ends or token in str(tokenizer.chat_template):
        return False
    unknown = tokenizer.unk_token_id
    return token_id != unknown or unknown not in tokenizer(_RARE, add_special_tokens=False)["input_ids"]


def _generation_config(path: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(path)
    except OSError:
        # A model that was saved as a scorer has none, and no model needs one.
        return None


def _make_room(model: Any, pad_id: int) -> None:
    """A row for the padding token, which gets no gradient: as the model will be made from the saved configuration."""
    rows = model.get_input_embeddings().num_embeddings
    if pad_id >= rows:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.resize_token_embeddings(pad_id + 1, mean_resizing=False)
            model.get_input_embeddings().weight[rows:] = 0
    model.get_input_embeddings().padding_idx = pad_id
