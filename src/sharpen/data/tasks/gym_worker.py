"""Worker process of `sharpen.data.tasks.gym`, run as a script.

Reads JSON lines ``{"module", "kind", "settings_kind", "parameters", "answer", "entry", …}`` from standard
input and writes one line for each: ``{"score": number}`` from the task's scorer, or ``{"raised": text, "own_raised":
bool}``, where ``own_raised`` says whether the scorer also raises for the reference answer. Parameters and entry are
encoded by `sharpen.data.tasks.gym.plain`.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from sharpen.system.worker_program import serve


def restored(value: Any) -> Any:
    """The inverse of `sharpen.data.tasks.gym.plain`."""
    if isinstance(value, list):
        return [restored(item) for item in value]
    if isinstance(value, dict):
        if "tuple" in value:
            return tuple(restored(item) for item in value["tuple"])
        return {restored(key): restored(item) for key, item in value["dict"]}
    return value


class Scorers:
    """Scorers by task, created on first use."""

    def __init__(self) -> None:
        importlib.import_module("reasoning_gym")
        self._known: dict[str, Any] = {}

    def score(self, request: dict[str, Any]) -> dict[str, Any]:
        scorer = self._scorer(request)
        try:
            return {"score": float(scorer.score_answer(request["answer"], restored(request["entry"])))}
        except MemoryError:
            raise
        # Scorers reject malformed answers with any exception; own_raised tells this from a broken scorer.
        except Exception as error:  # noqa: BLE001
            return {"raised": f"{type(error).__name__}: {error}", "own_raised": self._raises(scorer, request)}

    def _scorer(self, request: dict[str, Any]) -> Any:
        key = json.dumps([request[name] for name in ("module", "kind", "settings_kind", "parameters")])
        if key not in self._known:
            # These names come from a class loaded in the parent process, never from model output.
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


if __name__ == "__main__":
    serve(lambda: Scorers().score)
