"""The GRPO loss of a whole step (DeepSeekMath eq. 3 and 4) and its gradient.

ρ = π_θ/π_old,  r = π_ref/π_θ
loss = −reduce( min[ρÂ, clip(ρ, 1−ε_low, 1+ε_high)Â] − β (r − log r − 1) )
"""

import math

from oracles import reduction


def clip(value, low, high):
    return max(low, min(high, value))


def surrogate_term(logprob, old_logprob, advantage, eps_low, eps_high):
    ratio = math.exp(logprob - old_logprob)
    return min(ratio * advantage, clip(ratio, 1 - eps_low, 1 + eps_high) * advantage)


def is_live(logprob, old_logprob, advantage, eps_low, eps_high):
    ratio = math.exp(logprob - old_logprob)
    return ratio <= 1 + eps_high if advantage >= 0 else ratio >= 1 - eps_low


def k3(logprob, ref_logprob):
    ratio = math.exp(ref_logprob - logprob)
    return ratio - math.log(ratio) - 1


def gradient_coefficient(logprob, old_logprob, ref_logprob, advantage, *, eps_low, eps_high, beta):
    """live·ρ·Â + β(r − 1), what ∇ log π_θ is multiplied with before the reduction."""
    coefficient = beta * (math.exp(ref_logprob - logprob) - 1)
    if is_live(logprob, old_logprob, advantage, eps_low, eps_high):
        coefficient += math.exp(logprob - old_logprob) * advantage
    return coefficient


def loss(logprobs, batch, advantages, *, eps_low, eps_high, beta, reduce):
    terms = []
    for i in range(len(logprobs)):
        row = []
        for t in range(len(logprobs[i])):
            surrogate = surrogate_term(logprobs[i][t], batch.old[i][t], advantages[i], eps_low, eps_high)
            row.append(surrogate - beta * k3(logprobs[i][t], batch.reference[i][t]))
        terms.append(row)
    return -reduce(terms, batch.mask, batch.groups)


def loss_gradient(logprobs, batch, advantages, *, eps_low, eps_high, beta, reduce):
    """∂loss/∂log π_θ of each token, in closed form."""
    weights = reduction.weights(reduce, batch.mask, batch.groups)
    gradient = []
    for i in range(len(logprobs)):
        row = []
        for t in range(len(logprobs[i])):
            coefficient = gradient_coefficient(
                logprobs[i][t],
                batch.old[i][t],
                batch.reference[i][t],
                advantages[i],
                eps_low=eps_low,
                eps_high=eps_high,
                beta=beta,
            )
            row.append(-weights[i][t] * coefficient)
        gradient.append(row)
    return gradient
