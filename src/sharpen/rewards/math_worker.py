"""The program that `sharpen.rewards.math` runs beside the training process, as a script and not as a module.

Reads one JSON line ``{"expected", "answer", "timeout_s"}`` after another from standard input and writes one
line each, ``{"equal": bool}`` or ``{"unreadable": true}`` for an expected answer that is no mathematics.
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

from math_verify import parse, verify

MEMORY_LIMIT_BYTES = 4 << 30


def compare(expected: str, answer: str) -> dict[str, bool]:
    """Whether the two answers, each as LaTeX or plain text without surrounding ``$``, are equal."""
    gold = parse(f"${expected}$", parsing_timeout=None)
    if not gold:
        return {"unreadable": True}
    found = parse(f"${answer}$", parsing_timeout=None)
    return {"equal": bool(verify(gold, found, timeout_seconds=None))}


def main() -> None:
    # Libraries may print; only results may enter the pipe.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):  # not every system lets the address space be limited
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    # By default SIGALRM ends the process: a comparison that hangs must not outlive a trainer that was killed.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    print(json.dumps({"ready": True}), file=results)
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(math.ceil(request["timeout_s"]) + 1)
        answer = compare(request["expected"], request["answer"])
        signal.alarm(0)
        print(json.dumps(answer), file=results)


if __name__ == "__main__":
    main()
