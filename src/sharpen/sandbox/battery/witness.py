"""The targets of hostile programs, and what happened to them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from sharpen.sandbox.inside import linux

from .prelude import Targets

_ENVIRONMENT_NAME = "SHARPEN_SANDBOX_CANARY"
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphaned descendants become our children, so that none can hide
_LEAVING_S = 5.0


class Witness:
    """Canary files, listening sockets and a victim process, for hostile programs run in turn. A context manager."""

    def __init__(self, apart_from: int | None = None) -> None:
        """
        Args:
            apart_from: a process whose descendants are not the programs'.
        """
        self._apart_from = apart_from
        self._secret = secrets.token_hex(16)
        self._name = f"sharpen-{secrets.token_hex(8)}"
        self._folder = Path(tempfile.mkdtemp(prefix="sharpen-sandbox-check-"))
        self._outside = self._folder / "outside"
        self._streams: dict[str, socket.socket] = {}
        self._datagrams: dict[str, socket.socket] = {}
        self._known: set[int] = set()
        self._lay_out()
        self._listen()
        self._victim = self._start_victim()
        os.environ[_ENVIRONMENT_NAME] = self._secret
        linux.prctl(_SUBREAPER, 1)

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.environ.pop(_ENVIRONMENT_NAME, None)
        self._victim.kill()
        self._victim.wait()
        for listener in (*self._streams.values(), *self._datagrams.values()):
            listener.close()
        shutil.rmtree(self._folder)
        linux.prctl(_SUBREAPER, 0)

    @property
    def targets(self) -> Targets:
        """The addresses of everything, for the programs."""
        return Targets(
            canary=str(self._folder / "canary"),
            outside=str(self._outside),
            tcp_port=self._streams["TCP"].getsockname()[1],
            udp_port=self._datagrams["UDP"].getsockname()[1],
            unix_path=str(self._folder / "unix"),
            abstract_name=self._name,
            victim_pid=self._victim.pid,
            trainer_pid=os.getpid(),
        )

    def snapshot(self) -> None:
        """Record the processes that exist before a program."""
        self._known = _descendants(self._apart_from)

    def effects(self, *written: bytes) -> list[str]:
        """What happened since `snapshot`, in words. Restores everything.

        Args:
            written: the output of the program.
        """
        found = [f"the secret came out of the {where}" for where in self._secrets(written)]
        found += self._visitors()
        found += self._changes()
        state = _state(self._victim.pid)
        if state not in ("S", "R"):
            found.append(f"the other process is in state {state}")
            self._victim.kill()
            self._victim.wait()
            self._victim = self._start_victim()
        return found + self._leftovers()

    def _lay_out(self) -> None:
        self._folder.chmod(0o755)
        (self._folder / "canary").write_text(self._secret)
        (self._folder / "canary").chmod(0o644)
        self._renew_outside()

    def _renew_outside(self) -> None:
        if self._outside.exists():
            shutil.rmtree(self._outside)
        self._outside.mkdir()
        self._outside.chmod(0o777)
        kept = self._outside / "kept"
        kept.write_text("kept")
        kept.chmod(0o666)
        self._before = _picture(self._outside)

    def _listen(self) -> None:
        self._streams["TCP"] = socket.create_server(("127.0.0.1", 0))
        with contextlib.suppress(OSError):  # a machine without IPv6, or with the port taken there
            port = self._streams["TCP"].getsockname()[1]
            self._streams["TCP over IPv6"] = socket.create_server(("::1", port), family=socket.AF_INET6)
        self._datagrams["UDP"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams["UDP"].bind(("127.0.0.1", 0))
        for kind, address in (("unix socket", str(self._folder / "unix")), ("abstract socket", "\0" + self._name)):
            self._streams[kind] = socket.socket(socket.AF_UNIX)
            self._streams[kind].bind(address)
            self._streams[kind].listen()
        (self._folder / "unix").chmod(0o777)
        self._datagrams["abstract datagrams"] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._datagrams["abstract datagrams"].bind(f"\0{self._name}-datagrams")
        for listener in (*self._streams.values(), *self._datagrams.values()):
            listener.setblocking(False)

    def _start_victim(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import time\nwhile True: time.sleep(1000)"],
            env={_ENVIRONMENT_NAME: self._secret},
            stdin=subprocess.DEVNULL,
        )

    def _secrets(self, written: tuple[bytes, ...]) -> list[str]:
        return ["program" for text in written if self._secret.encode() in text][:1]

    def _visitors(self) -> list[str]:
        found = []
        for kind, listener in self._streams.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
                    found.append(f"a connection: {kind}")
        for kind, listener in self._datagrams.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.recv(100)
                    found.append(f"a datagram: {kind}")
        return found

    def _changes(self) -> list[str]:
        after = _picture(self._outside)
        changed = sorted(
            name for name in self._before.keys() | after.keys() if self._before.get(name) != after.get(name)
        )
        if changed:
            self._renew_outside()
        return [f"outside its folder it changed {', '.join(changed)}"] if changed else []

    def _leftovers(self) -> list[str]:
        """Processes of the program that do not end by themselves; kills them."""
        until = time.monotonic() + _LEAVING_S
        while left := _descendants(self._apart_from) - self._known - {self._victim.pid}:
            if time.monotonic() > until:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._reap(left)
                return [f"{len(left)} processes were left"]
            self._reap(left)
            time.sleep(0.005)
        return []

    def _reap(self, pids: set[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _picture(folder: Path) -> dict[str, tuple[object, ...]]:
    """Name → mode, owner, size, ctime and content of each file."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in folder.iterdir():
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        seen[path.name] = (stat.st_mode, stat.st_uid, stat.st_size, stat.st_ctime_ns, content)
    return seen


def _state(pid: int) -> str:
    """The state of a process after all its pending signals were delivered."""
    try:
        while True:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            state = status["State"].split()[0]
            if state == "Z" or not int(status["SigPnd"], 16) | int(status["ShdPnd"], 16):
                return state
            time.sleep(0.001)
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def _descendants(apart_from: int | None) -> set[int]:
    parents: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    level = {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found - {apart_from}
        found |= level
    return found
