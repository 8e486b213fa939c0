"""The metrics that a run logs: their units, which way is better, what they mean and what is normal."""

from sharpen.runs.metric_entries.completions import COMPLETIONS
from sharpen.runs.metric_entries.cost import COST
from sharpen.runs.metric_entries.entry import SHARE, Direction, Entry
from sharpen.runs.metric_entries.health import HEALTH
from sharpen.runs.metric_entries.quality import QUALITY

ENTRIES: dict[str, tuple[Entry, ...]] = {**QUALITY, **HEALTH, **COMPLETIONS, **COST}
"""All metrics by their group, in the order in which they are shown."""
__all__ = ["ENTRIES", "SHARE", "Direction", "Entry"]
