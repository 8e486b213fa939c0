"""A model whose linear layers have rounded weights of their own gives what autocast gives."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sharpen.models.lora import add_adapter
from sharpen.rollout.local.transformers_runner import update_bfloat16_linears, with_bfloat16_linears
from tiny_models import tiny_policy


def logits(model: Any) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found: Tensor = model(input_ids=torch.tensor([[3, 5, 7, 2]]), use_cache=False).logits
    return found


@pytest.mark.parametrize(
    ("architecture", "settings", "lora"),
    [
        ("opt", {"tie_word_embeddings": True}, False),
        ("mixtral", {"experts_implementation": "eager"}, False),
        ("qwen2_moe", {"experts_implementation": "eager"}, True),
    ],
)
def test_rounded_weights_give_what_autocast_gives_and_follow_the_model(
    architecture: str, settings: dict[str, Any], lora: bool
) -> None:
    policy = tiny_policy(architecture, compute_dtype="bfloat16", **settings)
    if lora:
        add_adapter(policy, rank=2, alpha=4, targets="all-linear", seed=1)
    model: Any = policy.model
    rounded = with_bfloat16_linears(model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    first = logits(model)
    assert torch.equal(logits(rounded), first)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    assert not torch.equal(logits(rounded), logits(model))
    update_bfloat16_linears(model, rounded)
    assert torch.equal(logits(rounded), logits(model))
    assert not torch.equal(logits(model), first)
    # The model's own weights stay as they are, in their own type.
    assert all(torch.equal(p, before[name] * 1.25) for name, p in model.named_parameters())
