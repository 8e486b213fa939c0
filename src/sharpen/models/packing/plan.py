"""A plan of micro-batches, and how it is dealt to ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sharpen.models.packing.balance import shares
from sharpen.models.packing.pack import PackedRow


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

    @property
    def smallest(self) -> tuple[PackedRow, ...]:
        """The smallest row by itself: what a rank computes along with the others when it has nothing to do."""
        return (min((row for rows in self.microbatches for row in rows), key=lambda row: row.tokens),)

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
