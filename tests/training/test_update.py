"""Law 1: the gradient of a step is the one of its loss, however the work is cut."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles import grpo, reduction, sft
from oracles.ragged import Ragged
from sharpen.batch import Batch
from sharpen.errors import NonFiniteError
from sharpen.methods import GRPO, SFT, Method
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.policy import Policy
from sharpen.training.learner import Learner
from sharpen.training.metrics import Updated
from sharpen.training.optimizer import learning_rate, make_optimizer
from sharpen.training.settings import OptimizerSettings
from sharpen.training.token_stats import TokenStats
from sharpen.training.update import Accumulated, Observer, accumulate_gradient, with_weights
from tiny_models import (
    assert_same_gradients,
    gradients,
    learner_of,
    own_logprobs,
    ragged_batch,
    renumbered,
    tiny_policy,
    with_given,
    without_streams,
)

TEMPERATURE = 0.9
WHOLE = MicrobatchLimits(100_000, shared_prompt=True)
TOLERANCE = 3e-6  # The norms, the weights and the advantages are float32; all else here is float64.

SFT_TERMS: dict[str, Callable[..., Any]] = {"tokens_of_batch": sft.token_mean, "per_sequence": sft.sequence_mean}
GRPO_TERMS: dict[str, Callable[..., Any]] = {
    "per_sequence": reduction.per_sequence,
    "tokens_of_group": reduction.tokens_of_group,
    "tokens_of_batch": reduction.tokens_of_batch,
}
METHODS: dict[str, Method] = {
    **{f"sft {name}": SFT(reduction=name) for name in SFT_TERMS},  # type: ignore[arg-type]
    **{f"grpo {name}": GRPO(beta=0.3, eps_high=0.28, reduction=name) for name in GRPO_TERMS},  # type: ignore[arg-type]
    "grpo without a reference": GRPO(beta=0.0),
}


@cache
def policy() -> Policy:
    return tiny_policy("llama", dtype=torch.float64)


@cache
def example(name: str) -> tuple[Batch, dict[str, Tensor], float]:
    """A step of training, and its gradient and loss by the slow reference, sequence by sequence."""
    method = METHODS[name]
    # Demonstrations are groups of one.
    batch = ragged_batch(policy().config.vocab_size, sizes=(1, 1, 1, 1, 1) if isinstance(method, SFT) else (3, 1, 5, 2))
    policy().model.zero_grad()
    own = own_logprobs(policy().model, batch, TEMPERATURE)
    values = [row.tolist() for row in own]
    mask = batch.mask_ET.tolist()
    if isinstance(method, SFT):
        batch = with_given(batch, advantages=method.advantages(batch))
        loss = SFT_TERMS[method.reduction](own, mask)
        loss.backward()
        return batch, gradients(policy().model), loss.item()

    assert isinstance(method, GRPO)
    generator = torch.Generator().manual_seed(1)

    def noise(size: float) -> Tensor:
        return size * torch.randn(batch.mask_ET.shape, generator=generator, dtype=torch.float64)

    logprobs_ET = torch.stack(own).detach()
    old_ET, ref_ET = logprobs_ET + noise(0.3), logprobs_ET + noise(0.5)
    advantages_E = torch.randn(len(batch), generator=generator)
    advantages_E[5:7] = 0.0
    batch = with_given(
        batch,
        advantages=advantages_E[:, None] * batch.mask_ET,
        old_logprobs=old_ET,
        ref_logprobs=ref_ET if method.needs_reference else None,
        coefficients={"beta": method.beta},
    )
    step = Ragged(values, old_ET.tolist(), ref_ET.tolist(), mask, batch.group_E.tolist(), [])
    settings = {
        "eps_low": method.eps_low,
        "eps_high": method.eps_high,
        "beta": method.beta,
        "reduce": GRPO_TERMS[method.reduction],
    }
    slopes = grpo.loss_gradient(values, step, advantages_E.tolist(), **settings)
    torch.stack(own).backward(torch.tensor(slopes, dtype=torch.float64))
    return batch, gradients(policy().model), grpo.loss(values, step, advantages_E.tolist(), **settings)


def accumulate(
    model: Policy, method: Method, batch: Batch, limits: MicrobatchLimits, observe: Observer | None = None
) -> Accumulated:
    [objective] = method.objectives()
    return accumulate_gradient(model, objective, with_weights(method, batch), TEMPERATURE, limits, observe)


def gradient_of(name: str, batch: Batch, limits: MicrobatchLimits) -> tuple[dict[str, Tensor], float]:
    policy().model.zero_grad()
    done = accumulate(policy(), METHODS[name], batch, limits)
    assert done.tokens > 0
    return gradients(policy().model), done.loss.item()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tokens", [1, 17, 40, 64, 100_000])
@pytest.mark.parametrize("name", METHODS)
def test_any_cut_gives_the_gradient_of_the_slow_reference(name: str, tokens: int, shared: bool) -> None:
    batch, expected, expected_loss = example(name)
    found, loss = gradient_of(name, batch, MicrobatchLimits(tokens, shared))
    assert_same_gradients(found, expected, TOLERANCE)
    assert loss == pytest.approx(expected_loss, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_sequences_and_groups_does_not_matter(name: str, seed: int) -> None:
    batch, expected, _ = example(name)
    generator = torch.Generator().manual_seed(seed)
    shuffled = batch.select(torch.randperm(len(batch), generator=generator))
    shuffled = renumbered(shuffled, torch.randperm(len(batch.prefixes), generator=generator))
    for limits in (WHOLE, MicrobatchLimits(30, True)):
        assert_same_gradients(gradient_of(name, shuffled, limits)[0], expected, TOLERANCE)


@pytest.mark.parametrize("name", ["grpo per_sequence", "sft tokens_of_batch"])
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    batch, expected, _ = example(name)
    checkpointed = tiny_policy("llama", dtype=torch.float64)
    checkpointed.model.gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed.model.train()
    accumulate(checkpointed, METHODS[name], batch, MicrobatchLimits(40, True))
    assert_same_gradients(gradients(checkpointed.model), expected, TOLERANCE)


def test_on_policy_the_old_log_probabilities_are_the_policys_own() -> None:
    """One update per rollout: not given, π_old is π, the ratio 1 and the gradient Â ∇ log π."""
    batch = without_streams(example("grpo without a reference")[0], "old_logprobs")
    own = own_logprobs(policy().model, batch, TEMPERATURE)
    weights = reduction.weights(reduction.per_sequence, batch.mask_ET.tolist(), batch.group_E.tolist())
    policy().model.zero_grad()
    (-torch.stack(own) * torch.tensor(weights) * batch["advantages"]).sum().backward()
    expected = gradients(policy().model)
    stats = TokenStats()
    policy().model.zero_grad()
    accumulate(policy(), GRPO(), batch, MicrobatchLimits(40, True), stats.add)
    assert_same_gradients(gradients(policy().model), expected, TOLERANCE)
    measured = stats.metrics()
    assert (measured["ratio/mean"], measured["ratio/p99.9"], measured["clip_fraction"]) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("shared", [True, False])
def test_sequences_without_advantage_cost_nothing_and_change_nothing(shared: bool) -> None:
    """They count in the weights (G and P stay what they were), not in the tokens that are computed."""
    batch, expected, _ = example("grpo without a reference")
    zero_E = (batch["advantages"] == 0).all(dim=1) & batch.mask_ET.any(dim=1)
    assert zero_E.sum() >= 2
    [objective] = GRPO().objectives()
    everything = replace(objective, without_advantage=True)
    step, limits = with_weights(GRPO(), batch), MicrobatchLimits(100_000, shared)
    policy().model.zero_grad()
    all_tokens = accumulate_gradient(policy(), everything, step, TEMPERATURE, limits).tokens
    assert_same_gradients(gradients(policy().model), expected, TOLERANCE)
    policy().model.zero_grad()
    tokens = accumulate_gradient(policy(), objective, step, TEMPERATURE, limits).tokens
    assert tokens < all_tokens


def test_without_advantage_the_penalty_still_has_a_gradient() -> None:
    batch, _, _ = example("grpo per_sequence")
    flat = batch.with_streams(advantages=torch.zeros_like(batch["advantages"]))
    own = own_logprobs(policy().model, batch, TEMPERATURE)
    step = Ragged(
        [row.tolist() for row in own],
        batch["old_logprobs"].tolist(),
        batch["ref_logprobs"].tolist(),
        batch.mask_ET.tolist(),
        batch.group_E.tolist(),
        [],
    )
    slopes = grpo.loss_gradient(
        step.policy, step, [0.0] * len(batch), eps_low=0.2, eps_high=0.28, beta=0.3, reduce=reduction.per_sequence
    )
    policy().model.zero_grad()
    torch.stack(own).backward(torch.tensor(slopes, dtype=torch.float64))
    expected = gradients(policy().model)
    assert_same_gradients(gradient_of("grpo per_sequence", flat, MicrobatchLimits(40, True))[0], expected, TOLERANCE)


def step_of(learner: Learner, batch: Batch, learning_rate: float = 0.01) -> Updated:
    [objective] = learner.objectives
    return learner.step("policy", [learner.forward_backward(objective, batch)], learning_rate)


def test_a_step_without_any_advantage_is_a_no_op_to_the_last_bit() -> None:
    model = tiny_policy()
    learner = learner_of(GRPO(), model, WHOLE, temperature=TEMPERATURE, max_grad_norm=1.0, weight_decay=0.1)
    optimizer = learner.optimizers["policy"]
    batch = example("grpo without a reference")[0]
    assert step_of(learner, batch).applied
    weights = {n: p.clone() for n, p in model.model.state_dict().items()}
    state = {(i, n): v.clone() for i, entry in optimizer.state_dict()["state"].items() for n, v in entry.items()}
    flat = batch.with_streams(advantages=torch.zeros_like(batch["advantages"]))
    untrained = replace(batch, mask_ET=torch.zeros_like(batch.mask_ET))
    for nothing in (flat, untrained):
        done = step_of(learner, nothing)
        assert (done.applied, done.loss, done.grad_norm, done.tokens) == (False, 0.0, 0.0, 0)
    assert learner.updates == {"policy": 1}
    assert all(torch.equal(p, weights[n]) for n, p in model.model.state_dict().items())
    after = optimizer.state_dict()["state"]
    assert len(state) == 3 * len(after)
    assert all(torch.equal(after[i][n], v) for (i, n), v in state.items())


def test_the_loss_of_a_step_without_any_advantage_is_on_the_models_device() -> None:
    """It is stacked with the loss of a second source."""
    batch = example("grpo without a reference")[0]
    flat = batch.with_streams(advantages=torch.zeros_like(batch["advantages"]))
    elsewhere = tiny_policy()
    elsewhere.model.to("meta")
    done = accumulate(elsewhere, GRPO(), flat, WHOLE)
    assert (done.loss.device.type, done.unscaled.device.type, done.tokens) == ("meta", "meta", 0)


def test_the_scale_of_a_loss_scales_its_gradient() -> None:
    batch, expected, expected_loss = example("grpo per_sequence")
    method = METHODS["grpo per_sequence"]
    [objective] = method.objectives()
    policy().model.zero_grad()
    limits = MicrobatchLimits(40, True)
    done = accumulate_gradient(policy(), objective, with_weights(method, batch), TEMPERATURE, limits, scale=-2.5)
    assert_same_gradients(gradients(policy().model), {n: -2.5 * g for n, g in expected.items()}, TOLERANCE)
    assert done.loss.item() == pytest.approx(-2.5 * expected_loss, rel=1e-6)
    assert done.unscaled.item() == pytest.approx(expected_loss, rel=1e-6)


def adamw(p: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loshchilov and Hutter, algorithm 2, with β = (0.9, 0.999) and ε = 1e-8."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    step = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return p - lr * step - lr * decay * p, m, v


def test_the_weights_after_two_steps_are_those_of_adamw_on_the_clipped_gradient() -> None:
    model = tiny_policy(dtype=torch.float64)
    learner = learner_of(SFT(), model, WHOLE, temperature=TEMPERATURE, max_grad_norm=0.5, weight_decay=0.1)
    batch = example("sft tokens_of_batch")[0]
    expected = {n: [p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)] for n, p in parameters(model)}
    for t, rate in ((1, 0.01), (2, 0.003)):
        model.model.zero_grad()
        sft.token_mean(own_logprobs(model.model, batch, TEMPERATURE), batch.mask_ET.tolist()).backward()
        grads = gradients(model.model)
        norm = torch.stack([g.square().sum() for g in grads.values()]).sum().sqrt()
        assert norm > 0.5
        for n, (p, m, v) in expected.items():
            decay = 0.1 if p.dim() >= 2 else 0.0
            expected[n] = list(adamw(p, grads[n] * 0.5 / norm, m, v, t, rate, decay))
        model.model.zero_grad()
        done = step_of(learner, batch, rate)
        assert done.grad_norm == pytest.approx(norm.item(), rel=1e-5)
        assert learner.updates == {"policy": t}
        for n, p in parameters(model):
            # Where a gradient is all but zero, Adam's ratio of it to itself magnifies its rounding.
            torch.testing.assert_close(p.detach(), expected[n][0], rtol=0, atol=0.002 * rate, msg=n)


def parameters(model: Policy) -> list[tuple[str, torch.nn.Parameter]]:
    return list(model.model.named_parameters())


def test_a_gradient_that_is_no_number_leaves_the_weights_alone() -> None:
    model = tiny_policy()
    learner = learner_of(GRPO(), model, WHOLE, temperature=TEMPERATURE, max_grad_norm=1.0)
    batch = example("grpo without a reference")[0]
    weights = {n: p.clone() for n, p in model.model.state_dict().items()}
    broken = batch.with_streams(old_logprobs=torch.full_like(batch["old_logprobs"], torch.nan))
    with pytest.raises(NonFiniteError, match=r"policy's gradient norm is nan, its loss nan.*optimizer\.learning_rate"):
        step_of(learner, broken)
    assert all(torch.equal(p, weights[n]) for n, p in model.model.state_dict().items())
    assert learner.updates == {"policy": 0}
    assert not learner.optimizers["policy"].state_dict()["state"]


@pytest.mark.parametrize("limits", [WHOLE, MicrobatchLimits(1, True), MicrobatchLimits(40, False)])
def test_all_outputs_are_the_models_own_wherever_a_token_is_trained(limits: MicrobatchLimits) -> None:
    batch = example("grpo per_sequence")[0]
    found = all_outputs(policy(), batch, "logprobs", TEMPERATURE, limits)
    own = torch.stack(own_logprobs(policy().model, batch, TEMPERATURE)).detach() * batch.mask_ET
    torch.testing.assert_close(found.double(), own, rtol=0, atol=1e-6)


def test_learning_rates_worked_out() -> None:
    def rates(total: int, **settings: Any) -> list[float]:
        chosen = OptimizerSettings(learning_rate=1.0, **settings)
        return [learning_rate(u, total, chosen) for u in range(total)]

    assert rates(3) == [1, 1, 1]
    assert rates(5, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert rates(5, schedule="linear") == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert rates(7, schedule="linear", warmup_steps=2, min_ratio=0.2) == pytest.approx(
        [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    )
    assert rates(5, schedule="cosine", min_ratio=0.1) == pytest.approx(
        [1, 0.1 + 0.9 * (2 + 2**0.5) / 4, 0.55, 0.1 + 0.9 * (2 - 2**0.5) / 4, 0.1]
    )
    assert rates(1, schedule="cosine") == [1]
    assert rates(2, warmup_steps=10) == pytest.approx([0.1, 0.2])


def test_weight_decay_acts_on_matrices_only() -> None:
    """With a zero gradient Adam does nothing, and decay multiplies by 1 − lr · decay."""
    model = tiny_policy("gpt2")
    before = {n: p.detach().clone() for n, p in parameters(model)}
    optimizer = make_optimizer(model.model.parameters(), OptimizerSettings(learning_rate=0.5, weight_decay=0.1))
    for _, p in parameters(model):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert {p.dim() for p in before.values()} == {1, 2}
    for n, p in parameters(model):
        shrunk = before[n] * (0.95 if p.dim() >= 2 else 1.0)
        torch.testing.assert_close(p.detach(), shrunk, rtol=1e-6, atol=0, msg=n)


def test_frozen_parameters_are_left_out_of_the_optimizer() -> None:
    model = tiny_policy()
    model.model.model.embed_tokens.weight.requires_grad_(False)
    optimizer = make_optimizer(model.model.parameters(), OptimizerSettings())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for n, p in parameters(model) if n != "model.embed_tokens.weight"}
