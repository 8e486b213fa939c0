"""Merges any LoRA adapter that peft can compute from its files and its base model alone; others are errors."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.errors import ModelError
from sharpen.models.adapter import NAME, adapted_layers
from sharpen.models.adapter_base import check_base
from sharpen.models.adapter_files import CONFIG, PREFIX, AdapterFiles
from sharpen.models.progress_bars import without_progress_bars

ON_THE_BASE_AS_IT_IS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of ``init_lora_weights`` that leave the base model's weights alone."""

UNCOMPUTABLE = {
    "layer_replication": "repeats layers of the base model",
    "alora_invocation_tokens": "is applied to some positions only",
    "arrow_config": "mixes several adapters by input",
    "use_bdlora": "is split over several devices",
    "use_qalora": "is applied to quantized weights",
    "kasa_config": "was trained on a base model without its smallest singular values",
    "monteclora_config": "draws its weights at random",
    "megatron_config": "is of a Megatron model",
}
"""Fields of peft's configuration with which a merged weight is not W + update, or not known from the files."""

ABOUT_THE_FILE = {"peft_version"}
"""Fields that say nothing about the adapter's computation and that not every peft knows."""


def refuse_uncomputable(files: AdapterFiles) -> None:
    """Raises ModelError, with the field and the remedy, if the base model and the files do not say what is computed."""
    from peft import LoraConfig

    where = f"{files.path}: its {CONFIG}"
    start = files.config.get("init_lora_weights", True)
    if start not in ON_THE_BASE_AS_IT_IS:
        raise ModelError(
            f"{where} has init_lora_weights: {start}, which changes the base model's weights before training, and the "
            "changed weights are not in the adapter. Save it as plain LoRA, with peft's "
            "save_pretrained(…, path_initial_model_for_weight_conversion=…). If its base_model_name_or_path already "
            "is the changed model, set init_lora_weights to true"
        )
    for name, what in UNCOMPUTABLE.items():
        if files.config.get(name):
            raise ModelError(
                f"{where} has {name}, so that the adapter {what}: it cannot be added to the weights of its base model. "
                "Give a full model or a plain LoRA adapter"
            )
    known = {field.name for field in dataclasses.fields(LoraConfig)} | ABOUT_THE_FILE
    for name in sorted(set(files.config) - known):
        if files.config[name]:
            raise ModelError(f"{where} has {name}, which the installed peft {version('peft')} does not know: update it")


@torch.no_grad()
def merge_adapter(model: Any, files: AdapterFiles, head_name: str | None = None) -> None:
    """Merge a saved adapter into its base model's weights, in place. ``head_name`` is the model's head, if it has one.

    Embeddings that the adapter makes unequal to the head are no longer tied to it.

    Raises ModelError if the adapter does not match this model, if the base has changed since the adapter was trained,
    or if the files do not say what it computes.
    """
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict

    refuse_uncomputable(files)
    check_base(files)
    weights = files.tensors()
    _load_head(model, weights, files, head_name)
    in_full = [name for name in files.config.get("modules_to_save") or () if any(f".{name}." in key for key in weights)]
    fields = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
    settings = {name: value for name, value in files.config.items() if name in fields}
    settings |= {"init_lora_weights": True, "modules_to_save": in_full or None, "inference_mode": True}
    untied = _untie(model, weights)
    try:
        with _without_peft_warnings():
            adapted = PeftModel(model, LoraConfig(**settings), NAME)
            result: Any = set_peft_model_state_dict(adapted, weights, adapter_name=NAME)
    except (ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{files.path}: does not match its base model: {error}") from error
    if missing := [name for name in result.missing_keys if ".lora_" in name]:
        raise ModelError(f"{files.path}: cannot load this adapter: it lacks {_file_name(missing[0])}")
    if result.unexpected_keys:
        raise ModelError(
            f"{files.path}: cannot load this adapter: it has {_file_name(result.unexpected_keys[0])}, which does not "
            "fit its base model"
        )
    with _without_peft_warnings():
        adapted.merge_and_unload()
    if hasattr(model, "peft_config"):
        del model.peft_config
    assert not adapted_layers(model)
    if untied:
        _tie_if_equal(model)
    model.requires_grad_(True)


@contextmanager
def _without_peft_warnings() -> Iterator[None]:
    """Tied embeddings are taken care of here, and patterns that match nothing did so in training too."""
    with without_progress_bars(), warnings.catch_warnings():
        for start in (
            "Model (with|has) `tie_word_embeddings",
            "Input and output embeddings",
            "The following .*pattern",
        ):
            warnings.filterwarnings("ignore", message=start)
        yield


def _file_name(name: str) -> str:
    return name.replace(f".{NAME}", "")


def _load_head(model: nn.Module, weights: dict[str, Tensor], files: AdapterFiles, head_name: str | None) -> None:
    """Copy a scorer's head, and take it out of the other ``weights``.

    The two kinds of scorer may name their heads differently, and only one has a bias.
    """
    saved = next(iter(files.config.get("modules_to_save") or ()), None)
    if head_name is None or saved is None:
        return
    parts = dict(model.get_submodule(head_name).named_parameters())
    for key in [key for key in weights if key.startswith(f"{PREFIX}{saved}.")]:
        tensor, part = weights.pop(key), key.rpartition(".")[2]
        if part in parts:
            if parts[part].shape != tensor.shape:
                raise ModelError(
                    f"{files.path}: cannot load this adapter: it has {key}, which does not fit its base model"
                )
            parts[part].copy_(tensor)


def _untie(model: Any, weights: Mapping[str, Tensor]) -> bool:
    """Give the head a weight of its own if it is tied to the embeddings and the adapter adapts either."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return False
    names = [name for name, module in model.named_modules() if module is embeddings or module is head]
    if not any(f".{name}." in key for name in names for key in weights):
        return False
    head.weight = nn.Parameter(head.weight.detach().clone())
    return True


def _tie_if_equal(model: Any) -> None:
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    equal = torch.equal(embeddings.weight, head.weight)
    if equal:
        head.weight = embeddings.weight
    # peft sets this too, whether they are equal or not.
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = equal
