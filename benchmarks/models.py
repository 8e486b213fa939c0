"""The models of the cases, and prompts of an exact number of tokens. Needs sharpen's environment."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from cases import SEED, Case
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sharpen.models.character_model import character_tokenizer

ROOT = Path(__file__).resolve().parent.parent
PLACES = {"tiny": ROOT / "runs/bench/models/tiny", "smollm2": ROOT / "models/SmolLM2-135M-Instruct"}
TINY_VOCABULARY = 512
SURROGATES = range(0xD800, 0xE000)


def model_of(case: Case) -> Path:
    """The folder of a case's model; the tiny one is made where it is missing."""
    place = PLACES[case.model]
    if not (place / "config.json").is_file():
        if case.model != "tiny":
            raise SystemExit(f"{place} is missing: fetch it with `sharpen get smollm2`")
        make_tiny(place)
    return place


def make_tiny(place: Path, *, vocabulary: int = TINY_VOCABULARY, context: int = 1024) -> None:
    """A character-level Llama; 0.86 million weights with the vocabulary that is given here."""
    make_random(
        place,
        "llama",
        vocabulary=vocabulary,
        context=context,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )


def letters(count: int) -> str:
    """The first characters from 一 on; what is no character of its own is left out."""
    first = ord("一")
    points = (first + i for i in range(count + SURROGATES.stop - SURROGATES.start))
    return "".join(chr(point) for point in points if point not in SURROGATES)[:count]


def make_random(place: Path, architecture: str, *, vocabulary: int, context: int, **sizes: Any) -> None:
    """A character-level language model of random weights, as a folder."""
    tokenizer = character_tokenizer(letters(vocabulary - 3), context=context)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            architecture,
            vocab_size=len(tokenizer),
            max_position_embeddings=context,
            bos_token_id=None,
            **ids,
            **sizes,
        )
    )
    model.generation_config = GenerationConfig.from_dict({"bos_token_id": None, **ids})
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)


def prompts_of(case: Case, model: Path, count: int) -> list[str]:
    """``count`` different texts that the model's tokenizer makes exactly ``case.prompt`` tokens of."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    # Tokens that begin with a blank and go on with letters stay apart, whatever follows.
    words = [
        text
        for token in range(len(tokenizer))
        if token not in tokenizer.all_special_ids
        and (text := tokenizer.decode([token])).strip().isalpha()
        and (case.model == "tiny" or text.startswith(" "))
        and tokenizer(text)["input_ids"] == [token]
    ]
    draw = random.Random(SEED)
    texts = ["".join(draw.choices(words, k=case.prompt)) for _ in range(count)]
    for text in texts:
        if len(tokenizer(text)["input_ids"]) != case.prompt:
            raise ValueError(f"not {case.prompt} tokens: {text!r}")
    return texts
