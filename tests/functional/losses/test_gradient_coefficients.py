"""−∂loss/∂log π of every loss is the closed form of its paper, before length normalisation.

The closed forms are of Python floats, token by token: ρ = π/π_old, r = π_ref/π.
"""

import math
import random

import pytest
import torch

from sharpen.functional.losses import kl, policy
from sharpen.functional.losses.preference import dpo

EPS_LOW, EPS_HIGH, BETA = 0.2, 0.28, 0.3
BOUNDS = {"eps_low": EPS_LOW, "eps_high": EPS_HIGH}


def live(ratio, advantage):
    return (advantage >= 0 and ratio <= 1 + EPS_HIGH) or (advantage < 0 and ratio >= 1 - EPS_LOW)


def tokens(seed, sequences=6, length=7, constant_advantage=False):
    rng = random.Random(seed)
    rows = []
    for _ in range(sequences):
        shared = rng.gauss(0, 1)
        for _ in range(length):
            logprob = -rng.expovariate(1)
            old = logprob + rng.choice([0.0, rng.gauss(0, 0.4)])
            advantage = shared if constant_advantage else rng.gauss(0, 1)
            rows.append((logprob, old, logprob + rng.gauss(0, 0.5), advantage))
    columns = torch.tensor(rows, dtype=torch.float64).reshape(sequences, length, 4).unbind(-1)
    return columns[0].clone().requires_grad_(), *columns[1:]


def coefficients(loss_ET, logprobs_ET):
    (gradient,) = torch.autograd.grad(loss_ET.sum(), logprobs_ET)
    return (-gradient).flatten().tolist()


def per_token(closed, *columns):
    return [closed(*token) for token in zip(*(column.flatten().tolist() for column in columns), strict=True)]


POLICY = {
    "sft, rft": (
        lambda lp, old, ref, adv: policy.policy_gradient(lp, torch.ones_like(lp)),
        lambda lp, old, ref, adv: 1.0,
    ),
    "reinforce": (
        lambda lp, old, ref, adv: policy.policy_gradient(lp, adv),
        lambda lp, old, ref, adv: adv,
    ),
    "ppo": (
        lambda lp, old, ref, adv: policy.clipped_surrogate(lp, old, adv, **BOUNDS)[0],
        lambda lp, old, ref, adv: live(math.exp(lp - old), adv) * math.exp(lp - old) * adv,
    ),
    "ppo, kl form": (
        lambda lp, old, ref, adv: policy.kl_penalised_surrogate(lp, old, adv, beta=BETA),
        lambda lp, old, ref, adv: math.exp(lp - old) * adv + BETA * (1 - math.exp(lp - old)),
    ),
    "grpo": (
        lambda lp, old, ref, adv: policy.clipped_surrogate(lp, old, adv, **BOUNDS)[0] + BETA * kl.k3(lp, ref),
        lambda lp, old, ref, adv: (
            live(math.exp(lp - old), adv) * math.exp(lp - old) * adv + BETA * (math.exp(ref - lp) - 1)
        ),
    ),
    "cispo": (
        lambda lp, old, ref, adv: policy.clipped_weight_surrogate(lp, old, adv, eps_high=EPS_HIGH)[0],
        lambda lp, old, ref, adv: min(math.exp(lp - old), 1 + EPS_HIGH) * adv,
    ),
    "k1 penalty": (lambda lp, old, ref, adv: BETA * kl.k1(lp, ref), lambda lp, old, ref, adv: -BETA),
    "k2 penalty": (lambda lp, old, ref, adv: BETA * kl.k2(lp, ref), lambda lp, old, ref, adv: BETA * (ref - lp)),
    "k3 penalty": (
        lambda lp, old, ref, adv: BETA * kl.k3(lp, ref),
        lambda lp, old, ref, adv: BETA * (math.exp(ref - lp) - 1),
    ),
    "weighted k3 penalty": (
        lambda lp, old, ref, adv: BETA * kl.weighted_k3(lp, old, ref),
        lambda lp, old, ref, adv: BETA * math.exp(lp - old) * (ref - lp),
    ),
}


@pytest.mark.parametrize("name", POLICY)
def test_of_each_token(name):
    fast, closed = POLICY[name]
    for seed in range(10):
        columns = tokens(seed)
        expected = per_token(closed, *columns)
        assert coefficients(fast(*columns), columns[0]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("surrogate", [policy.sequence_surrogate, policy.sequence_token_surrogate])
def test_of_gspo(surrogate):
    """unclipped · s_i · Â_i at every token of the sequence."""
    bounds = {"eps_low": 0.03, "eps_high": 0.04}
    clipped = 0
    for seed in range(10):
        logprobs, old, _, advantages = tokens(seed, constant_advantage=True)
        mask = torch.rand(logprobs.shape, generator=torch.Generator().manual_seed(seed)) < 0.8
        expected = []
        for i in range(len(logprobs)):
            kept = [t for t in range(logprobs.shape[1]) if mask[i, t]]
            s = math.exp(sum((logprobs[i, t] - old[i, t]).item() for t in kept) / len(kept))
            a = advantages[i, 0].item()
            is_live = s <= 1.04 if a >= 0 else s >= 0.97
            clipped += not is_live
            expected += [is_live * s * a if mask[i, t] else 0.0 for t in range(logprobs.shape[1])]
        loss, _ = surrogate(logprobs, old, advantages, mask, **bounds)
        assert coefficients(loss, logprobs) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert 0 < clipped < 60


def test_of_dpo():
    """±β·σ(−u), u = β(Σ log π/π_ref (o⁺) − Σ log π/π_ref (o⁻)), at every token of the chosen and the rejected."""
    for seed in range(10):
        logprobs, _, reference, _ = tokens(seed)
        ratios = (logprobs - reference).sum(1)
        u = [BETA * (ratios[i] - ratios[i + 3]).item() for i in range(3)]
        size = [BETA / (1 + math.exp(x)) for x in u]
        expected = [sign * size[i] for sign in (1, -1) for i in range(3) for _ in range(7)]
        found = coefficients(dpo(ratios[:3], ratios[3:], beta=BETA), logprobs)
        assert found == pytest.approx(expected, rel=1e-9)
