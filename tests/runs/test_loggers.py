import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sharpen.errors import RecipeError
from sharpen.launch.run import resume, start
from sharpen.recipe.loading import load_recipe
from sharpen.registry import load_named
from sharpen.runs.loggers import LoggedRun, MetricLogger, TensorBoardLogger, TrackioLogger
from sharpen.runs.named_loggers import find_loggers
from tiny_runs import Raising, tiny_recipe, tiny_start_model

CONFIG = {"lr": 1e-4, "method": {"name": "grpo"}}


def logged(folder: Path, last_step: int | None = None) -> LoggedRun:
    return LoggedRun(folder, "run-1", CONFIG, "a1b2", last_step)


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

    def define_metric(self, name: str, summary: str) -> None:
        self.calls.append(("define_metric", (name, summary)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeTracker]:
    def install(name: str) -> FakeTracker:
        module = FakeTracker(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("loggers") / "model")


def test_tensorboard_holds_every_metric_of_every_step(tmp_path: Path) -> None:
    logger: MetricLogger = TensorBoardLogger(logged(tmp_path))
    logger.log(0, {"reward/mean": 0.25, "kl_nats": 0.0})
    logger.log(1, {"reward/mean": 0.5, "kl_nats": 0.125})
    logger.close()
    assert read_events(tmp_path / "tensorboard", "reward/mean") == [(0, 0.25), (1, 0.5)]
    assert read_events(tmp_path / "tensorboard", "kl_nats") == [(0, 0.0), (1, 0.125)]


def test_tensorboard_says_what_each_metric_means(tmp_path: Path) -> None:
    logger = TensorBoardLogger(logged(tmp_path))
    logger.log(1, {"entropy": 0.5, "my_figure": 1.0})
    logger.log(2, {"entropy": 0.25, "my_figure": 2.0})
    logger.close()
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.SummaryMetadata("entropy").summary_description == (
        "Entropy (nats/token): mean entropy of the next-token distribution. "
        "Normal: falls slowly; near 0 the model no longer explores."
    )
    assert events.SummaryMetadata("my_figure").summary_description == "my_figure"
    assert read_events(tmp_path / "tensorboard", "entropy") == [(1, 0.5), (2, 0.25)]


def test_tensorboard_draws_what_belongs_together(tmp_path: Path) -> None:
    plugin = pytest.importorskip("tensorboard.plugins.custom_scalar.layout_pb2")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(logged(tmp_path))
    logger.log(0, {"held_out/pass@1": 0.5, "held_out/pass@1_low": 0.25, "held_out/pass@1_high": 0.75})
    logger.log(1, {"reward/a": 0.5, "reward/b": 0.25, "entropy": 1.0})
    logger.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    last = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    layout = plugin.Layout.FromString(last)
    assert [category.title for category in layout.category] == ["Held-out", "Reward", "Policy"]
    held_out, parts, entropy = (category.chart[0] for category in layout.category)
    [band] = held_out.margin.series
    assert (band.value, band.lower, band.upper) == ("held_out/pass@1", "held_out/pass@1_low", "held_out/pass@1_high")
    assert (parts.title, list(parts.multiline.tag)) == ("Reward parts", ["reward/a", "reward/b"])
    assert (entropy.title, list(entropy.multiline.tag)) == ("Entropy", ["entropy"])


def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    killed = TensorBoardLogger(logged(tmp_path))
    for step in range(4):
        killed.log(step, {"reward/mean": 0.25})
    assert len(read_events(tmp_path / "tensorboard", "reward/mean")) == 4

    resumed = TensorBoardLogger(logged(tmp_path, last_step=1))
    for step in range(2, 5):
        resumed.log(step, {"reward/mean": 0.5})
    resumed.close()
    killed.close()
    assert read_events(tmp_path / "tensorboard", "reward/mean") == [(0, 0.25), (1, 0.25), (2, 0.5), (3, 0.5), (4, 0.5)]


def test_tensorboard_shows_no_step_twice_of_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    def fall() -> None:
        raise KeyboardInterrupt

    recipe = tiny_recipe(
        tmp_path / "run",
        tiny_start_model(tmp_path / "model"),
        "sft",
        log={"loggers": ["tensorboard"]},
        checkpoint={"every": 4},
    )
    with pytest.raises(KeyboardInterrupt):
        start(recipe, loggers=[Raising(lambda step: step == 1, fall)])
    resume(tmp_path / "run")
    assert [step for step, _ in read_events(tmp_path / "run" / "tensorboard", "loss")] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in read_events(tmp_path / "run" / "tensorboard", "held_out/reward")] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("settings", "passed"),
    [
        ({}, {}),
        (
            {"entity": "us", "tags": ["a", "b"], "mode": "offline"},
            {"entity": "us", "tags": ("a", "b"), "mode": "offline"},
        ),
    ],
)
def test_wandb_gets_the_run_and_its_metrics(
    settings: dict[str, Any], passed: dict[str, Any], fake: Callable[[str], FakeTracker], tmp_path: Path
) -> None:
    wandb = fake("wandb")
    [named] = find_loggers([{"name": "wandb", "project": "sums", **settings}])
    assert wandb.calls == []
    logger = named.make(logged(tmp_path))
    logger.log(3, {"reward/mean": 0.5})
    logger.log(4, {"reward/mean": 0.75, "held_out/loss": 0.5, "entropy": 1.0, "my_figure": 2.0})
    logger.close()
    given = {
        "project": "sums",
        "name": "run-1",
        "config": CONFIG,
        "id": "a1b2",
        "resume": "allow",
        "dir": tmp_path,
        **passed,
    }
    assert wandb.calls == [
        ("init", given),
        ("define_metric", ("reward/mean", "last,max")),
        ("log", (3, {"reward/mean": 0.5})),
        ("define_metric", ("held_out/loss", "last,min")),
        ("log", (4, {"reward/mean": 0.75, "held_out/loss": 0.5, "entropy": 1.0, "my_figure": 2.0})),
        ("finish", None),
    ]


@pytest.mark.parametrize(("last_step", "passed"), [(None, "never"), (4, "allow")])
def test_trackio_gets_the_run_and_its_metrics(
    fake: Callable[[str], FakeTracker], last_step: int | None, passed: str, tmp_path: Path
) -> None:
    trackio = fake("trackio")
    logger: MetricLogger = TrackioLogger(logged(tmp_path, last_step), "sums")
    logger.log(3, {"reward/mean": 0.5})
    logger.close()
    settings = {"project": "sums", "name": "run-1", "config": CONFIG, "resume": passed}
    assert trackio.calls == [("init", settings), ("log", (3, {"reward/mean": 0.5})), ("finish", None)]


@pytest.mark.parametrize(
    ("module", "extra", "settings"),
    [
        ("torch.utils.tensorboard", "tensorboard", {}),
        ("wandb", "wandb", {"project": "p"}),
        ("trackio", "trackio", {"project": "p"}),
    ],
)
def test_a_missing_package_names_the_extra_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, settings: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    recipe = tiny_recipe(tmp_path / "run", model, "sft", log={"loggers": [{"name": extra, **settings}]})
    with pytest.raises(RecipeError, match=rf"pip install \"sharpen\[{extra}\]\""):
        start(recipe)
    assert not (tmp_path / "run").exists()


def test_a_package_that_cannot_be_imported_is_as_good_as_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "trackio.py").write_text("raise ImportError('libfoo.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match=r"cannot be imported \(libfoo\.so is missing\)"):
        find_loggers([{"name": "trackio", "project": "p"}])


OWN = """
from pathlib import Path

class CsvLogger:
    def __init__(self, run, path: Path, every: int = 1, **more):
        self.file, self.every = (run.folder / path).open("a"), every
        self.file.write(f"{run.name} {run.last_step} {len(run.logging_id)} {run.config['method']['name']} {more}\\n")

    def log(self, step, metrics):
        if step % self.every == 0:
            self.file.write(f"{step},{metrics['step']}\\n")

    def close(self):
        self.file.write("closed\\n")
        self.file.close()

class Strict:
    def __init__(self, run, *, project: str, limit: "int" = 3): ...
    def log(self, step, metrics): ...
    def close(self): ...

class NoLogger:
    def log(self, step, metrics): ...

def make(run):
    return CsvLogger(run, "made.csv")

def without_run():
    return MADE

NUMBER, MADE = 3, Strict(None, project="p")
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def test_a_logger_of_ones_own_is_one_file(own: str, model: Path, tmp_path: Path) -> None:
    def fall() -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    entry = {"name": f"{own}:CsvLogger", "path": "own.csv", "every": 2, "note": "n"}
    recipe = tiny_recipe(run, model, "sft", log={"loggers": [entry]})
    with pytest.raises(KeyboardInterrupt):
        start(recipe, loggers=[Raising(lambda step: step == 5, fall)])
    begun = "run None 12 sft {'note': 'n'}"
    # The loggers given as objects come first: step 5 is not logged, and neither is an odd one.
    assert (run / "own.csv").read_text().splitlines() == [begun, "0,0", "2,2", "4,4", "closed"]
    resume(run)
    again = (run / "own.csv").read_text().splitlines()[5:]
    assert again == ["run 4 12 sft {'note': 'n'}", "6,6", "closed"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            "tensorbord",
            "log.loggers: unknown logger `tensorbord`. Did you mean `tensorboard`? Known: tensorboard, wandb",
        ),
        ({"name": "OWN:Strict"}, "log.loggers: logger OWN:Strict: `project`: Field required"),
        ({"name": "OWN:Strict", "project": ["a"]}, "`project`: Input should be a valid string (given: ['a'])"),
        ({"name": "OWN:Strict", "project": "a", "limit": "x"}, "`limit`: Input should be a valid integer"),
        ({"name": "OWN:Strict", "projekt": "a"}, "unknown setting `projekt`. Did you mean `project`?"),
        ({"name": "tensorboard", "x": 1}, "log.loggers: logger tensorboard: unknown setting `x`."),
        ("OWN:NoLogger", "is not a logger: a class whose objects have `log(step, metrics)` and `close()`"),
        ("OWN:NUMBER", "is not a logger: a class"),
        ({"name": "OWN:MADE", "x": 1}, "is already made and takes no settings: x"),
        ("OWN:without_run", "log.loggers: logger OWN:without_run takes no argument, and is made with the run"),
        ("OWN:Stict", "has no 'Stict'. Did you mean `Strict`?"),
        ("nowhere.py:L", "log.loggers 'nowhere.py:L': importing 'nowhere.py' failed with FileNotFoundError"),
    ],
)
def test_what_cannot_be_a_logger_is_named_before_anything_is_written(
    entry: Any, said: str, own: str, model: Path, tmp_path: Path
) -> None:
    if isinstance(entry, str):
        entry = entry.replace("OWN", own)
    else:
        entry = entry | {"name": entry["name"].replace("OWN", own)}
    recipe = tiny_recipe(tmp_path / "run", model, "sft", log={"loggers": [entry]})
    with pytest.raises(RecipeError) as error:
        start(recipe)
    assert said.replace("OWN", own) in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ({"tensorboard": True}, "`log`: `tensorboard` is now one of the loggers: write `loggers: [tensorboard]`"),
        (
            {"wandb": "sums"},
            "`log`: `wandb` is now one of the loggers: write `loggers: [{name: wandb, project: sums}]`",
        ),
        ({"trackio": "t"}, "write `loggers: [{name: trackio, project: t}]`"),
        ({"loggers": [{"project": "x"}]}, "a logger is a name or a mapping with a `name`, not {'project': 'x'}"),
        ({"loggers": [{"name": " "}]}, "a logger is a name or a mapping with a `name`"),
        ({"loggers": [""]}, "it is empty"),
    ],
)
def test_a_recipe_says_how_loggers_are_written(log: dict[str, Any], said: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        tiny_recipe(tmp_path / "run", model, "sft", log=log)
    assert said in str(error.value)


def test_a_recipe_saved_by_an_earlier_version_is_read(model: Path, tmp_path: Path) -> None:
    old = {"samples_every": 3, "tensorboard": False, "wandb": None, "trackio": None}
    log = tiny_recipe(tmp_path / "run", model, "grpo", log=old).log
    assert (log.samples_every, log.loggers) == (3, ())
    assert tiny_recipe(tmp_path / "run", model, "sft", log={"loggers": "tensorboard"}).log.loggers == ("tensorboard",)


def test_a_class_a_function_and_an_object_are_loggers_wherever_loggers_are_given(
    own: str, model: Path, tmp_path: Path
) -> None:
    """In `log.loggers` and as an argument alike; what no import gives is said, and a resumed run goes on without it."""
    kind, make = (load_named(f"{own}:{name}", "logger", RecipeError) for name in ("CsvLogger", "make"))
    steps: dict[str, list[int]] = {"recipe": [], "argument": []}

    class Counting:
        def __init__(self, name: str) -> None:
            self.steps = steps[name]

        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            self.steps.append(step)

        def close(self) -> None: ...

    run, said = tmp_path / "run", list[str]()
    entries = [{"name": kind, "path": "class.csv"}, make, Counting("recipe"), {"name": kind, "path": "n", "note": make}]
    recipe = tiny_recipe(run, model, "sft", log={"loggers": entries})
    given = [Counting("argument"), {"name": f"{own}:CsvLogger", "path": "argument.csv"}]
    start(recipe, loggers=given, say=said.append)
    rows = [f"{step},{step}" for step in range(7)]
    for name in ("class.csv", "made.csv", "argument.csv"):
        assert (run / name).read_text().splitlines()[1:] == [*rows, "closed"]
    assert steps == {"recipe": [*range(7)], "argument": [*range(7)]}
    assert said == ["`log.loggers`: some have no name that a recipe could save. A resumed run goes on without those"]

    again = load_recipe(run / "recipe.yaml")
    named = {"name": f"{own}:CsvLogger"}
    assert again.log.loggers == (
        {**named, "path": "class.csv"},
        f"{own}:make",
        "<given in Python>",
        {**named, "path": "n", "note": "<given in Python>"},
    )
    shutil.rmtree(run / "checkpoints")
    said.clear()
    resume(run, say=said.append)
    assert said[1:] == [
        "without `log.loggers[2]`, `log.loggers[3].note`: given in Python when this recipe was saved, and not now"
    ]
    assert (run / "class.csv").read_text().splitlines()[10:] == [*rows, "closed"]


def test_a_class_of_ours_is_saved_by_its_name(model: Path, tmp_path: Path) -> None:
    log = {"loggers": TensorBoardLogger}
    recipe = tiny_recipe(tmp_path / "run", model, "sft", log=log)
    assert recipe.model_dump(mode="json")["log"]["loggers"] == ["tensorboard"]


@pytest.mark.parametrize(
    ("logger", "said"),
    [
        ("tensorbord", "loggers: unknown logger `tensorbord`. Did you mean `tensorboard`?"),
        (object(), "loggers: <object object at "),
        (type("Half", (), {"log": print}), "Half'> is not a logger: a class whose objects have"),
        (type("Half", (), {"log": print})(), "is not a logger: a class whose objects have"),
        ({"project": "p"}, "loggers: {'project': 'p'} is not a logger"),
    ],
)
def test_what_is_given_and_no_logger_is_named_before_anything_is_written(
    logger: Any, said: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        start(tiny_recipe(tmp_path / "run", model, "sft"), loggers=[logger])
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()
