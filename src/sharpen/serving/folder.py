"""The runs in a folder, found by walking it. What a request names is looked up among them: it is never a path."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sharpen.report.page.run_data import run_id
from sharpen.runs.folder import RunFolder
from sharpen.runs.seeds import SeedsFolder

MOST_DEPTH = 5
MOST_FOLDERS = 5_000
MOST_RUNS = 500
LOOK_AGAIN_S = 2.0
"""A folder is not walked more often than this."""

READ = ("recipe.yaml", "metrics.jsonl", "starts.jsonl", "changes.jsonl", "lock", "samples", "held_out")
"""What is read of a run."""


@dataclass(frozen=True, slots=True)
class FoundRun:
    id: str
    path: Path
    name: str
    """The path from the folder that is served."""
    group: str
    """The folder that it shares with other runs, from there; empty for a run at the top."""
    seeds: bool
    """Whether its group is the seeds of one recipe."""


@dataclass(frozen=True, slots=True)
class Found:
    runs: dict[str, FoundRun] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """Why some are not among them, in sentences."""


class ServedFolder:
    """A folder, or one run, whose runs are shown."""

    def __init__(self, root: Path) -> None:
        # The one link that is followed is that to the folder which the user named.
        self.root = root.resolve()
        self.name = self.root.name or str(self.root)
        self._found = Found()
        self._looked_s = float("-inf")
        self._lock = threading.Lock()

    def look(self) -> Found:
        """The runs as they are now, or were a moment ago."""
        with self._lock:
            if time.monotonic() - self._looked_s > LOOK_AGAIN_S:
                self._found = _runs_in(self.root)
                self._looked_s = time.monotonic()
            return self._found

    def run(self, wanted: str) -> FoundRun | None:
        """The run of this id, if there is one and nothing of it has become a link out of the folder."""
        found = self.look().runs.get(wanted)
        return found if found is not None and leads_out(found.path, self.root) is None else None


def _runs_in(root: Path) -> Found:
    runs: dict[str, FoundRun] = {}
    left_out: list[str] = []
    folders = 0
    for path in _folders(root):
        folders += 1
        if folders > MOST_FOLDERS or len(runs) >= MOST_RUNS:
            most = f"{MOST_RUNS} runs" if len(runs) >= MOST_RUNS else f"{MOST_FOLDERS:,} folders"
            left_out.append(f"Only the first {most} are looked at.")
            break
        if not _is_run(path):
            continue
        name = path.relative_to(root).as_posix() if path != root else root.name
        if (out := leads_out(path, root)) is not None:
            left_out.append(f"{name} is not shown: {out}.")
            continue
        group = path.parent.relative_to(root).as_posix() if path != root else "."
        found = FoundRun(
            run_id(path), path, name, "" if group == "." else group, path != root and SeedsFolder(path.parent).exists
        )
        runs[found.id] = found
    return Found(runs, tuple(left_out))


def _folders(root: Path) -> Iterator[Path]:
    """``root`` and the folders in it, the upper ones first; not those in a run, nor any behind a link."""
    level = [root]
    for _ in range(MOST_DEPTH + 1):
        below: list[Path] = []
        for path in level:
            yield path
            if _is_run(path):
                continue
            try:
                with os.scandir(path) as entries:
                    inner = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            except OSError:  # somebody else's folder, or one that was removed just now
                continue
            below += [path / name for name in inner if not name.startswith(".")]
        level = below


def _is_run(path: Path) -> bool:
    return os.path.lexists(RunFolder(path).recipe)


def leads_out(run: Path, root: Path) -> str | None:
    """Why a run cannot be read without leaving ``root``: one of its files is a link out of it, or no file at all."""
    for name in READ:
        file = run / name
        if (out := _leads_out(file, root)) is not None:
            return out
        if file.is_dir():
            with os.scandir(file) as entries:
                links = [Path(entry.path) for entry in entries if not entry.is_file(follow_symlinks=False)]
            inner = (_leads_out(link, root) for link in links if link.suffix == ".parquet")
            if (out := next((one for one in inner if one is not None), None)) is not None:
                return out
    return None


def _leads_out(file: Path, root: Path) -> str | None:
    try:
        inside = file.resolve().is_relative_to(root)
        mode = file.stat().st_mode
    except FileNotFoundError:
        # A link that leads nowhere now may lead out later.
        return f"{file.name} is a link that leads nowhere" if file.is_symlink() else None
    except (OSError, RuntimeError) as error:
        return f"{file.name} cannot be read ({error})"
    if not inside:
        return f"{file.name} is a link out of the folder"
    # Whoever opens a pipe waits for somebody to write to it.
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else f"{file.name} is not a file"
