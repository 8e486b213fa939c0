"""How attention over the segments of a row is cut into few dense pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sharpen.models.packing.segments import Segment, Segments

BLOCK = 256
"""Queries of one block: a longer segment is several, each of which sees all of those before it."""
TILE_PAIRS = 2**18
"""Pairs of tokens of a tile, unless it is a single block: bounds the memory of their scores."""
TILE_COST = 8000
"""What one more tile costs, in pairs of the same time: some 30 calls, against padding in too large a tile."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Blocks of queries, padded to one size, with the keys before them: S blocks of c queries and p + c keys.

    The numbers are positions in the row; 0 stands in for padding. ``padding`` numbers the queries among the S · c that
    are none; ``mask_XcK`` is 0 where a query may look and −∞ where not, X being S or 1 where all blocks are alike.
    """

    query_Sc: Tensor
    key_SK: Tensor
    padding: Tensor
    mask_XcK: Tensor


@dataclass(frozen=True, slots=True)
class HeadTile:
    """The same for tensors of [L · heads, …], the blocks of each key head one after another: [S · heads · …]."""

    query: Tensor
    key: Tensor
    padding: Tensor
    mask_XcK: Tensor
    blocks: int


@dataclass(frozen=True, slots=True)
class HeadTiles:
    """All tiles, and the place of each token and head among the queries of all of them, one tile after another."""

    tiles: tuple[HeadTile, ...]
    place: Tensor


def tiles_for_heads(segments: Segments, heads: int) -> HeadTiles:
    """The tiles of a row for so many key heads, on its device."""
    length, device = segments.length, segments.device
    head = torch.arange(heads)
    place = torch.empty(length * heads, dtype=torch.long)
    made, offset = [], 0
    for tile in make_tiles(segments.segments):
        S, c = tile.query_Sc.shape
        query = (tile.query_Sc[:, None] * heads + head[:, None]).flatten()
        key = (tile.key_SK[:, None] * heads + head[:, None]).flatten()
        number = torch.arange(len(query)).view(S, heads, c)
        is_real = torch.ones(S * c, dtype=torch.bool)
        is_real[tile.padding] = False
        real = is_real.view(S, 1, c).expand(S, heads, c)
        place[query[real.flatten()]] = offset + number[real]
        offset += len(query)
        padding = number[~real]
        made.append(HeadTile(query.to(device), key.to(device), padding.to(device), tile.mask_XcK.to(device), blocks=S))
    return HeadTiles(tuple(made), place.to(device))


class _Block(NamedTuple):
    """Queries from ``start`` to ``end``, which see ``seen`` earlier tokens: those of the prompt and of the segment."""

    start: int
    end: int
    seen: int
    segment: Segment

    @property
    def queries(self) -> int:
        return self.end - self.start


def make_tiles(segments: Sequence[Segment]) -> list[Tile]:
    """Dense pieces that hold every query once. Blocks share a tile up to a padding that is worth a tile of its own."""
    blocks = [block for segment in segments for block in _blocks(segment)]
    orders = (
        sorted(blocks, key=lambda b: (-b.queries, -b.seen, b.start)),
        sorted(blocks, key=lambda b: (-b.seen, -b.queries, b.start)),
    )
    division = min((_divided(order) for order in orders), key=_cost)
    return [_tile(part) for part in division]


def _blocks(segment: Segment) -> Iterable[_Block]:
    before = segment.prompt_end - segment.prompt
    length = segment.end - segment.start
    count = -(-length // BLOCK)
    cuts = [segment.start + length * i // count for i in range(count + 1)] if count else []
    for start, end in pairwise(cuts):
        yield _Block(start, end, before + start - segment.start, segment)


def _divided(blocks: Iterable[_Block]) -> list[list[_Block]]:
    """Neighbours put together until their padding costs what one more tile would."""
    parts: list[list[_Block]] = []
    queries = seen = exact = 0
    for block in blocks:
        q, s = max(queries, block.queries), max(seen, block.seen)
        own = block.queries * (block.queries + block.seen)
        if parts:
            pairs = (len(parts[-1]) + 1) * q * (q + s)
            if pairs <= TILE_PAIRS and pairs - exact - own <= TILE_COST:
                parts[-1].append(block)
                queries, seen, exact = q, s, exact + own
                continue
        parts.append([block])
        queries, seen, exact = block.queries, block.seen, own
    return parts


def _cost(parts: Sequence[Sequence[_Block]]) -> int:
    total = 0
    for part in parts:
        queries, seen = max(b.queries for b in part), max(b.seen for b in part)
        total += TILE_COST + len(part) * queries * (queries + seen)
    return total


def _tile(blocks: Sequence[_Block]) -> Tile:
    """Keys stand as: what all queries of the block see, padded on the right, and the block itself, padded likewise."""
    c, p = max(b.queries for b in blocks), max(b.seen for b in blocks)
    step_c, step_p = torch.arange(c), torch.arange(p)
    start, queries, seen, prompt, prompt_length, begin = (
        torch.tensor(column)[:, None]
        for column in zip(
            *((b.start, b.queries, b.seen, b.segment.prompt, _prompt_length(b), b.segment.start) for b in blocks),
            strict=True,
        )
    )
    real_Sc, real_Sp = step_c < queries, step_p < seen
    query_Sc = torch.where(real_Sc, start + step_c, 0)
    seen_Sp = torch.where(step_p < prompt_length, prompt + step_p, begin + step_p - prompt_length)
    causal_cc = torch.zeros(c, c).masked_fill(step_c > step_c[:, None], float("-inf"))
    alike = bool(real_Sp.all())
    prefix_Xp = torch.zeros(1, p) if alike else torch.zeros(real_Sp.shape).masked_fill(~real_Sp, float("-inf"))
    X = len(prefix_Xp)
    return Tile(
        query_Sc=query_Sc,
        key_SK=torch.cat([torch.where(real_Sp, seen_Sp, 0), query_Sc], dim=1),
        padding=(~real_Sc).flatten().nonzero().squeeze(1),
        mask_XcK=torch.cat([prefix_Xp[:, None].expand(X, c, p), causal_cc.expand(X, c, c)], dim=2),
    )


def _prompt_length(block: _Block) -> int:
    return block.segment.prompt_end - block.segment.prompt
