"""Projections of LoRA layers in decoding: worked numbers, and an update that merging would lose."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from sharpen.models.lora import merged_weight
from sharpen.rollout.local.projections import make_projection, onednn_computes_bfloat16


def layers() -> tuple[Any, Any]:
    """x ↦ (x₁, x₂) with A = (1 2), B = (3 4)ᵀ and alpha / rank = 2; and x ↦ (x₂, 2 x₁) without an adapter."""
    net: Any = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    inject_adapter_in_model(LoraConfig(r=1, lora_alpha=2, target_modules=["0"]), net)
    with torch.no_grad():
        net[0].base_layer.weight.copy_(torch.eye(2))
        net[0].lora_A["default"].weight.copy_(torch.tensor([[1.0, 2.0]]))
        net[0].lora_B["default"].weight.copy_(torch.tensor([[3.0], [4.0]]))
        net[1].weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    return net[0], net[1]


def test_a_layer_with_an_adapter_beside_one_without() -> None:
    """At x = (1, 1): A x = 3, so 2 · (9, 12) is added to the first. The numbers are exact in bfloat16."""
    adapted, plain = layers()
    x = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.bfloat16)
    projection = make_projection([adapted, plain], rounded=True)
    assert projection(x).tolist() == [[19.0, 25.0, 1.0, 2.0], [7.0, 8.0, 0.0, 2.0]]
    assert make_projection([plain, adapted], rounded=True)(x).tolist() == [[1.0, 2.0, 19.0, 25.0], [0.0, 2.0, 7.0, 8.0]]
    with torch.no_grad():
        adapted.lora_B["default"].weight.zero_()
    assert projection(x).tolist()[0] == [19.0, 25.0, 1.0, 2.0]
    projection.reload()
    assert projection(x).tolist()[0] == [1.0, 1.0, 1.0, 2.0]
    whole = make_projection([adapted, plain], rounded=False)
    assert whole(x.float()).tolist() == projection(x).tolist()


def test_an_update_too_small_for_a_merged_bfloat16_weight_is_kept() -> None:
    """2⁻¹⁰ added to 1, where bfloat16 resolves 2⁻⁷: with these weights the second output is the update alone."""
    adapted, _ = layers()
    with torch.no_grad():
        adapted.base_layer.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, -1.0]]))
        adapted.lora_A["default"].weight.copy_(torch.tensor([[1.0, 0.0]]))
        adapted.lora_B["default"].weight.copy_(torch.tensor([[0.0], [2.0**-11]]))
    assert merged_weight(adapted)[1, 0] == 1 + 2**-10
    assert merged_weight(adapted).bfloat16()[1, 0] == 1
    x = torch.tensor([[512.0, 512.0]], dtype=torch.bfloat16)
    assert make_projection([adapted], rounded=True)(x).tolist() == [[512.0, 0.5]]


def test_a_copy_of_frozen_weights_is_made_once() -> None:
    if not onednn_computes_bfloat16():
        pytest.skip("oneDNN has no bfloat16 on this processor")
    adapted, _ = layers()
    projection: Any = make_projection([adapted], rounded=True)
    projection(torch.ones(1, 2, dtype=torch.bfloat16))
    copy = projection._frozen._copy
    assert copy is not None
    projection.release()
    projection.reload()
    assert projection._frozen._copy is copy
