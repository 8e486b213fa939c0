"""LoRA: gradients follow from the dense ones by the chain rule; without its adapter the model equals its base."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from torch import Tensor, nn

from sharpen.batch import Batch
from sharpen.errors import RecipeError
from sharpen.models.adapter import NAME, REFERENCE, adapted_layers, adapter_weights
from sharpen.models.adapter_files import WEIGHTS, find_adapter
from sharpen.models.forward import MicrobatchLimits, all_outputs, microbatches
from sharpen.models.load import prepare
from sharpen.models.lora import add_adapter, merged_weight, read_adapter, store_frozen_in_bfloat16
from sharpen.models.policy import Policy
from sharpen.models.reference import average, base_policy, follow, second_adapter
from sharpen.rollout.engine import Sampling, Snapshot
from sharpen.rollout.generation import generate
from sharpen.rollout.local.engine import LocalEngine
from tiny_models import (
    assert_same_gradients,
    make_batch,
    make_prompt,
    own_logits,
    own_logprobs,
    ragged_batch,
    tiny_model,
    tiny_policy,
    weighted,
)
from tiny_models import gradients as gradients_of

LIMITS = MicrobatchLimits(60, shared_prompt=True)
RANK, ALPHA = 3, 5
SCALE = ALPHA / RANK


def adapted(architecture: str = "llama", *, targets: Any = "all-linear", **settings: Any) -> Policy:
    """A policy with an adapter whose B is not 0."""
    policy = tiny_policy(architecture, **settings)
    add_adapter(policy, rank=RANK, alpha=ALPHA, targets=targets, seed=4)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in adapter_weights(policy.model, policy.head_name).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


def dense(policy: Policy, architecture: str, adapter: str = NAME, **settings: Any) -> nn.Module:
    """The same model without peft, with weights W + (alpha / rank) · B A of one of its adapters."""
    model = tiny_model(architecture, **settings).to(next(policy.model.parameters()).dtype)
    parts = dict(policy.model.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            layer = name.removesuffix(".weight")
            if f"{layer}.lora_A.{adapter}.weight" not in parts:
                continue
            a, b = (parts[f"{layer}.lora_{x}.{adapter}.weight"] for x in "AB")
            update = torch.einsum("or,ri->oi", b, a) * SCALE
            weight += update.T if architecture == "gpt2" else update
    return model


def loss_of(logprobs: Tensor, batch: Batch) -> Tensor:
    return (weighted(batch) * logprobs).sum()


def backward(policy: Policy, batch: Batch) -> None:
    for rows in microbatches(policy, batch, LIMITS):
        said_ET = policy.outputs(batch, rows, 0.7, frozenset({"logprobs"}))["logprobs"]
        assert said_ET is not None
        loss_of(said_ET, batch).backward()


@pytest.mark.parametrize(
    ("architecture", "layers", "dtype", "tolerance"),
    [
        # GPT-2 keeps its matrices transposed, and alone computes throughout in the precision that it is given.
        ("gpt2", 8, torch.float64, 1e-11),
        ("llama", 14, torch.float64, 2e-5),
        ("qwen2", 14, torch.float64, 2e-5),
        ("mixtral", 8, torch.float32, 1e-4),
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_is_that_of_the_dense_model_by_the_chain_rule(
    architecture: str, layers: int, dtype: torch.dtype, tolerance: float, checkpointing: bool
) -> None:
    """G = dL/dW of the dense model, from its own forward: dL/dB = s G Aᵀ and dL/dA = s Bᵀ G."""
    policy = adapted(architecture, dtype=dtype)
    if checkpointing:
        prepare(policy.model, device="cpu", gradient_checkpointing=True)
    batch = ragged_batch(len(policy.tokenizer))
    backward(policy, batch)

    plain = dense(policy, architecture)
    loss_of(torch.stack(own_logprobs(plain, batch, 0.7)), batch).backward()
    gradients = gradients_of(plain)
    found = adapter_weights(policy.model, policy.head_name)
    names = {name.partition(".lora_")[0] for name in found}
    assert len(names) == layers
    expected: dict[str, Tensor] = {}
    for layer in names:
        weight = gradients[f"{layer}.weight"]
        g = weight.T if architecture == "gpt2" else weight
        a, b = (found[f"{layer}.lora_{x}.default.weight"].detach() for x in "AB")
        expected |= {
            f"{layer}.lora_A.default.weight": SCALE * b.T @ g,
            f"{layer}.lora_B.default.weight": SCALE * g @ a.T,
        }
    # Nothing else of the model has a gradient.
    assert_same_gradients(gradients_of(policy.model), expected, tolerance)
    assert {id(p) for p in policy.parameters()} == {id(p) for p in found.values()}


def test_at_the_start_the_model_is_its_base_bit_for_bit() -> None:
    base, policy = tiny_policy(), tiny_policy()
    before = torch.get_rng_state()
    add_adapter(policy, rank=4, alpha=8, targets="all-linear", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    batch = ragged_batch(len(policy.tokenizer))
    said = [all_outputs(p, batch, "logprobs", 0.7, LIMITS) for p in (base, policy)]
    assert torch.equal(*said)
    again, other = tiny_policy(), tiny_policy()
    add_adapter(again, rank=4, alpha=8, targets="all-linear", seed=1)
    add_adapter(other, rank=4, alpha=8, targets="all-linear", seed=2)
    mine, same, others = (adapter_weights(p.model, p.head_name) for p in (policy, again, other))
    assert all(torch.equal(mine[name], same[name]) for name in mine)
    for name in mine:
        if ".lora_A." in name:
            assert not torch.equal(mine[name], others[name])
            # Uniform within ±1/√(inputs), as a linear layer of torch begins.
            assert 0.5 < mine[name].abs().max() * mine[name].shape[1] ** 0.5 <= 1.0
        else:
            assert not mine[name].any()


# Another view of the same weights


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_without_its_adapter_the_policy_equals_the_base_bit_for_bit(architecture: str) -> None:
    base, policy = tiny_policy(architecture), adapted(architecture)
    reference = base_policy(policy)
    batch = ragged_batch(len(policy.tokenizer))
    said = [all_outputs(p, batch, "logprobs", 0.7, LIMITS) for p in (base, reference, policy)]
    assert torch.equal(said[0], said[1])
    assert (said[0] - said[2]).abs().max() > 0.01
    assert reference.parameters() == []
    assert reference.root is policy.root
    # The policy goes on with its adapter, and trains it.
    assert torch.equal(all_outputs(policy, batch, "logprobs", 0.7, LIMITS), said[2])
    assert len(policy.parameters()) == 2 * len(adapted_layers(policy.model))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_exact_kl_to_the_base_and_to_another_adapter(architecture: str) -> None:
    """Σ π (log π − log π_ref) over the vocabulary, computed from the two models separately."""
    policy = adapted(architecture, dtype=torch.float64)
    batch = ragged_batch(len(policy.tokenizer))
    other = second_adapter(policy)
    with torch.no_grad():
        for parameter in adapter_weights(other.model, other.head_name, REFERENCE).values():
            parameter.mul_(-0.5)
    logits = own_logits(dense(policy, architecture), batch)
    plain = tiny_model(architecture).double()
    for reference, model in ((base_policy(policy), plain), (other, dense(policy, architecture, REFERENCE))):
        found_ET = all_outputs(policy, batch, "exact_kl", 0.7, LIMITS, reference)
        for b, (mine, theirs) in enumerate(zip(logits, own_logits(model, batch), strict=True)):
            p, q = ((x.detach() / 0.7).log_softmax(-1) for x in (mine, theirs))
            expected_T = (p.exp() * (p - q)).sum(-1) * batch.mask_ET[b]
            torch.testing.assert_close(found_ET[b].double(), expected_T, rtol=1e-5, atol=1e-6)
        assert found_ET.max() > 0.01


def test_a_reference_adapter_is_synchronised_or_averaged_on_the_shared_base() -> None:
    """A and B are averaged separately: 0.9 · old + 0.1 · new."""
    policy = adapted(dtype=torch.float64)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    reference = second_adapter(policy)
    with torch.no_grad():
        for parameter in adapter_weights(policy.model, policy.head_name).values():
            parameter.add_(1.0)
    average(reference, policy, 0.9)
    for name, parameter in adapter_weights(policy.model, None, REFERENCE).items():
        torch.testing.assert_close(parameter.data, before[name] + 0.1, rtol=0, atol=1e-15)
        assert torch.equal(dict(policy.model.named_parameters())[name], before[name] + 1.0)
    follow(reference, policy)
    mine, theirs = (adapter_weights(policy.model, None, adapter) for adapter in (REFERENCE, NAME))
    assert all(torch.equal(mine[name], theirs[name]) and mine[name] is not theirs[name] for name in theirs)
    after = dict(policy.model.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in before.items() if ".lora_" not in name)
    assert reference.parameters() == []
    assert {id(p) for p in policy.parameters()} == {id(p) for p in theirs.values()}


def test_a_second_adapter_is_saved_and_read_by_the_names_of_the_first(tmp_path: Path) -> None:
    policy = adapted()
    reference = second_adapter(policy)
    with torch.no_grad():
        for parameter in adapter_weights(policy.model, None, REFERENCE).values():
            parameter.mul_(-0.5)
    for model, folder in ((policy, tmp_path / "policy"), (reference, tmp_path / "reference")):
        folder.mkdir()
        model.save(folder)
    saved, other = (load_file(tmp_path / name / WEIGHTS) for name in ("policy", "reference"))
    assert saved.keys() == other.keys()
    assert all(torch.equal(other[name], -0.5 * saved[name]) for name in saved)
    files = find_adapter(str(tmp_path / "policy"))
    assert files is not None
    read_adapter(reference, files)
    mine, theirs = (adapter_weights(policy.model, None, adapter) for adapter in (REFERENCE, NAME))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


# Merged weights


def test_a_merged_weight_by_hand() -> None:
    """W + (2 / 1) · B A with A = (1 2), B = (3 4)ᵀ: 2 · (3 6; 4 8) is added."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    inject_adapter_in_model(LoraConfig(r=1, lora_alpha=2, target_modules=["0"]), net)
    layer: Any = net[0]
    with torch.no_grad():
        layer.base_layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.lora_A["default"].weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.lora_B["default"].weight.copy_(torch.tensor([[3.0], [4.0]]))
    assert merged_weight(layer).tolist() == [[7.0, 14.0], [11.0, 20.0]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert merged_weight(layer).dtype == torch.float32
    assert layer.base_layer.weight.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert merged_weight(net[1]).data_ptr() == net[1].weight.data_ptr()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_merged_weights_give_the_same_outputs_as_the_adapter(architecture: str) -> None:
    policy = adapted(architecture)
    batch = ragged_batch(len(policy.tokenizer))
    merged = tiny_policy(architecture)
    for name, layer in adapted_layers(policy.model).items():
        weight = merged.model.get_submodule(name).weight
        assert isinstance(weight, nn.Parameter)
        weight.data = merged_weight(layer)
    said = [all_outputs(p, batch, "logprobs", 0.7, LIMITS) for p in (policy, merged)]
    torch.testing.assert_close(*said, rtol=0, atol=2e-5)


# Sampling and training


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 0.25)])
def test_the_rollout_and_the_trainer_agree(dtype: str, tolerance: float) -> None:
    policy = adapted(compute_dtype=dtype)
    engine = LocalEngine(policy)
    policy.version = 1
    engine.load(Snapshot(1, policy))
    prompts = [make_prompt(policy, "1+2="), make_prompt(policy, "a-7;")]
    drawn = generate(engine, prompts, [range(4), range(4, 8)], Sampling(8), seed=3)
    tokens_ET = torch.zeros(8, 8, dtype=torch.long)
    sampled_ET = torch.zeros(8, 8)
    mask_ET = torch.zeros(8, 8, dtype=torch.bool)
    for b, completion in enumerate(c for group in drawn for c in group):
        n = len(completion.token_ids)
        tokens_ET[b, :n], mask_ET[b, :n] = torch.tensor(completion.token_ids), True
        sampled_ET[b, :n] = torch.tensor(completion.last.logprobs)
    batch = make_batch(
        prefixes=tuple(torch.tensor(p.token_ids) for p in prompts),
        group_E=torch.arange(8) // 4,
        tokens_ET=tokens_ET,
        mask_ET=mask_ET,
    )
    said_ET = all_outputs(policy, batch, "logprobs", 1.0, LIMITS)
    torch.testing.assert_close(said_ET, sampled_ET, rtol=0, atol=tolerance)
    assert (said_ET - all_outputs(base_policy(policy), batch, "logprobs", 1.0, LIMITS)).abs().max() > 3


def test_frozen_matrices_are_stored_in_bfloat16_only_if_lossless() -> None:
    policy = adapted(compute_dtype="bfloat16")
    layers = adapted_layers(policy.model)
    with torch.no_grad():
        for layer in layers.values():
            layer.base_layer.weight.copy_(layer.base_layer.weight.bfloat16())
    [first, *_] = layers.values()
    with torch.no_grad():
        first.base_layer.weight[0, 0] = 1 + 2**-20
    twin = copy.deepcopy(policy)
    store_frozen_in_bfloat16(policy)
    assert first.base_layer.weight.dtype == torch.float32
    assert {layer.base_layer.weight.dtype for layer in layers.values() if layer is not first} == {torch.bfloat16}
    assert policy.model.get_output_embeddings().weight.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in policy.parameters())
    batch = ragged_batch(len(policy.tokenizer))
    said = [all_outputs(p, batch, "logprobs", 1.0, LIMITS) for p in (policy, twin)]
    assert torch.equal(*said)
    gradients = []
    for p in (policy, twin):
        backward(p, batch)
        gradients.append([parameter.grad for parameter in p.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    for mine, theirs in zip(layers.values(), adapted_layers(twin.model).values(), strict=True):
        assert torch.equal(merged_weight(mine), merged_weight(theirs))


def test_a_float32_model_keeps_its_frozen_matrices_in_float32() -> None:
    policy = adapted()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.copy_(parameter.bfloat16())
    store_frozen_in_bfloat16(policy)
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}


# Targets


@pytest.mark.parametrize("tied", [False, True])
def test_all_linear_is_every_linear_layer_but_the_head(tied: bool) -> None:
    policy = adapted(tie_word_embeddings=tied)
    kinds = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    assert set(adapted_layers(policy.model)) == {f"model.layers.{i}.{kind}" for i in (0, 1) for kind in kinds}
    assert policy.adapter is not None
    assert policy.adapter.config.target_modules == {kind.partition(".")[2] for kind in kinds}
    # By hand: 3 · (inputs + outputs) of q, k, v, o and of gate, up, down, in two layers.
    sizes = (16 + 16) + (16 + 8) + (16 + 8) + (16 + 16) + (16 + 24) + (16 + 24) + (24 + 16)
    assert sum(p.numel() for p in policy.parameters()) == 2 * RANK * sizes


def test_targets_by_the_end_of_their_names() -> None:
    policy = adapted(targets=("q_proj", "1.mlp.down_proj"))
    assert set(adapted_layers(policy.model)) == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.down_proj",
    }


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "q_porj",
            r"`q_porj` is not a linear layer of this model. Did you mean `q_proj`\? LoRA can adapt: down_proj",
        ),
        ("proj", "`proj` is not a linear layer"),
        ("mlp", "`mlp` is not a linear layer"),
        ("embed_tokens", "`embed_tokens` is not a linear layer"),
        ("lm_head", "`lm_head` is the head of this model. LoRA can adapt: down_proj, gate_proj"),
    ],
)
def test_targets_that_cannot_be_adapted_are_errors(target: str, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"model\.lora\.targets: {message}"):
        adapted(targets=("q_proj", target))
