"""Atomic writes: a file or folder appears whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from sharpen.errors import DiskError

PARTIAL_SUFFIX = ".partial"
_SYSTEM_ERROR = re.compile(r"\(os error \d+\)$")


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
    """Turns the failure of a write into a DiskError that names ``path``, ``what`` was written, and what is free.

    ``needed_bytes`` is the size of what is written, if it is known.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(_unwritten(path, what, needed_bytes, error.strerror or str(error))) from error
    except Exception as error:
        # What is written in Rust has the system's error as its text: safetensors' in its own error, tokenizers' in
        # a plain Exception.
        if not isinstance(error, SafetensorError) and _SYSTEM_ERROR.search(str(error)) is None:
            raise
        raise DiskError(_unwritten(path, what, needed_bytes, str(error))) from error


def _unwritten(path: Path, what: str, needed_bytes: int | None, reason: str) -> str:
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    needed = "" if needed_bytes is None else f"it takes {_size(needed_bytes)}, and "
    return (
        f"{path}: {what} cannot be written: {reason}; {needed}its disk has {_size(shutil.disk_usage(there).free)} free"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
