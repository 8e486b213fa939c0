"""Models that write what a table says: the next token follows from the last one alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sharpen.models.progress_bars import without_progress_bars

CONTEXT = 512


def chain_folder(
    folder: Path, tokenizer: PreTrainedTokenizerFast, after: Mapping[int, int], otherwise: int, stops: Sequence[int]
) -> Path:
    """A Llama without attention whose greedy next token is ``after`` its last one, or else ``otherwise``.

    ``stops`` are the ends of sequence that it declares.
    """
    vocabulary = len(tokenizer)
    width = vocabulary + vocabulary % 2
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=width // 2,
        num_key_value_heads=1,
        head_dim=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(stops),
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight.copy_(torch.eye(vocabulary, width))
        for last in range(vocabulary):
            model.lm_head.weight[after.get(last, otherwise), last] = 5.0
    model.generation_config = GenerationConfig(eos_token_id=list(stops), bos_token_id=tokenizer.bos_token_id)
    with without_progress_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
