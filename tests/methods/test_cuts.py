"""Law 1 for every method: its gradient is that of its formula, however the step is cut, packed or ordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from oracles.methods import LOSSES
from sharpen.batch import Batch
from sharpen.methods import DPO, GRPO, GSPO, METHODS, PPO, SFT, Method, OnlineRFT, Reinforce, RewardModel, Role
from sharpen.methods.kl import KL
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.training.update import accumulate_gradient, with_weights
from tiny_models import assert_same_gradients, loaded_scorer, ragged_batch, renumbered, tiny_policy, with_given
from whole_steps import forget_gradients, gradients_of, plain_step, said_by

TEMPERATURE = 0.9
TOLERANCE = 3e-6  # The weights, the advantages and the norms are float32; all else here is float64.
CUTS = [
    MicrobatchLimits(1, True),
    MicrobatchLimits(40, True),
    MicrobatchLimits(64, False),
    MicrobatchLimits(100_000, True),
]

Estimator = Literal["k1", "k2", "k3", "weighted_k3", "exact"]
ESTIMATORS: tuple[Estimator, ...] = ("k1", "k2", "k3", "weighted_k3", "exact")
IN_REWARD: tuple[Estimator, ...] = ("k1", "k2", "k3", "exact")
Reduction = Literal["per_sequence", "tokens_of_group", "tokens_of_batch", "constant"]
REDUCTIONS: tuple[Reduction, ...] = ("per_sequence", "tokens_of_group", "tokens_of_batch", "constant")

VARIANTS: dict[str, Method] = {
    **{name: method() for name, method in METHODS.items()},
    **{f"grpo {e}": GRPO(beta=0.3, kl=KL(estimator=e)) for e in ESTIMATORS},
    **{f"grpo {e} in the reward": GRPO(beta=0.3, kl=KL(estimator=e, placement="reward")) for e in IN_REWARD},
    **{f"grpo {r}": GRPO(reduction=r, std="batch", ddof=0) for r in REDUCTIONS},
    "grpo constant 5": GRPO(reduction="constant", constant_length=5, std="none"),
    "grpo process": GRPO(supervision="process"),
    "grpo own step": GRPO(supervision="own_step", std="none", reduction="tokens_of_batch"),
    "grpo entropy": GRPO(entropy_coef=0.2),
    "grpo corrected": GRPO(tis_cap=1.1, beta=0.3),
    "grpo dual clip": GRPO(dual_clip=1.3),
    "grpo without the truncated": GRPO(mask_truncated=True, reduction="tokens_of_group"),
    "grpo overlong": GRPO(overlong_share=0.5, std_eps=0.1),
    "gspo token": GSPO(form="token", supervision="process", dual_clip=1.0004),
    "dapo overlong": METHODS["dapo"](overlong_share=1.0),
    "gspo corrected": GSPO(tis_cap=1.1, eps_low=0.1, eps_high=0.1),
    "gspo token corrected": GSPO(form="token", tis_cap=1.1, eps_low=0.1, eps_high=0.1),
    "gspo kl": GSPO(beta=0.3, mask_truncated=True),
    "reinforce none": Reinforce(baseline="none", reduction="per_sequence"),
    "reinforce mean": Reinforce(baseline="group_mean", beta=0.3, kl=KL(placement="reward", estimator="k2")),
    "reinforce clipped": Reinforce(clip=0.2, dual_clip=1.3, reduction="tokens_of_batch", entropy_coef=0.1),
    "reinforce++ kl": METHODS["reinforce_plus_plus"](beta=0.3, kl={"placement": "reward", "estimator": "k1"}),
    "ppo kl form": PPO(form="kl", old_kl_coef=0.7, gamma=0.9, whiten_advantages=False, value_target="td"),
    "ppo value clip": PPO(value_clip=0.3, bootstrap_truncated=True, beta=0.0, entropy_coef=0.1),
    "ppo without the truncated": PPO(mask_truncated=True, dual_clip=1.3, lam=0.5),
    "ppo shared": PPO(critic="shared", value_coef=0.6),
    "ppo shared kl form": PPO(critic="shared", form="kl", value_clip=0.3, kl=KL(estimator="exact")),
    "dpo smoothed": DPO(beta=0.4, label_smoothing=0.2),
    "dpo ipo": DPO(form="ipo"),
    "reward model with margin": RewardModel(margin=True, noise=0.1),
    "sft per sequence": SFT(reduction="per_sequence"),
    "online rft per sequence": OnlineRFT(reduction="per_sequence", threshold=0.5, unique=False),
}


@cache
def models() -> dict[Role, Model]:
    policy = tiny_policy("llama", dtype=torch.float64)
    policy.add_value_head()
    assert policy.value_head is not None
    policy.value_head.double()
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(2))
    with TemporaryDirectory() as folder:
        outcome, process, critic = (
            loaded_scorer(Path(folder) / f"{seed}", kind, seed=seed)
            for seed, kind in enumerate(("sequence", "token", "token"), start=3)
        )
    for scorer in (outcome, process, critic):
        scorer.model.double()
    return {"policy": policy, "critic": critic, "outcome_reward_model": outcome, "process_reward_model": process}


@cache
def reference() -> Policy:
    return tiny_policy("llama", dtype=torch.float64, seed=9)


def drawn(method: Method) -> Batch:
    """A rollout, rankings or marked steps: rewards that tie, a flat group, two completions alike, one that failed."""
    generator = torch.Generator().manual_seed(4)
    sizes = {"preferences": (2, 3, 4, 2), "prompts": (3, 2, 4, 3)}.get(method.source().reads, (1, 1, 1, 1, 1))
    batch = ragged_batch(models()["policy"].config.vocab_size, sizes=sizes)
    rewards_E = torch.randint(0, 3, (len(batch),), generator=generator) / 2.0
    tokens_ET, mask_ET, groups = batch.tokens_ET.clone(), batch.mask_ET.clone(), batch.group_E.tolist()
    if sizes[-1] > 1:
        rewards_E[batch.group_E == len(sizes) - 1] = 0.5
        largest = [b for b, group in enumerate(groups) if group == 2 and mask_ET[b].any()]
        tokens_ET[largest[0]], mask_ET[largest[0]] = tokens_ET[largest[1]], mask_ET[largest[1]]
        rewards_E[largest[:2]] = 1.0
        rewards_E[largest[2]] = 0.0
    rewards_E[~mask_ET.any(dim=1)] = torch.nan
    ends_ET = (torch.rand(mask_ET.shape, generator=generator) < 0.5) & ~rewards_E.isnan()[:, None]
    labels_ET = torch.randint(0, 3, mask_ET.shape, generator=generator) / 2.0

    def noise(size: float) -> Tensor:
        return size * torch.randn(mask_ET.shape, generator=generator, dtype=torch.float64)

    batch = replace(batch, tokens_ET=tokens_ET, mask_ET=mask_ET, rewards_E=rewards_E.double())
    with torch.no_grad():
        said = said_by(models()["policy"], batch, TEMPERATURE, reference())
    now_ET = torch.tensor(said.logprobs, dtype=torch.float64)
    # About as far from the policy as the method's bounds are wide.
    old_ET = now_ET + noise(2 * getattr(method, "eps_high", 0.2))
    return with_given(
        batch,
        step_rewards=labels_ET.double().masked_fill(~ends_ET, torch.nan),
        old_logprobs=old_ET,
        rollout_logprobs=old_ET + noise(0.3),
        ref_logprobs=now_ET + noise(0.5),
        kl=noise(1.0).abs(),
        values=noise(1.0),
        final_values=noise(1.0)[:, 0],
        coefficients={name: coefficient.initial for name, coefficient in method.coefficients().items()},
    )


def prepared(method: Method, batch: Batch) -> Batch:
    targets_ET = method.targets(batch)
    batch = with_given(
        batch,
        advantages=method.advantages(batch).float(),
        targets=None if targets_ET is None else targets_ET.float(),
        mask_ET=method.loss_mask(batch),
    )
    return with_weights(method, batch)


@dataclass
class Example:
    batch: Batch
    losses: Mapping[str, float]
    gradients: Mapping[str, dict[str, Tensor]]


@cache
def example(name: str) -> Example:
    """A step, and by the slow formula the loss and the gradient of each model that is trained."""
    method = VARIANTS[name]
    batch = drawn(method)
    roles: list[Role] = [objective.model for objective in method.objectives()]
    said = {role: said_by(models()[role], batch, TEMPERATURE, reference()) for role in roles}
    losses = LOSSES[method.name](method, plain_step(batch), said)
    assert set(losses) == set(roles)
    gradients = {}
    for role in roles:
        forget_gradients(models()[role])
        losses[role].backward()
        gradients[role] = gradients_of(models()[role])
    return Example(batch, {role: loss.item() for role, loss in losses.items()}, gradients)


def assert_the_same(name: str, batch: Batch, limits: MicrobatchLimits) -> None:
    for objective in VARIANTS[name].objectives():
        model = models()[objective.model]
        forget_gradients(model)
        done = accumulate_gradient(model, objective, batch, TEMPERATURE, limits, reference=reference())
        assert done.tokens > 0
        assert_same_gradients(gradients_of(model), example(name).gradients[objective.model], TOLERANCE)
        assert done.loss.item() == pytest.approx(example(name).losses[objective.model], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", VARIANTS)
def test_any_cut_gives_the_gradient_of_the_formula(name: str) -> None:
    batch = prepared(VARIANTS[name], example(name).batch)
    for limits in CUTS:
        assert_the_same(name, batch, limits)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_order_of_sequences_and_groups_does_not_matter(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = example(name).batch
    shuffled = batch.select(torch.randperm(len(batch), generator=generator))
    shuffled = renumbered(shuffled, torch.randperm(len(batch.prefixes), generator=generator))
    assert_the_same(name, prepared(VARIANTS[name], shuffled), MicrobatchLimits(40, True))


def test_the_examples_have_what_makes_cuts_go_wrong() -> None:
    """LossTerms on both sides of the clip, advantages of 0, completions without a reward and cut off."""
    for name in ("grpo", "gspo", "gspo token", "ppo"):
        method: Any = VARIANTS[name]
        step = prepared(method, example(name).batch)
        assert step.rewards_E.isnan().any()
        assert step.truncated_E.any()
        with torch.no_grad():
            now_ET = torch.tensor(said_by(models()["policy"], step, TEMPERATURE).logprobs, dtype=torch.float64)
        unclipped_ET = method.surrogate(now_ET, step)[1]
        assert 0 < unclipped_ET[step.mask_ET].sum() < step.mask_ET.sum()
        assert (step["advantages"][step.mask_ET] == 0).any() == (name != "ppo")
