"""Divides a batch into micro-batches. The division never changes a loss or a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpen.batch import Atom, Batch
from sharpen.models.packing.pack import PackedRow

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


@dataclass(frozen=True, slots=True)
class Plan:
    """Micro-batches, each with its number of tokens."""

    microbatches: tuple[tuple[PackedRow, ...], ...]
    tokens: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[PackedRow, ...]]:
        return iter(self.microbatches)

    def __len__(self) -> int:
        return len(self.microbatches)

    @property
    def smallest(self) -> tuple[PackedRow, ...]:
        """The smallest row by itself: what a rank computes that has nothing to do."""
        return (min((row for rows in self.microbatches for row in rows), key=lambda row: row.tokens),)

    def dealt(self, rank: int, ranks: int) -> Plan:
        """The share of one of several ranks, of as many micro-batches for each; empty ones come last."""
        each = -(-len(self) // ranks)
        mine, tokens = self.microbatches[rank::ranks], self.tokens[rank::ranks]
        missing = each - len(mine)
        return Plan(mine + ((),) * missing, tokens + (0,) * missing)


def plan_microbatches(
    batch: Batch,
    *,
    tokens_per_microbatch: int,
    shared: bool,
    cost: Cost,
    padded: bool,
    atom: Atom = "token",
) -> Plan:
    """Divide the samples of a batch into as few micro-batches of rows as ``tokens_per_microbatch`` allows.

    With ``shared``, a row is a prefix with as many of its samples as fit; otherwise it is a prefix with one sample. A
    micro-batch only exceeds the limit if it is a single row of one sample. With the atom "group", all rows of a group
    are in the same micro-batch, which exceeds the limit if it holds that group alone. With the atom "trajectory", all
    samples of a trajectory are, except of `cut_trajectories`. ``padded`` rows (`sharpen.models.packing.pack.pack`) have
    one sample each, count as long as the longest of their micro-batch, and are grouped by length. Rows without padding
    are grouped so that all micro-batches have similar FLOPs. Samples without a trained token are left out.
    """
    assert not (shared and padded), "a padded row holds one sample"
    lengths, prefixes = _trained_lengths(batch), batch.samples.prefix_B.tolist()
    loose, together = _kept_together(batch, lengths, atom, tokens_per_microbatch)

    def row(members: Sequence[int]) -> PackedRow:
        prefix = prefixes[members[0]]
        return PackedRow(prefix, tuple(members), len(batch.prefixes[prefix]) + sum(lengths[b] for b in members))

    units: list[list[PackedRow]] = []
    for members in _by(prefixes, loose):
        parts = [[b] for b in members]
        if shared:
            prefix = len(batch.prefixes[prefixes[members[0]]])
            work = [cost.of(prefix, [lengths[b]]) - cost.of(prefix, []) for b in members]
            tokens = [lengths[b] for b in members]
            parts = [[members[i] for i in part] for part in balanced(work, tokens, tokens_per_microbatch - prefix)]
        units.extend([row(part)] for part in parts)
    for unit in together:
        units.append([row(part) for part in (_by(prefixes, unit) if shared else [[b] for b in unit])])
    if padded:
        units.sort(key=lambda rows: max((row.tokens, row.samples) for row in rows))
        return _plan(_pack_padded(units, tokens_per_microbatch, cost))
    work = [
        sum(cost.of(len(batch.prefixes[row.prefix]), [lengths[b] for b in row.samples]) for row in rows)
        for rows in units
    ]
    tokens = [sum(row.tokens for row in rows) for rows in units]
    return _plan([[row for i in part for row in units[i]] for part in balanced(work, tokens, tokens_per_microbatch)])


def _plan(parts: Sequence[Sequence[PackedRow]]) -> Plan:
    return Plan(tuple(map(tuple, parts)), tuple(sum(row.tokens for row in rows) for rows in parts))


def cut_trajectories(batch: Batch, tokens_per_microbatch: int) -> Tensor:
    """The trajectories whose samples are too long together for one micro-batch, [E], bool."""
    lengths = torch.tensor(_trained_lengths(batch), dtype=torch.long)
    prefix_P = torch.tensor([len(prefix) for prefix in batch.prefixes], dtype=torch.long)
    trajectory_B, trained_B = batch.samples.trajectory_B, lengths > 0
    tokens_B = (lengths + prefix_P[batch.samples.prefix_B]) * trained_B
    tokens_E = torch.zeros(len(batch), dtype=torch.long).index_add(0, trajectory_B, tokens_B)
    samples_E = torch.zeros(len(batch), dtype=torch.long).index_add(0, trajectory_B, trained_B.long())
    return (samples_E > 1) & (tokens_E > tokens_per_microbatch)


def _kept_together(
    batch: Batch, lengths: Sequence[int], atom: Atom, tokens_per_microbatch: int
) -> tuple[list[int], list[list[int]]]:
    """The trained samples that may be in any micro-batch, and those that must be together."""
    trained = [b for b, length in enumerate(lengths) if length]
    if atom == "token":
        return trained, []
    trajectories = batch.samples.trajectory_B.tolist()
    if atom == "group":
        groups = batch.group_E.tolist()
        return [], _by([groups[e] for e in trajectories], trained)
    cut = cut_trajectories(batch, tokens_per_microbatch).tolist()
    loose: list[int] = []
    together: list[list[int]] = []
    for members in _by(trajectories, trained):
        if len(members) == 1 or cut[trajectories[members[0]]]:
            loose += members
        else:
            together.append(members)
    return loose, together


def _by(key_B: Sequence[int], samples: Sequence[int]) -> list[list[int]]:
    """The samples in lists of equal keys, in the order of the keys."""
    found: dict[int, list[int]] = {}
    for b in samples:
        found.setdefault(key_B[b], []).append(b)
    return [found[key] for key in sorted(found)]


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
    """Tokens of each sample up to its last trained one; later ones do not affect the loss."""
    samples, width = batch.samples, batch.mask_ET.shape[1]
    column_T = torch.arange(width)
    start_B1, end_B1 = samples.start_B[:, None], samples.ends(width)[:, None]
    inside_BT = (column_T >= start_B1) & (column_T < end_B1) & batch.mask_ET.cpu()[samples.trajectory_B]
    lengths: list[int] = (inside_BT * (column_T + 1 - start_B1)).amax(dim=1).tolist()
    return lengths
