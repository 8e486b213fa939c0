"""Standard output and error that survive the loss of their reader: failed writes are dropped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class LastingStream:
    """Writes to ``stream``, and drops whatever cannot be written.

    A closed terminal gives EIO, a pipe without a reader EPIPE; neither may end a run before its checkpoint. ``close``
    does nothing, so that no reward can close the stream for the rest of the process.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            if not self._stream.closed:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            if not self._stream.closed:
                self._stream.flush()

    def close(self) -> None:
        return


def lasting(stream: TextIO) -> TextIO:
    """Wrap ``stream`` in a `LastingStream`, unless it is one already or None (the process has no such stream)."""
    return stream if stream is None or isinstance(stream, LastingStream) else cast(TextIO, LastingStream(stream))


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Make ``sys.stdout`` and ``sys.stderr`` lasting, and restore them on exit."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
