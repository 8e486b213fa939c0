"""A run on disk, as Python sees it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.errors import CheckpointError, RecipeError
from sharpen.launch.progress import Progress
from sharpen.recipe.loading import load_recipe, load_section, read_tree
from sharpen.recipe.schema import Recipe
from sharpen.report.measured import before_and_after
from sharpen.report.page.html import write_report
from sharpen.runs.checkpoint_list import checkpoint_path
from sharpen.runs.checkpoint_state import load_state
from sharpen.runs.folder import RunFolder
from sharpen.runs.sample_files import SampleFiles
from sharpen.runs.steps_in_words import spans_of, steps_in_words
from sharpen.training.settings import TrainingSettings

if TYPE_CHECKING:
    from pandas import DataFrame

    from sharpen.evaluation.runner import Evaluation
    from sharpen.report.plot import RunFigure
    from sharpen.rollout.chat import Conversation
    from sharpen.rollout.engine import Sampling


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A run: what `sharpen.train` and `sharpen.resume` return, and what `Run.open` finds in a folder.

    ``checkpoint`` is the latest one, None before the first; ``finished`` is False if the run was stopped before its
    last step. ``signum`` is the signal that stopped it, if any; it may have come during the last step. ``given`` has
    what was given in Python and a recipe cannot name, by the paths of the settings such as ``data.held_out``.
    """

    path: Path
    checkpoint: Path | None
    finished: bool
    signum: int | None = field(default=None, compare=False)
    given: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder, which may still be going on. Raises RecipeError if there is none.

        Its ``checkpoint`` is the latest sound one.
        """
        path = Path(path).expanduser()
        if not RunFolder(path).recipe.is_file():
            raise RecipeError(f"{path}: not a run, it has no recipe.yaml")
        folder = RunFolder(path)
        progress = Progress.of(folder, load_section(folder.recipe, TrainingSettings).steps, "model")
        return cls(path, progress.checkpoint, progress.finished)

    @property
    def model(self) -> Path:
        """The latest checkpoint, an ordinary Hugging Face folder. Raises CheckpointError before the first."""
        if self.checkpoint is None:
            raise CheckpointError(f"{self.path}: this run has no checkpoint yet")
        return self.checkpoint

    @property
    def best(self) -> Path | None:
        """The best checkpoint by ``checkpoint.best``, if the recipe sets it."""
        best = load_state(self.model)["best"]
        return None if best is None else checkpoint_path(RunFolder(self.path).checkpoints, best["step"])

    @property
    def recipe(self) -> Recipe:
        """The settings that the run was started with.

        Raises RecipeError if its method was given in Python and no import gives it again, unless this run was.
        """
        return load_recipe(RunFolder(self.path).recipe, given=self.given)

    @property
    def metrics(self) -> DataFrame:
        """The metrics, a row for each step and indexed by ``step``; NaN where a step lacks a metric."""
        # Imported here: it takes half a second, and the command line does not need it.
        import pandas

        return pandas.DataFrame(self.metric_rows() or {"step": []}).set_index("step")

    def metric_rows(self) -> list[dict[str, float]]:
        """The rows of ``metrics.jsonl``; none before the first step. What is damaged in the file is a warning."""
        return RunFolder(self.path).read_metrics()

    def samples(self, step: int | None = None) -> DataFrame:
        """The completions that the run wrote down, with their rewards: of one step, or of all.

        Raises RecipeError if there are none of that step, DataError if a file is damaged.
        """
        return self._rows(RunFolder(self.path).sample_files, step, "samples", "log.samples_every")

    def held_out_samples(self, step: int | None = None) -> DataFrame:
        """The answers to the held-out prompts, with their rewards and whether each is ``right``: of the evaluation at
        one step, or of all.

        Raises RecipeError if there are none of that step, DataError if a file is damaged.
        """
        return self._rows(RunFolder(self.path).held_out_files, step, "held-out answers", "evaluation.every")

    def _rows(self, files: SampleFiles, step: int | None, what: str, setting: str) -> DataFrame:
        import pandas

        if step is None:
            tables = [table.to_pandas() for table in files.tables()]
            if not tables:
                return pandas.DataFrame()
            return pandas.concat(tables).sort_values("step", kind="stable", ignore_index=True)
        if (rows := files.of_step(step)) is None:
            steps = files.steps()
            there = f"there are those of {steps_in_words(spans_of(steps))}" if steps else "there are none"
            raise RecipeError(f"{self.path}: no {what} of step {step}: {there} ({setting})")
        return rows.to_pandas()

    def plot(self) -> RunFigure:
        """The picture of the run, which a notebook shows; ``savefig`` writes it to a file.

        Raises ValueError if there is nothing to plot yet.
        """
        from sharpen.report.plot import Stage, run_figure

        rows = self.metric_rows()
        before, after = before_and_after(rows)
        stage = Stage(self._method, rows)
        return run_figure([stage], before.measures, after.measures, title=str(self.path))

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page of the run as one HTML file: ``report.html`` in its folder, or ``path``. Returns the file.

        A run writes it at its end; of one that is going on, it shows the steps that are done. What is damaged in the
        run is left out, with a warning. Raises DataError if there are no metrics yet, DiskError if the file cannot be
        written.
        """
        file = RunFolder(self.path).report if path is None else Path(path).expanduser()
        return write_report([self.path], file, say=warnings.warn)

    def evaluate(self, data: Any = None, reward: Any = None, **options: Any) -> Evaluation:
        """Measure the latest checkpoint; the arguments are those of `sharpen.evaluate`."""
        from sharpen.launch.evaluate import evaluate

        return evaluate(self, data, reward, **options)

    def chat(self, sampling: Sampling | None = None, *, seed: int = 0) -> Conversation:
        """A conversation with the latest checkpoint, as `LoadedModel.chat` gives it."""
        from sharpen.launch.load import load

        return load(self).chat(sampling, seed=seed)

    @property
    def _method(self) -> str:
        if (given := self.given.get("method")) is not None:
            return str(given.name)
        tree = read_tree(RunFolder(self.path).recipe)["method"]
        # A placeholder where the method was given in Python.
        return str(tree["name"])

    def __repr__(self) -> str:
        return f"Run({', '.join(f'{name}: {value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self._summary().items())
        return f"<table>{''.join(rows)}</table>"

    def _summary(self) -> dict[str, str]:
        summary = {"run": str(self.path)}
        if not RunFolder(self.path).recipe.is_file():
            return summary
        rows, steps = self.metric_rows(), load_section(RunFolder(self.path).recipe, TrainingSettings).steps
        summary["method"] = self._method
        step = int(rows[-1]["step"]) if rows else 0
        summary["step"] = f"{step} of {steps}{'' if self.finished else ', not finished'}"
        for name, key in {"reward": "reward/mean", "held-out pass@1": "held_out/pass@1", "loss": "loss"}.items():
            value = _latest(rows, key)
            if value is not None and not (name == "loss" and "reward" in summary):
                summary[name] = f"{value:.3f}"
        if self.checkpoint is not None:
            summary["model"] = str(self.checkpoint)
        if (report := RunFolder(self.path).report).is_file():
            summary["report"] = str(report)
        return summary


def _latest(rows: list[dict[str, float]], key: str) -> float | None:
    found: list[float] = [row[key] for row in rows if key in row]
    return found[-1] if found else None
