"""Metric loggers: TensorBoard, Weights & Biases, trackio, or of a user's own.

They log the numbers of ``metrics.jsonl``. A resumed run logs the steps after its checkpoint again: TensorBoard shows
each once, Weights & Biases ignores a step it already has, and trackio, which cannot drop a step, shows both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from sharpen.errors import RecipeError
from sharpen.registry import Registry
from sharpen.runs.metric_catalogue import GROUPS, HIGH, LOW, describe, in_words, is_end_of_interval
from sharpen.runs.metric_entries import Direction
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
        self._named: list[str] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        new = [name for name in metrics if name not in self._named]
        for name, value in metrics.items():
            if name in new:
                self._add_described(name, value, step)
            else:
                self._writer.add_scalar(name, value, step)
        if new:
            self._named += new
            self._writer.add_custom_scalars(custom_layout(self._named))
        # So that a killed run loses no step that its checkpoint counts as done.
        self._writer.flush()

    def _add_described(self, name: str, value: float, step: int) -> None:
        """The first event of a metric carries its description, for which `add_scalar` has no argument."""
        proto = import_module("tensorboard.compat.proto.summary_pb2")
        metadata = proto.SummaryMetadata(summary_description=in_words(name))
        described = proto.Summary.Value(tag=name, simple_value=value, metadata=metadata)
        self._writer.file_writer.add_summary(proto.Summary(value=[described]), step)

    def close(self) -> None:
        self._writer.close()


def custom_layout(names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """The charts of TensorBoard's Custom Scalars: measures with their intervals, and what belongs in one picture."""
    layout: dict[str, dict[str, list[Any]]] = {}
    panels: dict[tuple[str, str], list[str]] = {}
    for name in names:
        info, ends = describe(name), [f"{name}{LOW}", f"{name}{HIGH}"]
        if set(ends) <= set(names):
            layout.setdefault(info.group, {})[info.title] = ["Margin", [name, *ends]]
        elif not is_end_of_interval(name, names):
            panels.setdefault((info.group, info.panel), []).append(name)
    for (group, panel), together in panels.items():
        layout.setdefault(group, {})[panel] = ["Multiline", together]
    return {group: layout[group] for group in GROUPS if group in layout}


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
        self._named: set[str] = set()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name in metrics.keys() - self._named:
            # The table of runs then has the best value beside the last.
            if (best := _BEST[describe(name).direction]) is not None:
                self._run.define_metric(name, summary=f"last,{best}")
        self._named |= metrics.keys()
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


_BEST: Mapping[Direction, str | None] = {"up": "max", "down": "min", "none": None}
"""What Weights & Biases calls the best value."""

LOGGERS: Registry[type[PackagedLogger]] = Registry(
    "logger", {kind.extra: kind for kind in (TensorBoardLogger, WandbLogger, TrackioLogger)}, error=RecipeError
)
