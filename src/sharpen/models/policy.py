"""A language model with what training and sampling need to know of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from sharpen.errors import ModelError
from sharpen.models.quiet import without_progress_bars
from sharpen.runtime.memory import keep_freed_memory

Dtype = Literal["float32", "bfloat16"]

PLAIN_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3", "olmo2", "mistral"})
"""Model types with full causal attention that obeys a given 4-D mask and position ids, and a head that is one
matrix. The tests prove each; all others are computed in the plain layout through their own ``forward``."""


@dataclass(slots=True)
class Policy:
    """A causal language model and its tokenizer. ``version`` counts the updates of its weights."""

    model: nn.Module
    tokenizer: Any
    eos_ids: frozenset[int]
    pad_id: int
    context_length: int
    compute_dtype: Dtype
    source: str
    version: int = 0

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def plain(self) -> bool:
        """Whether packed rows and the chunked head are proven for this architecture."""
        windowed = getattr(self.config, "sliding_window", None) is not None and getattr(
            self.config, "use_sliding_window", True
        )
        return self.config.model_type in PLAIN_ARCHITECTURES and not windowed

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the model computes."""
        if self.compute_dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def save(self, folder: Path) -> None:
        """Write an ordinary Hugging Face folder: safetensors, configuration, tokenizer."""
        with without_progress_bars():
            self.model.save_pretrained(folder)  # type: ignore[operator]
            self.tokenizer.save_pretrained(folder)


def load_policy(
    path: str | Path,
    *,
    compute_dtype: Dtype = "float32",
    device: str = "auto",
    gradient_checkpointing: bool = False,
    trust_remote_code: bool = False,
) -> Policy:
    """Load a causal language model with float32 weights from a local folder or a hub id. Only safetensors is read.

    Dropout is switched off: sampling and training have to see the same distribution (ratio 1 when on-policy).

    Raises:
        ModelError: no such model, no safetensors, or no end-of-sequence token anywhere.
    """
    path = str(path)
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(Path(path).parts[0]).is_dir():
        path = str(Path(path).expanduser())
        if not (Path(path) / "config.json").is_file():
            raise ModelError(f"{path}: not a model folder, it has no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        with without_progress_bars():
            model: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot load this model: {error}") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        keep_freed_memory()
    model.to(device)
    _switch_off_dropout(model)
    model.eval()
    if gradient_checkpointing:
        # The name that transformers 5.17 knows, and the one that it is changing to.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        # transformers recomputes in training mode only; without dropout the mode changes nothing else.
        model.train()
    eos_ids = end_of_sequence_ids(model, tokenizer)
    if not eos_ids:
        raise ModelError(
            f"{path}: neither generation_config.json, config.json nor the tokenizer names an end-of-sequence token "
            "(eos_token_id), so no completion could ever end"
        )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids)
    context_length = int(getattr(model.config, "max_position_embeddings", 0) or 2**31)
    return Policy(model, tokenizer, eos_ids, pad_id, context_length, compute_dtype, path)


def end_of_sequence_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every end-of-sequence id that the generation settings, the configuration or the tokenizer declare."""

    def ids(value: Any) -> Iterable[int]:
        if value is None:
            return ()
        return (int(value),) if isinstance(value, int) else (int(v) for v in value)

    declared = (
        getattr(model.generation_config, "eos_token_id", None) if model.generation_config else None,
        getattr(model.config, "eos_token_id", None),
        tokenizer.eos_token_id,
    )
    return frozenset(i for value in declared for i in ids(value))


def _switch_off_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Where dropout is a function, its share is a number of the module: attention_dropout, dropout, layerdrop, …
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
