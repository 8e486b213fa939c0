"""The arguments of the calls that a program is asked to make."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from .inside import plain, wire

Arguments = Sequence[Any] | Mapping[str, Any]
"""The arguments of one call: by position, or by name."""

_NOEXEC_SEAL = 0x8  # MFD_NOEXEC_SEAL, which Python does not name: Linux 6.3, and required if vm.memfd_noexec is 2


class EncodedCalls:
    """The arguments of several calls, encoded once, however often the program has to be started again.

    They are a file in memory that nobody can change. A program gets its descriptor, and reads the arguments of each
    call just before the call. A context manager.
    """

    def __init__(self, calls: Sequence[Arguments]) -> None:
        """
        Raises:
            NotPlain: the arguments are not plain data.
        """
        self._starts = [0]
        self._fd = _memory_file()
        try:
            with open(self._fd, "wb", closefd=False) as file:
                for arguments in calls:
                    by_name = isinstance(arguments, Mapping)
                    split = ([], dict(arguments)) if by_name else (list(arguments), {})
                    self._starts.append(self._starts[-1] + file.write(wire.frame(plain.encode(split))))
            _seal(self._fd)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __enter__(self) -> EncodedCalls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_of(self, call: int) -> int:
        """The position of a call's arguments in the file, in bytes."""
        return self._starts[call]

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


def _memory_file() -> int:
    if sys.platform != "linux":  # where there is no isolation either
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("calls", flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("calls", flags)


def _seal(fd: int) -> None:
    if sys.platform == "linux":
        import fcntl

        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
