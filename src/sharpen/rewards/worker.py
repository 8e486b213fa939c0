"""A helper process that answers one question at a time and is ended when an answer takes too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Lock, Timer
from typing import Any

START_TIMEOUT_S = 60.0


class Worker:
    """Runs ``script`` and exchanges JSON lines with it; usable from any thread.

    The script first writes a line to say that it is ready, then one line for each line that it reads, and
    ends when its input does. It is started at the first question, and again after it was ended or died.
    """

    def __init__(self, script: Path) -> None:
        self.script = script
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The script's answer.

        Raises TimeoutError if there is none within ``timeout_s``, RuntimeError if the script ended without
        one.
        """
        with self._lock:
            try:
                process = self._running()
                return self._exchange(process, json.dumps(question), timeout_s)
            except BaseException:
                # An answer that is still on its way would be taken for that of the next question.
                self._stop()
                raise

    def close(self) -> None:
        """Ends the process, if there is one, once it has answered."""
        with self._lock:
            self._stop()

    def end(self) -> None:
        """Ends the process, if there is one, at once: whoever waits for its answer gets an error."""
        process = self._process
        if process is not None and self._owner == os.getpid():
            process.kill()
        self.close()

    def _running(self) -> subprocess.Popen[str]:
        # After a fork the pipes are shared with the parent process: each needs its own.
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._stop()
        self._process = subprocess.Popen(
            # -P: the script's folder holds a math.py, which must not hide Python's own.
            [sys.executable, "-P", str(self.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the trainer
        )
        self._owner = os.getpid()
        self._exchange(self._process, None, START_TIMEOUT_S)
        return self._process

    def _exchange(self, process: subprocess.Popen[str], line: str | None, timeout_s: float) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        expired = False

        def end() -> None:
            nonlocal expired
            expired = True
            process.kill()

        timer = Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            if line is not None:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
            timer.join()
        if answer.endswith("\n") and not expired:
            return dict(json.loads(answer))
        if expired:
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        raise RuntimeError(f"{self.script.name} ended with status {process.wait()}")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # a question that was never read
                    continue
