"""A run that a signal ends has a checkpoint, and goes on from there as if it had not been ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydantic
import pytest
from typer.testing import CliRunner

import sharpen
from one_thread import one_thread
from sharpen.cli.app import app
from sharpen.launch.run import Run, resume, start
from sharpen.pipelines import demo
from sharpen.runs.folder import read_metrics
from sharpen.system import signals as stopping
from sharpen.system.signals import Stopped
from sharpen.training import trainer as trainer_module
from tiny_runs import Raising, assert_left_the_same, digits, left_behind, reward_file, tiny_recipe, tiny_start_model

__all__ = ["one_thread"]

WAIT_S = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("signals") / "model")


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run leaves."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(tiny_recipe(folder / "run", model, "grpo", reward=reward_file(folder / "reward.py"))).finished
    return left_behind(folder / "run")


def begun(folder: Path, model: Path, reward: str, /, *, stderr: Any = subprocess.PIPE, **changes: Any) -> Any:
    """The command ``sharpen run`` in a process, and what it is to write."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(tiny_recipe(folder / "run", model, "grpo", reward=reward, **changes.pop("recipe", {})).to_yaml())
    return subprocess.Popen(
        [sys.executable, "-c", "from sharpen.cli.app import main; main()", "run", str(recipe)],
        stderr=stderr,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **changes,
    )


@contextmanager
def ended(process: Any) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


def wait_for(process: Any, happened: Callable[[], bool]) -> None:
    patience = time.monotonic() + WAIT_S
    while not happened():
        assert process.poll() is None, f"it had ended with {process.returncode}"
        assert time.monotonic() < patience
        time.sleep(0.005)


def rows(folder: Path) -> int:
    metrics = folder / "run" / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def assert_stopped_in_order(folder: Path, whole: dict[str, Any]) -> None:
    """The last step that was done has its checkpoint, and the run ends as one that was not stopped."""
    run = folder / "run"
    last = int(read_metrics(run)[-1]["step"])
    assert last < 6
    assert (run / "checkpoints" / f"step_{last:06d}" / "manifest.json").exists()
    (folder / "reward.pause_s").write_text("0")
    assert resume(run).finished
    assert_left_the_same(run, whole)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_scheduler_gets_a_checkpoint(
    signum: signal.Signals, code: int, model: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """``timeout`` and some shells send the signal twice."""
    process = begun(tmp_path, model, reward_file(tmp_path / "reward.py", pause_s=0.02))
    with ended(process):
        wait_for(process, lambda: rows(tmp_path) >= 3)
        process.send_signal(signum)
        time.sleep(0.05)
        process.send_signal(signum)
        _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == code, said
    said = " ".join(said.split())
    assert f"{signum.name}: stopping after this step, with a checkpoint, if it ends within 30 s" in said
    assert f"to continue: sharpen run --resume {tmp_path / 'run'}" in said
    assert "Traceback" not in said
    assert_stopped_in_order(tmp_path, whole)


def test_a_terminal_that_is_closed_leaves_a_checkpoint(model: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    """Every write to it then fails, and the reward prints too."""
    reward = reward_file(tmp_path / "reward.py", pause_s=0.02)
    file = tmp_path / "reward.py"
    file.write_text(file.read_text().replace("    return", "    print('seen', flush=True)\n    return"))
    master, slave = os.openpty()
    process = begun(
        tmp_path, model, reward, stdin=slave, stdout=slave, stderr=slave, preexec_fn=lambda: os.login_tty(slave)
    )
    os.close(slave)
    reading = threading.Thread(target=_drain, args=(master, lambda: rows(tmp_path) >= 3))
    with ended(process):
        reading.start()
        wait_for(process, lambda: rows(tmp_path) >= 3)
        reading.join(WAIT_S)
        os.close(master)
        assert process.wait(WAIT_S) == 129
    # The state has the hash of the reward's source, which prints here.
    assert_stopped_in_order(tmp_path, {name: value for name, value in whole.items() if name != "trainer/state.json"})


def _drain(terminal: int, enough: Callable[[], bool]) -> None:
    os.set_blocking(terminal, False)
    while not enough():
        try:
            os.read(terminal, 65536)
        except OSError:
            time.sleep(0.005)


def test_a_pipe_that_nobody_reads_ends_no_run(model: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = begun(tmp_path, model, reward_file(tmp_path / "reward.py"), stdout=write, stderr=write)
    os.close(write)
    with ended(process):
        assert process.wait(WAIT_S) == 0
    assert_left_the_same(tmp_path / "run", whole)


def test_nohup_is_respected(model: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    process = begun(
        tmp_path,
        model,
        reward_file(tmp_path / "reward.py", pause_s=0.01),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    with ended(process):
        wait_for(process, lambda: rows(tmp_path) >= 2)
        process.send_signal(signal.SIGHUP)
        _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert "SIGHUP" not in said
    assert_left_the_same(tmp_path / "run", whole)


HANGING = """
import pathlib, time
calls = 0
def digits(completion, **row):
    global calls
    calls += 1
    if calls > ALLOWED:
        pathlib.Path(HERE, "hangs").touch()
        time.sleep(600)
    return sum(c.isdigit() for c in completion) / 8
"""


@pytest.mark.parametrize(("allowed", "step"), [(0, None), (12 + 2 * 16 + 12 + 3, 2)])
def test_when_the_grace_is_over_the_process_ends_and_names_the_latest_checkpoint(
    allowed: int, step: int | None, model: Path, tmp_path: Path
) -> None:
    """12 calls an evaluation, 16 a step: in the first evaluation, and in step 3."""
    (tmp_path / "reward.py").write_text(HANGING.replace("ALLOWED", str(allowed)).replace("HERE", repr(str(tmp_path))))
    recipe = {"checkpoint": {"grace_s": 0.5}}
    process = begun(tmp_path, model, f"{tmp_path / 'reward.py'}:digits", recipe=recipe)
    with ended(process):
        wait_for(process, (tmp_path / "hangs").exists)
        sent_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=WAIT_S)
    assert time.monotonic() - sent_s >= 0.5
    assert process.returncode == 143
    said = " ".join(said.split())
    latest = tmp_path / "run" / "checkpoints" / "step_000002"
    where = f"the latest checkpoint is {latest}" if step else "there is no checkpoint yet"
    assert (
        "SIGTERM: this step did not end within 0.5 s (checkpoint.grace_s), stopped at once; "
        f"{where}; to continue: sharpen run --resume {tmp_path / 'run'}" in said
    )
    assert latest.exists() == bool(step)


def test_a_signal_before_anything_is_begun(model: Path, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, 'loads').touch()\ntime.sleep(600)\n"
    )
    process = begun(tmp_path, model, f"{tmp_path / 'reward.py'}:digits")
    with ended(process):
        wait_for(process, (tmp_path / "loads").exists)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=WAIT_S)
    assert (process.returncode, said.strip()) == (143, "stopped before anything was written")
    assert not (tmp_path / "run").exists()


def sending(signum: signal.Signals, step: int) -> Raising:
    return Raising(lambda now: now == step, lambda: signal.raise_signal(signum))


def test_a_signal_that_compiled_code_turns_into_an_error_of_its_own_is_still_the_signal() -> None:
    """pydantic wraps whatever a serializer raises."""

    class Interrupted(pydantic.BaseModel):
        value: int = 1

        @pydantic.field_serializer("value")
        def serialised(self, value: int) -> int:
            signal.raise_signal(signal.SIGTERM)
            return value

    with pytest.raises(Stopped) as raised, stopping.stopped_at_once():
        Interrupted().model_dump()
    assert raised.value.signum == signal.SIGTERM
    with pytest.raises(ValueError, match="no signal"), stopping.stopped_at_once():
        raise ValueError("no signal")


def test_a_signal_while_a_checkpoint_is_written(
    model: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written whole, and the run ends with the next; however long that takes, it is not cut off meanwhile."""
    exits: list[int] = []
    save = trainer_module.save_checkpoint

    def slow(*arguments: Any, **settings: Any) -> Path:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.5)
        return save(*arguments, **settings)

    path = tmp_path / "run"
    recipe = tiny_recipe(
        path, model, "grpo", reward=reward_file(tmp_path / "reward.py"), checkpoint={"grace_s": 0.1, "best": None}
    )
    with monkeypatch.context() as patched:
        patched.setattr(stopping.os, "_exit", exits.append)
        patched.setattr(trainer_module, "save_checkpoint", slow)
        done = start(recipe)
    assert (done.finished, done.signum, exits) == (False, signal.SIGTERM, [])
    assert done.model == path / "checkpoints" / "step_000003"
    assert resume(path).finished
    expected = {name: value for name, value in whole.items() if name != "trainer/state.json"}
    assert_left_the_same(path, expected)


def test_without_a_limit_the_run_waits_for_its_step(model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = tiny_recipe(
        tmp_path / "run", model, "grpo", reward=reward_file(tmp_path / "reward.py"), checkpoint={"grace_s": None}
    )
    done = start(recipe, loggers=[sending(signal.SIGTERM, 1)], say=said.append)
    assert done == Run(tmp_path / "run", tmp_path / "run" / "checkpoints" / "step_000002", finished=False)
    assert "SIGTERM: stopping after this step, with a checkpoint" in said


def train(model: Path, run: Path, reward: Any = digits) -> Run:
    rows = [{"prompt": f"{a}+{b}="} for a in range(3) for b in range(3)]
    return sharpen.train(
        {"path": str(model), "device": "cpu"},
        {"name": "grpo", "group_size": 2},
        rows,
        reward=reward,
        run=run,
        quiet=True,
        rollout={"max_new_tokens": 4},
        training={"steps": 3, "prompts_per_step": 2},
    )


@contextmanager
def handler_of(signum: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


def terminating(completion: str) -> float:
    os.kill(os.getpid(), signal.SIGTERM)
    return digits(completion)


def test_from_python_the_signal_goes_on_to_the_program_around(model: Path, tmp_path: Path) -> None:
    """After the checkpoint: to its own handler, or it ends the program, so that no further run begins."""
    heard: list[int] = []

    def own(signum: int, frame: object) -> None:
        heard.append(signum)

    with handler_of(signal.SIGTERM, own):
        done = train(model, tmp_path / "own", terminating)
        assert signal.getsignal(signal.SIGTERM) is own
    assert not done.finished
    assert done.model.name == "step_000001"
    assert heard == [signal.SIGTERM]
    with handler_of(signal.SIGTERM, signal.SIG_DFL), pytest.raises(SystemExit) as ended:
        train(model, tmp_path / "none", terminating)
    assert ended.value.code == 143
    assert (tmp_path / "none" / "checkpoints" / "step_000001").exists()


def test_in_another_thread_no_handler_is_touched(model: Path, tmp_path: Path) -> None:
    handlers = [signal.getsignal(signum) for signum in stopping.ENDING]
    seen: list[Any] = []

    def looking(completion: str) -> float:
        seen.append([signal.getsignal(signum) for signum in stopping.ENDING])
        return digits(completion)

    done: list[Run] = []
    thread = threading.Thread(target=lambda: done.append(train(model, tmp_path / "run", looking)))
    thread.start()
    thread.join(WAIT_S)
    assert done[0].finished
    assert all(found == handlers for found in seen)
    train(model, tmp_path / "main", looking)
    assert seen[-1] != handlers
    assert [signal.getsignal(signum) for signum in stopping.ENDING] == handlers


def test_a_stage_of_the_demo_that_is_stopped_ends_the_demo_with_the_code_of_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(recipe: Any, **options: Any) -> Run:
        return Run(recipe.run, recipe.run, finished=False, signum=signal.SIGTERM)

    monkeypatch.setattr(demo, "start", stopped)
    assert CliRunner().invoke(app, ["demo", "--quick", "--run", str(tmp_path)]).exit_code == 143

    def interrupted(recipe: Any, **options: Any) -> Run:
        raise Stopped(signal.SIGHUP)

    monkeypatch.setattr(demo, "start", interrupted)
    assert CliRunner().invoke(app, ["demo", "--quick", "--run", str(tmp_path)]).exit_code == 129


class Clock:
    """The trainer's ``time``; a step takes 40 seconds of it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.perf_counter = time.perf_counter

    def monotonic(self) -> float:
        return self.now_s


def test_a_checkpoint_every_so_many_minutes(
    model: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every minute and a half is after steps of 40 s each: 3 and 6; with one every 5 steps too, 3 and 5."""
    clock = Clock()
    step = trainer_module.Trainer.train_step

    def timed(self: Any) -> Any:
        clock.now_s += 40
        return step(self)

    monkeypatch.setattr(trainer_module, "time", clock)
    monkeypatch.setattr(trainer_module.Trainer, "train_step", timed)
    reward = reward_file(tmp_path / "reward.py")
    for every, written in ((0, [3, 6]), (5, [3, 5, 6])):
        path = tmp_path / f"every_{every}"
        settings = {"every": every, "every_minutes": 1.5, "keep": 4, "best": None}
        start(tiny_recipe(path, model, "grpo", reward=reward, checkpoint=settings))
        assert sorted(c.name for c in (path / "checkpoints").glob("step_*")) == [f"step_{s:06d}" for s in written]
        expected = {name: value for name, value in whole.items() if name != "trainer/state.json"}
        assert_left_the_same(path, expected)
    path = tmp_path / "keep"
    start(tiny_recipe(path, model, "grpo", reward=reward, checkpoint={"every": 0, "every_minutes": 0.5, "keep": 2}))
    kept = [c.name for c in sorted((path / "checkpoints").glob("step_*"))]
    assert kept[-2:] == ["step_000005", "step_000006"]
    assert len(kept) <= 3
