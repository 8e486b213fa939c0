"""A small untrained language model created on the spot, so that nothing has to be downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sharpen.errors import ModelError
from sharpen.models.progress_bars import without_progress_bars

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"


def create_character_model(
    path: str | Path,
    *,
    alphabet: str,
    seed: int = 0,
    hidden: int = 128,
    intermediate: int = 448,
    layers: int = 4,
    heads: int = 4,
    context: int = 256,
) -> Path:
    """Write an untrained character-level Llama to the folder ``path`` and return ``path``.

    ``AutoModelForCausalLM`` and ``AutoTokenizer`` load it. The default sizes give 0.95 million parameters plus 256 per
    token. The same arguments give the same bytes; PyTorch's global random state is neither read nor changed.

    Raises ModelError if ``alphabet`` is empty.
    """
    path = Path(path)
    tokenizer = character_tokenizer(alphabet, context=context)
    special_ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=None,
        **special_ids,
    )
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the GPUs, which this fork_rng does not restore.
        torch.default_generator.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig.from_dict({"bos_token_id": None, **special_ids})
    with without_progress_bars():
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    return path


def character_tokenizer(alphabet: str, *, context: int) -> PreTrainedTokenizerFast:
    """A tokenizer with ``<pad>``, ``<eos>``, ``<unk>`` and one token per character of ``alphabet``.

    Text in this alphabet decodes to itself exactly. Any other character becomes ``<unk>``.
    """
    if not alphabet:
        raise ModelError("alphabet is empty: give the characters of prompts and completions")
    tokens = [PAD, EOS, UNK, *dict.fromkeys(alphabet)]
    characters = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=UNK))
    characters.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    characters.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=context,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
