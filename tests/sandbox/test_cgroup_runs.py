"""One cgroup for each run, and what its failures mean. `fake_cgroups` stands for the kernel; the programs are real."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_cgroups import EVENTS, FakeCgroups, fake_proc, mounted

from sharpen.sandbox import Limits, Sandbox, SandboxError, Status
from sharpen.sandbox import sandbox as sandbox_module
from sharpen.sandbox.cgroups import files
from sharpen.sandbox.cgroups.delegated import delegated_cgroup
from sharpen.sandbox.cgroups.files import Cgroup
from sharpen.sandbox.cgroups.runs import RunCgroups
from sharpen.sandbox.inside.forking import MOVE

LIMITS = Limits(memory_bytes=100 << 20, files_bytes=5 << 20, threads=3)
WRITTEN = [("memory.max", str(105 << 20)), ("memory.swap.max", "0"), ("memory.oom.group", "1"), ("pids.max", "4")]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroups:
    return FakeCgroups(tmp_path / "cgroup", monkeypatch)


@pytest.fixture
def folder(kernel: FakeCgroups, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A delegated cgroup, named by the environment."""
    folder = kernel.delegate("sharpen")
    (folder / "cgroup.subtree_control").write_text("memory pids\n")
    monkeypatch.setenv("SHARPEN_CGROUP", str(folder))
    return folder


@pytest.fixture
def sandbox(folder: Path) -> Iterator[Sandbox]:
    with Sandbox() as made:
        assert made.cgroup == folder
        yield made


def in_its_cgroup(folder: Path) -> Path:
    """The cgroup of the only run, once its process has joined it: 0 is the process that writes."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for procs in folder.glob("sharpen-runs-*/[0-9]*/cgroup.procs"):
            if procs.read_text() == "0":
                return procs.parent
        time.sleep(0.001)
    raise AssertionError("no process joined a cgroup")


def test_the_bytes_of_a_runs_limits(kernel: FakeCgroups, folder: Path) -> None:
    runs = RunCgroups(Cgroup(folder), MOVE)
    kernel.written.clear()
    run = runs.new(LIMITS)
    os.close(run.fd)
    home = next(folder.glob("sharpen-runs-*"))
    assert kernel.written == [(f"sharpen/{home.name}/0", *line) for line in WRITTEN]
    assert run.end() == 0
    assert list(home.glob("*/")) == []
    runs.close()
    assert list(folder.glob("*/")) == []


def test_the_zygote_is_beside_the_runs_and_may_start_processes_in_them(
    kernel: FakeCgroups, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Path, int]] = []
    monkeypatch.setattr(files.os, "chown", lambda path, user, group: given.append((path, user)))
    runs = RunCgroups(Cgroup(folder), MOVE)
    kernel.written.clear()
    runs.take_in(17)
    home = next(folder.glob("sharpen-runs-*"))
    assert kernel.written == [(f"sharpen/{home.name}/zygote", "cgroup.procs", "17")]
    runs.let(os.geteuid())
    os.close(runs.new(LIMITS).fd)
    assert given == []
    runs.let(os.geteuid() + 1)
    os.close(runs.new(LIMITS).fd)
    assert given == [(home / "cgroup.procs", os.geteuid() + 1), (home / "1" / "cgroup.procs", os.geteuid() + 1)]
    runs.close()


def test_a_kernel_without_swap_has_no_limit_for_it(
    kernel: FakeCgroups, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = kernel.make

    def make(path: Path) -> Path:
        real(path)
        (path / "memory.swap.max").unlink()
        return path

    monkeypatch.setattr(kernel, "make", make)
    runs = RunCgroups(Cgroup(folder), MOVE)
    kernel.written.clear()
    os.close(runs.new(LIMITS).fd)
    assert [line[1] for line in kernel.written] == ["memory.max", "memory.oom.group", "pids.max"]
    runs.close()


def test_a_failed_limit_leaves_no_cgroup_and_is_a_failure_of_the_machinery(kernel: FakeCgroups, folder: Path) -> None:
    runs = RunCgroups(Cgroup(folder), MOVE)
    kernel.failing["pids.max"] = OSError(errno.EIO, "Input/output error", "pids.max")
    with pytest.raises(SandboxError, match=r"a run's cgroup could not be made: .*'pids.max'"):
        runs.new(LIMITS)
    assert list(folder.glob("sharpen-runs-*/[0-9]*/")) == []
    runs.close()


def test_processes_that_do_not_end_are_a_failure_of_the_machinery_after_a_bounded_wait(
    kernel: FakeCgroups, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_REMOVAL_TIMEOUT_S", 0.05)
    runs = RunCgroups(Cgroup(folder), MOVE)
    run = runs.new(LIMITS)
    os.close(run.fd)
    home = next(folder.glob("sharpen-runs-*/0"))
    monkeypatch.setattr(kernel, "write", lambda path, name, text: None)  # the kill has no effect
    kernel._put(home, [17])
    started = time.monotonic()
    with pytest.raises(SandboxError, match=f"processes in it do not end: '{home}'"):
        run.end()
    assert 0.05 < time.monotonic() - started < 5
    kernel._put(home, [])
    assert run.end() == 0


def test_an_old_kernel_cannot_end_a_cgroup(kernel: FakeCgroups, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = kernel.make
    monkeypatch.setattr(kernel, "make", lambda path: (real(path) / "cgroup.kill").unlink())
    with pytest.raises(SandboxError, match=r"older than Linux 5\.14"):
        RunCgroups(Cgroup(folder), MOVE)
    assert list(folder.glob("*/")) == []


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_has_is_kept(
    kernel: FakeCgroups, folder: Path
) -> None:
    for name in ("sharpen-runs-1-dead", "sharpen-runs-2-live", "sharpen-main", "other"):
        kernel.make(folder / name)
    (folder / "sharpen-runs-1-dead" / "cgroup.subtree_control").write_text("memory pids\n")
    kernel._put(kernel.make(folder / "sharpen-runs-1-dead" / "0"), [17])
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, time\nfcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
            "print(flush=True)\ntime.sleep(60)",
            str(folder / "sharpen-runs-2-live"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        runs = RunCgroups(Cgroup(folder), MOVE)
        left = {path.name for path in folder.glob("*/")}
        assert left - {path.name for path in folder.glob(f"sharpen-runs-{os.getpid()}-*")} == {
            "sharpen-runs-2-live",
            "sharpen-main",
            "other",
        }
        runs.close()
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    RunCgroups(Cgroup(folder), MOVE).close()
    assert {path.name for path in folder.glob("*/")} == {"sharpen-main", "other"}


def test_its_lock_shows_that_it_is_in_use(kernel: FakeCgroups, folder: Path) -> None:
    runs = RunCgroups(Cgroup(folder), MOVE)
    fd = os.open(next(folder.glob("sharpen-runs-*")), os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    runs.close()


def test_a_program_runs_in_its_cgroup_which_is_removed_after_it(sandbox: Sandbox, folder: Path) -> None:
    seen: list[dict[str, str]] = []

    def look() -> None:
        home = in_its_cgroup(folder)
        seen.append({name: (home / name).read_text().strip() for name, _ in WRITTEN})

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    result = sandbox.run("import time; time.sleep(1); print(6 * 7)", limits=LIMITS)
    watcher.join(30)
    assert (result.status, result.stdout) == (Status.OK, b"42\n"), result.stderr
    assert seen == [dict(WRITTEN)]
    assert list(folder.glob("sharpen-runs-*/[0-9]*/")) == []


def test_a_program_has_no_descriptor_of_its_cgroup(sandbox: Sandbox) -> None:
    source = """
import os
for fd in range(1024):
    try:
        os.fstat(fd)
    except OSError:
        continue
    print(fd)
"""
    assert sandbox.run(source).stdout == b"0\n1\n2\n3\n"


@pytest.mark.parametrize(
    ("end", "expected"),
    [("ctypes.string_at(0)", Status.MEMORY), ("os._exit(0)", Status.OK), ("time.sleep(60)", Status.MEMORY)],
)
def test_a_program_that_the_kernel_killed_for_its_memory_ended_by_memory(
    sandbox: Sandbox, folder: Path, end: str, expected: Status
) -> None:
    def kill() -> None:
        (in_its_cgroup(folder) / "memory.events").write_text(EVENTS.replace("oom_kill 0", "oom_kill 2"))

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    result = sandbox.run(f"import ctypes, os, time; time.sleep(0.5); {end}", limits=Limits(wall_s=3))
    watcher.join(30)
    assert result.status is expected


def test_a_signal_without_a_kill_for_memory_is_none(sandbox: Sandbox) -> None:
    assert sandbox.run("import ctypes; ctypes.string_at(0)").status is Status.KILLED


def test_a_cgroup_that_cannot_be_joined_later_is_a_failure_and_never_a_run_without_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Cgroup.open_to_write
    monkeypatch.setattr(Cgroup, "open_to_write", lambda cgroup, name: os.open(cgroup.path / name, os.O_RDONLY))
    with pytest.raises(SandboxError, match="the job could not join its cgroup"):
        sandbox.run("print(1)")
    monkeypatch.setattr(Cgroup, "open_to_write", real)
    assert sandbox.run("print(1)").stdout == b"1\n"


def test_events_that_cannot_be_read_are_a_failure_and_no_verdict(sandbox: Sandbox, folder: Path) -> None:
    watcher = threading.Thread(target=lambda: (in_its_cgroup(folder) / "memory.events").unlink(), daemon=True)
    watcher.start()
    with pytest.raises(SandboxError, match=r"a run's cgroup could not be ended: .*memory.events"):
        sandbox.run("import time; time.sleep(0.5)")
    watcher.join(30)


def test_a_new_zygote_gets_new_cgroups_and_the_old_ones_are_removed(sandbox: Sandbox, folder: Path) -> None:
    before = set(folder.glob("sharpen-runs-*"))
    assert sandbox._zygote is not None
    sandbox._zygote._process.kill()
    sandbox._zygote._process.wait()
    assert sandbox.run("print(1)").stdout == b"1\n"
    after = set(folder.glob("sharpen-runs-*"))
    assert len(before) == len(after) == 1
    assert not before & after
    sandbox.close()
    assert not set(folder.glob("sharpen-runs-*"))


def test_a_named_cgroup_that_does_not_work_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cgroup, "open_to_write", lambda cgroup, name: os.open(cgroup.path / name, os.O_RDONLY))
    with Sandbox() as sandbox, pytest.raises(SandboxError, match=f"SHARPEN_CGROUP={folder}: .*could not join"):
        sandbox.run("")
    monkeypatch.setenv("SHARPEN_CGROUP", str(tmp_path))
    with Sandbox() as sandbox, pytest.raises(SandboxError, match=f"SHARPEN_CGROUP={tmp_path}: .*is not the folder of"):
        sandbox.run("")


def test_which_limits_are_in_use_is_logged_once(
    kernel: FakeCgroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sharpen.sandbox")
    monkeypatch.delenv("SHARPEN_CGROUP", raising=False)
    folder = kernel.delegate("scope", os.getpid())
    proc = fake_proc(tmp_path / "proc", "0::/scope\n", mounted(kernel.root), {1: 0, os.getpid(): 1})
    monkeypatch.setattr(
        sandbox_module, "delegated_cgroup", lambda named: delegated_cgroup(named, proc=proc, systemd=tmp_path / "none")
    )
    sandbox_module._say_limits.cache_clear()
    for _ in range(2):
        with Sandbox() as sandbox:
            assert sandbox.cgroup == folder
            assert sandbox.why_no_cgroup == ""
        (proc / "self" / "cgroup").write_text("0::/scope/sharpen-main\n")
    monkeypatch.setattr(Cgroup, "open_to_write", lambda cgroup, name: os.open(cgroup.path / name, os.O_RDONLY))
    for _ in range(2):
        with Sandbox() as sandbox:
            assert sandbox.cgroup is None
            assert "could not join its cgroup" in sandbox.why_no_cgroup
            assert sandbox.run("print(1)").stdout == b"1\n"
    assert [(record.levelname, record.getMessage().partition(": ")[0]) for record in caplog.records] == [
        ("INFO", f"each program gets its limits from a cgroup in {folder}"),
        ("INFO", "programs' limits are rlimits, which do not count the kernel's memory"),
    ]
