"""How sequences are laid out in rows, and rows in micro-batches. No layout changes a loss or a gradient.

A packed row holds a prompt once and then several of its completions, each of which sees the prompt and itself:

    prompt | completion 1 | completion 2 | ...      positions: 0..p-1 | p.. | p.. | ...

A plain row holds a prompt and one completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sharpen.types import Batch

MICROBATCH_OPERATIONS = 1e9
"""What one more micro-batch costs besides its tokens, as floating-point operations of the same time: 10 to 20 ms of
Python and small tensors on a CPU core."""
MICROBATCH_TOKENS = 128
"""The same for reading all weights once more, as tokens: below about so many, memory is slower than the arithmetic."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Floating-point operations of a forward and backward pass: per token, and per pair of tokens in attention."""

    per_token: float
    per_pair: float


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a group's prompt and some of its sequences, by their index in the batch."""

    group: int
    sequences: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Packed:
    """The tensors of one micro-batch.

    Token n of the N that are trained on is ``target_N[n]``, predicted from the flattened position ``source_N[n]`` of
    the rows and itself standing at ``place_N[n]``; it is token ``t_N[n]`` of sequence ``b_N[n]`` of the batch.
    ``mask_R1LL`` is None for plain rows, where causal attention over a padded row is already exact.
    """

    input_ids_RL: Tensor
    position_ids_RL: Tensor
    mask_R1LL: Tensor | None
    source_N: Tensor
    place_N: Tensor
    target_N: Tensor
    b_N: Tensor
    t_N: Tensor

    def to(self, device: torch.device) -> Packed:
        moved = (None if x is None else x.to(device, non_blocking=True) for x in self._tensors())
        return Packed(*moved)  # type: ignore[arg-type]

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return (
            self.input_ids_RL,
            self.position_ids_RL,
            self.mask_R1LL,
            self.source_N,
            self.place_N,
            self.target_N,
            self.b_N,
            self.t_N,
        )


def plan(
    batch: Batch,
    *,
    tokens_per_microbatch: int,
    shared: bool,
    cost: Cost,
    atom: Literal["sequence", "group"] = "sequence",
) -> list[list[Row]]:
    """Divide the sequences of a batch into micro-batches of rows of similar length.

    A micro-batch holds at most ``tokens_per_microbatch`` tokens, padding included, or a single row; with the atom
    "group" all rows of a group are in the same one, which may then hold that group alone and exceed the limit.
    Sequences without a trained token are left out.
    """
    lengths = _trained_lengths(batch)
    members: dict[int, list[int]] = {}
    for b, group in enumerate(batch.group_B.tolist()):
        if lengths[b]:
            members.setdefault(group, []).append(b)
    uncut: list[list[Row]] = []
    for group, sequences in members.items():
        prompt = len(batch.prompts[group])
        sequences.sort(key=lambda b: (lengths[b], b))
        per_row = (
            _sequences_per_row(prompt, [lengths[b] for b in sequences], tokens_per_microbatch, cost) if shared else 1
        )
        rows = []
        for start in range(0, len(sequences), per_row):
            chosen = tuple(sequences[start : start + per_row])
            rows.append(Row(group, chosen, prompt + sum(lengths[b] for b in chosen)))
        uncut.extend([rows] if atom == "group" else ([row] for row in rows))
    uncut.sort(key=lambda rows: max((row.tokens, row.sequences) for row in rows))
    return _least_padding(uncut, tokens_per_microbatch, cost)


def _least_padding(uncut: Sequence[Sequence[Row]], tokens_per_microbatch: int, cost: Cost) -> list[list[Row]]:
    """Neighbours among units of ascending length put together so that padding and the number of parts cost least."""
    widths = [max(row.tokens for row in rows) for rows in uncut]
    # cheapest[j]: operations of the best division of the first j units, and where its last part begins.
    cheapest: list[tuple[float, int]] = [(0.0, 0)]
    once = MICROBATCH_OPERATIONS + MICROBATCH_TOKENS * cost.per_token
    for end, width in enumerate(widths, start=1):
        best, count = (float("inf"), 0), 0
        for start in range(end - 1, -1, -1):
            count += len(uncut[start])
            if width * count > tokens_per_microbatch and start < end - 1:
                break
            part = once + count * (width * cost.per_token + width**2 * cost.per_pair)
            best = min(best, (cheapest[start][0] + part, start))
        cheapest.append(best)
    microbatches: list[list[Row]] = []
    end = len(uncut)
    while end:
        start = cheapest[end][1]
        microbatches.insert(0, [row for rows in uncut[start:end] for row in rows])
        end = start
    return microbatches


def _trained_lengths(batch: Batch) -> list[int]:
    """Tokens of each sequence up to the last trained one; what comes after has no part in the loss."""
    position_T = torch.arange(1, batch.mask_BT.shape[1] + 1)
    lengths: list[int] = (batch.mask_BT.cpu() * position_T).amax(dim=1).tolist()
    return lengths


def _sequences_per_row(prompt: int, lengths: Sequence[int], tokens_per_microbatch: int, cost: Cost) -> int:
    """How many completions share a row: a longer row saves prompts but attends, masked, to more strangers."""
    mean = sum(lengths) / len(lengths)

    def total(per_row: int) -> float:
        rows = -(-len(lengths) // per_row)
        tokens = prompt + len(lengths) / rows * mean
        return rows * (tokens * cost.per_token + tokens**2 * cost.per_pair)

    fitting = [c for c in range(1, len(lengths) + 1) if prompt + c * max(lengths) <= tokens_per_microbatch]
    best = min(fitting or [1], key=total)
    return -(-len(lengths) // -(-len(lengths) // best))


def build(batch: Batch, rows: Sequence[Row], pad_id: int) -> Packed:
    """The tensors of one micro-batch of ``rows``."""
    width = max(row.tokens for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    # Positions that start anew would make transformers see several sequences in a padded plain row.
    positions = torch.arange(width).repeat(len(rows), 1)
    # 0 is the prompt, 1, 2, … the completions; padding is a stranger to all.
    segments = torch.full((len(rows), width), -1, dtype=torch.long)
    source, place, sequence, step = [], [], [], []
    for r, row in enumerate(rows):
        prompt = batch.prompts[row.group]
        p = end = len(prompt)
        input_ids[r, :p] = prompt
        segments[r, :p] = 0
        for s, b in enumerate(row.sequences, start=1):
            trained = batch.mask_BT[b].nonzero().squeeze(1)
            n = int(trained[-1]) + 1
            input_ids[r, end : end + n] = batch.tokens_BT[b, :n]
            positions[r, end : end + n] = torch.arange(p, p + n)
            segments[r, end : end + n] = s
            before = end + trained - 1
            before[trained == 0] = p - 1
            source.append(r * width + before)
            place.append(r * width + end + trained)
            sequence.append(torch.full_like(trained, b))
            step.append(trained)
            end += n
    b_N, t_N = torch.cat(sequence), torch.cat(step)
    return Packed(
        input_ids_RL=input_ids,
        position_ids_RL=positions,
        mask_R1LL=_mask(segments) if any(len(row.sequences) > 1 for row in rows) else None,
        source_N=torch.cat(source),
        place_N=torch.cat(place),
        target_N=batch.tokens_BT[b_N, t_N],
        b_N=b_N,
        t_N=t_N,
    )


def _mask(segments_RL: Tensor) -> Tensor:
    """Who sees whom: earlier tokens of the prompt and of one's own segment. Padding sees padding, to avoid 0/0."""
    width = segments_RL.shape[1]
    causal_LL = torch.ones(width, width, dtype=torch.bool).tril()
    query, key = segments_RL[:, :, None], segments_RL[:, None, :]
    return (causal_LL & ((key == query) | (key == 0)))[:, None]
