"""What the tests of `sharpen.train` share: a model of a second or less, rows and a reward."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import sharpen
from sharpen.launch.run import Run
from sharpen.models.character_model import create_character_model

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]
SMALL: dict[str, Any] = {
    "rollout": {"max_new_tokens": 4},
    "training": {"steps": 2, "prompts_per_step": 2},
    "checkpoint": {"every": 1},
}


def digit_model(path: Path) -> Path:
    return create_character_model(
        path, alphabet="0123456789+=", hidden=16, intermediate=32, layers=1, heads=2, context=32
    )


def first_digit(completion: str, answer: str, **row: object) -> float:
    return float(completion[:1] == answer[:1])


def untimed(run: Run) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "tokens_per_s/"))} for row in run.metric_rows()]


def redo(run: Run, **arguments: Any) -> Run:
    """The run again from its beginning, as a resumed one."""
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
    return sharpen.resume(run, **arguments)


def never(*arguments: Any, **settings: Any) -> None:
    raise AssertionError("a model is loaded")
