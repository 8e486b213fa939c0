"""Loading a model and what is known of it. (tests/functional/losses has a test_policy.py.)"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from sharpen.errors import ModelError
from sharpen.models.policy import load_policy
from tiny_models import ALPHABET, loaded_policy, loaded_scorer, own_logprobs, ragged_batch, tiny_folder


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None removes a key."""
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def test_every_end_of_sequence_id_that_is_declared_anywhere_counts(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    edit(folder / "generation_config.json", eos_token_id=[5, 6])
    edit(folder / "config.json", eos_token_id=7)
    policy = load_policy(folder, device="cpu")
    # 1 is the tokenizer's.
    assert policy.eos_ids == {1, 5, 6, 7}
    assert policy.pad_id == 0


def test_a_model_without_an_end_of_sequence_token_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    edit(folder / "generation_config.json", eos_token_id=None)
    config = json.loads((folder / "config.json").read_text())
    # Left out, it would be Llama's own default.
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    edit(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match="no end-of-sequence token") as error:
        load_policy(folder, device="cpu")
    assert str(folder) in str(error.value)


def test_a_model_without_a_pad_token_pads_with_an_end_token(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    edit(folder / "tokenizer_config.json", pad_token=None)
    assert load_policy(folder, device="cpu").pad_id == 1


def test_a_path_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: not a model folder: there is no such folder"):
        load_policy(tmp_path / "nowhere")
    folder = tiny_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=f"{folder}: cannot load this model"):
        load_policy(folder)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    torch.save(AutoModelForCausalLM.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load_policy(folder)


def test_a_model_saved_in_half_precision_is_trained_in_float32(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    policy = load_policy(folder, device="cpu")
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert policy.context_length == 128
    assert policy.config.vocab_size == len(ALPHABET) + 3


def test_saved_and_loaded_it_is_the_same_model(tmp_path: Path) -> None:
    policy = loaded_policy(tmp_path / "model", tie_word_embeddings=True)
    policy.save(tmp_path / "again")
    again = load_policy(tmp_path / "again", device="cpu")
    ours, theirs = policy.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.eos_ids == policy.eos_ids
    assert again.tokenizer("1+2=")["input_ids"] == policy.tokenizer("1+2=")["input_ids"]


DROPOUT = {
    "llama": {"attention_dropout": 0.5},
    "gpt2": {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
    "opt": {"dropout": 0.5, "attention_dropout": 0.5},
    "phi3": {"attention_dropout": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
}


@pytest.mark.parametrize("architecture", DROPOUT)
def test_dropout_is_off_also_in_training_mode_which_gradient_checkpointing_needs(
    architecture: str, tmp_path: Path
) -> None:
    folder = tiny_folder(tmp_path / "model", architecture, **DROPOUT[architecture])
    plain, checkpointed = load_policy(folder), load_policy(folder, gradient_checkpointing=True)
    assert checkpointed.model.training
    batch = ragged_batch(plain.config.vocab_size)
    for policy in (plain, checkpointed):
        torch.stack(own_logprobs(policy.model, batch, 1.0)).sum().backward()
    for one, other in zip(plain.model.parameters(), checkpointed.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_the_compute_dtype(compute_dtype: str, tmp_path: Path) -> None:
    policy = load_policy(tiny_folder(tmp_path / "model"), compute_dtype=compute_dtype, device="cpu")
    with policy.autocast():
        assert (policy.model.lm_head(torch.ones(1, 16))).dtype == getattr(torch, compute_dtype)
    assert policy.model.lm_head.weight.dtype == torch.float32


def test_a_reward_model_is_not_loaded_as_a_policy(tmp_path: Path) -> None:
    loaded_scorer(tmp_path / "causal", kind="sequence").save(tmp_path / "judge")
    with pytest.raises(ModelError, match="LlamaForSequenceClassification, such as a reward model"):
        load_policy(tmp_path / "judge", device="cpu")
