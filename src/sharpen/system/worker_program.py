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
from collections.abc import Callable
from typing import Any, TextIO

MEMORY_LIMIT_BYTES = 4 << 30

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(prepare: Callable[[], Answer]) -> None:
    """Answer each JSON line from standard input, a request with its ``timeout_s``, with one JSON line.

    ``prepare`` returns the function that answers; both may print.
    """
    answers = redirected_output()
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):  # not every system supports RLIMIT_AS
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    # The default action of SIGALRM kills the process: a hung scorer must not outlive a killed trainer.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answer = prepare()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        question = json.loads(line)
        signal.alarm(math.ceil(question["timeout_s"]) + 1)
        result = answer(question)
        signal.alarm(0)
        print(json.dumps(result), file=answers)


def redirected_output() -> TextIO:
    """A duplicate of standard output for the answers; everything else printed from now on goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
