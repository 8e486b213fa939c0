"""`sharpen view` as a process of its own, and what a browser would send it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from queue import Empty, Queue
from urllib.parse import urlsplit

START_S = 90.0
"""A busy machine takes long to import what the command needs."""


@dataclass
class Served:
    process: subprocess.Popen[str]
    address: str
    """With the token."""
    said: list[str] = field(default_factory=list)
    """Lines of both streams so far."""
    cookie: str = ""

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 80

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, headers: dict[str, str] | None = None, timeout_s: float = 60.0) -> HTTPResponse:
        """The answer; its body is read by whoever wants it. Paths are sent as they are."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        connection.request("GET", path, headers={"Cookie": self.cookie} | (headers or {}))
        return connection.getresponse()

    def enter(self) -> None:
        answer = self.get("/?" + urlsplit(self.address).query)
        assert answer.status == 303
        self.cookie = (answer.getheader("set-cookie") or "").partition(";")[0]

    def stopped(self, signum: int, within_s: float = 15.0) -> int:
        self.process.send_signal(signum)
        return self.process.wait(within_s)


@contextmanager
def served(*arguments: str | Path, cwd: Path) -> Iterator[Served]:
    """The command with these arguments, once it has printed its address."""
    program = "import sys; from sharpen.cli.app import main; sys.argv[0] = 'sharpen'; main()"
    command = [sys.executable, "-c", program, "view", *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines: Queue[str] = Queue()
    found = Served(process, "")

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            found.said.append(line)
            lines.put(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        found.address = _address(process, lines, found.said)
        yield found
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(10)


def _address(process: subprocess.Popen[str], lines: Queue[str], said: list[str]) -> str:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        try:
            line = lines.get(timeout=0.2)
        except Empty:
            assert process.poll() is None, f"ended with {process.returncode}: {said}"
            continue
        if match := re.search(r"http://\S+/\?token=\S+", line):
            return match[0]
    raise AssertionError(f"no address in {START_S} s: {said}")
