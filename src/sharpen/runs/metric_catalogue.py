"""What each metric of a run means: its title, unit, direction and what is normal.

The documentation, plots, tables, loggers and the page of a run take their words from here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from sharpen.describe import markdown_table
from sharpen.runs.metric_entries import ENTRIES, SHARE, Direction, Entry

HELD_OUT, SOURCE = "held_out/", "source/"
"""How the held-out measures, and the metrics of one of several data sources, begin."""

LOW, HIGH = "_low", "_high"
"""Endings of a held-out measure's name: the ends of its interval."""

OTHER = "Other"
"""The group of metrics that are not in the catalogue, such as those of a user's own method."""

GROUPS = (*ENTRIES, OTHER)
"""The groups in the order in which they are shown."""

_FIRST_PLACES = {group: 100 * number for number, group in enumerate(GROUPS)}
_ARROWS = {"up": "↑", "down": "↓", "none": ""}


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric says.

    ``meaning`` and ``normal`` are plain text, empty where nothing is known. ``share`` says that it is from 0 to 1 and
    shown in percent. Metrics of one ``panel`` are drawn together, and ``place`` is where in the catalogue a metric is.
    """

    title: str
    unit: str
    direction: Direction
    meaning: str
    normal: str
    group: str
    share: bool
    panel: str
    place: int


@lru_cache(maxsize=4096)
def describe(name: str) -> MetricInfo:
    """What is known of a metric. One that is not in the catalogue has its name as the title, and no direction."""
    if (found := find(name)) is not None:
        return found
    group = "Held-out" if name.startswith(HELD_OUT) else "Sources" if name.startswith(SOURCE) else OTHER
    return MetricInfo(name, "", "none", "", "", group, share=False, panel=name, place=_FIRST_PLACES[group] + 99)


def describe_measure(measure: str) -> MetricInfo:
    """What is known of a held-out measure, such as ``pass@1`` or, of a data source, ``math/pass@1``."""
    return describe(f"{HELD_OUT}{measure}")


def find(name: str) -> MetricInfo | None:
    """What the catalogue has of a metric, None if it is not there."""
    if name.startswith(HELD_OUT):
        for ending, words in ((LOW, "lower end"), (HIGH, "upper end")):
            if name.endswith(ending) and (of := _whole(name.removesuffix(ending))) is not None:
                meaning = f"{words} of the 95 % bootstrap interval over prompts of: {of.meaning}"
                return replace(of, title=f"{of.title}, {words}", meaning=meaning)
    return _whole(name)


def in_words(name: str) -> str:
    """Title, unit, meaning and what is normal of a metric, as a line of text."""
    info = describe(name)
    title = f"{info.title} ({info.unit})" if info.unit else info.title
    normal = f"Normal: {info.normal}." if info.normal else ""
    return " ".join(part for part in (f"{title}: {info.meaning}." if info.meaning else title, normal) if part)


def is_end_of_interval(name: str, names: Collection[str]) -> bool:
    """Whether a held-out measure's name is that of an end of an interval, given all names: a reward may end so too."""
    return name.startswith(HELD_OUT) and any(
        name.endswith(end) and name.removesuffix(end) in names for end in (LOW, HIGH)
    )


def catalogue() -> dict[str, MetricInfo]:
    """Everything by its name there, such as ``reward/<name>``, in the order in which it is shown."""
    return {entry.name: _info(entry, group, {}) for group, entry in _entries()}


def metrics_tables() -> str:
    """The tables of all groups, each under its heading, in Markdown."""
    return "\n".join(f"### {group}\n\n{metrics_table(group)}" for group in ENTRIES)


def metrics_table(group: str) -> str:
    """The entries of a group as a table in Markdown."""
    rows = [
        (f"`{e.name}`", e.unit, _ARROWS[e.direction], e.meaning, *([e.normal] if _has_normal(group) else []))
        for e in ENTRIES[group]
    ]
    heads = ("metric", "unit", "better", "meaning", *(["what is normal"] if _has_normal(group) else []))
    return markdown_table(heads, rows)


def _has_normal(group: str) -> bool:
    return any(entry.normal for entry in ENTRIES[group])


def _whole(name: str) -> MetricInfo | None:
    """Of all prompts together or of one source; no end of an interval."""
    if (of_all := _of_all(name)) is not None:
        return of_all
    if name.startswith(HELD_OUT):
        return _of_source(name.removeprefix(HELD_OUT), HELD_OUT, "Held-out")
    return _of_source(name.removeprefix(SOURCE), "", "Sources") if name.startswith(SOURCE) else None


def _of_all(name: str) -> MetricInfo | None:
    if (exact := _match(name)) is not None or not name.startswith(HELD_OUT):
        return exact
    # A reward model, or a method without a reward, has the metrics of its training on held-out rows too.
    of = _match(name.removeprefix(HELD_OUT))
    if of is None or of.group != "Preferences":
        return None
    title, place = f"Held-out {of.title[0].lower()}{of.title[1:]}", _FIRST_PLACES["Held-out"] + 49
    return replace(
        of, title=title, meaning=f"on held-out rows: {of.meaning}", group="Held-out", panel=title, place=place
    )


def _of_source(name: str, prefix: str, group: str) -> MetricInfo | None:
    """``<source>/<metric>``; the name of a source has no slash."""
    source, _, metric = name.partition("/")
    of = _of_all(prefix + metric) if source and metric else None
    if of is None:
        return None
    title, meaning = f"{of.title}: {source}", f"of source {source} alone: {of.meaning}"
    panel, place = f"{of.title}, by source", _FIRST_PLACES[group] + 50
    return replace(of, title=title, meaning=meaning, group=group, panel=panel, place=place)


def _entries() -> Iterator[tuple[str, Entry]]:
    return ((group, entry) for group, of_group in ENTRIES.items() for entry in of_group)


def _match(name: str) -> MetricInfo | None:
    for group, pattern, entry in _patterns():
        if (match := pattern.fullmatch(name)) is not None:
            return _info(entry, group, match.groupdict())
    return None


def _info(entry: Entry, group: str, found: Mapping[str, str]) -> MetricInfo:
    title = entry.title
    for placeholder, value in found.items():
        title = title.replace("@k", f"@{value}") if placeholder == "k" else title.replace(f"<{placeholder}>", value)
    meaning, normal = _plain(entry.meaning), _plain(entry.normal)
    return MetricInfo(
        title,
        entry.unit,
        entry.direction,
        meaning,
        normal,
        group,
        share=entry.unit == SHARE,
        panel=entry.panel or title,
        place=_FIRST_PLACES[group] + ENTRIES[group].index(entry),
    )


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str], Entry], ...]:
    """Names without a placeholder first: ``reward/mean`` is not the reward called ``mean``."""
    found = [(group, _pattern(entry.name), entry) for group, entry in _entries()]
    return tuple(sorted(found, key=lambda one: one[1].groups > 0))


def _pattern(name: str) -> re.Pattern[str]:
    text = re.sub(r"<(\w+)>", r"(?P<\1>.+)", re.escape(name))
    return re.compile(text.replace("@k", r"@(?P<k>\d+)"), re.DOTALL)


def _plain(markdown: str) -> str:
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", markdown).replace("`", "")
