"""Files and folders that appear whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that then takes the name ``path``: a reader finds the old content or the new."""
    partial = path.with_name(path.name + ".partial")
    yield partial
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, and have it on the disk before the old one is gone."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
        flush(partial)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Where to make a folder that then takes the name ``path``, at which there is nothing or an empty folder.

    The folder around it is a temporary one, for whatever the making needs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as work:
        whole = Path(work) / "whole"
        yield whole
        whole.rename(path)


def flush(path: Path) -> None:
    """Force a file or folder to the disk, so that a rename never outlives what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
