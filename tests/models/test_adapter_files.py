"""Saved adapters: transformers and peft load what sharpen saves, and sharpen loads what peft saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from sharpen.errors import ModelError
from sharpen.models.adapter import adapted_layers, adapter_weights
from sharpen.models.adapter_files import find_adapter
from sharpen.models.dtype import SavedDtype
from sharpen.models.lora import add_adapter, read_adapter
from sharpen.models.merge import merge
from sharpen.models.model import Model
from sharpen.models.policy import Policy, load_policy
from sharpen.models.scorer import Kind, load_scorer
from tiny_models import loaded_policy, loaded_scorer, tiny_folder

IDS = torch.tensor([[5, 9, 3, 12, 7], [4, 4, 8, 11, 2]])
SETTINGS: dict[str, Any] = {"rank": 3, "alpha": 5, "targets": "all-linear", "seed": 1}


def randomised(model: Model, seed: int = 2) -> Model:
    """Fill the adapter, and the head if it is trained, with random numbers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_weights(model.model, model.head_name).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def adapted(folder: Path, architecture: str = "llama") -> Model:
    policy = loaded_policy(folder, architecture)
    add_adapter(policy, **SETTINGS)
    return randomised(policy)


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    logits: Tensor = model(input_ids=IDS).logits
    return logits


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2_moe"])
def test_every_way_to_load_an_adapter_gives_the_model_that_was_saved(architecture: str, tmp_path: Path) -> None:
    policy = adapted(tmp_path / "base", architecture)
    policy.save(tmp_path / "adapter")
    expected = logits_of(policy.model)
    names = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert "config.json" not in names
    for auto in (AutoModelForCausalLM, AutoPeftModelForCausalLM):
        assert_close(logits_of(auto.from_pretrained(tmp_path / "adapter", dtype=torch.float32)), expected)
    loaded = load_policy(tmp_path / "adapter", device="cpu")
    assert_close(logits_of(loaded.model), expected)
    assert (logits_of(loaded_policy(tmp_path / "base", architecture).model) - expected).abs().max() > 0.1
    # The adapter is merged: all weights of the loaded model are trainable.
    assert loaded.adapter is None
    assert not adapted_layers(loaded.model)
    assert len(loaded.parameters()) == len(list(loaded.model.parameters()))
    assert AutoTokenizer.from_pretrained(tmp_path / "adapter").get_vocab() == loaded.tokenizer.get_vocab()
    merge(tmp_path / "adapter", tmp_path / "merged")
    assert_close(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected)


def test_the_files_hold_the_adapter_and_the_absolute_path_of_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_folder(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    policy = load_policy("base", device="cpu")
    add_adapter(policy, rank=3, alpha=5, targets=("v_proj",), seed=1)
    randomised(policy).save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 5, ["v_proj"])
    assert (config["task_type"], config["lora_dropout"], config["modules_to_save"]) == ("CAUSAL_LM", 0.0, None)
    shapes = {n: tuple(t.shape) for n, t in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items()}
    prefix = "base_model.model.model.layers"
    assert shapes == {
        f"{prefix}.{i}.self_attn.v_proj.lora_{x}.weight": shape
        for i in (0, 1)
        for x, shape in (("A", (3, 16)), ("B", (8, 3)))
    }


@pytest.mark.parametrize(
    ("kind", "auto"), [("sequence", AutoModelForSequenceClassification), ("token", AutoModelForTokenClassification)]
)
def test_a_scorers_adapter_includes_its_full_head(kind: Kind, auto: Any, tmp_path: Path) -> None:
    scorer = load_scorer(tiny_folder(tmp_path / "base"), kind=kind, device="cpu")
    add_adapter(scorer, **SETTINGS)
    randomised(scorer).save(tmp_path / "adapter")
    expected = logits_of(scorer.model)
    assert expected.abs().max() > 0.1
    again = load_scorer(tmp_path / "adapter", kind=kind, device="cpu")
    assert_close(logits_of(again.model), expected)
    assert torch.equal(again.head.weight, scorer.head.weight)
    # transformers 5.17 does not find a head where today's peft puts it.
    if Version(transformers.__version__) >= Version("5.18"):
        theirs = auto.from_pretrained(tmp_path / "adapter", num_labels=1)
        theirs.config.pad_token_id = scorer.pad_id
        assert_close(logits_of(theirs), expected)
    merge(tmp_path / "adapter", tmp_path / "merged")
    assert_close(logits_of(load_scorer(tmp_path / "merged", kind=kind, device="cpu").model), expected)
    with pytest.raises(ModelError, match=r"the adapter of a scorer, such as a reward model, .*: it cannot generate"):
        load_policy(tmp_path / "adapter")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_scorer_of_the_other_kind_loads_the_adapter_and_the_heads_weight(architecture: str, tmp_path: Path) -> None:
    """GPT-2 names the heads ``score`` and ``classifier``; only the token classifier's has a bias."""
    scorer = load_scorer(tiny_folder(tmp_path / "base", architecture), kind="sequence", device="cpu")
    add_adapter(scorer, **SETTINGS)
    randomised(scorer).save(tmp_path / "adapter")
    critic = load_scorer(tmp_path / "adapter", kind="token", device="cpu")
    assert torch.equal(critic.head.weight, scorer.head.weight)
    assert critic.head.bias.tolist() == [0.0]
    assert_close(logits_of(critic.model)[:, -1], logits_of(scorer.model))
    continued = load_scorer(tmp_path / "base", kind="token", device="cpu")
    add_adapter(continued, **SETTINGS)
    files = find_adapter(str(tmp_path / "adapter"))
    assert files is not None
    read_adapter(continued, files)
    assert_close(logits_of(continued.model), logits_of(critic.model))


def test_a_language_models_adapter_loads_as_a_scorer_with_a_new_head(tmp_path: Path) -> None:
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    critic = load_scorer(tmp_path / "adapter", kind="token", device="cpu")
    assert not critic.head.weight.any()
    whole = load_scorer(merge(tmp_path / "adapter", tmp_path / "merged"), kind="token", device="cpu")
    for name, parameter in whole.model.named_parameters():
        torch.testing.assert_close(dict(critic.model.named_parameters())[name], parameter, rtol=0, atol=1e-7)


def test_an_adapter_on_a_reward_model_starts_from_its_head(tmp_path: Path) -> None:
    loaded_scorer(tmp_path / "base", "sequence").save(tmp_path / "judge")
    scorer = load_scorer(tmp_path / "judge", kind="sequence", device="cpu")
    before = logits_of(scorer.model)
    add_adapter(scorer, **SETTINGS)
    scorer.save(tmp_path / "adapter")
    assert_close(logits_of(load_scorer(tmp_path / "adapter", kind="sequence", device="cpu").model), before)


# Errors


def edited(folder: Path, **changes: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load_policy(folder)
    return str(error.value)


def test_a_missing_base_is_an_error(tmp_path: Path) -> None:
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    message = f"its base model, {tmp_path / 'base'}, does not exist: put the model or a link there"
    assert refused(tmp_path / "adapter") == f"{tmp_path / 'adapter'}: {message}"
    assert "names no base model" in refused(edited(tmp_path / "adapter", base_model_name_or_path=None))


def test_a_base_of_another_shape_is_an_error(tmp_path: Path) -> None:
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    tiny_folder(tmp_path / "other", hidden_size=32)
    message = refused(edited(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "other")))
    assert "does not match its base model: Error(s) in loading" in message
    assert "layers.0.mlp.down_proj.lora_B.default.weight: copying a param with shape torch.Size([16, 3])" in message
    tiny_folder(tmp_path / "gpt2", "gpt2")
    message = refused(edited(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "gpt2")))
    assert "does not match its base model" in message


def test_an_adapter_of_an_adapter_is_refused_with_the_remedy(tmp_path: Path) -> None:
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    adapted(tmp_path / "base").save(tmp_path / "other")
    message = refused(edited(tmp_path / "other", base_model_name_or_path=str(tmp_path / "adapter")))
    assert f"its base model, {tmp_path / 'adapter'}, is itself an adapter: `sharpen merge` it first" in message


def test_damaged_or_unsupported_files_are_errors(tmp_path: Path) -> None:
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    folder = tmp_path / "adapter"
    weights = load_file(folder / "adapter_model.safetensors")
    name = next(iter(weights))
    save_file({n: t for n, t in weights.items() if n != name}, folder / "adapter_model.safetensors")
    assert "it lacks base_model.model.model.layers.0" in refused(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "this adapter has no adapter_model.safetensors; only safetensors is supported" in refused(folder)
    assert "its adapter_config.json has peft_type: IA3; only LORA is supported. If peft can merge" in refused(
        edited(folder, peft_type="IA3")
    )
    (folder / "adapter_config.json").write_text("{")
    assert "cannot read its adapter_config.json" in refused(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "cannot read its adapter_config.json" in refused(folder)
    whole = tmp_path / "base"
    (whole / "adapter_config.json").write_text("{}")
    assert "holds both a full model and an adapter: remove config.json or adapter_config.json" in refused(whole)


def test_an_interrupted_merge_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    save = Policy.save

    def half(self: Policy, folder: Path, dtype: SavedDtype) -> None:
        save(self, folder, dtype)
        (folder / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Policy, "save", half)
        with pytest.raises(KeyboardInterrupt):
            merge(tmp_path / "adapter", tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]
    assert merge(tmp_path / "adapter", tmp_path / "merged") == tmp_path / "merged"


def test_merging_needs_an_adapter_and_an_empty_folder(tmp_path: Path) -> None:
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    with pytest.raises(ModelError, match="already a full model, not an adapter"):
        merge(tmp_path / "base", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(ModelError, match="base already exists: remove it or choose another folder"):
        merge(tmp_path / "adapter", tmp_path / "base")
    assert merge(tmp_path / "adapter", tmp_path / "merged") == tmp_path / "merged"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 2}, "rank 3 and alpha 5"),
        ({"alpha": 6}, "alpha 5"),
        ({"targets": ("q_proj",)}, "down_proj, gate_proj"),
    ],
)
def test_continuing_an_adapter_needs_its_settings(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    adapted(tmp_path / "base").save(tmp_path / "adapter")
    policy = load_policy(tmp_path / "base", device="cpu")
    add_adapter(policy, **SETTINGS | changes)
    files = find_adapter(str(tmp_path / "adapter"))
    assert files is not None
    with pytest.raises(ModelError, match=f"the adapter has .*{words}.*, unlike model.lora"):
        read_adapter(policy, files)
