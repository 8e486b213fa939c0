"""The process that forks one supervisor per job. It holds no secrets and never sees a job's contents."""

from __future__ import annotations

import gc
import os
import signal
import socket
import traceback
from importlib import import_module

from . import wire
from .confinement import LEVELS, Unconfined
from .supervisor import supervise

_COMMON = """
abc array atexit bisect cmath collections contextlib copy ctypes dataclasses datetime decimal enum fractions functools
heapq io itertools json linecache math operator queue random re statistics string struct textwrap threading
time traceback types typing
"""
"""Modules that many programs import: loaded here once instead of in every program."""


def serve(control: socket.socket, level_name: str) -> None:
    """Enter the level, report that it is ready, and fork until the other side is gone."""
    for name in _COMMON.split():
        import_module(name)
    try:
        level = LEVELS[level_name]()
        level.enter()
    except OSError as error:
        control.sendall(wire.pack({"missing": str(error)}))
        return
    control.sendall(wire.pack({"ready": level_name, "user": os.getuid()}))
    os.dup2(1, 2)  # to /dev/null: nobody reads stderr from now on
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the supervisors
    gc.freeze()  # a collection in a job would otherwise copy all these pages
    job = 0
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 8)  # one byte per job, so that two never merge
        if not message:
            return
        _fork(control, level, job, fds)
        job += 1


def _fork(control: socket.socket, level: Unconfined, job: int, fds: list[int]) -> None:
    level.before_job()
    zygote = os.getpid()
    if os.fork() == 0:
        code = 1
        try:
            control.close()
            parent = socket.socket(fileno=fds[0])
            try:
                supervise(level, job, zygote, parent, fds[1:])
                code = 0
            except Exception:  # noqa: BLE001 - report any error: the job's result is unknown, and the parent must know
                parent.sendall(wire.pack({"machinery": traceback.format_exc()[-4000:]}))
        finally:
            os._exit(code)
    for fd in fds:
        os.close(fd)
