"""Models that look ahead are refused, whichever way they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, GPT2LMHeadModel

from sharpen.errors import ModelError
from sharpen.models.character_model import character_tokenizer
from sharpen.models.policy import load_policy
from sharpen.models.scorer import load_scorer
from tiny_architectures import USUAL
from tiny_models import ALPHABET, tiny_folder


def bert(path: Path, **settings: object) -> Path:
    tokenizer = character_tokenizer(ALPHABET, context=128)
    config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), **USUAL, **settings)
    torch.manual_seed(0)
    auto = AutoModelForSequenceClassification if "num_labels" in settings else AutoModelForMaskedLM
    auto.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_an_encoder_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"BertLMHeadModel is not causal"):
        load_policy(bert(tmp_path), device="cpu")


def test_an_encoder_with_a_causal_mask_is_a_policy(tmp_path: Path) -> None:
    assert load_policy(bert(tmp_path, is_decoder=True), device="cpu").context_length == 128


def test_an_encoder_scores_nothing(tmp_path: Path) -> None:
    """Its scores would depend on the padding after them."""
    with pytest.raises(ModelError, match=r"BertForSequenceClassification is not causal"):
        load_scorer(bert(tmp_path, num_labels=1), kind="sequence", device="cpu")


@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_a_causal_model_scores(kind: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, "gpt2")
    assert load_scorer(folder, kind=kind, device="cpu").kind == kind  # type: ignore[arg-type]


def test_a_model_that_needs_more_than_token_ids_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def forward(self: object, **_: object) -> None:
        raise ValueError("pixel_values are needed")

    monkeypatch.setattr(GPT2LMHeadModel, "forward", forward)
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel does not run on token ids alone: pixel_values are needed"):
        load_policy(tiny_folder(tmp_path, "gpt2"), device="cpu")
