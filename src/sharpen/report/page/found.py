"""The runs that a path names: a run, the runs of several seeds, or the runs in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sharpen.errors import RecipeError
from sharpen.runs.folder import RunFolder
from sharpen.runs.seeds import SeedsFolder


@dataclass(frozen=True, slots=True)
class Found:
    """``runs`` in the order in which they began; ``seeds`` if they are one recipe's with several seeds."""

    runs: tuple[Path, ...]
    seeds: bool = False
    title: str | None = None
    """None for one run or several that were named one by one: the page then has their names."""


def runs_of(paths: Sequence[Path]) -> Found:
    """The runs that ``paths`` name. Raises RecipeError for a path that holds none."""
    if len(paths) == 1:
        return _in(paths[0])
    runs = {run.resolve(): run for path in paths for run in _in(path).runs}
    return Found(tuple(runs.values()))


def _in(path: Path) -> Found:
    if RunFolder(path).recipe.is_file():
        return Found((path,))
    seeds = SeedsFolder(path)
    if seeds.exists:
        begun = tuple(seeds.run(seed) for seed in seeds.seeds() if RunFolder(seeds.run(seed)).recipe.is_file())
        if not begun:
            raise RecipeError(f"{path}: none of its seeds has begun")
        return Found(begun, seeds=True, title=path.resolve().name)
    inside = (
        [folder for folder in sorted(path.iterdir()) if RunFolder(folder).recipe.is_file()] if path.is_dir() else []
    )
    if not inside:
        raise RecipeError(f"{path}: not a run, it has no recipe.yaml, and no folder in it has one")
    inside.sort(key=lambda run: RunFolder(run).recipe.stat().st_mtime_ns)
    return Found(tuple(inside), title=path.resolve().name)
