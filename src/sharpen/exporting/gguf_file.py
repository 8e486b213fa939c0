"""A policy as one GGUF file, and its comparison with the policy through transformers' reader."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from sharpen.errors import ModelError
from sharpen.exporting.gguf_tokenizer import READ_AS_GPT2, GgufTokenizer, gguf_tokenizer
from sharpen.exporting.gguf_weights import (
    ARCHITECTURES,
    GgufType,
    head_dim,
    tensor_bytes,
    tensor_names,
    tensor_type,
    tensors,
)
from sharpen.exporting.probes import TEXTS, Difference, difference, plain_logprobs
from sharpen.exporting.report import Checks
from sharpen.models.policy import Policy
from sharpen.models.progress_bars import without_load_report, without_progress_bars

MEAN_NATS: dict[GgufType, float] = {"f32": 1e-4, "f16": 0.05, "bf16": 0.25, "q8_0": 0.25}
"""The largest mean difference of log-probabilities that each type may make.

SmolLM2-135M differs by 0.05 in Q8_0; rows of q and k in a wrong order make several nats.
"""

_FILE_TYPES: dict[GgufType, str] = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def refuse_without_packages() -> None:
    missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
    if missing:
        raise ModelError(f'a GGUF file needs {" and ".join(missing)}: pip install "sharpen[gguf]"')


def write_gguf(policy: Policy, file: Path, asked: GgufType, name: str, checks: Checks) -> GgufTokenizer:
    """Write the file of a model that `refuse_unproven` lets pass, converting one tensor at a time.

    Raises ModelError, before it writes anything, for a tokenizer that is not proven.
    """
    import gguf

    config = policy.config
    tokenizer = gguf_tokenizer(policy.tokenizer, config.vocab_size, policy.source)
    names = tensor_names(policy.model)
    writer = gguf.GGUFWriter(file, ARCHITECTURES[config.model_type])
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[asked]])
    if asked == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    _add_tokenizer(writer, policy, tokenizer, checks)
    shapes = {key: tuple(weight.shape) for key, weight in policy.model.named_parameters()}
    for key, own in names.items():
        kind = tensor_type(shapes[key], asked)
        size = tensor_bytes(shapes[key], kind)
        writer.add_tensor_info(own, shapes[key], np.dtype("float32"), size, gguf.GGMLQuantizationType[kind.upper()])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, tensor in tensors(policy.model, asked):
            writer.write_tensor_data(tensor)
    finally:
        writer.close()
    return tokenizer


def _add_shape(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, policy: Policy, told: GgufTokenizer, checks: Checks) -> None:
    tokenizer = policy.tokenizer
    writer.add_tokenizer_model(told.model)
    writer.add_tokenizer_pre(told.pre)
    writer.add_token_list(told.tokens)
    writer.add_token_types(told.types)
    if told.merges:
        writer.add_token_merges(told.merges)
    if told.scores is not None:
        writer.add_token_scores(told.scores)
    if told.prefix_space is not None:
        writer.add_add_space_prefix(told.prefix_space)
    own = tokenizer.eos_token_id
    ends = sorted(policy.eos_ids, key=lambda token: (token != own, token))
    writer.add_eos_token_id(ends[0])
    for add, end in zip((writer.add_eot_token_id, writer.add_eom_token_id), ends[1:], strict=False):
        add(end)
    if ends[3:]:
        checks.not_checked.append(f"ends of sequence beyond three, which GGUF cannot name: {ends[3:]}")
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(policy.pad_id)
    first = tokenizer("a")["input_ids"][:1]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id])
    writer.add_add_eos_token(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
    elif tokenizer.chat_template:
        checks.not_checked.append("the chat templates: this tokenizer has several, and none was written")


def check_gguf(
    policy: Policy,
    rows: list[list[int]],
    expected: list[Tensor],
    file: Path,
    asked: GgufType,
    told: GgufTokenizer,
    checks: Checks,
) -> Difference:
    """Compare the file with the policy. Raises ModelError where they differ by more than rounding."""
    with without_progress_bars(), without_load_report():
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        ).eval()
    found = difference(plain_logprobs(model, rows), expected)
    checks.hold(
        found.mean <= MEAN_NATS[asked],
        f"transformers reads the file: log-probabilities in {asked} differ by {found} nats "
        f"(at most {MEAN_NATS[asked]:g} on average)",
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    own = [policy.tokenizer(text)["input_ids"] for text in TEXTS]
    read = [tokenizer(text)["input_ids"] for text in TEXTS]
    if told.pre in READ_AS_GPT2 and read != own:
        checks.not_checked.append(
            f"the tokens of texts: transformers reads the pre-tokenizer {told.pre} as GPT-2's; llama.cpp knows it"
        )
    else:
        checks.hold(read == own, "the file's tokenizer gives the same tokens")
    checks.hold(
        (tokenizer.chat_template or None) == (policy.tokenizer.chat_template or None)
        or not isinstance(policy.tokenizer.chat_template, str | None),
        "the file has the chat template",
    )
    checks.hold(tokenizer.eos_token_id in policy.eos_ids, f"the file's end of sequence is {tokenizer.eos_token_id}")
    checks.not_checked.append("the file in llama.cpp itself: only transformers' reader was used")
    return found
