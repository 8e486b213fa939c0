"""Sampling of a token by inverting the cumulative distribution at a uniform random number.

The random number depends on (seed, draw id, position) alone. A completion is therefore independent of the batch
it is computed in, and two runs with the same seed sample the same completions.
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
"""Tokens of the vocabulary that are summed together."""
_BELOW_ONE = 1.0 - 2.0**-52
"""Multiplying by this gives a slightly smaller number."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """The filters between logits and the sampled distribution: temperature, then top-k, then top-p, then min-p.

    A temperature of 0 is greedy decoding. top-k of 0, top-p of 1 and min-p of 0 are off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


FULL = Truncation()


def _mix(x: Bits) -> Bits:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection; each output bit depends on all inputs."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return np.asarray(x ^ (x >> np.uint64(31)))


def uniforms(seed: int, draw_ids: Sequence[int], length: int, offsets: Sequence[int] | None = None) -> Tensor:
    """Uniform random numbers in [0, 1) for ``length`` positions of each draw id, float64 [B, length].

    They are those of positions ``offsets[b]`` to ``offsets[b] + length − 1``, by default from 0 on. A counter-based
    generator: each number is a hash of (seed, draw id, position), so the order of generation is free.
    """
    first_B: Bits = np.asarray(offsets if offsets is not None else [0] * len(draw_ids), dtype=np.uint64)
    with np.errstate(over="ignore"):
        key = _mix(np.asarray(seed, dtype=np.uint64) + _GOLDEN)
        stream_B = _mix(_mix(np.asarray(draw_ids, dtype=np.uint64) * _GOLDEN + key) + key)
        position_BT = first_B[:, None] + np.arange(1, length + 1, dtype=np.uint64)
        counter_BT = np.asarray(position_BT * _GOLDEN, dtype=np.uint64)
        bits_BT = _mix(_mix(stream_B[:, None] + counter_BT) ^ key)
    return torch.from_numpy((bits_BT >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def sample(logits_BV: Tensor, uniform_B: Tensor, truncation: Truncation = FULL) -> tuple[Tensor, Tensor]:
    """Sample one token per row. Returns tokens and their log-probabilities in nats under the sampled distribution.

    The token is the first whose cumulative probability exceeds the uniform number. The vocabulary is summed in blocks
    first, which is faster than one long cumulative sum and has a smaller rounding error.

    Args:
        logits_BV: of the next token.
        uniform_B: in [0, 1), float64.
    """
    precise = torch.promote_types(logits_BV.dtype, torch.float32)
    if truncation.temperature == 0:
        token_B = logits_BV.argmax(dim=1)
        best_B = logits_BV.gather(1, token_B[:, None]).squeeze(1)
        # 0, or NaN if the logit is not finite.
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
    target_B = uniform_B.to(total_B.device) * total_B
    block_B = _first_above(block_edge, target_B)
    row_B = torch.arange(batch, device=logits_BV.device)
    inside = mass[row_B, block_B].double()
    before_B = block_edge[row_B, block_B] - block_mass[row_B, block_B]
    index_B = _first_above(inside.cumsum(dim=1), target_B - before_B)
    logprob_B = (inside[row_B, index_B] / total_B).log()
    return block_B * _BLOCK + index_B, logprob_B.to(precise)


def _first_above(edges: Tensor, target_B: Tensor) -> Tensor:
    """The first index whose edge exceeds the target. It always has a positive probability.

    Rounding can move a target below zero or onto the last edge; it is clamped to lie between them.
    """
    target_B = target_B.clamp(min=0.0).minimum(edges[:, -1] * _BELOW_ONE)
    return (edges <= target_B[:, None]).sum(dim=1)


def truncate(logits_BV: Tensor, truncation: Truncation) -> Tensor:
    """Logits with −∞ for tokens that top-k, top-p or min-p exclude.

    top-p keeps the smallest set of most probable tokens whose probability reaches p; min-p keeps tokens with at least
    ``min_p`` times the highest probability. The most probable token is always kept.
    """
    excluded = -torch.inf
    if 0 < truncation.top_k < logits_BV.shape[1]:
        order = logits_BV.argsort(dim=1, descending=True, stable=True)[:, truncation.top_k :]
        logits_BV = logits_BV.scatter(1, order, excluded)
    if truncation.top_p < 1.0:
        ordered, order = logits_BV.sort(dim=1, descending=True, stable=True)
        probability = ordered.softmax(dim=1)
        reached = probability.cumsum(dim=1) - probability >= truncation.top_p
        reached[:, 0] = False
        logits_BV = logits_BV.scatter(1, order, ordered.masked_fill(reached, excluded))
    if truncation.min_p > 0.0:
        floor = logits_BV.amax(dim=1, keepdim=True) + float(np.log(truncation.min_p))
        logits_BV = logits_BV.masked_fill(logits_BV < floor, excluded)
    return logits_BV
