"""Metric loggers: TensorBoard, Weights & Biases, trackio, or of a user's own.

They log the numbers of ``metrics.jsonl``. A resumed run logs the steps after its checkpoint again: TensorBoard shows
each once, Weights & Biases ignores a step it already has, and trackio, which cannot drop a step, shows both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from sharpen.errors import RecipeError
from sharpen.registry import Registry
from sharpen.settings import Name


class MetricLogger(Protocol):
    """Receives the metrics of each step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """The run that a logger is made for.

    ``config`` is its recipe as plain values, ``logging_id`` the same when the run is resumed, and ``last_step`` that of
    the checkpoint from which it goes on, None for a run that begins.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    logging_id: str
    last_step: int | None = None


class PackagedLogger:
    """A logger that needs a package, which the extra of sharpen of the same name installs."""

    extra: ClassVar[str]
    module: ClassVar[str]

    @classmethod
    def package(cls) -> Any:
        """The imported package. Raises RecipeError if it cannot be imported."""
        try:
            return import_module(cls.module)
        except ImportError as error:
            raise RecipeError(
                f"logging to {cls.extra} needs a package that cannot be imported ({error}): "
                f'pip install "sharpen[{cls.extra}]"'
            ) from error


class TensorBoardLogger(PackagedLogger):
    """Writes event files to the folder ``tensorboard`` of the run."""

    extra, module = "tensorboard", "torch.utils.tensorboard"

    def __init__(self, run: LoggedRun) -> None:
        # The steps that this process will log: events of an earlier one from there on are not shown.
        first_step = 0 if run.last_step is None else run.last_step + 1
        self._writer = self.package().SummaryWriter(str(run.folder / "tensorboard"), purge_step=first_step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        # So that a killed run loses no step that its checkpoint counts as done.
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbLogger(PackagedLogger):
    """Sends metrics to Weights & Biases. The settings are those of ``wandb.init``; those left out are its defaults."""

    extra = module = "wandb"

    def __init__(
        self,
        run: LoggedRun,
        project: Name,
        entity: Name | None = None,
        group: Name | None = None,
        tags: tuple[Name, ...] | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        optional = {"entity": entity, "group": group, "tags": tags, "mode": mode}
        self._run = self.package().init(
            project=project,
            name=run.name,
            config=dict(run.config),
            id=run.logging_id,
            resume="allow",
            dir=run.folder,
            **{name: value for name, value in optional.items() if value is not None},
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class TrackioLogger(PackagedLogger):
    """Sends metrics to trackio. A resumed run continues the newest one of its name."""

    extra = module = "trackio"

    def __init__(self, run: LoggedRun, project: Name, space_id: Name | None = None) -> None:
        self._run = self.package().init(
            project=project,
            name=run.name,
            config=dict(run.config),
            resume="never" if run.last_step is None else "allow",
            **({} if space_id is None else {"space_id": space_id}),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


LOGGERS: Registry[type[PackagedLogger]] = Registry(
    "logger", {kind.extra: kind for kind in (TensorBoardLogger, WandbLogger, TrackioLogger)}, error=RecipeError
)
