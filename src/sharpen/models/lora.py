"""LoRA (Hu et al., arXiv 2106.09685): every adapted matrix is W + (alpha / rank) · B A with W frozen.

peft's layers are injected in place: the model keeps its class and its frozen base weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sharpen.errors import ModelError, RecipeError
from sharpen.models.adapter import NAME, REFERENCE, Adapter, adapted_layers, adapter_weights
from sharpen.models.adapter_base import check_base
from sharpen.models.adapter_files import SCALING_SETTINGS, AdapterFiles, adapter_shapes, fill_adapter
from sharpen.models.adapter_merge import refuse_uncomputable
from sharpen.models.kernels import private_torch
from sharpen.models.kernels.linear import Linear
from sharpen.models.load import align
from sharpen.models.model import Model
from sharpen.models.weight_files import model_sha256
from sharpen.suggest import did_you_mean

Targets = Literal["all-linear"] | Sequence[str]

READ_AS_WEIGHTS = ("dt_proj", "x_proj", "out_proj")
"""The layers of a state-space mixer whose weights it reads without calling them, so that no adapter has an effect."""


def add_adapter(
    model: Model, *, rank: int, alpha: int, targets: Targets, seed: int, base_sha256: str | None = None
) -> None:
    """Freeze the model and add LoRA to its linear layers: A is random, seeded by ``seed``, and B is 0.

    Only the adapter is then trained, and a scorer's head in full. A language model's head is never adapted.
    ``base_sha256`` is the hash of the files that the model was loaded from (`model_sha256`), for those who load the
    adapter.

    Raises RecipeError if a target is not a linear layer of this model.
    """
    from peft import LoraConfig

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
        _inject(config, body, NAME)
    for layer in adapted_layers(body).values():
        # Do not cast the input: autocast does where needed.
        layer.cast_input_dtype_enabled = False
    body.train(body.training)
    if model.head_name is not None:
        body.get_submodule(model.head_name).requires_grad_(True)
    model.adapter = Adapter(model.source, config, base_sha256=base_sha256)


@torch.no_grad()
def add_frozen_adapter(model: Model) -> Adapter:
    """Add a second adapter, a frozen copy of the model's own, which goes on being the one that it runs with."""
    assert model.adapter is not None
    body, head_name = model.model, model.head_name
    trained = {name for name, p in body.named_parameters() if p.requires_grad}
    with torch.random.fork_rng(devices=[]):
        _inject(model.adapter.config, body, REFERENCE)
    for layer in adapted_layers(body).values():
        private_torch.switch_adapter(layer, NAME)
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name in trained)
    own = adapter_weights(body, head_name)
    for name, parameter in adapter_weights(body, head_name, REFERENCE).items():
        parameter.copy_(own[name])
    body.train(body.training)
    return replace(model.adapter, name=REFERENCE)


def add_adapter_like(model: Model, like: Model) -> None:
    """Add an adapter of the same settings as that of ``like``, a model of the same kind on the same base."""
    assert like.adapter is not None
    config = like.adapter.config
    add_adapter(
        model,
        rank=config.r,
        alpha=config.lora_alpha,
        targets=sorted(config.target_modules),
        seed=0,
        base_sha256=model_sha256(model.source),
    )
    store_frozen_in_bfloat16(model)
    align(model.model)


def read_adapter(model: Model, files: AdapterFiles) -> None:
    """Copy a saved adapter's weights into the model's adapter.

    Raises ModelError if their settings differ, or their base models.
    """
    assert model.adapter is not None
    refuse_uncomputable(files)
    check_base(files, model.adapter)
    own = model.adapter.config.to_dict()
    weights = files.weights()
    found = {n: tuple(tensor.shape) for n, tensor in weights.items() if ".lora_A." in n or ".lora_B." in n}
    same_settings = all(files.config.get(key, own[key]) == own[key] for key in SCALING_SETTINGS)
    if adapter_shapes(model.model) != found or not same_settings:
        parameters = (name.removesuffix(".weight") for name in files.config.get("target_parameters") or ())
        targets = files.config.get("target_modules") or ()
        targets = targets if isinstance(targets, str) else (*targets, *parameters)
        raise ModelError(
            f"{files.path}: the adapter has rank {files.config.get('r')} and alpha {files.config.get('lora_alpha')} on "
            f"{targets if isinstance(targets, str) else ', '.join(sorted(targets))}, unlike model.lora: use "
            "these settings to continue training it, or `sharpen merge` it into a model to start a new one"
        )
    fill_adapter(model.model, weights, files, model.head_name, model.adapter.name)


@torch.no_grad()
def merged_weight(linear: nn.Module) -> Tensor:
    """W + (alpha / rank) · B A in float32, in W's layout; without an adapter, W.

    An adapted layer gives a new tensor; any other layer gives the weight itself if that is float32.
    """
    weight: Tensor = linear.weight  # type: ignore[assignment]
    if not hasattr(linear, "lora_A"):
        return weight.float()
    layer: Any = linear
    with torch.autocast(weight.device.type, enabled=False):
        update: Tensor = layer.lora_B[NAME].weight.float() @ layer.lora_A[NAME].weight.float() * layer.scaling[NAME]
        return weight.float() + (update.T if layer.fan_in_fan_out else update)


@torch.no_grad()
def store_frozen_in_bfloat16(model: Model) -> None:
    """Store frozen matrices in bfloat16 if the model computes in bfloat16 and the conversion is lossless.

    autocast casts them at every use anyway, so results are bit-identical at half the memory.
    """
    if model.compute_dtype != "bfloat16":
        return
    heads = _heads(model)
    for module in model.model.modules():
        if isinstance(module, nn.Linear) and id(module) not in heads and not module.weight.requires_grad:
            rounded = module.weight.to(torch.bfloat16)
            if rounded.float().equal(module.weight):
                module.weight.data = rounded


def _inject(config: Any, body: nn.Module, name: str) -> None:
    """Add peft's layers to the modules that ``config`` names.

    peft sees the model's parts without its configuration, by which it would, in some mixtures of experts, take a name
    for that of the experts in files of earlier versions, and adapt these instead.
    """
    from peft import inject_adapter_in_model

    parts = nn.Module()
    for part, module in body.named_children():
        parts.add_module(part, module)
    inject_adapter_in_model(config, parts, name)


def _heads(model: Model) -> set[int]:
    """Ids of the modules never adapted: those whose weights are read directly or trained in full."""
    output: Any = model.model.get_output_embeddings()  # type: ignore[operator]
    named = [] if model.head_name is None else [model.model.get_submodule(model.head_name)]
    return {id(module) for module in (output, *named) if module is not None}


def _chosen(modules: dict[str, nn.Module], targets: Targets, heads: set[int]) -> list[str]:
    bare = {f"{name}.{part}" for name, m in modules.items() if _is_state_space(m) for part in READ_AS_WEIGHTS}
    linear = [
        name
        for name, m in modules.items()
        if isinstance(m, nn.Linear | Conv1D) and id(m) not in heads and name not in bare and _is_product(m)
    ]
    if targets == "all-linear":
        return linear
    known = sorted(set(map(_last, linear)))
    chosen: list[str] = []
    for target in targets:
        found = [name for name in modules if name == target or name.endswith(f".{target}")]
        if not found or not set(found) <= set(linear):
            what = "the head" if any(id(modules[name]) in heads for name in found) else "not a linear layer"
            hint = did_you_mean(target, known) if not found else ""
            raise RecipeError(
                f"model.lora.targets: `{target}` is {what} of this model.{hint} LoRA can adapt: {', '.join(known)}"
            )
        chosen.extend(found)
    return list(dict.fromkeys(chosen))


@torch.no_grad()
def _is_product(linear: Any) -> bool:
    """Whether a layer gives the product with its weight, unlike some routers that are derived from linear layers."""
    if type(linear).forward in (nn.Linear.forward, Linear.forward, Conv1D.forward):
        return True
    x = torch.ones(1, linear.in_features, dtype=linear.weight.dtype, device=linear.weight.device)
    found = linear(x)
    return isinstance(found, Tensor) and found.allclose(nn.functional.linear(x, linear.weight, linear.bias))


def _is_state_space(module: nn.Module) -> bool:
    """Whether a module is a state-space mixer (Mamba, arXiv 2312.00752), with its parameters A and D."""
    return {"A_log", "D"} <= dict(module.named_parameters(recurse=False)).keys()


def _shortened(chosen: Sequence[str], modules: Iterable[str]) -> list[str]:
    """The last parts of the names if they select the same modules, as usual in peft's files."""
    short = set(map(_last, chosen))
    same = {name for name in modules if _last(name) in short} == set(chosen)
    return sorted(short if same else chosen)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
