"""Atomic writes: a file or folder appears whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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
