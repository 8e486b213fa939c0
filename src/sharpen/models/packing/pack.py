"""Packs sequences into the tensors of a micro-batch. The layout never changes a loss or a gradient.

Supported architectures get one row without padding, in which each prefix precedes its samples once:

    prefix 1 | sample | sample | prefix 2 | sample | ...
    0 .. p-1 |  p ..  |  p ..  | 0 .. q-1 |  q ..  | ...      positions

All others get padded rows of a prefix and one sample each, for the model's own forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpen.batch import Batch
from sharpen.models.packing.segments import Segment, Segments


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A prefix with some of the samples that follow it, by number, and the total of their tokens."""

    prefix: int
    samples: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """The tensors of one micro-batch of R rows of L tokens.

    Trained token n of N has the id ``target_N[n]``, is predicted at the flattened position ``source_N[n]`` of the rows,
    and is token ``t_N[n]`` of trajectory ``e_N[n]`` of the batch. ``place_N[n]`` is its own flattened position;
    ``place_N`` is None if the last tokens, which predict nothing, are left out. ``segments`` is the attention mask of a
    packed row; None for padded rows, where causal attention is already exact. ``length_RL``, which stays on the CPU, is
    the length of the sequence that each token is part of: a prefix and its sample, the longest if it has several.
    """

    input_ids_RL: Tensor
    position_ids_RL: Tensor
    length_RL: Tensor
    segments: Segments | None
    source_N: Tensor
    place_N: Tensor | None
    target_N: Tensor
    e_N: Tensor
    t_N: Tensor

    def to(self, device: torch.device) -> PackedBatch:
        return PackedBatch(
            self.input_ids_RL.to(device, non_blocking=True),
            self.position_ids_RL.to(device, non_blocking=True),
            self.length_RL,
            None if self.segments is None else self.segments.to(device),
            self.source_N.to(device, non_blocking=True),
            None if self.place_N is None else self.place_N.to(device, non_blocking=True),
            *(x.to(device, non_blocking=True) for x in (self.target_N, self.e_N, self.t_N)),
        )


def pack(batch: Batch, rows: Sequence[PackedRow], pad_id: int, *, padded: bool, with_last: bool) -> PackedBatch:
    """Build a micro-batch's tensors: ``rows`` concatenated into a single row, or each padded to the longest.

    ``with_last``: include each sample's last token, from which nothing is predicted.
    """
    spans = _spans(batch, [b for row in rows for b in row.samples])
    trained = {b: batch.mask_ET[e, start:end].nonzero().squeeze(1) for b, (e, start, end) in spans.items()}
    counts = {b: int(t_n[-1]) + with_last for b, t_n in trained.items()}
    sizes = [len(batch.prefixes[row.prefix]) + sum(counts[b] for b in row.samples) for row in rows]
    width = max(sizes) if padded else sum(sizes)
    height = len(rows) if padded else 1
    input_ids = torch.full((height * width,), pad_id, dtype=torch.long)
    # Positions run on through the padding: transformers takes a restart for a further packed sequence.
    positions = torch.arange(width).repeat(height)
    lengths = torch.zeros(height * width, dtype=torch.long)
    segments: list[Segment] = []
    source, place, trajectory, column = [], [], [], []
    end = 0
    for r, row in enumerate(rows):
        start = r * width if padded else end
        prefix = batch.prefixes[row.prefix]
        p = len(prefix)
        end = start + p
        input_ids[start:end] = prefix
        positions[start:end] = torch.arange(p)
        lengths[start : start + width if padded else end] = p + max(counts[b] for b in row.samples)
        # A prefix with a single sample forms one segment with it.
        alone = len(row.samples) == 1
        if not alone:
            segments.append(Segment(start, end))
        for b in row.samples:
            n = counts[b]
            e, first, _ = spans[b]
            input_ids[end : end + n] = batch.tokens_ET[e, first : first + n]
            positions[end : end + n] = torch.arange(p, p + n)
            if not padded:
                lengths[end : end + n] = p + n
            if alone:
                segments.append(Segment(start, end + n))
            elif n:
                segments.append(Segment(end, end + n, start, start + p))
            before = end + trained[b] - 1
            before[trained[b] == 0] = start + p - 1
            source.append(before)
            place.append(end + trained[b])
            trajectory.append(torch.full_like(trained[b], e))
            column.append(first + trained[b])
            end += n
    e_N, t_N = torch.cat(trajectory), torch.cat(column)
    return PackedBatch(
        input_ids_RL=input_ids.view(height, width),
        position_ids_RL=positions.view(height, width),
        length_RL=lengths.view(height, width),
        segments=None if padded else Segments(tuple(segments), width),
        source_N=torch.cat(source),
        place_N=torch.cat(place) if with_last else None,
        target_N=batch.tokens_ET[e_N, t_N],
        e_N=e_N,
        t_N=t_N,
    )


def _spans(batch: Batch, samples: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """The row, first column and end of each of these samples."""
    index_B = torch.tensor(samples)
    columns = (batch.samples.trajectory_B, batch.samples.start_B, batch.samples.ends(batch.tokens_ET.shape[1]))
    return {
        b: (e, start, end) for b, e, start, end in zip(samples, *(x[index_B].tolist() for x in columns), strict=True)
    }
