import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sharpen.errors import RecipeError
from sharpen.launch.run import resume, start
from sharpen.runs.loggers import MetricLogger, TensorBoardLogger, TrackioLogger, WandbLogger
from tiny_runs import Raising, tiny_recipe, tiny_start_model

CONFIG = {"lr": 1e-4, "method": {"name": "grpo"}}


def read_events(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


class FakeTracker(ModuleType):
    """Stands in for wandb or trackio, module and run in one, and remembers what it was given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def init(self, **settings: Any) -> "FakeTracker":
        self.calls.append(("init", settings))
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.calls.append(("log", (step, metrics)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeTracker]:
    def install(name: str) -> FakeTracker:
        module = FakeTracker(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


def test_tensorboard_holds_every_metric_of_every_step(tmp_path: Path) -> None:
    logger: MetricLogger = TensorBoardLogger(tmp_path)
    logger.log(0, {"reward/mean": 0.25, "kl_nats": 0.0})
    logger.log(1, {"reward/mean": 0.5, "kl_nats": 0.125})
    logger.close()
    assert read_events(tmp_path, "reward/mean") == [(0, 0.25), (1, 0.5)]
    assert read_events(tmp_path, "kl_nats") == [(0, 0.0), (1, 0.125)]


def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    killed = TensorBoardLogger(tmp_path)
    for step in range(4):
        killed.log(step, {"reward/mean": 0.25})
    assert len(read_events(tmp_path, "reward/mean")) == 4

    resumed = TensorBoardLogger(tmp_path, purge_step=2)
    for step in range(2, 5):
        resumed.log(step, {"reward/mean": 0.5})
    resumed.close()
    killed.close()
    assert read_events(tmp_path, "reward/mean") == [(0, 0.25), (1, 0.25), (2, 0.5), (3, 0.5), (4, 0.5)]


def test_tensorboard_shows_no_step_twice_of_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    def fall() -> None:
        raise KeyboardInterrupt

    recipe = tiny_recipe(
        tmp_path / "run",
        tiny_start_model(tmp_path / "model"),
        "sft",
        log={"tensorboard": True},
        checkpoint={"every": 4},
    )
    with pytest.raises(KeyboardInterrupt):
        start(recipe, loggers=[Raising(lambda step: step == 1, fall)])
    resume(tmp_path / "run")
    assert [step for step, _ in read_events(tmp_path / "run" / "tensorboard", "loss")] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in read_events(tmp_path / "run" / "tensorboard", "held_out/reward")] == [0, 2, 4, 6]


def test_wandb_gets_the_run_and_its_metrics(fake: Callable[[str], FakeTracker], tmp_path: Path) -> None:
    wandb = fake("wandb")
    logger: MetricLogger = WandbLogger("sums", "run-1", CONFIG, run_id="a1b2", folder=tmp_path)
    logger.log(3, {"reward/mean": 0.5})
    logger.close()
    settings = {
        "project": "sums",
        "name": "run-1",
        "config": CONFIG,
        "id": "a1b2",
        "resume": "allow",
        "dir": tmp_path,
    }
    assert wandb.calls == [("init", settings), ("log", (3, {"reward/mean": 0.5})), ("finish", None)]


@pytest.mark.parametrize(("resume", "passed"), [(False, "never"), (True, "allow")])
def test_trackio_gets_the_run_and_its_metrics(fake: Callable[[str], FakeTracker], resume: bool, passed: str) -> None:
    trackio = fake("trackio")
    logger: MetricLogger = TrackioLogger("sums", "run-1", CONFIG, resume=resume)
    logger.log(3, {"reward/mean": 0.5})
    logger.close()
    settings = {"project": "sums", "name": "run-1", "config": CONFIG, "resume": passed}
    assert trackio.calls == [("init", settings), ("log", (3, {"reward/mean": 0.5})), ("finish", None)]


@pytest.mark.parametrize(
    ("module", "extra", "make"),
    [
        ("torch.utils.tensorboard", "tensorboard", lambda: TensorBoardLogger("unused")),
        ("wandb", "wandb", lambda: WandbLogger("project", "name", {}, run_id="id")),
        ("trackio", "trackio", lambda: TrackioLogger("project", "name", {})),
    ],
)
def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, make: Callable[[], MetricLogger]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecipeError, match=rf"pip install \"sharpen\[{extra}\]\""):
        make()
