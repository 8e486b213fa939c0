"""The folder of a run: its recipe, its metrics, its samples, its checkpoints."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.errors import DataError, RecipeError
from sharpen.in_memory import IN_MEMORY
from sharpen.runs.checkpoint_list import LIST
from sharpen.runs.kept import read_kept, write_kept
from sharpen.runs.metrics_file import MetricsFile
from sharpen.runs.sample_files import SampleFiles, file_name
from sharpen.runs.samples import sample_rows
from sharpen.runs.seeds import SeedsFolder
from sharpen.runs.starts import Starts
from sharpen.system.files import PARTIAL_SUFFIX, flush, named_write_errors, write_text
from sharpen.types import Group

LOGGER_FOLDERS = ("tensorboard", "wandb")
"""Folders in a run's folder that sharpen's loggers write. A new run leaves them: it logs under another id."""

REPORT = "report.html"
"""The page of a run in its folder, or of several in the folder that holds them."""

_FILES = (
    "recipe.yaml",
    "metrics.jsonl",
    "damaged_metrics.jsonl",
    "samples",
    "held_out",
    "checkpoints",
    "changes.jsonl",
    "starts.jsonl",
    REPORT,
    "logging_id",
    "lock",
    "output.log",
)
_OF_A_RUN = frozenset((*_FILES, *LOGGER_FOLDERS))


class RunFolder:
    """``recipe.yaml``, ``metrics.jsonl``, ``samples/``, ``held_out/`` and ``checkpoints/`` under one path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.kept = path / "kept.jsonl"
        self.held_out = path / "held_out"
        self.report = path / REPORT
        self.sample_files = SampleFiles(self.samples)
        self.held_out_files = SampleFiles(self.held_out)
        self.starts = Starts(path)
        self._metrics = MetricsFile(self.metrics)
        self._logging_id = path / "logging_id"
        self._of_no_step = {self.checkpoints: LIST, self.samples: None, self.held_out: file_name(0)}
        """The folders that a run fills, each with the name of what is there before the first step, and says nothing."""

    @staticmethod
    def refuse_existing(path: Path, *, locked: bool = True) -> None:
        """Raises RecipeError if the folder holds a run that another must neither overwrite nor be mixed with.

        A run that did no step gives way, if ``locked``: without the run's lock, it may be at its first step just now.
        """
        if (seeds := SeedsFolder(path)).exists:
            raise RecipeError(seeds.refusal())
        folder = RunFolder(path)
        holds = folder.work()
        if holds is None and folder.recipe.exists() and not locked:
            holds = "it has done no step, but without locks on this file system it may be running"
        if holds is not None:
            go_on = f"continue it (`{folder.continuing()}`), " if folder.recipe.exists() else ""
            raise RecipeError(
                f"{path} already holds a run ({holds}); {go_on}remove it, or give another folder (`run=...`)"
            )

    def work(self) -> str | None:
        """What the folder holds that is worth keeping, in words; None if its run, if there is one, did no step.

        Files that are not of a run count only beside a recipe: then somebody put them with the run.
        """
        steps = self._last_step()
        if steps is None or steps > 0:
            return "metrics.jsonl cannot be read" if steps is None else f"{steps} steps of metrics"
        if self.kept.exists():
            return f"{self.kept.name}, the completions that it sampled"
        for folder, of_no_step in self._of_no_step.items():
            names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
            inner = [name for name in names if name.removesuffix(PARTIAL_SUFFIX) != of_no_step]
            if inner:
                return f"{folder.name}/{inner[0]}"
        if not self.recipe.exists():
            return None
        foreign = sorted(f.name for f in self.path.iterdir() if f.name.removesuffix(PARTIAL_SUFFIX) not in _OF_A_RUN)
        return f"{foreign[0]}, which is not of a run" if foreign else None

    def _last_step(self) -> int | None:
        """The last step of the metrics, 0 without any; None if not all of them can be read."""
        rows, problems = self._metrics.read()
        return None if problems else max((int(row["step"]) for row in rows), default=0)

    def initialise(self, recipe: str) -> None:
        """Make the folder of a new run, or make it anew where a run did no step; ``recipe`` is YAML.

        Raises DiskError if it cannot be written.
        """
        self._clear_no_step()
        self.make()
        with named_write_errors(self.recipe, "the recipe"):
            write_text(self.recipe, recipe)

    def clear(self) -> None:
        """Remove what a run that did no step has left, see `work`; without one, nothing."""
        if self.recipe.exists():
            self._clear_no_step()
            for folder in self._of_no_step:
                if folder.is_dir():
                    folder.rmdir()
            self.recipe.unlink()

    def _clear_no_step(self) -> None:
        with named_write_errors(self.path, "this folder"):
            for file in (self.metrics, self._metrics.as_found, self._logging_id, self.starts.path, self.report):
                file.unlink(missing_ok=True)
            for folder, name in self._of_no_step.items():
                if name is not None and folder.is_dir():
                    for written in (name, f"{name}{PARTIAL_SUFFIX}"):
                        (folder / written).unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an existing run. Raises RecipeError if there is none."""
        folder = cls(path)
        if not folder.recipe.is_file():
            seeds = SeedsFolder(path)
            raise RecipeError(seeds.refusal() if seeds.exists else f"{path}: not a run, it has no recipe.yaml")
        return folder

    def make(self) -> None:
        """Make the folders that are missing. Raises DiskError if they cannot be made."""
        for folder in (self.samples, self.checkpoints):
            with named_write_errors(folder, "this folder"):
                folder.mkdir(parents=True, exist_ok=True)

    def continuing(self) -> str:
        """What continues the run: a command, or a call in Python if the recipe cannot name all that it was given."""
        if IN_MEMORY in self.recipe.read_text(encoding="utf-8"):
            return f"sharpen.resume({str(self.path)!r}, ...) in Python, with the same objects"
        return f"sharpen run --resume {self.path}"

    def logging_id(self) -> str:
        """The run's id in logging services; made once and kept, so that a resumed run continues under it."""
        if not self._logging_id.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            with named_write_errors(self._logging_id, "the run's id in logging services"):
                write_text(self._logging_id, uuid.uuid4().hex[:12])
        return self._logging_id.read_text(encoding="utf-8")

    def append_metrics(self, row: Mapping[str, float]) -> None:
        self._metrics.append(row)

    def read_metrics(self, say: Callable[[str], object] = warnings.warn) -> list[dict[str, float]]:
        """The rows in the order of steps, none before the first; ``say`` is told what is wrong with the file."""
        rows, problems = self._metrics.read()
        for problem in problems:
            say(problem)
        return rows

    def write_samples(
        self,
        step: int,
        groups: Sequence[Group],
        *,
        conversations: bool = False,
        every: int = 1,
        tokens: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[str]:
        """The trajectories of a step with their rewards; ``conversations`` if they may have several turns.

        ``every`` is the number of steps between two samples, and ``tokens`` has columns for each token of each
        trajectory, as `tokens_of` gives them. Returns what was damaged, see `SampleFiles.write`.
        """
        rows = [{"step": step, **row} for row in sample_rows(groups, conversations=conversations)]
        if tokens is not None:
            rows = [{**row, **of_row} for row, of_row in zip(rows, tokens, strict=True)]
        return self.sample_files.write(step, rows, every=every)

    def write_held_out(self, step: int, rows: Sequence[Mapping[str, Any]], *, every: int) -> list[str]:
        """The answers to the held-out prompts at a step; ``every`` is the number of steps between two evaluations.

        Returns what was damaged, see `SampleFiles.write`.
        """
        return self.held_out_files.write(step, [{"step": step, **row} for row in rows], every=every)

    def flush(self) -> None:
        """Have metrics and samples on disk, also after a power cut, before a checkpoint counts on them."""
        self._metrics.flush()
        self.sample_files.flush()
        self.held_out_files.flush()
        with named_write_errors(self.path, "the run"):
            flush(self.path)

    def cut_back(self, step: int) -> list[str]:
        """Remove metrics and samples of steps after ``step``, so that a resumed run does not write them twice.

        Returns what was damaged among them, in sentences; it is mended where that is possible.
        """
        files = (self.sample_files, self.held_out_files)
        return [*self._metrics.cut_back(step), *(damage for one in files for damage in one.cut_back(step))]

    def write_kept(self, groups: Sequence[Group]) -> tuple[Group, ...]:
        """Write the trajectories to train on from now on, and return them as `read_kept` will."""
        write_kept(self.kept, groups)
        return self.read_kept()

    def read_kept(self) -> tuple[Group, ...]:
        return read_kept(self.kept)

    def kept_digest(self) -> str | None:
        """The hash of the kept trajectories, for checkpoints; None if there are none."""
        return hashlib.sha256(self.kept.read_bytes()).hexdigest() if self.kept.exists() else None


def read_metrics(run: Path, say: Callable[[str], object] = warnings.warn) -> list[dict[str, float]]:
    """As `RunFolder.read_metrics`. Raises DataError if there is no row."""
    folder = RunFolder(run)
    rows = folder.read_metrics(say)
    if not rows:
        raise DataError(f"{folder.metrics}: there are no metrics")
    return rows
