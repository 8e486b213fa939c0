"""Attention over the segments of a packed row as a small number of dense tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sharpen.models.packing.segments import Segment, Segments

BLOCK = 256
"""Queries per block. A longer segment is split into several, each of which attends to all earlier ones."""
TILE_PAIRS = 2**18
"""Maximum query–key pairs of a tile of several blocks; bounds the memory of its scores."""
TILE_COST = 8000
"""Overhead of a tile of about 30 calls, as the number of query–key pairs that take as long."""


@dataclass(frozen=True, slots=True)
class Tile:
    """S query blocks padded to the same size: c queries and K = p + c keys each, p being the keys before the block.

    Queries and keys are positions in the row, with 0 for padding. ``padding`` are the indices of padding among the
    S · c queries. ``mask_XcK`` is 0 where a query may attend and −∞ elsewhere; X is S, or 1 if all blocks share a mask.
    """

    query_Sc: Tensor
    key_SK: Tensor
    padding: Tensor
    mask_XcK: Tensor


@dataclass(frozen=True, slots=True)
class HeadTile:
    """A tile for tensors of [L · heads, …], with the KV heads of each block one after another: [S · heads · …]."""

    query: Tensor
    key: Tensor
    padding: Tensor
    mask_XcK: Tensor
    blocks: int


@dataclass(frozen=True, slots=True)
class HeadTiles:
    """All tiles. ``place`` is the index of each token and head among the concatenated queries of all tiles."""

    tiles: tuple[HeadTile, ...]
    place: Tensor


def tiles_for_heads(segments: Segments, heads: int) -> HeadTiles:
    """The tiles of a row for so many KV heads, on the row's device."""
    length, device = segments.length, segments.device
    head = torch.arange(heads)
    place = torch.empty(length * heads, dtype=torch.long)
    head_tiles, offset = [], 0
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
        head_tiles.append(
            HeadTile(query.to(device), key.to(device), padding.to(device), tile.mask_XcK.to(device), blocks=S)
        )
    return HeadTiles(tuple(head_tiles), place.to(device))


class _QueryBlock(NamedTuple):
    """Queries ``start`` to ``end``, which attend to ``earlier`` tokens before them, of the prompt and the segment."""

    start: int
    end: int
    earlier: int
    segment: Segment

    @property
    def queries(self) -> int:
        return self.end - self.start


def make_tiles(segments: Sequence[Segment]) -> list[Tile]:
    """Tiles that hold every query once. Blocks share a tile while their padding costs less than another tile."""
    blocks = [block for segment in segments for block in _blocks(segment)]
    orders = (
        sorted(blocks, key=lambda b: (-b.queries, -b.earlier, b.start)),
        sorted(blocks, key=lambda b: (-b.earlier, -b.queries, b.start)),
    )
    grouping = min((_grouped(order) for order in orders), key=_cost)
    return [_tile(group) for group in grouping]


def _blocks(segment: Segment) -> Iterable[_QueryBlock]:
    before = segment.prompt_end - segment.prompt
    length = segment.end - segment.start
    count = -(-length // BLOCK)
    cuts = [segment.start + length * i // count for i in range(count + 1)] if count else []
    for start, end in pairwise(cuts):
        yield _QueryBlock(start, end, before + start - segment.start, segment)


def _grouped(blocks: Iterable[_QueryBlock]) -> list[list[_QueryBlock]]:
    """Group adjacent blocks until their padding would cost more than another tile."""
    groups: list[list[_QueryBlock]] = []
    queries = earlier = exact = 0
    for block in blocks:
        q, s = max(queries, block.queries), max(earlier, block.earlier)
        own = block.queries * (block.queries + block.earlier)
        if groups:
            pairs = (len(groups[-1]) + 1) * q * (q + s)
            if pairs <= TILE_PAIRS and pairs - exact - own <= TILE_COST:
                groups[-1].append(block)
                queries, earlier, exact = q, s, exact + own
                continue
        groups.append([block])
        queries, earlier, exact = block.queries, block.earlier, own
    return groups


def _cost(groups: Sequence[Sequence[_QueryBlock]]) -> int:
    total = 0
    for group in groups:
        queries, earlier = max(b.queries for b in group), max(b.earlier for b in group)
        total += TILE_COST + len(group) * queries * (queries + earlier)
    return total


def _tile(blocks: Sequence[_QueryBlock]) -> Tile:
    """Each block's keys are the tokens before it, padded on the right, followed by the block itself, padded too."""
    c, p = max(b.queries for b in blocks), max(b.earlier for b in blocks)
    step_c, step_p = torch.arange(c), torch.arange(p)
    start, queries, earlier, prompt, prompt_length, begin = (
        torch.tensor(column)[:, None]
        for column in zip(
            *((b.start, b.queries, b.earlier, b.segment.prompt, _prompt_length(b), b.segment.start) for b in blocks),
            strict=True,
        )
    )
    real_Sc, real_Sp = step_c < queries, step_p < earlier
    query_Sc = torch.where(real_Sc, start + step_c, 0)
    earlier_Sp = torch.where(step_p < prompt_length, prompt + step_p, begin + step_p - prompt_length)
    causal_cc = torch.zeros(c, c).masked_fill(step_c > step_c[:, None], float("-inf"))
    full = bool(real_Sp.all())
    prefix_Xp = torch.zeros(1, p) if full else torch.zeros(real_Sp.shape).masked_fill(~real_Sp, float("-inf"))
    X = len(prefix_Xp)
    return Tile(
        query_Sc=query_Sc,
        key_SK=torch.cat([torch.where(real_Sp, earlier_Sp, 0), query_Sc], dim=1),
        padding=(~real_Sc).flatten().nonzero().squeeze(1),
        mask_XcK=torch.cat([prefix_Xp[:, None].expand(X, c, p), causal_cc.expand(X, c, c)], dim=2),
    )


def _prompt_length(block: _QueryBlock) -> int:
    return block.segment.prompt_end - block.segment.prompt
