"""Which steps, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

MOST_SPANS = 8


def spans_of(steps: Iterable[int]) -> list[range]:
    """The steps as runs of consecutive ones."""
    ordered = sorted(set(steps))
    begins = [i for i, step in enumerate(ordered) if not i or step > ordered[i - 1] + 1]
    return [range(ordered[i], ordered[j - 1] + 1) for i, j in pairwise([*begins, len(ordered)])]


def gaps(steps: Iterable[int], last: int) -> list[range]:
    """The steps from 1 to ``last`` that are not among ``steps``."""
    edges = [0, *sorted({step for step in steps if 0 < step <= last}), last + 1]
    return [range(before + 1, after) for before, after in pairwise(edges) if after > before + 1]


def steps_in_words(spans: Sequence[range]) -> str:
    """``step 4``, or ``steps 1 to 3, 7``; of many spans the first ones and the last."""
    parts = [f"{span[0]} to {span[-1]}" if len(span) > 2 else ", ".join(map(str, span)) for span in spans]
    if len(parts) > MOST_SPANS:
        parts = [*parts[: MOST_SPANS - 1], "…", parts[-1]]
    one = len(spans) == 1 and len(spans[0]) == 1
    return f"step{'' if one else 's'} {', '.join(parts)}"
