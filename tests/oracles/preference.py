"""Losses on comparisons and step labels, pair by pair, on scalars that remember their gradient."""

import math

import torch


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def dpo(chosen, rejected, beta, label_smoothing=0.0):
    right = sigmoid(beta * chosen - beta * rejected)
    return -(1 - label_smoothing) * torch.log(right) - label_smoothing * torch.log(1 - right)


def ipo(chosen, rejected, beta):
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def ranking(scores, grades, *, margin=False, noise=0.0):
    """−1/C Σ log P(w beats l) over the C pairs of one group that are not tied, or None if there are none."""
    terms = []
    for w in range(len(scores)):
        for l in range(len(scores)):
            if math.isnan(grades[w]) or math.isnan(grades[l]) or grades[w] <= grades[l]:
                continue
            gap = scores[w] - scores[l] - (grades[w] - grades[l] if margin else 0)
            # An annotator who errs at random with probability η is right half of those times.
            terms.append(-torch.log((1 - noise) * sigmoid(gap) + noise * 0.5))
    return sum(terms) / len(terms) if terms else None


def step(score, label):
    probability = sigmoid(score)
    return -label * torch.log(probability) - (1 - label) * torch.log(1 - probability)
