"""Standard output and error that outlive their reader: what cannot be written is dropped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class LastingStream:
    """Writes to ``stream`` as long as that works, and drops what is written after.

    A terminal that was closed gives EIO, a pipe that nobody reads EPIPE; neither may end a run before its checkpoint.
    Closing does nothing, so that no reward can close the stream for everybody else.
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
    """The stream as a `LastingStream`; one that is so already, or None where a process has no such stream, stays."""
    return stream if stream is None or isinstance(stream, LastingStream) else cast(TextIO, LastingStream(stream))


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Makes ``sys.stdout`` and ``sys.stderr`` lasting, and puts back what they were."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
