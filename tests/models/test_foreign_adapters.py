"""Adapters that peft made with any of its settings: merged as they compute, or refused by the name of the setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from mixtures import MIXTURES
from sharpen.errors import ModelError
from sharpen.launch.run import start
from sharpen.models.adapter_files import find_adapter
from sharpen.models.lora import add_adapter, read_adapter
from sharpen.models.merge import merge
from sharpen.models.policy import load_policy
from sharpen.models.scorer import load_scorer
from tiny_models import tiny_folder
from tiny_runs import tiny_recipe, tiny_start_model

IDS = torch.tensor([[5, 9, 3, 12, 7], [4, 4, 8, 11, 2]])


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    logits: Tensor = model.eval()(input_ids=IDS).logits
    return logits


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def from_peft(folder: Path, base: Path, auto: Any = AutoModelForCausalLM, **settings: Any) -> Tensor:
    """Save an adapter that training moved, in everything that it trains; returns the adapted model's logits."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], **settings})
    model: Any = get_peft_model(auto.from_pretrained(base, dtype=torch.float32), config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or "lora_B" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return logits_of(model)


def base_of(folder: Path, architecture: str) -> Path:
    """A tiny folder; ``llama-tied`` has one matrix for embeddings and head."""
    architecture, _, tied = architecture.partition("-")
    return tiny_folder(folder, architecture, tie_word_embeddings=bool(tied), **MIXTURES.get(architecture, {}))


EMBEDDINGS = {"target_modules": ["embed_tokens", "q_proj"]}

COMPUTABLE: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"use_rslora": True, "lora_dropout": 0.5}),
    ("llama", {"use_dora": True}),
    ("gpt2", {"use_dora": True, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    ("llama", {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 9}}),
    ("llama", {"layers_to_transform": [1]}),
    ("llama", {"exclude_modules": ["layers.0.self_attn.q_proj"]}),
    ("llama", {"target_modules": r".*\.(q|v)_proj"}),
    ("llama", {"target_modules": "all-linear"}),
    ("qwen2", {"bias": "all"}),
    ("qwen2", {"bias": "lora_only"}),
    ("qwen2", {"lora_bias": True}),
    ("llama", {"trainable_token_indices": [3, 9]}),
    ("llama", EMBEDDINGS),
    ("llama", {"target_modules": ["lm_head", "q_proj"]}),
    ("llama", {"modules_to_save": ["lm_head"]}),
    ("llama", {"modules_to_save": ["lm_head", "embed_tokens"]}),
    ("llama", {"init_lora_weights": "gaussian"}),
    ("llama", {"init_lora_weights": "orthogonal"}),
    ("llama", {"init_lora_weights": "mica"}),
    ("llama", {"init_lora_weights": False}),
    ("qwen3_moe", {"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"]}),
    ("mixtral", {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
]

TIED: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"trainable_token_indices": [3, 9]}, True),
    ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
    ({**EMBEDDINGS, "ensure_weight_tying": True}, True),
    ({"modules_to_save": ["lm_head"]}, False),
    ({"modules_to_save": ["embed_tokens"]}, False),
    (EMBEDDINGS, False),
    ({"target_modules": ["lm_head", "q_proj"]}, False),
]
"""With embeddings tied to the head, and whether they still are after merging."""


@pytest.mark.parametrize(("architecture", "settings"), COMPUTABLE)
def test_what_the_files_say_is_merged_as_peft_merges_it(
    architecture: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    base = base_of(tmp_path / "base", architecture)
    expected = from_peft(tmp_path / "adapter", base, **settings)
    loaded = load_policy(tmp_path / "adapter", device="cpu")
    assert_close(logits_of(loaded.model), expected)
    assert (logits_of(load_policy(base, device="cpu").model) - expected).abs().max() > 0.1
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "adapter"
    ).merge_and_unload()
    weights = loaded.model.state_dict()
    assert weights.keys() == theirs.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in theirs.state_dict().items())
    merge(tmp_path / "adapter", tmp_path / "merged")
    assert_close(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected)


@pytest.mark.parametrize(("settings", "tied"), TIED)
def test_tied_embeddings_stay_tied_only_if_they_still_equal_the_head(
    settings: dict[str, Any], tied: bool, tmp_path: Path
) -> None:
    """peft's own merge of an adapter on one of the two would change both."""
    base = base_of(tmp_path / "base", "llama-tied")
    expected = from_peft(tmp_path / "adapter", base, **settings)
    loaded = load_policy(tmp_path / "adapter", device="cpu")
    assert_close(logits_of(loaded.model), expected)
    parts: Any = loaded.model
    assert (parts.get_input_embeddings().weight is parts.get_output_embeddings().weight) == tied
    merge(tmp_path / "adapter", tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] == tied
    assert_close(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected)
    assert_close(logits_of(load_policy(tmp_path / "merged", device="cpu").model), expected)


def test_a_reward_model_that_peft_trained_is_merged_with_its_head(tmp_path: Path) -> None:
    scorer = load_scorer(base_of(tmp_path / "language", "llama"), kind="sequence", device="cpu")
    scorer.save(tmp_path / "base")
    expected = from_peft(
        tmp_path / "adapter", tmp_path / "base", AutoModelForSequenceClassification, task_type="SEQ_CLS", use_dora=True
    )
    found = load_scorer(tmp_path / "adapter", kind="sequence", device="cpu")
    assert_close(logits_of(found.model), expected)


# Errors


def edited(folder: Path, **changes: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize("start_from", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "of_tomorrow"])
def test_a_start_that_changes_the_base_is_refused_with_the_remedy(start_from: str, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "llama")
    if start_from in ("pissa", "olora"):
        from_peft(tmp_path / "adapter", base, init_lora_weights=start_from)
    else:
        from_peft(tmp_path / "adapter", base)
        edited(tmp_path / "adapter", init_lora_weights=start_from)
    message = (
        rf"adapter: its adapter_config\.json has init_lora_weights: {start_from}, which changes .* "
        r"path_initial_model_for_weight_conversion=…\)\. If .* set init_lora_weights to true"
    )
    with pytest.raises(ModelError, match=message):
        load_policy(tmp_path / "adapter")
    with pytest.raises(ModelError, match=message):
        merge(tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    continued = load_policy(base, device="cpu")
    add_adapter(continued, rank=4, alpha=6, targets=("q_proj", "v_proj"), seed=1)
    files = find_adapter(str(tmp_path / "adapter"))
    assert files is not None
    with pytest.raises(ModelError, match=message):
        read_adapter(continued, files)


def test_pissa_that_peft_saved_as_plain_lora_is_merged(tmp_path: Path) -> None:
    """The remedy that the error names: W − s B₀ A₀ + s B A is W plus an update of twice the rank."""
    base = base_of(tmp_path / "base", "llama")
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], init_lora_weights="pissa")
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "initial")
    model.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.mul_(1.3)
    expected = logits_of(model)
    model.save_pretrained(tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    found = logits_of(load_policy(tmp_path / "adapter", device="cpu").model)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_replication", [[0, 2], [1, 2]]),
        ("alora_invocation_tokens", [3, 4]),
        ("arrow_config", {"top_k": 2}),
        ("use_bdlora", {"nblocks": 2}),
        ("use_qalora", True),
        ("kasa_config", {"beta": 0.1}),
        ("monteclora_config", {"num_samples": 2}),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
    ],
)
def test_a_setting_that_no_merged_weight_can_hold_is_refused_by_name(field: str, value: Any, tmp_path: Path) -> None:
    from_peft(tmp_path / "adapter", base_of(tmp_path / "base", "llama"))
    edited(tmp_path / "adapter", **{field: value})
    with pytest.raises(ModelError, match=rf"adapter: its adapter_config\.json has {field}, so that the adapter"):
        load_policy(tmp_path / "adapter")


def test_a_setting_that_this_peft_does_not_know_is_refused_only_if_it_is_used(tmp_path: Path) -> None:
    expected = from_peft(tmp_path / "adapter", base_of(tmp_path / "base", "llama"))
    edited(tmp_path / "adapter", use_of_tomorrow=False, config_of_tomorrow=None)
    assert_close(logits_of(load_policy(tmp_path / "adapter", device="cpu").model), expected)
    edited(tmp_path / "adapter", use_of_tomorrow=True)
    with pytest.raises(ModelError, match=r"has use_of_tomorrow, which the installed peft .* does not know: update it"):
        load_policy(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM"), "IA3"),
        (PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "PREFIX_TUNING"),
    ],
)
def test_other_types_are_refused_before_a_run_writes_anything(config: Any, kind: str, tmp_path: Path) -> None:
    base = tiny_start_model(tmp_path / "base")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match=rf"its adapter_config\.json has peft_type: {kind}; only LORA is supported"):
        start(tiny_recipe(tmp_path / "run", tmp_path / "adapter", "sft"))
    assert not (tmp_path / "run").exists()


def test_a_base_models_revision_is_not_passed_over(tmp_path: Path) -> None:
    from_peft(tmp_path / "adapter", base_of(tmp_path / "base", "llama"), revision="v2")
    load_policy(tmp_path / "adapter", device="cpu")
    edited(tmp_path / "adapter", base_model_name_or_path="someone/model")
    with pytest.raises(ModelError, match=r"names revision v2 of its base model, someone/model: download that revision"):
        load_policy(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"modules_to_save": ["lm_head"]}, "lm_head.weight"),
        ({"bias": "all"}, "bias"),
        ({"trainable_token_indices": [3]}, "trainable_tokens_delta"),
    ],
)
def test_training_goes_on_only_with_what_a_run_trains(settings: dict[str, Any], what: str, tmp_path: Path) -> None:
    """Else the rest would be in no checkpoint: a run saves A and B."""
    base = base_of(tmp_path / "base", "qwen2")
    from_peft(tmp_path / "adapter", base, **settings)
    policy = load_policy(base, device="cpu")
    add_adapter(policy, rank=4, alpha=6, targets=("q_proj", "v_proj"), seed=1)
    files = find_adapter(str(tmp_path / "adapter"))
    assert files is not None
    with pytest.raises(
        ModelError, match=rf"cannot continue .*{what}.*, which model\.lora does not train\. `sharpen mer"
    ):
        read_adapter(policy, files)
