"""Random steps of training with everything that makes reductions go wrong, and their way into tensors."""

import math
import random
from dataclasses import dataclass

import torch


@dataclass
class Ragged:
    policy: list[list[float]]
    old: list[list[float]]
    reference: list[list[float]]
    mask: list[list[bool]]
    groups: list[int]
    rewards: list[float]


def random_rewards(rng, size):
    kind = rng.choice(["equal", "binary", "any", "any", "missing"])
    if kind == "equal":
        return [rng.choice([0.0, 1.0, 0.1])] * size
    if kind == "binary":
        return [float(rng.random() < 0.5) for _ in range(size)]
    rewards = [rng.gauss(0, 2) for _ in range(size)]
    if kind == "missing":
        rewards = [math.nan if rng.random() < 0.5 else reward for reward in rewards]
    return rewards


def ragged(seed, longest=7):
    """Interleaved groups of 2 to 6 sequences of 1 to ``longest`` tokens; some of these are masked."""
    rng = random.Random(seed)
    groups, rewards = [], []
    for group in range(rng.randint(1, 5)):
        size = rng.randint(2, 6)
        groups += [group] * size
        rewards += random_rewards(rng, size)
    order = rng.sample(range(len(groups)), len(groups))
    lengths = [rng.choice([1, longest, rng.randint(1, longest)]) for _ in order]
    share_kept = [rng.choice([0.0, 0.6, 1.0, 1.0, 1.0]) for _ in order]
    # A step without a single token to train on has no loss.
    share_kept[0] = 1.0
    policy = [[-rng.expovariate(0.7) for _ in range(length)] for length in lengths]
    return Ragged(
        policy=policy,
        old=[[logprob + rng.choice([0.0, rng.gauss(0, 0.4)]) for logprob in row] for row in policy],
        reference=[[logprob + rng.gauss(0, 0.5) for logprob in row] for row in policy],
        mask=[[rng.random() < share for _ in row] for row, share in zip(policy, share_kept, strict=True)],
        groups=[groups[i] for i in order],
        rewards=[rewards[i] for i in order],
    )


def padded(rows, fill=-2.5):
    """A tensor of the rows. The fill could be a log-probability: only a mask can tell it from a token."""
    longest = max(len(row) for row in rows)
    filled = [list(row) + [fill] * (longest - len(row)) for row in rows]
    return torch.tensor(filled, dtype=torch.float64)


def padded_mask(mask):
    return padded(mask, fill=0).bool()
