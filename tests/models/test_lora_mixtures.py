"""LoRA on mixtures of experts adapts every linear layer and no expert, and its files say the same to everyone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from mixtures import MIXTURES
from sharpen.errors import RecipeError
from sharpen.models.adapter import adapted_layers, adapter_weights
from sharpen.models.adapter_files import find_adapter
from sharpen.models.lora import add_adapter, read_adapter
from sharpen.models.merge import merge
from sharpen.models.policy import Policy, load_policy
from sharpen.models.reference import second_adapter
from tiny_models import loaded_policy, tiny_folder, tiny_model

IDS = torch.tensor([[5, 9, 3, 12, 7], [4, 4, 8, 11, 2]])
RANK, ALPHA = 3, 5

NOT_CALLED = {
    # Routers whose output is no product, and what a state-space layer reads as bare weights.
    "llama4_text": {"model.layers.1.feed_forward.router"},
    "phimoe": {"model.layers.0.mlp.router", "model.layers.1.mlp.router"},
    "jamba": {f"model.layers.0.mamba.{name}" for name in ("dt_proj", "x_proj", "out_proj")},
}


def adapted(base: Path, targets: Any = "all-linear") -> Policy:
    """A policy with an adapter whose B is not 0."""
    policy = load_policy(base, device="cpu")
    add_adapter(policy, rank=RANK, alpha=ALPHA, targets=targets, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter_weights(policy.model, policy.head_name).values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


@torch.no_grad()
def logprobs_of(model: Any) -> Tensor:
    found: Tensor = model.eval()(input_ids=IDS).logits.log_softmax(-1)
    return found


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def linear_layers(architecture: str) -> set[str]:
    model: Any = tiny_model(architecture, **MIXTURES[architecture])
    head = model.get_output_embeddings()
    return {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}


def by_peft(base: Path, adapter: Path) -> Any:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)


@pytest.mark.parametrize("architecture", MIXTURES)
def test_every_linear_layer_and_no_expert_is_adapted_by_whoever_loads_the_files(
    architecture: str, tmp_path: Path
) -> None:
    tiny_folder(tmp_path / "base", architecture, spread=0.2, **MIXTURES[architecture])
    policy = adapted(tmp_path / "base")
    expected = linear_layers(architecture) - NOT_CALLED.get(architecture, set())
    assert set(adapted_layers(policy.model)) == expected
    assert {id(p) for p in policy.parameters()} == {
        id(p) for p in adapter_weights(policy.model, policy.head_name).values()
    }
    policy.save(tmp_path / "adapter")
    said = logprobs_of(policy.model)
    theirs = by_peft(tmp_path / "base", tmp_path / "adapter")
    assert {name.removeprefix("base_model.model.") for name in adapted_layers(theirs)} == expected
    assert_close(logprobs_of(theirs), said)
    auto = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    assert_close(logprobs_of(auto), said)
    assert_close(logprobs_of(load_policy(tmp_path / "adapter", device="cpu").model), said)
    plain = logprobs_of(load_policy(tmp_path / "base", device="cpu").model)
    assert (plain - said).abs().max() > 0.05
    # An adapter that training goes on with, and a second one beside it.
    continued = load_policy(tmp_path / "base", device="cpu")
    add_adapter(continued, rank=RANK, alpha=ALPHA, targets="all-linear", seed=9)
    files = find_adapter(str(tmp_path / "adapter"))
    assert files is not None
    read_adapter(continued, files)
    assert torch.equal(logprobs_of(continued.model), said)
    second_adapter(continued)
    assert torch.equal(logprobs_of(continued.model), said)
    assert set(adapted_layers(continued.model)) == expected


@pytest.mark.parametrize("architecture", MIXTURES)
def test_the_merged_model_has_the_sums_and_all_else_as_it_was(architecture: str, tmp_path: Path) -> None:
    """W + (5 / 3) · B A, added up here from the adapter's file; experts and all else bit for bit the base's."""
    tiny_folder(tmp_path / "base", architecture, spread=0.2, **MIXTURES[architecture])
    policy = adapted(tmp_path / "base")
    policy.save(tmp_path / "adapter")
    merge(tmp_path / "adapter", tmp_path / "merged")
    assert_close(logprobs_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), logprobs_of(policy.model))
    expected = load_file(tmp_path / "base" / "model.safetensors")
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layers = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in factors}
    for layer in layers:
        a, b = (factors[f"base_model.model.{layer}.lora_{x}.weight"] for x in "AB")
        # Files may keep a layer under an older name.
        name = f"{layer}.weight" if f"{layer}.weight" in expected else renamed(layer, expected)
        expected[name] = expected[name] + (b @ a) * (ALPHA / RANK)
    found = load_file(tmp_path / "merged" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def renamed(layer: str, names: Any) -> str:
    """The name of a layer's weight in the base model's files, where it differs only in the part before the last two."""
    ending = ".".join(layer.split(".")[-2:]) + ".weight"
    number = layer.split(".layers.")[1].split(".")[0]
    [found] = [name for name in names if name.endswith(ending) and f".layers.{number}." in name]
    return str(found)


def test_one_of_the_layers_that_peft_takes_for_experts(tmp_path: Path) -> None:
    """peft refuses the gate's name without the other half of what is one matrix in the experts."""
    tiny_folder(tmp_path / "base", "deepseek_v3", **MIXTURES["deepseek_v3"])
    policy = adapted(tmp_path / "base", ("shared_experts.gate_proj", "o_proj"))
    expected = {"model.layers.1.mlp.shared_experts.gate_proj"} | {f"model.layers.{i}.self_attn.o_proj" for i in (0, 1)}
    assert set(adapted_layers(policy.model)) == expected
    policy.save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == [f"model.layers.{i}.self_attn.o_proj" for i in (0, 1)]
    assert config["target_parameters"] == ["model.layers.1.mlp.shared_experts.gate_proj.weight"]
    assert_close(logprobs_of(by_peft(tmp_path / "base", tmp_path / "adapter")), logprobs_of(policy.model))


def test_files_name_the_layers_themselves_where_peft_takes_them_so(tmp_path: Path) -> None:
    loaded_policy(tmp_path / "base", "qwen2_moe")
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert {"gate_proj", "up_proj", "down_proj"} <= set(config["target_modules"])
    assert config["target_parameters"] is None


@pytest.mark.parametrize("target", ["dt_proj", "mamba.out_proj"])
def test_a_layer_that_is_read_as_a_bare_weight_cannot_be_adapted(target: str, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "base", "jamba", **MIXTURES["jamba"])
    with pytest.raises(RecipeError, match=rf"`{target}` is not a linear layer of this model"):
        adapted(tmp_path / "base", (target,))
