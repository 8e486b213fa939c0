"""The chunked head against a plain softmax."""

import math

import pytest
import torch
from torch import Tensor

from sharpen.models.layout import plan
from sharpen.models.logprobs import row_logprobs, selected_logprobs, training_cost
from tiny_models import own_logprobs, ragged_batch, tiny_policy

N, H, V = 13, 6, 37


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, H, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(V, H, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, V, (N,), generator=generator)
    return hidden, weight, targets, torch.randn(N, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rows_per_chunk", [1, 2, 5, 12, 13, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_value_entropy_and_gradients_equal_torch(rows_per_chunk: int, temperature: float) -> None:
    hidden, weight, targets, upstream = problem()
    all_logprobs = (hidden @ weight.T / temperature).log_softmax(dim=-1)
    expected = all_logprobs[torch.arange(N), targets]
    expected_gradients = torch.autograd.grad((upstream * expected).sum(), (hidden, weight))

    found, entropy = selected_logprobs(hidden, weight, targets, temperature, chunk_bytes=4 * V * rows_per_chunk)
    found_gradients = torch.autograd.grad((upstream * found).sum(), (hidden, weight))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(entropy, -(all_logprobs.exp() * all_logprobs).sum(dim=-1), rtol=1e-13, atol=1e-13)
    assert not entropy.requires_grad
    for mine, theirs in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)


def test_worked_numbers() -> None:
    """Logits log 1, log 2, log 5: probabilities 1/8, 2/8, 5/8; halved by temperature 2 they are 1, √2, √5."""
    weight = torch.tensor([[1.0], [2.0], [5.0]], dtype=torch.float64).log()
    hidden, targets = torch.ones(2, 1, dtype=torch.float64), torch.tensor([2, 0])
    found, entropy = selected_logprobs(hidden, weight, targets, 1.0)
    assert found.tolist() == pytest.approx([math.log(5 / 8), math.log(1 / 8)])
    by_hand = -sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
    assert entropy.tolist() == pytest.approx([by_hand, by_hand])
    found, _ = selected_logprobs(hidden, weight, targets, 2.0)
    total = 1 + math.sqrt(2) + math.sqrt(5)
    assert found.tolist() == pytest.approx([math.log(math.sqrt(5) / total), math.log(1 / total)])


def test_a_frozen_part_gets_no_gradient_and_the_other_the_same() -> None:
    hidden, weight, targets, upstream = problem()
    both = torch.autograd.grad((upstream * selected_logprobs(hidden, weight, targets, 0.9)[0]).sum(), (hidden, weight))
    alone = selected_logprobs(hidden, weight.detach(), targets, 0.9)[0]
    torch.testing.assert_close(torch.autograd.grad((upstream * alone).sum(), hidden)[0], both[0], rtol=0, atol=0)
    alone = selected_logprobs(hidden.detach(), weight, targets, 0.9)[0]
    torch.testing.assert_close(torch.autograd.grad((upstream * alone).sum(), weight)[0], both[1], rtol=0, atol=0)


def test_logits_far_apart_neither_overflow_nor_lose_the_rest() -> None:
    weight = torch.tensor([[0.0], [1000.0], [999.0]])
    found, entropy = selected_logprobs(torch.ones(1, 1), weight, torch.tensor([2]), 1.0)
    p = math.exp(-1) / (1 + math.exp(-1))
    assert found.item() == pytest.approx(math.log(p), rel=1e-6)
    assert entropy.item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), rel=1e-5)


def test_bfloat16_products_differ_by_their_rounding_only() -> None:
    hidden, weight, targets, upstream = (x.float().detach() if x.is_floating_point() else x for x in problem())
    hidden.requires_grad_(), weight.requires_grad_()
    rounded = (hidden.bfloat16() @ weight.bfloat16().T).float().log_softmax(-1)[torch.arange(N), targets]
    found, _ = selected_logprobs(hidden, weight, targets, 1.0, torch.bfloat16, chunk_bytes=4 * V * 4)
    torch.testing.assert_close(found, rounded, rtol=1e-5, atol=1e-5)
    exact = torch.autograd.grad(
        (upstream * (hidden @ weight.T).log_softmax(-1)[torch.arange(N), targets]).sum(), (hidden, weight)
    )
    for mine, theirs in zip(torch.autograd.grad((upstream * found).sum(), (hidden, weight)), exact, strict=True):
        assert (mine - theirs).abs().max() < 0.02 * theirs.abs().max()


def test_entropy_and_zeros_stand_where_they_belong() -> None:
    """[B, T] holds the trained tokens' values and 0 everywhere else, at a temperature, packed or not."""
    for architecture in ("llama", "gpt2"):
        policy = tiny_policy(architecture)
        batch = ragged_batch(policy.config.vocab_size)
        expected = torch.zeros(batch.tokens_BT.shape)
        for b, group in enumerate(batch.group_B.tolist()):
            prompt = batch.prompts[group]
            ids = torch.cat([prompt, batch.tokens_BT[b]])
            with torch.no_grad():
                logits = policy.model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1]
            distribution = torch.distributions.Categorical(logits=logits / 1.4)
            expected[b] = distribution.entropy() * batch.mask_BT[b]
        own = torch.stack(own_logprobs(policy.model, batch, 1.4)).detach() * batch.mask_BT
        for rows in plan(batch, tokens_per_microbatch=50, shared=policy.plain, cost=training_cost(policy)):
            logprobs, entropy = row_logprobs(policy, batch, rows, 1.4)
            inside = torch.zeros(batch.mask_BT.shape, dtype=torch.bool)
            inside[[b for row in rows for b in row.sequences]] = True
            torch.testing.assert_close(entropy, expected * inside, rtol=0, atol=2e-6)
            torch.testing.assert_close(logprobs.detach(), own * inside, rtol=0, atol=3e-6)
