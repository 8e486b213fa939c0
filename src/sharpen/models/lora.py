"""LoRA (Hu et al., arXiv 2106.09685): frozen matrices, each with a trained update, W + (alpha / rank) · B A.

The layers are peft's, put into the model in place: it keeps its class, and its frozen weights are those of the base.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sharpen.errors import RecipeError
from sharpen.suggest import did_you_mean

if TYPE_CHECKING:
    from sharpen.models.model import Model

NAME = "default"
"""What peft calls the only adapter of a model, and uses in the names of its weights."""

Targets = Literal["all-linear"] | Sequence[str]


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter is beside its weights: the model that it belongs to, and peft's ``LoraConfig``."""

    base: str
    config: Any


def add_adapter(model: Model, *, rank: int, alpha: int, targets: Targets, seed: int) -> None:
    """Freeze the model and give its linear layers an update of 0, A being random by ``seed`` and B 0.

    Only the adapter is trained then, and of a scorer its head, in full. The head of a language model is never adapted.

    Raises RecipeError if a target is no linear layer of this model.
    """
    from peft import LoraConfig, inject_adapter_in_model

    body = model.model
    modules = dict(body.named_modules())
    chosen = _chosen(modules, targets, _heads(model))
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=_shortened(chosen, modules),
        fan_in_fan_out=any(isinstance(modules[name], Conv1D) for name in chosen),
        task_type=model.task,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, body, NAME)
    for layer in adapted_layers(body).values():
        # The input goes on as it is: autocast rounds it where that is wanted.
        layer.cast_input_dtype_enabled = False
    body.train(body.training)
    if model.head_name is not None:
        body.get_submodule(model.head_name).requires_grad_(True)
    model.adapter = Adapter(model.source, config)


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """peft's layers in the model, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


@torch.no_grad()
def merged_weight(linear: nn.Module) -> Tensor:
    """W + (alpha / rank) · B A in float32, laid out as W is; of a layer without an adapter its own weight.

    A new tensor for an adapted layer; else the weight itself where it is float32.
    """
    weight: Tensor = linear.weight  # type: ignore[assignment]
    if not hasattr(linear, "lora_A"):
        return weight.float()
    layer: Any = linear
    with torch.autocast(weight.device.type, enabled=False):
        update: Tensor = layer.lora_B[NAME].weight.float() @ layer.lora_A[NAME].weight.float() * layer.scaling[NAME]
        return weight.float() + (update.T if layer.fan_in_fan_out else update)


@torch.no_grad()
def halve_frozen(model: Model) -> None:
    """Hold frozen matrices in bfloat16 where the model computes in it and they are bfloat16 numbers anyway.

    autocast would round them so at every use: the results are the same bits, from half the memory.
    """
    if model.compute_dtype != "bfloat16":
        return
    heads = _heads(model)
    for module in model.model.modules():
        if isinstance(module, nn.Linear) and id(module) not in heads and not module.weight.requires_grad:
            rounded = module.weight.to(torch.bfloat16)
            if rounded.float().equal(module.weight):
                module.weight.data = rounded


def without_adapter(model: nn.Module) -> None:
    """Take the adapter out, in place: every adapted layer gives way to the frozen one in it."""
    for name, layer in adapted_layers(model).items():
        model.set_submodule(name, layer.base_layer)


def sharing_frozen(model: nn.Module) -> nn.Module:
    """A copy with an adapter of its own on the very same frozen weights."""
    shared = {id(p): p for p in model.parameters() if not p.requires_grad}
    return copy.deepcopy(model, shared)


def _heads(model: Model) -> set[int]:
    """What is read directly, past any adapter, or trained in full: as ids of modules."""
    output: Any = model.model.get_output_embeddings()  # type: ignore[operator]
    named = [] if model.head_name is None else [model.model.get_submodule(model.head_name)]
    return {id(module) for module in (output, *named) if module is not None}


def _chosen(modules: dict[str, nn.Module], targets: Targets, heads: set[int]) -> list[str]:
    linear = [name for name, m in modules.items() if isinstance(m, nn.Linear | Conv1D) and id(m) not in heads]
    if targets == "all-linear":
        return linear
    known = sorted(set(map(_last, linear)))
    chosen: list[str] = []
    for target in targets:
        found = [name for name in modules if name == target or name.endswith(f".{target}")]
        if not found or not set(found) <= set(linear):
            what = "the head" if any(id(modules[name]) in heads for name in found) else "no linear layer"
            hint = did_you_mean(target, known) if not found else ""
            raise RecipeError(
                f"model.lora.targets: `{target}` is {what} of this model.{hint} LoRA can adapt: {', '.join(known)}"
            )
        chosen.extend(found)
    return list(dict.fromkeys(chosen))


def _shortened(chosen: Sequence[str], modules: Iterable[str]) -> list[str]:
    """The last parts of the names where these choose the same modules: so peft's files usually have them."""
    short = set(map(_last, chosen))
    same = {name for name in modules if _last(name) in short} == set(chosen)
    return sorted(short if same else chosen)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
