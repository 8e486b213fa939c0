"""One process at a time writes a run, and says so to the others; its end, however sudden, frees the run."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sharpen.errors import RunInUseError, SharpenError
from sharpen.launch.run import resume, start
from sharpen.runs.folder import read_metrics
from sharpen.runs.lock import run_lock
from sharpen.runs.lookup import find_model
from sharpen.sandbox import Sandbox
from sharpen.system.workers import Worker
from tiny_runs import Raising, assert_left_the_same, left_behind, tiny_recipe, tiny_start_model

COMMAND = [sys.executable, "-c", "from sharpen.cli.app import main; main()"]
PATIENCE_S = 120.0

HELD_REWARD = """
import os, time

def digits(completion, **row):
    while os.path.exists({hold!r}) and os.path.exists({metrics!r}) and len(open({metrics!r}).readlines()) > 3:
        time.sleep(0.01)
    return sum(c.isdigit() for c in completion) / 8
"""
"""The usual one, which waits in step 4 as long as a file is there."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("lock") / "model")


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def until(what: Callable[[], bool]) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < patience
        time.sleep(0.01)


def rows(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


@contextmanager
def at_work(recipe: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*COMMAND, "run", str(recipe)], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_second_process_is_refused_and_a_killed_one_hinders_nobody(model: Path, tmp_path: Path) -> None:
    run, written, hold, reward = (tmp_path / name for name in ("run", "recipe.yaml", "hold", "reward.py"))
    hold.touch()
    reward.write_text(HELD_REWARD.format(hold=str(hold), metrics=str(run / "metrics.jsonl")))
    recipe = tiny_recipe(run, model, "grpo", reward=f"{reward}:digits")
    written.write_text(recipe.to_yaml())
    with at_work(written) as first:
        until(lambda: rows(run) == 4)
        holder = f"{run} is in use by process {first.pid} on {socket.gethostname()}, since 20"
        for again in (lambda: start(recipe), lambda: resume(run)):
            with pytest.raises(RunInUseError, match=re.escape(holder)):
                again()
        assert json.loads((run / "lock").read_text())["pid"] == first.pid
        # To read a run takes no lock.
        assert find_model(str(run)).path == str(run / "checkpoints" / "step_000002")
        assert first.poll() is None
        first.kill()
        hold.unlink()
        assert resume(run).finished
        assert first.wait() == -signal.SIGKILL
    assert [row["step"] for row in read_metrics(run)] == list(range(7))
    whole = tmp_path / "whole"
    start(recipe.model_copy(update={"run": whole}))
    assert_left_the_same(run, left_behind(whole))


def test_of_two_that_start_at_once_one_does_the_run(model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, "sft")
    together, finished, turned_away = threading.Barrier(2), [], []

    def begin() -> None:
        together.wait(PATIENCE_S)
        try:
            finished.append(start(recipe).finished)
        except SharpenError as error:
            turned_away.append(str(error))

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert finished == [True]
    assert len(turned_away) == 1
    # Where the first is through within the second's patience, its run is there.
    assert re.search(rf"in use by process {os.getpid()} on |already holds a run", turned_away[0])
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == list(range(7))


def test_of_two_threads_one_does_the_run(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = tiny_recipe(run, model, "sft")
    second: list[BaseException] = []

    def try_too() -> None:
        for attempt in (lambda: start(recipe), lambda: resume(run)):
            try:
                attempt()
            except BaseException as error:  # noqa: BLE001 - looked at below
                second.append(error)

    thread = threading.Thread(target=try_too)
    meanwhile = Raising(lambda step: step == 2, lambda: (thread.start(), thread.join(PATIENCE_S)))
    assert start(recipe, loggers=[meanwhile]).finished
    assert [type(error) for error in second] == [RunInUseError] * 2
    assert all(f"in use by process {os.getpid()} " in str(error) for error in second)
    assert [row["step"] for row in read_metrics(run)] == list(range(7))
    # Its end frees it.
    assert resume(run).finished


def test_a_forked_process_that_outlives_the_holder_does_not_keep_the_run(tmp_path: Path) -> None:
    ready, done = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        with run_lock(tmp_path, print):
            if os.fork() == 0:
                os.close(done[1])
                os.write(ready[1], b"x")
                os.read(done[0], 1)
                os._exit(0)
            os.read(ready[0], 1)
            os.write(ready[1], b"y")
            time.sleep(PATIENCE_S)
        os._exit(1)
    assert os.read(ready[0], 1) in b"xy"
    until(lambda: (tmp_path / "lock").exists() and bool((tmp_path / "lock").read_text()))
    with pytest.raises(RunInUseError, match=f"in use by process {holder} "), run_lock(tmp_path, print):
        pass
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with run_lock(tmp_path, print):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    os.close(done[1])


def test_no_helper_process_has_the_lock(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('{}', flush=True)\nfor line in sys.stdin: print(line, end='', flush=True)\n")
    run = tmp_path / "run"
    with run_lock(run, print), Sandbox(unsafe=True) as sandbox:
        worker = Worker(script)
        assert worker.ask({"a": 1}, 60) == {"a": 1}
        assert sandbox.run("print(1)").stdout == b"1\n"
        inode = (run / "lock").stat().st_ino
        having = [int(pid) for pid, number in open_inodes() if number == inode]
        worker.close()
    assert having == [os.getpid()]


def open_inodes() -> Iterator[tuple[str, int]]:
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        # It may be closed meanwhile, or another user's.
        with suppress(OSError):
            yield link.parts[2], link.stat().st_ino


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_once_and_hinders_no_run(
    number: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    said: list[str] = []
    assert start(tiny_recipe(tmp_path / "run", model, "sft"), say=said.append).finished
    assert [line for line in said if "lock" in line] == [
        f"{tmp_path / 'run' / 'lock'}: this file system has no locks ({os.strerror(number)}); make sure that only one "
        "process uses it"
    ]


def test_another_error_of_the_file_system_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken"), run_lock(tmp_path, print):
        pass


def test_what_was_made_for_the_lock_goes_where_no_run_began(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "deep" / "run"):
        with run_lock(folder, print):
            assert (folder / "lock").exists()
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "recipe.yaml").write_text("")
    with run_lock(tmp_path, print):
        pass
    assert (tmp_path / "lock").read_text() == ""


def test_a_lock_on_a_file_that_was_just_removed_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last holder removed it after it was opened here: with that one locked, another could lock the new one."""
    lock, run = fcntl.flock, tmp_path / "run"

    def flock(descriptor: int, operation: int) -> None:
        if removals:
            removals.pop()()
        lock(descriptor, operation)

    removals: list[Callable[[], object]] = [(run / "lock").unlink, lambda: shutil.rmtree(run)]
    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock(run, print):
        assert removals == []
        with pytest.raises(RunInUseError), run_lock(run, print):
            pass


def test_who_waits_gets_a_folder_that_its_holder_removes(tmp_path: Path) -> None:
    def hold() -> None:
        with run_lock(tmp_path / "run", print):
            held.set()
            time.sleep(0.3)

    held = threading.Event()
    for _ in range(3):
        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(PATIENCE_S)
        with run_lock(tmp_path / "run", print):
            assert json.loads((tmp_path / "run" / "lock").read_text())["pid"] == os.getpid()
        holder.join(PATIENCE_S)
        held.clear()


def test_a_lock_of_no_readable_content_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    with run_lock(tmp_path, print):
        (tmp_path / "lock").write_text("[]")
        with pytest.raises(RunInUseError, match="in use by another process: wait"), run_lock(tmp_path, print):
            pass


def test_a_refused_start_of_a_run_that_is_there_changes_nothing(model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, "sft")
    start(recipe)
    before = left_behind(tmp_path / "run")
    with pytest.raises(Exception, match="already holds a run"):
        start(recipe)
    assert left_behind(tmp_path / "run") == before
