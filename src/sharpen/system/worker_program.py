"""The worker side of `sharpen.system.workers`: a loop that answers requests over standard input and output.

It isolates third-party scorers, which may print, use unbounded memory, or hang.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

MEMORY_LIMIT_BYTES = 4 << 30
MEMORY_STATUS = 77
"""The exit status of a worker that a question took all of its memory from."""

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(prepare: Callable[[], Answer]) -> None:
    """Answer each JSON line from standard input with one JSON line; see `sharpen.system.workers.WorkerPool.judge`.

    A question has its ``timeout_s`` of processor time, after which SIGPROF ends the process, and ``wall_s``, by which
    the asker has given up. An answer gets ``cpu_s``, the processor time that it took. A question that takes all memory
    ends the process too: what it left behind must not cost the next one. ``prepare`` returns the function that answers,
    once it has shown that it works: what fails later is the question's doing. Both may print.
    """
    answers = redirected_output()
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):  # not every system supports RLIMIT_AS
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    # Their default action ends the process, even within C code.
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    answer = prepare()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        question = json.loads(line)
        # A hung scorer must not outlive a killed trainer.
        signal.alarm(math.ceil(question["wall_s"]) + 1)
        signal.setitimer(signal.ITIMER_PROF, question["timeout_s"])
        started_s = time.process_time()
        try:
            result = answer(question)
        except MemoryError:
            os._exit(MEMORY_STATUS)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        print(json.dumps({**result, "cpu_s": time.process_time() - started_s}), file=answers)


def redirected_output() -> TextIO:
    """A duplicate of standard output for the answers; everything else printed from now on goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
