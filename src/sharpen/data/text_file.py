"""The text of a data file: its lines one after another, and any part of it again by its place."""

from __future__ import annotations

import codecs
import gzip
import os
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from sharpen.errors import DataError

PIECE_BYTES = 1 << 20
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a file begins with whose text is not UTF-8; that of UTF-32 begins with that of UTF-16."""


class TextFile:
    """The text of a file as UTF-8, or as the mark at its beginning says; unpacked if its name ends in ``.gz``.

    A plain file of UTF-8 stays on the disk, and is read where it is asked for: it is an error if it changes meanwhile.
    The text of any other is in memory.
    """

    def __init__(self, path: Path) -> None:
        """Raises DataError for a file that cannot be read, unpacked or decoded."""
        self.path = path
        self._content: bytes | None = None
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        weakref.finalize(self, os.close, self._file)
        self._read_as = self._version()
        begins = self.read(0, 4)
        if path.suffix.lower() == ".gz":
            self._content = _unpacked(path, self.read(0, os.fstat(self._file).st_size))
            begins = self._content[:4]
        self._begin = len(codecs.BOM_UTF8) if begins.startswith(codecs.BOM_UTF8) else 0
        encoding = next((encoding for mark, encoding in _MARKS.items() if begins.startswith(mark)), None)
        if encoding is not None:
            self._content = _as_utf8(path, self._whole(), encoding)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line, with the break at its end, and the byte at which it begins."""
        place = end = self._begin
        rest = b""
        # A line that is longer than a piece is not put together of many.
        while piece := self.read(end, end + max(PIECE_BYTES, len(rest))):
            end += len(piece)
            *lines, rest = (rest + piece).splitlines(keepends=True)
            for line in lines:
                yield place, line
                place += len(line)
        for line in rest.splitlines(keepends=True):
            yield place, line
            place += len(line)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer at the end of the file.

        Raises DataError if the file has changed since it was opened.
        """
        if self._content is not None:
            return self._content[start:stop]
        parts = []
        try:
            while start < stop and (part := os.pread(self._file, stop - start, start)):
                parts.append(part)
                start += len(part)
            changed = self._version() != self._read_as
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from error
        if changed:
            raise DataError(
                f"{self.path}: has changed while it was being used; a run needs its data to stay as it is until the end"
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def decoded(self, line: bytes, start: int, number: int) -> str:
        """The text of a line, which begins at byte ``start``; ``number`` is its number in errors."""
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}:{number}: not UTF-8 text: {error.reason} at byte {start + error.start + 1} of the file; "
                "save it as UTF-8"
            ) from error

    def text(self) -> str:
        """All of it, with ``\\n`` between lines."""
        decoded = (
            self.decoded(line, start, number).rstrip("\r\n") for number, (start, line) in enumerate(self.lines(), 1)
        )
        return "\n".join(decoded)

    def _whole(self) -> bytes:
        return self.read(0, os.fstat(self._file).st_size) if self._content is None else self._content

    def _version(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_size, found.st_mtime_ns


class FileRows(Sequence[dict[str, Any]]):
    """Rows that stand in a text file, each parsed when it is asked for."""

    def __init__(
        self,
        file: TextFile,
        starts: array[int],
        stops: array[int],
        parse: Callable[[str], dict[str, Any]],
    ) -> None:
        """The text of row i is from byte ``starts[i]`` to ``stops[i]``, 64 bits each; each could be parsed before."""
        self._starts, self._stops = (np.frombuffer(places, dtype=np.int64) for places in (starts, stops))
        self._file, self._parse = file, parse

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._parse(self._file.read(int(self._starts[index]), int(self._stops[index])).decode())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first = 0
        while first < len(self):
            begin = int(self._starts[first])
            last = max(first + 1, int(np.searchsorted(self._stops, begin + PIECE_BYTES)))
            piece = self._file.read(begin, int(self._stops[last - 1]))
            starts, stops = (places[first:last] - begin for places in (self._starts, self._stops))
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                yield self._parse(piece[start:stop].decode())
            first = last


def _unpacked(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a gzip file: {error}") from error


def _as_utf8(path: Path, content: bytes, encoding: str) -> bytes:
    try:
        return content.decode(encoding).encode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not {encoding.upper()} text: {error.reason} at byte {error.start + 1} of the file; save it as "
            "UTF-8"
        ) from error
