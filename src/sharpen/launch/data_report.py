"""What data becomes: the report of `sharpen data check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sharpen.launch.spans import Span


@dataclass(frozen=True, slots=True)
class ShownSample:
    """A run of tokens: what the model reads, and what it is trained to write after it."""

    prefix: Sequence[Span]
    completion: Sequence[Span]
    trained: int


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as the model will see it: the prompt, and for each completion of the row its grade and its samples."""

    where: str
    prompt: Sequence[Span]
    completions: tuple[tuple[float | None, tuple[ShownSample, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How many texts there are, and their lengths in tokens."""

    count: int
    least: int
    median: float
    p95: int
    most: int
    total: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> TokenCounts | None:
        if not lengths:
            return None
        ordered = sorted(lengths)
        p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        return cls(len(ordered), ordered[0], median(ordered), p95, ordered[-1], sum(ordered))


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """What rows become. ``errors`` are rows at which a run would stop, ``unread`` how many they are in all.

    ``split`` counts the completions that are trained in several samples, ``dropped`` the rows that are left out as too
    long. ``use`` says what the rows are for, ``notes`` in which form they were recognised.
    """

    name: str
    use: str
    rows: int
    prompts: TokenCounts | None
    completions: TokenCounts | None
    trained: TokenCounts | None
    split: int
    dropped: int
    notes: tuple[str, ...]
    shown: tuple[ShownRow, ...]
    doubts: tuple[str, ...]
    errors: tuple[str, ...]
    unread: int


@dataclass(frozen=True, slots=True)
class DataReport:
    """``context`` is the model's, in tokens."""

    model: str
    context: int
    parts: tuple[CheckedRows, ...]

    @property
    def ok(self) -> bool:
        """Whether a run can read every row."""
        return not any(part.errors for part in self.parts)
