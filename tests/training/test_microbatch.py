"""How large a micro-batch is by itself: the estimate of a token's activations, held against what autograd keeps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sharpen.models.modules import hidden_states
from sharpen.models.packing.microbatches import Planner
from sharpen.models.packing.pack import PackedBatch, pack
from sharpen.models.policy import Policy, load_policy
from sharpen.training.microbatch import activation_bytes, usual_tokens
from tiny_models import make_batch, tiny_folder

SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "head_dim": 16,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 512,
}


def packed_groups(policy: Policy) -> PackedBatch:
    """Four prompts of 60 tokens, each with four completions of 31."""
    tokens_ET = torch.randint(2, 17, (16, 31), generator=torch.Generator().manual_seed(0))
    batch = make_batch(
        prefixes=tuple(torch.randint(2, 17, (60,), generator=torch.Generator().manual_seed(p)) for p in range(4)),
        group_E=torch.arange(16) // 4,
        tokens_ET=tokens_ET,
        mask_ET=torch.ones_like(tokens_ET, dtype=torch.bool),
    )
    (rows,) = Planner().plan(batch, tokens_per_microbatch=10_000, shared=True, cost=policy.cost, padded=False)
    return pack(batch, rows, policy.pad_id, padded=False, with_last=False)


def kept_bytes(policy: Policy, packed: PackedBatch) -> int:
    """Bytes of all tensors, weights aside, that a forward pass of the body keeps for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), policy.autocast():
        states = hidden_states(policy.model.get_decoder(), packed)  # type: ignore[operator]
        total = sum(kept.values())
    assert states.requires_grad
    return total


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_the_estimate_is_near_what_autograd_keeps(tmp_path: Path, compute_dtype: Any) -> None:
    policy = load_policy(tiny_folder(tmp_path, "llama", **SIZES), compute_dtype=compute_dtype, device="cpu")
    packed = packed_groups(policy)
    tokens = packed.input_ids_RL.numel()
    assert tokens == 4 * 60 + 16 * 30
    assert activation_bytes(policy) == pytest.approx(kept_bytes(policy, packed) / tokens, rel=0.15)


def test_with_gradient_checkpointing_a_stream_a_layer_and_one_layer(tmp_path: Path) -> None:
    policy = load_policy(tiny_folder(tmp_path, "llama", **SIZES), device="cpu", gradient_checkpointing=True)
    one_layer = 4 * (4 + 7) * 96 + 4 * 3 * 256
    assert activation_bytes(policy) == 3 * 4 * 96 + one_layer


def of_sizes(hidden: int, inner: int, layers: int, dtype: str) -> Any:
    """What the estimate reads of a model."""
    config = SimpleNamespace(hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers)
    config.get_text_config = lambda: config
    return SimpleNamespace(compute_dtype=dtype, device=torch.device("cpu"), model=SimpleNamespace(config=config))


def test_micro_batches_of_models_that_people_know() -> None:
    """SmolLM2-135M in float32: 30 · (44 · 576 + 12 · 1536) = 1,313,280 bytes a token, of 768 MiB."""
    assert usual_tokens(of_sizes(576, 1536, 30, "float32"), 48) == 768 * 2**20 // 1_313_280
    # In bfloat16: 30 · (30 · 576 + 6 · 1536) = 794,880.
    assert usual_tokens(of_sizes(576, 1536, 30, "bfloat16"), 48) == 2 * 2**30 // 794_880
    # Of a very small and of a large model, the most and the least.
    assert usual_tokens(of_sizes(64, 128, 2, "float32"), 48) == 32768
    assert usual_tokens(of_sizes(4096, 14336, 32, "float32"), 48) == 512
    # A prompt of 900 tokens, and as many tokens of its completions.
    assert usual_tokens(of_sizes(576, 1536, 30, "float32"), 900) == 1800
