"""Float64 numbers that remember how they were made, so that a plain loop has a gradient of its own."""

import random

import torch

from oracles.ragged import padded, padded_mask


def leaf(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def leaves(rows):
    return [[leaf(value) for value in row] for row in rows]


def gradient(total, rows):
    """∂total/∂rows[i][t], 0 where the total does not depend on it."""
    flat = [value for row in rows for value in row]
    found = iter(torch.autograd.grad(total + 0 * sum(flat), flat))
    return [[next(found).item() for _ in row] for row in rows]


def token_advantages(batch, seed):
    """One number per token, of both signs and now and then 0, as process rewards and critics give."""
    rng = random.Random(f"advantages {seed}")
    return [[rng.choice([0.0, *(rng.gauss(0, 1) for _ in range(9))]) for _ in row] for row in batch.policy]


def constant_advantages(batch, seed):
    rng = random.Random(f"constant {seed}")
    return [[rng.gauss(0, 1)] * len(row) for row in batch.policy]


def assert_same_terms(batch, advantages, fast, slow, *, seed=0):
    """The terms of tokens that count, and the gradient of a randomly weighted sum of them, in every token.

    ``fast(logprobs_ET, old_ET, ref_ET, advantages_ET, mask_ET)`` gives [B, T]; ``slow(logprobs, old, ref, advantages,
    mask)`` a list for one sequence, of scalars.
    """
    rng = random.Random(f"weights {seed}")
    weights = [[rng.gauss(0, 1) * counts for counts in row] for row in batch.mask]

    logprobs_ET = padded(batch.policy).requires_grad_()
    mask_ET = padded_mask(batch.mask)
    terms_ET = fast(logprobs_ET, padded(batch.old), padded(batch.reference), padded(advantages), mask_ET)
    (terms_ET * padded(weights, fill=0.0)).sum().backward()

    logprobs = leaves(batch.policy)
    terms = [slow(*rows) for rows in zip(logprobs, batch.old, batch.reference, advantages, batch.mask, strict=True)]
    total = sum(w * x for ws, xs in zip(weights, terms, strict=True) for w, x in zip(ws, xs, strict=True) if w)
    values = padded([[torch.as_tensor(x).item() for x in row] for row in terms])
    torch.testing.assert_close(terms_ET[mask_ET].detach(), values[mask_ET], rtol=1e-6, atol=1e-12)
    expected = padded(gradient(total, logprobs), fill=0.0)
    torch.testing.assert_close(logprobs_ET.grad, expected, rtol=1e-6, atol=1e-12)
