"""Tokenizers that have more tokens than their model has embeddings, and ends that only the configuration names."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sharpen.errors import ModelError
from sharpen.models.policy import load_policy
from sharpen.models.scorer import load_scorer
from tiny_models import EOS, tiny_folder


def with_tokens(folder: Path, **special: str) -> int:
    """Name special tokens that are new to the tokenizer, and so have no embedding. Returns the number of embeddings."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)
    return rows


def test_a_padding_token_without_an_embedding_is_not_used(tmp_path: Path) -> None:
    rows = with_tokens(tiny_folder(tmp_path / "model"), pad_token="[PAD]")
    policy = load_policy(tmp_path / "model", device="cpu")
    assert policy.tokenizer.pad_token_id == rows
    assert policy.pad_id == EOS
    scorer = load_scorer(tmp_path / "model", kind="token", device="cpu")
    assert scorer.pad_id < rows


def test_an_end_without_an_embedding_is_refused(tmp_path: Path) -> None:
    rows = with_tokens(tiny_folder(tmp_path / "model"), eos_token="<|im_end|>")
    reason = (
        rf"model: its end-of-sequence token '<\|im_end\|>' has the id {rows}, and the model has {rows} embeddings for "
        rf"the {rows + 1} tokens of its tokenizer, none for <\|im_end\|>"
    )
    with pytest.raises(ModelError, match=reason):
        load_policy(tmp_path / "model", device="cpu")


def test_a_tokenizer_takes_the_end_that_the_model_names(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).exists():
            told = json.loads((folder / file).read_text())
            told.pop("eos_token")
            (folder / file).write_text(json.dumps(told))
    assert AutoTokenizer.from_pretrained(folder).eos_token_id is None
    assert load_policy(folder, device="cpu").tokenizer.eos_token_id == EOS
