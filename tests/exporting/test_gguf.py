"""GGUF files: transformers reads back the policy's log-probabilities, tokens and ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import load_file
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaTokenizer, PreTrainedTokenizerFast

import sharpen
from byte_tokenizer import byte_tokenizer
from sharpen.errors import ModelError
from sharpen.exporting.gguf_tokenizer import _LLAMA3, _QWEN2, gguf_tokenizer
from sharpen.exporting.gguf_weights import permuted
from sharpen.models.progress_bars import without_progress_bars
from tiny_models import tiny_folder, tiny_model

SIZES = {"bos_token_id": None, "hidden_size": 32, "head_dim": 8, "vocab_size": 300, "eos_token_id": 257}
OF_QWEN3 = {"head_dim": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
TEXTS = ("I'll add 47 and 1234.", "  Größe 東京\n\n x", "<|end|>a<|end|>")


def byte_level(split: str | None) -> PreTrainedTokenizerFast:
    """256 bytes, "ab", "<eos>", "<|end|>"; with ``split``, an expression that cuts the text first."""
    tokenizer = byte_tokenizer("ab")
    tokenizer.add_tokens(["<|end|>"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    if split is not None:
        cut = pre_tokenizers.Split(Regex(split), behavior="isolated")
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_alone])
    else:
        tokenizer.backend_tokenizer.pre_tokenizer = bytes_alone
    return tokenizer


def sentencepiece() -> LlamaTokenizer:
    """SentencePiece's BPE: bytes as a fallback, ▁ for blanks, "ab" made before "▁ab"."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁ab", "ba"]
    merges = [("a", "b"), ("▁", "ab"), ("b", "a")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return LlamaTokenizer(vocab=vocabulary, merges=merges)


def folder_of(path: Path, architecture: str, tokenizer: PreTrainedTokenizerFast, **settings: object) -> Path:
    changes = {**SIZES, **(OF_QWEN3 if architecture == "qwen3" else {}), **settings}
    with without_progress_bars():
        tiny_model(architecture, **changes).save_pretrained(path)
        tokenizer.save_pretrained(path)
    return path


def logprobs(model: torch.nn.Module, row: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([row])).logits.float().log_softmax(-1)


def test_rows_are_permuted_as_llama_cpp_rotates_them() -> None:
    """Two heads of 4 rows: the halves (0, 1) and (2, 3) of a head become pairs."""
    rows = torch.arange(8.0)[:, None]
    assert permuted(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize(("dtype", "mean"), [("float32", 2e-6), ("f16", 5e-3), ("bf16", 0.03), ("q8_0", 0.06)])
def test_transformers_reads_the_policy_back(architecture: str, dtype: str, mean: float, tmp_path: Path) -> None:
    tokenizer = byte_level(_QWEN2 if "qwen" in architecture else _LLAMA3)
    folder = folder_of(tmp_path / "model", architecture, tokenizer)
    done = sharpen.export(folder, "gguf", tmp_path / "model.gguf", dtype=dtype)
    assert done.path == tmp_path / "model.gguf"
    dense = GgufConfig(dequantize=True)
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32, quantization_config=dense
    )
    row = [5, 100, 257, 299, 64, 65, 66, 3, 255]
    apart = (logprobs(read, row) - logprobs(AutoModelForCausalLM.from_pretrained(folder), row)).abs()
    assert apart.mean() < mean
    if dtype != "q8_0":
        name = {"f16": torch.float16, "bf16": torch.bfloat16}.get(dtype, torch.float32)
        weights = load_file(folder / "model.safetensors")
        # Vectors stay float32.
        rounded = {key: weight if weight.dim() == 1 else weight.to(name).float() for key, weight in weights.items()}
        assert all(torch.equal(read.state_dict()[key], weight) for key, weight in rounded.items())
    assert read.config.model_type == architecture.replace("mistral", "llama")
    own = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert [own(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert own.chat_template == tokenizer.chat_template
    assert own.eos_token_id == 257


def test_types_are_those_asked_for_and_values_are_rounded_to_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "qwen2", byte_level(_QWEN2), tie_word_embeddings=True)
    sharpen.export(folder, "gguf", tmp_path / "q.gguf", dtype="q8_0")
    read = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "q.gguf").tensors}
    assert "output.weight" not in read  # it is tied to the embedding
    weight = load_file(folder / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"].numpy()
    found = read["blk.0.attn_q.weight"]
    assert found.tensor_type.name == "Q8_0"
    blocks = weight.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    assert np.abs(dequantize(found.data, found.tensor_type).reshape(-1, 32) - blocks).max() <= 0.51 * scale.max()
    # Rows of 24, which blocks of 32 do not divide.
    assert read["blk.0.ffn_down.weight"].tensor_type.name == "F16"
    assert read["blk.0.attn_q.bias"].tensor_type.name == "F32"


def test_every_end_and_the_tokens_types_are_in_the_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "llama", byte_level(None))
    (folder / "generation_config.json").write_text('{"eos_token_id": [257, 258]}')
    sharpen.export(folder, "gguf", tmp_path / "m.gguf", dtype="f32")
    fields = GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 257
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 258
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    types = fields["tokenizer.ggml.token_type"].contents()
    assert (types[0], types[256], types[257], types[258], types[299]) == (1, 1, 3, 3, 5)
    assert fields["tokenizer.ggml.tokens"].contents()[299] == "[PAD299]"
    assert fields["tokenizer.ggml.merges"].contents() == ["a b"]


def test_sentencepiece_has_scores_in_the_order_of_its_merges(tmp_path: Path) -> None:
    tokenizer = sentencepiece()
    told = gguf_tokenizer(tokenizer, 266, "tiny")
    scores = dict(zip(told.tokens, told.scores or (), strict=True))
    assert told.model == "llama"
    assert (scores["ab"], scores["▁ab"], scores["ba"]) == (0, -1, -2)
    assert scores["a"] < -2
    types = dict(zip(told.tokens, told.types, strict=True))
    assert (types["<unk>"], types["</s>"], types["<0x0A>"], types["ab"], types["[PAD265]"]) == (2, 3, 6, 1, 5)
    assert told.prefix_space is True
    settings = {"vocab_size": 266, "eos_token_id": 2, "bos_token_id": 1}
    folder = folder_of(tmp_path / "model", "llama", tokenizer, **settings)
    sharpen.export(folder, "gguf", tmp_path / "m.gguf", dtype="f32")
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    # ▁ab, then ab before ba: "bab" is b, ab.
    names = ["▁ab", "▁", "b", "ab", "<0x0A>"]
    assert read("ab bab\n")["input_ids"] == [told.tokens.index(name) for name in names]


def test_what_is_not_proven_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    cases = {
        "is proven for llama, mistral, qwen2, qwen3, not for gemma3_text": ("gemma3_text", {}, byte_level(None)),
        "rope scaling .linear": (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            byte_level(None),
        ),
        "attention_bias": ("llama", {"attention_bias": True}, byte_level(None)),
        "sliding window": ("mistral", {"sliding_window": 16}, byte_level(None)),
        "splits text in a way": ("llama", {}, byte_level(r"\p{L}")),
    }
    for number, (message, (architecture, settings, tokenizer)) in enumerate(cases.items()):
        folder = folder_of(tmp_path / f"model{number}", architecture, tokenizer, **settings)
        with pytest.raises(ModelError, match=message):
            sharpen.export(folder, "gguf", tmp_path / "out" / "m.gguf", dtype="f32")
    with pytest.raises(ModelError, match="of type WordLevel; only byte-level BPE and SentencePiece"):
        sharpen.export(tiny_folder(tmp_path / "words"), "gguf", tmp_path / "out" / "m.gguf")
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_wrong_file_is_noticed_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.exporting.gguf_weights.permuted", lambda weight, heads: weight)
    folder = folder_of(tmp_path / "model", "llama", byte_level(None))
    with pytest.raises(ModelError, match="log-probabilities in f32 differ"):
        sharpen.export(folder, "gguf", tmp_path / "m.gguf", dtype="f32")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
