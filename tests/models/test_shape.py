"""Sizes by whatever name a configuration has for them."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from sharpen.models.character_model import character_tokenizer
from sharpen.models.shape import UNLIMITED, attention_width, context_length, size
from tiny_models import ALPHABET, tiny_model

NESTED = {"text_config": {"max_position_embeddings": 77}}


@pytest.mark.parametrize(
    ("architecture", "settings", "expected"),
    [
        ("llama", {"max_position_embeddings": 77}, 77),
        ("gemma3", NESTED, 77),
        ("mistral3", {"text_config": {"model_type": "mistral", "max_position_embeddings": 77}}, 77),
        ("llama4", NESTED, 77),
        ("qwen2_5_vl", NESTED, 77),
        ("qwen3_vl", NESTED, 77),
        ("gpt2", {"n_positions": 77}, 77),
        ("ctrl", {"n_positions": 77}, 77),
        ("mpt", {"max_seq_len": 77}, 77),
        ("bloom", {"seq_length": 77}, 77),
        ("rwkv", {"context_length": 77}, 77),
        ("mamba", {}, 128),
    ],
)
def test_the_context(architecture: str, settings: dict[str, Any], expected: int) -> None:
    """Where the configuration has none, the tokenizer's, which is 128."""
    config = AutoConfig.for_model(architecture, **settings)
    assert context_length(config, character_tokenizer(ALPHABET, context=128)) == expected


def test_without_any_limit_the_context_is_unlimited() -> None:
    tokenizer = character_tokenizer(ALPHABET, context=128)
    tokenizer.model_max_length = int(1e30)
    assert context_length(AutoConfig.for_model("mamba"), tokenizer) == UNLIMITED


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("llama", 2 * 4 * 4),
        ("gpt2", 2 * 16),
        ("mistral3", 2 * 4 * 4),
        ("mamba", 0),
        # Two of its heads' sizes: 4 in the sliding layer, 8 in the two full ones.
        ("gemma4_text", 4 * 4 + 2 * 4 * 8),
    ],
)
def test_the_width_of_attention(architecture: str, expected: int) -> None:
    assert attention_width(tiny_model(architecture)) == expected


def test_a_size_that_differs_between_layers_is_the_largest() -> None:
    assert size(tiny_model("gemma4_text").config, "head_dim") == 8
