"""A file that another process appends lines to: what is new in it, without reading the rest again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

BLOCK_BYTES = 1 << 20
MOST_LINE_BYTES = 16 << 20
"""A longer line is passed over."""
KNOWN_BYTES = 64
"""So many bytes before the place reached are compared, to see whether it is still the same file."""


@dataclass(frozen=True, slots=True)
class News:
    lines: list[bytes]
    again: bool = False
    """Whether the file was replaced, cut or removed, so that ``lines`` begin with its first."""


class Tail:
    """Remembers how far it has read. ``bytes_read`` counts what that took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        self._file: tuple[int, int] | None = None
        self._looks: tuple[int, int] | None = None
        self._at = 0
        self._known = self._partial = b""
        self._too_long = False

    def news(self) -> News:
        """The whole lines since the last call. A file that is not there has none."""
        try:
            stream = FileIO(self.path)
        except FileNotFoundError:
            again = self._file is not None
            self._forget()
            return News([], again)
        with stream:
            status = os.fstat(stream.fileno())
            file, looks = (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)
            if (file, looks) == (self._file, self._looks):
                return News([])
            again = self._file is not None and not (
                file == self._file and status.st_size >= self._at and self._is_known(stream)
            )
            if again:
                self._forget()
            self._file, self._looks = file, looks
            return News(self._new_lines(stream), again)

    def _forget(self) -> None:
        self._file = self._looks = None
        self._at = 0
        self._known = self._partial = b""
        self._too_long = False

    def _is_known(self, stream: FileIO) -> bool:
        stream.seek(self._at - len(self._known))
        return self._read(stream, len(self._known)) == self._known

    def _new_lines(self, stream: FileIO) -> list[bytes]:
        stream.seek(self._at)
        lines: list[bytes] = []
        while block := self._read(stream, BLOCK_BYTES):
            self._at += len(block)
            self._known = (self._known + block)[-KNOWN_BYTES:]
            *whole, rest = block.split(b"\n")
            if whole:
                first, self._partial = self._partial + whole[0], b""
                lines += whole[1:] if self._too_long else [first, *whole[1:]]
                self._too_long = False
            self._partial += rest
            if len(self._partial) > MOST_LINE_BYTES:
                self._partial, self._too_long = b"", True
        return lines

    def _read(self, stream: FileIO, count: int) -> bytes:
        block = stream.read(count) or b""
        self.bytes_read += len(block)
        return block
