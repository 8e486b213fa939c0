"""Metric loggers: TensorBoard, Weights & Biases, trackio.

They log the numbers of ``metrics.jsonl``. A resumed run logs the steps after its checkpoint again: TensorBoard shows
each once, Weights & Biases ignores a step it already has, and trackio, which cannot drop a step, shows both.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from sharpen.errors import RecipeError


class MetricLogger(Protocol):
    """Receives the metrics of each step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoardLogger:
    """Writes event files to ``folder``. A resumed run gives the first step it will log as ``purge_step``.

    Raises RecipeError if tensorboard is not installed.
    """

    def __init__(self, folder: str | Path, *, purge_step: int | None = None) -> None:
        tensorboard = _import("torch.utils.tensorboard", extra="tensorboard")
        self._writer = tensorboard.SummaryWriter(str(folder), purge_step=purge_step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        # So that a killed run loses no step that its checkpoint counts as done.
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbLogger:
    """Sends metrics to Weights & Biases. A resumed run must give the ``run_id`` that it started with.

    Raises RecipeError if wandb is not installed.
    """

    def __init__(
        self,
        project: str,
        name: str,
        config: Mapping[str, Any],
        *,
        run_id: str,
        folder: str | Path | None = None,
    ) -> None:
        wandb = _import("wandb", extra="wandb")
        self._run = wandb.init(project=project, name=name, config=dict(config), id=run_id, resume="allow", dir=folder)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class TrackioLogger:
    """Sends metrics to trackio. ``resume`` continues the newest run of this name instead of starting a new one.

    Raises RecipeError if trackio is not installed.
    """

    def __init__(self, project: str, name: str, config: Mapping[str, Any], *, resume: bool = False) -> None:
        trackio = _import("trackio", extra="trackio")
        self._run = trackio.init(project=project, name=name, config=dict(config), resume="allow" if resume else "never")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def _import(module: str, *, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise RecipeError(
            f'logging to {extra} needs a package that is not installed: pip install "sharpen[{extra}]"'
        ) from error
