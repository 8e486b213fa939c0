"""No logger ends a training, whatever it does, and none costs metrics.jsonl a row."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.launch.run import start
from sharpen.runs import logging
from sharpen.runs.folder import read_metrics
from sharpen.system.call_thread import CallThread
from tiny_runs import left_behind, tiny_recipe, tiny_start_model

SOURCE = """
import threading
from pathlib import Path

RELEASED = threading.Event()

class Logger:
    starts = 0

    def __init__(self, run, at: str = "", what: str = "raise OSError('the net is down')", out: str = "rows"):
        self.at, self.what, self.rows = at.split(), what, run.folder.parent / out
        Logger.starts += 1
        self.do(f"start{Logger.starts}")

    def do(self, place):
        if place in self.at:
            exec(self.what)

    def log(self, step, metrics):
        self.do(str(step))
        metrics.clear()
        with self.rows.open("a") as file:
            file.write(f"{step} ")

    def close(self):
        self.do("close")
        with self.rows.open("a") as file:
            file.write("closed")
"""
METRICS = "; metrics.jsonl goes on"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("failing") / "model")


@pytest.fixture(scope="module")
def expected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("quiet") / "run"
    start(tiny_recipe(run, model, "sft"))
    return left_behind(run)


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    """What hangs in a test goes on at its end."""
    yield
    for module in list(sys.modules.values()):
        if (released := vars(module).get("RELEASED")) is not None:
            released.set()


def run_with(folder: Path, model: Path, expected: dict[str, Any], **settings: str) -> tuple[list[str], str]:
    """What was said of loggers, and what the failing one has; the run is what it is without loggers."""
    (folder / "own.py").write_text(SOURCE)
    named = f"{folder / 'own.py'}:Logger"
    said: list[str] = []
    entries = [{"name": named, **settings}, {"name": named, "out": "other"}]
    if settings.get("at", "").startswith("start"):
        entries.pop()
    recipe = tiny_recipe(folder / "run", model, "sft", log={"loggers": entries})
    assert start(recipe, say=said.append).finished
    assert left_behind(folder / "run") == expected
    if len(entries) == 2:
        assert (folder / "other").read_text() == "0 1 2 3 4 5 6 closed"
    assert [row["step"] for row in read_metrics(folder / "run")] == [0, 1, 2, 3, 4, 5, 6]
    rows = folder / "rows"
    prefix = f"logger {named}: "
    assert all(line.startswith(prefix) for line in said)
    return [line.removeprefix(prefix) for line in said], rows.read_text() if rows.exists() else ""


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("raise OSError('the net is down')", "OSError: the net is down"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
        ("raise GeneratorExit", "GeneratorExit: "),
        ("import os, signal; os.chdir('/'); raise StopIteration", "StopIteration: "),
        ("import typer; raise typer.Exit(0)", "Exit: 0"),
    ],
)
def test_a_failure_is_named_and_the_next_step_is_logged(
    what: str, error: str, model: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    said, rows = run_with(tmp_path, model, expected, at="2 4", what=what)
    assert said == [f"log of step {step} failed: {error} (<string>, line 1)" for step in (2, 4)]
    assert rows == "0 1 3 5 6 closed"


def test_after_three_failures_in_a_row_it_is_left_out(model: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    said, rows = run_with(tmp_path, model, expected, at="1 3 4 5 close")
    assert [line.partition(" failed")[0] for line in said] == [
        "log of step 1",
        "log of step 3",
        "log of step 4",
        "log of step 5",
        f"left out after 3 failures in a row{METRICS}",
    ]
    assert rows == "0 2 "


def test_one_that_does_not_start_is_tried_again(model: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    said, rows = run_with(tmp_path, model, expected, at="start1 start2")
    assert [line.partition(":")[0] for line in said] == ["start failed", "start failed"]
    assert rows == "1 2 3 4 5 6 closed"


def test_one_that_never_starts_is_left_out(model: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    said, rows = run_with(tmp_path, model, expected, at="start1 start2 start3 start4")
    assert [line.partition(":")[0] for line in said] == [
        *["start failed"] * 3,
        f"left out after 3 failures in a row{METRICS}",
    ]
    assert rows == ""


def test_one_that_does_not_close_is_named(model: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    said, rows = run_with(tmp_path, model, expected, at="close")
    assert said == ["close failed: OSError: the net is down (<string>, line 1)"]
    assert rows == "0 1 2 3 4 5 6 "


@pytest.mark.parametrize("at", ["start1", "2", "close"])
def test_one_that_hangs_costs_its_limit_once(
    at: str, model: Path, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "TIMEOUT_S", 0.5)
    started = time.monotonic()
    said, rows = run_with(tmp_path, model, expected, at=at, what="RELEASED.wait(60)")
    assert time.monotonic() - started < 30
    late, busy = "failed: it did not come back within 0.5 s", "failed: an earlier call has not come back"
    out = f"left out after 3 failures in a row{METRICS}"
    assert (said, rows) == {
        "start1": ([f"start {late}", f"start {busy}", f"start {busy}", out], ""),
        "2": ([f"log of step 2 {late}", f"log of step 3 {busy}", f"log of step 4 {busy}", out], "0 1 "),
        "close": ([f"close {late}"], "0 1 2 3 4 5 6 "),
    }[at]


class Given:
    """A logger given as an object, which belongs to the thread that made it."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.thread = threading.current_thread()

    def log(self, step: int, metrics: Any) -> None:
        assert threading.current_thread() is self.thread
        if step in (2, 3, 4, 5):
            raise ValueError("full")
        self.steps.append(step)

    def close(self) -> None:
        raise SystemExit


def test_a_given_object_ends_no_training_either(model: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    said: list[str] = []
    logger = Given()
    assert start(tiny_recipe(tmp_path / "run", model, "sft"), loggers=[logger], say=said.append).finished
    assert left_behind(tmp_path / "run") == expected
    assert logger.steps == [0, 1]
    assert [line.partition(" (")[0] for line in said] == [
        *[f"logger Given: log of step {step} failed: ValueError: full" for step in (2, 3, 4)],
        f"logger Given: left out after 3 failures in a row{METRICS}",
    ]


class Broken:
    @property
    def log(self) -> Any:
        raise OSError("gone")

    close = log


def test_a_property_that_raises_ends_no_training(model: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    said: list[str] = []
    assert start(tiny_recipe(tmp_path / "run", model, "sft"), loggers=[Broken()], say=said.append).finished
    assert left_behind(tmp_path / "run") == expected
    assert [line.partition(" (")[0] for line in said] == [
        *[f"logger Broken: log of step {step} failed: OSError: gone" for step in (0, 1, 2)],
        f"logger Broken: left out after 3 failures in a row{METRICS}",
    ]


def test_a_function_that_makes_no_logger_is_named(model: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    said: list[str] = []

    def make(run: Any) -> int:
        return 3

    assert start(tiny_recipe(tmp_path / "run", model, "sft"), loggers=[make], say=said.append).finished
    assert left_behind(tmp_path / "run") == expected
    start_failed = "logger make: start failed: TypeError: it made a int, which has no `log` and `close`"
    assert [line.partition(" (")[0] for line in said[:3]] == [start_failed] * 3


def test_the_threads_of_loggers_end_with_the_run(model: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    run_with(tmp_path, model, expected)
    deadline = time.monotonic() + 10
    while left := [thread for thread in threading.enumerate() if thread.name.startswith(f"logger {tmp_path}")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def test_a_call_thread_makes_all_calls_in_one_thread_and_ends() -> None:
    threads: list[threading.Thread] = []
    caller = CallThread("one")
    for _ in range(3):
        assert caller.call(lambda: threads.append(threading.current_thread()), 10) is None
    assert len(set(threads)) == 1
    assert threads[0].name == "one"
    assert threads[0].daemon
    caller.end()
    threads[0].join(10)
    assert not threads[0].is_alive()
