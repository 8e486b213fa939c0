import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sharpen.errors import ModelError
from sharpen.models.character_model import create_character_model

ALPHABET = "0123456789+-*=() \nabcé"


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_character_model(tmp_path_factory.mktemp("embedded") / "model", alphabet=ALPHABET)


def test_automodel_loads_a_llama_of_about_a_million_parameters(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    attention, mlp, norms = 4 * 128 * 128, 3 * 128 * 448, 2 * 128
    vocabulary = len(ALPHABET) + 3
    assert count == 4 * (attention + mlp + norms) + 128 + 2 * 128 * vocabulary
    assert 900_000 < count < 1_000_000
    assert model.config.model_type == "llama"
    assert model.config.max_position_embeddings == 256
    assert model.dtype == torch.float32


def test_autotokenizer_makes_every_character_one_token_and_gives_the_text_back(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "  12+(3 * -4)=\n\n a bcé "
    encoded = tokenizer(text)
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert encoded["input_ids"] == [3 + ALPHABET.index(character) for character in text]
    assert tokenizer.decode(encoded["input_ids"]) == text
    assert tokenizer.decode(tokenizer("1 + 1<eos>")["input_ids"], skip_special_tokens=True) == "1 + 1"


def test_a_character_outside_the_alphabet_is_unknown(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("1z")["input_ids"] == [3 + ALPHABET.index("1"), tokenizer.unk_token_id]


def test_model_and_tokenizer_agree_on_the_special_tokens(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    for settings in (model.config, model.generation_config):
        assert (settings.pad_token_id, settings.eos_token_id, settings.bos_token_id) == (0, 1, None)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.model_max_length == 256


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    again = create_character_model(tmp_path / "again", alphabet=ALPHABET)
    other = create_character_model(tmp_path / "other", alphabet=ALPHABET, seed=1)
    assert hashes(again) == hashes(folder)
    changed = {name for name, value in hashes(other).items() if hashes(folder)[name] != value}
    assert changed == {"model.safetensors"}


def test_the_global_random_state_is_untouched(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    create_character_model(tmp_path / "model", alphabet=ALPHABET)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_alphabet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="alphabet is empty"):
        create_character_model(tmp_path / "model", alphabet="")
