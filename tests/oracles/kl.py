"""The KL estimators of one token and the divergence of two distributions, on scalars that remember their gradient."""

import torch


def k1(logprob, reference):
    return -torch.log(torch.exp(reference - logprob))


def k2(logprob, reference):
    return torch.log(torch.exp(reference - logprob)) ** 2 / 2


def k3(logprob, reference):
    r = torch.exp(reference - logprob)
    return r - torch.log(r) - 1


def weighted_k3(logprob, old, reference):
    return torch.exp(logprob) / torch.exp(torch.tensor(old, dtype=torch.float64)) * k3(logprob, reference)


def divergence(probabilities, reference):
    """Σ_v p_v log(p_v / q_v), a token of probability 0 adding nothing."""
    return sum(p * torch.log(p / q) for p, q in zip(probabilities, reference, strict=True) if p > 0)
