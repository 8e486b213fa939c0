"""The program that `sharpen.data.tasks.gym` runs beside the training process, as a script and not as a module.

Reads one JSON line after another from standard input, ``{"module", "kind", "settings_kind", "parameters", "answer",
"entry", "timeout_s"}``, and writes one line each: ``{"score": number}`` from the task's own scorer, or ``{"raised":
text, "own_raised": bool}``, which says whether it raises for the task's own answer too. Parameters and entry are as
`sharpen.data.tasks.gym.plain` makes them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import resource
import signal
import sys
from typing import Any

MEMORY_LIMIT_BYTES = 4 << 30


def restored(value: Any) -> Any:
    """What `sharpen.data.tasks.gym.plain` made plain data of."""
    if isinstance(value, list):
        return [restored(item) for item in value]
    if isinstance(value, dict):
        if "tuple" in value:
            return tuple(restored(item) for item in value["tuple"])
        return {restored(key): restored(item) for key, item in value["dict"]}
    return value


class Scorers:
    """The scorers of the tasks asked for so far."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def score(self, request: dict[str, Any]) -> dict[str, Any]:
        scorer = self._scorer(request)
        try:
            return {"score": float(scorer.score_answer(request["answer"], restored(request["entry"])))}
        except MemoryError:
            raise
        # How a scorer refuses an answer of the wrong form is any exception; whether it was the answer is looked at.
        except Exception as error:  # noqa: BLE001
            return {"raised": f"{type(error).__name__}: {error}", "own_raised": self._raises(scorer, request)}

    def _scorer(self, request: dict[str, Any]) -> Any:
        key = json.dumps([request[name] for name in ("module", "kind", "settings_kind", "parameters")])
        if key not in self._known:
            # The names are those of a class that the asking process has loaded; no model wrote them.
            module = importlib.import_module(request["module"])
            settings = getattr(importlib.import_module(request["settings_kind"][0]), request["settings_kind"][1])
            self._known[key] = getattr(module, request["kind"])(settings(**restored(request["parameters"])))
        return self._known[key]

    def _raises(self, scorer: Any, request: dict[str, Any]) -> bool:
        entry = restored(request["entry"])
        try:
            scorer.score_answer("" if entry["answer"] is None else entry["answer"], entry)
        except Exception:  # noqa: BLE001
            return True
        return False


def main() -> None:
    # Scorers may print; only results may enter the pipe.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):  # not every system lets the address space be limited
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    # By default SIGALRM ends the process: a scorer that hangs must not outlive a trainer that was killed.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    importlib.import_module("reasoning_gym")
    scorers = Scorers()
    print(json.dumps({"ready": True}), file=results)
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(math.ceil(request["timeout_s"]) + 1)
        answer = scorers.score(request)
        signal.alarm(0)
        print(json.dumps(answer), file=results)


if __name__ == "__main__":
    main()
