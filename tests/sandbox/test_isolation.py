"""The levels, the sandbox's life, and that it needs nothing of the package."""

import ast
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from host import children, interpreter_for_nobody, run_as_nobody

import sharpen.sandbox
from sharpen.sandbox import Isolation, Limits, Sandbox, SandboxError, Status
from sharpen.sandbox import zygote as zygote_module

HOME = Path(sharpen.sandbox.__file__).parent


def imported(path: Path) -> set[str]:
    """The modules that a file names, relative ones as those of the sandbox."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(f"sharpen.sandbox.{node.module}" if node.level else str(node.module))
    return names


def test_it_imports_the_standard_library_and_itself_only() -> None:
    for path in HOME.rglob("*.py"):
        for name in imported(path):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or name.startswith("sharpen.sandbox"), f"{path.name} imports {name}"


def test_what_runs_inside_imports_by_its_own_folder_only() -> None:
    for path in (HOME / "inside").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path
                assert not (node.module or "").startswith("sharpen"), path


def test_it_works_alone(alone: Path) -> None:
    source = "from sharpen.sandbox import Sandbox\nwith Sandbox() as s: print(s.run('print(6 * 7)').stdout)"
    done = subprocess.run(
        [sys.executable, "-c", source], env={"PYTHONPATH": str(alone)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "b'42\\n'\n", done.stderr


def test_no_isolation_must_be_asked_for_by_name() -> None:
    with pytest.raises(ValueError, match="unsafe=True"):
        Sandbox("none")
    with Sandbox("none", unsafe=True) as sandbox:
        assert sandbox.run("import os; print(os.getcwd())").status is Status.OK
        assert sandbox.isolation is Isolation.NONE


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="docker"):
        Sandbox("docker")


def forbid(monkeypatch: pytest.MonkeyPatch, *levels: str) -> None:
    """As on a machine that cannot give these levels."""
    real = zygote_module.Zygote.__init__

    def start(self: zygote_module.Zygote, level: str, *more: object) -> None:
        if level in levels:
            raise zygote_module.Missing(f"{level} is not allowed here")
        real(self, level, *more)

    monkeypatch.setattr(zygote_module.Zygote, "__init__", start)


def test_without_user_namespaces_the_next_level_is_taken_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forbid(monkeypatch, "namespaces")
    with caplog.at_level(logging.WARNING), Sandbox() as sandbox:
        assert sandbox.run("print(1)").stdout == b"1\n"
        assert sandbox.isolation is Isolation.LANDLOCK
        os.kill(zygote_pid(), signal.SIGKILL)
        wait_until(lambda: sandbox._zygote is not None and not sandbox._zygote.is_alive)
        assert sandbox.run("print(1)").stdout == b"1\n"
    assert [record.message for record in caplog.records] == [
        "isolation level is landlock; not available: namespaces: namespaces is not allowed here"
    ]


def test_where_nothing_works_the_error_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, "namespaces", "landlock")
    with Sandbox() as sandbox, pytest.raises(SandboxError, match=r"namespaces is not.*landlock is not.*unsafe=True"):
        sandbox.run("print(1)")
    with Sandbox(unsafe=True) as sandbox:
        assert sandbox.isolation is Isolation.NONE


def test_another_system_than_linux_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.sandbox.zygote.sys.platform", "darwin")
    with Sandbox() as sandbox, pytest.raises(SandboxError, match=r"namespaces: needs Linux, and this is darwin"):
        sandbox.run("")


def test_a_kernel_that_refuses_user_namespaces_is_noticed(alone: Path) -> None:
    python = interpreter_for_nobody()
    if python is None or os.getuid() != 0:
        pytest.skip("needs root, and a Python that other users can start")
    done = run_as_nobody(
        python,
        alone,
        """
        import ctypes
        # In a user namespace where there may be no other, as where a distribution allows none at all.
        assert ctypes.CDLL(None).unshare(0x10000000) == 0
        for name, text in (("setgroups", "deny"), ("uid_map", "65534 65534 1"), ("gid_map", "65534 65534 1")):
            open(f"/proc/self/{name}", "w").write(text)
        open("/proc/sys/user/max_user_namespaces", "w").write("0")
        from sharpen.sandbox import Sandbox, SandboxError
        with Sandbox("namespaces") as sandbox:
            try:
                sandbox.run("")
            except SandboxError as error:
                print("namespaces: [Errno 28] unshare" in str(error))
        with Sandbox() as sandbox:
            print(sandbox.isolation, sandbox.run("print(1)").stdout)
        """,
    )
    assert done.stdout == "True\nlandlock b'1\\n'\n", done.stderr
    assert done.stderr.count("isolation level is landlock") == 1


def test_a_closed_sandbox_says_so_and_leaves_no_process() -> None:
    before = children(os.getpid())
    sandbox = Sandbox()
    sandbox.run("print(1)")
    assert children(os.getpid()) - before
    sandbox.close()
    wait_until(lambda: not children(os.getpid()) - before)
    with pytest.raises(SandboxError, match="closed"):
        sandbox.run("print(1)")


def zygote_pid() -> int:
    """The one zygote that this process started last."""
    own = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    found = [int(pid) for pid in Path(own).read_text().split()]
    zygotes = [pid for pid in found if "start.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    # Numbers begin again at the bottom, so the highest need not be the last.
    return max(
        zygotes, key=lambda pid: (int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid)
    )


def wait_until(condition: object, timeout_s: float = 10) -> None:
    assert callable(condition)
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def test_a_dead_zygote_is_no_fault_of_the_program_and_is_replaced() -> None:
    raised: list[Exception] = []

    def run(sandbox: Sandbox) -> None:
        try:
            sandbox.run("import time; time.sleep(30)", limits=Limits(wall_s=40))
        except SandboxError as error:
            raised.append(error)

    with Sandbox() as sandbox:
        sandbox.run("")
        before = children(os.getpid())
        threads = [threading.Thread(target=run, args=(sandbox,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(children(os.getpid()) - before) >= 4)  # two supervisors with a job each
        os.kill(zygote_pid(), signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert len(raised) == 2
        assert "unknown" in str(raised[0])
        assert sandbox.run("print(2)").stdout == b"2\n"


def test_when_the_trainer_is_killed_nothing_goes_on() -> None:
    source = (
        "import threading, time\nfrom sharpen.sandbox import Sandbox\ns = Sandbox()\ns.run('')\n"
        "for _ in range(2): threading.Thread(target=s.run, args=('while True: pass',)).start()\n"
        "time.sleep(0.5)\nprint('running', flush=True)\ntime.sleep(60)"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", source], env={"PYTHONPATH": str(HOME.parents[1])}, stdout=subprocess.PIPE
    )
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == b"running\n"
    left = children(trainer.pid)
    assert len(left) >= 5
    trainer.kill()
    trainer.communicate()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))


def test_a_fork_of_the_trainer_gets_a_zygote_of_its_own() -> None:
    with Sandbox() as sandbox:
        sandbox.run("")
        pid = os.fork()
        if pid == 0:
            os._exit(0 if sandbox.run("print(3)").stdout == b"3\n" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert sandbox.run("print(4)").stdout == b"4\n"


def test_many_runs_leave_nothing_over(sandbox: Sandbox) -> None:
    programs = [
        ("print(1)", Status.OK),
        ("1 / 0", Status.ERROR),
        ("import os; os._exit(0)", Status.OK),
        ("import ctypes; ctypes.string_at(0)", Status.KILLED),
        ("print('x' * 10**6)", Status.OUTPUT),
        ("import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", Status.OK),
    ]
    sandbox.run("")
    processes, descriptors = children(os.getpid()), set(os.listdir("/proc/self/fd"))
    for n in range(120):
        source, status = programs[n % len(programs)]
        assert sandbox.run(source, limits=Limits(output_bytes=1000)).status is status
        if n % 10 == 0:
            assert sandbox.check("assert f() == 1", "def f():\n    return 1", entry_point="f").passed
            assert len(sandbox.call("def f():\n    return 1", "f", [[]] * 3).outcomes) == 3
    # One that was just ending when they were counted may be gone.
    wait_until(lambda: not children(os.getpid()) - processes)
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_an_ordinary_user_has_both_levels(alone: Path) -> None:
    python = interpreter_for_nobody()
    if python is None or os.getuid() != 0:
        pytest.skip("needs root, and a Python that other users can start")
    done = run_as_nobody(
        python,
        alone,
        """
        from sharpen.sandbox import Sandbox
        for level in ("namespaces", "landlock"):
            with Sandbox(level) as sandbox:
                print(sandbox.isolation, sandbox.run("import os; print(os.getuid())").stdout)
        """,
    )
    assert done.stdout == "namespaces b'65534\\n'\nlandlock b'65534\\n'\n", done.stderr
