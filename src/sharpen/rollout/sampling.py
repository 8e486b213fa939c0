"""How one token is drawn: one uniform number, and the inverse of the cumulative distribution.

The uniform number belongs to (seed, draw id, position) alone. What a completion draws is then independent of the
batch that it is computed in, and two runs from the same seed draw the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MIX_1, _MIX_2, _GOLDEN = (np.uint64(x) for x in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15))
Bits = NDArray[np.uint64]
_BLOCK = 256
_BELOW_ONE = 1.0 - 2.0**-52
"""What is multiplied by it gets less, and nearly nothing less."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """How logits become the distribution that is sampled from: temperature, then top-k, then top-p, then min-p.

    A temperature of 0 means the most probable token. 0, 1 and 0 switch top-k, top-p and min-p off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


FULL = Truncation()


def _mix(x: Bits) -> Bits:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection whose every output bit depends on all."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return np.asarray(x ^ (x >> np.uint64(31)))


def uniforms(seed: int, draw_ids: Sequence[int], length: int) -> Tensor:
    """Uniform numbers in [0, 1) for positions 0 to length − 1 of each draw, float64 [B, length].

    A counter-based generator: each number is a hash of (seed, draw id, position), so it can be had in any order.
    """
    with np.errstate(over="ignore"):
        key = _mix(np.asarray(seed, dtype=np.uint64) + _GOLDEN)
        stream_B = _mix(_mix(np.asarray(draw_ids, dtype=np.uint64) * _GOLDEN + key) + key)
        counter_T = np.arange(1, length + 1, dtype=np.uint64) * _GOLDEN
        bits_BT = _mix(_mix(stream_B[:, None] + counter_T[None, :]) ^ key)
    return torch.from_numpy((bits_BT >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def choose(logits_BV: Tensor, uniform_B: Tensor, truncation: Truncation = FULL) -> tuple[Tensor, Tensor]:
    """Request one token per row, with its log-probability in nats under the distribution it was drawn from.

    The token is the first whose cumulative probability exceeds the uniform number. Sums are taken over blocks of the
    vocabulary first, which is faster than one long cumulative sum and rounds less.

    Args:
        logits_BV: of the next token.
        uniform_B: in [0, 1), float64.
    """
    precise = torch.promote_types(logits_BV.dtype, torch.float32)
    if truncation.temperature == 0:
        token_B = logits_BV.argmax(dim=1)
        best_B = logits_BV.gather(1, token_B[:, None]).squeeze(1)
        # 0, unless it is no number: the probability is then none either.
        return token_B, (best_B - best_B).to(precise)
    if truncation != FULL:
        logits_BV = truncate(logits_BV.to(precise) / truncation.temperature, truncation)
    batch, vocabulary = logits_BV.shape
    mass = logits_BV.softmax(dim=1, dtype=precise)
    if over := vocabulary % _BLOCK:
        mass = torch.nn.functional.pad(mass, (0, _BLOCK - over))
    mass = mass.view(batch, -1, _BLOCK)
    block_mass = mass.sum(dim=2).double()
    block_edge = block_mass.cumsum(dim=1)
    total_B = block_edge[:, -1]
    aim_B = uniform_B.to(total_B.device) * total_B
    block_B = _first_above(block_edge, aim_B)
    row_B = torch.arange(batch, device=logits_BV.device)
    inside = mass[row_B, block_B].double()
    before_B = block_edge[row_B, block_B] - block_mass[row_B, block_B]
    index_B = _first_above(inside.cumsum(dim=1), aim_B - before_B)
    logprob_B = (inside[row_B, index_B] / total_B).log()
    return block_B * _BLOCK + index_B, logprob_B.to(precise)


def _first_above(edges: Tensor, aim_B: Tensor) -> Tensor:
    """The first index whose edge exceeds the aim, which is an index that has mass.

    Rounding can let an aim fall below zero or on the last edge; it is then brought between them.
    """
    aim_B = aim_B.clamp(min=0.0).minimum(edges[:, -1] * _BELOW_ONE)
    return (edges <= aim_B[:, None]).sum(dim=1)


def truncate(logits_BV: Tensor, truncation: Truncation) -> Tensor:
    """Logits with −∞ where top-k, top-p or min-p forbid a token.

    top-p keeps the smallest set of most probable tokens that reaches p; min-p keeps tokens of at least ``min_p``
    times the highest probability. The most probable token always stays.
    """
    forbidden = -torch.inf
    if 0 < truncation.top_k < logits_BV.shape[1]:
        order = logits_BV.argsort(dim=1, descending=True, stable=True)[:, truncation.top_k :]
        logits_BV = logits_BV.scatter(1, order, forbidden)
    if truncation.top_p < 1.0:
        ordered, order = logits_BV.sort(dim=1, descending=True, stable=True)
        probability = ordered.softmax(dim=1)
        reached = probability.cumsum(dim=1) - probability >= truncation.top_p
        reached[:, 0] = False
        logits_BV = logits_BV.scatter(1, order, ordered.masked_fill(reached, forbidden))
    if truncation.min_p > 0.0:
        floor = logits_BV.amax(dim=1, keepdim=True) + float(np.log(truncation.min_p))
        logits_BV = logits_BV.masked_fill(logits_BV < floor, forbidden)
    return logits_BV
