"""What is new in runs, as server-sent events: new rows within a second, fresh findings every few."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, StreamingResponse

from sharpen.report.page.json_text import json_text
from sharpen.serving.folder import FoundRun
from sharpen.serving.followed import Event, Followed, Place

POLL_S = 1.0
HEARTBEAT_S = 10.0
"""A comment is sent after so long without news, which is how a client that has gone is noticed."""
MOST_STREAMS = 32
"""Browsers open six to a host; more than a few people's are somebody's mistake."""

LOOKS_PER_POLL = 5
"""So often a stream sees whether it has to end."""


class Live:
    """The runs that are followed, each once however many pages show it, and the number of streams."""

    def __init__(
        self, still_served: Callable[[str], bool], ending: Callable[[], bool], most: int = MOST_STREAMS
    ) -> None:
        """``ending`` says that the server stops: its streams, which have no end of their own, then end."""
        self.streams = 0
        self.ending = ending
        self.most = most
        self.still_served = still_served
        self._followed: dict[str, tuple[Followed, int]] = {}

    def response(self, runs: Sequence[FoundRun]) -> Events:
        return Events(self, runs)

    @contextmanager
    def following(self, runs: Sequence[FoundRun]) -> Iterator[list[tuple[str, Followed]]]:
        """The runs, followed for as long as this lasts. In the event loop's thread, which needs no lock."""
        self.streams += 1
        for run in runs:
            followed, count = self._followed.get(run.id) or (Followed(run.path), 0)
            self._followed[run.id] = (followed, count + 1)
        try:
            yield [(run.id, self._followed[run.id][0]) for run in runs]
        finally:
            self.streams -= 1
            for run in runs:
                followed, count = self._followed.pop(run.id)
                if count > 1:
                    self._followed[run.id] = (followed, count - 1)


class Events(StreamingResponse):
    """A stream of events, or a refusal where too many are open."""

    def __init__(self, live: Live, runs: Sequence[FoundRun]) -> None:
        self._live, self._runs = live, runs
        super().__init__(self._stream(), media_type="text/event-stream")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._live.streams >= self._live.most:
            refused = PlainTextResponse(f"{self._live.most} pages are followed already", status_code=503)
            await refused(scope, receive, send)
            return
        with self._live.following(self._runs) as self._followed:
            await super().__call__(scope, receive, send)

    async def _stream(self) -> AsyncIterator[str]:
        places = [(run_id, followed, Place()) for run_id, followed in self._followed]
        sent_s = time.monotonic()
        # How long a browser waits before it connects again.
        yield "retry: 3000\n\n"
        while True:
            for run_id, followed, place in places:
                # In a thread: reading takes a moment, and the server has others to answer.
                for event in await run_in_threadpool(self._news, run_id, followed, place):
                    yield f"event: {event.name}\ndata: {json_text(event.data)}\n\n"
                    sent_s = time.monotonic()
            if time.monotonic() - sent_s > HEARTBEAT_S:
                yield ": still here\n\n"
                sent_s = time.monotonic()
            for _ in range(LOOKS_PER_POLL):
                if self._live.ending():
                    return
                await asyncio.sleep(POLL_S / LOOKS_PER_POLL)

    def _news(self, run_id: str, followed: Followed, place: Place) -> list[Event]:
        return followed.events(run_id, place) if self._live.still_served(run_id) else []
