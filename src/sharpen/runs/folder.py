"""The folder of a run: its recipe, its metrics, its samples, its checkpoints."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpen.errors import RecipeError
from sharpen.in_memory import IN_MEMORY
from sharpen.runs.checkpoint_list import LIST
from sharpen.runs.samples import sample_rows, write_parquet
from sharpen.runs.seeds import SeedsFolder
from sharpen.runs.trajectories import trajectory_from_json, trajectory_to_json
from sharpen.system.files import PARTIAL_SUFFIX, write_text
from sharpen.types import Finish, Group, Prompt, Trajectory, single_turn

LOGGER_FOLDERS = ("tensorboard", "wandb")
"""Folders in a run's folder that sharpen's loggers write. A new run leaves them: it logs under another id."""

_FILES = ("recipe.yaml", "metrics.jsonl", "samples", "checkpoints", "logging_id", "lock", "output.log")
_OF_A_RUN = frozenset((*_FILES, *LOGGER_FOLDERS))


class RunFolder:
    """``recipe.yaml``, ``metrics.jsonl``, ``samples/step_*.parquet`` and ``checkpoints/`` under one path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.kept = path / "kept.jsonl"
        self._logging_id = path / "logging_id"

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
        for folder in (self.checkpoints, self.samples):
            names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
            # Of a run without a checkpoint, their list says nothing.
            inner = [name for name in names if name.removesuffix(PARTIAL_SUFFIX) != LIST]
            if inner:
                return f"{folder.name}/{inner[0]}"
        if not self.recipe.exists():
            return None
        foreign = sorted(f.name for f in self.path.iterdir() if f.name.removesuffix(PARTIAL_SUFFIX) not in _OF_A_RUN)
        return f"{foreign[0]}, which is not of a run" if foreign else None

    def _last_step(self) -> int | None:
        """The last step of the metrics, 0 without any; None if they cannot be read."""
        if not self.metrics.exists():
            return 0
        # A killed run may leave its last line incomplete.
        lines = [line for line in self.metrics.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        try:
            return max((int(json.loads(line)["step"]) for line in lines), default=0)
        except (ValueError, KeyError, TypeError):
            return None

    def initialise(self, recipe: str) -> None:
        """Make the folder of a new run, or make it anew where a run did no step; ``recipe`` is YAML.

        Raises RecipeError if it cannot be written.
        """
        try:
            self._clear_metrics()
            self.make()
            write_text(self.recipe, recipe)
        except OSError as error:
            raise RecipeError(f"run: {error.filename or self.path} cannot be written: {error.strerror}") from error

    def clear(self) -> None:
        """Remove what a run that did no step has left, see `work`; without one, nothing."""
        if self.recipe.exists():
            self._clear_metrics()
            for folder in (self.samples, self.checkpoints):
                for name in (LIST, f"{LIST}{PARTIAL_SUFFIX}"):
                    (folder / name).unlink(missing_ok=True)
                if folder.is_dir():
                    folder.rmdir()
            self.recipe.unlink()

    def _clear_metrics(self) -> None:
        self.metrics.unlink(missing_ok=True)
        self._logging_id.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an existing run. Raises RecipeError if there is none."""
        folder = cls(path)
        if not folder.recipe.is_file():
            seeds = SeedsFolder(path)
            raise RecipeError(seeds.refusal() if seeds.exists else f"{path}: not a run, it has no recipe.yaml")
        return folder

    def make(self) -> None:
        """Make the folders that are missing."""
        self.samples.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)

    def continuing(self) -> str:
        """What continues the run: a command, or a call in Python if the recipe cannot name all that it was given."""
        if IN_MEMORY in self.recipe.read_text(encoding="utf-8"):
            return f"sharpen.resume({str(self.path)!r}, ...) in Python, with the same objects"
        return f"sharpen run --resume {self.path}"

    def logging_id(self) -> str:
        """The run's id in logging services; made once and kept, so that a resumed run continues under it."""
        if not self._logging_id.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self._logging_id, uuid.uuid4().hex[:12])
        return self._logging_id.read_text(encoding="utf-8")

    def append_metrics(self, row: Mapping[str, float]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def cut_back(self, step: int) -> None:
        """Remove metrics and samples of steps after ``step``, so that a resumed run does not write them twice."""
        if self.metrics.exists():
            # A killed run may leave its last line incomplete; that line is always of a later step.
            whole = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in whole if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_text(self.metrics, "".join(kept))
        for file in self.samples.glob("step_*.parquet"):
            if int(file.stem.removeprefix("step_")) > step:
                file.unlink()

    def write_samples(self, step: int, groups: Sequence[Group], *, conversations: bool = False) -> None:
        """The trajectories of a step with their rewards; ``conversations`` if they may have several turns."""
        rows = [{"step": step, **row} for row in sample_rows(groups, conversations=conversations)]
        write_parquet(self.samples / f"step_{step:06d}.parquet", rows)

    def write_kept(self, groups: Sequence[Group]) -> tuple[Group, ...]:
        """Write the trajectories to train on from now on, and return them as `read_kept` will.

        They become data: scores, draw ids, log-probabilities and versions are not kept.
        """
        lines = [_kept_line(group.prompt, trajectory) for group in groups for trajectory in group.trajectories]
        write_text(self.kept, "".join(json.dumps(line) + "\n" for line in lines))
        return self.read_kept()

    def read_kept(self) -> tuple[Group, ...]:
        with self.kept.open(encoding="utf-8") as file:
            return tuple(_kept_group(json.loads(line)) for line in file)

    def kept_digest(self) -> str | None:
        """The hash of the kept trajectories, for checkpoints; None if there are none."""
        return hashlib.sha256(self.kept.read_bytes()).hexdigest() if self.kept.exists() else None


def _kept_line(prompt: Prompt, trajectory: Trajectory) -> dict[str, Any]:
    """A single turn is told by its tokens, anything else by its field ``trajectory``."""
    line = {
        **({"source": prompt.source} if prompt.source else {}),
        "prompt": prompt.text,
        "completion": trajectory.text,
        "prompt_id": prompt.id,
        "prompt_token_ids": prompt.token_ids,
    }
    samples = tuple(replace(sample, logprobs=(), versions=()) for sample in trajectory.samples)
    data = replace(trajectory, samples=samples, draw_id=None, score=None)
    if data == single_turn(prompt.token_ids, data.token_ids, data.text, finish=data.last.finish):
        return {**line, "token_ids": data.token_ids, "finish": data.last.finish.value}
    return {**line, "trajectory": trajectory_to_json(data)}


def _kept_group(line: Mapping[str, Any]) -> Group:
    ids, row = tuple(line["prompt_token_ids"]), {"prompt": line["prompt"]}
    prompt = Prompt(line["prompt_id"], ids, line["prompt"], row, source=line.get("source", ""))
    if "trajectory" in line:
        return Group(prompt, (trajectory_from_json(line["trajectory"]),))
    ids, finish = tuple(line["token_ids"]), Finish(line["finish"])
    return Group(prompt, (single_turn(prompt.token_ids, ids, line["completion"], finish=finish),))


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The rows of a run's ``metrics.jsonl``."""
    with (run / "metrics.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
