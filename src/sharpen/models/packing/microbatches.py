"""Divides a batch into micro-batches. The division never changes a loss or a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharpen.batch import Atom, Batch
from sharpen.models.packing.balance import balanced
from sharpen.models.packing.pack import PackedRow
from sharpen.models.packing.plan import Plan

MICROBATCH_OPERATIONS = 1e9
"""Fixed overhead of a micro-batch, as the FLOPs that take as long: 10 to 20 ms of Python and small tensors on a CPU
core."""
MICROBATCH_TOKENS = 128
"""Overhead of reading all weights once, as the tokens that take as long: with fewer, a pass is memory-bound."""
MOST_PLANS = 16
"""Plans that a planner keeps: enough for all passes of a step."""


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of a forward and backward pass per token, and per query–key pair in attention."""

    per_token: float
    per_pair: float

    def of(self, prefix: int, samples: Sequence[int]) -> float:
        """FLOPs of a prefix and the samples after it, each of which attends to the prefix and itself."""
        tokens = prefix + sum(samples)
        pairs = prefix * (prefix + 1) // 2 + sum(c * prefix + c * (c + 1) // 2 for c in samples)
        return tokens * self.per_token + pairs * self.per_pair

    def of_padded(self, rows: int, width: int) -> float:
        """FLOPs of rows that are padded to ``width`` tokens, whose attention computes every pair."""
        return rows * (width * self.per_token + width**2 * self.per_pair)


@dataclass(frozen=True, slots=True)
class _Task:
    """All that a plan depends on.

    By sample its tokens up to the last trained one, its prefix and its trajectory; by prefix its length; by trajectory
    its group.
    """

    lengths: tuple[int, ...]
    prefix_of: tuple[int, ...]
    trajectory_of: tuple[int, ...]
    prefixes: tuple[int, ...]
    groups: tuple[int, ...]
    tokens_per_microbatch: int
    shared: bool
    cost: Cost
    padded: bool
    atom: Atom

    def row(self, samples: Sequence[int]) -> PackedRow:
        """The row of a prefix and these samples after it."""
        prefix = self.prefix_of[samples[0]]
        return PackedRow(prefix, tuple(samples), self.prefixes[prefix] + sum(self.lengths[b] for b in samples))

    def work(self, row: PackedRow) -> float:
        return self.cost.of(self.prefixes[row.prefix], [self.lengths[b] for b in row.samples])


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans micro-batches, and keeps the latest plans: a repeated pass over samples of the same lengths reuses one."""

    _plans: dict[_Task, Plan] = field(default_factory=dict)

    def plan(
        self,
        batch: Batch,
        *,
        tokens_per_microbatch: int,
        shared: bool,
        cost: Cost,
        padded: bool,
        atom: Atom = "token",
    ) -> Plan:
        """Divide the samples of a batch into as few micro-batches of rows as ``tokens_per_microbatch`` allows.

        With ``shared``, a row is a prefix with as many of its samples as fit; otherwise it is a prefix with one sample.
        A micro-batch only exceeds the limit if it is a single row of one sample. With the atom "group", all rows of a
        group are in the same micro-batch, which exceeds the limit if it holds that group alone. With the atom
        "trajectory", all samples of a trajectory are, except of `cut_trajectories`. ``padded`` rows
        (`sharpen.models.packing.pack.pack`) have one sample each, count as long as the longest of their micro-batch,
        and are grouped by length. Rows without padding are grouped so that all micro-batches have similar FLOPs.
        Samples without a trained token are left out.
        """
        assert not (shared and padded), "a padded row holds one sample"
        if not batch.mask_ET.any():
            return Plan((), (), ())
        task = _Task(
            lengths=tuple(_trained_lengths(batch).tolist()),
            prefix_of=tuple(batch.samples.prefix_B.tolist()),
            trajectory_of=tuple(batch.samples.trajectory_B.tolist()),
            prefixes=tuple(map(len, batch.prefixes)),
            groups=tuple(batch.group_E.tolist()),
            tokens_per_microbatch=tokens_per_microbatch,
            shared=shared,
            cost=cost,
            padded=padded,
            atom=atom,
        )
        plan = self._plans.get(task)
        if plan is None:
            plan = self._plans[task] = _plan(task)
            while len(self._plans) > MOST_PLANS:
                del self._plans[next(iter(self._plans))]
        return plan


def cut_trajectories(batch: Batch, tokens_per_microbatch: int) -> Tensor:
    """The trajectories whose samples are too long together for one micro-batch, [E], bool."""
    lengths_B = torch.from_numpy(_trained_lengths(batch))
    prefixes = torch.tensor([len(prefix) for prefix in batch.prefixes], dtype=torch.long)
    trajectory_B, trained_B = batch.samples.trajectory_B, lengths_B > 0
    tokens_B = (lengths_B + prefixes[batch.samples.prefix_B]) * trained_B
    tokens_E = torch.zeros(len(batch), dtype=torch.long).index_add(0, trajectory_B, tokens_B)
    samples_E = torch.zeros(len(batch), dtype=torch.long).index_add(0, trajectory_B, trained_B.long())
    return (samples_E > 1) & (tokens_E > tokens_per_microbatch)


def _plan(task: _Task) -> Plan:
    units = _units(task)
    if task.padded:
        units.sort(key=lambda rows: max((row.tokens, row.samples) for row in rows))
        microbatches = _pack_padded(units, task.tokens_per_microbatch, task.cost)
        work = [task.cost.of_padded(len(rows), max(row.tokens for row in rows)) for rows in microbatches]
    else:
        unit_work = [sum(map(task.work, rows)) for rows in units]
        tokens = [sum(row.tokens for row in rows) for rows in units]
        parts = balanced(unit_work, tokens, task.tokens_per_microbatch)
        microbatches = [[row for i in part for row in units[i]] for part in parts]
        work = [sum(unit_work[i] for i in part) for part in parts]
    return Plan(
        tuple(map(tuple, microbatches)), tuple(sum(row.tokens for row in rows) for rows in microbatches), tuple(work)
    )


def _units(task: _Task) -> list[list[PackedRow]]:
    """The rows, in units that are not split between micro-batches."""
    loose, together = _kept_together(task)
    units: list[list[PackedRow]] = []
    for samples in _by(task.prefix_of, loose):
        parts = [[b] for b in samples]
        if task.shared:
            prefix = task.prefixes[task.prefix_of[samples[0]]]
            tokens = [task.lengths[b] for b in samples]
            alone = task.cost.of(prefix, [])
            work = [task.cost.of(prefix, [length]) - alone for length in tokens]
            found = balanced(work, tokens, task.tokens_per_microbatch - prefix)
            parts = [[samples[i] for i in part] for part in found]
        units.extend([task.row(part)] for part in parts)
    for unit in together:
        units.append([task.row(part) for part in (_by(task.prefix_of, unit) if task.shared else [[b] for b in unit])])
    return units


def _kept_together(task: _Task) -> tuple[list[int], list[list[int]]]:
    """The trained samples that may be in any micro-batch, and those that must be together."""
    trained = [b for b, length in enumerate(task.lengths) if length]
    if task.atom == "token":
        return trained, []
    if task.atom == "group":
        return [], _by([task.groups[e] for e in task.trajectory_of], trained)
    loose: list[int] = []
    together: list[list[int]] = []
    for samples in _by(task.trajectory_of, trained):
        tokens = sum(task.prefixes[task.prefix_of[b]] + task.lengths[b] for b in samples)
        if len(samples) == 1 or tokens > task.tokens_per_microbatch:
            loose += samples
        else:
            together.append(samples)
    return loose, together


def _by(key_B: Sequence[int], samples: Sequence[int]) -> list[list[int]]:
    """The samples in lists of equal keys, in the order of the keys."""
    found: dict[int, list[int]] = {}
    for b in samples:
        found.setdefault(key_B[b], []).append(b)
    return [found[key] for key in sorted(found)]


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
    """Tokens of each sample up to its last trained one; later ones do not affect the loss. [B]"""
    samples, width = batch.samples, batch.mask_ET.shape[1]
    # The last trained column up to each column, counted from 1; 0 if there is none.
    last_ET = np.maximum.accumulate(batch.mask_ET.cpu().numpy() * np.arange(1, width + 1), axis=1)
    start_B, end_B = samples.start_B.numpy(), samples.ends(width).numpy()
    last_B: NDArray[np.int64] = last_ET[samples.trajectory_B.numpy(), end_B - 1] - start_B
    return np.where(end_B > start_B, last_B, 0).clip(min=0)
