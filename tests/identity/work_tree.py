"""Another commit of this repository, checked out beside it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TREE = Path(__file__).parents[2]


@contextmanager
def work_tree(commit: str) -> Iterator[Path]:
    """The commit in a folder of its own, as long as this lasts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        _git("add", "--quiet", "--detach", str(path), commit)
        try:
            yield path
        finally:
            _git("remove", "--force", str(path))


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(TREE), "worktree", *arguments], check=True, timeout=60)
