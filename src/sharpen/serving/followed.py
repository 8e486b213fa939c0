"""A run that is looked at while it goes on: its rows so far, and what is new for each page that shows it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from sharpen.report.page.json_text import Json
from sharpen.report.page.run_data import run_facts
from sharpen.report.page.series import Totals, series_data, totals
from sharpen.runs.folder import RunFolder
from sharpen.runs.lock import is_locked
from sharpen.runs.metric_catalogue import describe
from sharpen.runs.metrics_file import Row, row_of
from sharpen.runs.steps_in_words import gaps, steps_in_words
from sharpen.serving.summary import unreadable
from sharpen.serving.tail import Tail

KEPT_PARTS = 200
"""New rows are kept in so many parts; a page that is further behind gets all rows again."""
FACTS_EVERY_S = 4.0
"""The diagnosis and the rest of a page are made anew no more often, and only if there are new rows."""


@dataclass(slots=True)
class Place:
    """How far a page has been told. ``part`` None: nothing yet."""

    part: int | None = None
    facts: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: Json


@dataclass(slots=True)
class _Facts:
    number: int = 0
    event: Event = field(default_factory=lambda: Event("page", {}))
    of: object = None
    """What they were made from; the same again gives the same facts."""
    made_s: float = float("-inf")


class Followed:
    """Shared by the pages that show a run: its file is read once for all of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tail = Tail(RunFolder(path).metrics)
        self._rows: dict[int, Row] = {}
        self._damaged = 0
        self._latest = -1
        self._before = Totals()
        self._parts: deque[tuple[int, Json]] = deque(maxlen=KEPT_PARTS)
        self._part = 0
        self._facts = _Facts()
        self._lock = threading.Lock()

    def events(self, run_id: str, place: Place) -> list[Event]:
        """What a page at ``place`` has not been told, and moves the place. It reads only what is new."""
        with self._lock:
            self._read()
            events = [Event("rows", {"id": run_id, **part}) for part in self._missed(place)]
            self._renew_facts()
            if self._facts.number != place.facts:
                place.facts = self._facts.number
                events.append(Event(self._facts.event.name, {**self._facts.event.data, "id": run_id}))
            return events

    def _read(self) -> None:
        news = self.tail.news()
        if news.again:
            self._rows.clear()
            self._latest = -1
            self._damaged = 0
        rows = [row for row in map(row_of, news.lines) if not isinstance(row, str)]
        self._damaged += len(news.lines) - len(rows)
        in_order = all(a < b for a, b in pairwise([self._latest, *(int(row["step"]) for row in rows)]))
        self._rows.update((int(row["step"]), row) for row in rows)
        self._latest = max(self._rows, default=-1)
        if news.again or not in_order:
            # Steps that were told already are gone or done again: every page gets all rows.
            self._rows = {step: self._rows[step] for step in sorted(self._rows)}
            self._parts.clear()
            self._before = totals(self._all())
            self._part += 1
        elif rows:
            self._part += 1
            self._parts.append((self._part, _described(series_data(rows, before=self._before))))
            self._before = totals(rows, self._before)

    def _missed(self, place: Place) -> list[Json]:
        told, place.part = place.part, self._part
        if told == self._part:
            return []
        if told is not None and self._parts and self._parts[0][0] <= told + 1:
            return [part for number, part in self._parts if number > told]
        return [{**_described(series_data(self._all())), "all": True}]

    def _renew_facts(self) -> None:
        """Make the facts anew if it is time and something is new."""
        of = (self._part, is_locked(self.path))
        if of == self._facts.of or time.monotonic() - self._facts.made_s < FACTS_EVERY_S:
            return
        self._facts.of, self._facts.made_s = of, time.monotonic()
        self._facts.number += 1
        try:
            facts = run_facts(self.path, self._all(), self._problems())
        # What stands in the folder is anybody's, and may lack anything; the rows are shown all the same.
        except Exception as error:  # noqa: BLE001
            self._facts.event = Event("problem", {"text": unreadable(error)})
            return
        # The page has names of its own for the runs that it shows together.
        self._facts.event = Event("page", {key: value for key, value in facts.items() if key not in ("name", "path")})

    def _problems(self) -> list[str]:
        """What is wrong with the metrics, in sentences."""
        file, found = self.tail.path, []
        if self._damaged:
            found.append(f"{file}: {self._damaged} damaged line{'s' * (self._damaged > 1)}; resuming the run mends it")
        if missing := gaps(self._rows, self._latest):
            found.append(f"{file}: no metrics of {steps_in_words(missing)}")
        return found

    def _all(self) -> list[Row]:
        return list(self._rows.values())


def _described(series: Json) -> Json:
    """A series with what the page needs to know of its metrics, which may be new to it."""
    return {"series": series, "catalogue": {name: asdict(describe(name)) for name in series["values"]}}
