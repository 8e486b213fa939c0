"""Folders of runs made by hand, whose numbers a reader can follow, for tests of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.runs.folder import RunFolder

Row = Mapping[str, Any]


def sample(prompt: str, completion: str, reward: float | None, **columns: Any) -> dict[str, Any]:
    """A row of a sample file; ``prompt`` is the text of the prompt, and its id."""
    return {
        "prompt_id": prompt,
        "prompt": prompt,
        "completion": completion,
        "reward": reward,
        "error": None,
        "tokens": len(completion),
        "finish": "eos",
        "draw_id": 0,
        "policy_version": 0,
        **columns,
    }


def tokens(texts: Sequence[str], **streams: Sequence[float | None]) -> dict[str, Any]:
    """The columns of a completion whose tokens were recorded; all of them are trained on."""
    return {
        "token_ids": list(range(10, 10 + len(texts))),
        "token_texts": list(texts),
        "loss_mask": [True] * len(texts),
        **streams,
    }


def page_run(
    folder: Path,
    training: Mapping[int, Sequence[Row]],
    held_out: Mapping[int, Sequence[Row]] | None = None,
    *,
    method: str = "grpo",
    steps: int | None = None,
) -> Path:
    """A run with these completions by step, and metrics of every step, which follow from them."""
    folder.mkdir(parents=True)
    last = max([*training, *(held_out or {})])
    (folder / "recipe.yaml").write_text(
        json.dumps({"method": {"name": method}, "training": {"steps": steps or last}, "model": {"path": "a model"}})
    )
    run = RunFolder(folder)
    for step, rows in training.items():
        run.sample_files.write(step, [{"step": step, **row} for row in rows])
    for step, rows in (held_out or {}).items():
        run.held_out_files.write(step, [{"step": step, **row} for row in rows])
    for step in range(min(1, *training, *(held_out or {1: ()})), last + 1):
        run.append_metrics({"step": step, **_metrics(training.get(step, ()), (held_out or {}).get(step, ()))})
    return folder


def _metrics(training: Sequence[Row], held_out: Sequence[Row]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if training:
        metrics |= {"time/rollout_s": 1.0, "tokens_per_s/rollout": 100.0}
        metrics["length/mean"] = sum(row["tokens"] for row in training) / len(training)
        metrics["truncated"] = sum(row["finish"] == "length" for row in training) / len(training)
        of_prompts = [
            {row["reward"] for row in training if row["prompt"] == p} for p in {r["prompt"] for r in training}
        ]
        metrics["groups/zero_spread"] = sum(len(found) == 1 for found in of_prompts) / len(of_prompts)
    if rewards := [row["reward"] for row in training if row["reward"] is not None]:
        mean = sum(rewards) / len(rewards)
        metrics["reward/mean"] = mean
        metrics["reward/std"] = (sum((reward - mean) ** 2 for reward in rewards) / len(rewards)) ** 0.5
    if right := [float(row["right"]) for row in held_out]:
        metrics["held_out/pass@1"] = sum(right) / len(right)
    return metrics
