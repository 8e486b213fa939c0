"""Atomic writes: a file or folder appears whole or not at all, whenever the process is killed."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sharpen.errors import DiskError, SharpenError

PARTIAL_SUFFIX = ".partial"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``path`` on success: readers see the old content or the new."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    yield partial
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically; the new content is flushed to disk before the old is gone."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
        flush(partial)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a path for a new folder, renamed to ``path`` on success; ``path`` must be free or an empty folder.

    The caller creates the folder. Its parent is a temporary folder, which may hold intermediate files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as work:
        whole = Path(work) / "whole"
        yield whole
        whole.rename(path)


def flush(path: Path) -> None:
    """Fsync a file or folder, so that after a crash no renamed path lacks its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def named_write_errors(path: Path, what: str, needed_bytes: int | None = None) -> Iterator[None]:
    """Turns the failure of a write into a DiskError that names ``path`` and ``what`` was written.

    Of a full disk it says what is free and, with ``needed_bytes``, what is needed.
    """
    try:
        yield
    except SharpenError:
        raise
    # The libraries of the formats have errors of their own, with the system's as their text.
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        raise DiskError(f"{path}: {what} cannot be written: {why_unwritten(path, number, needed_bytes)}") from error


def why_unwritten(path: Path, error_number: int, needed_bytes: int | None = None) -> str:
    """What the system's error says of a write to ``path``, and of a full disk what is free and needed."""
    said = os.strerror(error_number)
    if error_number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return said
    needed = "" if needed_bytes is None else f"it takes {size_text(needed_bytes)}, and "
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    return f"{said}; {needed}its disk has {size_text(shutil.disk_usage(there).free)} free"


def size_text(count: int) -> str:
    """A number of bytes for people to read."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _error_number(error: Exception) -> int | None:
    """The system's error behind one that a write raised; None for any other."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\b(?:os error|errno) (\d+)", str(error), re.IGNORECASE)
    return int(found[1]) if found else None
