"""Divides a batch into micro-batches. The division never changes a loss or a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sharpen.models.packing.balance import balanced, shares
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

    def of_padded(self, rows: int, width: int) -> float:
        """FLOPs of rows that are padded to ``width`` tokens, whose attention computes every pair."""
        return rows * (width * self.per_token + width**2 * self.per_pair)


@dataclass(frozen=True, slots=True)
class Plan:
    """Micro-batches, each with its number of tokens, padding not counted, and its estimated FLOPs, padding included."""

    microbatches: tuple[tuple[PackedRow, ...], ...]
    tokens: tuple[int, ...]
    work: tuple[float, ...]

    def __iter__(self) -> Iterator[tuple[PackedRow, ...]]:
        return iter(self.microbatches)

    def __len__(self) -> int:
        return len(self.microbatches)

    def dealt(self, rank: int, ranks: int) -> Plan:
        """The share of one of several ranks: every micro-batch is dealt once, so that all ranks have similar work.

        All ranks get equally many, for they may have to compute in step: ⌈micro-batches / ranks⌉. The largest comes
        first, so that ranks in step compute similar ones; empty ones, of no rows, come last. A single rank gets the
        plan as it is. Raises ValueError if there is no such rank.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"there is no rank {rank} of {ranks}")
        if ranks == 1:
            return self
        share = sorted(shares(self.work, ranks)[rank], key=lambda i: -self.work[i])
        missing = -(-len(self) // ranks) - len(share)
        return Plan(
            tuple(self.microbatches[i] for i in share) + ((),) * missing,
            tuple(self.tokens[i] for i in share) + (0,) * missing,
            tuple(self.work[i] for i in share) + (0.0,) * missing,
        )


@dataclass(frozen=True, slots=True)
class _Task:
    """All that a plan depends on: by sequence its group and its tokens up to the last trained one, prompts by group."""

    lengths: tuple[int, ...]
    groups: tuple[int, ...]
    prompts: tuple[int, ...]
    tokens_per_microbatch: int
    shared: bool
    cost: Cost
    padded: bool
    atom: Literal["sequence", "group"]


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans micro-batches, and keeps every plan: a repeated pass over sequences of the same lengths has the same plan.

    Make one per training step, for all of its passes.
    """

    _plans: dict[_Task, Plan] = field(default_factory=dict)

    def plan(
        self,
        batch: Batch,
        *,
        tokens_per_microbatch: int,
        shared: bool,
        cost: Cost,
        padded: bool,
        atom: Literal["sequence", "group"] = "sequence",
    ) -> Plan:
        """See `plan_microbatches`."""
        assert not (shared and padded), "a padded row holds one completion"
        task = _Task(
            lengths=tuple(_trained_lengths(batch).tolist()),
            groups=tuple(batch.group_E.tolist()),
            prompts=tuple(map(len, batch.prompts)),
            tokens_per_microbatch=tokens_per_microbatch,
            shared=shared,
            cost=cost,
            padded=padded,
            atom=atom,
        )
        plan = self._plans.get(task)
        if plan is None:
            plan = self._plans[task] = _plan(task)
        return plan


def plan_microbatches(
    batch: Batch,
    *,
    tokens_per_microbatch: int,
    shared: bool,
    cost: Cost,
    padded: bool,
    atom: Literal["sequence", "group"] = "sequence",
) -> Plan:
    """Divide the sequences of a batch into as few micro-batches of rows as ``tokens_per_microbatch`` allows.

    With ``shared``, a row is a group's prompt with as many of its completions as fit; otherwise it is a prompt with one
    completion. A micro-batch only exceeds the limit if it is a single row of one completion. With the atom "group", all
    rows of a group are in the same micro-batch, which exceeds the limit if it holds that group alone.
    ``padded`` rows (`sharpen.models.packing.pack.pack`) have one completion each, count as long as the longest of their
    micro-batch, and are grouped by length. Rows without padding are grouped so that all micro-batches have similar
    FLOPs. Sequences without a trained token are left out.
    """
    return Planner().plan(
        batch, tokens_per_microbatch=tokens_per_microbatch, shared=shared, cost=cost, padded=padded, atom=atom
    )


def _plan(task: _Task) -> Plan:
    units = _units(task)
    if task.padded:
        units.sort(key=lambda rows: max((row.tokens, row.sequences) for row in rows))
        microbatches = _pack_padded(units, task.tokens_per_microbatch, task.cost)
        work = [task.cost.of_padded(len(rows), max(row.tokens for row in rows)) for rows in microbatches]
    else:
        unit_work = [sum(_row_cost(task, row) for row in rows) for rows in units]
        tokens = [sum(row.tokens for row in rows) for rows in units]
        parts = balanced(unit_work, tokens, task.tokens_per_microbatch)
        microbatches = [[row for i in part for row in units[i]] for part in parts]
        work = [sum(unit_work[i] for i in part) for part in parts]
    return Plan(
        tuple(map(tuple, microbatches)), tuple(sum(row.tokens for row in rows) for rows in microbatches), tuple(work)
    )


def _units(task: _Task) -> list[list[PackedRow]]:
    """The rows, in units that are not split between micro-batches."""
    members: dict[int, list[int]] = {}
    for b, (group, length) in enumerate(zip(task.groups, task.lengths, strict=True)):
        if length:
            members.setdefault(group, []).append(b)
    units: list[list[PackedRow]] = []
    for group, sequences in sorted(members.items()):
        prompt = task.prompts[group]
        if not task.shared:
            parts = [[b] for b in sequences]
        elif task.atom == "group":
            parts = [sequences]
        else:
            tokens = [task.lengths[b] for b in sequences]
            alone = task.cost.of(prompt, [])
            work = [task.cost.of(prompt, [length]) - alone for length in tokens]
            found = balanced(work, tokens, task.tokens_per_microbatch - prompt)
            parts = [[sequences[i] for i in part] for part in found]
        rows = [PackedRow(group, tuple(part), prompt + sum(task.lengths[b] for b in part)) for part in parts]
        units.extend([rows] if task.atom == "group" else ([row] for row in rows))
    return units


def _row_cost(task: _Task, row: PackedRow) -> float:
    return task.cost.of(task.prompts[row.group], [task.lengths[b] for b in row.sequences])


def _pack_padded(units: Sequence[Sequence[PackedRow]], tokens_per_microbatch: int, cost: Cost) -> list[list[PackedRow]]:
    """Group adjacent units, sorted by length, to minimise the cost of padding and of micro-batches: exact, by dynamic
    programming.

    Compares, for each unit, all micro-batches that end with it and keep to the limit.
    """
    widths = [max(row.tokens for row in rows) for rows in units]
    # Before unit j: the number of rows, and the FLOPs of the best division, whose last part begins with starts[j].
    rows_J = np.concatenate([[0], np.cumsum([len(rows) for rows in units], dtype=np.int64)])
    cheapest_J = np.zeros(len(units) + 1)
    starts = [0] * (len(units) + 1)
    overhead = MICROBATCH_OPERATIONS + MICROBATCH_TOKENS * cost.per_token
    for end, width in enumerate(widths, start=1):
        most = tokens_per_microbatch // width
        first = min(int(np.searchsorted(rows_J[:end], rows_J[end] - most)), end - 1)
        counts = rows_J[end] - rows_J[first:end]
        total = cheapest_J[first:end] + (overhead + counts * cost.of_padded(1, width))
        best = int(total.argmin())
        cheapest_J[end], starts[end] = total[best], first + best
    microbatches: list[list[PackedRow]] = []
    end = len(units)
    while end:
        start = starts[end]
        microbatches.append([row for rows in units[start:end] for row in rows])
        end = start
    return microbatches[::-1]


def _trained_lengths(batch: Batch) -> NDArray[np.int64]:
    """Tokens of each sequence up to its last trained one; later ones do not affect the loss. [E]"""
    mask_ET = batch.mask_ET.cpu().numpy()
    if not mask_ET.any():
        return np.zeros(len(mask_ET), dtype=np.int64)
    lengths_E = mask_ET.shape[1] - mask_ET[:, ::-1].argmax(axis=1)
    return np.where(mask_ET.any(axis=1), lengths_E, 0)
