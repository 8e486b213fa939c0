"""Divides a batch into micro-batches. The division never changes a loss or a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from sharpen.models.packing.pack import PackedRow
from sharpen.types import Batch

MICROBATCH_OPERATIONS = 1e9
"""Fixed overhead of a micro-batch, as the FLOPs that take as long: 10 to 20 ms of Python and small tensors on a CPU
core."""
MICROBATCH_TOKENS = 128
"""Overhead of reading all weights once, as the tokens that take as long: with fewer, a pass is memory-bound."""


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of a forward and backward pass per token, and per query–key pair in attention."""

    per_token: float
    per_pair: float

    def of(self, prompt: int, completions: Sequence[int]) -> float:
        """FLOPs of a prompt and its completions, each of which attends to the prompt and itself."""
        tokens = prompt + sum(completions)
        pairs = prompt * (prompt + 1) // 2 + sum(c * prompt + c * (c + 1) // 2 for c in completions)
        return tokens * self.per_token + pairs * self.per_pair


def plan_microbatches(
    batch: Batch,
    *,
    tokens_per_microbatch: int,
    shared: bool,
    cost: Cost,
    padded: bool,
    atom: Literal["sequence", "group"] = "sequence",
) -> list[list[PackedRow]]:
    """Divide the sequences of a batch into as few micro-batches of rows as ``tokens_per_microbatch`` allows.

    With ``shared``, a row is a group's prompt with as many of its completions as fit; otherwise it is a prompt with one
    completion. A micro-batch only exceeds the limit if it is a single row of one completion. With the atom "group", all
    rows of a group are in the same micro-batch, which exceeds the limit if it holds that group alone.
    ``padded`` rows (`sharpen.models.packing.pack.pack`) have one completion each, count as long as the longest of their
    micro-batch, and are grouped by length. Rows without padding are grouped so that all micro-batches have similar
    FLOPs. Sequences without a trained token are left out.
    """
    assert not (shared and padded), "a padded row holds one completion"
    lengths = _trained_lengths(batch)
    members: dict[int, list[int]] = {}
    for b, group in enumerate(batch.group_E.tolist()):
        if lengths[b]:
            members.setdefault(group, []).append(b)
    units: list[list[PackedRow]] = []
    for group, sequences in sorted(members.items()):
        prompt = len(batch.prompts[group])
        if not shared:
            parts = [[b] for b in sequences]
        elif atom == "group":
            parts = [sequences]
        else:
            work = [cost.of(prompt, [lengths[b]]) - cost.of(prompt, []) for b in sequences]
            tokens = [lengths[b] for b in sequences]
            parts = [[sequences[i] for i in part] for part in balanced(work, tokens, tokens_per_microbatch - prompt)]
        rows = [PackedRow(group, tuple(part), prompt + sum(lengths[b] for b in part)) for part in parts]
        units.extend([rows] if atom == "group" else ([row] for row in rows))
    if padded:
        units.sort(key=lambda rows: max((row.tokens, row.sequences) for row in rows))
        return _pack_padded(units, tokens_per_microbatch, cost)
    work = [
        sum(cost.of(len(batch.prompts[row.group]), [lengths[b] for b in row.sequences]) for row in rows)
        for rows in units
    ]
    tokens = [sum(row.tokens for row in rows) for rows in units]
    return [[row for i in part for row in units[i]] for part in balanced(work, tokens, tokens_per_microbatch)]


def balanced(work: Sequence[float], tokens: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Divide items into parts of similar work, each of at most ``most_tokens`` tokens or one item: indices, ascending.

    Greedy, largest first: each item goes to the part with the least work among those with room. The number of parts is
    the smallest for which this succeeds.
    """
    order = sorted(range(len(work)), key=lambda i: (-work[i], i))
    least = -(-sum(min(t, max(1, most_tokens)) for t in tokens) // max(1, most_tokens))
    for count in range(max(1, least), len(order) + 1):
        parts: list[list[int]] = [[] for _ in range(count)]
        sums, room = [0.0] * count, [most_tokens] * count
        for i in order:
            open_parts = [p for p in range(count) if tokens[i] <= room[p] or not parts[p]]
            if not open_parts:
                break
            best = min(open_parts, key=lambda p: (sums[p], p))
            parts[best].append(i)
            sums[best] += work[i]
            room[best] -= tokens[i]
        else:
            return [sorted(part) for part in parts]
    return []


def _pack_padded(units: Sequence[Sequence[PackedRow]], tokens_per_microbatch: int, cost: Cost) -> list[list[PackedRow]]:
    """Group adjacent units, sorted by length, to minimise the cost of padding and of micro-batches: exact, by dynamic
    programming."""
    widths = [max(row.tokens for row in rows) for rows in units]
    # cheapest[j]: FLOPs of the best division of the first j units, and the start of its last part.
    cheapest: list[tuple[float, int]] = [(0.0, 0)]
    overhead = MICROBATCH_OPERATIONS + MICROBATCH_TOKENS * cost.per_token
    for end, width in enumerate(widths, start=1):
        best, count = (float("inf"), 0), 0
        for start in range(end - 1, -1, -1):
            count += len(units[start])
            if width * count > tokens_per_microbatch and start < end - 1:
                break
            part = overhead + count * (width * cost.per_token + width**2 * cost.per_pair)
            best = min(best, (cheapest[start][0] + part, start))
        cheapest.append(best)
    microbatches: list[list[PackedRow]] = []
    end = len(units)
    while end:
        start = cheapest[end][1]
        microbatches.insert(0, [row for rows in units[start:end] for row in rows])
        end = start
    return microbatches


def _trained_lengths(batch: Batch) -> list[int]:
    """Tokens of each sequence up to its last trained one; later ones do not affect the loss."""
    position_T = torch.arange(1, batch.mask_ET.shape[1] + 1)
    lengths: list[int] = (batch.mask_ET.cpu() * position_T).amax(dim=1).tolist()
    return lengths
