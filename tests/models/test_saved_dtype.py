"""Weights on disk in bfloat16 or float16, and a bfloat16 checkpoint from which a run resumes exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from sharpen.errors import ModelError
from sharpen.models.lora import add_adapter
from sharpen.models.merge import merge
from sharpen.models.policy import load_policy
from sharpen.models.saved_dtype import REMAINDER, remainder, restored
from sharpen.models.scorer import load_scorer
from tiny_models import loaded_policy, loaded_scorer, tiny_folder


def bits(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64).to(torch.int32).view(torch.float32)


def test_what_bfloat16_lacks_of_a_number_by_hand() -> None:
    """0x3F80 is 1. The next bfloat16 number is 0x3F81; between them float32 has 0x3F800001 to 0x3F80FFFF."""
    exact = bits(0x3F800000, 0x3F800001, 0x3F808001, 0x3F80FFFF, 0xBF800001 - 2**32, 0x3F818000)
    parts = remainder(exact)
    # 0x3F818000 is halfway, and is rounded up to the even 0x3F82: 0x8000 less.
    assert parts["low"].tolist() == [0, 1, 0x8001 - 0x10000, -1, 1, -0x8000]
    assert "index" not in parts
    # Halfway between 0x3F80, even, and 0x3F81: rounded down, and 0x8000 more do not fit into 16 bits.
    halfway = remainder(bits(0x3F800001, 0x3F808000))
    assert halfway["index"].tolist() == [1]
    assert torch.equal(halfway["value"], bits(0x3F808000))


def test_the_rounding_and_its_remainder_are_every_number_exactly() -> None:
    generator = torch.Generator().manual_seed(1)
    anything = torch.randint(-(2**31), 2**31, (200_001,), generator=generator).to(torch.int32).view(torch.float32)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3.4e38, -3.4e38, 1e-45, 1.0 + 2**-8])
    exact = torch.cat([anything, special]).reshape(-1, 10)
    found = restored(exact.bfloat16(), remainder(exact))
    assert torch.equal(found.view(torch.int32), exact.view(torch.int32))


def dtypes_of(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return {name: opened.get_slice(name).get_dtype() for name in list(opened.keys())}


@pytest.mark.parametrize(("dtype", "short"), [("bfloat16", "BF16"), ("float16", "F16")])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mixtral", "gemma3_text"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_in_another_type_is_the_rounded_model_at_half_the_size(
    architecture: str, tied: bool, dtype: Any, short: str, tmp_path: Path
) -> None:
    policy = loaded_policy(tmp_path / "base", architecture, tie_word_embeddings=tied)
    policy.save(tmp_path / "typed", dtype)
    assert set(dtypes_of(tmp_path / "typed" / "model.safetensors").values()) == {short}
    sizes = [
        sum(t.nbytes for t in load_file(tmp_path / name / "model.safetensors").values()) for name in ("base", "typed")
    ]
    assert sizes[0] == 2 * sizes[1]
    assert not (tmp_path / "typed" / "trainer").exists()
    assert AutoConfig.from_pretrained(tmp_path / "typed").dtype == getattr(torch, dtype)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "typed").state_dict()
    exact = policy.model.state_dict()
    assert found.keys() == exact.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, exact[name].to(getattr(torch, dtype))), name
    # What was in memory is still exact, and says so when it is saved again.
    policy.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "base" / "model.safetensors"
    ).read_bytes()
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == "float32"


def test_weights_that_transformers_loads_in_float32_stay_in_float32(tmp_path: Path) -> None:
    """The router of dots.llm1 is such a module; its neighbours are not."""
    policy = loaded_policy(
        tmp_path / "base",
        "dots1",
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=12,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
    )
    policy.save(tmp_path / "typed", "bfloat16")
    found = dtypes_of(tmp_path / "typed" / "model.safetensors")
    assert {name for name, dtype in found.items() if dtype == "F32"} == {
        "model.layers.1.mlp.gate.e_score_correction_bias",
        "model.layers.1.mlp.gate.weight",
    }
    assert set(found.values()) == {"F32", "BF16"}
    moved(policy).save(tmp_path / "exact", "bfloat16", exact=True)
    again, expected = load_policy(tmp_path / "exact", device="cpu").model.state_dict(), policy.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.items())


def test_a_number_too_large_for_float16_is_an_error(tmp_path: Path) -> None:
    policy = loaded_policy(tmp_path / "base")
    with torch.no_grad():
        policy.model.get_parameter("model.norm.weight")[3] = 70_000.0
    with pytest.raises(ModelError, match=r"model\.norm\.weight: its largest number, 70000, is too large for float16"):
        policy.save(tmp_path / "typed", "float16")
    policy.save(tmp_path / "wide", "bfloat16")


def moved(model: Any) -> Any:
    """Weights that no bfloat16 number equals."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 2**-12)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_an_exact_bfloat16_folder_is_read_back_bit_for_bit(tied: bool, tmp_path: Path) -> None:
    policy = loaded_policy(tmp_path / "base", "mixtral", tie_word_embeddings=tied)
    policy.add_value_head()
    moved(policy).save(tmp_path / "exact", "bfloat16", exact=True)
    assert set(dtypes_of(tmp_path / "exact" / "model.safetensors").values()) == {"BF16"}
    # The two halves together are as large as the float32 file.
    rest = load_file(tmp_path / "exact" / REMAINDER)
    halves = sum(t.nbytes for name, t in rest.items() if name.endswith(".low"))
    assert halves == sum(t.nbytes for t in load_file(tmp_path / "exact" / "model.safetensors").values())
    again = load_policy(tmp_path / "exact", device="cpu")
    expected = policy.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.model.state_dict().items())
    (tmp_path / "exact" / REMAINDER).unlink()
    rounded = load_policy(tmp_path / "exact", device="cpu").model.state_dict()
    assert all(torch.equal(tensor, expected[name].bfloat16().float()) for name, tensor in rounded.items())
    # Written anew in float32, nothing of the other half is left.
    again.save(tmp_path / "exact", "bfloat16", exact=True)
    again.save(tmp_path / "exact")
    assert not (tmp_path / "exact" / REMAINDER).exists()


def test_scorers_and_adapters_are_exact_too(tmp_path: Path) -> None:
    scorer = moved(loaded_scorer(tmp_path / "base", "sequence"))
    scorer.save(tmp_path / "scorer", "bfloat16", exact=True)
    for kind in ("sequence", "token"):
        again = load_scorer(tmp_path / "scorer", kind=kind, device="cpu")
        assert torch.equal(again.head.weight, scorer.head.weight)
        assert torch.equal(
            again.model.get_parameter("model.norm.weight"), scorer.model.get_parameter("model.norm.weight")
        )
    policy = load_policy(tiny_folder(tmp_path / "model"), device="cpu")
    add_adapter(policy, rank=3, alpha=5, targets="all-linear", seed=1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    policy.save(tmp_path / "adapter")
    policy.save(tmp_path / "exact", "bfloat16", exact=True)
    assert set(dtypes_of(tmp_path / "exact" / "adapter_model.safetensors").values()) == {"BF16"}
    merged = [load_policy(tmp_path / name, device="cpu").model.state_dict() for name in ("adapter", "exact")]
    assert all(torch.equal(tensor, merged[1][name]) for name, tensor in merged[0].items())


def test_a_merged_model_is_written_in_the_type_asked_for(tmp_path: Path) -> None:
    policy = load_policy(tiny_folder(tmp_path / "base"), device="cpu")
    add_adapter(policy, rank=3, alpha=5, targets="all-linear", seed=1)
    policy.save(tmp_path / "adapter")
    merge(tmp_path / "adapter", tmp_path / "merged")
    merge(tmp_path / "adapter", tmp_path / "half", dtype="bfloat16")
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "half"))
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in whole.items())
