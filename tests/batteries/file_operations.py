"""Every change that this process makes to the files of a folder, counted, and a fault at the one of a number."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import safetensors.torch
from safetensors import SafetensorError

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NAMES = {"os.rename": (1, 3), "os.remove": (0, 1), "os.mkdir": (0, 2), "os.rmdir": (0, 1), "os.truncate": (0, None)}
"""Audited events that change a folder, with the places of the path and of its folder's descriptor."""
GROWING = ("write", "half of", "os.mkdir", "fsync")
"""What a full disk refuses."""


class Fault(StrEnum):
    KILLED = "killed"
    """The process ends before the operation."""
    FAILING = "failing"
    """The operation fails with EIO; those after it do not."""
    FULL = "full"
    """From the operation on, nothing more can be written."""
    READ_ONLY = "read-only"
    """From the operation on, nothing can be changed."""


class FileOperations:
    """Counts from `begin` on; ``fault`` happens at operation ``fatal``, counted from 1.

    A write is two operations: nothing written, and half of it. An fsync counts where it can fail; for a process that is
    killed and goes on, the files are the same without it. What is written outside of Python (safetensors, Parquet) is
    caught where Python asks for it; tokenizer.json is not. Cannot be undone: for a process of its own.
    """

    def __init__(self, folder: Path, fatal: int | None, fault: Fault = Fault.KILLED) -> None:
        self.folder = str(folder.resolve())
        self.fatal = fatal
        self.fault = fault
        self.done: list[str] = []
        self.counting = False
        sys.addaudithook(self._audit)
        self._patch()

    def begin(self) -> None:
        self.counting = True

    def other(self, what: str) -> None:
        """Count something that is done to no file."""
        self._operation(what, os.path.join(self.folder, ""))

    def _counts(self, path: str) -> bool:
        return self.counting and path.startswith(self.folder + os.sep)

    def _is_last(self, path: str) -> bool:
        """Whether the next operation, if it is on this file, is the fatal one."""
        return self._counts(path) and len(self.done) + 1 == self.fatal

    def _operation(self, what: str, path: str) -> None:
        if not self._counts(path):
            return
        self.done.append(f"{what} {path.removeprefix(self.folder + os.sep)}")
        if self.fatal is None or len(self.done) < self.fatal:
            return
        first = len(self.done) == self.fatal
        if self.fault is Fault.KILLED and first:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault is Fault.FAILING and first:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if self.fault is Fault.FULL and what in GROWING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self.fault is Fault.READ_ONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & WRITING:
            self._operation("open", os.path.abspath(os.fsdecode(arguments[0])))
        elif event in NAMES and not isinstance(arguments[0], int):
            path, descriptor = NAMES[event]
            self._operation(event, _absolute(arguments[path], -1 if descriptor is None else arguments[descriptor]))

    def _patch(self) -> None:
        opened, serialised, tabled, synced = io.open, safetensors.torch.serialize_file, pq.write_table, os.fsync

        def open_(file: Any, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
            stream = opened(file, mode, *arguments, **settings)
            return stream if set(mode) <= set("rbt") or isinstance(file, int) else _Stream(self, stream, str(file))

        def serialize_file(tensors: Any, path: Any, **settings: Any) -> None:
            try:
                self._whole(path, lambda: serialised(tensors, path, **settings))
            except OSError as error:
                raise SafetensorError(f"I/O error: {error.strerror} (os error {error.errno})") from error

        def write_table(table: Any, path: Any, **settings: Any) -> None:
            self._whole(path, lambda: tabled(table, path, **settings))

        def fsync(descriptor: int) -> None:
            if self.fault is not Fault.KILLED:
                self._operation("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            synced(descriptor)

        io.open = builtins.open = open_
        safetensors.torch.serialize_file = serialize_file
        pq.write_table = write_table
        os.fsync = fsync

    def _whole(self, path: Any, write: Callable[[], None]) -> None:
        name = os.path.abspath(os.fspath(path))
        self._operation("write", name)
        write()
        if self._is_last(name):
            self.counting = False
            os.truncate(name, os.path.getsize(name) // 2)
            self.counting = True
        self._operation("half of", name)


class _Stream:
    """A file that is open for writing."""

    def __init__(self, operations: FileOperations, stream: Any, path: str) -> None:
        self._operations, self._stream, self._path = operations, stream, os.path.abspath(path)

    def write(self, data: Any) -> int:
        self._operations._operation("write", self._path)
        if self._operations._is_last(self._path):
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()
        self._operations._operation("half of", self._path)
        written: int = self._stream.write(data)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stream.close()


def _absolute(path: str | bytes, folder: int) -> str:
    name = os.fsdecode(path)
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name) if folder >= 0 else os.path.abspath(name)
