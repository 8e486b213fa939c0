"""Memory-efficient RMSNorm and SwiGLU: the numbers of transformers' modules, and the bytes saved for backward."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.models.kernels.memory_efficient import make_memory_efficient, rms_norm, silu_mul
from sharpen.models.modules import PLAIN_ARCHITECTURES
from tiny_models import tiny_policy

TOKENS, HIDDEN, INNER = 7, 16, 24


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_norm_worked_out_by_hand() -> None:
    """x = (3, 4), mean of squares 12.5; w = (1, 2). dy₁/dx₁ = r (1 − x₁² r² / 2) with r² = 1 / 12.5."""
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = rms_norm(x, w, 0.0, torch.float64)
    r = 1 / math.sqrt(12.5)
    assert y[0].tolist() == pytest.approx([3 * r, 8 * r], rel=1e-12)
    y[0, 0].backward()
    assert x.grad[0].tolist() == pytest.approx([r * (1 - 9 / 25), -r * 12 / 25], rel=1e-12)
    assert w.grad.tolist() == pytest.approx([3 * r, 0.0], rel=1e-12)


def test_a_gated_product_worked_out_by_hand() -> None:
    """silu(0) = 0 with slope 1/2; silu(ln 3) = 3/4 · ln 3."""
    gate = torch.tensor([0.0, math.log(3)], dtype=torch.float64, requires_grad=True)
    up = torch.tensor([5.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = silu_mul(gate, up)
    assert y.tolist() == pytest.approx([0.0, 1.5 * math.log(3)], rel=1e-12)
    y.backward(torch.tensor([1.0, 10.0], dtype=torch.float64))
    # σ (1 + z (1 − σ)) at z = ln 3 is 3/4 (1 + ln 3 / 4).
    assert gate.grad.tolist() == pytest.approx([2.5, 20 * 0.75 * (1 + math.log(3) / 4)], rel=1e-12)
    assert up.grad.tolist() == pytest.approx([0.0, 7.5 * math.log(3)], rel=1e-12)


def test_gradients_agree_with_finite_differences() -> None:
    x, w = random(2, 3, 5, seed=0).requires_grad_(), random(5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-5, torch.float64), (x, w))
    gate, up = (random(2, 3, 5, seed=seed).requires_grad_() for seed in (2, 3))
    assert torch.autograd.gradcheck(silu_mul, (gate, up))


def backbones_of(architecture: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A backbone of transformers, and a memory-efficient copy."""
    body = tiny_policy(architecture).model.base_model
    own = copy.deepcopy(body)
    for module in own.modules():
        if module.__class__.__module__ == "sharpen.models.kernels.memory_efficient":
            module.__class__ = module.__class__.__mro__[2]
    efficient = copy.deepcopy(own)
    make_memory_efficient(efficient)
    return own.to(dtype), efficient.to(dtype)


def saved_bytes(function: Any, *inputs: Tensor) -> tuple[Tensor, int]:
    """The result, and the bytes saved for the backward pass besides parameters."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = function(*inputs)
    return result, sum(storages.values())


@pytest.mark.parametrize("architecture", sorted(PLAIN_ARCHITECTURES))
def test_a_whole_model_computes_the_same_as_transformers(architecture: str) -> None:
    own, efficient = backbones_of(architecture, torch.float32)
    ids = torch.arange(2, 2 + TOKENS)[None]
    upstream = random(1, TOKENS, own.config.hidden_size, seed=5, dtype=torch.float32)
    states = []
    for body in (own, efficient):
        out = body(input_ids=ids, use_cache=False).last_hidden_state
        out.backward(upstream)
        states.append(out.detach())
    torch.testing.assert_close(states[1], states[0], rtol=2e-5, atol=2e-5)
    for (name, one), (_, other) in zip(own.named_parameters(), efficient.named_parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=2e-4, atol=2e-5, msg=name)


def test_which_modules_are_switched() -> None:
    """olmo2's norms come after attention and MLP: their result is added to the residual and must not be rounded."""
    llama, olmo = (backbones_of(name, torch.float32)[1].layers[0] for name in ("llama", "olmo2"))
    module = "sharpen.models.kernels.memory_efficient"
    switched = [llama.input_layernorm, llama.post_attention_layernorm, llama.mlp, olmo.mlp]
    assert all(m.__class__.__module__ == module for m in switched)
    assert not any(
        m.__class__.__module__ == module
        for m in (olmo.post_attention_layernorm, olmo.post_feedforward_layernorm, llama.self_attn)
    )


def test_a_norm_saves_one_rounded_output_for_all_projections_that_read_it() -> None:
    own, efficient = backbones_of("llama", torch.float32)
    kept = []
    for body in (own, efficient):
        norm, mlp = body.layers[0].post_attention_layernorm, body.layers[0].mlp
        x = random(1, 64, body.config.hidden_size, seed=6, dtype=torch.float32).requires_grad_()
        weights = {p.data_ptr() for p in body.parameters()}
        assert x.data_ptr() not in weights
        with torch.autocast("cpu", torch.bfloat16):
            _, size = saved_bytes(lambda x, norm=norm, mlp=mlp: mlp(norm(x)), x)
        kept.append(size)
    hidden, inner, tokens = own.config.hidden_size, own.config.intermediate_size, 64
    rounded_weights = 3 * hidden * inner * 2
    # The input in float32, its scale, one output in bfloat16; gate, up and their product in bfloat16.
    assert kept[1] == rounded_weights + tokens * (4 * hidden + 4 + 2 * hidden + 3 * 2 * inner)
    # The input and the normalised one, an output for gate and one for up, silu(gate) besides.
    assert kept[0] >= rounded_weights + tokens * (2 * 4 * hidden + 4 + 2 * 2 * hidden + 4 * 2 * inner)


def test_rounding_the_norms_output_does_not_change_the_projections_input() -> None:
    own, efficient = backbones_of("llama", torch.float32)
    x = random(1, 64, own.config.hidden_size, seed=6, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        one, other = (
            body.layers[0].self_attn.q_proj(body.layers[0].input_layernorm(x)).float() for body in (own, efficient)
        )
    torch.testing.assert_close(other, one, rtol=2**-7, atol=1e-4)
    assert (other == one).float().mean() > 0.95
