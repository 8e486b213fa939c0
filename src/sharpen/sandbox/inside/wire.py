"""Messages between the trainer's process, the supervisors and the jobs: lengths, a JSON header, blobs of bytes."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

_LENGTH = struct.Struct("!I")


class Cut(Exception):
    """The stream ended within a message, or before one."""


def pack(header: dict[str, Any], *blobs: bytes) -> bytes:
    """Encode a message."""
    head = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join((_LENGTH.pack(len(head)), head, *blobs))


def unpack(read: Callable[[int], bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """The next message of a stream.

    Raises:
        Cut: the stream ended.
    """
    head = json.loads(_exactly(read, _LENGTH.unpack(_exactly(read, _LENGTH.size))[0]))
    return head, [_exactly(read, size) for size in head.pop("blobs")]


def frame(body: bytes) -> bytes:
    """Bytes prefixed with their length."""
    return _LENGTH.pack(len(body)) + body


def read_frame(read: Callable[[int], bytes], limit_bytes: int) -> bytes:
    """The next frame of a stream that may be hostile.

    Raises:
        Cut: the stream ended.
        ValueError: the frame claims to be longer than the limit.
    """
    size = _LENGTH.unpack(_exactly(read, _LENGTH.size))[0]
    if size > limit_bytes:
        raise ValueError(f"a frame of {size} bytes, more than {limit_bytes}")
    return _exactly(read, size)


def frames(data: bytes) -> Iterator[bytes]:
    """The complete frames at the start of some bytes."""
    start = 0
    while start + _LENGTH.size <= len(data):
        end = start + _LENGTH.size + _LENGTH.unpack_from(data, start)[0]
        if end > len(data):
            return
        yield data[start + _LENGTH.size : end]
        start = end


def frames_of_file(fd: int, start: int) -> Iterator[bytes]:
    """The frames of a trusted file from a position on, one at a time. The descriptor's own position does not count."""

    def read(size: int) -> bytes:
        nonlocal start
        part = os.pread(fd, size, start)
        start += len(part)
        return part

    while True:
        try:
            body = read_frame(read, sys.maxsize)
        except Cut:
            return
        yield body


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = read(min(size, 1 << 20))
        if not part:
            raise Cut
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
